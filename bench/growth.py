"""How cost grows with the images, their pixels and their classes: seconds, memory, and size of the decoded images.

usage: python bench/growth.py [--json FILE] [--rounds 3] [--images 1000 ...] [--sizes 32 ...] [--classes 2 ...]

One of the three grows, the others stay at their first value (of the images the second). The files are JPEGs of noise,
written here, with a folder for each class, a tenth held out. Each measure is taken in fresh processes: `list` them,
`decode` them (no decoded images were there), `open` what was decoded: the loaders, listing included, `epoch`: train
a small ResNet (a block a group, 8 channels at first) on all of them and validate. `MB` is the most memory that was
resident in that last process, the mapped images included, and `cache` the decoded images on disk (1 MB = 10^6 B).
Medians of the rounds; the exponent k of cost ~ n^k is the slope between the smallest and the largest.
"""
import resource
import tempfile
import time
from itertools import count
from math import log
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from fastai.torch_core import set_seed
from PIL import Image

from runner import in_fresh_process, options, peak_mb, Record
from resnet_course.cache import open_cache, remove_cache
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet
from resnet_course.step import keep_memory

COSTS = 'list', 'decode', 'open', 'epoch', 'MB', 'cache MB'


def write(root, images, side, classes):
    "A data set of so many files: links to a few hundred different ones, which is all the same to who reads them"
    rng, seen = np.random.default_rng(0), root/'seen'
    seen.mkdir(parents=True)
    for i in range(n := min(images, 256)):
        noise = Image.fromarray(rng.integers(0, 255, (side//4+1, side//4+1, 3), dtype=np.uint8))
        noise.resize((side, side), Image.Resampling.BICUBIC).save(seen/f'{i}.jpg', quality=90)
    for i in range(images):
        folder = root/('train' if i//classes % 10 < 9 else 'val')/f'{i%classes:04}'
        folder.mkdir(parents=True, exist_ok=True)
        (folder/f'{i:06}.jpg').hardlink_to(seen/f'{i%n}.jpg')


class Clock:
    def __init__(self): self.began = time.perf_counter()
    def __call__(self):
        began, self.began = self.began, time.perf_counter()
        return self.began-began


def decode(root, side):
    remove_cache(root)
    clock = Clock()
    images = image_files(root)
    listed = clock()
    open_cache(images, side)
    return {'list': listed, 'decode': clock()}


def train(root, side):
    keep_memory()
    set_seed(0)
    clock = Clock()
    dls = fast_data(root, side, side, 64, device='cpu')
    opened = clock()
    learn = fast_learner(dls, ResNet(len(dls.vocab), [1, 1, 1, 1], width=8))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    return {'open': opened, 'epoch': clock(), 'MB': peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}


def measure(folder, rounds, images, side, classes):
    write(folder, images, side, classes)
    took = []
    for _ in range(rounds):
        decoded = in_fresh_process(decode, folder, side)
        took.append({**decoded, **in_fresh_process(train, folder, side)})
    return {**{k: [round(t[k], 4) for t in took] for k in took[0]}, 'cache MB': [remove_cache(folder)/1e6]}


def table(runs):
    "The medians, and under each row of cases the exponents"
    frame = pd.DataFrame([{**r, **{k: median(r[k]) for k in COSTS}} for r in runs])
    rows = []
    for case, part in frame.groupby('case', sort=False):
        rows += [dict(r) for _, r in part.iterrows()]
        first, last = part.iloc[0], part.iloc[-1]
        grown = last['n']/first['n']
        if grown > 1: rows.append({'case': case, 'n': 'exponent', **{k: log(last[k]/first[k], grown) for k in COSTS}})
    return pd.DataFrame(rows, columns=['case', 'n', *COSTS]).to_string(index=False, float_format='{:,.2f}'.format)


def points(args):
    "What is measured: `(case, n, images, side, classes)`; n of the pixels is their number"
    side, some = args.sizes[0], args.images[min(1, len(args.images)-1)]
    yield from (('images', n, n, side, 10) for n in args.images)
    yield from (('pixels', n**2, args.images[0], n, 10) for n in args.sizes)
    yield from (('classes', n, some, side, n) for n in args.classes)


def main():
    parser = options(__doc__, None)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--images', type=int, nargs='+', default=[1000, 10_000, 100_000])
    parser.add_argument('--sizes', type=int, nargs='+', default=[32, 64, 128, 224])
    parser.add_argument('--classes', type=int, nargs='+', default=[2, 10, 100, 1000])
    args = parser.parse_args()
    args.command, folders = 'python bench/growth.py', count()
    with tempfile.TemporaryDirectory() as root:
        write(first := Path(root)/'first', args.images[0], args.sizes[0], 10)
        record = Record(args, "How cost grows with images, pixels and classes", first, source="noise, written here")
        for case, n, images, side, classes in points(args):
            def run(case, n, images=images, side=side, classes=classes):
                return measure(Path(root)/str(next(folders)), args.rounds, images, side, classes)
            record.fill([{'case': case, 'n': n}], run)
    print(table(record.runs))


if __name__ == '__main__': main()
