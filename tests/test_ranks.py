"Several processes that train one net: equal to one process, each image once, one voice; and what happens when one dies"
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from conftest import ROOT, SMALL_NET
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed
from fastcore.basics import patch_to
from tiny import TINY, results
from torch import nn
from torch.utils.data import TensorDataset

from resnet_course import cache, cli, distributed, recipes, run
from resnet_course.data import image_files
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet
from resnet_course.run import SaveRun
from resnet_course.step import fused_adam, fused_sgd

# what torch's C++ says between processes comes as an exception, too; the command sets this, and torch reads it once
os.environ.setdefault('TORCH_CPP_LOG_LEVEL', 'FATAL')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


# -- a process for each rank, forked from one that has the imports done

def rank_main(do, args, env, folder):
    os.environ.update(env)
    for fd, name in ((1, 'out'), (2, 'err')): os.dup2(os.open(folder/name, os.O_WRONLY | os.O_CREAT), fd)
    torch.set_num_threads(1)
    (folder/'gave').write_text(json.dumps(do(*args)))


class Rank:
    "One of the processes: what it printed, its status, what the function gave"
    def __init__(self, number, n, port, folder, do, args):
        (folder := folder/str(number)).mkdir(parents=True)
        self.folder = folder
        env = {'RANK': number, 'WORLD_SIZE': n, 'LOCAL_RANK': number, 'LOCAL_WORLD_SIZE': n, 'MASTER_ADDR': '127.0.0.1',
               'MASTER_PORT': port}
        context = get_context('forkserver')
        context.set_forkserver_preload(['fastai.vision.all', 'nbdev.test', 'matplotlib.pyplot', 'resnet_course.recipes',
                                        'resnet_course.cli'])
        self.process = context.Process(target=rank_main, args=(do, args, {k: str(v) for k, v in env.items()}, folder))
        self.process.start()

    @property
    def out(self): return (self.folder/'out').read_text()
    @property
    def err(self): return (self.folder/'err').read_text()
    @property
    def gave(self): return json.loads((self.folder/'gave').read_text())
    @property
    def status(self): return self.process.exitcode


def together(folder, do, *args, n=2, limit=120, port=None):
    "Run `do` in `n` processes that meet; args with a list of `n` values give each its own"
    port, folder = port or free_port(), folder/f'ranks{time.monotonic_ns()}'
    own = [[a[i] if isinstance(a, list) else a for a in args] for i in range(n)]
    ranks = [Rank(i, n, port, folder, do, own[i]) for i in range(n)]
    deadline = time.monotonic()+limit
    try:
        for r in ranks: r.process.join(max(0, deadline-time.monotonic()))
        assert all(r.status is not None for r in ranks), f"still there after {limit} s: {[r.err[-500:] for r in ranks]}"
    finally:
        for r in ranks:
            r.process.kill()
            r.process.join()
    return ranks


def all_well(ranks):
    assert [r.status for r in ranks] == [0]*len(ranks), [r.err[-3000:] for r in ranks]
    return ranks


def command(*words): cli.main([str(w) for w in words])


def one_line(ranks, status=2):
    "What they say on standard error together: one line, from whichever of them; status 2 of those that are named"
    said = ''.join(r.err for r in ranks)
    assert said.count('\n') == 1 and said.startswith('resnet-course: '), said
    assert {r.status for r in ranks} == {status}, [r.status for r in ranks]
    return said


# -- equal to one process

def plain_net():
    "Without batchnorm: each image for itself"
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


OPTIMISERS = {'sgd': fused_sgd, 'adam': fused_adam}


def steps(optimiser, bs, net_seed, file=None):
    "Weights after 20 steps with batches of `bs`; the net starts with the seed `net_seed` of this rank"
    distributed.join()
    make = torch.Generator().manual_seed(0)
    sets = TensorDataset(torch.randn(10*bs+3, 3, 16, 16, generator=make), torch.randint(5, (10*bs+3,), generator=make))
    set_seed(0)
    dls = DataLoaders.from_dsets(sets, sets, bs=bs, num_workers=0, device='cpu')
    set_seed(net_seed)
    seen = []

    class See(Callback):
        order = 20
        def after_batch(self):
            if self.training: seen.append(len(self.y))
    learn = distributed.in_all_processes(fast_learner(dls, plain_net(), 'fp32', opt_func=OPTIMISERS[optimiser],
                                                      cbs=See()))
    dls.train.rng.seed(7)
    with learn.no_bar(), learn.no_logging(): learn.fit(2, 0.05)
    if file: torch.save(learn.model.state_dict(), file)
    return {'seen': seen, 'log': [float(v) for v in learn.recorder.values[-1]],
            'losses': [float(v) for v in learn.recorder.losses],
            'bits': [p.detach().view(torch.int32).sum().item() for p in learn.model.parameters()]}


@pytest.mark.slow
@pytest.mark.parametrize('optimiser, bs, n', [('sgd', 8, 2), ('adam', 7, 3)])
def test_so_many_processes_are_one_with_the_whole_batch(tmp_path, optimiser, bs, n):
    "20 steps without batchnorm, also where the batch does not divide; only rank 0's first weights count"
    one = steps(optimiser, bs, 0, tmp_path/'one.pt')
    files = [tmp_path/f'{i}.pt' for i in range(n)]
    many = [r.gave for r in all_well(together(tmp_path, steps, optimiser, bs, list(range(n)), files, n=n))]
    assert [sum(b) for b in zip(*(m['seen'] for m in many), strict=True)] == one['seen'] == [bs]*20
    assert all(m['bits'] == many[0]['bits'] for m in many), "the ranks' weights are equal to the last bit"
    whole, parts = torch.load(tmp_path/'one.pt'), torch.load(files[0])
    for name in whole: torch.testing.assert_close(parts[name], whole[name], rtol=1e-4, atol=2e-6)
    for m in many:
        assert m['losses'] == pytest.approx(one['losses'], rel=1e-4)
        assert m['log'] == pytest.approx(one['log'], rel=1e-4)


# -- each image once

def told(folder, n_val):
    "What a validation and predictions say of `n_val` images, on each rank and of all of them computed here"
    distributed.join()
    images = image_files(folder)
    images = image_files(images, skip=images.val[n_val-1:-1])
    set_seed(0)
    dls = fast_data(images, 32, 32, bs=5, device='cpu')
    learn = fast_learner(dls, ResNet(2, [1, 1, 1, 1], width=8), 'fp32')
    x, y = (torch.cat(parts).as_subclass(torch.Tensor) for parts in zip(*dls.valid, strict=True))
    with torch.no_grad(): out = learn.model.eval()(x)
    learn = distributed.in_all_processes(learn)
    with distributed.shared(dls.train), distributed.shared(dls.valid):
        mine = [dls.train.get_idxs(), dls.valid.get_idxs()]
        lengths = [len(dls.train), sum(len(b[1]) for b in dls.valid)]
    with learn.no_bar(), learn.no_logging():
        log = [float(v) for v in learn.validate()]
        preds, targets = learn.get_preds()
    assert torch.equal(targets.as_subclass(torch.Tensor), y)
    torch.testing.assert_close(preds.as_subclass(torch.Tensor), out.softmax(1))
    assert len(dls.valid) == -(-n_val//5) and dls.valid.n == n_val, "the loader is whole again"
    right = (out.argmax(1) == y).float().mean().item()
    return {'mine': mine, 'lengths': lengths, 'log': log,
            'whole': [nn.functional.cross_entropy(out, y).item(), right]}


@pytest.mark.slow
@pytest.mark.parametrize('n_val, n, parts', [(7, 2, [12, 8]), (2, 3, [8, 8, 4])])
def test_each_image_once(images, tmp_path, n_val, n, parts):
    "Training: parts of 4 batches of 5, disjoint. Validation: uneven parts, and a rank that has none"
    ranks = [r.gave for r in all_well(together(tmp_path, told, images, n_val, n=n))]
    train, valid = zip(*(r['mine'] for r in ranks), strict=True)
    assert sorted(chain(*valid)) == list(range(n_val))
    assert [len(part) for part in train] == parts and len({*chain(*train)}) == 20
    for r in ranks:
        assert r['lengths'] == [4, len(r['mine'][1])]
        assert r['log'] == pytest.approx(r['whole'], abs=1e-5)


def fit(recipe, data, out, resume=False, die=None, spoil=None):
    "A run in this process and those beside it; `die=(rank, epoch)` kills one of them as hard as one can"
    if die:
        begin = SaveRun.before_epoch
        @patch_to(SaveRun)
        def before_epoch(self):
            begin(self)
            if (distributed.rank(), self.epoch) == tuple(die):
                time.sleep(0.2)
                os.kill(os.getpid(), signal.SIGKILL)
    if spoil == int(os.environ.get('RANK', '0')):
        distributed.AllRanks.before_step = lambda self: [p.data.fill_(float('nan')) for p in self.model.parameters()]
    decode, made = cache._decode, []
    cache._decode = lambda items, presize: made.append(len(items)) or decode(items, presize)
    crops = []

    class Look(Callback):
        order = 20
        def before_batch(self):
            if self.training: crops.append(self.x.float().sum().item())
    make = recipes.make_learner
    recipes.make_learner = lambda *args: make(*args).add_cb(Look())
    try: recipes.train(recipe, data, out, resume, device='cpu', workers=0)
    except ValueError as e:
        print('resnet-course:', e, file=sys.stderr) if distributed.speaks() else None
        sys.exit(2)
    mapped = sorted({line.split()[-1] for line in Path('/proc/self/maps').read_text().splitlines()
                     if line.endswith('.safetensors')})
    return {'made': made, 'crops': crops, 'mapped': mapped, 'threads': torch.get_num_threads()}


THREE = replace(TINY, sizes=(32, 40, 40), presize=40, averaging=0.9, average_from=0.4)


@pytest.fixture(scope='module')
def two(images, tmp_path_factory):
    "A run of two processes that nothing stopped, with an average of weights and sizes that grow"
    folder = tmp_path_factory.mktemp('two')
    return folder/'run', all_well(together(folder, fit, THREE, images, folder/'run'))


@pytest.mark.slow
def test_one_run_folder_one_report_one_cache(two, images):
    out, (a, b) = two
    assert len(re.findall('^epoch ', a.out, re.M)) == 3 and not b.out and not a.err+b.err
    assert 'on cpu, 2 processes; run folder' in a.out and 'on 8 held-out images' in a.out
    assert {f.name for f in out.iterdir()} == {'config.json', 'checkpoint.pt', 'history.csv', 'model.safetensors',
                                               'curves.png', 'confusion.png', 'trained.txt'}
    assert json.loads((out/'config.json').read_text())['machine']['processes'] == 2
    assert sum(a.gave['made']) == 32 and b.gave['made'] == [], "rank 0 decodes, rank 1 finds it done"
    assert a.gave['mapped'] == b.gave['mapped'] != []
    assert len(a.gave['crops']) == len(b.gave['crops']) == 9 and not {*a.gave['crops']} & {*b.gave['crops']}
    accuracy = pd.read_csv(out/'history.csv').accuracy
    assert (accuracy*8).round(4).mod(1).eq(0).all(), "a share of all 8 images"


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_one_dies_the_other_says_so_and_two_go_on_to_the_same_bits(two, images, tmp_path, victim):
    began = time.monotonic()
    ranks = together(tmp_path, fit, THREE, images, tmp_path/'run', False, (victim, 1))
    assert time.monotonic()-began < 60
    assert ranks[victim].status == -signal.SIGKILL and ranks[1-victim].status == 2
    line = one_line([ranks[1-victim]])
    assert re.search(r'another process of this training has ended \(.*Connection .*\).* with resume=True', line), line
    assert len(pd.read_csv(tmp_path/'run'/'history.csv')) == 1
    if victim:
        for n in (1, 4):
            shutil.copytree(tmp_path/'run', tmp_path/f'by{n}')
            ranks = all_well(together(tmp_path, fit, None, None, tmp_path/f'by{n}', True, n=n))
            assert f'began with 2 and goes on with {n} processes' in ranks[0].out
            assert list(pd.read_csv(tmp_path/f'by{n}'/'history.csv').epoch) == [1, 2, 3]
    ranks = all_well(together(tmp_path, fit, None, None, tmp_path/'run', True))
    assert results(tmp_path/'run') == results(two[0]) and 'began with' not in ranks[0].out


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_all_of_them(images, tmp_path):
    line = one_line(together(tmp_path, fit, TINY, images, tmp_path/'run', False, None, 1))
    assert 'the loss became nan in epoch 1, training batch 2' in line


@pytest.mark.slow
@pytest.mark.parametrize('change', [dict(lr='auto', precision='bf16', optimiser='Muon'), dict(pipeline='book')],
                         ids=['finder-bf16', 'book'])
def test_what_else_a_recipe_says_works(images, tmp_path, change):
    ranks = all_well(together(tmp_path, fit, replace(THREE, averaging=0., **change), images, tmp_path/'run'))
    history = pd.read_csv(tmp_path/'run'/'history.csv')
    assert list(history['size']) == [32, 40, 40] and history.notna().all().all() and not ranks[1].out
    assert ('learning rate from the finder' in ranks[0].out) == ('lr' in change)
    assert not [f for f in (tmp_path/'run').iterdir() if f.name.endswith('.part')]


# -- errors: one line, status 2, nothing half-written

def test_a_stop_does_not_silence_a_fault():
    "torchrun sends SIGTERM to those that are left, often while they find out; they still say what"
    try: raise RuntimeError("Connection closed by peer")
    except RuntimeError: cli._stop(15, None)
    with pytest.raises(SystemExit, match='143'): cli._stop(15, None)


def spoilt(what, *words):
    "The command, on a machine where something is wrong"
    if what == 'version': run.__version__ = '9.9'
    if what == 'gloo': distributed.dist.is_gloo_available = lambda: False
    return command(*words)


@pytest.mark.slow
@pytest.mark.parametrize('what, n, change, said', [
    ('processes', 5, {}, ['--bs 8 for 5 processes', 'start 4 at most']),
    ('other', 2, {}, ["rank 1 on ", "images {'train': 23, 'val': 8}", "rank 0 has {'train': 24, 'val': 8}"]),
    ('missing', 2, {}, ['rank 1 on ', 'nowhere']),
    ('version', 2, {}, ['rank 1 on ', 'has resnet_course 9.9']),
    ('gloo', 2, {}, ['built without gloo']),
    ('there', 2, {}, ['already holds a run'])])
def test_a_fault_is_one_line(images, tmp_path, what, n, change, said):
    out, data, spoil = tmp_path/'run', [images]*n, ['']*n
    if what == 'other':
        shutil.copytree(images, tmp_path/'other', symlinks=True)
        next((tmp_path/'other'/'train'/'3').iterdir()).unlink()
        data = [images, tmp_path/'other']
    if what == 'missing': data = [images, tmp_path/'nowhere']
    if what == 'version': spoil = ['', 'version']
    if what == 'gloo': spoil = ['gloo']*2
    if what == 'there':
        out.mkdir()
        (out/'config.json').write_text('{}')
    before = sorted(tmp_path.iterdir())
    line = one_line(together(tmp_path/'ranks', spoilt, spoil, 'train', *SMALL_NET, '--epochs', 1, '--device', 'cpu',
                             '--data', data, '--out', out, n=n))
    assert all(s in line for s in said), line
    assert [f for f in sorted(tmp_path.iterdir()) if f.name != 'ranks'] == before


@pytest.mark.slow
def test_a_port_in_use_is_named(images, tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        rank = Rank(0, 2, port, tmp_path/'ranks', command, ('train', '--out', tmp_path/'run', '--data', images))
        rank.process.join(60)
    assert f'port {port} is in use' in one_line([rank]) and not (tmp_path/'run').exists()


# -- as people start them

@contextmanager
def started(*commands, limit=240):
    "Run commands beside each other: `[(status, out, err)]`; at the end none of their processes is left"
    env = {k: v for k, v in os.environ.items() if k != 'OMP_NUM_THREADS'} | {'PYTHONPATH': str(ROOT)}
    pipes = dict.fromkeys(('stdout', 'stderr'), subprocess.PIPE)
    all_of = [subprocess.Popen([str(w) for w in words], text=True, env=env, **pipes) for words in commands]
    try: yield [(*p.communicate(timeout=limit)[::-1], p.returncode)[::-1] for p in all_of]
    finally:
        for p in all_of:
            if p.poll() is not None: continue
            for child in [*psutil.Process(p.pid).children(recursive=True), p]: child.kill()
            p.communicate()


TORCHRUN = [sys.executable, '-m', 'torch.distributed.run']
ACCELERATE = [sys.executable, *'-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1'.split(),
              *'--mixed_precision no --dynamo_backend no --main_process_port'.split()]
DIGITS = ['-m', 'resnet_course', 'train', *SMALL_NET, '--epochs', '1', '--bs', '32', '--device', 'cpu', '--out']


def check_digits(status, out, err, run):
    assert status == 0, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ['digits:', 'epoch', 'accuracy', 'in'] and len(lines) == 6, out
    right = float(pd.read_csv(run/'history.csv').accuracy.iloc[0])*364
    assert right == pytest.approx(round(right), abs=1e-3)
    return json.loads((run/'config.json').read_text())['machine']


@pytest.mark.slow
@pytest.mark.parametrize('launcher', [[*TORCHRUN, '--nproc-per-node', 2, '--master-port'], ACCELERATE],
                         ids=['torchrun', 'accelerate'])
def test_the_command_in_two_processes(tmp_path, request, launcher):
    if launcher is ACCELERATE and not request.config.getoption('--fuzz'):
        pytest.skip("it sets the variables that torchrun sets; --fuzz runs it")
    with started([*launcher, free_port(), *DIGITS, tmp_path/'run']) as [(status, out, err)]:
        machine = check_digits(status, out, err, tmp_path/'run')
    assert machine['processes'] == 2 and machine['threads'] == max(1, len(os.sched_getaffinity(0))//2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == 'win32', reason="a process there doesn't learn that its parent has gone")
@pytest.mark.parametrize('within', [[], ['--no-python', 'sh', '-c', '"$@"; exit $?', 'sh', sys.executable]],
                         ids=['itself', 'a shell'])
def test_a_launcher_that_is_killed_leaves_nobody_behind(tmp_path, within):
    "What has been finished stays, and another run may have the folder"
    run = tmp_path/'run'
    words = [*TORCHRUN, '--nproc-per-node', 2, '--master-port', free_port(), *within, *DIGITS, run, '--epochs', 500]
    launcher = subprocess.Popen([str(w) for w in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env=os.environ | {'PYTHONPATH': str(ROOT)})
    ranks = []
    try:
        end = time.monotonic()+120
        while not (run/'checkpoint.pt').exists() and time.monotonic() < end: time.sleep(0.1)
        ranks = psutil.Process(launcher.pid).children(recursive=True)
        launcher.kill()
        launcher.wait(10)
        assert len(ranks) >= 2 and not psutil.wait_procs(ranks, 60)[1]
    finally:
        for p in [launcher, *(r for r in ranks if r.is_running())]: p.kill()
    assert (run/'checkpoint.pt').exists() and [f.name for f in run.iterdir() if f.name.startswith('.')] == []


@pytest.fixture
def two_hosts():
    "Two network namespaces with a wire between them: how to start a command in each, and the first one's address"
    names = [f'rc{os.getpid()}{end}' for end in 'ab']

    def ip(*words): return subprocess.run(['ip', *map(str, words)], capture_output=True, text=True, check=True)
    if sys.platform != 'linux' or os.geteuid() or not shutil.which('ip'): pytest.skip("needs Linux, root and `ip`")
    try: ip('netns', 'add', names[0])
    except subprocess.CalledProcessError as e: pytest.skip(f"no network namespace here: {e.stderr.strip()}")
    try:
        ip('netns', 'add', names[1])
        ip('link', 'add', 'wire', 'netns', names[0], 'type', 'veth', 'peer', 'name', 'wire', 'netns', names[1])
        for i, name in enumerate(names, 1):
            ip('-n', name, 'addr', 'add', f'10.77.0.{i}/24', 'dev', 'wire')
            for link in ('lo', 'wire'): ip('-n', name, 'link', 'set', link, 'up')
        settings = ['env', 'OMP_NUM_THREADS=1', 'GLOO_SOCKET_IFNAME=wire']
        yield [['ip', 'netns', 'exec', name, *settings] for name in names], '10.77.0.1'
    finally:
        for name in names: subprocess.run(['ip', 'netns', 'del', name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_hosts(tmp_path, two_hosts):
    "The second has a run folder of another name, as a disk of its own would be: nothing is written there"
    inside, address = two_hosts
    words = [[*start, *TORCHRUN, '--nnodes', 2, '--nproc-per-node', 1, '--node-rank', i, '--master-addr', address,
              '--master-port', 29400, *DIGITS, tmp_path/f'run{i}'] for i, start in enumerate(inside)]
    with started(*words) as [(status, out, err), (status2, out2, err2)]:
        check_digits(status, out, err, tmp_path/'run0')
    assert status2 == 0 and not out2 and not (tmp_path/'run1').exists(), err2


# -- what it costs

@pytest.mark.slow
def test_the_benchmark_times_two_processes_and_what_they_say(bench, small, tmp_path):
    script, run = bench('ranks')
    words = ['--data', small, '--sizes', 32, '--bs', 8, '--steps', 2, '--rounds', 2, '--threads', 2]
    variants = script.cases(script.parser().parse_args([str(w) for w in words]))['resnet18, 32 px']
    assert {name: make.args[:3] for name, make in variants.items()} == {
        'one process': (1, 2, 16), 'two processes': (2, 1, 16), 'half the threads': (1, 1, 16)}
    script.trainer(*variants['one process'].args[4:])()  # an epoch, here
    run(*words, '--nets', '--numbers', 10, '--calls', 3, '--json', tmp_path/'ranks.json')
    record = json.loads((tmp_path/'ranks.json').read_text())
    again = script.parser().parse_args(record['command'].split()[2:])
    assert (again.numbers, again.steps, again.threads) == ([10], 2, 2)  # its command can be given
    told, = record['runs']
    assert [told[k] for k in ('case', 'processes', 'threads', 'images')] == ['all-reduce of 10', 2, 1, 3]
    assert len(told['seconds']) == 2 and min(told['seconds']) > 0


@pytest.mark.slow
def test_one_recipe_by_one_and_two_processes(bench, tmp_path):
    script, run = bench('batchnorm')
    run('--data', 'digits', '--processes', 1, 2, '--seeds', 3, '--epochs', 1, '--size', 32, '--width', 4,
        '--json', tmp_path/'batchnorm.json')
    record = json.loads((tmp_path/'batchnorm.json').read_text())
    assert [(r['variant'], r['seed']) for r in record['runs']] == [('1 process', 3), ('2 processes', 3)]
    assert [v['images'] for v in record['variants'].values()] == [64, 32]
    one, two = ([{k: v for k, v in e.items() if k != 'seconds'} for e in r['history']] for r in record['runs'])
    assert one != two and all(0.1 < h[-1]['accuracy'] <= 1 for h in (one, two))
    assert script.parser().parse_args(record['command'].split()[2:]).width == 4
