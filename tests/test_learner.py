"`fast_learner` is a fastai learner: groups, freezing, metrics, predictions, export, two processes, as `get_learner` is"
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from conftest import ROOT, linked_digits
from fastai.callback import schedule  # noqa: F401  adds fine_tune, fit_one_cycle, lr_find
from fastai.learner import load_learner
from fastai.metrics import F1Score, accuracy, error_rate
from fastai.optimizer import SGD, Adam
from fastai.torch_core import params, set_seed
from PIL import Image
from torch import nn

from resnet_course.data import get_data
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet
from resnet_course.step import fused_adam, fused_sgd
from resnet_course.train import get_learner


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits):
    "Two classes with 16 training and 6 validation images each"
    return linked_digits(tmp_path_factory.mktemp('images'), digits, 16, 6)


@pytest.fixture(scope='module')
def dls(images): return fast_data(images, 32, 32, bs=8, device='cpu')


@pytest.fixture
def book(images): return get_data(images, 32, 32, bs=8, workers=0, device='cpu')


def net():
    set_seed(0)
    return ResNet(2, [1, 1, 1, 1], width=8)


@pytest.fixture(params=['fast', 'book'])
def learner(request, dls, book):
    "A learner of either kind, in float32, that has not been fitted"
    return (partial(fast_learner, dls) if request.param == 'fast' else partial(get_learner, book))(net(), 'fp32')


def quiet(learn, method, *args, **kwargs):
    with learn.no_bar(), learn.no_logging(): return getattr(learn, method)(*args, **kwargs)


# -- groups of parameters

def body_and_head(m): return [params(m)[:-2], params(m)[-2:]]
def three(m): return [params(m.stem), [p for i in range(1, 5) for p in params(getattr(m, f'group{i}'))],
                      params(m.head)]
def by_kind(m): return [[p for p in params(m) if p.ndim == 1], [p for p in params(m) if p.ndim > 1]]
def as_iterators(m): return [iter(part) for part in three(m)]


SPLITTERS = {'one': lambda m: [params(m)], 'flat': params, 'two': body_and_head, 'three': three, 'kinds': by_kind,
             'tuple': lambda m: tuple(three(m))}


def pair(dls, splitter, **kwargs):
    "The same net in both learners, float32, same optimiser but for its making"
    ours = fast_learner(dls, net(), 'fp32', opt_func=fused_adam, splitter=SPLITTERS[splitter], **kwargs)
    theirs = get_learner(dls, net(), 'fp32', opt_func=Adam, splitter=SPLITTERS[splitter], **kwargs)
    return ours, theirs


def hypers(learn, *names): return [{k: pytest.approx(h[k]) for k in names} for h in learn.opt.hypers]
def trains(learn): return [p.requires_grad for p in params(learn.model)]


def same_weights(ours, theirs):
    for (name, p), q in zip(ours.model.state_dict().items(), theirs.model.state_dict().values(), strict=True):
        assert (p.double()-q.double()).norm() <= 2e-3*q.double().norm()+1e-4, name


@pytest.mark.parametrize('opt_func', [fused_adam, fused_sgd])
@pytest.mark.parametrize('splitter', SPLITTERS)
def test_groups_given_stay_groups(dls, splitter, opt_func):
    learn = fast_learner(dls, net(), 'fp32', opt_func=opt_func, splitter=SPLITTERS[splitter])
    learn.create_opt()
    given = SPLITTERS[splitter](learn.model)
    given = [given] if isinstance(given[0], torch.Tensor) else given
    assert [{id(p) for p in group} for group in learn.opt.param_lists] == [{id(p) for p in group} for group in given]
    assert len(learn.opt.hypers) == len(given)
    decay = {id(p): g['weight_decay'] for g in learn.opt.opt.param_groups for p in g['params']}
    assert all((decay[id(p)] == 0) == (p.ndim == 1) for p in params(learn.model))
    assert len(decay) == len(params(learn.model))


@pytest.mark.parametrize('splitter', ['two', 'three', 'kinds', 'tuple'])
@pytest.mark.parametrize('train_bn', [True, False])
def test_freezing_is_fastais(dls, splitter, train_bn):
    for n in (-1, 0, 1, -2, 'freeze', 'unfreeze'):
        ours, theirs = pair(dls, splitter, train_bn=train_bn)
        for learn in (ours, theirs): getattr(learn, n)() if isinstance(n, str) else learn.freeze_to(n)
        assert trains(ours) == trains(theirs), n
        assert ours.opt.frozen_idx == theirs.opt.frozen_idx


def test_freezing_all_but_the_head_leaves_the_body_as_it_is(dls):
    "Weights of the body keep every bit; the head and, as fastai has it, the norms move"
    learn = fast_learner(dls, net(), 'fp32', splitter=body_and_head)
    before = {k: v.detach().clone() for k, v in learn.model.named_parameters()}
    learn.freeze()
    quiet(learn, 'fit', 1, 0.01)
    for k, v in learn.model.named_parameters():
        assert torch.equal(v, before[k]) == (v.ndim > 1 and not k.startswith('head')), k


@pytest.mark.parametrize('opt_func', [fused_adam, fused_sgd])
@pytest.mark.parametrize('lr', [1e-3, slice(1e-3), slice(1e-5, 1e-3), [1e-4, 2e-4, 3e-4]])
@pytest.mark.parametrize('splitter', ['one', 'two', 'three'])
def test_rates_by_group_are_fastais(dls, splitter, lr, opt_func):
    ours = fast_learner(dls, net(), 'fp32', opt_func=opt_func, splitter=SPLITTERS[splitter])
    theirs = get_learner(dls, net(), 'fp32', opt_func=partial(SGD, mom=0.9) if opt_func is fused_sgd else Adam,
                         splitter=SPLITTERS[splitter])
    for learn in (ours, theirs): learn.create_opt()
    if isinstance(lr, list) and splitter != 'three':
        for learn in (ours, theirs):
            with pytest.raises(AssertionError, match='parameter groups'): learn.opt.set_hyper('lr', lr)
        return
    for learn in (ours, theirs): learn.opt.set_hyper('lr', lr)
    assert hypers(ours, 'lr', 'mom') == hypers(theirs, 'lr', 'mom')


def test_every_hyper_can_be_set_by_group(dls):
    ours, theirs = pair(dls, 'three')
    given = {'lr': [1e-3, 2e-3, 3e-3], 'mom': [0.8, 0.85, 0.9], 'sqr_mom': 0.98, 'eps': 1e-6, 'wd': [0., 0.1, 0.2]}
    for learn in (ours, theirs):
        learn.create_opt()
        for k, v in given.items(): learn.opt.set_hyper(k, v)
    assert hypers(ours, 'lr', 'mom', 'sqr_mom', 'eps', 'wd') == hypers(theirs, 'lr', 'mom', 'sqr_mom', 'eps', 'wd')
    assert [g['weight_decay'] for g in ours.opt.opt.param_groups] == [0., 0., 0.1, 0., 0.2, 0.]


FITS = {'one cycle': lambda learn: quiet(learn, 'fit_one_cycle', 2, 1e-3, wd=0.3),
        'slice': lambda learn: quiet(learn, 'fit_one_cycle', 2, slice(1e-4, 1e-2)),
        'list': lambda learn: quiet(learn, 'fit_one_cycle', 2, [1e-4, 1e-3, 1e-2]),
        'last': lambda learn: quiet(learn, 'fit', 2, slice(1e-2), wd=0.),
        'flat': lambda learn: quiet(learn, 'fit_flat_cos', 2, slice(1e-4, 1e-3)),
        'frozen': lambda learn: (learn.freeze(), quiet(learn, 'fit', 2, 1e-2)),
        'part': lambda learn: (learn.freeze_to(1), quiet(learn, 'fit', 2, slice(1e-3, 1e-2))),
        'fine tune': lambda learn: quiet(learn, 'fine_tune', 1, 1e-2)}


@pytest.mark.slow
@pytest.mark.parametrize('fit', FITS)
def test_weights_and_hypers_after_two_epochs_are_those_of_fastais_adam(dls, fit):
    learns = []
    for learn in pair(dls, 'three'):
        set_seed(1, True)
        for dl in dls.loaders: dl.rng.seed(1)
        start = {k: v.clone() for k, v in learn.model.state_dict().items()}
        FITS[fit](learn)
        learns.append(learn)
    ours, theirs = learns
    assert trains(ours) == trains(theirs) and hypers(ours, 'lr', 'mom', 'wd', 'eps', 'sqr_mom') == hypers(theirs, 'lr',
                                                                                                          'mom', 'wd',
                                                                                                          'eps',
                                                                                                          'sqr_mom')
    same_weights(ours, theirs)
    assert any((v-start[k]).float().norm() > 1e-2*v.float().norm() for k, v in ours.model.state_dict().items())
    assert list(ours.recorder.values[-1]) == pytest.approx(list(theirs.recorder.values[-1]), abs=2e-3)


@pytest.mark.parametrize('opt_func', [fused_adam, fused_sgd])
def test_decay_given_to_fit_or_learner_reaches_the_weights_alone(dls, opt_func):
    for how in ('fit', 'learner', 'optimiser'):
        learn = fast_learner(dls, net(), 'fp32', opt_func=partial(opt_func, wd=0.7) if how == 'optimiser'
                             else opt_func, splitter=body_and_head,
                             **({'wd': 0.7} if how == 'learner' else {}))
        quiet(learn, 'fit', 1, 1e-4, **({'wd': 0.7} if how == 'fit' else {}))
        assert [g['weight_decay'] for g in learn.opt.opt.param_groups] == [0.7, 0., 0.7, 0.], how


def test_norms_decay_too_where_the_learner_is_told_so(dls):
    "`wd_bn_bias=True` as in `get_learner`"
    learns = []
    for learn in pair(dls, 'two', wd_bn_bias=True, wd=5.):
        for dl in dls.loaders: dl.rng.seed(1)
        set_seed(1, True)
        quiet(learn, 'fit', 2, 1e-2)
        learns.append(learn)
    same_weights(*learns)


# fastai's own reader of a checkpoint looks for numbers where NumPy 1 had them
reads_numpy = pytest.mark.filterwarnings('ignore:numpy.core is deprecated:DeprecationWarning')


@reads_numpy
@pytest.mark.parametrize('opt_func', [fused_adam, fused_sgd])
def test_saved_with_its_optimiser_it_goes_on_as_if_it_had_not_stopped(dls, tmp_path, opt_func):
    def fit(learn, seed):
        for dl in dls.loaders: dl.rng.seed(seed)
        set_seed(seed, True)
        quiet(learn, 'fit', 1, slice(1e-3, 1e-2))
    def make():
        return fast_learner(dls, net(), 'fp32', opt_func=opt_func, splitter=three, path=tmp_path)
    whole, first, second = make(), make(), make()
    fit(whole, 1)
    fit(whole, 2)
    fit(first, 1)
    file = first.save('half')
    second.load(file.stem, with_opt=True)
    fit(second, 2)
    assert all(torch.equal(p, q) for p, q in zip(whole.model.state_dict().values(), second.model.state_dict().values(),
                                                 strict=True))


@reads_numpy
def test_the_finder_leaves_groups_and_weights(dls, tmp_path):
    learn = fast_learner(dls, net(), 'fp32', splitter=three, path=tmp_path)
    before = [p.detach().clone() for p in params(learn.model)]
    quiet(learn, 'lr_find', num_it=5, show_plot=False)
    assert all(torch.equal(p, q) for p, q in zip(before, params(learn.model), strict=True))
    quiet(learn, 'fit_one_cycle', 1, slice(1e-4, 1e-3))
    assert len(learn.opt.hypers) == 3


# -- predictions

def spelled(fn):
    im = Image.open(fn).convert('RGB')
    buffer = io.BytesIO()
    im.save(buffer, 'PNG')
    return {'path': fn, 'str': str(fn), 'bytes': buffer.getvalue(), 'array': np.asarray(im), 'PIL': im,
            'tensor': torch.tensor(np.asarray(im))}


@pytest.mark.parametrize('kind', ['path', 'str', 'bytes', 'array', 'PIL', 'tensor'])
def test_predict_takes_an_image_however_it_is_there(learner, images, kind):
    "Before any fit, and the same each time"
    fn = next((images/'val'/'3').iterdir())
    expected = quiet(learner, 'predict', fn)
    label, _, probabilities = quiet(learner, 'predict', spelled(fn)[kind])
    assert label == expected[0] and label in ('3', '7') and torch.allclose(probabilities, expected[2], atol=1e-6)


def test_get_preds_without_labels_before_any_fit(learner, images):
    files = sorted((images/'val').glob('*/*'))
    preds, targets = quiet(learner, 'get_preds', dl=learner.dls.test_dl(files))
    assert preds.shape == (12, 2) and targets is None and torch.allclose(preds.sum(1), torch.ones(12))
    whole, labels = quiet(learner, 'get_preds')
    order = [files.index(f) for f in learner.dls.valid_ds.items]
    assert torch.allclose(preds[order], whole, atol=1e-6) and sorted(labels.tolist()) == [0]*6+[1]*6


def test_get_preds_of_images_in_memory(learner, images):
    files = sorted((images/'val').glob('*/*'))
    expected = quiet(learner, 'get_preds', dl=learner.dls.test_dl(files))[0]
    for kind in ('PIL', 'array', 'bytes'):
        assert torch.allclose(quiet(learner, 'get_preds', dl=learner.dls.test_dl([spelled(f)[kind]
                                                                                  for f in files]))[0], expected,
                              atol=1e-6), kind


def test_get_preds_with_labels_losses_and_inputs(learner, images):
    dl = learner.dls.test_dl(sorted((images/'val').glob('*/*')), with_labels=True)
    inputs, preds, targets, losses = quiet(learner, 'get_preds', dl=dl, with_input=True, with_loss=True)
    assert len(inputs) == len(preds) == 12 and targets.tolist() == [0]*6+[1]*6
    assert torch.allclose(losses.as_subclass(torch.Tensor), nn.functional.nll_loss(preds.log(),
                                                                                   targets.as_subclass(torch.Tensor),
                                                                                   reduction='none'), atol=1e-4)


def test_validate_before_any_fit(learner):
    values = list(quiet(learner, 'validate'))
    preds, targets = quiet(learner, 'get_preds')
    assert values == pytest.approx([nn.functional.nll_loss(preds.log(), targets.as_subclass(torch.Tensor)).item(),
                                    (preds.argmax(1) == targets).float().mean().item()], abs=1e-4)


# -- metrics

def share_of_threes(preds, targets): return float((preds.argmax(1) == 0).sum())/len(targets)  # Python's own number
def as_numpy(preds, targets): return np.mean(preds.argmax(1).numpy() == targets.numpy())


METRICS = {'one': (accuracy, ['accuracy']), 'list': ([accuracy], ['accuracy']), 'none': ([], []), 'None': (None, []),
           'object': (F1Score(), ['f1_score']),
           'mixed': ([accuracy, F1Score(), error_rate], ['accuracy', 'f1_score', 'error_rate']),
           'tuple': ((accuracy, error_rate), ['accuracy', 'error_rate']),
           'partial': (partial(accuracy, axis=-1), ['accuracy']), 'number': ([share_of_threes], ['share_of_threes']),
           'numpy': (as_numpy, ['as_numpy'])}


@pytest.mark.parametrize('kind', METRICS)
def test_metrics(dls, kind):
    metrics, names = METRICS[kind]
    learn, theirs = fast_learner(dls, net(), 'fp32', metrics=metrics), get_learner(dls, net(), 'fp32', metrics=metrics,
                                                                                   opt_func=fused_adam)
    for each in (learn, theirs):
        for dl in dls.loaders: dl.rng.seed(1)
        set_seed(1, True)
        quiet(each, 'fit', 1, 1e-3)
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', *names, 'time']
    assert [float(v) for v in learn.recorder.values[-1]] == pytest.approx([float(v)
                                                                           for v in theirs.recorder.values[-1]],
                                                                          abs=1e-4)


# -- export

def old(learn):
    "The text of an exported learner's file, and the learner back from it"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.export('it.pkl')
        return (learn.path/'it.pkl').read_bytes(), load_learner(learn.path/'it.pkl')


@pytest.mark.parametrize('fitted', [False, True])
@pytest.mark.parametrize('kind', ['fast', 'book', 'list', 'memory'])
def test_exported_learner_holds_no_data(own_cache, images, tmp_path, kind, fitted):
    files = sorted(images.glob('*/*/*.png'))
    given = dict(files=files if kind == 'list' else [Image.open(f).convert('RGB') for f in files],
                 labels=[f.parent.name for f in files])
    source, given = (None, given) if kind in ('list', 'memory') else (images, {})
    dls = (get_data if kind == 'book' else fast_data)(source, 96, 32, 8, workers=0, device='cpu', **given)
    learn = (get_learner if kind == 'book' else fast_learner)(dls, net(), 'fp32', path=tmp_path)
    if fitted: quiet(learn, 'fit', 1)
    data, again = old(learn)
    weights = sum(p.numel()*p.element_size() for p in learn.model.state_dict().values())
    assert len(data) < weights+200_000
    for word in (b'.png', str(images).encode(), images.name.encode()): assert word not in data
    fn = files[0]
    assert torch.allclose(quiet(again, 'predict', fn)[2], quiet(learn, 'predict', fn)[2], atol=1e-6)
    preds = quiet(again, 'get_preds', dl=again.dls.test_dl(files))[0]
    assert preds.shape == (len(files), 2) and list(again.dls.vocab) == ['3', '7']
    if fitted: quiet(learn, 'fit', 1)  # the learner itself goes on
    assert len(learn.dls.train_ds) == len(dls.train_ds) > 0


def test_exported_with_groups_it_goes_on_where_it_was(dls, tmp_path):
    learn = fast_learner(dls, net(), 'fp32', splitter=three, path=tmp_path)
    quiet(learn, 'fit', 1, slice(1e-4, 1e-2))
    state = pickle.dumps(learn.opt.state_dict()['param_groups'])
    old(learn)
    assert pickle.dumps(learn.opt.state_dict()['param_groups']) == state and len(learn.opt.hypers) == 3


# -- two processes

WORKER = '''
import json, sys, types
accelerate = types.ModuleType('accelerate')  # fastai.distributed imports it; its loader needs nothing of it
accelerate.Accelerator = type('Accelerator', (), {})
sys.modules['accelerate'] = accelerate
import torch, torch.distributed as dist
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.distributed import DistributedDL
from fastai.metrics import accuracy, error_rate
from fastai.torch_core import set_seed
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet

def broadcast(self, t, rank):
    t = torch.tensor(t)
    dist.broadcast(t, rank)
    return t.tolist()
DistributedDL._broadcast = broadcast  # fastai's own moves it to a GPU

class Spread(Callback):
    "What fastai's DistributedTrainer does, on CPUs"
    order = 11
    def before_fit(self):
        self.learn.model = torch.nn.parallel.DistributedDataParallel(self.model, broadcast_buffers=False)
        self.whole, self.learn.dls.loaders = self.dls.loaders, [DistributedDL(dl) for dl in self.dls]
    def after_fit(self): self.learn.model, self.learn.dls.loaders = self.model.module, self.whole


def told(n):
    "What a fit and a validation report over two halves of `n` images, and what is true of all of them"
    images = image_files(sys.argv[1])
    images = image_files(images, skip=images.val[n:])
    set_seed(0)
    dls = fast_data(images, 32, 32, bs=4, device='cpu')
    learn = fast_learner(dls, ResNet(2, [1, 1, 1, 1], width=8), 'fp32', metrics=[accuracy, error_rate], cbs=Spread())
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    fit = [float(v) for v in (*learn.recorder.values[-1], learn.recorder.smooth_loss.value)]
    model = learn.model.eval()
    for b in model.buffers(): dist.broadcast(b, 0)  # norms saw a half each: from here on, the first one's
    learn.remove_cb(Spread)
    with learn.no_bar(), learn.no_logging(): halves = [float(v) for v in learn.validate(dl=DistributedDL(dls.valid))]
    x, y = (torch.cat(parts).as_subclass(torch.Tensor) for parts in zip(*dls.valid))
    with torch.no_grad(): out = model(x)
    right = (out.argmax(1)==y).float().mean().item()
    return {'n': len(y), 'fit': fit, 'halves': halves, 'whole': [F.cross_entropy(out, y).item(), right, 1-right]}


torch.set_num_threads(1)
dist.init_process_group('gloo')
print(json.dumps([told(n) for n in (12, 11, 7)]))
dist.destroy_process_group()
'''


@pytest.mark.slow
def test_two_processes_report_all_images_each_once(images, tmp_path):
    "Halves that are equal, uneven (fastai repeats an image), and uneven with a short last batch"
    (tmp_path/'worker.py').write_text(WORKER)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = os.environ | {'PYTHONPATH': str(ROOT), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port),
                        'WORLD_SIZE': '2', 'OMP_NUM_THREADS': '1'}
    words = [sys.executable, '-W', 'ignore', tmp_path/'worker.py', images]
    pipes = dict.fromkeys(('stdout', 'stderr'), subprocess.PIPE)
    both = [subprocess.Popen(words, text=True, env=env | {'RANK': rank}, **pipes) for rank in '01']
    try: ends = [p.communicate(timeout=240) for p in both]
    finally: [p.kill() for p in both]
    assert all(p.returncode == 0 for p in both), [err[-2000:] for _, err in ends]
    first, second = (json.loads(out.splitlines()[-1]) for out, _ in ends)
    for n, a, b in zip((12, 11, 7), first, second, strict=True):
        assert a['n'] == b['n'] == n and a['fit'] == pytest.approx(b['fit'])
        for told in (a, b): assert told['halves'] == pytest.approx(told['whole'], abs=1e-5), n
