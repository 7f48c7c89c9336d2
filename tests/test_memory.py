"Memory settings belong to a process of their own: the command makes one, the tests' keeps none and says what it took"
import os
import platform
import subprocess
import sys

from dataclasses import replace

import pytest
from conftest import ROOT, SMALL_NET

glibc = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason="this C library cannot be told to keep memory")


def python(*words, **kwargs):
    env = os.environ | {'PYTHONPATH': os.pathsep.join(map(str, (ROOT/'tests', ROOT)))}
    words = [sys.executable, *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=env, **kwargs)


@glibc
@pytest.mark.slow
def test_it_can_be_seen():
    code = ("from conftest import gives_memory_back; from resnet_course.fast import keep_memory\n"
            "print(gives_memory_back(), keep_memory(), gives_memory_back())")
    assert python('-c', code).stdout.split() == ['True', 'True', 'False']


@glibc
@pytest.mark.slow
@pytest.mark.parametrize('recipe, start', [
    ('fast', "runpy.run_module('resnet_course', run_name='__main__')"),
    ('fast', "from resnet_course.cli import main; main()"),
    ('book', "from resnet_course.cli import main; main()"),
], ids=['module', 'script', 'book'])
def test_the_command_keeps_memory_unless_it_trains_as_the_book_does(small, tmp_path, recipe, start):
    code = f"import conftest, runpy, sys; sys.argv[0] = 'resnet-course'; {start}; print(conftest.gives_memory_back())"
    options = ['--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', 1, '--recipe', recipe]
    done = python('-c', code, 'train', *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(recipe == 'book')


@pytest.mark.slow
@pytest.mark.parametrize('does, says', [
    ('conftest.LIMIT_GB = 0.001', 'the tests took more than 0.001 GB'),
    pytest.param('ctypes.CDLL(None).mallopt(-4, 0)', 'a test made this process keep its memory', marks=glibc),
], ids=['much', 'kept'])
def test_a_session_that_breaks_the_rule_fails(tmp_path, does, says):
    (tmp_path/'test_one.py').write_text(f"import conftest, ctypes\ndef test_one(): {does}\n")
    (tmp_path/'pytest.ini').write_text('[pytest]')
    done = python('-m', 'pytest', '-p', 'conftest', 'test_one.py', cwd=tmp_path)
    assert done.returncode == 1 and '1 passed' in done.stdout and f'FAILED: {says}' in done.stdout, done.stdout


def machine(root, available, groups, **files):
    "What Linux tells about itself, as files below `root`"
    for name, text in {'proc/meminfo': f'MemTotal: 99 kB\nMemAvailable: {available} kB\n', 'proc/self/cgroup': groups,
                       **files}.items():
        file = root/name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


V1, V2 = 'sys/fs/cgroup/memory', 'sys/fs/cgroup'
LIMITS = {
    'none': ('0::/\n', {}, 1000*1024),
    'no limit': ('0::/\n', {f'{V2}/memory.max': 'max\n', f'{V2}/memory.current': '5\n'}, 1000*1024),
    'v2': ('0::/\n', {f'{V2}/memory.max': '600000\n', f'{V2}/memory.current': '500000\n'}, 100_000),
    'v2, some of it files that can go': (
        '0::/\n', {f'{V2}/memory.max': '600000\n', f'{V2}/memory.current': '500000\n',
                   f'{V2}/memory.stat': 'anon 9\ninactive_file 70000\n'}, 170_000),
    'v2, the outer one is less': (
        '0::/a/b\n', {f'{V2}/a/b/memory.max': '900000\n', f'{V2}/a/b/memory.current': '1000\n',
                      f'{V2}/a/memory.max': '600000\n', f'{V2}/a/memory.current': '590000\n'}, 10_000),
    'v2, full': ('0::/\n', {f'{V2}/memory.max': '600000\n', f'{V2}/memory.current': '700000\n'}, 0),
    'v1': ('5:cpu:/x\n4:memory:/x\n', {f'{V1}/x/memory.limit_in_bytes': '600000\n',
                                       f'{V1}/x/memory.usage_in_bytes': '400000\n',
                                       f'{V1}/x/memory.stat': 'total_inactive_file 50000\n'}, 250_000),
    'v1, beside others': ('4:cpu,memory:/x\n', {f'{V1}/memory.limit_in_bytes': '600000\n',
                                                f'{V1}/memory.usage_in_bytes': '400000\n'}, 200_000),
    'v1, no limit': ('4:memory:/\n', {f'{V1}/memory.limit_in_bytes': f'{2**63-4096}\n',
                                      f'{V1}/memory.usage_in_bytes': '400000\n'}, 1000*1024)}


@pytest.mark.parametrize('name', LIMITS)
def test_memory_of_a_container(tmp_path, name):
    from resnet_course.machine import free_memory
    groups, files, free = LIMITS[name]
    assert free_memory(machine(tmp_path, 1000, groups, **files)) == free


def test_what_has_no_room_is_refused_before_it_is_built(images, tmp_path, monkeypatch):
    from tiny import TINY, fit

    from resnet_course.errors import CourseError
    monkeypatch.setattr('resnet_course.machine.free_memory', lambda: 3_000_000_000)
    recipe = replace(TINY, net='resnet50', net_options={}, sizes=(512,)*2, presize=512, bs=24)
    with pytest.raises(CourseError, match=r'bs=24 at 512 px needs .* GB of memory or more, and 3.0 GB are free') as e:
        fit(recipe, images, tmp_path/'run')
    assert '\n' not in str(e.value) and not (tmp_path/'run').exists()
