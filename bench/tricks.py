"""One change at a time to a short training run on Imagenette: which tricks pay, by seed, not by luck.

usage: python bench/tricks.py EXPERIMENT --json FILE [--seeds 0 1 2] [--epochs 5] [--size 64]

Each variant is a `Recipe` that differs from the first, the fast one, in what its name says.
"""
from dataclasses import replace

from timm.layers import BlurPool2d
from torch import nn

from runner import Record, by_seed, line, seed_options, told, train_recipe
from resnet_course.data import image_files
from resnet_course.models import MODELS
from resnet_course.recipes import RECIPES, fill_recipe
from resnet_course.resizing import size_schedule
from resnet_course.resnet import resnet18


def blurred18(n_out, **kwargs):
    "A ResNet-18 whose stem pools antialiased (Zhang, 2019)"
    net = resnet18(n_out, **kwargs)
    net.stem[-1] = nn.Sequential(nn.MaxPool2d(3, 1, 1), BlurPool2d(net.stem[-2][0].out_channels, stride=2))
    return net


# name: (what it asks, what all variants share, {variant: what it changes}); `sizes` are shares of `--size`
EXPERIMENTS = {
    'tricks': ("One change at a time to a short run, ResNet-18 with 32 channels after the stem",
               dict(net_options={'width': 32}, presize=160), {
        'base': {},
        'label smoothing 0.1': dict(smoothing=0.1),
        'antialiased stem': dict(net='blurred18'),
        'moving average of weights': dict(averaging=0.98, average_from=0.),
        'flat, then cosine': dict(schedule='flat cosine'),
        'SGD': dict(optimiser='fused SGD', lr=0.3),
        'batches of 64': dict(bs=64),
        'batches of 32': dict(bs=32),
        'growing images': dict(sizes=(1/2, 3/4, 1)),
        'lighting': dict(lighting=True),
        'validation on the middle 7/8': dict(valid_scale=7/8),
        'twice the learning rate': dict(lr=6e-3),
    })}


def recipes(args, images):
    "`{variant: recipe}`, nothing left open"
    _, shared, variants = EXPERIMENTS[args.experiment]
    def recipe(sizes=(1,), **changes):
        sizes = tuple(size_schedule([int(args.size*s) for s in sizes], args.epochs))
        recipe = replace(RECIPES['fast'], **shared, **changes, sizes=sizes)
        return fill_recipe(recipe, images.dataset, len(images.train))
    return {name: recipe(**changes) for name, changes in variants.items()}


def measure(args):
    images = image_files(args.data)
    variants = recipes(args, images)
    record = Record(args, f"{EXPERIMENTS[args.experiment][0]}; {args.epochs} epochs at {args.size} px", args.data,
                    variants={name: told(recipe) for name, recipe in variants.items()})
    record.fill(by_seed(args, variants),
                lambda variant, seed: train_recipe(replace(variants[variant], seed=seed), images), line)


def main():
    args = seed_options(__doc__, EXPERIMENTS)
    MODELS['blurred18'] = blurred18  # a recipe names its net, and only here has this one a name
    try: measure(args)
    finally: del MODELS['blurred18']


if __name__ == '__main__': main()
