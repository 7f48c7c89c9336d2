"A recipe is a value: what it may hold, what it does; Python and the command train the same, a run goes on as it was"
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL_NET
from fastai.learner import Learner
from fastai.torch_core import set_seed
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import TINY, fit, model_bytes, results, same

from resnet_course import CourseError, fitting
from resnet_course.data import DATASETS, Dataset, image_files
from resnet_course.options import recipe_of
from resnet_course.plots import plot_confusion
from resnet_course.recipes import RECIPES, Recipe, fill_recipe, make_net, read_recipe
from resnet_course.run import SCHEMA, Run, load_checkpoint, load_model, read_config

def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 400




# -- the value

def test_it_is_frozen_and_compares_by_value():
    assert Recipe() == RECIPES['fast'] == read_recipe('fast') == read_recipe({}) != RECIPES['book']
    with pytest.raises(dataclasses.FrozenInstanceError): Recipe().lr = 1
    assert replace(TINY, seed=1) != TINY == replace(TINY) and TINY.sizes == Recipe(sizes=[32, 32]).sizes
    assert Recipe().net_options is not Recipe().net_options


@pytest.mark.parametrize('name', RECIPES)
def test_it_comes_back_from_json_as_it_was(name):
    recipe = RECIPES[name]
    assert read_recipe(json.loads(json.dumps(asdict(recipe)))) == recipe == read_recipe(recipe) == read_recipe(name)
    filled = fill_recipe(recipe, DATASETS['digits'], 1433)
    assert read_recipe(json.loads(json.dumps(asdict(filled)))) == filled and fill_recipe(filled,
                                                                                         DATASETS['imagenette-160'],
                                                                                         9469) == filled
    assert not [f.name for f in fields(filled) if getattr(filled, f.name) is None and f.name != 'wd']


def test_what_is_left_open_is_the_data_sets():
    assert fill_recipe(Recipe(), DATASETS['digits'], 1433) == Recipe(presize=48, sizes=(32,)*3+(48,)*3, bs=64,
                                                                     mirror=False)
    assert fill_recipe(Recipe(), DATASETS['imagenette-320'], 9469) == Recipe(presize=320, sizes=(224,)*20, bs=64,
                                                                             mirror=True)
    assert fill_recipe(Recipe(sizes=(192,)), Dataset('mine'), 40) == Recipe(presize=192, sizes=(192,), bs=8,
                                                                            mirror=True)
    assert fill_recipe(replace(TINY, mirror=False), DATASETS['imagenette-160'], 100) == replace(TINY, mirror=False)
    assert fill_recipe(Recipe(), Dataset('mine')).bs == 128
    few = [fill_recipe(Recipe(), Dataset('mine'), n) for n in (5, 320, 2047, 2048)]  # four times the epochs, more steps
    assert [(r.bs, len(r.sizes)) for r in few] == [(5, 20), (20, 20), (127, 20), (128, 5)]
    with pytest.raises(CourseError, match='bs=8 is more than the 7 training images'):
        fill_recipe(TINY, Dataset('mine'), 7)


@pytest.mark.parametrize('entries, says', [
    ('fats', "'fats' is no recipe; did you mean fast"), ('', 'is no recipe'),
    ({'learning_rate': 1}, "'learning_rate' is no field of a recipe; take net, "),
    ({'size': 64}, 'did you mean sizes'), ({'Lr': 1}, 'lr'), ({1: 2}, '1 is no field'), (None, 'recipe'), (5, 'recipe'),
    (['fast'], 'recipe'), (Recipe, 'recipe')])
def test_what_is_no_recipe(entries, says, tmp_path):
    with pytest.raises(CourseError, match=says) as e: read_recipe(entries)
    assert one_line(e)
    with pytest.raises(CourseError): fit(entries, 'digits', tmp_path/'run')
    assert not (tmp_path/'run').exists()


WRONG = {
    'net': [5, None, ['resnet18']],
    'net_options': [None, 'width', [('width', 8)]],
    'weights': [None, 5],
    'presize': ['160', 160., True, 31, -1, 0],
    'sizes': [64, '64', (), [], (31,), (64., 64), ('64',), (True,), {64: 1}, (64, None)],
    'bs': [1, 0, -8, '64', 64., True],
    'optimiser': ['adam', 'SGD', None, '', 5],
    'lr': [0, -1e-3, math.nan, math.inf, 'fast', '3e-3', None, True, [1e-3]],
    'wd': [-1, math.nan, '0', True, math.inf],
    'schedule': ['cosine', None, 1],
    'smoothing': [-0.1, 1, 1., math.nan, None, '0', True],
    'pipeline': ['quick', None, True],
    'mirror': ['yes', 1, 0],
    'lighting': [None, 1, 'yes'],
    'min_scale': [0, 1.1, math.nan, None, '1', True],
    'valid_scale': [0, 1.1, -1, math.nan, None, '1'],
    'averaging': [1, -1, math.nan, None, 'yes', True],
    'average_from': [1.1, -0.1, math.nan, None],
    'validate': ['first', 0, -1, None, True, 1.5, ''],
    'precision': ['fp8', None, 32, 'FP32'],
    'seed': [-1, 1.5, '0', None, True, 2**63],
    'version': [0, 2, '1', None, True, 1.]}


@pytest.mark.parametrize('name, value', [(k, v) for k, vs in WRONG.items() for v in vs], ids=str)
def test_wrong_types_and_values_out_of_range(name, value):
    "A line each, which names field and value"
    with pytest.raises(CourseError, match=name) as e: Recipe(**{name: value})
    assert one_line(e) and str(value if not isinstance(value, list) else value[0] if value else '') in str(e.value)
    with pytest.raises(CourseError): read_recipe({name: value})
    with pytest.raises(CourseError): replace(TINY, **{name: value})


def test_every_field_was_tried(): assert {f.name for f in fields(Recipe)} == set(WRONG)


@pytest.mark.parametrize('name, value', [
    ('presize', 32), ('sizes', (32,)), ('bs', 2), ('lr', 1), ('lr', 'auto'), ('wd', 0), ('smoothing', 0),
    ('averaging', 0.999), ('validate', 'last'), ('validate', 3), ('min_scale', 1), ('valid_scale', 1),
    ('mirror', False), ('seed', 2**63-1), ('lr', np.float64(0.1))])
def test_values_at_the_edge(name, value): assert getattr(Recipe(**{name: value}), name) == value


@pytest.mark.parametrize('pair', [dict(presize=64, sizes=(96,)), dict(pipeline='book', lighting=True),
                                  dict(pipeline='book', min_scale=0.5),
                                  dict(pipeline='book', valid_scale=0.9)])
def test_fields_that_do_not_go_together(pair):
    with pytest.raises(CourseError, match=next(iter(pair))) as e: Recipe(**pair)
    assert one_line(e)


@pytest.mark.parametrize('net, options, says', [
    ('resnet19', {}, 'resnet18'), ('ResNet', {}, 'layers'), ('ResNet', {'layers': [2, 2, 2]}, 'needs 4'),
    ('ResNet', {'layers': 4}, 'layers'), ('ResNet', {'layers': [1, 1, 1, 1], 'depth': 3}, 'depth'),
    ('resnet18', {'layers': [1, 1, 1, 1]}, 'layers'), ('resnet18', {'width': '32'}, 'width'),
    ('resnet18', {'width': 30}, 'multiple of 4'), ('resnet18', {'width': 8.}, 'width'),
    ('resnet18', {'depth': 3}, 'depth'), ('resnet18', {3: 3}, '3'),
    ('resnet18', {'n_out': 3}, 'n_out'), ('resnet18', {'width': None}, 'width'),
    ('resnet18', {'stem': 'deep'}, 'stem'), ('mobilenet_v2', {'width': 8}, 'width')])
def test_nets_that_cannot_be_made(images, tmp_path, net, options, says):
    "One line, before anything is written"
    with pytest.raises(CourseError, match=says) as e: make_net(Recipe(net, options), 10)
    assert one_line(e)
    recipe = replace(TINY, net=net, net_options=options)
    with pytest.raises(CourseError, match=says): fit(recipe, images, tmp_path/'run')
    assert not (tmp_path/'run').exists()


def test_a_net_of_functions_cannot_be_written_down(images, tmp_path):
    "A recipe is written as JSON; what is no such value is refused before the training"
    from torch import nn
    recipe = replace(TINY, net_options={**TINY.net_options, 'shortcut': lambda *_: nn.Identity()})
    with pytest.raises(CourseError, match=r'net_options|shortcut'): fit(recipe, images, tmp_path/'run')
    assert not (tmp_path/'run').exists()


# -- train

def test_what_a_run_gives(done, images, tmp_path):
    assert isinstance(done, Run) and done.recipe == replace(TINY, mirror=True) and done.classes == ['3', '7']
    assert list(done.history) == ['epoch', 'train_loss', 'valid_loss', 'accuracy', 'seconds', 'lr', 'size']
    assert len(done.history) == 2
    assert done.accuracy == done.history.accuracy.iloc[-1] and done.seconds > 0 and not done.model.training
    assert {f.name for f in done.folder.iterdir()} == {'config.json', 'history.csv', 'curves.png', 'confusion.png',
                                                       'model.safetensors', 'checkpoint.pt', 'trained.txt'}
    pd.testing.assert_frame_equal(pd.read_csv(done.folder/'history.csv'), done.history, check_dtype=False)
    model, spec = load_model(done.folder/'model.safetensors')
    config = read_config(done.folder)
    assert spec['schema'] == config['schema'] == SCHEMA and same(model, done.model)
    assert read_recipe(config['recipe']) == done.recipe and config['data'] == str(images.resolve())


@pytest.mark.parametrize('change', [{}, {'validate': 'last'}, {'averaging': 0.9, 'average_from': 0.}])
def test_the_confusion_figure_is_of_the_last_validation(images, tmp_path, monkeypatch, change):
    "No image is asked about twice; where nothing is left to train, all are asked about once"
    drawn, validations, validate = [], [], Learner._do_epoch_validate
    monkeypatch.setattr(fitting, 'plot_confusion', lambda *told: drawn.append(told) or plot_confusion(*told))
    monkeypatch.setattr(Learner, '_do_epoch_validate', lambda learn, *args, **kwargs:
                        validations.append(1) or validate(learn, *args, **kwargs))
    run = fit(replace(TINY, **change), images, tmp_path/'run')
    assert len(validations) == 2, "one an epoch, which may be left out"
    fit(None, None, run.folder, resume=True)
    assert len(validations) == 3
    for targets, said, classes in drawn:
        assert classes == ['3', '7'] and sorted(targets.tolist()) == [0]*4+[1]*4
        assert (targets == said).float().mean().item() == pytest.approx(run.accuracy)
    (_, first, _), (_, again, _) = drawn
    assert first.tolist() == again.tolist()


def test_reported_line_by_line(images, tmp_path):
    lines = []
    fit(TINY, images, tmp_path/'run', report=lines.append)
    first = 'images: 24 training and 8 validation images in 2 classes; fp32 on cpu'
    begins = first, 'epoch 1/2', 'epoch 2/2', 'accuracy'
    assert [line.startswith(words) for line, words in zip(lines, begins, strict=True)] == [True]*4
    assert str(tmp_path/'run') in lines[0] and 'on 8 held-out' in lines[3]


@pytest.mark.slow
def test_same_recipe_same_weights_whatever_came_before(done, images, tmp_path):
    set_seed(99)
    for data in (str(images), images/'..'/'images', image_files(images)):
        shutil.rmtree(tmp_path/'run', ignore_errors=True)
        assert results(fit(TINY, data, tmp_path/'run').folder) == results(done.folder)
    assert model_bytes(fit(replace(TINY, seed=1), images, tmp_path/'other').folder) != model_bytes(done.folder)


def test_a_folder_of_its_own_in_runs(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b = (fit(replace(TINY, sizes=(32,)), images, None) for _ in range(2))
    assert a.folder.parent == b.folder.parent == Path('runs') and a.folder != b.folder
    assert a.folder.name.startswith('images-') and len(list((tmp_path/'runs').iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize('name', RECIPES)
def test_python_and_the_command_train_the_same(command, images, tmp_path, name):
    words = ['--data', images, '--out', tmp_path/'command', *SMALL_NET, '--epochs', 2, '--lr', '0.01', '--seed', 5,
             '--precision', 'fp32', '--device', 'cpu', '--recipe', name]
    status, _, err = command('train', *words)
    assert status == 0, err
    recipe = replace(RECIPES[name], net='ResNet', net_options={'layers': [1, 1, 1, 1], 'expansion': 1, 'width': 8},
                     presize=32, sizes=(32, 32), bs=8, lr=0.01, seed=5, precision='fp32')
    run = fit(recipe, images, tmp_path/'python', workers=0)
    assert results(run.folder) == results(tmp_path/'command')
    assert read_config(tmp_path/'command')['recipe'] == read_config(run.folder)['recipe']


TRAIN = """
import sys
from resnet_course.recipes import Recipe, train
recipe = Recipe('ResNet', {'layers': [1, 1, 1, 1], 'width': 8}, presize=32, sizes=(32,), bs=8, lr=0.01)
train(recipe, sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_python_and_the_command_train_the_same_in_a_process_of_their_own(images, tmp_path):
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    words = '-m', 'resnet_course', 'train', *SMALL_NET, '--epochs', '1', '--lr', '0.01', '--data', images, '--out'
    for how in ([*words, tmp_path/'command'], ['-c', TRAIN, images, tmp_path/'python']):
        subprocess.run([sys.executable, *map(str, how)], check=True, timeout=200, env=env)
    assert same(*(load_model(tmp_path/name/'model.safetensors')[0] for name in ('command', 'python')))


def test_options_are_recipes():
    assert recipe_of({}) == Recipe() and recipe_of({'recipe': 'book'}) == RECIPES['book']
    assert recipe_of({'recipe': 'laptop', 'width': 16}) == replace(RECIPES['laptop'], net_options={'width': 16})
    assert recipe_of({'arch': 'resnet50', 'lr': 'auto', 'seed': 4}) == Recipe('resnet50', lr='auto', seed=4)
    assert recipe_of({'epochs': 2, 'size': 64}) == Recipe(sizes=(64, 64))
    assert recipe_of({'progressive': [32, 48], 'epochs': 3}) == Recipe(sizes=(32, 48, 48))


@pytest.mark.parametrize('epochs, counts', [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (5, [2, 2, 1]), (14, [5, 6, 3]),
                                            (23, [9, 9, 5]), (27, [11, 10, 6]), (46, [18, 18, 10]), (81, [32, 31, 18])])
def test_other_epochs_keep_the_shares_of_a_recipe(epochs, counts):
    sizes = recipe_of({'recipe': 'laptop', 'epochs': epochs}).sizes
    assert list(sizes) == [s for s, n in zip([64, 96, 128][-len(counts):], counts, strict=True) for _ in range(n)]


@pytest.mark.parametrize('shares', [(1, 60), (60, 1), (1, 1, 60, 1), (3, 0, 1), (20, 20, 20)])
@pytest.mark.parametrize('epochs', [2, 4, 5, 7, 61, 122])
def test_no_size_is_lost_however_small_its_share(shares, epochs):
    base = Recipe(sizes=tuple(32+16*i for i, n in enumerate(shares) for _ in range(n)))
    sizes = recipe_of({'epochs': epochs}, base).sizes
    assert len(sizes) == epochs and list(sizes) == sorted(sizes) and sizes[-1] == base.sizes[-1]
    assert len(set(sizes)) == min(epochs, len(set(base.sizes)))


# -- what a recipe does

def rates(run): return run.history.lr.tolist()


@pytest.mark.slow
def test_flat_cosine_is_flat_for_three_quarters(images, tmp_path):
    flat = rates(fit(replace(TINY, schedule='flat cosine', sizes=(32,)*8), images, tmp_path/'run'))
    assert flat[:6] == pytest.approx([0.01]*6, rel=1e-2) and flat[5] > flat[6] > flat[7] and flat[7] < 1e-3
    cycle = rates(fit(replace(TINY, sizes=(32,)*8), images, tmp_path/'cycle'))
    assert cycle[0] < cycle[1] > cycle[3] > cycle[7]


@pytest.mark.slow
@pytest.mark.parametrize('validate, seen', [('every', [1, 1, 1, 1]), ('last', [0, 0, 0, 1]), (1, [0, 0, 0, 1]),
                                            (3, [0, 1, 1, 1]), (9, [1, 1, 1, 1])])
def test_validated_when_it_is_said(images, tmp_path, validate, seen):
    lines = []
    run = fit(replace(TINY, validate=validate, sizes=(32,)*4), images, tmp_path/'run', report=lines.append)
    for column in ('accuracy', 'valid_loss'): assert run.history[column].notna().tolist() == list(map(bool, seen))
    assert run.history.train_loss.notna().all() and not any('nan' in line for line in lines)
    assert ['accuracy' in line for line in lines[1:5]] == list(map(bool, seen))
    assert 0 <= run.accuracy <= 1


@pytest.mark.slow
def test_validating_seldom_changes_no_weight(images, tmp_path):
    a, b = (fit(replace(TINY, validate=v, sizes=(32,)*3), images, tmp_path/str(v)) for v in ('every', 'last'))
    assert model_bytes(a.folder) == model_bytes(b.folder) and a.accuracy == b.accuracy


@pytest.mark.slow
def test_average_is_what_is_kept_and_judged(images, tmp_path):
    "The average of the weights after each step of the last share, made by hand"
    from resnet_course.predict import labelled_images, predict_many
    plain = fit(replace(TINY, sizes=(32,)*3), images, tmp_path/'plain')
    run = fit(replace(TINY, averaging=0.5, average_from=0.5, sizes=(32,)*3), images, tmp_path/'run')
    last = load_checkpoint(run.folder/'checkpoint.pt')['model']
    assert all(torch.equal(v, plain.model.state_dict()[k]) for k, v in last.items())  # the training itself is the same
    assert any(not torch.equal(v, last[k]) for k, v in run.model.state_dict().items())
    model, spec = load_model(run.folder/'model.safetensors')
    assert all(torch.equal(v, run.model.state_dict()[k]) for k, v in model.state_dict().items())
    files, labels = labelled_images(images, spec['classes'])
    assert (predict_many(model, spec, files).idxmax(axis=1) == labels).mean() == run.accuracy
    still = fit(replace(TINY, averaging=0.5, average_from=1., sizes=(32,)*3), images, tmp_path/'still')
    assert torch.allclose(still.model.head.weight, plain.model.head.weight, atol=1e-6)


@pytest.mark.slow
def test_decay_smoothing_and_optimiser_are_used(images, tmp_path):
    weights = {}
    for i, change in enumerate([{}, {'wd': 0}, {'wd': 5.}, {'smoothing': 0.3}, {'optimiser': 'fused SGD'},
                                {'optimiser': 'Adam'}, {'min_scale': 1}, {'lighting': True},
                                {'mirror': False}, {'schedule': 'flat cosine'}]):
        weights[str(change)] = model_bytes(fit(replace(TINY, sizes=(32,), **change), images, tmp_path/str(i)).folder)
    assert len(set(weights.values())) == len(weights)


def test_images_as_a_list(own_cache, images, tmp_path):
    files = sorted(images.glob('*/*/*.png'))
    listed = image_files(files=files, labels=[f.parent.name for f in files], valid=['val' in f.parts for f in files])
    run = fit(TINY, listed, tmp_path/'run')
    assert run.classes == ['3', '7'] and run.accuracy >= 0
    with pytest.raises(CourseError, match='list of images; give it again as data='):
        fit(None, None, tmp_path/'run', resume=True)
    before = results(run.folder)
    assert fit(None, listed, tmp_path/'run', resume=True).accuracy == run.accuracy and results(run.folder) == before


def test_a_list_in_a_folder_is_no_folder(own_cache, images, tmp_path, monkeypatch):
    "A resume must not look for a folder of its name, nor take the whole of a known set"
    names = [os.path.relpath(f, images) for f in sorted(images.glob('*/*/*.png'))]
    fit(TINY, image_files(images, files=names, labels=[n.split('/')[1] for n in names]), tmp_path/'run')
    with pytest.raises(CourseError, match='list of images; give it again as data='):
        fit(None, None, tmp_path/'run', resume=True)


# -- weights to start from

def test_weights_to_start_from(done, images, tmp_path):
    file = str(done.folder/'model.safetensors')
    tiny = replace(TINY, weights=file, lr=1e-9, sizes=(32,), wd=0)
    run = fit(tiny, images, tmp_path/'run')
    assert run.recipe.weights == file
    for p, q in zip(done.model.parameters(), run.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


@pytest.mark.slow
def test_weights_for_other_classes_start_with_a_head_of_their_own(done, small, digits, tmp_path):
    for split in ('train', 'val'): shutil.copytree(digits/split/'1', small/split/'1')
    run = fit(replace(TINY, weights=str(done.folder/'model.safetensors'), lr=1e-9, sizes=(32,), wd=0), small,
              tmp_path/'run')
    assert run.model.head.weight.shape[0] == 3
    for (k, p), q in zip(done.model.named_parameters(), run.model.parameters(), strict=True):
        assert k.startswith('head') or torch.allclose(p, q, atol=1e-6), k


OTHER = {'other net': {'net': 'squeezenet1_0', 'net_options': {}},
         'other width': {'net_options': {'layers': [1, 1, 1, 1], 'width': 16}}}


@pytest.mark.parametrize('wrong, says', [
    ('nothing', 'is no file'), ('text', 'no model of this course'), ('other net', 'weights='),
    ('other width', 'weights=')])
def test_weights_that_do_not_fit(done, images, tmp_path, wrong, says):
    "One line, before anything is decoded or written"
    (tmp_path/'text').write_text('words')
    file = str({'nothing': tmp_path/'nothing', 'text': tmp_path/'text'}.get(wrong, done.folder/'model.safetensors'))
    recipe = replace(TINY, weights=file, **OTHER.get(wrong, {}))
    with pytest.raises(CourseError, match=says) as e: fit(recipe, images, tmp_path/'run')
    assert one_line(e) and not (tmp_path/'run').exists()


def test_weights_bring_the_options_of_their_net(done, images, tmp_path):
    "In Python too: a recipe that says nothing of the width has that of the file"
    file = str(done.folder/'model.safetensors')
    run = fit(replace(TINY, net_options={'layers': [1, 1, 1, 1]}, weights=file, lr=1e-9), images, tmp_path/'run')
    assert run.recipe.net_options == TINY.net_options


@pytest.mark.slow
def test_a_run_of_network_in_network_begins_with_another(images, small, tmp_path):
    "Its last block hangs on the number of classes, all of it, and begins anew"
    nin = replace(TINY, net='nin', net_options={}, sizes=(64,), presize=64, lr=1e-9)
    first = fit(nin, images, tmp_path/'first')
    for split in ('train', 'val'): shutil.copytree(small/split/'3', small/split/'4')
    run = fit(replace(nin, weights=str(first.folder/'model.safetensors')), small, tmp_path/'run')
    was, now = first.model.state_dict(), run.model.state_dict()
    assert all(torch.allclose(was[k], now[k], atol=1e-4) for k in was if 'weight' in k and not k.startswith('head'))
    assert next(run.model.head.parameters()).shape[0] == 3


def test_python_trains_on_what_it_divides(unsplit, tmp_path):
    "What `image_files` takes, `train` takes"
    shutil.rmtree(unsplit/'9')
    run = fit(TINY, unsplit, tmp_path/'run', valid_pct=0.2, groups=r'^\d+')
    assert read_config(run.folder)['split'] == {'valid_pct': 0.2, 'seed': 0, 'groups': r'^\d+'}
    files = sorted(unsplit.glob('*/*.png'))
    run = fit(TINY, None, tmp_path/'list', files=files, labels=[f.parent.name for f in files], valid_pct=0.4)
    assert run.classes == ['3', '7'] and read_config(run.folder)['data'] == 'list'


@pytest.mark.slow
def test_weights_that_saw_other_images(images, tmp_path):
    "They learned with one normalisation, and the net sees another: never in silence"
    half = [[0.5]*3, [0.5]*3]
    options = {'width': 8, 'stats': half}
    file = str(fit(replace(TINY, net='resnet18', net_options=options, sizes=(32,)), images, tmp_path/'run').folder
               /'model.safetensors')
    same = replace(TINY, net='resnet18', net_options=options, weights=file, sizes=(32,))
    assert fit(same, images, tmp_path/'same').recipe.net_options == options
    assert fit(replace(same, net_options={}), images, tmp_path/'unsaid').recipe.net_options == options
    with pytest.raises(CourseError, match='normalised in another way'):
        fit(replace(same, net_options={'width': 8, 'stats': [[0.4]*3, [0.5]*3]}), images, tmp_path/'other')


@pytest.mark.slow
def test_weights_are_needed_at_the_start_alone(done, images, tmp_path):
    "A run goes on though the file it started from is gone"
    file = shutil.copy(done.folder/'model.safetensors', tmp_path/'start.safetensors')
    recipe = replace(TINY, weights=str(file), sizes=(32,)*3)
    whole = fit(recipe, images, tmp_path/'whole')
    stop_after(1, recipe, images, tmp_path/'run')
    file.unlink()
    assert results(fit(None, None, tmp_path/'run', resume=True).folder) == results(whole.folder)


# -- stopped and resumed

def stop_after(n, recipe, data, out, **kwargs):
    "Stop when epoch `n` was reported"
    def report(line):
        if not n or line.startswith(f'epoch {n}/'): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as e: fit(recipe, data, out, report=report, **kwargs)
    assert e.value.folder == Path(out)
    assert not (Path(out)/'curves.png').exists()


KINDS = {
    'plain': (1, {}), 'before the first epoch': (0, {}), 'SGD': (1, {'optimiser': 'fused SGD'}),
    'Adam': (1, {'optimiser': 'Adam'}), 'bf16': (1, {'precision': 'bf16'}),
    'before the average': (1, {'averaging': 0.9, 'average_from': 0.5}),
    'average': (3, {'averaging': 0.9, 'average_from': 0.5}),
    'average, seldom judged': (3, {'averaging': 0.9, 'average_from': 0.5, 'validate': 'last'}),
    'flat': (3, {'schedule': 'flat cosine', 'validate': 2}),
    'sizes': (2, {'sizes': (32, 32, 48, 64), 'presize': 64}),
    'smoothing': (1, {'smoothing': 0.1, 'lighting': True, 'wd': 0.1}),
    'book': (2, {'pipeline': 'book', 'optimiser': 'Adam', 'averaging': 0.9})}


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_stopped_in_any_epoch_it_ends_with_the_same_bytes(images, tmp_path, kind):
    after, change = KINDS[kind]
    recipe = replace(TINY, **{'sizes': (32,)*4, **change})
    whole = fit(recipe, images, tmp_path/'whole', workers=0)
    stop_after(after, recipe, images, tmp_path/'run', workers=0)
    run = fit(None, None, tmp_path/'run', resume=True, workers=0)
    assert results(run.folder) == results(whole.folder) and same(run.model, whole.model)
    assert run.accuracy == whole.accuracy and run.recipe == whole.recipe and len(run.history) == 4


@pytest.mark.slow
def test_stopped_twice(images, tmp_path):
    recipe = replace(TINY, averaging=0.9, average_from=0.3, sizes=(32,)*4)
    whole = fit(recipe, images, tmp_path/'whole')
    stop_after(1, recipe, images, tmp_path/'run')
    stop_after(3, None, None, tmp_path/'run', resume=True)
    assert results(fit(recipe, images, tmp_path/'run', resume=True).folder) == results(whole.folder)


@pytest.mark.parametrize('averaging', [0., 0.9])
def test_resume_of_a_run_that_is_done_changes_nothing(images, tmp_path, averaging):
    whole = fit(replace(TINY, averaging=averaging), images, tmp_path/'run')
    before = results(whole.folder)
    again = fit(None, None, tmp_path/'run', resume=True)
    assert results(again.folder) == before and again.accuracy == whole.accuracy and same(again.model, whole.model)


@pytest.mark.parametrize('change', [
    {'lr': 0.02}, {'seed': 1}, {'sizes': (32,)*3}, {'net_options': {'layers': [1, 1, 1, 2], 'width': 8}}, {'wd': 0.5},
    {'averaging': 0.5}, {'validate': 'last'}, {'schedule': 'flat cosine'}, {'precision': 'bf16'}])
def test_resume_with_another_recipe(done, change):
    with pytest.raises(CourseError, match=rf'{next(iter(change))}=.* differs from the run in') as e:
        fit(replace(TINY, **change), None, done.folder, resume=True)
    assert one_line(e)


def test_resume_with_other_images(own_cache, images, small, done, tmp_path):
    shutil.copytree(done.folder, tmp_path/'run')
    (small/'train'/'3'/'new.png').write_bytes(next((small/'train'/'7').iterdir()).read_bytes())
    with pytest.raises(CourseError, match='needs the same data'): fit(None, small, tmp_path/'run', resume=True)
    files = sorted(images.glob('*/*/*.png'))
    labels = [f.parent.name for f in files]
    def make(seed): return image_files(files=files, labels=labels, valid_pct=0.25, seed=seed)
    fit(TINY, make(0), tmp_path/'list')
    with pytest.raises(CourseError, match='needs the same data'): fit(None, make(1), tmp_path/'list', resume=True)


@pytest.mark.parametrize('call, says', [
    (lambda images, tmp, done: fit(TINY, images, done.folder), 'already holds a run; add resume=True'),
    (lambda images, tmp, done: fit(TINY, images, tmp/'none', resume=True), 'no run to resume'),
    (lambda images, tmp, done: fit(TINY, images, None, resume=True), 'resume=True needs the folder of the run: out='),
    (lambda images, tmp, done: fit(TINY, None, tmp/'run'), 'no images are named'),
    (lambda images, tmp, done: fit(TINY, tmp/'none', tmp/'run'), 'is no folder'),
    (lambda images, tmp, done: fit(replace(TINY, bs=25), images, tmp/'run'),
     'bs=25 is more than the 24 training images'),
    (lambda images, tmp, done: fit(replace(TINY, precision='fp16'), images, tmp/'run'), 'precision=fp16 needs a GPU'),
    (lambda images, tmp, done: fit(TINY, images, tmp/'run', device='tpu'), 'device=tpu is unknown'),
    (lambda images, tmp, done: fit(replace(TINY, lr=1e30), images, tmp/'run'),
     'smaller rate than lr=1e.*, in another folder')])
def test_library_messages_name_arguments(images, tmp_path, done, call, says):
    with pytest.raises(CourseError, match=says) as e: call(images, tmp_path, done)
    assert one_line(e) and '--' not in str(e.value)


@pytest.mark.parametrize('words, says', [
    ('--out {done}', 'already holds a run; add --resume'), ('--out {tmp}/none --resume', 'no run to resume'),
    ('--resume', '--out'), ('--bs 25', '--bs 25 is more than'), ('--precision fp16', '--precision fp16 needs a GPU'),
    ('--lr 1e30 --precision fp32', '--lr 1e+30'), ('--presize 32 --size 48', '--presize 32 is below'),
    ('--out {done} --resume --seed 3', '--seed 3 differs')])
def test_the_commands_messages_name_flags(refused, images, tmp_path, done, words, says):
    words = words.format(done=done.folder, tmp=tmp_path).split()
    out = [] if '--out' in words or '--resume' in words else ['--out', tmp_path/'run']
    net = [] if '--resume' in words else ['--data', images, '--device', 'cpu', *SMALL_NET, '--epochs', 1]
    line = refused('train', *net, *out, *words)
    assert says in line
    for name in ('resume', 'bs', 'lr', 'precision', 'out', 'presize', 'seed'): assert f'{name}=' not in line


def test_a_folders_name_is_left_alone_in_a_message(command, refused, images, tmp_path):
    "Though it reads like an argument"
    out = tmp_path/'lr=0.1-seed=3'
    words = ['--data', images, '--out', out, *SMALL_NET, '--epochs', 1]
    assert command('train', *words)[0] == 0
    assert str(out) in refused('train', *words) and str(out) in refused('train', '--out', out, '--resume', '--seed', 5)


# -- older and newer files

def rewrite(file, change):
    with safe_open(file, 'pt') as f:
        spec, weights = json.loads(f.metadata()['resnet_course']), {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118
    save_file(weights, file, {'resnet_course': json.dumps(change(spec))})


NET = {'layers': [1, 1, 1, 1], 'expansion': 1, 'width': 8}
OLD = {'first': NET | {'arch': None}, 'laptop': NET | {'arch': None, 'recipe': 'laptop', 'valid_scale': 0.875},
       'book': NET | {'arch': 'resnet18', 'recipe': 'book'}}


@pytest.mark.parametrize('kind', OLD)
def test_older_model_files_are_read(done, tmp_path, command, images, kind):
    "Version 0.1.0 wrote no schema"
    file = Path(shutil.copy(done.folder/'model.safetensors', tmp_path/'old.safetensors'))
    rewrite(file, lambda s: {'classes': s['classes'], 'presize': s['presize'], 'size': s['size'], **OLD[kind]})
    model, spec = load_model(file)
    assert spec['schema'] == SCHEMA and same(model, done.model)
    assert (spec['pipeline'], spec['valid_scale']) == (('fast', 0.875) if kind == 'laptop' else ('book', 1.))
    assert command('predict', file, next((images/'val').glob('3/*')))[0] == 0


def test_older_model_file_of_a_named_net(tmp_path):
    from resnet_course.models import create_model
    weights = create_model('resnet18', 2, width=8).state_dict()
    spec = {'arch': 'resnet18', 'width': 8, 'classes': ['a', 'b'], 'presize': 32, 'size': 32}
    save_file(weights, tmp_path/'old.safetensors', {'resnet_course': json.dumps(spec)})
    assert load_model(tmp_path/'old.safetensors')[1]['net_options'] == {'width': 8}


def without(key): return lambda d: {k: v for k, v in d.items() if k != key}


NO_MODEL = 'no model of this course'


@pytest.mark.parametrize('change, says', [
    (lambda s: s | {'schema': SCHEMA+1}, f'has schema {SCHEMA+1}, and this package reads up to {SCHEMA}; update'),
    (lambda s: s | {'schema': 'two'}, NO_MODEL), (lambda s: [1, 2], NO_MODEL), (without('classes'), NO_MODEL),
    (lambda s: s | {'net': 'resnet19'}, NO_MODEL), (lambda s: s | {'classes': ['3']}, NO_MODEL),
    (without('presize'), NO_MODEL), (lambda s: s | {'classes': None}, NO_MODEL)])
def test_model_files_that_cannot_be_read(refused, done, images, tmp_path, change, says):
    file = Path(shutil.copy(done.folder/'model.safetensors', tmp_path/'new.safetensors'))
    rewrite(file, change)
    assert says in refused('predict', file, next((images/'val').glob('3/*')))
    assert says in refused('evaluate', file, images)


@pytest.mark.parametrize('change, says', [
    (lambda c: c | {'schema': SCHEMA+1}, 'another version of resnet_course'), (without('schema'), 'another version of'),
    (lambda c: [c], 'another version of resnet_course'), (lambda c: c | {'recipe': c['recipe'] | {'version': 2}}, '2'),
    (lambda c: c | {'recipe': c['recipe'] | {'rate': 2}}, "'rate' is no field of a recipe"),
    (lambda c: c | {'recipe': c['recipe'] | {'bs': 'all'}}, 'all'), (lambda c: c | {'recipe': None}, 'recipe'),
    (without('recipe'), 'config.json'), (without('classes'), 'config.json')])
def test_run_folders_that_cannot_be_gone_on_with(refused, done, tmp_path, change, says):
    out = Path(shutil.copytree(done.folder, tmp_path/'run'))
    (out/'config.json').write_text(json.dumps(change(read_config(out))))
    kept = {f.name: f.read_bytes() for f in out.iterdir()}
    with pytest.raises(CourseError, match=says) as e: fit(None, None, out, resume=True)
    assert one_line(e) and says in refused('train', '--out', out, '--resume')
    assert kept == {f.name: f.read_bytes() for f in out.iterdir()}


@pytest.mark.parametrize('change, says', [
    (lambda s: s | {'schema': SCHEMA+1}, f'schema {SCHEMA+1}, not {SCHEMA}'), (without('schema'), 'schema None'),
    (lambda s: [s], 'checkpoint.pt'), (lambda s: s | {'recipe': s['recipe'] | {'seed': 7}}, 'of two runs'),
    (without('rows'), 'checkpoint.pt')])
def test_checkpoints_that_cannot_be_gone_on_with(done, tmp_path, change, says):
    out = Path(shutil.copytree(done.folder, tmp_path/'run'))
    torch.save(change(load_checkpoint(out/'checkpoint.pt')), out/'checkpoint.pt')
    with pytest.raises(CourseError, match=says) as e: fit(None, None, out, resume=True)
    assert one_line(e)
