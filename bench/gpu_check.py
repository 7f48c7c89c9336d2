"""What to look at before a GPU trains: crops, input, formats, training steps, waits of the host, CUDA graphs.

usage: python bench/gpu_check.py [--json FILE] [--tiny]

A minute, on the embedded digits. Each check is a run of the record, its findings are the rows of its history. `--tiny`
rehearses on any machine, with a tiny net, what needs no CUDA.
"""
import time
import warnings
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from sklearn.datasets import load_sample_images
from torch import nn

from gpu import OURS18, OURS50, FinishedClock, book, finished, fit, load, ours, pick_device, tiny
from runner import Record, options
from resnet_course.crops import crop_cpu, crop_gpu, random_boxes


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
        dls, seconds = load(args, replace(OURS18, presize=presize, sizes=(size,)), 'digits'), []
        for _ in range(4):
            finished(args.device)
            began = time.perf_counter()
            for _ in dls.train: pass
            finished(args.device)
            seconds.append(time.perf_counter()-began)
        yield {'px': size, 'images/s': len(dls.train)*dls.bs/median(seconds[1:])}


def ready(args, recipe, make=ours, **kwargs):
    "To train on the digits from seed 0: the learner and its clock"
    set_seed(0)
    clock = FinishedClock(args.device)
    return make(load(args, recipe, 'digits'), recipe, clock, **kwargs), clock


def small_runs(args, epochs=4, **changes):
    "The two nets, to be trained for a few steps"
    nets = [tiny(OURS18)] if args.tiny else [OURS18, OURS50]
    return [replace(recipe, sizes=recipe.sizes[:1]*epochs, **changes) for recipe in nets]


def check_formats(args):
    "Number format and layout of what the convolutions give"
    recipe, seen = small_runs(args, epochs=1, bs=64)[0], Counter()
    learn, _ = ready(args, recipe)
    def note(m, _, out): seen[str(out.dtype), out.is_contiguous(memory_format=torch.channels_last)] += 1
    for m in learn.model.modules():
        if isinstance(m, nn.Conv2d): m.register_forward_hook(note)
    fit(learn, recipe)
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
    waits, recipe = Waits(), small_runs(args, epochs=2, bs=64)[0]
    fit(ready(args, recipe, cbs=[waits], graph=graph)[0], recipe)
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


def check_steps(args, ways=WAYS, **kwargs):
    "Images/s of training through the learner, first epoch left out; the loader is ours throughout"
    for bs in (64,) if args.tiny else (32, 128):
        for recipe in small_runs(args, epochs=2 if args.tiny else 4, bs=bs):
            for way, make in ways.items():
                learn, clock = ready(args, recipe, make, **kwargs)
                with deterministic() if 'deterministic' in way else nullcontext(): fit(learn, recipe)
                yield {'net': recipe.net, 'px': recipe.sizes[0], 'bs': bs, 'way': way,
                       'images/s': len(learn.dls.train)*bs/median(clock.trained[1:])}


class Losses(Callback):
    "The loss of each training batch"
    def __init__(self): self.of = []
    def after_loss(self):
        if self.training: self.of.append(self.learn.loss.detach())


def check_graph(args):
    "Losses of the first steps: two runs alike, and one as a CUDA graph"
    runs, recipe = [], small_runs(args, epochs=1, bs=64)[0]
    for graph in False, False, True:
        losses = Losses()
        fit(ready(args, recipe, cbs=[losses], graph=graph)[0], recipe)
        runs.append(torch.stack(losses.of).float().tolist())
    for i, row in enumerate(zip(*runs, strict=True), 1):
        yield {'step': i, **dict(zip(('loss', 'again', 'graph'), row, strict=True))}


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


def main():
    parser = options(__doc__, 'digits')
    parser.add_argument('--tiny', action='store_true', help="rehearse, with a tiny net")
    args = parser.parse_args()
    pick_device(parser, args)
    args.command = 'python bench/gpu_check.py' + ' --tiny'*args.tiny
    what = "What the fast path does on this device, on the embedded digits"
    on_gpu = args.device.startswith('cuda')
    for name in () if on_gpu else NEED_CUDA: print(f'check {name}: skipped, it needs CUDA', flush=True)
    names = [name for name in CHECKS if on_gpu or name not in NEED_CUDA]
    record = Record(args, what, args.data, variants={name: {} for name in CHECKS})
    record.fill(({'variant': name, 'seed': 0} for name in names), lambda variant, seed: check(args, variant))


if __name__ == '__main__': main()
