"""Gather run folders of `resnet-course train`, one a seed, into one small JSON for results/.

usage: python tools/record.py RESULT.json --what "one line" --copy "which copy of the images" [--note "..."] RUN ...
"""
import argparse
import json
import shlex
import subprocess
from pathlib import Path

import pandas as pd

from resnet_course.run import read_config

SAME = 'recipe', 'data', 'classes', 'counts', 'skip_broken', 'precision', 'machine', 'versions'


def command(options):
    "The words that were given, but for those of one run alone"
    words = [(f"--{name.replace('_', '-')}", value) for name, value in options.items()
             if name not in ('seed', 'out', 'resume', 'device')]
    def told(value): return ','.join(map(str, value)) if isinstance(value, list) else str(value)
    words = [word for name, value in words for word in ([name] if value is True else [name, told(value)])]
    return shlex.join(['resnet-course', 'train', *words, '--seed', 'SEED'])


def history(run):
    "The epochs of a run folder, each with what was measured in it"
    rows = pd.read_csv(run/'history.csv').round(6).to_dict('records')
    return [{k: v for k, v in row.items() if v == v} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('result', type=Path)
    parser.add_argument('runs', type=Path, nargs='+')
    parser.add_argument('--what', required=True)
    parser.add_argument('--copy', required=True)
    parser.add_argument('--commit', help="of the code that ran; default: the checkout's")
    parser.add_argument('--note', default='')
    args = parser.parse_args()
    configs = [read_config(run) for run in args.runs]
    seeds = [config['recipe'].pop('seed') for config in configs]  # the rest of a recipe is that of all runs
    first = configs[0]
    for config, run in zip(configs, args.runs, strict=True):
        for name in SAME:
            if config[name] == first[name]: continue
            entries = config[name].items() if name == 'recipe' else ()
            what = ', '.join(f'{k} {v}' for k, v in entries if v != first[name][k]) or name
            parser.error(f"{run} differs from {args.runs[0]} in {what}; record one experiment at a time")
    if 'options' not in first: parser.error(f"{args.runs[0]} was not made by the command, which could be given again")
    commit = args.commit or subprocess.check_output(['git', 'rev-parse', 'HEAD'], text=True).strip()
    args.result.write_text(json.dumps({
        'name': args.result.stem, 'what': args.what, 'command': command(first['options']), 'recipe': first['recipe'],
        'commit': commit, 'note': args.note, 'data': {'source': first['data'], **first['counts'], 'copy': args.copy},
        'precision': first['precision'], 'machine': first['machine'], 'versions': first['versions'],
        'runs': [{'seed': seed, 'history': history(run)}
                 for seed, run in zip(seeds, args.runs, strict=True)],
    }, indent=1) + '\n')


if __name__ == '__main__': main()
