"Named nets as others use them: table, options, channels, slices, older weights, fastai's vision_learner, TorchScript"
import ast
import importlib
import inspect
import re
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

from resnet_course.heads import nin_block
from resnet_course.inception import Branches
from resnet_course.layers import ConvLayer
from resnet_course.models import MODELS, build_model, create_model, empty_model, list_models, modern_keys
from resnet_course.relatives import Residual, yolo_bottleneck
from resnet_course.resnet import ResNet, deep_stem

FILES = sorted(f for f in (ROOT/'resnet_course').glob('*.py') if not f.stem.startswith('_'))


def n_params(m): return sum(p.numel() for p in m.parameters())


def nets(*daily, among=MODELS):
    return [pytest.param(name, marks=() if name in daily else pytest.mark.slow) for name in among]


# The table

def test_list_models():
    assert list_models() == list(MODELS) and all(make.__name__ == name for name, make in MODELS.items())
    assert list_models('resnet50') == ['resnet50']
    assert list_models('*net50*') == ['resnet50', 'wide_resnet50_2', 'seresnet50']
    assert list_models('nothing*') == []


def test_families_do_not_know_the_table():
    "Who imports whom has no circle among the modules of nets, and none is imported by name for what that does"
    nets = {f.stem: f.read_text() for f in FILES if f.stem in (
        'layers', 'cost', 'heads', 'inception', 'resblock', 'bottleneck', 'resnet', 'variants', 'relatives',
        'efficientnet', 'pairing', 'weight_files', 'weights', 'models')}
    trees = {name: ast.walk(ast.parse(text)) for name, text in nets.items()}
    imports = {name: {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module in nets}
               for name, tree in trees.items()}
    seen = set()
    while ready := {name for name in imports if name not in seen and imports[name] <= seen}: seen |= ready
    assert seen == set(nets), set(nets)-seen
    assert not [name for name, text in nets.items() if 'import_module' in text]


@pytest.mark.parametrize('name, options, says', [
    ('mobilenet_v2', {'width': 32}, 'mobilenet_v2 takes no width'),
    ('resnet18', {'wide': 32}, 'resnet18 takes no wide; .* width'),
    ('resnet50', {'expansion': 1}, 'takes no expansion'),
    ('seresnet50', {'layers': [1, 1, 1, 1]}, 'takes no layers'),
    ('nin', {'aux': True}, 'takes no aux'),
    ('resnet18', {'width': 30}, 'width=30'),
    *[(name, {'pretrained': True}, 'does not say which weights') for name in MODELS],
    ('resnet18', {'stats': [0.5, 0.5]}, 'stats='),
])
def test_a_wrong_option_is_named(name, options, says):
    with pytest.raises(ValueError, match=says): create_model(name, 10, **options)


@pytest.mark.parametrize('name', ['resnet18', 'wide_resnet50_2', 'resnext50_32x4d', 'seresnet50'])
def test_a_resnet_takes_all_options_of_the_class(name):
    with torch.device('meta'): model = create_model(name, 10, stem=deep_stem, width=128, n_in=2)
    assert len(model.stem) == 4 and model.stem[0][0].weight.shape == (64, 2, 3, 3)


def test_build_model():
    with torch.device('meta'):
        assert n_params(build_model({'net': 'nin', 'net_options': {}}, 10)) == n_params(create_model('nin', 10))
        assert build_model({'net': 'resnet18', 'net_options': {'width': 32}}, 10).head.in_features == 256
        options = {'layers': [1, 2, 1, 1], 'expansion': 4, 'width': 8}
        assert len(build_model({'net': 'ResNet', 'net_options': options}, 10).group2) == 2


# Each net

@pytest.mark.parametrize('n_in', [1, 4])
@pytest.mark.parametrize('name', nets('resnet18', 'nin', 'googlenet', 'mobilenet_v2'))
def test_any_channels(name, n_in):
    with torch.device('meta'): model, usual = create_model(name, 10, n_in=n_in).eval(), create_model(name, 10)
    assert model(torch.zeros(2, n_in, 65, 65, device='meta')).shape == (2, 10)
    first = next(usual.parameters())
    assert n_params(model)-n_params(usual) == (n_in-3)*first.numel()//3


@torch.no_grad()
@pytest.mark.parametrize('name', nets('resnet18', 'nin', 'googlenet', 'mobilenet_v2'))
def test_stem_groups_and_head(name):
    "Parts have the same names in all nets, and one after the other they are the net"
    model, x = create_model(name, 10).eval(), torch.randn(1, 3, 65, 65)
    parts = dict(model.named_children())
    assert re.fullmatch(r'stem( group\d)+( pool flatten)? head', ' '.join(parts))
    groups = [p for p in parts if p.startswith('group')]
    assert groups == [f'group{i}' for i in range(1, len(groups)+1)]
    assert torch.equal(nn.Sequential(*parts.values())(x), model(x))


@torch.no_grad()
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', nets('nin', 'resnet18'))
def test_script(name):
    model, x = create_model(name, 10).eval(), torch.randn(1, 3, 65, 65)
    assert torch.equal(torch.jit.script(model)(x), model(x))


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('make', [
    lambda: Residual(ConvLayer(8, 8)), lambda: yolo_bottleneck(8, 8), lambda: Branches(nn.Identity(), ConvLayer(8, 3))])
def test_script_of_a_block(make):
    block, x = make().eval(), torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(torch.jit.script(block)(x), block(x))


# Slices

CONTAINERS = {'Parts': None, 'ConvLayer': lambda: ConvLayer(4, 4),
              'ResNet': lambda: ResNet(4, [1, 1, 1, 1], n_in=4, width=8),
              'Residual': lambda: Residual(ConvLayer(4, 4), ConvLayer(4, 4), nn.ReLU()),
              'Branches': lambda: Branches(nn.Identity(), ConvLayer(4, 5), ConvLayer(4, 6))}


def test_all_containers_are_known():
    kinds = nn.Sequential, nn.ModuleList
    modules = [importlib.import_module(f'resnet_course.{f.stem}') for f in FILES if 'nn' in f.read_text()]
    classes = {c for m in modules for c in vars(m).values() if inspect.isclass(c) and issubclass(c, kinds)}
    found = {c.__name__ for c in classes if c.__module__.startswith('resnet_course.')}
    assert found == set(CONTAINERS)


@pytest.mark.parametrize('name', [name for name, make in CONTAINERS.items() if make])
def test_slices_run(name):
    model, x = CONTAINERS[name]().eval(), torch.randn(2, 4, 33, 33)
    parts = list(model)
    assert all(model[i] is part and model[i-len(parts)] is part for i, part in enumerate(parts))
    for s in (slice(2), slice(-1), slice(None), slice(0, 1)):
        part = model[s]
        assert list(part) == parts[s]
        if name == 'Branches': want = torch.cat([branch(x) for branch in parts[s]], 1)
        else:
            assert type(part) is nn.Sequential
            want = nn.Sequential(*parts[s])(x)
        assert torch.equal(part(x), want)


def test_a_slice_keeps_the_names():
    body = ResNet(10, [1, 1, 1, 1])[:-3]
    assert list(dict(body.named_children())) == ['stem', 'group1', 'group2', 'group3', 'group4']


# Weights of version 0.1.0

def linear_keys(layer): return [f'{layer}.weight', f'{layer}.bias']


def conv_keys(*layers):
    norm = 'weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked'
    return [key for layer in layers for key in (f'{layer}.0.weight', *(f'{layer}.1.{name}' for name in norm))]


def old_keys(name, aux=False):
    "What `state_dict` gave in version 0.1.0"
    if name == 'nin': return conv_keys(*(f'{i}.{j}' for i in (0, 2, 4, 7) for j in range(3)))
    modules = '0.1', '0.2', '0.4', '1.0', '1.1', '1.2', '2.0', '2.2', '2.3'
    keys = conv_keys(*(f'stages.0.0.{i}' for i in (0, 2, 3)))
    keys += conv_keys(*(f'stages.{m}.{i}' for m in modules for i in ('0', '1.0', '1.1', '2.0', '2.1', '3.1')))
    for i in range(2*aux): keys += conv_keys(f'aux.{i}.1') + linear_keys(f'aux.{i}.3') + linear_keys(f'aux.{i}.6')
    return keys + linear_keys('head.3')


@pytest.mark.parametrize('name, options, n', [
    ('nin', {}, 72), ('googlenet', {}, 344), ('googlenet', {'aux': True}, 364)])
def test_old_weights(name, options, n):
    with torch.device('meta'): today = create_model(name, **options).state_dict()
    old = dict(zip(old_keys(name, **options), today.values(), strict=True))
    assert len(old) == n
    new = modern_keys(name, old)
    assert list(new) == list(today) and all(new[k] is v for k, v in today.items())
    assert list(modern_keys(name, today)) == list(today)  # what is new stays


@pytest.mark.slow
def test_other_weights_stay():
    for name in set(MODELS)-{'nin', 'googlenet'}:
        with torch.device('meta'): weights = create_model(name).state_dict()
        assert list(modern_keys(name, weights)) == list(weights)


@torch.no_grad()
def test_nin_computes_what_it_did():
    def pool(): return nn.MaxPool2d(3, 2, 1)
    old = nn.Sequential(
        nin_block(3, 96, 11, 4), pool(), nin_block(96, 256, 5), pool(), nin_block(256, 384), pool(), nn.Dropout(0.5),
        nin_block(384, 10), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert list(old.state_dict()) == old_keys('nin')
    new, x = create_model('nin', 10), torch.randn(2, 3, 65, 65)
    new.load_state_dict(modern_keys('nin', old.state_dict()))
    for training in (False, True):
        torch.manual_seed(0)
        want = old.train(training)(x)
        torch.manual_seed(0)
        assert torch.equal(new.train(training)(x), want)


# fastai

@pytest.fixture(scope='module')
def dls():
    from resnet_course.data import get_data
    return get_data('digits', 32, 32, bs=4, workers=0)


@pytest.mark.parametrize('name', nets('resnet18', 'squeezenet1_0', among=[
    'resnet18', 'nin', 'googlenet', 'resnetv2_50', 'densenet121', 'squeezenet1_0', 'mobilenet_v2']))
def test_vision_learner(dls, name):
    "fastai cuts our net before its head, puts its own there and trains it, frozen and not"
    from fastai.callback.training import ShortEpochCallback
    from fastai.vision.all import norm_types, vision_learner
    learn = vision_learner(dls, MODELS[name], pretrained=False)
    with torch.device('meta'): parts = dict(MODELS[name](10).named_children())
    body, head = learn.splitter(learn.model)
    assert sum(p.numel() for p in body) == sum(n_params(part) for p, part in parts.items() if p != 'head')
    learn.freeze()
    norms = {p for m in learn.model.modules() if isinstance(m, norm_types) for p in m.parameters()}
    assert all(p.requires_grad == (p in norms) for p in body) and all(p.requires_grad for p in head)
    for frozen in (True, False):
        if not frozen: learn.unfreeze()
        before = [p.detach().clone() for p in (body[0], head[-1])]
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3, cbs=ShortEpochCallback(pct=1e-6))
        assert [torch.equal(a, b) for a, b in zip(before, (body[0], head[-1]), strict=True)] == [frozen, False]


@pytest.mark.parametrize('name', ['resnet18', 'densenet121'])
def test_vision_learner_has_no_trained_weights(dls, name):
    from fastai.vision.all import vision_learner
    with pytest.raises(ValueError, match=r'pretrained=True.*which weights.*pretrained=False'):
        vision_learner(dls, MODELS[name])


@pytest.mark.slow
def test_a_net_without_numbers_costs_no_imports():
    "Building on `meta` draws nothing, so torch has no need of what takes it seconds to import"
    code = ("import sys; from resnet_course.models import empty_model, list_models\n"
            "for name in list_models(): empty_model({'net': name, 'net_options': {}}, 10)\n"
            "assert not {'sympy', 'torch._dynamo'} & set(sys.modules)")
    subprocess.check_call([sys.executable, '-c', code])


@pytest.mark.parametrize('name', nets('nin', 'squeezenet1_0', 'mobilenet_v2'))
def test_a_net_without_numbers_has_the_shapes_of_one_with_them(name):
    spec = {'net': name, 'net_options': {}}
    empty, real = empty_model(spec, 10), build_model(spec, 10)
    assert {k: (v.shape, v.dtype) for k, v in empty.state_dict().items()} == \
           {k: (v.shape, v.dtype) for k, v in real.state_dict().items()}
    assert all(v.device.type == 'meta' for v in empty.state_dict().values())
