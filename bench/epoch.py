"""Seconds of a whole epoch, training and validation, of ResNet-18: from the book's recipe as written to ours.

usage: python bench/epoch.py [--json FILE] [--sizes 64 128] [--ways book ours]  whole epochs
       python bench/epoch.py [--json FILE] --batches 40 --bs 64 --sizes 64 128 224    so much of the training alone

Each way is the one before with one change more. The book's: `get_data` with as many workers as fastai thinks fit, a
plain `Learner` with fastai's Adam in float32. Then memory is kept (`keep_memory`, a setting of the whole process: each
way has a process of its own); then the format of `best_precision`, channels last (`get_learner`): what a reader gets
who changes two lines; then images decoded before, cropped and flipped, but no longer turned, warped and lit
(`fast_data`); last `fast_learner`. `fit_one_cycle`.
"""
from functools import partial

from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed

from measure import benchmark, options, source
from resnet_course.data import get_data
from resnet_course import step
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import resnet18
from resnet_course.train import get_learner


def book(dls, net): return Learner(dls, net, loss_func=CrossEntropyLossFlat(), metrics=accuracy)


# name: (makes the loaders, makes the learner, whether memory is kept)
WAYS = {
    'book': (get_data, book, False),
    'memory kept': (get_data, book, True),
    'half the bits': (get_data, get_learner, True),
    'decoded before': (fast_data, get_learner, True),
    'ours': (fast_data, fast_learner, True),
}


class StopAfter(Callback):
    "The first so many batches of a training"
    def __init__(self, n): self.n = n
    def after_batch(self):
        if self.training and self.iter+1 == self.n: raise CancelFitException


def build(args, size, make_data, make_learner, keep):
    if keep: step.keep_memory()
    set_seed(0)
    dls = make_data(*source(args, size), size, args.bs, device='cpu')
    learn, n = make_learner(dls, resnet18(len(dls.vocab))), args.batches
    if n: learn.add_cb(StopAfter(n))

    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    return {'images': args.bs*min(n, len(dls.train)) if n else len(dls.train_ds)+len(dls.valid_ds), 'run': run}


def cases(args):
    return {f'{size} px': {name: partial(build, args, size, *WAYS[name]) for name in args.ways} for size in args.sizes}


def parser():
    parser = options(__doc__, 3, [64, 128])
    parser.add_argument('--bs', type=int, default=128)
    parser.add_argument('--batches', type=int, help="of the training, no validation; default: a whole epoch of both")
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    return parser


def main():
    args = parser().parse_args()
    what = f"{args.batches} batches of training" if args.batches else "a whole epoch, training and validation"
    benchmark(args, f"Images/s of {what}, ResNet-18", cases(args), 'ours', process=str)


if __name__ == '__main__': main()
