"""Gather run folders of `resnet-course train`, one a seed, into one small JSON for results/.

usage: python tools/record.py RESULT.json --what "one line" --copy "which copy of the images" [--note "..."] RUN ...
"""
import argparse
import json
import subprocess
from pathlib import Path

import pandas as pd


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('result', type=Path)
    parser.add_argument('runs', type=Path, nargs='+')
    parser.add_argument('--what', required=True)
    parser.add_argument('--copy', required=True)
    parser.add_argument('--commit', help="of the code that ran; default: the checkout's")
    parser.add_argument('--note', default='')
    args = parser.parse_args()
    configs = [json.loads((run/'config.json').read_text()) for run in args.runs]
    same = [{**c['options'], 'seed': None} for c in configs]
    if any(s != same[0] for s in same):
        parser.error("the runs differ in more than their seed; record one experiment at a time")
    words = ' '.join(f"--{k.replace('_', '-')} {','.join(map(str, v)) if isinstance(v, list) else v}"
                     for k, v in same[0].items() if v is not None)
    commit = args.commit or subprocess.check_output(['git', 'rev-parse', 'HEAD'], text=True).strip()
    first = configs[0]
    args.result.write_text(json.dumps({
        'name': args.result.stem, 'what': args.what, 'command': f'resnet-course train {words} --seed SEED',
        'commit': commit, 'note': args.note,
        'data': {'source': first['spec']['data'], **first['counts'], 'copy': args.copy},
        'precision': first['spec']['precision'], 'machine': first['machine'], 'versions': first['versions'],
        'runs': [{'seed': c['spec']['seed'], 'history': pd.read_csv(run/'history.csv').round(6).to_dict('records')}
                 for c, run in zip(configs, args.runs, strict=True)],
    }, indent=1) + '\n')


if __name__ == '__main__': main()
