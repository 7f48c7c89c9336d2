"The GPU benchmark is rehearsed whole on the CPU, with a tiny net on the digits: what it writes can be read and goes on"
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from resnet_course.recipes import read_recipe
from resnet_course.results import read_result, summary

pytestmark = pytest.mark.filterwarnings('ignore')  # to_fp16, as the book has it, warns on a CPU


@pytest.fixture
def gpu(bench): return bench('gpu')[0]


@pytest.mark.slow
def test_rehearsal(bench, tmp_path, capsys):
    experiments = 'book', 'ours', 'resnet18-128', 'resnet50-224', 'best-128'
    on_gpu = torch.cuda.is_available()
    words = '--tiny', '--commit', 'none', '--json', tmp_path/'gpu-{}.json'
    gpu, run = bench('gpu')
    run(*experiments, *words)
    first = capsys.readouterr().out
    for name in experiments:
        record, epochs = read_result(f'gpu-{name}', tmp_path)
        skipped = [v for v, about in record['variants'].items() if about['graph'] and not on_gpu]
        assert {*epochs['variant'], *skipped} == {*record['variants']} == {*gpu.EXPERIMENTS[name][1]}
        assert (epochs['seconds'] >= epochs['train_seconds']).all() and (epochs['train_seconds'] > 0).all()
        assert record['commit'] == 'none' and record['data']['source'] == 'digits' and record['precision']
        assert all(run['seed'] == 0 and run['setup'] > 0 for run in record['runs'])
        assert len(summary(f'gpu-{name}', folder=tmp_path))
        for variant, about in record['variants'].items():
            recipe, meant = read_recipe(about['recipe']), gpu.EXPERIMENTS[name][1][variant][1]
            assert recipe.mirror is False and about['params'] > 0  # digits; nothing is left open
            assert (recipe.optimiser, recipe.lr, recipe.pipeline) == (meant.optimiser, meant.lr, meant.pipeline)
        for variant in skipped: assert f'{name}: {variant}: skipped, it needs CUDA' in first
    assert skipped == [] and [v for v in gpu.EXPERIMENTS['ours'][1] if f'ours: {v}: skipped' in first] == (
        [] if on_gpu else ['ResNet-18, 128 px, graph'])

    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    run(*experiments, *words)  # all is there: nothing is run again
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files
    with pytest.raises(SystemExit): run('book', '--tiny', '--commit', 'none', '--json', tmp_path/'gpu-ours.json')
    with pytest.raises(SystemExit): run('book', 'ours', '--tiny', '--json', tmp_path/'one.json')


@pytest.mark.slow
def test_checks_rehearsed(bench, tmp_path, capsys):
    check, run = bench('gpu_check')
    run('--tiny', '--commit', 'none', '--json', tmp_path/'gpu-check.json')
    record, rows = read_result('gpu-check', tmp_path)
    done, needy = {run['variant'] for run in record['runs']}, set() if torch.cuda.is_available() else {*check.NEED_CUDA}
    assert done == {*check.CHECKS} - needy and record['commit'] == 'none'
    assert rows['dB'].min() > 40 and rows['images/s'].min() > 0 and 'fault' not in rows
    out = capsys.readouterr().out
    for name in needy: assert f'check {name}: skipped, it needs CUDA' in out


def test_a_field_that_is_not_read_is_refused(gpu):
    recipe = gpu.replace(gpu.OURS18, averaging=0.99)
    with pytest.raises(ValueError, match='averaging'): gpu.load(SimpleNamespace(data='digits', device='cpu'), recipe)


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
