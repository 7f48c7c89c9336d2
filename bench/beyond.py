"""Sets beyond memory: gigabytes of decoded images, made and trained from by processes that may have 300 MB.

usage: python bench/beyond.py [--json FILE] [--gigabytes 1 4 8] [--side 512]

On Linux. A set of JPEGs is written whose decoded images fill so many GB (10^9 B). One process decodes them and trains
for an epoch, another opens what was decoded and does the same. Each may have the data memory (RLIMIT_DATA) that it has
at rest, 300 MB, and the pixels of a batch; `data MB` is the most that it had above rest when a batch was done, `MB` the
most that was resident, the mapped images included, which the system gives back when it is short (1 MB = 10^6 B).
"""
import re
import resource
import tempfile
from pathlib import Path

import pandas as pd
from fastai.callback.core import Callback
from fastai.torch_core import set_seed

from growth import Clock, write
from runner import in_fresh_process, options, peak_mb, Record
from resnet_course.cache import remove_cache
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet

MORE, BS = 300_000_000, 32


def data_bytes(): return 1024*int(re.search(r'VmData:\s+(\d+)', Path('/proc/self/status').read_text())[1])


class Most(Callback):
    "The most data memory when a batch is done"
    most = 0
    def after_batch(self): self.most = max(self.most, data_bytes())


def train(root, side):
    "Seconds to have the loaders, and for an epoch; the most memory"
    set_seed(0)
    clock, most = Clock(), Most()
    dls = fast_data(root, side, 32, BS, device='cpu')
    learn, begun = fast_learner(dls, ResNet(len(dls.vocab), [1, 1, 1, 1], width=8), 'fp32', cbs=most), clock()
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    return {'begin': begun, 'epoch': clock(), 'GB': dls.train.cached[0].nbytes/1e9}, most


def limited(small, root, side):
    "The same, where it may not take much"
    train(small, 32)  # all that is imported later is there
    at_rest = data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (at_rest+MORE+3*side**2*BS, -1))
    took, most = train(root, side)
    return {**took, 'data MB': (most.most-at_rest)/1e6,
            'MB': peak_mb(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)}


def table(runs): return pd.DataFrame(runs).to_string(index=False, float_format='{:,.2f}'.format)


def main():
    parser = options(__doc__, None)
    parser.add_argument('--gigabytes', type=float, nargs='+', default=[1, 4, 8])
    parser.add_argument('--side', type=int, default=512, help="of the decoded images, pixels")
    args = parser.parse_args()
    args.command = f'python bench/beyond.py --side {args.side}'
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root/'small', 100, 32, 2)
        record = Record(args, "Sets beyond memory, with 300 MB", root/'small', source="noise, written here")

        def run(gigabytes):
            many = root/f'{gigabytes:g}'
            write(many, round(gigabytes*1e9/(3*args.side**2)), args.side, 2)
            took = [{'process': name, **in_fresh_process(limited, root/'small', many, args.side)}
                    for name in ('makes', 'opens')]
            remove_cache(many)
            return took
        record.fill(({'gigabytes': g} for g in args.gigabytes), run)
    print(table(record.runs))


if __name__ == '__main__': main()
