"""What the scripts here share: the words of a command line, the record, and the one loop that does what it lacks."""
import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from resnet_course.cli import make_parser
from resnet_course.cost import cost_table
from resnet_course.data import find_data, find_dataset, list_images
from resnet_course.files import write_whole
from resnet_course.options import data_of, recipe_of
from resnet_course.recipes import fill_recipe, make_net, train
from resnet_course.run import environment
from resnet_course.train import best_precision

HERE = 'commit', 'precision', 'machine', 'versions'  # what a run says itself where the record says otherwise


def options(doc, data):
    "The command line of a script; more options may be added"
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', type=Path, help="where every run is kept; what is there already is not run again")
    parser.add_argument('--data', default=data)
    parser.add_argument('--copy', default='not named', help="which copy of the images this is, for the record")
    parser.add_argument('--commit', help="the commit, for the record, where there is no git")
    return parser


def seed_options(doc, experiments):
    "The words of a script that trains variants of an experiment, each by several seeds, read"
    parser = options(doc, 'imagenette-160')
    parser.add_argument('experiment', choices=experiments)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=5)
    parser.add_argument('--size', type=int, default=64)
    args = parser.parse_args()
    words = f'{args.experiment} --data {args.data} --size {args.size} --epochs {args.epochs}'
    args.command = f'python bench/{Path(sys.argv[0]).name} {words}'
    return args


def by_seed(args, variants): return ({'variant': name, 'seed': seed} for seed in args.seeds for name in variants)


class Record:
    "An experiment and its file: what the file holds is kept, and it is written whole after every run"
    def __init__(self, args, what, images, source=None, **more):
        "`images` is counted; `source` is its name, if that is not it; `args.command` is what makes the record again"
        device, self.file = getattr(args, 'device', 'cpu'), args.json
        commit = args.commit or subprocess.check_output(['git', 'rev-parse', 'HEAD'], text=True).strip()
        self.here = {'commit': commit, 'precision': best_precision(device), **environment(device)}
        counts = {split: len(files) for split, files in list_images(find_data(images)).items()}
        self.all = {'name': self.file.stem if self.file else '', 'what': what, 'command': args.command, 'note': '',
                    'data': {'source': source or str(images), **counts, 'copy': args.copy},
                    **self.here, **more, 'runs': []}
        if not (self.file and self.file.exists()): return
        before = json.loads(self.file.read_text())
        if before['command'] != args.command: sys.exit(f"{self.file} holds another experiment: {before['command']}")
        self.all |= {k: before[k] for k in (*HERE, 'note', 'runs')}

    @property
    def runs(self): return self.all['runs']

    def fill(self, keys, run, tell=None):
        "`run(**key)` for each of `keys` that no run has yet: it gives one run or a list; `tell` makes a line of one"
        elsewhere = {k: v for k, v in self.here.items() if v != self.all[k]}
        for key in keys:
            if any(all(r.get(k) == v for k, v in key.items()) for r in self.runs): continue
            made = run(**key)
            made = [{**key, **m, **elsewhere} for m in (made if isinstance(made, list) else [made])]
            self.runs.extend(made)
            if self.file: write_whole(self.file, (json.dumps(self.all, indent=1)+'\n').encode())
            if tell: print(tell(made[-1]), flush=True)


def line(run):
    "How a training went"
    seconds = sum(h['seconds'] for h in run['history'])
    return f"{run['variant']}, seed {run['seed']}: accuracy {run['history'][-1]['accuracy']:.3f}, {seconds:.0f} s"


def epochs_of(sizes, seconds, values):
    "The history of a run; `values`: a recorder's, where an epoch without validation has none"
    names = 'train_loss', 'valid_loss', 'accuracy'
    def known(row): return {k: round(float(v), 6) for k, v in zip(names, row, strict=False) if v is not None}
    return [{'epoch': i, 'size': size, **known(row), 'seconds': round(s, 4)}
            for i, (size, s, row) in enumerate(zip(sizes, seconds, values, strict=True), 1)]


def recorded(recipe): return {k: v for k, v in asdict(recipe).items() if k != 'seed'}  # each run has its own


def cost(net, size):
    "What a net costs at that size, for the record"
    total = cost_table(net, size).iloc[-1]
    return {'params': int(total['params']), 'MACs': int(total['MACs'])}


def of_command(command):
    "The filled recipe and the data of a `resnet-course train ...`, without its SEED"
    given = vars(make_parser().parse_args(shlex.split(command.replace('--seed SEED', ''))[1:]))
    data = data_of(given)
    return fill_recipe(recipe_of(given), find_dataset(data)), data


def told(recipe, n_out=10):
    "A filled recipe and the cost of its net, for the record"
    return {**cost(make_net(recipe, n_out), recipe.sizes[-1]), 'recipe': recorded(recipe)}


def rows(history):
    "The epochs of a run's table, each with what was measured in it"
    return [{k: v for k, v in row.items() if v == v} for row in history.round(6).to_dict('records')]


def train_recipe(recipe, data, device='cpu'):
    "One run of the recipe, as the command would do it: the history of its epochs; its folder is thrown away"
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, data, f'{folder}/run', report=lambda line: None, device=device)
        return {'history': rows(run.history)}


def peak_mb(maxrss):
    "The most that was resident, from a usage's `ru_maxrss`; macOS counts bytes, Linux kilobytes"
    return maxrss*(1 if sys.platform == 'darwin' else 1024)/1e6


def in_fresh_process(f, *args):
    "A process that is started directly inherits the peak of the one that starts it; the fork server's is small"
    with ProcessPoolExecutor(1, mp_context=get_context('forkserver')) as pool: return pool.submit(f, *args).result()
