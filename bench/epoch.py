"""Seconds of a whole epoch, training and validation, of ResNet-18: the book's recipe as written, and ours.

usage: python bench/epoch.py [--json FILE] [--sizes 64 128] [--rounds 3]

The book's: `get_data` with as many workers as fastai thinks fit, a plain `Learner` with fastai's Adam in float32.
Ours: `fast_data`, `fast_learner` and `keep_memory`, a setting of the whole process: each has one of its own. Batches of
128, `fit_one_cycle`.
"""
from functools import partial

from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed

from measure import benchmark, options, source
from resnet_course.data import get_data
from resnet_course import step
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import resnet18


def book(dls, net): return Learner(dls, net, loss_func=CrossEntropyLossFlat(), metrics=accuracy)


def ours(dls, net):
    step.keep_memory()
    return fast_learner(dls, net)


RECIPES = {'book': (get_data, book), 'ours': (fast_data, ours)}


def build(args, size, make_data, make_learner):
    set_seed(0)
    dls = make_data(*source(args, size), size, args.bs, device='cpu')
    learn = make_learner(dls, resnet18(len(dls.vocab)))

    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    return {'images': len(dls.train_ds)+len(dls.valid_ds), 'run': run}


def cases(args):
    return {f'{size} px': {name: partial(build, args, size, *how) for name, how in RECIPES.items()}
            for size in args.sizes}


def parser():
    parser = options(__doc__, 3, [64, 128])
    parser.add_argument('--bs', type=int, default=128)
    return parser


def main():
    args = parser().parse_args()
    benchmark(args, "Images/s of a whole epoch, training and validation, ResNet-18", cases(args), 'ours', process=str)


if __name__ == '__main__': main()
