"How far to trust the brought weights: halves, ranges and scores are what the script says, and it can be stopped"
import json

import numpy as np
import pytest
import torch

from resnet_course.data import image_files


@pytest.fixture
def trust(bench): return bench('trust')


def test_half_of_each_class(trust):
    script, _ = trust
    y = torch.tensor([0]*10+[1]*7+[2]*4)
    mask = script.half(y, 0)
    assert [int(mask[y == c].sum()) for c in range(3)] == [5, 3, 2]
    assert torch.equal(mask, script.half(y, 0)) and not torch.equal(mask, script.half(y, 1))


def test_classes_keep_their_parts(trust, small):
    script, _ = trust
    whole, some = image_files(small), script.classes_of(small, ['7'])
    assert some.classes == ['7'] and {*some.train} < {*whole.train} and {*some.val} < {*whole.val}
    assert len(some.train) == 12 and len(some.val) == 4


def test_a_range_holds_the_mean_and_narrows(trust):
    script, _ = trust
    few, many = (script.spread(np.random.default_rng(0).normal(size=n)) for n in (50, 5000))
    assert few['low'] < 0 < few['high'] and many['high']-many['low'] < (few['high']-few['low'])/5


def test_scores_tell_apart(trust):
    script, _ = trust
    sure, unsure = torch.eye(4)*9, torch.zeros(4, 4)
    assert script.told_apart(sure, unsure) == {'softmax': 1., 'logit': 1., 'energy': 1.}
    assert script.told_apart(sure+5, sure)['softmax'] == .5 and script.told_apart(sure+5, sure)['energy'] == 1


def test_seen_is_what_validation_shows(trust, small):
    "The same bytes as the loader of a recipe with that middle share, before it normalises them"
    from resnet_course.fast import fast_data
    script, _ = trust
    images = image_files(small)
    dls = fast_data(small, 40, 32, bs=8, valid_scale=.875, device='cpu')
    want = torch.cat([x for x, _ in dls.valid])
    torch.testing.assert_close(script.prepared(script.seen(images.val, 40, 32)), want.as_subclass(torch.Tensor))


@pytest.mark.slow
def test_rehearsal(trust, tmp_path, own_cache):
    script, run = trust
    file = tmp_path/'trust.json'
    words = '--tiny', '--commit', 'none', '--json', file, '--seeds', 0
    run(*words, '--parts', 'calibration', 'shuffling', 'labels')
    first = json.loads(file.read_text())['runs']
    run(*words)
    record = json.loads(file.read_text())
    assert record['runs'][:len(first)] == first
    parts = {r['part'] for r in record['runs']}
    assert parts == {*script.PARTS}
    of = {(r['part'], r['variant']): r for r in record['runs'] if r['seed'] == 0}
    assert of['calibration', 'as it is']['accuracy'] == of['calibration', 'scaled']['accuracy']
    assert sum(b['images'] for b in of['calibration', 'scaled']['reliability']) == 46
    assert of['deletion', 'Grad-CAM']['more than Grad-CAM'] == {'area': 0., 'low': 0., 'high': 0.}
    assert {k for p, k in of if p == 'outside'} == {'ours', 'smoothing 0.0', 'smoothing 0.1'}
    assert len({tuple(r['classes']) for (p, k), r in of.items() if p == 'outside' and k != 'ours'}) == 1
    before = file.read_bytes()
    run(*words)
    assert file.read_bytes() == before
    with pytest.raises(SystemExit, match='another experiment'):
        run('--data', 'digits', '--json', file, '--commit', 'none')
