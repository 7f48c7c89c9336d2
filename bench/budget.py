"""Accuracy for a budget of time: `resnet-course train --recipe laptop` from its start to its exit, a process a seed.

usage: python bench/budget.py [--json FILE] [--seeds 0 1 2] [--recipe laptop] [--data imagenette-160] [-- MORE OPTIONS]

The decoded images are kept from run to run; the first line says what making them costs, which no run pays again. `MB`
is the most memory that was resident (1 MB = 10^6 B), the mapped images included. `speed` is the machine's just before
the run: GFLOP/s of a large convolution in the format that it trains in, and images/s of the recipe's step (forward,
backward, optimiser) at each of its sizes, from random numbers. Accuracy: last epoch, whole validation set, no test-time
augmentation, validation at the size of the last training epoch.
"""
import subprocess
import sys
import tempfile
import time
from statistics import median

import pandas as pd
import torch
from torch.nn import functional as F

from runner import Record, line, of_command, options, peak_mb, recorded, rows
from resnet_course.fast import cached_images
from resnet_course.recipes import OPTIMISERS, make_net
from resnet_course.step import keep_memory, matmul_convs
from resnet_course.train import best_precision

MEASURE = """  # stands between, since a process inherits the peak of the one that starts it, and this one is large
import os, subprocess, sys, time
began, process = time.perf_counter(), subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter()-began, usage.ru_maxrss)
process.returncode = os.waitstatus_to_exitcode(status)
sys.exit(process.returncode)
"""


def decode(data, presize):
    began = time.perf_counter()
    cached_images(data, presize)
    print(f"decoded images: {time.perf_counter()-began:.1f} s to make or open", flush=True)


def seconds(call, rounds=10):
    "The median of some calls, after two"
    took = []
    for _ in range(rounds+2):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter()-began)
    return median(took[2:])


def speed(recipe):
    "How fast this machine is now"
    keep_memory()
    half = best_precision('cpu') == 'bf16'
    layout = dict(memory_format=torch.channels_last)
    x, w = (torch.randn(n, 256, side, side).to(torch.bfloat16 if half else torch.float32, **layout)
            for n, side in ((32, 28), (256, 3)))
    net = matmul_convs(make_net(recipe, 10)).to(**layout)
    opt = OPTIMISERS[recipe.optimiser](list(net.parameters()))
    def step(size):
        x, y = torch.randn(recipe.bs, 3, size, size).to(**layout), torch.randint(10, (recipe.bs,))
        def call():
            with torch.autocast('cpu', torch.bfloat16, enabled=half): loss = F.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
        return call
    with torch.inference_mode(): conv = seconds(lambda: F.conv2d(x, w, padding=1))
    rates = {str(size): round(recipe.bs/seconds(step(size)), 1) for size in dict.fromkeys(recipe.sizes)}
    return {'GFLOP/s': round(2*len(x)*28**2*9*256**2/conv/1e9, 1), 'images/s': rates}


def train(words, seed):
    "One run of the command: its epochs, and the seconds and the peak memory of the whole process"
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, '-m', 'resnet_course', *words, '--seed', str(seed), '--out', f'{folder}/run']
        done = subprocess.run([sys.executable, '-S', '-c', MEASURE, *words], stdout=subprocess.PIPE, check=False)
        if done.returncode: raise subprocess.CalledProcessError(done.returncode, words)
        wall, peak = map(float, done.stdout.split())
        history = rows(pd.read_csv(f'{folder}/run/history.csv'))
    return {'wall': round(wall, 1), 'MB': peak_mb(peak), 'history': history}


def main():
    parser = options(__doc__, 'imagenette-160')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--recipe', default='laptop')
    parser.add_argument('--presize', type=int, default=160)
    parser.add_argument('more', nargs='*', help="options of resnet-course train, after --")
    args = parser.parse_args()
    words = ['train', '--recipe', args.recipe, '--data', args.data, '--presize', str(args.presize), *args.more]
    args.command = f"resnet-course {' '.join(words)} --seed SEED"
    recipe, data = of_command(args.command)
    decode(data, recipe.presize)
    record = Record(args, f"The recipe {args.recipe}: accuracy for a budget of time", data, recipe=recorded(recipe))
    record.fill(({'variant': args.recipe, 'seed': seed} for seed in args.seeds),
                lambda variant, seed: {'speed': speed(recipe), **train(words, seed)},
                lambda run: f"{line(run)}, {run['wall']:.0f} s in all")


if __name__ == '__main__': main()
