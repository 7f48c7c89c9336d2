"Memory settings belong to a process of their own: the command makes one, the tests' keeps none and says what it took"
import os
import platform
import subprocess
import sys

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


@pytest.mark.parametrize('does, says', [
    ('conftest.LIMIT_GB = 0.001', 'the tests took more than 0.001 GB'),
    pytest.param('ctypes.CDLL(None).mallopt(-4, 0)', 'a test made this process keep its memory', marks=glibc),
], ids=['much', 'kept'])
def test_a_session_that_breaks_the_rule_fails(tmp_path, does, says):
    (tmp_path/'test_one.py').write_text(f"import conftest, ctypes\ndef test_one(): {does}\n")
    (tmp_path/'pytest.ini').write_text('[pytest]')
    done = python('-m', 'pytest', '-p', 'conftest', 'test_one.py', cwd=tmp_path)
    assert done.returncode == 1 and '1 passed' in done.stdout and f'FAILED: {says}' in done.stdout, done.stdout
