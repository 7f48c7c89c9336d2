"Records and words agree: a displayed command means the recipe that its record holds, and run folders become a record"
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from conftest import ROOT, SMALL_NET

from resnet_course.recipes import read_recipe

COMMANDS = {path.stem: record for path in sorted((ROOT/'results').glob('*.json'))
            if (record := json.loads(path.read_text()))['command'].startswith('resnet-course train')}


@pytest.fixture
def of_command(monkeypatch):
    "What a `resnet-course train ...` means: recipe and data"
    monkeypatch.syspath_prepend(str(ROOT/'bench'))
    from runner import of_command
    return of_command


def held(record): return replace(read_recipe(record['recipe']), seed=0), record['data']['source']


@pytest.mark.parametrize('name', COMMANDS)
def test_a_command_builds_the_recipe_of_its_record(name, of_command):
    record = COMMANDS[name]
    recipe, data = held(record)
    assert of_command(record['command']) == (recipe, data)
    sizes = [h['size'] for h in record['runs'][0]['history']]
    assert list(recipe.sizes) == sizes and recipe.precision in ('auto', record['precision'])
    wrong = record['command'].replace('--recipe book', '--recipe fast').replace('--recipe laptop', '')
    if wrong != record['command']: assert of_command(wrong)[0] != recipe, "another pipeline passes for this one"


def texts():
    "Where commands are shown: name, the commands, the records it reads by their names"
    for path in (*sorted((ROOT/'nbs').glob('*.ipynb')), ROOT/'index.ipynb'):
        cells = json.loads(path.read_text())['cells']
        def all_of(kind, cells=cells): return '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == kind)
        names = [name for name in COMMANDS if re.search(rf"""['"]{re.escape(name)}['"]""", all_of('code'))]
        yield path.stem, all_of('markdown'), names
        if path.stem == 'index': yield 'README', (ROOT/'README.md').read_text(), names


SHOWN = [(where, ' '.join(words.split()), name) for where, prose, names in texts() for name in names
         for words in re.findall(r'resnet-course train(?: +[^\s`]+)*', prose)]
READERS = sorted({(where, name) for where, words, name in SHOWN if '--' in words})


@pytest.mark.parametrize('where, words, name', SHOWN)
def test_a_command_beside_a_record_is_that_of_the_record(where, words, name, of_command):
    "What trains the same net on the same images at the same sizes trains it the same way"
    def run(recipe, data): return data, recipe.net, recipe.net_options, recipe.sizes, recipe.presize
    shown, recorded = of_command(words), held(COMMANDS[name])
    if run(*shown) == run(*recorded): assert shown == recorded


@pytest.mark.parametrize('where, name', READERS)
def test_who_reads_a_record_shows_its_command(where, name, of_command):
    assert any(of_command(words) == held(COMMANDS[name]) for w, words, n in SHOWN if (w, n) == (where, name))


def test_the_readers_of_records_are_found():
    found = {where for where, _ in READERS}
    assert found >= {'08_training', '09_progressive_resizing', '14_ten_minutes', 'index', 'README'}


@pytest.mark.slow
def test_run_folders_become_a_record(command, of_command, small, tmp_path):
    words = ['--data', small, '--recipe', 'book', *SMALL_NET, '--progressive', '32', '--epochs', 1]
    for seed in 0, 1: assert command('train', *words, '--seed', seed, '--out', tmp_path/f'run-{seed}')[0] == 0
    assert command('train', *words, '--lr', 0.01, '--out', tmp_path/'other')[0] == 0
    def gather(*runs):
        about = '--what', 'What', '--copy', 'none'
        tool = [sys.executable, ROOT/'tools'/'record.py', tmp_path/'one.json', *about, *runs]
        return subprocess.run(tool, capture_output=True, text=True, cwd=ROOT, check=False)
    done = gather(tmp_path/'run-0', tmp_path/'run-1')
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path/'one.json').read_text())
    assert [r['seed'] for r in record['runs']] == [0, 1] and [len(r['history']) for r in record['runs']] == [1, 1]
    assert record['data'] == {'source': str(small), 'train': 24, 'val': 8, 'copy': 'none'} and record['name'] == 'one'
    assert of_command(record['command']) == held(record) and record['precision'] in ('fp32', 'bf16')
    assert held(record)[0].pipeline == 'book' and 'seed' not in record['recipe']
    assert re.fullmatch('[0-9a-f]{40}', record['commit'])
    refused = gather(tmp_path/'run-0', tmp_path/'other')
    assert refused.returncode == 2 and 'lr' in refused.stderr
