"A run that is stopped in any epoch and resumed ends with the same bytes as one that was never stopped"
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from conftest import linked_digits
from forked import Command

pytestmark = pytest.mark.slow  # each trains once or twice
EPOCHS = 4
OPTIONS = ('--layers 1,1,1,1 --width 8 --progressive 32,48 --presize 48 --bs 8 --workers 0 '
           f'--epochs {EPOCHS} --seed 3').split()


def start(*words): return Command('train', *words)


def start_python(*words):
    command = [sys.executable, '-m', 'resnet_course', 'train', *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits):
    "Ten classes with 8 training and 2 validation images each, linked from the embedded set"
    return linked_digits(tmp_path_factory.mktemp('images'), digits, 8, 2, '0123456789')


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
    "The run that nothing stopped"
    out = tmp_path_factory.mktemp('whole')/'run'
    finish(start('--data', images, '--out', out, *OPTIONS))
    return out


def results(out):
    history = pd.read_csv(out/'history.csv').drop(columns='seconds')
    return (out/'model.safetensors').read_bytes(), history.to_csv()


def test_run_folder(whole):
    assert {f.name for f in whole.iterdir()} == {
        'config.json', 'history.csv', 'curves.png', 'confusion.png', 'model.safetensors', 'checkpoint.pt',
        'trained.txt'}
    history = pd.read_csv(whole/'history.csv')
    assert list(history) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'seconds', 'lr', 'size']
    assert list(history['epoch']) == [1, 2, 3, 4] and list(history['size']) == [32, 32, 48, 48]


def test_same_seed_same_bytes(images, whole, tmp_path):
    finish(start_python('--data', images, '--out', tmp_path/'run', *OPTIONS))
    assert results(tmp_path/'run') == results(whole)


@pytest.mark.parametrize('start, stop, status, after', [
    (start, signal.SIGKILL, -9, 0), (start, signal.SIGKILL, -9, 1), (start, signal.SIGKILL, -9, 3),
    (start, signal.SIGTERM, 143, 2), (start_python, signal.SIGINT, 130, 1)])
def test_stopped_and_resumed(images, whole, tmp_path, start, stop, status, after):
    "Stop the process in the epoch that follows `after` finished ones; it prints an epoch's line after the checkpoint"
    out = tmp_path/'run'
    process = start('--data', images, '--out', out, *OPTIONS)
    for _ in range(1+after): assert process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert 'Traceback' not in err
    if stop != signal.SIGKILL: assert f'--out {out} --resume' in err
    assert not (out/'curves.png').exists()
    finish(start('--out', out, '--resume'))
    assert results(out) == results(whole)
    assert not [f for f in out.iterdir() if f.name.startswith('.')]


def test_resume_of_a_finished_run_changes_nothing(images, whole):
    before = results(whole)
    finish(start('--out', whole, '--resume'))
    assert results(whole) == before
