"What went wrong without a word: a result that was not what it was called"
import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import linked_digits
from fastai.callback.core import Callback
from fastai.torch_core import TensorImage, set_seed
from tiny import TINY, fit
from torch import nn

from resnet_course.callbacks import DeviceMetric
from resnet_course.errors import CourseError
from resnet_course.fast import BatchRandomResizedCrop, NormalizeBytes, fast_data, fast_learner, fast_tfms
from resnet_course.inside import grad_cam, input_gradient
from resnet_course.layers import ConvLayer
from resnet_course.model_files import load_model
from resnet_course.models import create_model, step_bytes
from resnet_course.muon import Muon, muon
from resnet_course.recipes import RECIPES, Recipe
from resnet_course.resizing import size_schedule
from resnet_course.resnet import ResNet
from resnet_course.step import FewPlacesConv2d
from resnet_course.train import AverageWeights, get_learner
from resnet_course.weights import _classifiers, forward_features, reset_head, restate


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits): return linked_digits(tmp_path_factory.mktemp('data')/'images', digits, 12, 5)


@pytest.fixture(scope='module')
def dls(images): return fast_data(images, 32, 32, bs=8, device='cpu')


def net(seed=0):
    set_seed(seed)
    return ResNet(2, [1, 1, 1, 1], width=8)


def trained(learn, epochs=2):
    set_seed(0)
    for dl in learn.dls.loaders: dl.rng.seed(0)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-2)
    return [v.clone() for v in learn.model.state_dict().values()]


def same(a, b): return all(map(torch.equal, a, b))


# -- Muon

def test_muon_tells_of_a_kernel_of_zeros():
    "Its length cannot be kept: the first step would divide by it"
    for kernel, wrong in ((torch.zeros(4, 2, 3, 3), True), (torch.randn(4, 2, 3, 3), False)):
        p = nn.Parameter(kernel)
        p.grad = torch.randn_like(p)
        opt = Muon([p], lr=0.1, momentum=0.9, nesterov=True)
        if wrong:
            with pytest.raises(CourseError, match='zeros; take another'): opt.step()
        else:
            opt.step()
            assert p.isfinite().all()
    with pytest.raises(CourseError, match='resnetv2_50 begins with kernels of zeros'):
        Recipe('resnetv2_50', optimiser='Muon')
    assert Recipe('resnetv2_50', weights='some.safetensors', optimiser='Muon')


@pytest.mark.parametrize('how', ['alone', 'partial'])
def test_norms_decay_in_muon_if_it_is_said(dls, how):
    func = muon if how == 'alone' else partial(muon, mom=0.8)
    for decays in (False, True):
        learn = fast_learner(dls, net(), 'fp32', opt_func=func, wd_bn_bias=decays)
        learn.create_opt()
        assert {g['weight_decay'] for g in learn.opt.opt.param_groups[1::2]} == ({5e-4} if decays else {0.})


# -- number formats

def stumbles(net, batch):
    "A net of the user's with an error in its forward pass"
    seen = []
    def look(module, inputs):
        seen.append(inputs)
        if len(seen) == batch+1: raise KeyError('stumbled')
    net.register_forward_pre_hook(look)
    return net


@pytest.mark.parametrize('batch', [0, 1])
def test_a_fit_that_failed_leaves_nothing_to_the_next(dls, batch):
    "Autocast was left on, and with it the weights of the first batch in bfloat16, for every batch that came"
    want = trained(get_learner(dls, net(), 'bf16'))
    broken = get_learner(dls, stumbles(net(), batch), 'bf16')
    with pytest.raises(KeyError): trained(broken)
    assert same(trained(get_learner(dls, net(), 'bf16')), want)
    x = torch.randn(2, 3, 32, 32)
    assert not torch.is_autocast_enabled('cpu') and net().eval()(x).dtype == torch.float32


def test_half_precision_that_is_none_is_refused(dls):
    "On a CPU it would be float32, called float16"
    with pytest.raises(ValueError, match="fp16' needs a GPU"): get_learner(dls, net(), 'fp16')
    from resnet_course.choices import precision_of
    for device in ('cpu', 'mps'):
        with pytest.raises(CourseError, match='precision=fp16 needs a GPU'):
            precision_of(Recipe(precision='fp16'), device)
    assert precision_of(Recipe(precision='fp16'), 'cuda:1') == 'fp16'


def test_a_product_of_matrices_leaves_the_batch_open():
    "What is exported for any number of images must not ask for one"
    conv = FewPlacesConv2d(4, 8, 3, 1, 1, bias=False).eval()
    batch = torch.export.Dim('batch', min=2, max=64)
    made = torch.export.export(conv, (torch.randn(4, 4, 6, 6),), dynamic_shapes={'x': {0: batch}})
    x = torch.randn(7, 4, 6, 6)
    assert torch.allclose(made.module()(x), conv(x), atol=1e-6)


# -- an average of the weights

def averaged(dls, **kwargs): return fast_learner(dls, net(), 'fp32', cbs=AverageWeights(0.9, begin=0.), **kwargs)


@pytest.mark.parametrize('ask', ['get_preds', 'validate'])
def test_the_average_is_asked_after_the_fit_too(dls, ask):
    learn = averaged(dls)
    trained(learn)
    average, raw = learn.average_weights.model_now(), learn.model
    x = torch.cat([x for x, _ in dls.valid])
    with torch.no_grad(): mean, own = (m.eval()(x.as_subclass(torch.Tensor)).softmax(1) for m in (average, raw))
    assert not torch.allclose(mean, own, atol=1e-4)
    with learn.no_bar(), learn.no_logging():
        if ask == 'get_preds': assert torch.allclose(learn.get_preds()[0], mean, atol=1e-5)
        else: learn.validate()
    assert learn.model is raw and learn.average_weights.model_now() is average


def test_a_fit_stopped_in_validation_goes_on_with_the_net_that_its_optimiser_holds(dls):
    learn = averaged(dls)
    raw = learn.model
    class Stop(Callback):
        def after_batch(self):
            if not self.training: raise KeyboardInterrupt
    learn.add_cb(stop := Stop())
    with pytest.raises(KeyboardInterrupt): trained(learn, 1)
    learn.remove_cb(stop)
    before = [p.clone() for p in raw.parameters()]
    trained(learn, 1)
    assert learn.model is raw and not same(before, raw.parameters())


def test_a_second_fit_begins_another_average(dls):
    learn = averaged(dls)
    trained(learn)
    first = learn.average_weights.average
    trained(learn, 1)
    assert learn.average_weights.average is not first and learn.average_weights.average.n_averaged == len(dls.train)


# -- metrics

def test_a_metric_that_is_read_in_between_goes_on():
    class Learn: pass
    metric, learn = DeviceMetric(lambda pred, y: (pred == y).float().mean()), Learn()
    metric.reset()
    for right, want in ((1., 1.), (0., 0.5), (0., 1/3)):
        learn.pred, learn.yb, learn.dl = torch.full((4,), right), (torch.ones(4),), None
        metric.accumulate(learn)
        assert float(metric.value) == pytest.approx(want)


# -- what is seen

@pytest.mark.parametrize('name, value', [('valid_scale', 1.05), ('valid_scale', 8/7), ('valid_scale', 0),
                                         ('min_scale', 0), ('min_scale', 1.5), ('valid_scale', math.nan)])
def test_a_share_that_is_none_is_refused(name, value, dls, images):
    "Above 1 it showed a corner of the image"
    for make in (lambda **kw: BatchRandomResizedCrop(32, **kw), lambda **kw: fast_tfms(32, 32, **kw),
                 lambda **kw: fast_data(images, 32, 32, **kw)):
        with pytest.raises(CourseError, match=name): make(**{name: value})


def test_normalising_leaves_its_input_alone():
    x = (255*torch.rand(2, 3, 8, 8)).to(memory_format=torch.channels_last)
    was = x.clone()
    out = NormalizeBytes().encodes(TensorImage(x))
    assert torch.equal(x, was) and not torch.equal(out.as_subclass(torch.Tensor), was)


def test_a_net_normalises_anew_in_one_place():
    m = create_model('resnet18', 4, width=8)
    x = torch.randn(2, 3, 32, 32)
    restate(m, (.3,)*3, (.2,)*3)
    restate(m, (.5,)*3, (.5,)*3)
    other = restate(copy.deepcopy(m), (.5,)*3, (.5,)*3)
    alone = create_model('resnet18', 4, width=8)
    alone.load_state_dict(m.state_dict())
    restate(alone, (.5,)*3, (.5,)*3)
    with torch.no_grad(): a, b, c = (o.eval()(x) for o in (m, other, alone))
    assert torch.equal(a, c) and torch.equal(b, c) and m.stem.stats == ((.5,)*3, (.5,)*3)


def test_no_statistics_are_those_of_the_weights():
    plain = create_model('efficientnet_lite0', 4, weights='imagenet')
    said = create_model('efficientnet_lite0', 4, weights='imagenet', stats=None)
    assert said.stem.stats == plain.stem.stats


# -- a look inside

def test_a_part_without_layers_is_a_part():
    "An empty `Sequential` is false"
    m = create_model('resnet18', 4, width=8).eval()
    x = torch.randn(1, 3, 64, 64)
    shortcut = m.group2[1].shortcut
    assert len(shortcut) == 0 and grad_cam(m, x, layer=shortcut).shape == grad_cam(m, x, layer=m.group2).shape
    assert grad_cam(m, x, layer=shortcut).shape != grad_cam(m, x).shape


def test_a_gradient_that_nothing_guides_is_refused():
    m = create_model('mobilenet_v2', 4).eval()
    with pytest.raises(CourseError, match=r'no nn\.ReLU'): input_gradient(m, torch.randn(1, 3, 32, 32), guided=True)
    assert input_gradient(m, torch.randn(1, 3, 32, 32)).shape == (1, 32, 32)


# -- nets and recipes

def test_a_head_of_layers_is_no_block_of_convolutions():
    m = nn.Sequential(nn.Sequential(ConvLayer(3, 8), nn.AdaptiveAvgPool2d(1)),
                      nn.Sequential(nn.Flatten(), nn.Linear(8, 10)))
    reset_head(m, 5)
    assert isinstance(m[1][1], nn.Linear) and m(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    nin = reset_head(create_model('nin', 10), 3)
    assert nin(torch.randn(2, 3, 64, 64)).shape == (2, 3) and len(_classifiers(nin)[0][2]) == 3


def test_a_head_that_cannot_be_cut():
    m = nn.Module()
    m.body, m.head = ConvLayer(3, 8), nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with pytest.raises(CourseError, match='neither an average nor a dropout'):
        forward_features(m, torch.randn(1, 3, 32, 32))


def test_a_recipe_shares_nothing():
    mine = replace(RECIPES['laptop'], seed=1)
    mine.net_options['width'] = 64
    assert RECIPES['laptop'].net_options == {'width': 32}
    given = {'layers': [1, 1, 1, 1]}
    recipe = Recipe('ResNet', given)
    given['layers'][0] = 7
    assert recipe.net_options == {'layers': [1, 1, 1, 1]}


def test_three_answers_have_no_loss_in_a_recipe():
    with pytest.raises(CourseError, match='aux=True'): Recipe('googlenet', {'aux': True})
    assert Recipe('googlenet', {'aux': False})


def test_memory_of_a_step_with_another_number_of_channels():
    three, one = (step_bytes({'net': 'resnet18', 'net_options': {'n_in': n}}, 10, 64, 32) for n in (3, 1))
    assert one < three


def test_sizes_that_are_none():
    with pytest.raises(ValueError, match='sizes is empty'): size_schedule([], 5)


# -- a run

def test_weights_that_became_nan_in_the_last_step_replace_nothing(images, tmp_path, monkeypatch):
    "Every loss of the epoch was finite, and nothing was validated"
    from fastai.learner import Learner
    whole, lines = Learner._step, []
    def step(self):
        whole(self)
        if self.epoch == 1 and self.iter == self.n_iter-1:
            with torch.no_grad(): next(self.model.parameters()).fill_(math.nan)
    recipe = replace(TINY, sizes=(32,)*3, validate='last')
    monkeypatch.setattr(Learner, '_step', step)
    with pytest.raises(CourseError, match=r'weights are not finite after the last step of epoch 2.*epoch 1 is kept'):
        fit(recipe, images, tmp_path/'run', report=lines.append)
    kept, _ = load_model(tmp_path/'run'/'model.safetensors')
    assert all(p.isfinite().all() for p in kept.parameters())
    monkeypatch.setattr(Learner, '_step', whole)
    assert fit(None, None, tmp_path/'run', resume=True).history.epoch.tolist() == [1, 2, 3]


def test_held_out_images_that_were_trained_on_are_told_by_any_spelling(images, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    fit(replace(TINY, sizes=(32,)), images, tmp_path/'first')
    lines = []
    files = sorted(images.glob('train/*/*.png'))
    held = [i % 4 == 0 for i in range(len(files))]
    fit(replace(TINY, sizes=(32,), weights='~/first/model.safetensors'), None, tmp_path/'second', report=lines.append,
        files=files, labels=[f.parent.name for f in files], valid=held)
    assert any('were trained on by the net that this run begins with' in line for line in lines), lines
