"""Which of the named nets wins, and at what cost? Equal epochs, equal time, each family at a rate of its own.

usage: python bench/compare.py cost --json results/bench/compare-cost.json
       python bench/compare.py rates --json results/bench/compare-rates.json
       python bench/compare.py train --json results/bench/compare.json --seeds 0 1 2

`cost`: of every named net at 64 px, in turns, what a training costs (loader, crops, forward, loss, backward, optimiser;
batches of 64) and what one image costs; and the peak of memory of a training, in a fresh process.

`rates`: for the first net of each family, the rate of one cycle: 1e-3, 3e-3, 1e-2, and on while the best stands at the
edge, from 1e-4 to 1e-1 at most. What counts is the mean over two seeds of the accuracy on 1,500 training images, held
out as in `screen.py`, after three passes through the others. The best rate is the family's.

`train`: nets of up to 360 million multiply-adds, at these rates, on all training images: five passes each, and as many
as fit into the seconds that five passes take a ResNet-18, by what `cost` has measured. The accuracy is that at the end,
on the whole validation set. Everything else is the same for all: 64 px, cropped and mirrored, batches of 64, Adam, one
cycle. Runs already in FILE are kept.
"""
import gc
import json
import resource
from functools import cache, partial
from math import ceil
from pathlib import Path
from statistics import mean, median

import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed

from gpu import FinishedClock
from measure import measure, table
from runner import Record, cost, epochs_of, in_fresh_process, line, options, peak_mb
from screen import HELD_OUT, SPLIT_SEED, tuning_split
from resnet_course import step
from resnet_course.cache import CachedDL
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.models import create_model, list_models
from resnet_course.train import ValidateLast, pick_device

SIZE, PRESIZE, BATCH, PASSES, BASE = 64, 160, 64, 5, 'resnet18'
FAMILIES = {  # the named nets of up to 360 million multiply-adds at 64 px; the first of each family is tuned
    'basic blocks': ('resnet18', 'resnet34'),
    'bottlenecks': ('resnet50', 'resnetv2_50', 'resnext50_32x4d', 'seresnet50'),
    'network in network': ('nin',), 'inception': ('googlenet',), 'dense': ('densenet121',), 'fire': ('squeezenet1_0',),
    'inverted residuals': ('mobilenet_v2', 'efficientnet_lite0')}
RATES = 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1
FIRST, TUNING_PASSES, TUNING_SEEDS = RATES[2:5], 3, (0, 1)
HERE = Path(__file__).parent.parent/'results/bench'


class Passes(CachedDL):
    "An epoch of `n` images: all in mixed order, again and again, and the last time as many as are left"
    def get_idxs(self):
        every = range(len(self.dataset))
        return [i for _ in range(ceil(self.n/len(every))) for i in self.rng.sample(every, len(every))][:self.n]


@cache
def loaded(source, held_out, device):
    "All images with the validation set, or the training images alone, some of them held out"
    images = tuning_split(source, held_out) if held_out else image_files(source)
    return fast_data(images, PRESIZE, SIZE, BATCH, valid_scale=7/8, device=device)


def learner(dls, name, n, device, validate=True):
    "What trains a net on `n` images"
    train = dls.train.new(cls=Passes, bs=BATCH)
    train.n = n
    return fast_learner(DataLoaders(train, dls.valid, device=dls.device), create_model(name, len(dls.vocab)),
                        graph=device.startswith('cuda'), cbs=[FinishedClock(device), ValidateLast(int(validate))])


def trained(args, name, rate, n, seed, held_out=0):
    "One training on `n` images: what the recorder noted at its end"
    gc.collect()
    dls = loaded(args.data, held_out, args.device)
    set_seed(seed)
    learn = learner(dls, name, n, args.device)
    learn.dls.train.rng.seed(seed)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, rate)
    return {'images': n, 'history': epochs_of([SIZE], learn.finished_clock.trained, learn.recorder.values)}


def training(args, name):
    "A turn of the benchmark: trains a net on some images, without validation"
    learn = learner(loaded(args.data, 0, args.device), name, args.images, args.device, validate=False)
    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return {**cost(learn.model, SIZE), 'images': args.images, 'run': run}


@torch.inference_mode()
def ask(model, x, times):
    for _ in range(times): model(x)


def answer(args, name):
    "One image at a time, in float32 and channels last"
    layout = {'memory_format': torch.channels_last}
    model = create_model(name, 10).eval().to(args.device, **layout)
    x, times = torch.randn(1, 3, SIZE, SIZE, device=args.device).contiguous(**layout), max(1, args.images//16)
    return {'images': times, 'run': partial(ask, model, x, times)}


def peak(args, name=None):
    "The peak of memory, in megabytes, of a process that trains this net on some images, or only reads a batch"
    torch.set_num_threads(args.threads)
    if name: training(args, name)['run']()
    else: loaded(args.data, 0, args.device).one_batch()
    return peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure_cost(args, nets):
    "Seconds in turns; the peak of memory of each net above that of a batch alone"
    torch.set_num_threads(args.threads)
    record = Record(args, f"What the named nets cost to train and to ask, at {SIZE} px", args.data,
                    Path(args.data).name)
    cases = {'training': training, 'one image': answer}

    def run(case):
        if case in cases:
            return measure({n: partial(cases[case], args, n) for n in nets}, args.rounds, BASE, builds=2)
        alone = in_fresh_process(peak, args)
        return [{'variant': n, 'MB': round(in_fresh_process(peak, args, n)-alone)} for n in nets]
    record.fill(({'case': case} for case in (*cases, 'memory')), run)
    print(table([r for r in record.runs if 'seconds' in r], BASE))


def told(run):
    "A line about a training, with its rate where that is what differs"
    return f"{run.get('rate', '')} {line(run)}".lstrip()


def best(runs):
    "The rate with the best mean, and the rates that were tried"
    tried = {rate: mean(r['history'][-1]['accuracy'] for r in runs if r['rate'] == rate)
             for rate in sorted({r['rate'] for r in runs})}
    return max(tried, key=tried.get), [*tried]


def find_rates(args, nets):
    "Two seeds of each rate, and of the next one while the best of a family stands at the edge"
    held_out = 300 if args.tiny else HELD_OUT
    images = tuning_split(args.data, held_out)
    record = Record(args, f"The rate of one cycle for each family, {SIZE} px, scored on images held out", args.data,
                    Path(args.data).name, split={**images.counts, 'seed': SPLIT_SEED},
                    variants={names[0]: {'family': family} for family, names in FAMILIES.items()})
    n = 2*BATCH if args.tiny else TUNING_PASSES*images.counts['train']

    def run(variant, rate, seed): return trained(args, variant, rate, n, seed, held_out)
    for name in (names[0] for names in FAMILIES.values() if names[0] in nets):
        rates = FIRST
        while rates:
            record.fill([{'variant': name, 'rate': rate, 'seed': s} for rate in rates for s in TUNING_SEEDS], run, told)
            rate, tried = best([r for r in record.runs if r['variant'] == name])
            beyond = {tried[0]: -1, tried[-1]: 1}.get(rate, 0)
            at = RATES.index(rate)+beyond
            rates = [RATES[at]] if beyond and 0 <= at < len(RATES) else []


def variants_of(rates, costs, n):
    "`{name: what is trained}`: all on `n` images, and on as many as take the time of that, by what the records say"
    speed = {r['variant']: r['images']/median(r['seconds']) for r in costs['runs'] if r['case'] == 'training'}
    counted = {r['variant']: {k: r[k] for k in ('params', 'MACs')} for r in costs['runs'] if 'MACs' in r}
    found = {}
    for family, names in FAMILIES.items():
        rate, _ = best([r for r in rates['runs'] if r['variant'] == names[0]])
        for name in names:
            limits = {'epochs': n, 'time': round(n*speed[name]/speed[BASE])}
            if name == BASE: del limits['time']  # the same
            for limit, images in limits.items():
                found[f'{name}, equal {limit}'] = {'net': name, 'family': family, 'rate': rate, 'images': images,
                                                   **counted[name]}
    return found


def compare(args, nets):
    "Train all of them, each by several seeds"
    n = 2*BATCH if args.tiny else PASSES*image_files(args.data).counts['train']
    variants = variants_of(*(json.loads(f.read_text()) for f in (args.rates, args.cost)), n)
    record = Record(args, f"The named nets at equal epochs and at equal time, {SIZE} px", args.data,
                    Path(args.data).name, variants=variants)
    def run(variant, seed): return trained(args, *(variants[variant][k] for k in ('net', 'rate', 'images')), seed)
    record.fill([{'variant': v, 'seed': seed} for seed in args.seeds for v in variants if variants[v]['net'] in nets],
                run, told)


def main():
    parser = options(__doc__, 'imagenette-320')
    parser.add_argument('experiment', choices=['cost', 'rates', 'train'])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help="of `train`")
    parser.add_argument('--nets', nargs='+', choices=list_models(), default=list_models(), help="these alone")
    parser.add_argument('--rates', type=Path, default=HERE/'compare-rates.json', help="what `rates` has found")
    parser.add_argument('--cost', type=Path, default=HERE/'compare-cost.json', help="what `cost` has measured")
    parser.add_argument('--images', type=int, default=512, help="in a turn of `cost`")
    parser.add_argument('--rounds', type=int, default=4)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="of `cost`")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, two batches")
    args = parser.parse_args()
    args.device = pick_device(args.device)
    step.keep_memory()
    if args.tiny: args.data = 'digits'
    words = [args.experiment, '--data', Path(args.data).name, *['--tiny']*args.tiny]
    args.command = ' '.join(['python bench/compare.py', *words])
    {'cost': measure_cost, 'rates': find_rates, 'train': compare}[args.experiment](args, args.nets)


if __name__ == '__main__': main()
