"The GPU benchmark is rehearsed whole on the CPU, with a tiny net on the digits: what it writes can be read and goes on"
import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from PIL import Image

from resnet_course.results import read_result, summary

pytestmark = [pytest.mark.filterwarnings(f'ignore:{says}:UserWarning:fastai[.]callback[.]fp16')  # to_fp16, as the book has it, on a CPU
              for says in ('CUDA is not available', 'torch[.]cuda[.]amp[.]GradScaler is enabled')]


@pytest.fixture
def gpu(monkeypatch):
    "bench/gpu.py as a module; `gpu.run` takes the words of a command line"
    monkeypatch.syspath_prepend(str(ROOT/'bench'))
    spec = importlib.util.spec_from_file_location('gpu', ROOT/'bench'/'gpu.py')
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['gpu.py', *map(str, words)])
        bench.main()
    bench.run = run
    return bench


@pytest.mark.slow
def test_rehearsal(gpu, tmp_path, capsys):
    experiments = 'check', 'book', 'ours', 'resnet18-128', 'resnet50-224', 'best-128'
    on_gpu = torch.cuda.is_available()
    words = '--tiny', '--commit', 'none', '--json', tmp_path/'gpu-{}.json'
    gpu.run(*experiments, *words)
    first = capsys.readouterr().out
    for name in experiments[1:]:
        record, epochs = read_result(f'gpu-{name}', tmp_path)
        skipped = [v for v, (_, recipe) in gpu.EXPERIMENTS[name][1].items() if recipe.get('graph') and not on_gpu]
        assert {*epochs['variant'], *skipped} == {*record['variants']} == {*gpu.EXPERIMENTS[name][1]}
        assert (epochs['seconds'] >= epochs['train_seconds']).all() and (epochs['train_seconds'] > 0).all()
        assert record['commit'] == 'none' and record['data']['source'] == 'digits' and record['precision']
        assert all(run['seed'] == 0 and run['setup'] > 0 for run in record['runs'])
        assert len(summary(f'gpu-{name}', folder=tmp_path))
        for variant in skipped: assert f'{name}: {variant}: skipped, it needs CUDA' in first
    record, rows = read_result('gpu-check', tmp_path)
    done = {run['variant'] for run in record['runs']}
    assert done == {*gpu.CHECKS} - ({*gpu.NEED_CUDA} if not on_gpu else set())
    assert rows['dB'].min() > 40 and rows['images/s'].min() > 0 and 'fault' not in rows

    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    gpu.run(*experiments, *words)  # all is there: nothing is run again
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files
    with pytest.raises(SystemExit): gpu.run('book', '--tiny', '--commit', 'none', '--json', tmp_path/'gpu-ours.json')
    with pytest.raises(SystemExit): gpu.run('book', 'ours', '--tiny', '--json', tmp_path/'one.json')


def test_when_a_target_is_reached(gpu):
    history = [{'accuracy': a, 'train_seconds': 2., 'seconds': 3.} for a in (0.5, 0.91, 0.89, 0.93)]
    assert gpu.reached(history) == {'90.0%': {'train_seconds': 4., 'seconds': 6.},
                                    '92.4%': {'train_seconds': 8., 'seconds': 12.}}
    assert gpu.reached(history[:1]) == {}


def test_smaller_copy_of_the_images(gpu, small):
    args = SimpleNamespace(data=small)
    copy = gpu.images_of(args, 48)
    files = sorted(f.relative_to(small) for f in small.glob('*/*/*'))
    assert sorted(f.relative_to(copy) for f in copy.glob('*/*/*')) == files and gpu.images_of(args, 224) == small
    with Image.open(copy/files[0]) as im: assert im.size == (48, 48)
    assert not list(small.parent.glob('.small*'))
