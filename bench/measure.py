"""What the benchmarks share: options, measuring in turns, the record and its table.

A case holds variants; each round runs every variant once and starts one further on than the round before, so that a
slow minute of the machine falls on all of them. `ratio` is the median over the rounds of the base's images/s divided
by the variant's: how many times faster the base is.
"""
import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, set_start_method
from pathlib import Path
from statistics import median

import pandas as pd
import torch

from resnet_course.data import find_data, list_images
from resnet_course.run import environment, write_whole
from resnet_course.train import best_precision

PARTS = 'json', 'copy', 'rounds', 'sizes', 'nets', 'benchmarks'  # a record may grow by runs that differ in these


def options(doc, rounds, sizes, threads=os.cpu_count()):
    "The command line of a benchmark; more options may be added"
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help="where to keep every measurement; cases already there are not repeated")
    parser.add_argument('--data', default='imagenette', help="imagenette: the 160 px set, above 160 px the 320 px set")
    parser.add_argument('--copy', default='not named', help="which copy of the images this is, for the record")
    parser.add_argument('--rounds', type=int, default=rounds)
    parser.add_argument('--sizes', type=int, nargs='+', default=sizes)
    parser.add_argument('--threads', type=int, default=threads)
    return parser


def source(args, size):
    "Which images a size is cut from, and the side they are resized to first: their own, or the size if that is larger"
    if args.data != 'imagenette': return args.data, size
    return ('imagenette-160', 160) if size <= 160 else ('imagenette-320', 224)


def start(args, what, data, **rest):
    "The record to fill: how it was made and where; what `args.json` holds already is kept"
    device = getattr(args, 'device', 'cpu')
    env, commit = environment(device), getattr(args, 'commit', None)
    record = {
        'name': args.json.stem if args.json else '', 'what': what, 'command': args.command,
        'commit': commit or subprocess.check_output(['git', 'rev-parse', 'HEAD'], text=True).strip(), 'note': '',
        'data': data, 'precision': best_precision(device), 'machine': env['machine'], 'versions': env['versions'], **rest, 'runs': []}
    if args.json and args.json.exists():
        before = json.loads(args.json.read_text())
        if before['command'] != args.command: sys.exit(f"{args.json} holds another experiment: {before['command']}")
        record['runs'], record['note'] = before['runs'], before['note']
    return record


def save(args, record):
    if args.json: write_whole(args.json, (json.dumps(record, indent=1)+'\n').encode())


def begin(args, what, **rest):
    "`start` for a benchmark: its threads, its command, its images"
    torch.set_num_threads(args.threads)
    words = [f'--{k} {v}' for k, v in vars(args).items() if k not in PARTS and v is not None]
    args.command = ' '.join([f'python bench/{Path(sys.argv[0]).name}', *words])
    name, _ = source(args, args.sizes[0])
    counts = {split: len(files) for split, files in list_images(find_data(name)).items()}
    return start(args, what, {'source': args.data, **counts, 'copy': args.copy}, **rest)


def peak_mb(usage):
    "The most that was resident, from a `getrusage` or a `wait4`; macOS counts bytes, Linux kilobytes"
    return usage.ru_maxrss*(1 if sys.platform == 'darwin' else 1024)/1e6


def in_fresh_process(f, *args):
    "A process that is started directly inherits the peak of the one that starts it; the fork server's is small"
    with ProcessPoolExecutor(1, mp_context=get_context('forkserver')) as pool: return pool.submit(f, *args).result()


_built = {}


def _build(name, make, threads):
    set_start_method(None, force=True)  # its workers start as in any script, not as it did
    torch.set_num_threads(threads)
    _built[name] = make()
    return {k: v for k, v in _built[name].items() if k != 'run'}


def _run(name): _built[name]['run']()


@contextmanager
def building(variants, process=None):
    "Variants here, or in processes of their own, one for each `process(name)`: what is set in one, the others do not feel"
    if not process:
        yield {name: make() for name, make in variants.items()}
        return
    with ExitStack() as stack:
        pools = {key: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context('spawn'))) for key in map(process, variants)}
        built = {}
        for name, make in variants.items():
            pool = pools[process(name)]
            facts = pool.submit(_build, name, make, torch.get_num_threads()).result()
            built[name] = {**facts, 'run': lambda pool=pool, name=name: pool.submit(_run, name).result()}
        yield built


def in_turns(variants, rounds):
    "Seconds of each call, `{name: [seconds]}`"
    seconds, names = {name: [] for name in variants}, list(variants)
    for r in range(rounds):
        k = r % len(names)
        for name in names[k:]+names[:k]:
            began = time.perf_counter()
            variants[name]['run']()
            seconds[name].append(time.perf_counter()-began)
    return seconds


def ratios(runs, base):
    "Add to the runs of one case how many times faster `base` is, and the same for each multiply-add where they are known"
    of = {run['variant']: run for run in runs}[base]
    for run in runs:
        run['ratio'] = median(s/run['images']*of['images']/b for s, b in zip(run['seconds'], of['seconds']))
        if 'MACs' in run: run['ratio per MAC'] = run['ratio']*of['MACs']/run['MACs']


def table(runs, base):
    "A line for each run: images/s, the middle, the lowest and the highest of the rounds"
    rows = []
    for run in runs:
        rates = [run['images']/s for s in run['seconds']]
        row = {k: run[k] for k in ('case', 'variant', 'does') if k in run}
        row |= {'images/s': median(rates), 'lowest': min(rates), 'highest': max(rates), f'{base} / this': run['ratio']}
        if 'MACs' in run: row |= {'per operation': run['ratio per MAC']}
        rows.append(row)
    numbers = {'images/s': '{:,.0f}', 'lowest': '{:,.0f}', 'highest': '{:,.0f}', f'{base} / this': '{:.3g}', 'per operation': '{:.3g}'}
    return pd.DataFrame(rows).to_string(index=False, formatters={k: f.format for k, f in numbers.items()})


def measure(variants, rounds, base, process=None, builds=1):
    "Build the variants of one case, run them in turns, and give what goes into the record"
    seconds = {name: [] for name in variants}
    for _ in range(builds):
        with building(variants, process) as built:
            for name, s in in_turns(built, rounds).items(): seconds[name] += s
    runs = [{'variant': name, **{k: v for k, v in facts.items() if k != 'run'}, 'seconds': seconds[name]} for name, facts in built.items()]
    ratios(runs, base)
    return runs


def benchmark(args, what, cases, base, process=None, builds=1, **rest):
    """Measure the cases that the record lacks, write it after each, and print the table; give the record.

    `cases` is `{case: {variant: make}}`; `make()` gives `{'images': images in a run, 'run': what to time}` and what else
    the record shall say. `process`, a function of a variant's name: those for which it gives the same share a process of
    their own.
    """
    record = begin(args, what, **rest)
    for case, variants in cases.items():
        if case in {run['case'] for run in record['runs']}: continue
        record['runs'] += [{'case': case, **run} for run in measure(variants, args.rounds, base, process, builds)]
        save(args, record)
    print(table(record['runs'], base))
    return record
