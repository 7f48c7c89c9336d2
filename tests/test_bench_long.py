"What pays in short runs and in long ones: each change does what it says, in training alone; what the rule chooses"
import json

import pytest
import torch
from fastai.torch_core import TensorCategory, TensorImage
from fasttransform import Pipeline
from torch import nn
from torchvision.ops import StochasticDepth

from resnet_course.resnet import resnet18


@pytest.fixture
def long(bench): return bench('long')


def batch(n=32):
    torch.manual_seed(0)
    return TensorImage(255*torch.rand(n, 3, 24, 24)), TensorCategory(torch.arange(n) % 10)


@pytest.mark.parametrize('name', ['mixup', 'cutmix', 'trivial', 'erasing'])
def test_a_change_of_batches_is_for_training_alone(long, name):
    script, _ = long
    torch.manual_seed(1)
    x, y = batch()
    tfms = [script.CHANGES[name].tfm(10)]
    seen = Pipeline(tfms, split_idx=1)((x.clone(), y))
    assert torch.equal(seen[0], x) and torch.equal(seen[1], y)
    tx, ty = Pipeline(tfms, split_idx=0)((x.clone(), y))
    assert tx.shape == x.shape and not torch.equal(tx.float(), x)
    if name in ('mixup', 'cutmix'):
        assert ty.shape == (32, 10) and torch.allclose(ty.sum(1), torch.ones(32)) and 0 < ty.max() < 1
    else: assert torch.equal(ty, y)


def test_one_operation_for_each_eight_images(long):
    script, _ = long
    calls = []
    tfm = script.Each(lambda part: calls.append((len(part), part.dtype)) or part)
    tfm.encodes(batch(20)[0])
    assert calls == [(8, torch.uint8), (8, torch.uint8), (4, torch.uint8)]


def test_paths_are_dropped_the_deeper_the_more(long):
    script, _ = long
    net = resnet18(10, width=8)
    script.CHANGES['depth'].net(net)
    drops = [m.p for m in net.modules() if isinstance(m, StochasticDepth)]
    assert len(drops) == 8 and drops == sorted(drops) and drops[-1] == pytest.approx(0.1) and drops[0] > 0
    x = torch.randn(4, 3, 32, 32)
    plain = resnet18(10, width=8)
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), plain.eval()(x))


def test_a_second_look_is_at_the_mirror_image(long):
    script, _ = long
    class Left(nn.Module):  # sure of the side that is brighter, and more so of the left one
        def forward(self, x):
            left, right = x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))
            return torch.stack([3*left, right], 1)
    x = torch.zeros(2, 3, 4, 8)
    x[0, ..., :4], x[1, ..., 4:] = 1, 2
    loader = [(TensorImage(x), TensorCategory(torch.tensor([0, 1])))]
    assert script.score(Left(), loader) == 1 and script.score(Left(), loader, flip=True) == 0.5


def record(accuracies):
    runs = [{'variant': f'{v}, {n} epochs', 'held_out': a+0.01*i} for (v, n), a in accuracies.items()
            for i in range(3)]
    variants = {f'{v}, {n} epochs': {'changes': [v], 'epochs': n} for v, n in accuracies}
    return {'variants': variants, 'runs': runs}


def test_the_longest_runs_choose(long):
    script, _ = long
    def chosen(runs): return script.winner(record({('base', 5): 0.7, ('base', 25): 0.8, **runs}))
    assert chosen({('smoothing', 5): 0.9, ('smoothing', 25): 0.8}) == []
    assert chosen({('smoothing', 5): 0.1, ('smoothing', 25): 0.81}) == ['smoothing']
    assert chosen({('depth', 25): 0.805}) == [], "half a point is less than its error, 0.8"
    assert chosen({('mixup', 25): 0.83, ('cutmix', 25): 0.85, ('depth', 25): 0.82}) == ['cutmix', 'depth']


@pytest.mark.slow
def test_rehearsal(long, tmp_path):
    "Two changes, the winner, and what lies between; a stopped script goes on"
    _, script = long
    def run(name, *words):
        script('--tiny', '--json', tmp_path/f'{name}.json', *words)
        return json.loads((tmp_path/f'{name}.json').read_text())
    words = '--epochs', 1, 2, '--seeds', 0, 1, '--only', 'base', 'mixup'
    first = run('long', *words)
    assert [(r['variant'], r['seed']) for r in first['runs']] == [
        (f'{v}, {n} epochs', s) for s in (0, 1) for n in (1, 2) for v in ('base', 'mixup')]
    for r in first['runs']:
        assert 'accuracy' in r['history'][-1] and len(r['history']) == int(r['variant'].split()[1])
        assert {'held_out', 'flipped'} < {*r} and r['history'][-1]['size'] == 32
    last = first['runs'].pop()
    (tmp_path/'long.json').write_text(json.dumps(first))
    again = run('long', *words)
    assert again['runs'][:-1] == first['runs'] and again['runs'][-1]['held_out'] == last['held_out']
    by = run('by', '--by', tmp_path/'long.json', '--epochs', 1, '--seeds', 0)
    assert [r['variant'] for r in by['runs']] == ['base, 1 epochs', 'winner, 1 epochs']
    gap = run('gap', '--gap', '--seeds', 0, '--only', 'ResNet-18')
    between = 'ranger', 'Adam and one cycle', 'Muon'
    assert [r['variant'] for r in gap['runs']] == [f'ResNet-18, {how}' for how in between]
