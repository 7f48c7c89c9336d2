"""Seconds from the start of a process to its end: what a reader of the command waits for, beside `import torch`.

usage: python bench/startup.py [--json FILE] [--rounds 9]

A process each, in turns. `train` ends after its first batch of digits, whose decoded images are there. `imports` are
the seconds of a run apart that Python spends in importing (`python -X importtime`, which takes a little itself); what
is left is work. `times torch` is the median over the rounds of a variant's seconds divided by those of `import torch`.
"""
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd

from measure import begin, measure, options
from resnet_course.data import digits_path

FIRST_BATCH = """
import os, sys, tempfile
from fastai.learner import Learner
from resnet_course.cli import main
def first(self, i, batch, whole=Learner.one_batch):
    whole(self, i, batch)
    os._exit(0)
Learner.one_batch = first
main(['train', '--out', tempfile.mkdtemp(dir=sys.argv[1])])
"""


def commands(folder):
    "What is timed: the words after `python`; `folder` takes what is written"
    call('-m', 'resnet_course', 'train', '--epochs', 1, '--out', folder/'run')
    image = next((digits_path()/'val').glob('*/*.png'))
    return {
        'import torch': ['-c', 'import torch'],
        'help': ['-m', 'resnet_course', '--help'],
        'cost': ['-m', 'resnet_course', 'cost', 'resnet50'],
        'predict': ['-m', 'resnet_course', 'predict', folder/'run'/'model.safetensors', image],
        'train': ['-c', FIRST_BATCH, folder],
    }


def call(*words):
    "A process; what it writes to standard error"
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}  # compiled once, as for everybody
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env=env)
    if done.returncode: sys.exit(done.stderr)
    return done.stderr


def imports(words):
    "The seconds of a run that are spent in importing"
    return sum(map(int, re.findall(r'^import time:\s+(\d+)', call('-X', 'importtime', *words), re.MULTILINE)))/1e6


def build(words): return {'images': 1, 'imports': round(imports(words), 3), 'run': partial(call, *words)}


def table(runs):
    rows = [{'variant': r['variant'], 'seconds': median(r['seconds']), 'lowest': min(r['seconds']),
             'highest': max(r['seconds']), 'imports': r['imports'], 'times torch': r['ratio']} for r in runs]
    return pd.DataFrame(rows).to_string(index=False, float_format='{:.2f}'.format)


def parser(): return options(__doc__, 9, [64])


def main():
    args = parser().parse_args()
    args.data = 'digits'
    record = begin(args, "Seconds from the start of a process to its end")
    with tempfile.TemporaryDirectory() as folder:
        variants = {name: partial(build, words) for name, words in commands(Path(folder)).items()}
        record.fill([{'case': 'start'}], lambda case: measure(variants, args.rounds, 'import torch'))
    print(table(record.runs))


if __name__ == '__main__': main()
