"What pretraining is worth: which classes and images a run learns from, and that it counts what it says"
import json
from argparse import Namespace
from collections import Counter
from functools import partial

import pytest
import torch
from conftest import ROOT

from resnet_course.data import find_dataset, image_files
from resnet_course.recipes import read_recipe
from resnet_course.results import read_result


@pytest.fixture
def reuse(bench, monkeypatch):
    "bench/reuse.py with a narrow net at small sizes"
    script, run = bench('reuse')
    monkeypatch.setattr(script, 'STEPS', 2)
    monkeypatch.setattr(script, 'EPOCHS', 1)
    return script, run


def test_classes_are_divided_and_keep_their_parts(reuse, small):
    script, _ = reuse
    whole, first, rest = image_files(small), *(script.classes_of(small, which) for which in (slice(1), slice(1, None)))
    assert first.classes == whole.classes[:1] and rest.classes == whole.classes[1:]
    assert not {*first.items} & {*rest.items} and {*first.items} | {*rest.items} == {*whole.items}
    for images in (first, rest):
        assert {*images.train} <= {*whole.train} and {*images.val} <= {*whole.val} and images.train and images.val


@pytest.mark.parametrize('count, want', [(1, 1), (3, 3), ('all', 6)])
def test_few_of_each_class(reuse, small, count, want):
    script, _ = reuse
    images = image_files(small)
    rows = script.few(images, count, 0)
    each = Counter(images.labels[i] for i in rows)
    n = Counter(images.labels[:len(images.train)])
    assert len({*rows}) == len(rows) and max(rows) < len(images.train)
    assert all(each[c] == (n[c] if count == 'all' else want) for c in images.classes)
    assert rows == script.few(images, count, 0) and (count == 'all' or rows != script.few(images, count, 1))


def test_batches_of_some_rows(reuse):
    script, _ = reuse
    store = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 8, 8, 3).contiguous()
    dl = script.SomeDL(list(range(10)), (store, 0, torch.arange(10)), bs=2, shuffle=True, num_workers=0)
    dl.rows, dl.n = [1, 4, 7], 3
    seen = [(int(image[0, 0, 0]), int(label)) for x, y in dl for image, label in zip(x, y, strict=True)]
    assert sorted(seen) == [(1, 1), (4, 4), (7, 7)]


@pytest.mark.parametrize('name, part', [('imagenette', 'CHOSEN'), ('transfer', 'TODAY'), ('laptop-confirm', 'TODAY')])
def test_a_record_can_be_made_again(reuse, name, part):
    "What the script trains today is what its record says, whatever becomes of the recipes that have names"
    script, _ = reuse
    record = json.loads((ROOT/'results'/'bench'/f'{name}.json').read_text())
    held = record['recipe'] if 'recipe' in record else record['variants']['today']['recipe']
    recipe = script.fill_recipe(getattr(script, part), find_dataset(record['data']['source']))
    assert read_recipe(held) == recipe


@pytest.mark.slow
def test_rehearsal(reuse, tmp_path):
    "From five digits to the five others: every method, what is forgotten, and a stopped script goes on"
    script, run = reuse
    args = Namespace(device='cpu', half=5, steps=2, least=2, data='digits',
                     variants={m: (5, m) for m in script.METHODS}, recipe=script.fill_recipe(
                         script.replace(script.TODAY, net_options={'width': 8}, presize=48, sizes=(32, 48)),
                         image_files('digits').dataset))
    args.taught, args.others = script.cache(partial(script.taught, args)), script.cache(partial(script.others, args))
    runs = {m: script.transfer(args, m, 0) for m in script.METHODS}
    assert all(r['images'] == 25 and r['steps'] >= 2 and 0 <= r['history'][0]['accuracy'] <= 1 for r in runs.values())
    assert 'before' not in runs['from scratch']
    befores = {r['before'] for m, r in runs.items() if m != 'from scratch'}
    assert len(befores) == 1, "the net that knows the first classes has been changed"

    file, words = tmp_path/'imagenette.json', ['imagenette', '--tiny', '--out', tmp_path/'runs', '--commit', 'none']
    run(*words, '--json', file)
    before = file.read_bytes()
    record, epochs = read_result('imagenette', tmp_path)
    assert record['recipe']['optimiser'] == 'Muon' and epochs['size'].tolist() == [32, 48]
    assert (tmp_path/'runs'/'imagenette-0'/'model.safetensors').exists()
    run(*words, '--json', file)
    assert file.read_bytes() == before
    file.unlink()
    run(*words, '--json', file)  # the folder is done: its history again
    assert json.loads(file.read_text())['runs'] == record['runs']
    with pytest.raises(SystemExit): run('imagenette', '--json', file)
