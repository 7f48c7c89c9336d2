"""Accuracy for a budget of time: `resnet-course train --recipe laptop` from its start to its exit, a process a seed.

usage: python bench/budget.py [--json FILE] [--seeds 0 1 2] [--recipe laptop] [--data imagenette-160] [-- MORE OPTIONS]

The decoded images are kept from run to run; the first line says what making them costs, which no run pays again. `MB`
is the most memory that was resident (1 MB = 10^6 B), the mapped images included.
Accuracy: last epoch, whole validation set, no test-time augmentation, validation at the size of the last training epoch.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from measure import in_fresh_process, peak_mb, save, start
from resnet_course.data import find_data, list_images
from resnet_course.fast import cached_images


def decode(data, presize):
    began = time.perf_counter()
    cached_images(data, presize)
    print(f"decoded images: {time.perf_counter()-began:.1f} s to make or open", flush=True)


def train(args, seed):
    "One run of the command: its epochs, and the seconds and the peak memory of the whole process"
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, '-m', 'resnet_course', *args.words, '--seed', str(seed), '--out', f'{folder}/run']
        began = time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall, process.returncode = time.perf_counter()-began, os.waitstatus_to_exitcode(status)
        if process.returncode: raise subprocess.CalledProcessError(process.returncode, words)
        history = pd.read_csv(f'{folder}/run/history.csv').round(6).to_dict('records')
    return {'variant': args.recipe, 'seed': seed, 'wall': round(wall, 1), 'MB': peak_mb(usage), 'history': history}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--recipe', default='laptop')
    parser.add_argument('--data', default='imagenette-160')
    parser.add_argument('--presize', type=int, default=160)
    parser.add_argument('--copy', default='not named', help="which copy of the images this is, for the record")
    parser.add_argument('more', nargs='*', help="options of resnet-course train, after --")
    args = parser.parse_args()
    args.words = ['train', '--recipe', args.recipe, '--data', args.data, '--presize', str(args.presize), *args.more]
    args.command = f"resnet-course {' '.join(args.words)} --seed SEED"
    in_fresh_process(decode, args.data, args.presize)
    counts = {split: len(files) for split, files in list_images(find_data(args.data)).items()}
    record = start(args, f"The recipe {args.recipe}: accuracy for a budget of time", {'source': args.data, **counts, 'copy': args.copy})
    for seed in args.seeds:
        if seed in {run['seed'] for run in record['runs']}: continue
        record['runs'].append(in_fresh_process(train, args, seed))
        save(args, record)
        last = record['runs'][-1]
        print(f"seed {seed}: accuracy {last['history'][-1]['accuracy']:.1%}, {last['wall']:.0f} s", flush=True)


if __name__ == '__main__': main()
