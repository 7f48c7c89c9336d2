"""On one GPU: the book's two recipes as written, the same recipes our way, and the best of ours; what to check first.

usage: python bench/gpu.py EXPERIMENT [EXPERIMENT ...] --json FILE [--data FOLDER] [--seeds 0 1] [--only WORDS] [--tiny]

Each experiment fills its own FILE: with several of them write {} where the name belongs. Runs already in FILE are kept
and it is written whole after each run, so a stopped experiment goes on where it was.

    check         crops, input, formats, training steps, waits of the host, CUDA graphs: a minute, on the digits
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

A GPU machine without a network, for ten minutes at a time: bring this repository, the wheels that it lacks (whl/) and
the images in three archives (d1/ and d2/ train, d3/ val; they unpack to train/ and val/, 224 px).

    call 1, with whl and d1
        pip install -q --no-index --no-deps --no-compile --target ~/site whl/*.whl; mkdir -p ~/imagenette ~/gpu
        tar -C ~/imagenette -xzf d1/*.tgz; export PYTHONPATH=$PWD:$HOME/site
        timeout 5m python bench/gpu.py check --json ~/gpu/gpu-check.json --commit SHA
    call 2, with d2
        tar -C ~/imagenette -xzf d2/*.tgz
    call 3, with d3
        tar -C ~/imagenette -xzf d3/*.tgz; export PYTHONPATH=$PWD:$HOME/site
        timeout 9m python bench/gpu.py ours book resnet18-128 best-128 --only "128 px" \\
            --data ~/imagenette --copy "..." --commit SHA --json ~/gpu/gpu-{}.json
    call 4 and again until all is done, with nothing more
        export PYTHONPATH=$PWD:$HOME/site
        timeout 9m python bench/gpu.py ours book resnet50-224 resnet18-128 best-128 \\
            --data ~/imagenette --copy "..." --commit SHA --json ~/gpu/gpu-{}.json

Later calls go on with the files of the earlier; take ~/gpu home after each.
"""
import argparse
import gc
import os
import time
import warnings
from collections import Counter
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.callback.core import Callback
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastcore.parallel import parallel
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from accuracy import Clock
from measure import save, start
from resnet_course.cost import cost_table
from resnet_course.data import find_data, get_data, list_images
from resnet_course.fast import cached_images, crop_cpu, crop_gpu, fast_data, fast_learner, fused_adam, fused_sgd, random_boxes
from resnet_course.resizing import ProgressiveResize
from resnet_course.resnet import ResNet, resnet18, resnet50
from resnet_course.train import best_precision

TARGETS = 0.9, 0.924  # accuracies whose time is asked for
KINDS = 'train_seconds', 'seconds'

# The book's recipes (Howard and Gugger, 2020, chapter 14); ours for the same nets cuts its crops from images of 224 px
BOOK18 = dict(net=resnet18, presize=160, size=128, epochs=5, lr=3e-3, bs=128)
BOOK50 = dict(net=resnet50, presize=320, size=224, epochs=20, lr=3e-3, bs=128)
OURS18 = {**BOOK18, 'opt': fused_adam, 'smooth': 0., 'min_scale': 0.35, 'valid_scale': 1., 'sizes': None, 'graph': False}
OURS50 = {**OURS18, **BOOK50, 'presize': 224}
# What the last three experiments change, in this one place: what paid on a CPU (tricks.py), and label smoothing
BEST = dict(lr=0.2, bs=64, opt=fused_sgd, smooth=0.1, valid_scale=7/8)

SMALL_SIZES = [96]*2 + [112] + [128]*2
SIZES = [128]*5 + [160]*5 + [192]*5 + [224]*5

# name: (what it asks, {variant: (seeds, recipe)}); a recipe without an optimiser of its own is trained the book's way
EXPERIMENTS = {
    'book': ("The book's two recipes, as written", {
        'ResNet-18, 128 px': (3, BOOK18),
        'ResNet-50, 224 px': (1, BOOK50)}),
    'ours': ("The book's nets, epochs and rates through the fast path", {
        'ResNet-18, 128 px': (3, OURS18),
        'ResNet-18, 128 px, graph': (3, OURS18 | {'graph': True}),
        'ResNet-18, 96 to 128 px': (3, OURS18 | {'sizes': SMALL_SIZES}),
        'ResNet-50, 224 px': (2, OURS50),
        'ResNet-50, 128 to 224 px': (2, OURS50 | {'sizes': SIZES})}),
    'resnet18-128': ("ResNet-18 at 128 px, 5 epochs", {
        'ResNet-18, 128 px': (5, OURS18 | BEST)}),
    'resnet50-224': ("ResNet-50 at 224 px, 20 epochs", {
        'ResNet-50, 128 to 224 px': (3, OURS50 | BEST | {'sizes': SIZES})}),
    'best-128': ("128 px in 5 and in 20 epochs", {
        'ResNet-50, 128 px, 5 epochs': (5, OURS18 | BEST | {'net': resnet50}),
        'ResNet-50, 128 px, 20 epochs': (5, OURS18 | BEST | {'net': resnet50, 'epochs': 20})}),
}


def tiny(recipe):
    "A recipe of the same shape that a laptop rehearses in seconds"
    changed = dict(net=partial(ResNet, layers=[1, 1, 1, 1], width=8), presize=48, size=32, epochs=1)
    if recipe.get('sizes'): changed |= {'sizes': [32, 48], 'size': 48, 'epochs': 2}
    return {**recipe, **changed, 'bs': 64}


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
    net = recipe['net'](len(dls.vocab))
    return Learner(dls, net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=clock).to_fp16()


def ours(dls, recipe, clock, cbs=(), **kwargs):
    return fast_learner(dls, recipe['net'](len(dls.vocab)), opt_func=recipe['opt'], graph=recipe['graph'],
                        loss_func=CrossEntropyLossFlat(label_smoothing=recipe['smooth']), cbs=[clock, *cbs], **kwargs)


def load(args, recipe, source=None):
    source = source or images_of(args, recipe['presize'])
    sides = source, recipe['presize'], recipe['size'], recipe['bs']
    if 'opt' in recipe: dls = fast_data(*sides, min_scale=recipe['min_scale'], valid_scale=recipe['valid_scale'], device=args.device)
    else: dls = get_data(*sides, device=args.device)
    for dl in dls.loaders if args.tiny else (): dl.n = 256
    return dls


def fit(learn, recipe):
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(recipe['epochs'], recipe['lr'])


@cache
def decoded(source, presize): cached_images(source, presize)


def train(args, recipe, seed):
    "One run: setup, the history of its epochs, when each target was reached, the most GPU memory taken"
    on_gpu = args.device.startswith('cuda')
    if 'opt' in recipe: decoded(images_of(args, recipe['presize']), recipe['presize'])
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    set_seed(seed)
    began, clock = time.perf_counter(), FinishedClock(args.device)
    dls = load(args, recipe)
    if 'opt' not in recipe: learn = book(dls, recipe, clock)
    else: learn = ours(dls, recipe, clock, [ProgressiveResize(recipe['sizes'])] if recipe['sizes'] else [])
    finished(args.device)
    run = {'setup': round(time.perf_counter()-began, 3)}
    fit(learn, recipe)
    rows = [[*values, *s] for *s, values in zip(clock.trained, clock.seconds, learn.recorder.values)]
    names = 'train_loss', 'valid_loss', 'accuracy', *KINDS
    run['history'] = [{'epoch': i+1, **{name: round(float(v), 6) for name, v in zip(names, row)}}
                      for i, row in enumerate(rows)]
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


def named(value):
    "A function of a recipe by its name and what it is given, other values as they are"
    if not isinstance(value, partial): return getattr(value, '__name__', value)
    return f"{named(value.func)}({', '.join(f'{k}={v}' for k, v in value.keywords.items())})"


def described(args, recipe):
    "A recipe in words and numbers, for the record"
    total = cost_table(recipe['net'](10), recipe['size']).iloc[-1]
    precision = best_precision(args.device) if 'opt' in recipe else 'to_fp16'
    return {'params': int(total['params']), 'MACs': int(total['MACs']), 'precision': precision,
            **{k: named(v) for k, v in recipe.items()}}


def photographs(side):
    "Squares of two photographs, bytes `(n,3,side,side)`, channels last"
    squares = [im[top:top+side, left:left+side] for im in load_sample_images().images
               for top in range(0, im.shape[0]-side+1, side) for left in range(0, im.shape[1]-side+1, side)]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def check_crops(args):
    "How near the crop of a GPU comes to the antialiased one of a CPU"
    for presize, size in (160, 64), (160, 128), (224, 224):
        x = photographs(presize)
        boxes, flips = random_boxes(len(x), presize, presize), torch.rand(len(x)) < 0.5
        want = crop_cpu(x, boxes, flips, (size, size)).float()
        got = crop_gpu(*(t.to(args.device) for t in (x, boxes, flips)), (size, size)).cpu()
        error = (got.clamp(0, 255)-want).square().mean((1, 2, 3))
        yield {'presize': presize, 'px': size, 'dB': (10*(255**2/error).log10()).median().item()}


def check_input(args):
    "Images/s that the loader makes, nothing trained"
    for presize, size in ((160, 64), (160, 128), (224, 224)) if not args.tiny else ((48, 32),):
        dls, seconds = load(args, OURS18 | {'presize': presize, 'size': size}, 'digits'), []
        for _ in range(4):
            finished(args.device)
            began = time.perf_counter()
            for _ in dls.train: pass
            finished(args.device)
            seconds.append(time.perf_counter()-began)
        yield {'px': size, 'images/s': len(dls.train)*dls.bs/median(seconds[1:])}


def steps(args, recipe, make=ours, **kwargs):
    "Train on the digits from seed 0: the learner and its clock"
    set_seed(0)
    clock = FinishedClock(args.device)
    learn = make(load(args, OURS18 | recipe, 'digits'), recipe, clock, **kwargs)
    fit(learn, recipe)
    return learn, clock


def small_runs(args, **changes):
    "The two nets, to be trained for a few steps"
    if args.tiny: return [tiny(OURS18) | {'epochs': 2} | changes]
    return [recipe | {'epochs': 4} | changes for recipe in (OURS18, OURS50)]


def check_formats(args):
    "Number format and layout of what the convolutions give"
    recipe, seen = small_runs(args, bs=64, epochs=1)[0], Counter()
    net = recipe['net'](10)
    def note(m, _, out): seen[str(out.dtype), out.is_contiguous(memory_format=torch.channels_last)] += 1
    for m in net.modules():
        if isinstance(m, nn.Conv2d): m.register_forward_hook(note)
    steps(args, recipe | {'net': lambda n: net})
    for (dtype, last), n in seen.items(): yield {'dtype': dtype, 'channels last': last, 'share': n/seen.total()}


class Waits(Callback):
    "Where the host waits for the GPU: in training from the third batch on, and in the whole of the second epoch"
    order = -100
    def __init__(self):
        self.found = {'training step': Counter(), 'epoch': Counter()}
        self.n = {'training step': 0, 'epoch': 1}
    def listen(self):
        self.caught = warnings.catch_warnings(record=True)
        self.heard = self.caught.__enter__()
        torch.cuda.set_sync_debug_mode('warn')
        warnings.simplefilter('always')
    def stop(self, kind):
        torch.cuda.set_sync_debug_mode('default')
        self.caught.__exit__(None, None, None)
        self.found[kind].update(f'{"/".join(Path(w.filename).parts[-2:])}:{w.lineno}'
                                for w in self.heard if 'called a synchronizing' in str(w.message))
    def before_epoch(self):
        if self.epoch == 1: self.listen()
    def before_batch(self):
        if self.epoch == 0 and self.training and self.iter == 2: self.listen()
    def after_train(self):
        if self.epoch: return
        self.stop('training step')
        self.n['training step'] = self.n_iter-2
    def after_epoch(self):
        if self.epoch == 1: self.stop('epoch')


def check_waits(args, graph=False):
    "Host synchronisations of the learner and its loader, by the line that made them"
    waits = Waits()
    steps(args, small_runs(args, bs=64, epochs=2)[0] | {'graph': graph}, cbs=[waits])
    for kind, places in waits.found.items():
        for place, times in places.items() or [('nowhere', 0)]:
            yield {'in': kind, 'where': place, 'times': times/waits.n[kind]}


@contextmanager
def deterministic():
    "cuDNN as `set_seed(reproducible=True)` leaves it"
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try: yield
    finally: cudnn.deterministic, cudnn.benchmark = before


WAYS = {'ours': ours, 'ours, cudnn deterministic': ours, "fastai's Learner, to_fp16": book}


def check_steps(args, ways=WAYS, graph=False):
    "Images/s of training through the learner, first epoch left out; the loader is ours throughout"
    for recipe in small_runs(args, graph=graph):
        for bs in (64,) if args.tiny else (32, 128):
            for way, make in ways.items():
                with deterministic() if 'deterministic' in way else nullcontext():
                    learn, clock = steps(args, recipe | {'bs': bs}, make)
                yield {'net': named(recipe['net']), 'px': recipe['size'], 'bs': bs, 'way': way,
                       'images/s': len(learn.dls.train)*bs/median(clock.trained[1:])}


class Losses(Callback):
    "The loss of each training batch"
    def __init__(self): self.of = []
    def after_loss(self):
        if self.training: self.of.append(self.learn.loss.detach())


def check_graph(args):
    "Losses of the first steps: two runs alike, and one as a CUDA graph"
    runs = []
    for graph in False, False, True:
        losses = Losses()
        steps(args, small_runs(args, bs=64, epochs=1)[0] | {'graph': graph}, cbs=[losses])
        runs.append(torch.stack(losses.of).float().tolist())
    for i, losses in enumerate(zip(*runs), 1): yield {'step': i, **dict(zip(('loss', 'again', 'graph'), losses))}


# what needs a recorded graph stands last: a fault there may spoil the GPU for what follows
CHECKS = {'crops': check_crops, 'input': check_input, 'formats': check_formats, 'steps': check_steps,
          'waits': check_waits, 'graph': check_graph,
          'graph, steps': partial(check_steps, ways={'ours, graph': ours}, graph=True),
          'graph, waits': partial(check_waits, graph=True)}
NEED_CUDA = 'waits', 'graph', 'graph, steps', 'graph, waits'


def check(args, name):
    "The rows of one check; a fault is a row too, so that the others are still made"
    began, rows = time.perf_counter(), []
    try:
        for row in CHECKS[name](args):
            rows.append({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
            print(f'check {name}:', *(f'{k} {v}' for k, v in rows[-1].items()), flush=True)
    except Exception as e:
        if args.tiny: raise
        rows.append({'fault': f'{type(e).__name__}: {e}'})
        print(f'check {name}:', rows[-1]['fault'], flush=True)
    return {'seconds': round(time.perf_counter()-began, 1), 'history': rows}


def plan(args, experiment):
    "What an experiment asks, `{variant: (seeds, recipe)}`, and how each variant is told in the record"
    if experiment == 'check':
        return "What the fast path does on this device, on the embedded digits", dict.fromkeys(CHECKS, (1, None)), {}
    what, variants = EXPERIMENTS[experiment]
    if args.tiny: variants = {name: (1, tiny(recipe)) for name, (_, recipe) in variants.items()}
    if args.graph: variants = {name: (n, {**r, 'graph': True}) for name, (n, r) in variants.items() if 'opt' in r}
    return what, variants, {name: described(args, recipe) for name, (_, recipe) in variants.items()}


def header(args, experiment, what, variants):
    "The record to fill; what its file holds already is kept"
    source = 'digits' if experiment == 'check' else args.data
    counts = {split: len(files) for split, files in list_images(find_data(source)).items()}
    name = Path(source).name  # not where it lies
    args.command = f'python bench/gpu.py {experiment} --data {name}' + ' --graph'*args.graph + ' --tiny'*args.tiny
    return start(args, what, {'source': name, **counts, 'copy': args.copy}, variants=variants)


def do(args, experiment):
    "Do the runs that the file of one experiment lacks, a seed of every variant before the next seed"
    args.json = Path(args.file.replace('{}', experiment))
    what, variants, told = plan(args, experiment)
    record, on_gpu = header(args, experiment, what, told), args.device.startswith('cuda')
    done = {(r['variant'], r['seed']) for r in record['runs']}
    asked = None if args.tiny or experiment == 'check' else args.seeds
    for seed in asked or range(max(n for n, _ in variants.values())):
        for name, (n_seeds, recipe) in variants.items():
            if (name, seed) in done or (args.only and args.only not in name): continue
            if not asked and seed >= n_seeds: continue
            if not on_gpu and (name in NEED_CUDA if recipe is None else recipe.get('graph')):
                print(f'{experiment}: {name}: skipped, it needs CUDA', flush=True)
                continue
            run = check(args, name) if recipe is None else train(args, recipe, seed)
            record['runs'].append({'variant': name, 'seed': seed, **run})
            save(args, record)
            if recipe: print(f'{experiment}: {name}, seed {seed}: {line(run)}', flush=True)
    return record


def line(run):
    h = run['history']
    trained, total = (sum(e[k] for e in h) for k in KINDS)
    parts = [f"accuracy {h[-1]['accuracy']:.4f}, {total:.1f} s, training {trained:.1f} s, setup {run['setup']:.1f} s"]
    return ', '.join(parts + [f"{target} in {t['seconds']:.1f} s" for target, t in run['reached'].items()])


def table(record):
    "A line for each variant: accuracy and seconds over its runs"
    for name in dict.fromkeys(r['variant'] for r in record['runs']):
        runs = [r for r in record['runs'] if r['variant'] == name]
        total = {k: median(sum(h[k] for h in r['history']) for r in runs) for k in KINDS}
        last = mean(r['history'][-1]['accuracy'] for r in runs)
        print(f"{record['name']}: {name}: {len(runs)} runs, accuracy {last:.4f}, "
              f"median {total['seconds']:.1f} s, training {total['train_seconds']:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiments', nargs='+', choices=['check', *EXPERIMENTS], metavar='EXPERIMENT')
    parser.add_argument('--json', dest='file', required=True, help="where the runs go; {} is the experiment")
    parser.add_argument('--seeds', type=int, nargs='+', help="instead of as many as each variant asks for")
    parser.add_argument('--only', help="the variants with this in their name")
    parser.add_argument('--data', default='imagenette-320', help="a known set or a folder, 224 px or more")
    parser.add_argument('--copy', default='not named', help="which copy of the images this is, for the record")
    parser.add_argument('--commit', help="the commit, for the record, where there is no git")
    parser.add_argument('--graph', action='store_true', help="ours as a CUDA graph throughout; takes files of its own")
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, a tiny net, one seed")
    args = parser.parse_args()
    if len(args.experiments) > 1 and '{}' not in args.file: parser.error("several experiments need {} in --json")
    args.device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    if args.tiny: args.data = 'digits'
    elif args.device == 'cpu': parser.error("there is no GPU that torch can use; rehearse with --tiny")
    records = [do(args, experiment) for experiment in args.experiments]
    for record, experiment in zip(records, args.experiments):
        if experiment != 'check': table(record)


if __name__ == '__main__': main()
