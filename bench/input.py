"""Images/s that a training loader gives, on one core: ours, the book's, torchvision's.

usage: python bench/input.py [--json FILE] [--sizes 64 128 224]

Every loader reads in its own process (no workers), shuffled, and gives float32 batches. 64 and 128 px are cut from the
160 px set, 224 px from the 320 px set, which the book's and ours resize to 224 px first.
"""
from functools import partial
from itertools import islice

from fastai.data.transforms import IntToFloatTensor, Normalize
from fastai.vision.augment import aug_transforms
from fastai.vision.core import imagenet_stats
from torch import float32
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from measure import benchmark, options, source
from resnet_course.data import find_data, get_data
from resnet_course.fast import fast_data


def ours(source, presize, size, bs, **kwargs): return fast_data(source, presize, size, bs, device='cpu', **kwargs).train


def book(source, presize, size, bs): return get_data(source, presize, size, bs, workers=0, device='cpu').train


def book_crop(source, presize, size, bs):
    tfms = aug_transforms(size=size, min_scale=0.35, max_rotate=0, max_warp=0, max_zoom=1, max_lighting=0)
    tfms = [IntToFloatTensor(), *tfms, Normalize.from_stats(*imagenet_stats)]
    return book(source, presize, size, bs).new(after_batch=tfms)


def vision(source, presize, size, bs):
    tfms = v2.Compose([v2.RandomResizedCrop(size, (0.35, 1), antialias=True), v2.RandomHorizontalFlip(), v2.ToImage(),
                       v2.ToDtype(float32, scale=True), v2.Normalize(*imagenet_stats)])
    return DataLoader(ImageFolder(find_data(source)/'train', tfms), bs, shuffle=True, drop_last=True)


# name: (makes the loader, how many times more batches than the slow ones, what it does)
LOADERS = {
    'ours': (ours, 8, "decoded before; crop and flip an image"),
    'ours, lighting': (partial(ours, lighting=True), 4, "decoded before; crop, flip, light an image"),
    "book's": (book, 1, "decode; crop a batch; flip, rotate, zoom, warp, light an image"),
    "book's, crop and flip": (book_crop, 1, "decode; crop a batch; flip an image"),
    'torchvision': (vision, 1, "decode; crop and flip an image"),
}


def take(loader, n):
    for _ in islice(loader, n): pass


def build(args, size, make, times, does):
    loader = make(*source(args, size), size, args.bs)
    n = min(args.batches*times, len(loader))
    take(loader, 1)
    return {'does': does, 'images': n*args.bs, 'run': partial(take, loader, n)}


def cases(args):
    return {f'{size} px': {name: partial(build, args, size, *how) for name, how in LOADERS.items()}
            for size in args.sizes}


def parser():
    parser = options(__doc__, 7, [64, 128, 224], threads=1)
    parser.add_argument('--bs', type=int, default=128)
    parser.add_argument('--batches', type=int, default=3, help="of a slow loader in a turn; fast ones give more")
    return parser


def main():
    args = parser().parse_args()
    benchmark(args, "Images/s of training loaders on one core", cases(args), 'ours')


if __name__ == '__main__': main()
