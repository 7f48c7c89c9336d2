"Experiments and benchmarks can be run again: a record grows by what it lacks, its ratios follow from what was measured"
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL_NET, slow

from resnet_course.cost import cost_table
from resnet_course.recipes import read_recipe


@pytest.fixture
def accuracy(bench, monkeypatch):
    "bench/accuracy.py with one small experiment more"
    script, run = bench('accuracy')
    head = script.with_head(lambda n: script.pool_head(256, n))
    twice = dict.fromkeys('ab', (head, script.one_cycle, 8))
    monkeypatch.setitem(script.EXPERIMENTS, 'small', ("Twice the same", twice))
    return run


@pytest.mark.slow
def test_same_seed_same_result_and_a_stopped_experiment_goes_on(accuracy, small, tmp_path, capsys):
    file = tmp_path/'small.json'
    words = ['small', '--data', small, '--size', 32, '--epochs', 2, '--json', file]
    accuracy(*words, '--seeds', 0)
    first = json.loads(file.read_text())
    a, b = first['runs']
    a0, b0 = ([{**h, 'seconds': 0} for h in r['history']] for r in (a, b))
    assert {**a, 'variant': 'b', 'history': a0} == {**b, 'history': b0}
    assert [h['epoch'] for h in a['history']] == [1, 2] and first['data']['train'] == 24
    assert first['variants']['a']['params'] > 0
    accuracy(*words, '--seeds', 0, 1)
    runs = json.loads(file.read_text())['runs']
    assert runs[:2] == first['runs'] and [(r['variant'], r['seed']) for r in runs[2:]] == [('a', 1), ('b', 1)]
    with pytest.raises(SystemExit, match='another experiment'): accuracy(*words[:-4], '--epochs', 3, '--json', file)


def test_turns_and_ratios(bench):
    measure, _ = bench('measure')
    called = []
    make = lambda name, **facts: lambda: {'images': 8, 'run': lambda: called.append(name), **facts}  # noqa: E731
    runs = measure.measure({name: make(name, MACs=n) for name, n in zip('abc', (6, 3, 6), strict=True)}, 4, 'a')
    assert ''.join(called) == 'abcbcacababc' and [len(run['seconds']) for run in runs] == [4, 4, 4]
    for run, seconds in zip(runs, ([1, 2, 3], [2, 6, 3], [1, 1, 3]), strict=True): run['seconds'] = seconds
    measure.ratios(runs, 'a')
    assert [run['ratio'] for run in runs] == [1, 2, 1] and [run['ratio per MAC'] for run in runs] == [1, 4, 1]
    first = measure.table([{'case': 'x', **run} for run in runs], 'a').splitlines()[2].split()
    assert first == ['x', 'b', '3', '1', '4', '2', '4']


def test_runs_made_elsewhere_say_so(bench, small, tmp_path):
    "A record keeps the commit and the machine of its first runs; a run of another commit names its own"
    runner, _ = bench('runner')
    def grow(commit, seeds):
        args = SimpleNamespace(json=tmp_path/'r.json', commit=commit, command='a command', copy='none')
        record = runner.Record(args, "What", small)
        record.fill([{'variant': 'a', 'seed': s} for s in seeds], lambda variant, seed: {'history': [commit]})
        return json.loads(args.json.read_text())
    first = grow('one', [0])
    assert first['commit'] == 'one' and first['runs'] == [{'variant': 'a', 'seed': 0, 'history': ['one']}]
    grown = grow('two', [0, 1])
    new = {'variant': 'a', 'seed': 1, 'history': ['two'], 'commit': 'two'}
    assert grown == {**first, 'runs': [*first['runs'], new]}


@pytest.mark.slow
def test_tricks_are_recipes(bench, small, tmp_path, monkeypatch):
    "Each variant is recorded as the recipe that was trained, nothing open; they differ in what their names say"
    script, run = bench('tricks')
    changes = 'base', 'antialiased stem', 'growing images', 'moving average of weights'
    file, (what, shared, variants) = tmp_path/'tricks.json', script.EXPERIMENTS['tricks']
    some, small_net = {name: variants[name] for name in changes}, {'net_options': {'width': 8}, 'presize': 64}
    monkeypatch.setitem(script.EXPERIMENTS, 'tricks', (what, {**shared, **small_net}, some))
    run('tricks', '--data', small, '--size', 64, '--epochs', 3, '--seeds', 1, '--json', file)
    record = json.loads(file.read_text())
    of = {name: read_recipe(v['recipe']) for name, v in record['variants'].items()}
    assert {r['variant'] for r in record['runs']} == set(of) == set(some)
    base = of['base']
    assert (base.sizes, base.bs, base.mirror, base.net_options) == ((64,)*3, 8, True, {'width': 8})
    assert of['antialiased stem'] == replace(base, net='blurred18')
    assert of['growing images'] == replace(base, sizes=(32, 48, 64))
    assert of['moving average of weights'] == replace(base, averaging=0.98, average_from=0.)
    assert [h['size'] for h in record['runs'][2]['history']] == [32, 48, 64]
    last = {tuple(r['history'][-1][k] for k in ('train_loss', 'valid_loss')) for r in record['runs']}
    assert len(last) == len(some), "a change changed nothing"


@pytest.mark.slow
@pytest.mark.parametrize('name, base, words', [
    ('input', 'ours', ['--bs', 4, '--batches', 1, '--rounds', 3]),
    slow('step', 'ours', ['--nets', 'resnet18', '--bs', 2, '--steps', 1, '--builds', 1, '--rounds', 2]),
    slow('epoch', 'ours', ['--bs', 8, '--rounds', 2, '--ways', 'book', 'ours']),
    slow('overhead', 'bare loop', ['--bs', 8, '--rounds', 3]),
])
def test_benchmarks_time_what_they_say(bench, small, tmp_path, monkeypatch, capsys, name, base, words):
    script, run = bench(name)
    if name == 'step': monkeypatch.setattr(script, 'LIBRARIES', {'ours': None})  # one library, two processes
    file = tmp_path/f'{name}.json'
    words = ['--data', small, '--sizes', 32, *words, '--json', file]
    run(*words)
    record, out = json.loads(file.read_text()), capsys.readouterr().out
    assert (record['name'], record['data']['train'], record['data']['val']) == (name, 24, 8)
    seconds = {r['variant']: np.array(r['seconds'])/r['images'] for r in record['runs']}
    args = script.parser().parse_args([str(w) for w in words])
    (case, variants), = script.cases(args).items()
    assert list(seconds) == list(variants) and {r['case'] for r in record['runs']} == {case}
    for r in record['runs']:
        assert (seconds[r['variant']] > 0).all() and len(r['seconds']) == args.rounds*getattr(args, 'builds', 1)
        assert r['ratio'] == pytest.approx(np.median(seconds[r['variant']]/seconds[base]))
        told = f" {r['variant']} ", f"{np.median(1/seconds[r['variant']]):,.0f} "
        lines = [line for line in out.splitlines() if line.strip().startswith(f"{case} ")]
        assert sum(all(words in line for words in told) for line in lines) == 1
    if name == 'step':
        layers = cost_table(script.create_model('resnet18', 10), 32)
        first = layers[layers['kind'] == 'Conv2d'].iloc[0]['MACs']  # the image needs no gradient
        assert {r['MACs'] for r in record['runs']} == {3*layers.iloc[-1]['MACs']-first}
    run(*words)
    assert json.loads(file.read_text())['runs'] == record['runs'] and capsys.readouterr().out == out
    with pytest.raises(SystemExit, match='another experiment'): run(*words, '--threads', 3)


def test_what_is_built_anew_is_measured_anew(bench):
    "Each build runs its rounds; the ratio is over all of them"
    script, _ = bench('measure')
    built = []

    def make(name):
        built.append(name)
        return {'images': 4, 'run': lambda: None}
    runs = script.measure({name: partial(make, name) for name in 'ab'}, 3, 'a', builds=2)
    assert built == ['a', 'b']*2 and [len(r['seconds']) for r in runs] == [6, 6]


@pytest.mark.slow
def test_peak_memory_is_that_of_a_fresh_process(bench, small, tmp_path, capsys):
    _, run = bench('memory')
    file, big = tmp_path/'memory.json', torch.ones(2**28)  # a GB here is not seen there
    run('--data', small, '--benchmarks', 'overhead', '--sizes', 32, '--bs', 8, '--json', file)
    floor, *runs = json.loads(file.read_text())['runs']
    assert floor['variant'] == 'imports alone' and [r['variant'] for r in runs] == ['bare loop', 'Learner'] and len(big)
    assert all(0 < floor['mapped'][0] < floor['MB'][0] < r['MB'][0] < 1500 for r in runs)
    assert f"{runs[0]['MB'][0]:,.0f}" in capsys.readouterr().out


@pytest.mark.slow
def test_budget_is_of_the_whole_process(bench, small, tmp_path):
    "Each seed is one run of the command: its history, its seconds and its own peak of memory"
    _, run = bench('budget')
    file, big = tmp_path/'budget.json', torch.ones(2**29)  # 2 GB here are not seen there
    words = ['--data', small, '--presize', 32, '--recipe', 'fast', '--json', file]
    run(*words, '--seeds', 0, 1, '--', *SMALL_NET[:4], '--bs', 8, '--size', 32, '--epochs', 2)
    a, b = json.loads(file.read_text())['runs']
    assert [a['seed'], b['seed']] == [0, 1] and len(a['history']) == len(b['history']) == 2 and len(big)
    for r in (a, b):
        assert sum(h['seconds'] for h in r['history']) < r['wall'] < 120 and 200 < r['MB'] < 1500
        assert r['speed']['GFLOP/s'] > 1 and list(r['speed']['images/s']) == ['32'] and r['speed']['images/s']['32'] > 1
    refused = tmp_path/'refused.json'
    too_many = '--size', 32, '--bs', 25
    with pytest.raises(subprocess.CalledProcessError): run(*words[:-1], refused, '--seeds', 0, '--', *too_many)
    assert not refused.exists()


@pytest.mark.slow
def test_growth_measures_what_is_there(bench, tmp_path, monkeypatch, capsys):
    "As many files as are asked for, in so many classes; the decoded images weigh what their pixels weigh"
    script, run = bench('growth')
    script.write(tmp_path/'data', 60, 32, 3)
    counts = {(f.parts[-3], f.parts[-2]) for f in tmp_path.glob('data/[tv]*/*/*.jpg')}
    assert counts == {(split, f'000{i}') for split in ('train', 'val') for i in range(3)}
    assert len([*tmp_path.glob('data/train/*/*.jpg')]) == 54 and len([*tmp_path.glob('data/val/*/*.jpg')]) == 6
    file = tmp_path/'growth.json'
    points = script.points
    monkeypatch.setattr(script, 'points', lambda args: [*points(args)][:2])
    run('--json', file, '--rounds', 1, '--images', 200, 400, '--sizes', 32, '--classes', 2)
    runs = json.loads(file.read_text())['runs']
    assert [(r['case'], r['n']) for r in runs] == [('images', 200), ('images', 400)]
    assert all(r[cost][0] > 0 for r in runs for cost in script.COSTS)
    assert [r['cache MB'][0] for r in runs] == pytest.approx([.6144, 1.2288], rel=.01)
    exponents, = [line for line in capsys.readouterr().out.splitlines() if 'exponent' in line]
    assert exponents.split()[-1] == '1.00'


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason="reads from /proc what a process has")
def test_beyond_trains_from_all_it_was_asked_for(bench, tmp_path, monkeypatch, capsys):
    "With a limit that holds: pixels in memory of its own would not fit"
    run = bench('beyond')[1]
    run('--json', tmp_path/'beyond.json', '--gigabytes', 0.05, '--side', 128)
    runs = json.loads((tmp_path/'beyond.json').read_text())['runs']
    assert [r['process'] for r in runs] == ['makes', 'opens'] and 'data MB' in capsys.readouterr().out
    assert all(r['GB'] == pytest.approx(.05, rel=.01) and r['begin'] > 0 < r['epoch'] for r in runs)
    assert all(-20 < r['data MB'] < 300 and r['MB'] > 50 for r in runs)


@pytest.mark.slow
def test_startup_ends_where_it_says(bench, tmp_path, monkeypatch, capsys):
    "The command with which a training ends after its first batch, timed beside one that does nothing"
    script, run = bench('startup')
    words = {'import torch': ['-c', 'pass'], 'train': ['-c', script.FIRST_BATCH, tmp_path]}
    monkeypatch.setattr(script, 'commands', lambda folder: words)
    run('--json', tmp_path/'startup.json', '--rounds', 1)
    nothing, train = json.loads((tmp_path/'startup.json').read_text())['runs']
    assert nothing['ratio'] == 1 < train['ratio'] and nothing['imports'] < .5 < train['imports']
    assert 'times torch' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('idea', ['ours', 'bfloat16 weights', 'contiguous'])
def test_an_idea_is_still_a_training(bench, idea):
    script, _ = bench('ideas')
    torch.manual_seed(0)
    x, y = torch.randn(8, 3, 32, 32), torch.arange(8)
    one = script.IDEAS[idea](script.create_model('resnet18', 10, width=8).train())
    losses = [one(x, y).item() for _ in range(20)]
    assert losses[-1] < losses[0]/2
