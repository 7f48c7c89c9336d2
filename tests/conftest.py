"Shared by the tests: the repository, a small folder of images, the command run in this process; the memory it may take"
import ctypes
import os
import resource
import shutil
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:  # torch in each of them takes its share of the cores, no more
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, os.cpu_count()//int(os.environ['PYTEST_XDIST_WORKER_COUNT']))))

ROOT = Path(__file__).resolve().parent.parent
slow = partial(pytest.param, marks=pytest.mark.slow)
a_class_of_one = pytest.mark.filterwarnings('ignore:none of class')  # so that none of it can be held out
LIMIT_GB = 5  # of memory, the whole session
SMALL_NET = ['--layers', '1,1,1,1', '--width', '8', '--size', '32', '--presize', '32', '--bs', '8', '--workers', '0']


def pytest_addoption(parser):
    parser.addoption('--fuzz', action='store_true', help="all cases of test_fuzz, not a tenth of them")


@pytest.fixture(scope='session')
def digits():
    from resnet_course.data import digits_path
    return digits_path()


def linked_digits(root, digits, n_train, n_val, classes='37'):
    "A data folder of links to so many images of each class"
    for split, n in (('train', n_train), ('val', n_val)):
        for label in classes:
            (root/split/label).mkdir(parents=True)
            for f in sorted((digits/split/label).iterdir())[:n]: (root/split/label/f.name).symlink_to(f)
    return root


@pytest.fixture
def small(tmp_path, digits):
    "A data folder of two classes with 12 training and 4 validation images each"
    for split, n in (('train', 12), ('val', 4)):
        for label in '37':
            folder = tmp_path/'small'/split/label
            folder.mkdir(parents=True)
            for f in sorted((digits/split/label).iterdir())[:n]: shutil.copy(f, folder)
    return tmp_path/'small'


@pytest.fixture
def unsplit(tmp_path, digits):
    "A folder for each class, nothing held out: 10 images of 3, 5 of 7, one of 9"
    for label, n in (('3', 10), ('7', 5), ('9', 1)):
        (tmp_path/'photos'/label).mkdir(parents=True)
        for f in sorted((digits/'train'/label).iterdir())[:n]: shutil.copy(f, tmp_path/'photos'/label)
    return tmp_path/'photos'


@pytest.fixture(scope='session')
def images(tmp_path_factory, digits):
    "As `small`, for tests that only read it"
    return linked_digits(tmp_path_factory.mktemp('data')/'images', digits, 12, 4)


@pytest.fixture(scope='session')
def done(images, tmp_path_factory):
    "A run of `TINY` that nothing stopped"
    from tiny import TINY, fit
    return fit(TINY, images, tmp_path_factory.mktemp('done')/'run')


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    "The user's cache folder of the course is an empty one, in this test and in what it starts"
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    return tmp_path/'cache'/'resnet_course'


@pytest.fixture
def memory_given_back(monkeypatch):
    "What runs in this process leaves its memory settings alone: `keep_memory` is for one that ends with the training"
    import resnet_course.fast  # noqa: F401  passes the function itself on, for ever
    monkeypatch.setattr('resnet_course.step.keep_memory', lambda: False)


@pytest.fixture
def plain_user():
    "File permissions hold in this test and in what it starts, for root too, who lays down the right to pass over them"
    if os.geteuid(): return (yield)
    if sys.platform != 'linux': pytest.skip("root may write everywhere, and lays that right down on Linux only")
    libc, header, rights = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32*2)(0x20080522, 0), (ctypes.c_uint32*6)()

    def call(name, *args):
        if (result := getattr(libc, name)(*args)) < 0: raise OSError(ctypes.get_errno(), f"{name} failed")
        return result
    # PR_GET_SECUREBITS, PR_SET_SECUREBITS, SECBIT_NOROOT: root's programs start without rights
    get_bits, set_bits, no_root = 27, 28, 1
    bits = call('prctl', get_bits)
    call('prctl', set_bits, bits | no_root)
    call('capget', header, rights)
    effective, pass_over = rights[0], 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    rights[0] &= ~pass_over
    call('capset', header, rights)
    yield
    rights[0] = effective
    call('capset', header, rights)
    call('prctl', set_bits, bits)


@pytest.fixture
def bench(monkeypatch, memory_given_back):
    "A script of bench/ as a module, and a function that calls it with the words of a command line"
    import torch
    monkeypatch.syspath_prepend(str(ROOT/'bench'))
    threads = torch.get_num_threads()

    def load(name):
        def run(*words):
            monkeypatch.setattr(sys, 'argv', [f'{name}.py', *map(str, words)])
            script.main()
        script = import_module(name)
        return script, run
    yield load
    torch.set_num_threads(threads)


@pytest.fixture
def command(capsys, memory_given_back):
    "Run `resnet-course WORDS` here; give exit status, standard output, standard error"
    from resnet_course.cli import main

    def run(*words):
        try: main([str(w) for w in words])
        except SystemExit as e: status = e.code or 0
        else: status = 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err
    return run


@pytest.fixture
def refused(command):
    "Run `resnet-course WORDS`, require exit status 2 and one line on standard error, and give that line"
    def run(*words):
        status, _, err = command(*words)
        assert status == 2, err
        assert err.startswith('resnet-course: ') and err.count('\n') == 1, err
        return err
    return run


class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')]


def gives_memory_back():
    "Whether the C library asks the system for each large block and so gives it back at once; `keep_memory` ends that"
    libc = ctypes.CDLL(None)
    info = getattr(libc, 'mallinfo2', None)
    if info is None: return True  # not glibc, or one of before 2021: nothing to look at
    info.restype, libc.malloc.restype, libc.free.argtypes = Mallinfo, ctypes.c_void_p, [ctypes.c_void_p]
    before = info().hblks  # blocks that were mapped each for itself
    block = libc.malloc(ctypes.c_size_t(2**31))  # more than the room that a net of 64 million weights leaves behind
    mapped = info().hblks-before
    libc.free(block)
    return mapped == 1


def peak_gb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**(30 if sys.platform == 'darwin' else 20)


def faults_of_memory():
    if peak_gb() > LIMIT_GB:
        yield f"the tests took more than {LIMIT_GB} GB: let the largest run in a process of its own"
    if not gives_memory_back():
        yield ("a test made this process keep its memory: let it take `memory_given_back`, "
               "or run in a process of its own")


seen = []  # in each process that ran tests: its peak of memory, and what is wrong with its memory


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    output, here = getattr(session.config, 'workeroutput', None), (peak_gb(), list(faults_of_memory()))
    if output is not None: output['seen'] = here  # a worker tells the process that started it
    elif not seen: seen.append(here)  # the only one
    if output is None and any(faults for _, faults in seen) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    if 'seen' in getattr(node, 'workeroutput', {}): seen.append(node.workeroutput['seen'])


def pytest_terminal_summary(terminalreporter):
    for report in terminalreporter.getreports('passed'):
        for name, value in report.user_properties: terminalreporter.write_line(f"{name}: {value}")
    terminalreporter.write_line("peak of memory: " + ' and '.join(f'{gb:.1f} GB' for gb, _ in seen))
    for _, faults in seen:
        for fault in faults: terminalreporter.write_line(f"FAILED: {fault}", red=True)
