"""One change at a time to a short training run on Imagenette: which tricks pay, by seed, not by luck.

usage: python bench/tricks.py EXPERIMENT --json FILE [--seeds 0 1 2] [--epochs 5] [--size 64]

The input is `fast_data`, the learner `fast_learner`; each variant differs from the first in what its name says.
"""
from functools import partial

from fastai.callback.core import Callback
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.torch_core import set_seed
from timm.layers import BlurPool2d
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from accuracy import Clock, history, options, record
from resnet_course.cost import cost_table
from resnet_course.fast import fast_data, fast_learner, fused_adam, fused_sgd
from resnet_course.resizing import ProgressiveResize
from resnet_course.resnet import resnet18


class EMA(Callback):
    "Validate a moving average of the weights instead of the last ones"
    def __init__(self, decay=0.98): self.decay = decay
    def before_fit(self): self.mean = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay), use_buffers=True)
    def after_step(self): self.mean.update_parameters(self.model)
    def before_validate(self): self.last, self.learn.model = self.model, self.mean.module.eval()
    def after_validate(self): self.learn.model = self.last


def blurred(n_out, **kwargs):
    "The pooling of the stem antialiased (Zhang, 2019)"
    net = resnet18(n_out, **kwargs)
    net.stem[-1] = nn.Sequential(nn.MaxPool2d(3, 1, 1), BlurPool2d(net.stem[-2][0].out_channels, stride=2))
    return net


BASE = dict(net=resnet18, lr=3e-3, wd=0.01, bs=128, opt=None, smooth=0., min_scale=0.35, lighting=False, valid_scale=1.,
            ema=False, sizes=None, fit='fit_one_cycle', fit_args={})

# name: (what it asks, what all variants share, {variant: what it changes})
EXPERIMENTS = {'tricks': ("One change at a time to a short run, ResNet-18 with 32 channels after the stem", {'net': partial(resnet18, width=32)}, {
    'base': {},
    'label smoothing 0.1': dict(smooth=0.1),
    'antialiased stem': dict(net=partial(blurred, width=32)),
    'moving average of weights': dict(ema=True),
    'flat, then cosine': dict(fit='fit_flat_cos', fit_args=dict(pct_start=0.5)),
    'SGD': dict(opt=fused_sgd, lr=0.3),
    'batches of 64': dict(bs=64),
    'batches of 32': dict(bs=32),
    'growing images': dict(sizes=[32, 48, 64]),
    'lighting': dict(lighting=True),
    'validation on the middle 7/8': dict(valid_scale=7/8),
    'twice the learning rate': dict(lr=6e-3),
})}


def train(args, seed, net, lr, wd, bs, opt, smooth, min_scale, lighting, valid_scale, ema, sizes, fit, fit_args):
    "One run: the history of its epochs"
    set_seed(seed, reproducible=True)
    dls = fast_data(args.data, 160, args.size, bs, min_scale=min_scale, lighting=lighting, valid_scale=valid_scale, device='cpu')
    loss = LabelSmoothingCrossEntropyFlat(smooth) if smooth else CrossEntropyLossFlat()
    cbs = [Clock(), *([EMA()] if ema else []), *([ProgressiveResize(sizes)] if sizes else [])]
    learn = fast_learner(dls, net(len(dls.vocab)), opt_func=opt or partial(fused_adam, wd=wd), loss_func=loss, cbs=cbs)
    with learn.no_bar(), learn.no_logging(): getattr(learn, fit)(args.epochs, lr, **fit_args)
    return {'history': history(learn)}


def main():
    args = options(__doc__, EXPERIMENTS)
    what, shared, variants = EXPERIMENTS[args.experiment]
    full = {name: {**BASE, **shared, **change} for name, change in variants.items()}
    costs = {}
    for name, v in full.items():
        total = cost_table(v['net'](10), args.size).iloc[-1]
        costs[name] = {'params': int(total['params']), 'MACs': int(total['MACs'])}
    dls = fast_data(args.data, 160, args.size, device='cpu')
    counts = {'train': len(dls.train_ds), 'val': len(dls.valid_ds)}
    record(args, f"{what}; {args.epochs} epochs at {args.size} px", variants, costs, counts,
           lambda name, seed: train(args, seed, **full[name]))


if __name__ == '__main__': main()
