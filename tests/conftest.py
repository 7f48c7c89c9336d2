"Shared by the tests: the repository, a small folder of images, the command run in this process"
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL_NET = ['--layers', '1,1,1,1', '--width', '8', '--size', '32', '--presize', '32', '--bs', '8', '--workers', '0']


@pytest.fixture(scope='session')
def digits():
    from resnet_course.data import digits_path
    return digits_path()


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
def command(capsys):
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
