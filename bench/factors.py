"""The changes to the laptop recipe that `screen.py` tries, each as small as it can be."""
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch
from fastai.callback.schedule import ParamScheduler, SchedLin, combine_scheds, combined_cos
from timm.layers import BlurPool2d
from torch import nn
from torch.nn import functional as F

from resnet_course.cache import CachedDL
from resnet_course.layers import ConvLayer
from resnet_course.recipes import RECIPES
from resnet_course.variants import SqueezeExcite
from resnet_course.resblock import ResBlock

# The laptop recipe before the screening chose: what all changes are changes to
TODAY = replace(RECIPES['laptop'], presize=160, sizes=(64,)*9+(96,)*11+(128,)*5, optimiser='fused SGD', smoothing=0.,
                averaging=0., validate='every')


class AlternatingDL(CachedDL):
    "Mirrors each image every other epoch, the first time by chance; the crop that follows mirrors none"
    mirrored = None
    def create_batches(self, samps):
        samps, labels = list(samps), self.cached[-1]
        first = torch.rand(len(labels), device=labels.device) < 0.5
        self.mirrored = first if self.mirrored is None else ~self.mirrored
        for rows, (x, y) in zip(self.chunkify(samps), super().create_batches(samps), strict=True):
            mirrored = self.mirrored[torch.tensor(list(rows)).to(labels.device, non_blocking=True)]
            yield torch.where(mirrored[:, None, None, None], x.flip(-1), x), y


def excite(net, dls):
    "Squeeze-and-excite at the end of each block of the last two groups"
    for block in (*net.group3, *net.group4): block.convs.append(SqueezeExcite(block.convs[-1][0].out_channels))


def blur(net, dls):
    "Antialiased pools (Zhang, 2019): in the stem after a maximum at each place, in the shortcuts instead of the mean"
    net.stem[-1] = nn.Sequential(nn.MaxPool2d(3, 1, 1), BlurPool2d(net.stem[-2][0].out_channels, stride=2))
    for block in net.modules():
        if isinstance(block, ResBlock) and len(block.shortcut) == 2:
            block.shortcut[0] = BlurPool2d(block.shortcut[1][0].in_channels, stride=2)


def whiten(net, dls, n=12):
    "A fixed first layer: the `n` directions in which 3x3 patches differ most, at variance 1, and their negatives"
    x = dls.train.one_batch()[0].as_subclass(torch.Tensor).float().cpu()
    patches = F.unfold(x, 3, stride=2).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    directions = (vectors/(values+1e-3).sqrt())[:, -n:].T.reshape(n, 3, 3, 3)
    conv = nn.Conv2d(3, 2*n, 3, 2, 1, bias=False).requires_grad_(False)
    conv.weight.copy_(torch.cat([directions, -directions]))
    net.stem[0], net.stem[1] = nn.Sequential(conv, nn.ReLU()), ConvLayer(2*n, net.stem[1][0].out_channels)


def muon_macs(net, rounds=3):
    "Multiply-adds that Muon adds to a step"
    sides = [sorted((len(p), p[0].numel())) for p in net.parameters()
             if p.ndim == 4 and p.shape[1] > 1 and p.requires_grad]
    return sum(2*m*m*n + (4*rounds-3)*m**3 for m, n in sides)


def straight(learn, epochs, lr, wd):
    "`fit_one_cycle`, its rate up within a tenth of the run and then straight down to 0"
    rate = combine_scheds([0.1, 0.9], [SchedLin(lr/25, lr), SchedLin(lr, 0)])
    learn.fit(epochs, lr, wd=wd, cbs=ParamScheduler({'lr': rate, 'mom': combined_cos(0.25, 0.95, 0.85, 0.95)}))


def scaled(sizes, scale):
    "So many times the epochs at each size, to the nearest whole number, at least one"
    return tuple(s for s, same in groupby(sizes) for s in [s]*max(1, int(len(list(same))*scale+0.5)))


@dataclass(frozen=True)
class Factor:
    "A change to today's recipe: what it is, and the parts of a run that it touches"
    what: str
    recipe: dict = field(default_factory=dict)  # fields
    net: object = None  # changes the net in place; may look at batches
    loader: type = CachedDL  # of the training images


FACTORS = {
    'smoothing': Factor("label smoothing 0.1, not 0", dict(smoothing=0.1)),
    'decay': Factor("weight decay 1e-3, not 5e-4", dict(wd=1e-3)),
    'batch': Factor("batches of 128 at 0.4, not 64 at 0.2", dict(bs=128, lr=0.4)),
    'flips': Factor("each image mirrored every other epoch, not by chance", loader=AlternatingDL),
    'average': Factor("average of the last weights, 0.99 a step, from 0.6 on", dict(averaging=0.99, average_from=0.6)),
    'excite': Factor("squeeze-and-excite in groups 3 and 4", net=excite),
    'blur': Factor("antialiased stem and shortcuts", net=blur),
    'muon': Factor("Muon for the kernels, not SGD", dict(optimiser='Muon')),
    'whiten': Factor("whitened patches as a fixed first layer", net=whiten),
    'crops': Factor("crops from half of the area, not 0.35", dict(min_scale=0.5)),
    'blocks': Factor("a block of group 1 moved to group 3", dict(net='ResNet')),  # this and the next three: `recipe_of`
    'rate': Factor("half again as high a learning rate"),
    'longer': Factor("a fifth more epochs at each size"),
    'small': Factor("four epochs more at 64 px for one less at 128 px"),
    'straight': Factor("the rate up in a tenth of the run and straight down, not one cycle's cosine"),
}


def recipe_of(factors, today):
    "The recipe with these factors changed"
    recipe = replace(today, **{k: v for f in factors for k, v in FACTORS[f].recipe.items()})
    if 'rate' in factors: recipe = replace(recipe, lr=1.5*recipe.lr)
    if 'small' in factors: recipe = replace(recipe, sizes=recipe.sizes[:1]*4 + recipe.sizes[:-1])
    if 'longer' in factors: recipe = replace(recipe, sizes=scaled(recipe.sizes, 1.2))
    if 'blocks' in factors: recipe = replace(recipe, net_options={**today.net_options, 'layers': [1, 2, 3, 2]})
    return recipe
