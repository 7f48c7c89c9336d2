"""Train variants of a net side by side on Imagenette and record every run: accuracy by seed, not by luck.

usage: python bench/accuracy.py EXPERIMENT --json FILE [--seeds 0 1 2] [--epochs 5] [--size 64]

Images are decoded once, resized to 9/8 of `--size` and held in memory; training takes a random crop of `--size` and a
random flip, validation the middle. That is no recipe of the course but the plainest input, the same for all that stands
here, for nets that have no name and for losses and schedules that no recipe has. Runs already in FILE are kept.
"""
import random
import time
from functools import partial

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import ReduceLROnPlateau
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.optimizer import SGD
from fastai.torch_core import set_seed
from fastai.vision.core import imagenet_stats
from fastcore.parallel import parallel
from PIL import Image
from torch import nn

from runner import Record, by_seed, cost, line, seed_options
from resnet_course.data import find_data, list_images
from resnet_course.heads import fc_head, pool_head
from resnet_course.inception import aux_loss, googlenet
from resnet_course.layers import ConvLayer
from resnet_course.models import create_model
from resnet_course.resblock import PadShortcut, basic_block, conv_shortcut, pool_shortcut
from resnet_course.resnet import ResNet, resnet18
from resnet_course.train import get_learner


class NoShortcut(nn.Module):
    "What makes a block plain: nothing is added"
    def __init__(self, ni, nf, stride): super().__init__()
    def forward(self, x): return 0


def usual_block(ni, nf, stride):
    "A basic block whose last norm starts at 1, so that plain and residual nets differ in the shortcut alone"
    return nn.Sequential(ConvLayer(ni, nf, stride=stride), ConvLayer(nf, nf, act_cls=None))


def with_head(head):
    "Eight 3x3 layers to 256 maps of a sixteenth of the side, 4 px at 64 px, and the head"
    def make(n_out):
        layers, ni = [], 3
        for nf in (32, 64, 128, 256):
            layers += [ConvLayer(ni, nf, stride=2), ConvLayer(nf, nf)]
            ni = nf
        return nn.Sequential(*layers, head(n_out))
    return make


def one_cycle(learn, epochs): learn.fit_one_cycle(epochs, 3e-3)


def with_aux_loss(learn, epochs):
    learn.loss_func = aux_loss
    one_cycle(learn, epochs)


def paper(learn, epochs):
    "The recipe of He et al. (2015): SGD with momentum, a tenth of the rate when the validation loss stands still"
    learn.opt_func = partial(SGD, mom=0.9, decouple_wd=False)  # weight decay in the gradient, as then
    learn.fit(epochs, 0.1, wd=1e-4, cbs=ReduceLROnPlateau(monitor='valid_loss', patience=1))


NARROW = "ResNet-18 with 32 channels after the stem"

# name: (what it asks, {variant: (makes the net from n_out, trains it, batch size)})
EXPERIMENTS = {
    'depth': ("Plain and residual nets of 20 and 56 layers (claim D1), 32 channels after the stem", {
        f'{name}, {depth} layers': (partial(ResNet, layers=n, width=32, block=block, shortcut=shortcut), one_cycle, 128)
        for name, block, shortcut in (('plain', usual_block, NoShortcut), ('residual', usual_block, pool_shortcut),
                                      ('residual from zero', basic_block, pool_shortcut))
        for depth, n in ((20, [2, 2, 2, 2]), (56, [6, 7, 7, 6]))}),
    'shortcuts': ("ResNet-18 with three shortcuts (claim S1)", {
        name: (partial(resnet18, shortcut=shortcut), one_cycle, 128)
        for name, shortcut in (('pad', PadShortcut), ('conv', conv_shortcut), ('pool', pool_shortcut))}),
    'recipe': (f"The residual paper's training recipe beside one-cycle (claim D3), {NARROW}", {
        "paper's recipe": (partial(resnet18, width=32), paper, 256),
        'one-cycle': (partial(resnet18, width=32), one_cycle, 128)}),
    'heads': ("One convolutional body with three heads (chapter 3)", {
        'fully connected': (with_head(lambda n: fc_head(256, 4, n, hidden=1024)), one_cycle, 128),
        'fully connected, no dropout': (with_head(lambda n: fc_head(256, 4, n, hidden=1024, p=0.)), one_cycle, 128),
        'pooled': (with_head(lambda n: pool_head(256, n)), one_cycle, 128)}),
    'googlenet': ("GoogLeNet with batchnorm, without and with auxiliary heads (claim D4)", {
        'no auxiliary heads': (googlenet, one_cycle, 128),
        'two auxiliary heads': (partial(googlenet, aux=True), with_aux_loss, 128)}),
    'families': ("Nets of other families by the same recipe (claim V4)", {
        name: (partial(create_model, name), one_cycle, 128) for name in ('nin', 'mobilenet_v2')}),
}


def decode(file, side):
    with Image.open(file) as im: return np.asarray(im.convert('RGB').resize((side, side), Image.Resampling.BILINEAR))


class Crops:
    "Images and labels; `size` pixels at a random place, half of them mirrored, or the middle"
    def __init__(self, images, labels, size, train):
        self.images, self.labels, self.size, self.train = images, labels, size, train
    def __len__(self): return len(self.images)
    def __getitem__(self, i):
        spare = self.images.shape[-1]-self.size
        top, left = (random.randint(0, spare), random.randint(0, spare)) if self.train else (spare//2, spare//2)
        crop = self.images[i, :, top:top+self.size, left:left+self.size]
        return crop.flip(-1) if self.train and random.random() < 0.5 else crop, self.labels[i]


def load(source, size):
    "Class names and, for each split, images `(n,3,9/8 size,9/8 size)` in uint8 and labels"
    files = list_images(find_data(source))
    classes = sorted({f.parent.name for f in files['train']})
    tensors = {}
    for split, fs in files.items():
        images = parallel(partial(decode, side=size*9//8), fs, threadpool=True, n_workers=2, progress=False)
        tensors[split] = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
                          torch.tensor([classes.index(f.parent.name) for f in fs]))
    return classes, tensors


def loaders(tensors, size, bs):
    "fastai `DataLoaders`: training and validation batches, and the training images as they are"
    mean, std = (torch.tensor(s).view(3, 1, 1)*255 for s in imagenet_stats)
    def batches(split, train):
        return DataLoader(Crops(*tensors[split], size, train), bs=bs if train else 256, shuffle=train, drop_last=train,
                          after_batch=lambda b: ((b[0].float()-mean)/std, b[1]), device=torch.device('cpu'))
    parts = ('train', True), ('val', False), ('train', False)
    return DataLoaders(*(batches(*part) for part in parts), device=torch.device('cpu'))


class Clock(Callback):
    "Seconds of each epoch, training and validation"
    def before_fit(self): self.seconds = []
    def before_epoch(self): self.began = time.perf_counter()
    def after_epoch(self): self.seconds.append(time.perf_counter()-self.began)


def history(learn, clock):
    "What the recorder of a learner and its clock noted, a dict an epoch"
    names = 'train_loss', 'valid_loss', 'accuracy', 'seconds'
    rows = [[*values, s] for values, s in zip(learn.recorder.values, clock.seconds, strict=True)]
    return [{'epoch': i, **{name: round(float(v), 6) for name, v in zip(names, row, strict=True)}}
            for i, row in enumerate(rows, 1)]


def train(make, fit, bs, seed, args, classes, tensors):
    "One run: the history of its epochs, and at the end loss and accuracy on the training images as they are"
    set_seed(seed, reproducible=True)
    learn = get_learner(loaders(tensors, args.size, bs), make(len(classes)), cbs=(clock := Clock()))
    with learn.no_bar(), learn.no_logging():
        fit(learn, args.epochs)
        rows = history(learn, clock)
        loss, accuracy = learn.validate(ds_idx=2)
    return {'train_loss': round(loss, 6), 'train_accuracy': round(accuracy, 6), 'history': rows}


def main():
    args = seed_options(__doc__, EXPERIMENTS)
    what, variants = EXPERIMENTS[args.experiment]
    classes, tensors = load(args.data, args.size)
    record = Record(args, f"{what}; {args.epochs} epochs at {args.size} px", args.data,
                    variants={name: cost(make(len(classes)), args.size) for name, (make, _, _) in variants.items()})
    record.fill(by_seed(args, variants),
                lambda variant, seed: train(*variants[variant], seed, args, classes, tensors), line)


if __name__ == '__main__': main()
