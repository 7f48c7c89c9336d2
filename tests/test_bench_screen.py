"The screening of changes to the laptop recipe: its design, its split, what each factor does, and what it reports"
import json
from argparse import Namespace
from dataclasses import replace
from importlib import import_module
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import linked_digits
from fastai.callback.core import Callback
from timm.layers import BlurPool2d
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from resnet_course.cost import cost_table
from resnet_course.errors import CourseError
from resnet_course.muon import orthogonal
from resnet_course.variants import SqueezeExcite
from resnet_course.results import read_result
from resnet_course.train import AverageWeights


@pytest.fixture
def screen(bench, monkeypatch):
    "bench/screen.py with a narrow net at small sizes"
    script, run = bench('screen')
    today = replace(script.TODAY, net_options={'width': 8}, presize=48, sizes=(32, 48), precision='fp32')
    monkeypatch.setattr(script, 'TODAY', today)
    monkeypatch.setattr(script, 'HELD_OUT', 40)
    yield script, run
    script.loaded.cache_clear()


@pytest.fixture
def factors(bench):
    bench('screen')
    return import_module('factors')


@pytest.fixture(scope='module')
def sevens(tmp_path_factory, digits):
    "300 digits to train on; what lies in `val` is no image"
    root = linked_digits(tmp_path_factory.mktemp('screen')/'sevens', digits, 140, 2)
    for f in root.glob('val/*/*'):
        f.unlink()
        f.write_text("not to be read")
    return root


@pytest.fixture
def made(screen, sevens):
    "A learner with some factors changed, ready to fit, and its recipe"
    script, _ = screen
    args, images = Namespace(device='cpu', batches=None, experiment='screen'), script.tuning_split(sevens, 40)
    def make(*factors):
        recipe = script.fill_recipe(script.recipe_of(factors, script.TODAY), images.dataset, len(images.train))
        return script.learner(args, images, factors, recipe), recipe
    return make


def fit(learn, recipe):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(len(recipe.sizes), recipe.lr, wd=recipe.wd)


@pytest.mark.parametrize('n, runs, clear', [(8, 16, True), (11, 16, False), (11, 32, True), (15, 32, True)])
def test_design(screen, n, runs, clear):
    "Columns are balanced and orthogonal; `clear`: to every product of two others as well"
    x = screen[0].design(n, runs)
    assert x.shape == (runs, n) and {*x.flat} == {-1, 1} and len({tuple(row) for row in x}) == (16 if n == 8 else runs)
    assert (x.T@x == runs*np.eye(n)).all() and (x.sum(0) == 0).all()
    pairs = np.stack([x[:, i]*x[:, j] for i, j in combinations(range(n), 2)], 1)
    assert (x.T@pairs == 0).all() == clear
    assert (screen[0].design(n, 32)[:16] == screen[0].design(n)).all()  # a screening of 16 runs can be gone on with


def test_split_is_of_training_images_by_class_and_always_the_same(screen, sevens):
    split = screen[0].tuning_split
    images = split(sevens, 41)
    train, held = set(images.train), set(images.val)
    assert len(train) == 239 and len(held) == 41 and not train & held
    assert train | held == set(sevens.glob('train/*/*')), "a validation image is among them"
    assert {label: images.labels[239:].count(label) for label in '37'} in ({'3': 20, '7': 21}, {'3': 21, '7': 20})
    assert all(f.parent.name == label for f, label in zip(images.items, images.labels, strict=True))
    again = split(sevens, 41)
    assert (images.items, images.labels) == (again.items, again.labels)
    assert split(sevens, 41, seed=1).val != images.val
    assert len(set(images.labels[:20])) == 2, "a few batches would hold one class"


def test_epochs_by_scale(screen):
    scaled, sizes = screen[0].scaled, (64,)*9+(96,)*11+(128,)*5
    assert scaled(sizes, 1) == sizes and scaled(sizes, 0.1) == (64, 96, 128)
    assert scaled(sizes, 0.5) == (64,)*5+(96,)*6+(128,)*3 and scaled(sizes, 2) == (64,)*18+(96,)*22+(128,)*10


def test_recipes_differ_in_what_the_factors_say(screen):
    script, _ = screen
    today, of = script.TODAY, script.recipe_of
    sizes = today.sizes
    changes = {'smoothing': dict(smoothing=0.1), 'muon': dict(optimiser='Muon'), 'rate': dict(lr=0.2*1.5),
               'longer': dict(sizes=script.scaled(sizes, 1.2)), 'small': dict(sizes=sizes[:1]*4+sizes[:-1]),
               'decay': dict(wd=1e-3), 'batch': dict(bs=128, lr=0.4),
               'average': dict(averaging=0.99, average_from=0.6), 'crops': dict(min_scale=0.5),
               'blocks': dict(net='ResNet', net_options={'width': 8, 'layers': [1, 2, 3, 2]})}
    assert of([], today) == today and today.wd is None and (today.bs, today.lr) == (64, 0.2)
    for name in script.FACTORS: assert of([name], today) == replace(today, **changes.get(name, {})), name
    every = of(list(script.FACTORS), today)
    together = dict(lr=0.4*1.5, sizes=script.scaled(changes['small']['sizes'], 1.2))
    assert all(getattr(every, k) == together.get(k, v) for fields in changes.values() for k, v in fields.items())


def test_each_image_is_mirrored_every_other_epoch(screen):
    script, _ = screen
    torch.manual_seed(0)
    store = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8)
    words = dict(bs=4, shuffle=True, drop_last=False, num_workers=0)  # what it keeps, a process of its own would forget
    dl = script.AlternatingDL(list(range(10)), (store, 0, torch.arange(10)), **words)
    epochs = []
    for _ in range(4):
        mirrored = {}
        for x, y in dl:
            for image, row in zip(x, y.tolist(), strict=True):
                here = store[row].permute(2, 0, 1)
                mirrored[row] = torch.equal(image, here.flip(-1))
                assert mirrored[row] or torch.equal(image, here)
        epochs.append([mirrored[row] for row in range(10)])
    assert epochs[0] == epochs[2] == [not m for m in epochs[1]] == [not m for m in epochs[3]] and len({*epochs[0]}) == 2


def test_alternating_images_are_mirrored_once(made):
    "By the loader alone; without it the crop mirrors"
    def crop(learn): return next(t for t in learn.dls.train.after_batch.fs if hasattr(t, 'min_scale'))
    learn, _ = made()
    assert crop(learn).flip and crop(learn).min_scale == 0.35 and learn.dls.train.bs == 64
    learn, _ = made('flips', 'crops', 'batch')
    assert not crop(learn).flip and crop(learn).min_scale == 0.5 and learn.dls.train.bs == 128
    assert type(learn.dls.train).__name__ == 'AlternatingDL' and learn.dls.train.fake_l.num_workers == 0


def test_nets(made):
    def count(net, kind): return sum(isinstance(m, kind) for m in net.modules())
    def macs(net): return cost_table(net, 64).iloc[-1]['MACs']
    today = made()[0].model
    assert (count(today, SqueezeExcite), count(today, BlurPool2d), count(today, nn.AvgPool2d)) == (0, 0, 3)
    net = made('excite')[0].model
    places = {name.partition('.')[0] for name, m in net.named_modules() if isinstance(m, SqueezeExcite)}
    assert count(net, SqueezeExcite) == 4 and places == {'group3', 'group4'}
    net = made('blur')[0].model
    assert (count(net, BlurPool2d), count(net, nn.AvgPool2d)) == (4, 0) and net.stem[-1][0].stride == 1
    x = torch.randn(2, 3, 49, 49)
    for part in ('stem', 'group1', 'group2', 'group3', 'group4'):  # the same sides, odd ones too
        a, b = (n.eval()[:list(dict(n.named_children())).index(part)+1](x) for n in (net, today))
        assert a.shape == b.shape
    net = made('blocks')[0].model
    assert [len(getattr(net, f'group{i}')) for i in range(1, 5)] == [1, 2, 3, 2] and macs(net) == macs(today)


def test_whitened_patches(made, factors):
    "The first layer's outputs on the images have unit covariance, come with their negatives, and training keeps them"
    def batch():  # smooth, and the colours alike: three channels of a noise and of one that they share
        noise = F.avg_pool2d(torch.randn(64, 4, 49, 49), 2, 1)
        return noise[:, :3]+noise[:, 3:]
    learn, recipe = made('whiten')
    factors.whiten(learn.model, Namespace(train=Namespace(one_batch=lambda: (batch(),))))
    conv, relu = learn.model.stem[0]
    x = batch()
    patches, out = (F.conv2d(x, w, stride=2).transpose(0, 1).flatten(1) for w in (torch.eye(27).view(27, 3, 3, 3),
                                                                                 conv.weight[:12]))
    assert (torch.cov(patches)-torch.eye(27)).abs().max() > 0.4 and (torch.cov(out)-torch.eye(12)).abs().max() < 0.1
    assert torch.equal(conv.weight[:12], -conv.weight[12:]) and isinstance(relu, nn.ReLU)
    before, other = conv.weight.clone(), learn.model.stem[1][0].weight.clone()
    fit(learn, recipe)
    assert torch.equal(conv.weight, before) and not torch.equal(learn.model.stem[1][0].weight, other)


def test_multiply_adds(made, screen):
    script, _ = screen
    learn, recipe = made('whiten', 'muon')
    table = {size: int(cost_table(learn.model, size).iloc[-1]['MACs']) for size in (32, 48)}
    without = replace(recipe, optimiser='fused SGD')
    assert script.macs(learn.model, without, 3) == 3*3*64*sum(table.values())
    with FlopCounterMode(display=False) as counter:
        for p in learn.model.parameters():
            if p.ndim == 4 and p.requires_grad: orthogonal(torch.randn(1, *p.flatten(1).shape))
    more = script.macs(learn.model, recipe, 3)-script.macs(learn.model, without, 3)
    assert more == 2*3*counter.get_total_flops()/2  # two sizes of one epoch, three steps each


def test_average_is_asked_for(made):
    assert not any(isinstance(cb, AverageWeights) for cb in made()[0].cbs)
    average, = (cb for cb in made('average')[0].cbs if isinstance(cb, AverageWeights))
    assert (average.decay, average.begin) == (0.99, 0.6)


@pytest.mark.slow
def test_rehearsal(screen, sevens, tmp_path, capsys):
    "Both experiments run, go on where they were stopped, and never open a validation image"
    script, run = screen
    file, words = tmp_path/'screen.json', ['--data', sevens, '--batches', 1, '--commit', 'none']
    run('screen', *words, '--only', 'run 01', 'run 02', '--json', file)
    first = json.loads(file.read_text())
    epochs = [len(first['variants'][name]['recipe']['sizes']) for name in ('run 01', 'run 02')]
    assert [(r['variant'], r['seed'], len(r['history'])) for r in first['runs']] == [('run 01', 0, epochs[0]),
                                                                                     ('run 02', 1, epochs[1])]
    assert first['split'] == {'train': 240, 'val': 40, 'seed': 0} and len(first['variants']) == 32
    assert all('accuracy' not in r['history'][0] and 0 <= r['history'][-1]['accuracy'] <= 1 for r in first['runs'])
    assert '2 runs are too few' in capsys.readouterr().out
    run('screen', *words, '--only', 'run 02', 'run 17', '--json', file)
    runs = json.loads(file.read_text())['runs']
    assert runs[:2] == first['runs'] and [(r['variant'], r['seed']) for r in runs[2:]] == [('run 17', 16)]

    file = tmp_path/'confirm.json'
    words = ['confirm', *words, '--scale', 2, '--choose', *script.FACTORS, '--seeds', 0, '--json', file]
    run(*words)
    record, epochs = read_result('confirm', tmp_path)
    cost = {r['variant']: r['MACs'] for r in record['runs']}
    assert [*cost] == ['today', 'chosen', dear := 'today, as dear as the chosen'] and len(epochs) > 8
    assert cost[dear] == pytest.approx(cost['chosen'], rel=0.2) and cost[dear] > cost['today']
    assert f"chosen: {100*record['runs'][1]['history'][-1]['accuracy']:.2f} (n = 1)" in capsys.readouterr().out
    before = file.read_bytes()
    run(*words)
    assert file.read_bytes() == before
    for words in (['confirm'], ['score'], ['screen', '--choose', 'muon']):
        with pytest.raises(SystemExit): run(*words, '--json', file)


def test_report_finds_what_was_planted(screen, tmp_path, capsys):
    script, run = screen
    rng, variants = np.random.default_rng(0), script.screened()
    def made(i, name, factors):
        accuracy = 88+1.5*('muon' in factors)-1.*('blur' in factors)+0.4*rng.standard_normal()
        seconds = 10*1.5**('blur' in factors)
        return {'variant': name, 'seed': i, 'MACs': 1e12*1.2**('excite' in factors),
                'history': [{'train_loss': 1., 'seconds': seconds/4}, {'train_loss': .5, 'accuracy': accuracy/100,
                                                                      'seconds': 3*seconds/4}]}
    record = {'factors': {f: v.what for f, v in script.FACTORS.items()},
              'variants': {name: {'factors': factors} for name, factors in variants.items()},
              'runs': [made(i, name, factors) for i, (name, factors) in enumerate(variants.items())]}
    table, spread, degrees, today = script.effects(record)
    of = {row[0]: row[1:] for row in table}
    assert [table[0][0], table[-1][0]] == ['muon', 'blur'] and degrees == 16 and 0.2 < spread < 0.6
    assert today == pytest.approx(88, abs=0.6)
    for name, (effect, error, half, macs, seconds) in of.items():
        planted = {'muon': 1.5, 'blur': -1.}.get(name, 0)
        assert abs(effect-planted) < 3.5*error and error == pytest.approx(2*spread/32**0.5)
        assert half == pytest.approx(2.12*error, rel=1e-3) and (abs(effect) > half) >= bool(planted)
        assert (macs, seconds) == pytest.approx((1.2 if name == 'excite' else 1, 1.5 if name == 'blur' else 1))
    file = tmp_path/'r.json'
    diverged = {'train_loss': float('nan'), 'accuracy': 0.1, 'seconds': 1}
    record['runs'].append({**record['runs'][0], 'history': [diverged]})
    file.write_text(json.dumps(record))
    run('screen', '--report', '--json', file)
    first, head, best, *_ = capsys.readouterr().out.splitlines()
    assert first.endswith('not finite: run 01') and head.startswith('factor') and best.startswith('muon ')
    assert f"{of['muon'][0]:+.2f}" in best and f'{script.FACTORS["muon"].what}' in best


def test_report_of_a_confirmation(screen):
    def runs(name, accuracies):
        return [{'variant': name, 'history': [{'train_loss': 1., 'accuracy': a}]} for a in accuracies]
    record = {'runs': runs('today', [.88, .89, .87]) + runs('chosen', [.90, .91, .89]) + runs('other', [.5])}
    today, chosen, other = screen[0].report(record)
    assert today == 'today: 88.00 (n = 3)' and other == 'other: 50.00 (n = 1)'
    assert chosen.startswith('chosen: 90.00 (n = 3); against today +2.0 points (95% range -0.3 to +4.3)')


def planted(script, points, macs):
    "A screening whose effects are known, but for a little noise"
    rng = np.random.default_rng(1)
    def run(i, name, factors):
        accuracy = 88+sum(points.get(f, -0.2) for f in factors)+0.05*rng.standard_normal()
        cost = np.prod([macs.get(f, 1) for f in factors])
        return {'variant': name, 'seed': i, 'MACs': 1e12*cost,
                'history': [{'train_loss': .5, 'accuracy': accuracy/100, 'seconds': 1}]}
    variants = script.screened()
    return {'factors': {f: v.what for f, v in script.FACTORS.items()},
            'variants': {name: {'factors': factors} for name, factors in variants.items()},
            'runs': [run(i, name, factors) for i, (name, factors) in enumerate(variants.items())]}


def test_what_paid_is_held_against_epochs_of_the_same_cost(screen):
    script, _ = screen
    cheap = {'muon': 1., 'blur': 0.3, 'excite': 0.3, 'decay': -1., 'longer': 0.5}
    found = script.paid(planted(script, cheap, {'longer': 1.2, 'excite': 1.2, 'blur': 1.01}))
    assert found == ['muon', 'blur'], "excite gives less than epochs of its cost, and epochs are no change"
    worse = script.paid(planted(script, {'longer': -0.5, 'excite': 0.3}, {'longer': 1.2, 'excite': 1.5}))
    assert worse == ['excite'], "where epochs harm, none would be bought"
    assert script.paid(planted(script, {}, {'longer': 1.2})) == []


@pytest.mark.slow
def test_a_score_opens_the_validation_set_and_costs_what_it_may(screen, sevens, tmp_path, capsys):
    script, run = screen
    planned = tmp_path/'screen.json'
    planned.write_text(json.dumps(planted(script, {'muon': 1.}, {'longer': 1.2})))
    with pytest.raises(CourseError, match='val'):
        run('score', '--data', sevens, '--choose', 'muon', '--commit', 'none', '--json', tmp_path/'score.json')
    file = tmp_path/'confirm.json'
    run('confirm', '--data', sevens, '--by', planned, '--budget', 3, '--batches', 1, '--seeds', 0, '--commit', 'none',
        '--json', file)
    record = json.loads(file.read_text())
    assert record['variants']['chosen']['factors'] == ['muon'] and '--choose muon' in record['command']
    cost = {r['variant']: r['MACs'] for r in record['runs']}
    assert 2 < cost['chosen']/cost['today'] < 4.5


def test_straight_rates(made, factors):
    "Up within a tenth, then in a straight line to nothing"
    learn, recipe = made('straight')
    rates = []
    class Watch(Callback):
        order = 61  # after the schedule
        def after_batch(self):
            if self.training: rates.append(self.opt.hypers[-1]['lr'])
    learn.add_cb(Watch())
    with learn.no_bar(), learn.no_logging(): factors.straight(learn, 10, 0.2, recipe.wd)
    top, n = int(np.argmax(rates)), len(rates)
    assert 0.06 <= top/n <= 0.16 and max(rates) == pytest.approx(0.2, rel=0.1) and rates[-1] < 0.01
    assert np.diff(rates[top+2:]) == pytest.approx(np.diff(rates[top+2:]).mean(), rel=1e-3)
