"Nets side by side: who is compared, how long each is trained, and by which rate"
import json
from collections import Counter
from types import SimpleNamespace

import pytest

from resnet_course.models import create_model, list_models


@pytest.fixture
def compare(bench): return bench('compare')


def test_all_named_nets_up_to_a_limit_are_compared(compare):
    script, _ = compare
    macs = {name: script.cost(create_model(name, 10), script.SIZE)['MACs'] for name in list_models()}
    wanted = {name for name, n in macs.items() if n <= 360e6}
    assert Counter(n for names in script.FAMILIES.values() for n in names) == Counter(wanted) and len(wanted) == 12


@pytest.mark.parametrize('n', [1, 100, 1433, 1434, 5000])
def test_passes_see_each_image_as_often_as_any_other(compare, n):
    script, _ = compare
    train = script.loaded('digits', 0, 'cpu').train.new(cls=script.Passes, bs=64)
    train.n = n
    seen = []
    for _ in range(2):
        train.rng.seed(0)
        seen.append(train.get_idxs())
    counts = Counter(seen[0])
    assert seen[0] == seen[1] and len(seen[0]) == n and len(train) == n//64
    assert set(counts.values()) <= {n//1433, -(-n//1433)} and len(set(seen[0][:1433])) == min(n, 1433)
    assert n < 9 or seen[0] != train.get_idxs()


@pytest.mark.parametrize('at, tried', [(1e-2, 4), (3e-3, 3), (1e-3, 4), (3e-4, 5), (1e-1, 5), (1e-4, 5)])
def test_the_search_goes_on_at_an_edge(compare, monkeypatch, tmp_path, at, tried):
    "And ends with the best of them all, or at the last rate there is"
    script, _ = compare
    steps = script.RATES.index

    def trained(args, name, rate, n, seed, held_out):
        return {'images': n, 'history': [{'accuracy': 1-0.1*abs(steps(rate)-steps(at))+0.01*seed, 'seconds': 0}]}
    monkeypatch.setattr(script, 'trained', trained)
    args = SimpleNamespace(data='digits', tiny=True, json=tmp_path/'rates.json', commit='x', copy='', command='c')
    script.find_rates(args, ['nin', 'resnet34'])
    runs = json.loads((tmp_path/'rates.json').read_text())['runs']
    rates = {r['rate'] for r in runs}
    assert {r['variant'] for r in runs} == {'nin'} and len(runs) == 2*len(rates) and len(rates) == tried
    assert script.best(runs)[0] == at


def test_equal_time_by_what_was_measured(compare):
    script, _ = compare
    nets = [name for names in script.FAMILIES.values() for name in names]
    speed = dict(zip(nets, range(1, 13), strict=True))  # resnet18 takes one image a second
    costs = [{'case': 'training', 'variant': n, 'images': 10, 'seconds': [10/v, 10/v, 99], 'params': 1, 'MACs': 2}
             for n, v in speed.items()]+[{'case': 'memory', 'variant': n, 'MB': 1} for n in nets]
    rates = [{'variant': names[0], 'rate': r, 'history': [{'accuracy': a}]}
             for i, names in enumerate(script.FAMILIES.values()) for r, a in ((1., 0.5), (2., 0.4+0.2*(i % 2)))]
    found = script.variants_of({'runs': rates}, {'runs': costs}, 1000)
    assert {v: f['images'] for v, f in found.items()} == (
        {f'{n}, equal epochs': 1000 for n in nets} | {f'{n}, equal time': 1000*v for n, v in speed.items() if v > 1})
    for i, (family, names) in enumerate(script.FAMILIES.items()):
        for v in (f'{n}, equal epochs' for n in names):
            assert (found[v]['rate'], found[v]['family'], found[v]['MACs']) == (1.+i % 2, family, 2)


@pytest.mark.slow
def test_rehearsal(compare, tmp_path, monkeypatch):
    "What is measured is what is compared; a stopped script goes on"
    script, run = compare
    monkeypatch.setattr(script, 'FAMILIES', {'basic blocks': ('resnet18',), 'fire': ('squeezenet1_0',)})
    nets = '--nets', 'resnet18', 'squeezenet1_0'
    def record(name): return json.loads((tmp_path/f'{name}.json').read_text())
    run('cost', '--tiny', '--json', tmp_path/'cost.json', '--images', 64, '--rounds', 1, *nets)
    assert [(r['case'], r['variant']) for r in record('cost')['runs']] == [
        (case, n) for case in ('training', 'one image', 'memory') for n in ('resnet18', 'squeezenet1_0')]
    assert record('cost')['runs'][4]['MB'] > record('cost')['runs'][5]['MB'] > 0
    run('rates', '--tiny', '--json', tmp_path/'rates.json', *nets)
    words = '--tiny', '--json', tmp_path/'train.json', '--rates', tmp_path/'rates.json', '--cost', tmp_path/'cost.json'
    run('train', *words, '--seeds', 0)
    first = record('train')
    assert [r['variant'] for r in first['runs']] == [
        'resnet18, equal epochs', 'squeezenet1_0, equal epochs', 'squeezenet1_0, equal time']
    assert [r['images'] for r in first['runs']] == [v['images'] for v in first['variants'].values()]
    last = first['runs'].pop()
    (tmp_path/'train.json').write_text(json.dumps(first))
    run('train', *words, '--seeds', 0)
    again = record('train')['runs']
    assert again[:2] == first['runs'] and again[2]['history'][0]['accuracy'] == last['history'][0]['accuracy']
