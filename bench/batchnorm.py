"""Accuracy of one recipe trained by one, two and eight processes: what it costs that batchnorm sees parts of a batch.

usage: python bench/batchnorm.py [--json FILE] [--processes 1 2 8] [--seeds 0 1 2 3 4] [--width 16] [--size 64]

Each run is `resnet-course train` under torchrun, with a batch of 64 images of all processes together, of which each
normalises its own part. All else is the same: start weights, images, rate, steps.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

import runner
from resnet_course.run import read_config


def run(args, processes, seed):
    "One training by so many processes: the history of its epochs"
    launch = ['torch.distributed.run', '--standalone', '--nproc-per-node', str(processes), '-m', 'resnet_course']
    with tempfile.TemporaryDirectory() as folder:
        words = [*args.words.split(), '--seed', str(seed), '--out', f'{folder}/run']
        env = {**os.environ, 'OMP_NUM_THREADS': str(max(1, os.cpu_count()//processes))}
        subprocess.run([sys.executable, '-m', *(launch if processes > 1 else launch[-1:]), *words], env=env, check=True,
                       stdout=subprocess.DEVNULL)
        made = read_config(Path(folder)/'run')
        assert made['machine'].get('processes', 1) == processes
        return {'history': runner.rows(pd.read_csv(Path(folder)/'run'/'history.csv'))}


def parser():
    parser = runner.options(__doc__, 'imagenette-160')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2, 8])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--size', type=int, default=64)
    parser.add_argument('--width', type=int, default=16)
    return parser


def main():
    args = parser().parse_args()
    args.words = (f'train --data {args.data} --layers 2,2,2,2 --width {args.width} --size {args.size} '
                  f'--epochs {args.epochs} --bs 64 --validate last --device cpu')
    args.command = (f'python bench/batchnorm.py --data {args.data} --epochs {args.epochs} --size {args.size} '
                    f'--width {args.width}')
    recipe, data = runner.of_command(f'resnet-course {args.words}')
    def called(n): return f"{n} process{'es'*(n > 1)}"
    variants = {called(n): {'processes': n, 'images': 64//n, **runner.told(recipe)} for n in args.processes}
    record = runner.Record(args, 'One recipe by several processes, each with a batchnorm of its part', data, args.data,
                           variants=variants)
    keys = [{'variant': called(n), 'seed': seed} for seed in args.seeds for n in args.processes]
    number = {called(n): n for n in args.processes}
    record.fill(keys, lambda variant, seed: run(args, number[variant], seed), runner.line)


if __name__ == '__main__': main()
