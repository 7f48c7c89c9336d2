"Muon: its steps, what it leaves alone, and that a run with it goes on where it was stopped"
import copy

import pytest
import torch
from conftest import slow
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.torch_core import set_seed
from torch import nn

from resnet_course.fast import fast_data, fast_learner
from resnet_course.layers import ConvLayer
from resnet_course.models import create_model
from resnet_course.muon import Muon, muon, orthogonal, turn
from resnet_course.recipes import Recipe, train
from resnet_course.resnet import ResNet
from resnet_course.step import fused_sgd


def small(**kwargs): return ResNet(10, [1, 1, 1, 1], width=8, **kwargs)


def nearest(g):
    left, _, right = torch.linalg.svd(g, full_matrices=False)
    return left@right


@pytest.mark.parametrize('shape', [(2, 32, 288), (3, 288, 32), (1, 8, 27), (1, 1, 27)])
def test_orthogonal(shape):
    torch.manual_seed(0)
    g = torch.randn(*shape)
    u = orthogonal(g)
    assert u.shape == g.shape
    s = torch.linalg.svdvals(u)
    assert s.min() > 0.6 and s.max() < 1.3, (s.min(), s.max())
    cosine = (u*nearest(g)).sum()/(u.norm()*nearest(g).norm())
    assert cosine > 0.98, "not the nearest orthogonal one"
    assert torch.allclose(orthogonal(1e-4*g), u, atol=1e-2) and torch.allclose(orthogonal(-g), -u, atol=1e-6)


@pytest.mark.parametrize('shape', [(32, 288), (288, 32), (3, 16, 40)])
@pytest.mark.parametrize('rounds', [1, 3, 5])
def test_rounds_on_the_square_are_rounds_on_the_matrix(shape, rounds):
    torch.manual_seed(0)
    g = torch.randn(*shape)
    x = (g.mT if g.shape[-2] > g.shape[-1] else g).double()
    x = x/x.norm(dim=(-2, -1), keepdim=True)
    for _ in range(rounds):
        a = x@x.mT
        x = 3.4445*x - 4.775*a@x + 2.0315*a@a@x
    want = x.mT if g.shape[-2] > g.shape[-1] else x
    def error(u): return ((u-want).norm()/want.norm()).item()
    assert error(orthogonal(g, rounds)) < 1e-4 and error(orthogonal(g.bfloat16(), rounds)) < 0.02


def test_a_step_is_the_same_however_the_kernel_lies_in_memory():
    torch.manual_seed(0)
    w, g, m = (torch.randn(8, 4, 3, 3) for _ in range(3))
    ends = []
    for layouts in ('ccc', 'lll', 'lcl', 'clc'):
        a, b, c = (t.clone(memory_format=torch.channels_last if k == 'l' else torch.contiguous_format)
                   for t, k in zip((w, g, m), layouts, strict=True))
        strides = a.stride(), c.stride()
        turn([a], [b], [c], 0.1, 0.9)
        assert torch.equal(b, g) and (a.stride(), c.stride()) == strides
        ends.append((a, c))
    for a, c in ends[1:]:
        assert torch.allclose(a, ends[0][0], atol=1e-5) and torch.allclose(c, ends[0][1], atol=1e-6)


def test_kernels_that_are_turned_together_are_turned_as_each_alone():
    "Wide, square and tall matrices of eight rows: they share the squares, and nothing else"
    torch.manual_seed(0)
    shapes = (8, 4, 3, 3), (8, 8, 1, 1), (16, 8, 1, 1), (8, 3, 5, 5)
    ws, gs, ms = ([torch.randn(s) for s in shapes] for _ in range(3))
    alone = [[t.clone() for t in three] for three in zip(ws, gs, ms, strict=True)]
    for w, g, m in alone: turn([w], [g], [m], 0.1, 0.9)
    turn(ws, gs, ms, 0.1, 0.9)
    for (w, _, m), a, c in zip(alone, ws, ms, strict=True):
        assert torch.allclose(a, w, atol=1e-6) and torch.equal(c, m)


@pytest.mark.parametrize('ni, nf', [(3, 32), (32, 32), (64, 128)])
@pytest.mark.parametrize('kept', [1, 2, 20, None])
@pytest.mark.parametrize('fall', [0, 2, 4])
def test_a_step_is_no_longer_than_it_may_be_whatever_the_gradient(monkeypatch, ni, nf, kept, fall):
    "In bfloat16 the square of a small singular value may be less than nothing, and grows from round to round"
    torch.manual_seed(0)
    u, s, vh = torch.linalg.svd(torch.randn(nf, 9*ni), full_matrices=False)
    s = 10**-torch.linspace(0, fall, len(s))
    if kept: s[kept:] = 0
    g, w = (u*s@vh).reshape(nf, ni, 3, 3), torch.randn(nf, ni, 3, 3)
    moved = {}
    for kind in ('bf16', 'fp32'):
        monkeypatch.setattr('resnet_course.muon.best_precision', lambda _, kind=kind: kind)
        after = w.clone()
        turn([after], [g], [torch.zeros_like(g)], 1, 0)
        moved[kind] = (w*nf**0.5/w.norm()-after).flatten(1)
        assert torch.linalg.svdvals(moved[kind]).max() < 1.3, kind
    assert torch.cosine_similarity(*(m.flatten() for m in moved.values()), dim=0) > 0.98


def test_no_round_is_refused():
    with pytest.raises(ValueError, match='steps=0 is too few; take 1 or more'): orthogonal(torch.randn(2, 3), 0)


def test_orthogonal_of_nothing_is_nothing():
    assert not orthogonal(torch.zeros(2, 4, 9)).any() and not orthogonal(torch.zeros(0, 4, 9)).numel()


def steps(net, opt_func, n, **kwargs):
    torch.manual_seed(1)
    opt = opt_func(list(net.parameters()), **kwargs)
    for _ in range(n):
        x, y = torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    return opt


def test_one_step():
    "A kernel keeps its length and moves along its gradient, orthogonalised; all else as by SGD"
    nets = [small() for _ in range(3)]
    for net in nets[1:]: net.load_state_dict(nets[0].state_dict())
    was = {name: p.detach().clone() for name, p in nets[2].named_parameters()}
    steps(nets[0], muon, 1, lr=0.2, wd=5e-4)
    steps(nets[1], fused_sgd, 1, lr=0.2, wd=5e-4)
    turned = 0
    for (name, p), q in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        if p.ndim != 4:
            assert torch.allclose(p, q, atol=1e-7), name
            continue
        old = was[name].flatten(1)
        g = (old-q.detach().flatten(1))/0.2/1.9-5e-4*old  # Nesterov's first step, the decay in it
        turn = old*len(p)**0.5/old.norm()-p.detach().flatten(1)
        if g.norm() < 1e-5:  # before a norm that starts at 0
            assert turn.norm() < 1e-5, name
            continue
        meant = 0.2*0.25*orthogonal(g[None])[0]
        assert torch.cosine_similarity(turn.flatten(), meant.flatten(), 0) > 0.99, name
        assert turn.norm() == pytest.approx(meant.norm().item(), rel=0.02)
        turned += 1
    assert turned == 6  # of the stem and of the shortcuts


def test_length_is_kept_whatever_the_rate():
    net = small()
    steps(net, muon, 3, lr=0.)
    for p in net.parameters():
        if p.ndim == 4: assert p.norm().item() == pytest.approx(len(p)**0.5, rel=1e-4)


def test_what_is_no_kernel_before_a_norm_is_left_to_sgd():
    "Depthwise kernels, a fixed layer, a layer that got no gradient"
    net = nn.Sequential(ConvLayer(3, 8), ConvLayer(8, 8, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(8, 10))
    net[0][0].weight.requires_grad_(False)
    twin = nn.Sequential(ConvLayer(3, 8), ConvLayer(8, 8, groups=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 10))
    twin.load_state_dict(net.state_dict())
    twin[0][0].weight.requires_grad_(False)
    fixed = net[0][0].weight.clone()
    steps(net, muon, 2, lr=0.1)
    steps(twin, fused_sgd, 2, lr=0.1)
    assert torch.equal(net[0][0].weight, fixed)
    assert all(torch.allclose(p, q, atol=1e-7) for p, q in zip(net.parameters(), twin.parameters(), strict=True))
    extra = nn.ModuleList([small(), ConvLayer(3, 8)])  # no gradient
    opt, before = muon(list(extra.parameters()), lr=0.1), extra[1][0].weight.clone()
    extra[0](torch.randn(2, 3, 32, 32)).sum().backward()
    opt.step()
    assert torch.equal(extra[1][0].weight, before)


def test_a_closure_and_a_state_that_comes_back():
    def closure():
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        return loss
    torch.manual_seed(0)
    net, x, y = small(), torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    opt = muon(list(net.parameters()), lr=0.05)
    assert isinstance(opt.opt, Muon) and opt.opt.step(closure).item() > 0
    losses = [opt.opt.step(closure).item() for _ in range(10)]
    assert losses[-1] < losses[0]
    twin = small()
    twin.load_state_dict(net.state_dict())
    other = muon(list(twin.parameters()), lr=0.05)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    closure()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True): q.grad = p.grad.clone()
    opt.step()
    other.step()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


def test_rates_by_depth_and_frozen_bodies():
    dls = fast_data('digits', 32, 32, bs=128)
    learn = fast_learner(dls, small(), opt_func=muon, splitter=lambda m: [list(m.stem.parameters()),
                                                                         [p for n, p in m.named_parameters()
                                                                          if not n.startswith('stem')]])
    learn.create_opt()
    assert len(learn.opt.hypers) == 2 and learn.opt.hypers[0]['mom'] == 0.9 and learn.opt.hypers[0]['wd'] == 5e-4
    stem = [p.detach().clone() for p in learn.model.stem.parameters() if p.ndim == 4]
    learn.freeze()
    learn.dls.train.n = 256
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, slice(0.01, 0.2))
    assert all(torch.equal(p, q) for p, q in zip(stem, [p for p in learn.model.stem.parameters() if p.ndim == 4],
                                                 strict=True))


@pytest.mark.slow
def test_it_learns_and_a_run_goes_on_where_it_was_stopped(tmp_path):
    class Stop(Exception): pass
    recipe = Recipe(net='ResNet', net_options=dict(layers=[1, 1, 1, 1], width=8), sizes=(32,)*3, bs=128, lr=0.2,
                    optimiser='Muon', averaging=0.9, precision='fp32')
    def report(line):
        if line.startswith('epoch 2/'): raise Stop('here')
    whole = train(recipe, 'digits', tmp_path/'whole', report=lambda line: None, device='cpu')
    assert whole.accuracy > 0.8
    with pytest.raises(Stop): train(recipe, 'digits', tmp_path/'stopped', report=report, device='cpu')
    on = train(None, out=tmp_path/'stopped', resume=True, report=lambda line: None, device='cpu')
    for name, t in whole.model.state_dict().items(): assert torch.equal(t, on.model.state_dict()[name]), name
    assert on.recipe == whole.recipe


@pytest.mark.parametrize('name', [
    'squeezenet1_0', *map(slow, ['densenet121', 'mobilenet_v2', 'nin', 'googlenet', 'seresnet50'])])
def test_any_net_of_the_course_takes_a_step(name):
    set_seed(0)
    net = create_model(name, 10)
    opt = muon(list(net.parameters()), lr=0.01)
    nn.functional.cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.arange(4)).backward()
    opt.step()
    assert all(p.isfinite().all() for p in net.parameters())
