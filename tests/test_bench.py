"The recorded experiments can be run again: one line of a variant and seed at a time, kept when stopped"
import importlib.util
import json
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def accuracy(monkeypatch):
    "bench/accuracy.py as a module, with one small experiment more; called with the words of a command line"
    spec = importlib.util.spec_from_file_location('accuracy', ROOT/'bench'/'accuracy.py')
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    head = bench.with_head(lambda n: bench.pool_head(256, n))
    bench.EXPERIMENTS['small'] = "Twice the same", {name: (head, bench.one_cycle, 8) for name in 'ab'}

    def run(*words):
        monkeypatch.setattr(sys, 'argv', ['accuracy.py', *map(str, words)])
        bench.main()
    return run


def test_same_seed_same_result_and_a_stopped_experiment_goes_on(accuracy, small, tmp_path, capsys):
    file = tmp_path/'small.json'
    words = ['small', '--data', small, '--size', 32, '--epochs', 2, '--json', file]
    accuracy(*words, '--seeds', 0)
    first = json.loads(file.read_text())
    a, b = first['runs']
    assert {**a, 'variant': 'b', 'history': [{**h, 'seconds': 0} for h in a['history']]} == {**b, 'history': [{**h, 'seconds': 0} for h in b['history']]}
    assert [h['epoch'] for h in a['history']] == [1, 2] and first['data']['train'] == 24 and first['variants']['a']['params'] > 0
    accuracy(*words, '--seeds', 0, 1)
    runs = json.loads(file.read_text())['runs']
    assert runs[:2] == first['runs'] and [(r['variant'], r['seed']) for r in runs[2:]] == [('a', 1), ('b', 1)]
    with pytest.raises(SystemExit, match='another experiment'): accuracy(*words[:-4], '--epochs', 3, '--json', file)
