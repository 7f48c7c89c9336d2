"""On one GPU: the book's two recipes as written, the same recipes our way, and the best of ours.

usage: python bench/gpu.py EXPERIMENT [EXPERIMENT ...] --json FILE [--data FOLDER] [--seeds 0 1] [--only WORDS] [--tiny]

Each experiment fills its own FILE: with several of them write {} where the name belongs. Runs already in FILE are kept.

    book          `get_data` and a plain `Learner`, `to_fp16`, batches of 128, fastai's own workers
    ours          the same by `fast_data` and `fast_learner`; as a CUDA graph; with growing images
    resnet18-128  ResNet-18, 128 px, 5 epochs, by `BEST`
    resnet50-224  ResNet-50, 224 px, 20 epochs, by `BEST`
    best-128      128 px, 5 and 20 epochs, by `BEST`

`--data` holds images of 224 px and more; where the book takes the 160 px set, a copy of that size is made beside it.
`seconds` of an epoch are training and validation, `train_seconds` training alone, both until the GPU has finished;
`setup` is everything before the first epoch, with the images decoded already. `reached` gives, for an accuracy, the
seconds of either kind up to the end of the first epoch that ended there; setup is in neither. `--graph` makes every
step of ours a CUDA graph, in files of its own.
"""
import gc
import os
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastcore.parallel import parallel
from PIL import Image
from torch import nn

from accuracy import Clock, history
from runner import Record, options, told
from resnet_course.cache import cached_images
from resnet_course.data import find_data, find_dataset, get_data, list_images
from resnet_course.fast import fast_data, fast_learner
from resnet_course.recipes import OPTIMISERS, RECIPES, Recipe, fill_recipe, make_net
from resnet_course.resizing import ProgressiveResize

TARGETS = 0.9, 0.924  # accuracies whose time is asked for
KINDS = 'train_seconds', 'seconds'

# The book's recipes (Howard and Gugger, 2020, chapter 14); ours for the same nets cuts its crops from images of 224 px
BOOK18 = replace(RECIPES['book'], presize=160, sizes=(128,)*5, bs=128, precision='fp16')
BOOK50 = replace(BOOK18, net='resnet50', presize=320, sizes=(224,)*20)
OURS18 = replace(RECIPES['fast'], presize=160, sizes=(128,)*5, bs=128)
OURS50 = replace(OURS18, net='resnet50', presize=224, sizes=(224,)*20)
# What the last three experiments change, in this one place: what paid on a CPU (tricks.py), and label smoothing
BEST = dict(lr=0.2, bs=64, optimiser='fused SGD', smoothing=0.1, valid_scale=7/8)
GROWING18, GROWING50 = (96,)*2 + (112,) + (128,)*2, (128,)*5 + (160,)*5 + (192,)*5 + (224,)*5

# name: (what it asks, {variant: (seeds, recipe)}); a variant called a graph is made one
EXPERIMENTS = {
    'book': ("The book's two recipes, as written", {
        'ResNet-18, 128 px': (3, BOOK18),
        'ResNet-50, 224 px': (1, BOOK50)}),
    'ours': ("The book's nets, epochs and rates through the fast path", {
        'ResNet-18, 128 px': (3, OURS18),
        'ResNet-18, 128 px, graph': (3, OURS18),
        'ResNet-18, 96 to 128 px': (3, replace(OURS18, sizes=GROWING18)),
        'ResNet-50, 224 px': (2, OURS50),
        'ResNet-50, 128 to 224 px': (2, replace(OURS50, sizes=GROWING50))}),
    'resnet18-128': ("ResNet-18 at 128 px, 5 epochs", {
        'ResNet-18, 128 px': (5, replace(OURS18, **BEST))}),
    'resnet50-224': ("ResNet-50 at 224 px, 20 epochs", {
        'ResNet-50, 128 to 224 px': (3, replace(OURS50, **BEST, sizes=GROWING50))}),
    'best-128': ("128 px in 5 and in 20 epochs", {
        'ResNet-50, 128 px, 5 epochs': (5, replace(OURS18, **BEST, net='resnet50')),
        'ResNet-50, 128 px, 20 epochs': (5, replace(OURS18, **BEST, net='resnet50', sizes=(128,)*20))}),
}
LEFT_OUT = 'weights', 'wd', 'schedule', 'averaging', 'average_from', 'validate'  # of a recipe, not read here


def tiny(recipe, epochs=1):
    "A recipe of the same shape that a laptop rehearses in seconds"
    sizes = (32,)*epochs if len(set(recipe.sizes)) == 1 else (32, 48)
    net = dict(net='ResNet', net_options={'layers': [1, 1, 1, 1], 'width': 8})
    return replace(recipe, **net, presize=48, sizes=sizes, bs=64)


def shrink(file, source, to, side):
    target = to/file.relative_to(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(file) as im: smaller = im.convert('RGB').resize((side, side), Image.Resampling.LANCZOS)
    smaller.save(target, 'JPEG', quality=90)


def images_of(args, presize):
    "Where the images are; for a presize up to 160 px a copy of that size, as the book has one"
    if args.data == 'digits' or presize > 160: return args.data
    source = find_data(args.data)
    copy = source.with_name(f'{source.name}-{presize}px')
    if not copy.exists():
        unfinished = copy.with_name(f'.{copy.name}-{os.getpid()}')
        files = [f for fs in list_images(source).values() for f in fs]
        parallel(partial(shrink, source=source, to=unfinished, side=presize), files,
                 threadpool=True, n_workers=os.cpu_count(), progress=False)
        unfinished.rename(copy)
    return copy


def finished(device):
    if device.startswith('cuda'): torch.cuda.synchronize()


class FinishedClock(Clock):
    "Seconds of each epoch, and of its training alone, after the device has done what it was given"
    order = 70  # after fastai's Recorder
    def __init__(self, device): self.device, self.trained = device, []
    def after_train(self):
        finished(self.device)
        self.trained.append(time.perf_counter()-self.began)
    def after_epoch(self):
        finished(self.device)
        super().after_epoch()


def book(dls, recipe, clock):
    net = make_net(recipe, len(dls.vocab))
    return Learner(dls, net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=clock).to_fp16()


def ours(dls, recipe, clock, cbs=(), graph=False):
    loss = CrossEntropyLossFlat(label_smoothing=recipe.smoothing)
    return fast_learner(dls, make_net(recipe, len(dls.vocab)), recipe.precision, opt_func=OPTIMISERS[recipe.optimiser],
                        graph=graph, loss_func=loss, cbs=[clock, *cbs])


def load(args, recipe, source=None):
    for name in LEFT_OUT:
        if getattr(recipe, name) != getattr(Recipe, name):
            raise ValueError(f"{name} is not read here; leave it as it is")
    sides = source or images_of(args, recipe.presize), recipe.presize, recipe.sizes[-1], recipe.bs
    if recipe.pipeline == 'book': dls = get_data(*sides, mirror=recipe.mirror, device=args.device)
    else: dls = fast_data(*sides, mirror=recipe.mirror, min_scale=recipe.min_scale, lighting=recipe.lighting,
                          valid_scale=recipe.valid_scale, device=args.device)
    for dl in dls.loaders if args.tiny else (): dl.n = 256
    return dls


def fit(learn, recipe):
    grow = ProgressiveResize(recipe.sizes) if len(set(recipe.sizes)) > 1 else None
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(len(recipe.sizes), recipe.lr, cbs=grow)


@cache
def decoded(source, presize): cached_images(source, presize)


def train(args, recipe, graph):
    "One run: setup, the history of its epochs, when each target was reached, the most GPU memory taken"
    on_gpu = args.device.startswith('cuda')
    if recipe.pipeline == 'fast': decoded(images_of(args, recipe.presize), recipe.presize)
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    set_seed(recipe.seed)
    began, clock = time.perf_counter(), FinishedClock(args.device)
    dls = load(args, recipe)
    learn = book(dls, recipe, clock) if recipe.pipeline == 'book' else ours(dls, recipe, clock, graph=graph)
    finished(args.device)
    run = {'setup': round(time.perf_counter()-began, 3)}
    fit(learn, recipe)
    rows = zip(history(learn, clock), clock.trained, strict=True)
    run['history'] = [{**row, 'train_seconds': round(seconds, 6)} for row, seconds in rows]
    run['reached'] = reached(run['history'])
    if on_gpu: run['GPU GB'] = round(torch.cuda.max_memory_allocated()/1e9, 3)
    return run


def reached(history):
    "For each target, the seconds of the epochs up to the first that ended there"
    found = {}
    for target in TARGETS:
        n = next((i for i, h in enumerate(history, 1) if h['accuracy'] >= target), None)
        if n: found[f'{target:.1%}'] = {k: round(sum(h[k] for h in history[:n]), 3) for k in KINDS}
    return found


def plan(args, experiment):
    "What an experiment asks, and `{variant: (seeds, recipe)}`"
    what, variants = EXPERIMENTS[experiment]
    if args.tiny: variants = {name: (1, tiny(recipe)) for name, (_, recipe) in variants.items()}
    if args.graph: variants = {name: v for name, v in variants.items() if v[1].pipeline == 'fast'}
    dataset = find_dataset(args.data)
    return what, {name: (n, fill_recipe(recipe, dataset)) for name, (n, recipe) in variants.items()}


def do(args, experiment):
    "Do the runs that the file of one experiment lacks, a seed of every variant before the next seed"
    args.json, name = Path(args.file.replace('{}', experiment)), Path(args.data).name  # not where it lies
    args.command = f'python bench/gpu.py {experiment} --data {name}' + ' --graph'*args.graph + ' --tiny'*args.tiny
    what, variants = plan(args, experiment)
    graphs = {v for v in variants if v.endswith('graph') or args.graph}
    record = Record(args, what, args.data, name,
                    variants={v: {**told(recipe), 'graph': v in graphs} for v, (_, recipe) in variants.items()})
    skipped = () if args.device.startswith('cuda') else graphs
    for variant in skipped: print(f'{experiment}: {variant}: skipped, it needs CUDA', flush=True)
    asked = None if args.tiny else args.seeds
    wanted = [{'variant': variant, 'seed': seed} for seed in asked or range(max(n for n, _ in variants.values()))
              for variant, (n, _) in variants.items()
              if variant not in skipped and (asked or seed < n) and (not args.only or args.only in variant)]
    record.fill(wanted, lambda variant, seed: train(args, replace(variants[variant][1], seed=seed), variant in graphs),
                lambda run: f'{experiment}: {line(run)}')


def line(run):
    h = run['history']
    trained, total = (sum(e[k] for e in h) for k in KINDS)
    parts = [f"{run['variant']}, seed {run['seed']}: accuracy {h[-1]['accuracy']:.4f}, {total:.1f} s",
             f"training {trained:.1f} s, setup {run['setup']:.1f} s"]
    return ', '.join(parts + [f"{target} in {t['seconds']:.1f} s" for target, t in run['reached'].items()])


def pick_device(parser, args):
    "The first GPU; without one only a rehearsal"
    args.device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    if args.tiny: args.data = 'digits'
    elif args.device == 'cpu': parser.error("there is no GPU that torch can use; rehearse with --tiny")


def main():
    parser = options(__doc__, 'imagenette-320')  # or a folder, 224 px or more
    parser.add_argument('experiments', nargs='+', choices=EXPERIMENTS, metavar='EXPERIMENT')
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of as many as each variant asks for")
    parser.add_argument('--only', help="the variants with this in their name")
    parser.add_argument('--graph', action='store_true', help="ours as a CUDA graph throughout; takes files of its own")
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, a tiny net, one seed")
    args = parser.parse_args()
    args.file = str(args.json or parser.error("--json is needed"))
    if len(args.experiments) > 1 and '{}' not in args.file: parser.error("several experiments need {} in --json")
    pick_device(parser, args)
    for experiment in args.experiments: do(args, experiment)


if __name__ == '__main__': main()
