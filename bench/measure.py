"""What the benchmarks of time share: measuring in turns, the ratios and their table.

A case holds variants; each round runs every variant once and starts one further on than the round before, so that a
slow minute of the machine falls on all of them. `ratio` is the median over the rounds of the base's images/s divided
by the variant's: how many times faster the base is.
"""
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context, set_start_method
from pathlib import Path
from statistics import median

import pandas as pd
import torch

import runner

PARTS = 'half', 'json', 'copy', 'commit', 'rounds', 'sizes', 'nets', 'ways', 'benchmarks'  # its runs may differ


def options(doc, rounds, sizes, threads=None):
    "The command line of a benchmark; more options may be added"
    parser = runner.options(doc, 'imagenette')  # the 160 px set, above 160 px the 320 px set
    parser.add_argument('--rounds', type=int, default=rounds)
    parser.add_argument('--sizes', type=int, nargs='+', default=sizes)
    parser.add_argument('--threads', type=int, default=threads or torch.get_num_threads())
    return parser


def source(args, size):
    "Which images a size is cut from, and the side they are resized to first: their own, or the size if that is larger"
    if args.data != 'imagenette': return args.data, size
    return ('imagenette-160', 160) if size <= 160 else ('imagenette-320', 224)


def begin(args, what, **more):
    "The record of a benchmark: its threads, its command, its images"
    torch.set_num_threads(args.threads)
    def said(value): return ' '.join(map(str, value)) if isinstance(value, list) else value
    words = [f'--{k} {said(v)}' for k, v in vars(args).items() if k not in PARTS and v is not None]
    args.command = ' '.join([f'python bench/{Path(sys.argv[0]).name}', *words])
    return runner.Record(args, what, source(args, args.sizes[0])[0], args.data, **more)


_built = {}


def _build(name, make, threads):
    set_start_method(None, force=True)  # its workers start as in any script, not as it did
    torch.set_num_threads(threads)
    _built[name] = make()
    return {k: v for k, v in _built[name].items() if k != 'run'}


def _run(name): _built[name]['run']()


@contextmanager
def building(variants, process=None):
    "Variants here, or a process for each `process(name)`: what is set in one, the others do not feel"
    if not process:
        yield {name: make() for name, make in variants.items()}
        return
    with ExitStack() as stack:
        def pool_of_one(): return stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context('forkserver')))
        pools = {key: pool_of_one() for key in dict.fromkeys(map(process, variants))}
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
    "Add to the runs of one case how many times faster `base` is, and the same for each multiply-add where known"
    of = {run['variant']: run for run in runs}[base]
    for run in runs:
        pairs = zip(run['seconds'], of['seconds'], strict=True)
        run['ratio'] = median(s/run['images']*of['images']/b for s, b in pairs)
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
    numbers = dict.fromkeys(('images/s', 'lowest', 'highest'), '{:,.0f}')
    numbers |= dict.fromkeys((f'{base} / this', 'per operation'), '{:.3g}')
    return pd.DataFrame(rows).to_string(index=False, formatters={k: f.format for k, f in numbers.items()})


def measure(variants, rounds, base, process=None, builds=1):
    "Build the variants of one case, run them in turns, and give what goes into the record"
    seconds = {name: [] for name in variants}
    for _ in range(builds):
        with building(variants, process) as built:
            for name, s in in_turns(built, rounds).items(): seconds[name] += s
    facts = {name: {k: v for k, v in made.items() if k != 'run'} for name, made in built.items()}
    runs = [{'variant': name, **facts[name], 'seconds': seconds[name]} for name in built]
    ratios(runs, base)
    return runs


def benchmark(args, what, cases, base, process=None, builds=1, **more):
    """Measure the cases that the record lacks, and print the table.

    `cases` is `{case: {variant: make}}`; `make()` gives `{'images': images in a run, 'run': what to time}` and what
    else the record shall say. `process`, a function of a variant's name: those for which it gives the same share a
    process of their own.
    """
    record = begin(args, what, **more)
    def run(case): return measure(cases[case], args.rounds, base, process, builds)
    record.fill(({'case': case} for case in cases), run)
    print(table(record.runs, base))
