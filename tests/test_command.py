"The command as a person types it"
import json
import subprocess
import sys
from functools import partial

import pytest
from conftest import SMALL_NET, slow


def run(*words, **kwargs):
    words = [sys.executable, '-m', 'resnet_course', *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_command_is_the_module():
    import shutil
    from pathlib import Path
    command = shutil.which('resnet-course', path=str(Path(sys.executable).parent))
    assert command, "resnet-course is not beside this python; run: pip install -e '.[dev]'"
    assert subprocess.check_output([command, '--version'], text=True) == run('--version')


@pytest.mark.slow
def test_main_job(tmp_path):
    "No arguments: embedded data, progressive resizing, at least 97% on the held-out images, and a next step"
    out = run('train', cwd=tmp_path)
    assert 'size 32' in out and 'size 48' in out and 'next: resnet-course predict' in out
    folder = next((tmp_path/'runs').iterdir())
    expected = {'config.json', 'history.csv', 'curves.png', 'confusion.png', 'model.safetensors'}
    assert {f.name for f in folder.iterdir()} >= expected
    import pandas as pd
    assert pd.read_csv(folder/'history.csv').accuracy.iloc[-1] >= 0.97
    config = json.loads((folder/'config.json').read_text())
    assert config['counts'] == {'train': 1433, 'val': 364} and {'torch', 'fastai', 'python'} <= set(config['versions'])


def test_learning_rate_from_the_finder_then_predict(command, small, tmp_path, monkeypatch):
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    words = ['--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', '2', '--lr', 'auto']
    status, out, err = command('train', *words)
    assert status == 0, err
    assert 'learning rate from the finder' in out
    assert not list((tmp_path/'here').iterdir())
    images = sorted((small/'val').glob('*/*.png'))
    status, out, _ = command('predict', tmp_path/'run'/'model.safetensors', *images, '--json')
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(rows) == len(images)
    assert all(sum(r['classes'].values()) == pytest.approx(1) and set(r['classes']) == {'3', '7'} for r in rows)


@pytest.mark.parametrize('recipe, valid_scale', [('fast', 1.), ('fast', 7/8), ('book', 1.)])
def test_predict_agrees_with_validation(small, recipe, valid_scale):
    "An image is prepared for a prediction as it is for validation"
    import torch
    from resnet_course.data import get_data
    from resnet_course.fast import fast_data
    from resnet_course.predict import predict
    from resnet_course.resnet import ResNet
    torch.manual_seed(0)
    make_data = get_data if recipe == 'book' else partial(fast_data, valid_scale=valid_scale)
    dls = make_data(small, 40, 33, bs=8, workers=0)
    model = ResNet(2, [1, 1, 1, 1], width=8).eval()
    with torch.no_grad(): expected = model(dls.valid.one_batch()[0]).softmax(1)
    spec = dict(presize=40, size=33, pipeline=recipe, valid_scale=valid_scale, classes=list(dls.vocab))
    for fn, p in zip(dls.valid_ds.items, expected, strict=True):
        assert predict(model, spec, fn)[list(dls.vocab)].tolist() == pytest.approx(p.tolist(), abs=1e-5)


@pytest.mark.parametrize('recipe, optimiser', [('fast', 'fused Adam'), ('book', 'Adam'), ('laptop', 'fused SGD')])
def test_recipe(command, small, tmp_path, recipe, optimiser):
    words = ['--recipe', recipe, '--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', '2', '--lr', '0.01']
    assert command('train', *words)[0] == 0
    ran = json.loads((tmp_path/'run'/'config.json').read_text())['recipe']
    assert (ran['pipeline'] == 'book') == (recipe == 'book')
    assert (ran['optimiser'], ran['sizes'], ran['lr']) == (optimiser, [32, 32], 0.01)
    assert (small/'.resnet_course').exists() == (recipe != 'book')
    status, out, _ = command('clean', small)
    assert status == 0 and '0 MB given back' in out and not (small/'.resnet_course').exists()


def test_laptop_recipe_has_a_size_for_each_epoch():
    from resnet_course.options import recipe_of
    from resnet_course.recipes import RECIPES
    laptop = recipe_of({'recipe': 'laptop', 'data': 'digits'})
    assert laptop == RECIPES['laptop'] and laptop.valid_scale == 7/8 and recipe_of({}).valid_scale == 1
    assert recipe_of({'recipe': 'laptop', 'data': 'digits', 'epochs': 4}).sizes == (64, 96, 128, 128)


def test_cost_needs_no_fastai():
    code = ("import sys; from resnet_course.cli import main; main(['cost', 'resnet50', '--size', '224']); "
            "assert 'fastai' not in sys.modules")
    out = subprocess.check_output([sys.executable, '-c', code], text=True)
    assert out.splitlines()[-1].split()[0] == 'total' and '25,576,264' in out


def test_help_needs_no_torch():
    code = ("import sys; from resnet_course.cli import make_parser; make_parser().format_help(); "
            "assert 'torch' not in sys.modules")
    subprocess.check_call([sys.executable, '-c', code])


def test_every_command_has_help(command):
    for name in ('train', 'predict', 'evaluate', 'cost', 'archs', 'clean', 'doctor'):
        status, out, _ = command(name, '--help')
        assert status == 0 and out.startswith(f'usage: resnet-course {name}')


def test_archs(command):
    "A line for each net, in the numbers of its cost table"
    from resnet_course.cost import cost_table
    from resnet_course.models import MODELS, create_model
    status, out, _ = command('archs')
    lines = [line.split() for line in out.splitlines()[1:]]
    assert status == 0 and [line[0] for line in lines] == list(MODELS)
    assert {'nin', 'mobilenet_v2', 'resnet152'} < set(MODELS)
    total = cost_table(create_model('squeezenet1_0')).iloc[-1]
    assert ['squeezenet1_0', f'{total.params:,}', f'{total.MACs:,}'] in lines


@pytest.mark.parametrize('name', [
    'nin', 'googlenet', slow('wide_resnet50_2'), slow('resnext50_32x4d'), slow('seresnet50'), slow('resnetv2_50'),
    slow('densenet121'), 'squeezenet1_0', 'mobilenet_v2'])
def test_train_and_predict_by_name(command, small, tmp_path, name):
    words = ['--epochs', '1', '--size', '32', '--presize', '32', '--bs', '12', '--workers', '0']
    status, _, err = command('train', '--arch', name, '--data', small, '--out', tmp_path/'run', *words)
    assert status == 0, err
    status, out, err = command('predict', tmp_path/'run'/'model.safetensors', next((small/'val').glob('3/*.png')))
    assert status == 0 and '%' in out, err


def test_cost_of_own_layers(command):
    status, out, _ = command('cost', '--layers', '1,1,1,1', '--expansion', '4', '--size', '65', '--classes', '10')
    assert status == 0 and out.splitlines()[-1].split()[0] == 'total'


def test_doctor(command):
    status, out, _ = command('doctor')
    assert status == 0
    for word in ('torch', 'fastai', 'cores', 'device:', 'digits: found', 'imagenette-160:'): assert word in out


def test_real_imagenette():
    from fastai.data.external import fastai_path
    from resnet_course.data import find_data, get_data, list_images
    if not (fastai_path('data')/'imagenette2-160').is_dir():
        pytest.skip("Imagenette is not on this machine; resnet-course train --data imagenette-160 downloads it")
    images = list_images(find_data('imagenette-160'))
    assert {split: len(files) for split, files in images.items()} == {'train': 9469, 'val': 3925}
    xb, yb = get_data('imagenette-160', 160, 128, bs=4, workers=0).one_batch()
    assert xb.shape == (4, 3, 128, 128) and len(yb) == 4
