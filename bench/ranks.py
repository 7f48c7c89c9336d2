"""Images/s of a training in two processes with half of the threads each, beside one process with all, and with half.

usage: python bench/ranks.py [--json FILE] [--nets resnet18] [--sizes 64 128] [--numbers 1 1000 100000 11700000]

Each variant is a `fast_learner` on random images, in processes of its own that wait between their turns; a turn is an
epoch of `--steps` batches of `--bs` images, of all processes together. What the two of them say to each other in a step
is timed alone, as cases of their own: `dist.all_reduce` (gloo, on this machine) of so many float32 numbers; `images` of
a run are calls there. The cost of a message and that of a byte follow from a line through them.
"""
import os
import socket
from functools import partial
from multiprocessing import get_context

import torch
import torch.distributed as dist
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from torch.utils.data import TensorDataset

from measure import benchmark, options
from resnet_course import step
from resnet_course.distributed import in_all_processes, join
from resnet_course.fast import fast_learner
from resnet_course.models import create_model
from resnet_course.train import ValidateLast, best_precision


def trainer(name, size, bs, steps):
    "An epoch in this process and those beside it"
    step.keep_memory()
    set_seed(0)
    sets = TensorDataset(torch.randn(bs*steps, 3, size, size), torch.randint(10, (bs*steps,)))
    dls = DataLoaders.from_dsets(sets, sets, bs=bs, num_workers=0, device='cpu')
    learn = in_all_processes(fast_learner(dls, create_model(name, 10), best_precision('cpu'),
                                          cbs=ValidateLast(0)))

    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return run


def talker(numbers, calls):
    "So many sums over all processes"
    x = torch.ones(numbers)

    def run():
        for _ in range(calls): dist.all_reduce(x)
        x.fill_(1)
    return run


def rank_main(wire, place, threads, make, args):
    os.environ.update(place)
    join()
    torch.set_num_threads(threads)
    run = make(*args)
    run()  # what happens once
    try:
        while True:
            wire.send('ready')
            wire.recv()
            run()
    except EOFError: pass  # the other end is gone


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Ranks:
    "`n` processes that run a turn when they are told"
    def __init__(self, n, threads, make, *args):
        context, port, self.wires = get_context('forkserver'), str(free_port()), []
        for rank in range(n):
            mine, theirs = context.Pipe()
            place = {'RANK': str(rank), 'WORLD_SIZE': str(n), 'LOCAL_RANK': str(rank), 'LOCAL_WORLD_SIZE': str(n),
                     'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port} if n > 1 else {}
            context.Process(target=rank_main, args=(theirs, place, threads, make, args), daemon=True).start()
            theirs.close()  # theirs alone, so that its end is seen
            self.wires.append(mine)
        for wire in self.wires: wire.recv()

    def __call__(self):
        for wire in self.wires: wire.send('go')
        for wire in self.wires: wire.recv()


def build(n, threads, images, make, *args):
    return {'processes': n, 'threads': threads, 'images': images, 'run': Ranks(n, threads, make, *args)}


def cases(args):
    half = max(1, args.threads//2)
    variants = {'one process': (1, args.threads), 'two processes': (2, half), 'half the threads': (1, half)}
    def training(place, *what): return partial(build, *place, args.bs*args.steps, trainer, *what, args.bs, args.steps)
    trainings = {f'{name}, {size} px': {variant: training(place, name, size) for variant, place in variants.items()}
                 for name in args.nets for size in args.sizes}
    sums = {f'all-reduce of {n:,}': {'one process': partial(build, 2, half, args.calls, talker, n, args.calls)}
            for n in args.numbers}  # one variant; it is its own base
    return trainings | sums


def parser():
    parser = options(__doc__, 8, [64, 128])
    parser.add_argument('--nets', nargs='*', default=['resnet18'])
    parser.add_argument('--bs', type=int, default=128, help="images a batch, of all processes together")
    parser.add_argument('--steps', type=int, default=6, help="in a turn")
    parser.add_argument('--numbers', type=int, nargs='*', default=[1, 1_000, 100_000, 11_700_000])
    parser.add_argument('--calls', type=int, default=20, help="of all_reduce in a turn")
    return parser


def main():
    args = parser().parse_args()
    benchmark(args, "Images/s of a training in two processes, beside one", cases(args), 'one process')


if __name__ == '__main__': main()
