"""What pretraining is worth: weights of a long training, and what five classes teach about five others.

usage: python bench/reuse.py imagenette --json FILE --out FOLDER [--seeds 0]
       python bench/reuse.py transfer --json FILE [--seeds 0 1 2 3 4]

`imagenette`: the weights that the package brings, `tools/pretrained.py` makes them of a run folder in FOLDER. A stopped
run goes on. `transfer`: the laptop recipe as it was (`TODAY` of `factors.py`) on the first five classes (in the order
of their WordNet numbers), then `METHODS` on 5, 10, 50 and all training images a class of the other five, scored on the
validation images of those. No rate was chosen: all are fastai's and the course's defaults. `before` and `after` are the
accuracies on the first five classes, by the head that knew them, before and after the body learned the others. Runs
already in FILE are kept.
"""
import copy
import gc
import time
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed

from factors import TODAY
from gpu import FinishedClock
from runner import Record, epochs_of, line, options, recorded, rows
from resnet_course.cache import CachedDL
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.recipes import OPTIMISERS, RECIPES, fill_recipe, make_net, train
from resnet_course.resizing import ProgressiveResize
from resnet_course.train import ValidateLast, pick_device
from resnet_course.weights import body_head, load_weights, reset_head

CHOSEN = replace(RECIPES['laptop'], presize=160, sizes=(64,)*10+(96,)*12+(128,)*6)  # as `screen.py` confirmed it
COUNTS = 5, 10, 50, 'all'  # training images a class
STEPS, EPOCHS = 400, 10  # of each training, at least


def scratch(learn, epochs): learn.fit_one_cycle(epochs, 3e-3)


def frozen(learn, epochs):
    learn.freeze()
    learn.fit_one_cycle(epochs, 3e-3)


def fine_tune(learn, epochs): learn.fine_tune(epochs-max(1, epochs//5), freeze_epochs=max(1, epochs//5))


def rates(learn, epochs): learn.fit_one_cycle(epochs, slice(3e-5, 3e-3))


METHODS = {'from scratch': scratch, 'frozen body': frozen, 'head, then all': fine_tune, 'rates by depth': rates}


class SomeDL(CachedDL):
    "Batches of these rows alone"
    rows = None
    def create_batches(self, samps): yield from super().create_batches(self.rows[i] for i in samps)


def classes_of(source, which):
    "The images of some classes of `source`"
    images = image_files(source)
    names, n = set(images.classes[which]), len(images.train)
    kept = [(f, label, i >= n) for i, (f, label) in enumerate(zip(images.items, images.labels, strict=True))
            if label in names]
    files, labels, valid = (list(t) for t in zip(*kept, strict=True))
    return image_files(source, files=files, labels=labels, valid=valid)


def fit(args, recipe, images, seed):
    "Train by a recipe: the learner, the history of its epochs"
    gc.collect()
    dls = fast_data(images, recipe.presize, recipe.sizes[-1], recipe.bs, min_scale=recipe.min_scale,
                    valid_scale=recipe.valid_scale, device=args.device)
    set_seed(seed)
    dls.train.rng.seed(seed)
    cbs = [ProgressiveResize(recipe.sizes), ValidateLast(1), clock := FinishedClock(args.device)]
    learn = fast_learner(dls, make_net(recipe, len(images.classes)), opt_func=OPTIMISERS[recipe.optimiser], cbs=cbs,
                         graph=args.device.startswith('cuda'))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(len(recipe.sizes), recipe.lr)
    return learn, epochs_of(recipe.sizes, clock.trained, learn.recorder.values)


@torch.no_grad()
def score(model, dl):
    "The share of right answers"
    model.eval()
    right = [(model(x).argmax(1) == y).float() for x, y in dl]
    return round(torch.cat(right).mean().item(), 6)


def taught(args, seed):
    "A net that knows the first classes, and their loader for validation"
    images = classes_of(args.data, slice(args.half))
    learn, rows = fit(args, args.recipe, images, seed)
    print(f"first classes, seed {seed}: {rows[-1]['accuracy']:.3f}", flush=True)
    return learn.model, learn.dls.valid


def others(args):
    images = classes_of(args.data, slice(args.half, None))
    return images, fast_data(images, args.recipe.presize, args.recipe.sizes[-1], 64, valid_scale=TODAY.valid_scale,
                             device=args.device)


def few(images, count, seed):
    "Rows of the training images, `count` a class, drawn by the seed"
    labels, rng = np.array(images.labels[:len(images.train)]), np.random.default_rng(seed)
    each = [rng.permutation(np.flatnonzero(labels == c)) for c in images.classes]
    return sorted(int(i) for rows in each for i in (rows if count == 'all' else rows[:count]))


def transfer(args, variant, seed):
    "One method, so many images of each of the other classes"
    count, method = args.variants[variant]
    source, known = args.taught(seed)
    images, dls = args.others()
    train = dls.train.new(cls=SomeDL)
    train.rows = few(images, count, seed)
    train.n = len(train.rows)
    train.bs = min(64, max(8, train.n//16))
    set_seed(seed)
    train.rng.seed(seed)
    net = make_net(args.recipe, len(images.classes))
    if method != 'from scratch': load_weights(net, {k: v.cpu() for k, v in source.state_dict().items()})
    reset_head(net, len(images.classes))
    epochs = max(args.least, -(-args.steps//len(train)))
    learn = fast_learner(DataLoaders(train, dls.valid, device=dls.device), net, splitter=body_head,
                         cbs=ValidateLast(1))
    began = time.perf_counter()
    with learn.no_bar(), learn.no_logging(): METHODS[method](learn, epochs)
    last = epochs_of([args.recipe.sizes[-1]], [time.perf_counter()-began], learn.recorder.values[-1:])
    run = {'images': train.n, 'epochs': epochs, 'steps': epochs*len(train), 'history': last}
    if method == 'from scratch': return run
    back, tuned = copy.deepcopy(source), net.state_dict()
    head = list(tuned)[-2:]
    back.load_state_dict({k: v if k in head else tuned[k] for k, v in source.state_dict().items()})
    return {**run, 'before': score(source, known), 'after': score(back, known)}


def imagenette(args, variant, seed):
    "One run of the recipe, in a folder that stays"
    folder = args.out/f'imagenette-{seed}'
    done = (folder/'checkpoint.pt').exists()
    run = train(None if done else replace(args.recipe, seed=seed), None if done else args.data, folder, resume=done,
                device=args.device)
    return {'history': rows(run.history)}


def main():
    parser = options(__doc__, 'imagenette-320')
    parser.add_argument('experiment', choices=['imagenette', 'transfer'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--out', type=Path, help="of imagenette: where the run folders are")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, a tiny net")
    args = parser.parse_args()
    args.device, args.half, args.steps, args.least = pick_device(args.device), 5, STEPS, EPOCHS
    recipe = CHOSEN if args.experiment == 'imagenette' else TODAY
    if args.experiment == 'imagenette' and not args.out: parser.error("imagenette wants --out FOLDER")
    if args.tiny:
        args.data, args.steps, args.least = 'digits', 2, 2
        recipe = replace(recipe, net_options={'width': 8}, presize=48, sizes=(32, 48))
    args.recipe = fill_recipe(recipe, image_files(args.data).dataset)
    if args.out: args.out.mkdir(parents=True, exist_ok=True)
    args.variants = ({'imagenette': None} if args.experiment == 'imagenette' else
                     {f'{count} a class, {method}': (count, method) for count in COUNTS for method in METHODS})
    args.command = f"python bench/reuse.py {args.experiment} --data {Path(args.data).name}{' --tiny'*args.tiny}"
    what = {'imagenette': "The laptop net by Muon: the weights that the package brings",
            'transfer': "Five classes, then five others"}
    halves = {'first': slice(args.half), 'others': slice(args.half, None)}
    split = {'split': {name: classes_of(args.data, which).counts for name, which in halves.items()}}
    record = Record(args, what[args.experiment], args.data, args.data, recipe=recorded(args.recipe),
                    **(split if args.experiment == 'transfer' else {}))
    run = imagenette if args.experiment == 'imagenette' else transfer
    args.taught, args.others = cache(partial(taught, args)), cache(partial(others, args))
    keys = [{'variant': v, 'seed': seed} for seed in args.seeds for v in args.variants]
    record.fill(keys, lambda variant, seed: run(args, variant, seed), line)


if __name__ == '__main__': main()
