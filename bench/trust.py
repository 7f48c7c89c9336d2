"""How far to trust the weights that the package brings: calibration, corruptions, saliency maps, images of no class.

usage: python bench/trust.py --json FILE [--parts calibration corruption ...]

All but `outside` ask `create_model('resnet18', weights='imagenette')` about Imagenette's validation images, prepared as
their record says. There is one seed of these weights, so every spread is over images: `low` and `high` are the ends of
a 95% range by bootstrap. A temperature is fitted on one half of the images, each class divided equally, and scores on
the other. The seed of `shuffling` is the order of the weights. `outside` trains small nets on five classes drawn by the
seed, with and without label smoothing, and asks them about the five others. Runs already in FILE are kept.
"""
import gc
import time
from functools import cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
from fastai.torch_core import TensorImage, set_seed
from fastai.vision.augment import Resize
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from runner import Record, options
from resnet_course.cache import remove_cache
from resnet_course.crops import NormalizeBytes, fast_tfms
from resnet_course.data import RGBImage, image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.inside import (
    CORRUPTIONS, calibration_error, corrupt, delete, grad_cam, input_gradient, reliability, shuffled, temperature)
from resnet_course.models import create_model
from resnet_course.train import ValidateLast

PARTS = 'calibration', 'corruption', 'deletion', 'shuffling', 'outside', 'labels'
SHARES = 0, .05, .1, .2, .3, .5, .7, .9  # of the pixels, deleted
FROM_HEAD = 'head', 'group4', 'group3', 'group2', 'group1', 'stem'
WAYS = {'Grad-CAM': partial(grad_cam, signed=True), 'gradient': partial(input_gradient, signed=True),
        'guided': partial(input_gradient, guided=True, signed=True), 'gradient, absolute': input_gradient,
        'guided, absolute': partial(input_gradient, guided=True)}  # to make a map on trial by shuffled weights
ORDERS = 0, 1, 2  # of shuffled weights
SMOOTHINGS = 0., .1


def classes_of(source, names):
    "The images of these classes of `source`"
    images = image_files(source)
    n = len(images.train)
    rows = [i for i, label in enumerate(images.labels) if label in names]
    return image_files(source, files=[images.items[i] for i in rows], labels=[images.labels[i] for i in rows],
                       valid=[i >= n for i in rows])


def seen(files, presize=160, size=128, scale=.875):
    "Images as bytes, as validation shows them to the net: the middle of each"
    resize, crop = Resize(presize), fast_tfms(presize, size, valid_scale=scale)[1][0]
    def some(fs): return torch.stack([torch.from_numpy(np.array(resize(RGBImage.create(f)))) for f in fs])
    parts = [crop(TensorImage(some(files[i:i+256]).permute(0, 3, 1, 2)), split_idx=1)
             for i in range(0, len(files), 256)]
    return torch.cat([p.as_subclass(torch.Tensor) for p in parts]).contiguous()


def prepared(images): return NormalizeBytes().encodes(TensorImage(images)).as_subclass(torch.Tensor).contiguous()


@torch.no_grad()
def logits_of(net, x): return torch.cat([net(part if part.is_floating_point() else prepared(part))
                                         for part in x.split(64)])


def half(y, seed):
    "True for half of the images of each class, drawn by the seed"
    rng, mask = np.random.default_rng(seed), torch.zeros(len(y), dtype=torch.bool)
    for c in y.unique():
        rows = rng.permutation(torch.where(y == c)[0].numpy())
        mask[torch.from_numpy(rows[:len(rows)//2])] = True
    return mask


def spread(values, of=np.mean, seed=0, n=1000):
    "95% range of a statistic of rows, by bootstrap over the rows"
    values, rng = np.asarray(values), np.random.default_rng(seed)
    found = [of(values[rng.integers(0, len(values), len(values))]) for _ in range(n)]
    low, high = np.quantile(found, (.025, .975))
    return {'low': round(float(low), 5), 'high': round(float(high), 5)}


def judged(logits, y):
    "What is right, how sure, and how well these go together"
    p = logits.softmax(1)
    found = {'accuracy': (p.argmax(1) == y).float().mean(), 'confidence': p.amax(1).mean(),
             'nll': F.cross_entropy(logits, y), 'ece': calibration_error(p, y)}
    return {k: round(float(v), 5) for k, v in found.items()}


class Known:
    "The net, the validation images as it sees them, and what it says of them"
    def __init__(self, args):
        self.images = image_files(args.data)
        n = len(self.images.train)
        if args.tiny: torch.manual_seed(0)
        self.net = create_model('resnet18', 10, width=4) if args.tiny else \
            create_model('resnet18', weights='imagenette')
        self.net.eval()
        rows = range(0, len(self.images.val), 8 if args.tiny else 1)
        self.files = [self.images.val[i] for i in rows]
        self.y = torch.tensor([self.images.classes.index(self.images.labels[n+i]) for i in rows])
        self.x = seen(self.files, size=32) if args.tiny else seen(self.files)
        self.logits = logits_of(self.net, self.x)
        self.few = torch.from_numpy(np.random.default_rng(0).permutation(len(rows))[:args.few])
    @property
    def first(self): return half(self.y, 0)


def calibration(known, variant, seed):
    if variant == 'halves':
        fitted = half(known.y, seed)
        t, logits, y = temperature(known.logits[fitted], known.y[fitted]), known.logits[~fitted], known.y[~fitted]
        return {'temperature': round(t, 4), 'before': judged(logits, y), 'after': judged(logits/t, y)}
    logits = known.logits.clone()
    if variant == 'scaled':  # by the temperature of the other half
        for part in (known.first, ~known.first): logits[part] /= temperature(known.logits[~part], known.y[~part])
    p = logits.softmax(1)
    def ece(rows): return calibration_error(p[rows], known.y[rows])
    return {**judged(logits, known.y), **spread(np.arange(len(p)), ece, n=200),
            'reliability': reliability(p, known.y, 10).round(5).reset_index().to_dict('records')}


def corruption(known, variant, seed):
    part = ~known.first  # the temperature is that of the other half
    kind, _, strength = variant.partition(' ')
    x, y = known.x[part], known.y[part]
    if strength: x = torch.cat([corrupt(some, kind, int(strength), seed+i) for i, some in enumerate(x.split(256))])
    logits = logits_of(known.net, x)
    t = temperature(known.logits[known.first], known.y[known.first])
    return {'images': len(y), **judged(logits, y), 'scaled': judged(logits/t, y),
            **spread((logits.argmax(1) == y).float().numpy())}


def maps(known, x, targets, which, seed=0):
    "One map for each image"
    n, rng, side = len(x), torch.Generator().manual_seed(seed), x.shape[-1]
    if which == 'Grad-CAM': return grad_cam(known.net, x, targets)
    if which == "another photograph's": return grad_cam(known.net, x, targets).roll(1, 0)
    if which == 'gradient': return F.avg_pool2d(input_gradient(known.net, x, targets)[:, None], 9, 1, 4)[:, 0]
    if which == 'random patches': return torch.rand(n, 4, 4, generator=rng)
    if which == 'random pixels': return torch.rand(n, side, side, generator=rng)
    if which == 'edges':
        grey = x.mean(1, keepdim=True)
        down, right = grey.diff(dim=2, append=grey[:, :, -1:]), grey.diff(dim=3, append=grey[..., -1:])
        return F.avg_pool2d((down**2+right**2).sqrt(), 9, 1, 4)[:, 0]
    line = torch.linspace(-1, 1, side)
    return -(line[:, None]**2+line**2).expand(n, -1, -1)  # the centre first


MAPS = 'Grad-CAM', "another photograph's", 'gradient', 'edges', 'centre', 'random patches', 'random pixels'


@cache
def curves_of(known, variant, seed):
    "How sure of its answer the net still is, when the pixels go that the map calls most important: images x shares"
    x = prepared(known.x[known.few])
    said, curves = known.logits[known.few].argmax(1), []
    heat = torch.cat([maps(known, part, t, variant, seed) for part, t in zip(x.split(50), said.split(50), strict=True)])
    for share in SHARES:
        curves.append(logits_of(known.net, delete(x, heat, share)).softmax(1).gather(1, said[:, None])[:, 0])
    return torch.stack(curves, 1).numpy()


def deletion(known, variant, seed):
    "Mean curve and area below it; how much more area than by Grad-CAM's map, image by image"
    def area(curves): return np.trapezoid(curves, SHARES, axis=1)/SHARES[-1]
    curves = curves_of(known, variant, seed)
    mine, more = area(curves), area(curves)-area(curves_of(known, 'Grad-CAM', seed))
    return {'images': len(curves), 'shares': list(SHARES), 'curve': curves.mean(0).round(5).tolist(),
            'area': round(float(mine.mean()), 5), **spread(mine),
            'more than Grad-CAM': {'area': round(float(more.mean()), 5), **spread(more)}}


def shuffling(known, variant, seed):
    "Rank correlation of a map with that of the net whose weights, from the head down to a part, are shuffled"
    x = prepared(known.x[known.few[:len(known.few)//2]])
    said = known.logits[known.few][:len(x)].argmax(1)
    def all_maps(net): return torch.cat([WAYS[variant](net, a, b) for a, b in
                                         zip(x.split(50), said.split(50), strict=True)]).flatten(1)
    def ranks(m): return rankdata(m.numpy(), axis=1)
    whole, rows = ranks(all_maps(known.net)), []
    for i in range(1, len(FROM_HEAD)+1):
        other = ranks(all_maps(shuffled(known.net, FROM_HEAD[:i], seed)))
        a, b = (v-v.mean(1, keepdims=True) for v in (whole, other))
        alike = (a*b).sum(1)/np.sqrt((a**2).sum(1)*(b**2).sum(1)).clip(1e-9)
        rows.append({'down to': FROM_HEAD[i-1], 'alike': round(float(alike.mean()), 5), **spread(alike),
                     'without sign': round(float(np.abs(alike).mean()), 5)})
    return {'images': len(x), 'rows': rows}


def scores(logits): return {'softmax': logits.softmax(1).amax(1), 'logit': logits.amax(1),
                            'energy': logits.logsumexp(1)}


def told_apart(inside, outside):
    "AUROC of each score: how often an image of a known class has the larger one"
    which = [1]*len(inside)+[0]*len(outside)
    return {k: round(float(roc_auc_score(which, torch.cat([v, scores(outside)[k]]))), 5)
            for k, v in scores(inside).items()}


def strangers(size, n=500):
    "Images of no class: digits, and noise"
    rng = np.random.default_rng(0)
    digits = image_files('digits').val
    picked = [digits[i] for i in rng.permutation(len(digits))[:n]]
    return {'digits': seen(picked, size, size, 1.),
            'noise': torch.from_numpy(rng.integers(0, 256, (n, 3, size, size), dtype=np.uint8))}


def outside(args, known, variant, seed):
    if variant == 'ours':
        found = {}
        for name, x in strangers(known().x.shape[-1]).items():
            said = logits_of(known().net, x)
            p = said.softmax(1).amax(1)
            found[name] = {'auroc': told_apart(known().logits, said), 'confidence': round(float(p.mean()), 5),
                           'over 90%': round(float((p > .9).float().mean()), 5), 'images': len(x)}
        return {'accuracy': judged(known().logits, known().y)['accuracy'], 'strangers': found}
    smoothing, names = float(variant.split()[-1]), image_files(args.data).classes
    drawn = np.random.default_rng(seed).permutation(names).tolist()
    ours, theirs = (classes_of(args.data, part) for part in (drawn[:len(names)//2], drawn[len(names)//2:]))
    gc.collect()
    began, size = time.perf_counter(), args.size
    dls = fast_data(ours, size*5//4, size, 64, device='cpu')
    set_seed(seed)
    dls.train.rng.seed(seed)
    loss = LabelSmoothingCrossEntropyFlat(eps=smoothing) if smoothing else CrossEntropyLossFlat()
    net = create_model('resnet18', len(ours.classes), width=args.width)
    learn = fast_learner(dls, net, 'fp32', loss_func=loss, cbs=ValidateLast(1))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(args.epochs, 1e-2)
    remove_cache(ours)
    seconds = time.perf_counter()-began
    net.eval()
    inside, others = (logits_of(net, seen(im.val, size*5//4, size)) for im in (ours, theirs))
    y = torch.tensor([ours.classes.index(label) for label in ours.labels[len(ours.train):]])
    return {'classes': ours.classes, **judged(inside, y), 'seconds': round(seconds, 1),
            'unknown': {'auroc': told_apart(inside, others), 'images': len(others),
                        'confidence': round(float(others.softmax(1).amax(1).mean()), 5)}}


def labels(known, variant, seed):
    "The images with the largest loss"
    p = known.logits.softmax(1)
    mine = p.gather(1, known.y[:, None])[:, 0]
    names = known.images.classes
    return {'images': [{'file': f'{known.files[i].parent.name}/{known.files[i].name}', 'label': names[known.y[i]],
                        'said': names[p[i].argmax()], 'probability': round(float(p[i].max()), 4),
                        'label gets': round(float(mine[i]), 5)} for i in mine.argsort()[:48].tolist()]}


OF_OURS = {f.__name__: f for f in (calibration, corruption, deletion, shuffling, labels)}  # of our weights


def keys(args):
    "What there is to measure"
    kinds = [f'{kind} {strength}' for kind in CORRUPTIONS for strength in range(1, 6)]
    variants = {'calibration': ['as it is', 'scaled'], 'corruption': ['clean', *kinds], 'deletion': MAPS,
                'shuffling': WAYS, 'outside': ['ours'], 'labels': ['largest loss']}
    for part in args.parts:
        yield from ({'part': part, 'variant': v, 'seed': s} for v in variants[part]
                    for s in (ORDERS if part == 'shuffling' else [0]))
        if part == 'calibration': yield from ({'part': part, 'variant': 'halves', 'seed': s} for s in range(20))
        if part == 'outside':
            yield from ({'part': part, 'variant': f'smoothing {s}', 'seed': seed} for seed in args.seeds
                        for s in SMOOTHINGS)


def main():
    parser = options(__doc__, 'imagenette-160')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help="of `outside`")
    parser.add_argument('--tiny', action='store_true', help="rehearse: the digits, tiny random nets")
    args = parser.parse_args()
    args.few, args.width, args.epochs, args.size = 600, 32, 5, 64
    if args.tiny: args.data, args.few, args.width, args.epochs, args.size = 'digits', 20, 8, 1, 32
    args.command = f"python bench/trust.py --data {args.data}{' --tiny'*args.tiny}"
    record = Record(args, "How far the weights that the package brings can be trusted", args.data)
    known = cache(partial(Known, args))

    def run(part, variant, seed):
        if part == 'outside': return outside(args, known, variant, seed)
        return OF_OURS[part](known(), variant, seed)

    def tell(r): return f"{r['part']}, {r['variant']}, seed {r['seed']}: " + str({k: v for k, v in r.items() if k in (
        'accuracy', 'confidence', 'ece', 'area', 'temperature', 'unknown', 'seconds')})
    record.fill(keys(args), run, tell)


if __name__ == '__main__': main()
