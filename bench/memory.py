"""Peak memory of a loader, a training step and a whole epoch, each in a fresh process.

usage: python bench/memory.py [--json FILE] [--benchmarks input step epoch overhead] [--sizes 128]

Each does one turn of the benchmark of that name. `MB` is the most that was resident (1 MB = 10^6 B), `worker` the same
for the largest of its workers, which share part of it with the process, `mapped` what of `MB` belongs to files at the
end: libraries, and the decoded images, which the system gives up when memory is short. `imports alone` is the floor.
"""
import resource
from importlib import import_module
from multiprocessing import set_start_method
from statistics import median

import pandas as pd
import psutil
import torch

from measure import begin, options
from runner import in_fresh_process, peak_mb


def cases(name, words):
    "The cases of the benchmark of that name, and one that does nothing"
    bench = import_module(name)
    args = bench.parser().parse_args(words)
    torch.set_num_threads(args.threads)
    nothing = {'imports alone': lambda: {'run': lambda: None}}
    return {case: {**nothing, **variants} for case, variants in bench.cases(args).items()}


def peak(name, words, case, variant):
    "Run one variant here: megabytes of this process, of its largest worker, and of mapped files"
    def most(who): return peak_mb(resource.getrusage(who).ru_maxrss)
    set_start_method(None, force=True)  # workers start as in any script, not from the fork server
    make = cases(name, words)[case][variant]
    imports = most(resource.RUSAGE_CHILDREN)  # some packages start a program when they are imported
    make()['run']()
    worker = most(resource.RUSAGE_CHILDREN)
    mapped = getattr(psutil.Process().memory_info(), 'shared', 0)/1e6
    return {'MB': most(resource.RUSAGE_SELF), 'worker': worker if worker > imports else 0, 'mapped': mapped}


def table(runs):
    rows = [{k: median(v) if isinstance(v, list) else v for k, v in run.items()} for run in runs]
    columns = ['case', 'variant', 'MB', 'worker', 'mapped']
    return pd.DataFrame(rows, columns=columns).to_string(index=False, float_format='{:,.0f}'.format)


def parser():
    parser = options(__doc__, 1, [128])
    parser.add_argument('--benchmarks', nargs='+', default=['input', 'step', 'epoch', 'overhead'])
    parser.add_argument('--bs', type=int, help="images a batch, if not those of the benchmark")
    return parser


def main():
    args = parser().parse_args()
    record = begin(args, "Peak memory of loaders, training steps and whole epochs")
    words = ['--data', args.data, '--sizes', *map(str, args.sizes), *(['--bs', str(args.bs)] if args.bs else [])]
    found = {f'{name}, {case}': (name, case, variants)
             for name in args.benchmarks for case, variants in cases(name, words).items()}

    def run(case):
        name, its_case, variants = found[case]
        rounds = {v: [in_fresh_process(peak, name, words, its_case, v) for _ in range(args.rounds)] for v in variants}
        return [{'variant': v, **{k: [r[k] for r in rs] for k in rs[0]}} for v, rs in rounds.items()]
    record.fill(({'case': case} for case in found), run)
    print(table(record.runs))


if __name__ == '__main__': main()
