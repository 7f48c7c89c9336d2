"""Which of fifteen changes to the laptop recipe pay? Many at once, by a fractional factorial, on training images alone.

usage: python bench/screen.py screen --json FILE [--report]
       python bench/screen.py confirm --json FILE (--choose FACTOR ... | --by FILE) [--budget 1.35] [--seeds 0 1 2 3 4]
       python bench/screen.py score --json FILE (the same)

1,500 training images are held out, of each class its share, and score what is trained on the others. `screen`: in each
of 32 runs about half of the factors are changed, and each effect is a mean over all runs, free of the interactions of
any two others. `confirm`: today's recipe (the first one, `TODAY` of `factors.py`), the chosen one, and today's with as
many epochs as cost the multiply-adds of the chosen one; with `--budget` those two have the epochs that cost so many
times today's. `--by` chooses what paid in that screening: what gave at least a standard error more than epochs of the
same cost. `score` is the end: the same three on all training images, and the only one that opens the validation set.
Runs already in FILE are kept; `--report` only reads it.

`--scale` multiplies the epochs at each size (64 px 9, 96 px 11, 128 px 5), to the nearest whole number, at least one.
For cost alone, on a machine that is to be known: `--batches 20` ends each epoch after 20 batches.
"""
import gc
import json
from argparse import Namespace
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import set_seed
from scipy import stats
from sklearn.model_selection import train_test_split

from factors import FACTORS, TODAY, AlternatingDL, muon_macs, recipe_of, scaled, straight
from gpu import FinishedClock
from runner import Record, epochs_of, options, recorded
from resnet_course.cache import CachedDL
from resnet_course.cost import cost_table
from resnet_course.crops import BatchRandomResizedCrop
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.recipes import OPTIMISERS, fill_recipe, make_net
from resnet_course.resizing import ProgressiveResize
from resnet_course.results import compare
from resnet_course.train import AverageWeights, ValidateLast, pick_device

HELD_OUT, SPLIT_SEED = 1500, 0


def design(n, runs=16):
    "Rows of -1 and 1 in mixed order, `n` columns: products of four, those of one or three first; then the opposites"
    words = sorted((w for k in range(1, 5) for w in combinations(range(4), k)), key=lambda w: (len(w) % 2 == 0, len(w)))
    four = np.array(list(product((-1, 1), repeat=4)))
    half = np.stack([four[:, w].prod(1) for w in words[:n]], 1)
    mixed = [np.random.default_rng(i).permutation(rows) for i, rows in enumerate((half, -half))]  # a machine may drift
    return np.concatenate(mixed[:runs//16])


def screened():
    "`{name: the factors changed in it}`"
    rows = design(len(FACTORS), 32)
    return {f'run {i:02}': [f for f, on in zip(FACTORS, row, strict=True) if on > 0] for i, row in enumerate(rows, 1)}


def tuning_split(source, n=HELD_OUT, seed=SPLIT_SEED):
    "The training images of `source` as images of their own: `n` of them held out, of each class its share"
    images = image_files(source)
    files, labels = images.train, images.labels[:len(images.train)]
    parts = train_test_split(range(len(files)), test_size=n, random_state=seed, stratify=labels)
    order = [i for part in parts for i in part]
    return image_files(source, files=[files[i] for i in order], labels=[labels[i] for i in order],
                       valid=[held for held, part in enumerate(parts) for _ in part])


@cache
def loaded(images, presize, device):
    "The images in memory, once"
    return fast_data(images, presize, bs=64, valid_scale=TODAY.valid_scale, device=device)


def load(args, images, recipe, loader):
    "Batches of the images in memory"
    dls = loaded(images, recipe.presize, args.device)
    train = dls.train.new(cls=loader, bs=recipe.bs)
    if args.batches: train.n = min(train.n, args.batches*recipe.bs)
    crop = next(t for t in train.after_batch.fs if isinstance(t, BatchRandomResizedCrop))
    crop.size, crop.min_scale = (recipe.sizes[-1],)*2, recipe.min_scale
    crop.flip = recipe.mirror and loader is not AlternatingDL
    return DataLoaders(train, dls.valid, device=dls.device)


def macs(net, recipe, steps):
    "Multiply-adds of a training: three times the forward pass, and what Muon adds to a step"
    of = {size: int(cost_table(net, size).iloc[-1]['MACs']) for size in set(recipe.sizes)}
    more = muon_macs(net) if recipe.optimiser == 'Muon' else 0
    return sum(steps*(3*recipe.bs*of[size]+more) for size in recipe.sizes)


def learner(args, images, factors, recipe, seed=0, clock=None):
    "Everything of a run but the fit"
    factors = [FACTORS[f] for f in factors]
    dls = load(args, images, recipe, next((f.loader for f in factors if f.loader is not CachedDL), CachedDL))
    set_seed(seed)  # what was done once in this process has drawn random numbers
    dls.train.rng.seed(seed)
    net = make_net(recipe, len(images.classes))
    for f in factors:
        if f.net: f.net(net, dls)
    cbs = [ProgressiveResize(recipe.sizes), ValidateLast(1), *([clock] if clock else [])]
    if recipe.averaging: cbs.append(AverageWeights(recipe.averaging, recipe.average_from))
    return fast_learner(dls, net, recipe.precision, opt_func=OPTIMISERS[recipe.optimiser],
                        graph=args.device.startswith('cuda'), cbs=cbs,
                        loss_func=CrossEntropyLossFlat(label_smoothing=recipe.smoothing))


def train(args, images, factors, recipe, seed):
    "One run: its epochs, its cost"
    gc.collect()  # the graphs of the run before
    learn = learner(args, images, factors, recipe, seed, clock := FinishedClock(args.device))
    cost = macs(learn.model, recipe, len(learn.dls.train))
    fit = straight if 'straight' in factors else Learner.fit_one_cycle
    with learn.no_bar(), learn.no_logging(): fit(learn, len(recipe.sizes), recipe.lr, wd=recipe.wd)
    return {'MACs': cost, 'history': epochs_of(recipe.sizes, clock.trained, learn.recorder.values)}


def line(run):
    last, seconds = run['history'][-1], sum(h['seconds'] for h in run['history'])
    return (f"{run['variant']}, seed {run['seed']}: accuracy {last['accuracy']:.4f}, "
            f"train loss {last['train_loss']:.3f}, {seconds:.1f} s, {run['MACs']/1e12:.2f}T multiply-adds")


def effects(record):
    "`(factor, effect, standard error, half of the 95% range, MACs, seconds)`, both as ratios; spread, degrees, today's"
    runs = [r for r in record['runs'] if np.isfinite(r['history'][-1]['train_loss'])]
    names = list(record['factors'])
    x = np.array([[1]+[1 if f in record['variants'][r['variant']]['factors'] else -1 for f in names] for r in runs])
    degrees = len(runs)-x.shape[1]
    if degrees < 1 or np.linalg.matrix_rank(x) < x.shape[1]: return None
    accuracy = np.array([100*r['history'][-1]['accuracy'] for r in runs])
    seconds = [sum(h['seconds'] for h in r['history']) for r in runs]
    found, *logs = (np.linalg.lstsq(x, y, rcond=None)[0] for y in (accuracy, np.log([r['MACs'] for r in runs]),
                                                                   np.log(seconds)))
    spread = float(np.sqrt(((accuracy-x@found)**2).sum()/degrees))
    errors = 2*spread*np.sqrt(np.diag(np.linalg.inv(x.T@x)))
    t = stats.t.ppf(0.975, degrees)
    table = [(f, 2*found[i], errors[i], t*errors[i], *(float(np.exp(2*b[i])) for b in logs))
             for i, f in enumerate(names, 1)]
    return sorted(table, key=lambda row: -row[1]), spread, degrees, float(found[0]-found[1:].sum())


def paid(record):
    "The factors of a screening that give at least a standard error more than epochs of the same cost"
    table, *_ = effects(record)
    point = {f: effect for f, effect, *_ in table}
    rate = {f: np.log(cost) for f, _, _, _, cost, _ in table}
    worth = max(0., point['longer'])/rate['longer']  # points for the logarithm of a cost
    return [f for f, effect, error, *_ in table if f != 'longer' and effect-worth*rate[f] > error]


def report(record):
    "What the runs of a file say"
    bad = [r['variant'] for r in record['runs'] if not np.isfinite(r['history'][-1]['train_loss'])]
    if bad: yield f"left out, since the loss was not finite: {', '.join(bad)}"
    if 'factors' not in record:
        last = {}
        for r in record['runs']: last.setdefault(r['variant'], []).append(100*r['history'][-1]['accuracy'])
        today = last.get('today', ())
        for name, a in last.items():
            against = f"; against today {compare(a, today)}" if name != 'today' and min(len(a), len(today)) > 1 else ''
            yield f"{name}: {np.mean(a):.2f} (n = {len(a)}){against}"
    elif (found := effects(record)) is None: yield f"{len(record['runs'])} runs are too few for effects"
    else:
        table, spread, degrees, today = found
        yield f"{'factor':10} {'points':>7} {'error':>6}   {'95% range':15} {'MACs':>7} {'seconds':>7}"
        for f, effect, error, half, *ratios in table:
            cost = ' '.join(f'{100*(r-1):+6.1f}%' for r in ratios)
            yield (f"{f:10} {effect:+7.2f} {error:6.2f}   {effect-half:+5.2f} to {effect+half:+5.2f}  {cost}  "
                   f"{record['factors'][f]}")
        yield f"paid: {' '.join(paid(record)) or 'nothing'}"
        yield f"today by this fit {today:.1f}%; spread of a run {spread:.2f} points, {degrees} degrees of freedom"


def variants_of(args, images):
    "`{name: (factors, recipe)}`, nothing left open"
    today = replace(TODAY, net_options={'width': 8}, presize=48, sizes=(32, 48)) if args.tiny else TODAY
    def one(factors, scale=args.scale):
        recipe = recipe_of(factors, today)
        recipe = replace(recipe, sizes=tuple(min(s, args.largest) for s in scaled(recipe.sizes, scale)))
        return factors, fill_recipe(recipe, images.dataset, len(images.train))
    def cost(factors, recipe):
        learn = learner(args, images, factors, recipe)
        return macs(learn.model, recipe, len(learn.dls.train))
    if args.experiment == 'screen': return {name: one(factors) for name, factors in screened().items()}
    found = {'today': one([]), 'chosen': one(args.choose)}
    costs = cost(*found['today'])
    if args.budget: found['chosen'] = one(args.choose, args.scale*args.budget*costs/cost(*found['chosen']))
    longer = one([], args.scale*cost(*found['chosen'])/costs)
    return found | ({} if longer == found['today'] else {'today, as dear as the chosen': longer})


def do(args):
    "Do the runs that the file lacks"
    whole = args.experiment == 'score'
    images = image_files(args.data) if whole else tuning_split(args.data, 300 if args.tiny else HELD_OUT)
    variants = variants_of(args, images)
    what = {'factors': {name: f.what for name, f in FACTORS.items()}} if args.experiment == 'screen' else {}
    if not whole: what['split'] = {**images.counts, 'seed': SPLIT_SEED}
    scored = "on the validation set, once" if whole else "on images held out from the training set"
    record = Record(args, f"Changes to the laptop recipe, scored {scored}", args.data, args.data, **what,
                    variants={v: {'factors': factors, 'recipe': recorded(r)} for v, (factors, r) in variants.items()})
    if args.experiment == 'screen': wanted = [{'variant': v, 'seed': i} for i, v in enumerate(variants)]
    else: wanted = [{'variant': v, 'seed': seed} for seed in args.seeds for v in variants]
    @cache
    def warm_up(): train(Namespace(**{**vars(args), 'batches': 2}), images, *next(iter(variants.values())), 0)
    def run(variant, seed):
        warm_up()  # no run pays for the start of the device
        return train(args, images, *variants[variant], seed)
    record.fill([key for key in wanted if not args.only or key['variant'] in args.only], run, line)
    return record.all


def main():
    parser = options(__doc__, 'imagenette-320')
    parser.add_argument('experiment', choices=['screen', 'confirm', 'score'])
    parser.add_argument('--scale', type=float, default=1., help="times the epochs at each size")
    parser.add_argument('--choose', nargs='+', choices=FACTORS, help="what is confirmed or scored")
    parser.add_argument('--by', type=Path, help="the file of a screening: what paid in it is chosen")
    parser.add_argument('--budget', type=float, help="cost of what is chosen, in that of today's recipe")
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4], help="but of a screening")
    parser.add_argument('--only', nargs='+', help="the variants of these names, e.g. 'run 01'")
    parser.add_argument('--device', default='auto')
    parser.add_argument('--batches', type=int, help="of an epoch, at most")
    parser.add_argument('--largest', type=int, default=128, help="side of the images, pixels; larger ones become it")
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, a tiny net")
    parser.add_argument('--report', action='store_true', help="read FILE, run nothing")
    args = parser.parse_args()
    if args.report: print(*report(json.loads(args.json.read_text())), sep='\n'); return
    if args.by: args.choose = paid(json.loads(args.by.read_text()))
    if (args.experiment != 'screen') != bool(args.choose): parser.error("confirm and score want --choose FACTOR")
    args.device = pick_device(args.device)
    if args.tiny: args.data = 'digits'
    given = {k: getattr(args, k) for k in ('scale', 'budget', 'largest', 'batches')}
    changed = [f'--{k} {v}' for k, v in given.items() if v != parser.get_default(k)]
    chosen = ['--choose', *args.choose] if args.choose else []
    words = [args.experiment, '--data', Path(args.data).name, *changed, *chosen, *['--tiny']*args.tiny]
    args.command = ' '.join(['python bench/screen.py', *words])
    print(*report(do(args)), sep='\n')


if __name__ == '__main__': main()
