"""What pays in a short training, and what in a long one? One change at a time to the laptop net at 64 px.

usage: python bench/long.py --json FILE --epochs 5 25 [--seeds 0 1 2]
       python bench/long.py --json FILE --epochs 80 --by FILE
       python bench/long.py --json FILE --gap

The base: ResNet-18 with 32 channels after the stem, SGD at 0.2, batches of 64, one cycle, 64 px, cropped and mirrored.
Mixup, CutMix and TrivialAugment are torchvision's, random erasing is timm's, stochastic depth torchvision's; all with
the strengths below, none of them tuned. TrivialAugment draws one operation for each eight images of a batch. 1,500
training images are held out as in `screen.py`, and choose: `--by` trains the base and the winner, which has every
change that gained more than its standard error in the longest runs of that file (of mixup and CutMix the better one).
The accuracy of each run is that of the last epoch on the whole validation set; `flipped` is the same with the mean of
an image's and its mirror image's probabilities.

`--gap`: the leaderboard's net and steps of 20 epochs and more (fast.ai's Imagenette), for 5 epochs at 128 px, beside
ours, and what lies between: all training images, whole validation set. (The leaderboard's own 85.77% after 5 epochs is
of a smaller net.) Runs already in FILE are kept.
"""
import gc
import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle and fit_flat_cos
from fastai.data.core import DataLoaders
from fastai.layers import Mish
from fastai.optimizer import ranger
from fastai.torch_core import TensorImage, set_seed
from fastai.vision.models.xresnet import xresnet50, xse_resnext50
from fasttransform import ItemTransform, Transform
from timm.data.random_erasing import RandomErasing
from torch import nn
from torchvision.ops import StochasticDepth
from torchvision.transforms import v2

from gpu import FinishedClock
from runner import Record, cost, epochs_of, line, options
from screen import HELD_OUT, SPLIT_SEED, tuning_split
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.muon import muon
from resnet_course.resblock import ResBlock
from resnet_course.resnet import resnet18, resnet50
from resnet_course.step import fused_adam, fused_sgd
from resnet_course.train import AverageWeights, ValidateLast, pick_device

SIZE, PRESIZE, WIDTH, RATE, BATCH = 64, 160, 32, 0.2, 64


class Mixed(ItemTransform):
    "Batches with pairs of images mixed, and their labels as shares"
    order, split_idx = 101, 0
    def __init__(self, mix): self.mix = mix
    def encodes(self, xy):
        x, y = (t.as_subclass(torch.Tensor) for t in xy)
        return self.mix(x, y)


class Each(Transform):
    "A torchvision transform for bytes, drawn anew for each eight images of a batch"
    order, split_idx = 50, 0  # after the crop, before bytes are normalised
    def __init__(self, tfm): self.tfm = tfm
    def encodes(self, x: TensorImage):
        parts = x.as_subclass(torch.Tensor).round().clamp(0, 255).byte().split(8)
        return TensorImage(torch.cat([self.tfm(part) for part in parts]))


class Erased(Transform):
    "timm's random erasing, a place for each image"
    order, split_idx = 100, 0  # after bytes are normalised: 0 is the mean colour
    def __init__(self, probability): self.probability = probability
    def encodes(self, x: TensorImage):
        return RandomErasing(self.probability, mode='const', device=x.device)(x.as_subclass(torch.Tensor))


def drop_paths(net, p):
    "Stochastic depth: the deeper a block, the more often it adds nothing to an image, at the end `p`"
    blocks = [m for m in net.modules() if isinstance(m, ResBlock)]
    for i, block in enumerate(blocks, 1): block.convs.append(StochasticDepth(p*i/len(blocks), 'row'))


@dataclass(frozen=True)
class Change:
    "What differs from the base, and the parts of a run that it touches"
    what: str
    smoothing: float = 0.
    tfm: object = None  # of the training batches, made from the number of classes
    net: object = None  # changes the net in place
    cbs: object = None  # makes callbacks


CHANGES = {
    'base': Change("nothing"),
    'smoothing': Change("label smoothing 0.1", smoothing=0.1),
    'mixup': Change("mixup, alpha 0.4", tfm=lambda n: Mixed(v2.MixUp(alpha=0.4, num_classes=n))),
    'cutmix': Change("CutMix, alpha 1", tfm=lambda n: Mixed(v2.CutMix(alpha=1., num_classes=n))),
    'trivial': Change("TrivialAugment, wide", tfm=lambda n: Each(v2.TrivialAugmentWide())),
    'erasing': Change("a quarter of the images with a hole (random erasing)", tfm=lambda n: Erased(0.25)),
    'average': Change("average of the last weights, 0.99 a step, from 0.6 on", cbs=lambda: AverageWeights(0.99, 0.6)),
    'depth': Change("stochastic depth up to 0.1", net=partial(drop_paths, p=0.1)),
}


@cache
def loaded(source, tiny, device):
    "Training and held-out images, and the validation set, in memory"
    images = tuning_split(source, 300 if tiny else HELD_OUT)
    size, presize = (32, 48) if tiny else (SIZE, PRESIZE)
    make = partial(fast_data, presize=presize, resize=size, bs=BATCH, valid_scale=7/8, device=device)
    return images, make(images), make(image_files(source)).valid


@torch.no_grad()
def score(model, dl, flip=False):
    "The share of right answers, of an image alone or with its mirror image"
    model.eval()
    right = []
    for x, y in ((x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)) for x, y in dl):
        with torch.autocast(x.device.type, torch.bfloat16):
            p = model(x).float().softmax(1)
            if flip: p = p+model(x.flip(-1)).float().softmax(1)
        right.append((p.argmax(1) == y).float())
    return round(torch.cat(right).mean().item(), 6)


def loaders(train, valid, tfms):
    "These loaders, with more transforms of the training batches"
    train = train.new()
    train.after_batch = train.after_batch.__class__([*train.after_batch.fs, *tfms], split_idx=0)
    return DataLoaders(train, valid, device=train.device)


def train(args, variant, seed):
    "One run: its epochs; at the end the held-out images, and the validation set with mirror images"
    gc.collect()
    epochs, changes = args.variants[variant]['epochs'], [CHANGES[c] for c in args.variants[variant]['changes']]
    images, dls, validation = loaded(args.data, args.tiny, args.device)
    n, graph = len(images.classes), args.device.startswith('cuda')
    data = loaders(dls.train, validation, [c.tfm(n) for c in changes if c.tfm])
    set_seed(seed)
    data.train.rng.seed(seed)
    net = resnet18(n, width=8 if args.tiny else WIDTH)
    for c in changes:
        if c.net: c.net(net)
    averages = [c.cbs() for c in changes if c.cbs]
    learn = fast_learner(data, net, opt_func=fused_sgd, graph=graph,
                         loss_func=nn.CrossEntropyLoss(label_smoothing=max(c.smoothing for c in changes)),
                         cbs=[ValidateLast(1), clock := FinishedClock(args.device), *averages])
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(epochs, RATE)
    kept = averages[0].model_now() if averages else learn.model
    return {'history': epochs_of([data.train.after_batch.fs[0].size[0]]*epochs, clock.trained, learn.recorder.values),
            'held_out': score(kept, dls.valid), 'flipped': score(kept, validation, flip=True)}


def winner(record):
    "The changes that gained more than their standard error in the longest runs, on the images held out"
    longest = max(v['epochs'] for v in record['variants'].values())
    found = {}
    for r in record['runs']:
        v = record['variants'][r['variant']]
        if v['epochs'] == longest: found.setdefault(v['changes'][0], []).append(100*r['held_out'])
    base = found.pop('base')
    gain = {v: np.mean(a)-np.mean(base) for v, a in found.items()}
    error = {v: np.sqrt(np.var(a, ddof=1)/len(a)+np.var(base, ddof=1)/len(base)) for v, a in found.items()}
    paid = [v for v in found if gain[v] > error[v]]
    if {'mixup', 'cutmix'} <= {*paid}: paid.remove(min(('mixup', 'cutmix'), key=gain.get))
    return paid


def flat(learn, epochs, lr): learn.fit_flat_cos(epochs, lr, pct_start=0.75, wd=1e-2)


def one_cycle(learn, epochs, lr): learn.fit_one_cycle(epochs, lr)


leaders = partial(ranger, mom=0.95, sqr_mom=0.99, eps=1e-6, beta=0.)
SE = partial(xse_resnext50, pretrained=False, act_cls=Mish, sa=True)
# name: (makes the net from n_out, optimiser, fits, rate, batch, label smoothing)
GAP = {
    'leaderboard': (lambda n: SE(n_out=n), leaders, flat, 8e-3, 32, 0.1),
    'leaderboard, Adam and one cycle': (lambda n: SE(n_out=n), fused_adam, one_cycle, 3e-3, 32, 0.1),
    'leaderboard, plain xresnet50': (lambda n: xresnet50(n_out=n, pretrained=False), leaders, flat, 8e-3, 32, 0.1),
    'ResNet-50, ranger': (resnet50, leaders, flat, 8e-3, 32, 0.1),
    'ResNet-18, ranger': (resnet18, leaders, flat, 8e-3, 32, 0.1),
    'ResNet-18, Adam and one cycle': (resnet18, fused_adam, one_cycle, 3e-3, 32, 0.1),
    'ResNet-50, Muon': (resnet50, muon, one_cycle, RATE, 64, 0.1),
    'ResNet-18, Muon': (resnet18, muon, one_cycle, RATE, 64, 0.1),
}


@cache
def whole(source, tiny, device):
    size, presize = (32, 48) if tiny else (128, 160)
    return fast_data(source, presize, size, 32, valid_scale=7/8, device=device)


def gap(args, variant, seed):
    "One recipe between the leaderboard's and ours"
    gc.collect()
    make, opt_func, fit, lr, bs, smoothing = GAP[variant]
    dls = whole(args.data, args.tiny, args.device)
    data = DataLoaders(dls.train.new(bs=bs), dls.valid, device=dls.device)
    if args.tiny: data.train.n = 2*bs
    set_seed(seed)
    data.train.rng.seed(seed)
    learn = fast_learner(data, make(len(dls.vocab)), opt_func=opt_func, graph=args.device.startswith('cuda'),
                         loss_func=nn.CrossEntropyLoss(label_smoothing=smoothing),
                         cbs=[clock := FinishedClock(args.device)])
    epochs = 1 if args.tiny else 5
    with learn.no_bar(), learn.no_logging(): fit(learn, epochs, lr)
    return {'history': epochs_of([dls.train.after_batch.fs[0].size[0]]*epochs, clock.trained, learn.recorder.values)}


def main():
    parser = options(__doc__, 'imagenette-320')
    parser.add_argument('--epochs', type=int, nargs='+', default=[5, 25])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--by', type=Path, help="the file that chooses the winner; base and winner are run")
    parser.add_argument('--gap', action='store_true', help="the leaderboard's recipe and ours instead")
    parser.add_argument('--only', nargs='+', default=[''], help="what begins with one of these words")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, a tiny net")
    args = parser.parse_args()
    args.device = pick_device(args.device)
    if args.tiny: args.data = 'digits'
    changes = {name: [name] for name in CHANGES}
    if args.by: changes = {'base': ['base'], 'winner': winner(json.loads(args.by.read_text())) or ['base']}
    def told(some): return '; '.join(CHANGES[c].what for c in some)
    args.variants = {f'{name}, {n} epochs': {'changes': some, 'what': told(some), 'epochs': n}
                     for n in args.epochs for name, some in changes.items()}
    name = Path(args.data).name
    by = ['--by', args.by.as_posix()] if args.by else []
    args.command = ' '.join(['python bench/long.py --data', name, *['--gap']*args.gap, *by, *['--tiny']*args.tiny])
    if args.gap:
        nets = {v: cost(make(10), 128) for v, (make, *_) in GAP.items()}
        record = Record(args, "5 epochs at 128 px: the leaderboard's recipe and ours", args.data, name, variants=nets)
        keys, run = [{'variant': v, 'seed': seed} for seed in args.seeds for v in GAP], partial(gap, args)
    else:
        record = Record(args, "One change at a time to the laptop net at 64 px, short and long", args.data, name,
                        split={**loaded(args.data, args.tiny, 'cpu')[0].counts, 'seed': SPLIT_SEED},
                        variants=args.variants)
        keys, run = [{'variant': v, 'seed': seed} for seed in args.seeds for v in args.variants], partial(train, args)
    record.fill([k for k in keys if k['variant'].startswith(tuple(args.only))], run, line)


if __name__ == '__main__': main()
