"A person's own photographs: near-copies found, groups kept on one side, unequal classes shown equally"
import io
import re
import shutil
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL_NET, a_class_of_one
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import BalancedAccuracy, F1Score, accuracy
from fastai.torch_core import set_seed
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image
from tiny import TINY, fit

from resnet_course import CourseError
from resnet_course.data import get_data, image_files, list_images
from resnet_course.fast import fast_data, fast_learner
from resnet_course.model_files import load_model
from resnet_course.models import create_model
from resnet_course.onnx_files import calibration_images
from resnet_course.photos import (
    BalancedDL, alike_groups, balanced, bursts, class_weights, near_duplicates, small_views, taken, train_targets)
from resnet_course.predict import labelled_images, predict_many
from resnet_course.run_folder import divided_at_training, read_config

WALLS = [Image.fromarray(load_sample_image(f'{name}.jpg')) for name in ('china', 'flower')]


def pieces(n, seed=0):
    "Pieces of two photographs, each of its own place and size"
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        wall, side = WALLS[rng.integers(2)], int(rng.integers(80, 300))
        left, top = int(rng.integers(0, wall.width-side)), int(rng.integers(0, wall.height-side))
        found.append(wall.crop((left, top, left+side, top+side)))
    return found


def coded(im, kind, **kwargs):
    im.save(f := io.BytesIO(), kind, **kwargs)
    return f.getvalue()


def part(im, share):
    m = [round(side*(1-share)/2) for side in im.size]
    return im.crop((m[0], m[1], im.width-m[0], im.height-m[1]))


def mean_of(sides): return sum(sides)/len(sides)


# -- near-copies

@pytest.mark.parametrize('change', [
    lambda im: coded(im, 'JPEG', quality=20), lambda im: coded(im, 'WEBP', quality=30), lambda im: coded(im, 'PNG'),
    lambda im: im.resize((60, 60)), lambda im: im.resize((im.width*2, im.height)), np.asarray,
    lambda im: ImageEnhance.Brightness(im).enhance(.7), lambda im: im.rotate(1.5, Image.Resampling.BICUBIC),
    lambda im: part(im, .95)], ids='JPEG WEBP PNG small wide array dark turned cropped'.split())
def test_a_changed_copy_is_found(change):
    "Of 30 that were changed nine in ten, and of 4,000 pairs of strangers (some pieces overlap) hardly any"
    originals = pieces(60)
    pairs = near_duplicates(originals+[change(im) for im in originals[:30]])
    right = pairs.b-pairs.a == 60
    assert right.sum() >= 27 and (~right).sum() <= 6
    assert pairs.likeness.is_monotonic_decreasing and pairs.likeness.max() <= 1+1e-5


def test_a_copy_in_another_orientation_is_found(tmp_path):
    im, exif = pieces(1)[0], Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the pixels lie on their side
    im.save(tmp_path/'upright.jpg')
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'turned.jpg', exif=exif)
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'no note.jpg')
    pairs = near_duplicates([tmp_path/name for name in ('upright.jpg', 'turned.jpg', 'no note.jpg')])
    assert pairs[['a', 'b']].to_numpy().tolist() == [[0, 1]]


def test_one_colour_is_like_one_colour_alone():
    "An image without contrast has no direction: it is like others of its kind, and like no photograph"
    noisy = Image.fromarray(np.random.default_rng(0).integers(99, 102, (50, 50, 3), dtype=np.uint8))
    blank = [Image.new('RGB', (50, 50), 'white'), noisy, Image.new('L', (9, 5), 3)]
    pairs = near_duplicates(blank+pieces(5))
    assert set(pairs.a) | set(pairs.b) == {0, 1, 2}


@a_class_of_one
def test_pairs_across_the_parts(images, tmp_path):
    files = list_images(images)
    copied = shutil.copy(files['train'][5], tmp_path/'copied.png')
    listed = image_files(files=[*files['train'], copied], labels=['3']*12+['7']*12+['3'],
                         valid=[False]*24+[True])
    pairs = near_duplicates(listed, .999)
    assert pairs[pairs.across][['a', 'b']].to_numpy().tolist() == [[5, 24]]
    assert 'across' not in near_duplicates(listed.items)


def test_few_and_wrong_images(tmp_path):
    assert near_duplicates(pieces(1)).empty and len(near_duplicates(pieces(1)*2)) == 1
    for wrong in (0, 2, '0.9', True, float('nan')):
        with pytest.raises(CourseError, match='is no likeness'): near_duplicates(pieces(2), wrong)
    with pytest.raises(CourseError, match='no images to compare'): near_duplicates([])
    (tmp_path/'a.jpg').write_bytes(b'nothing')
    with pytest.raises(CourseError, match=r'1 of 3 images cannot be read: .*a\.jpg'):
        near_duplicates([*pieces(2), tmp_path/'a.jpg'])
    with pytest.raises(CourseError, match='1 of 3 images cannot be read: image 1 '):
        near_duplicates([pieces(1)[0], b'nothing', pieces(1)[0]])


@pytest.mark.parametrize('most', [0, -1, 1.5, True, '20'])
def test_a_number_of_copies(most):
    with pytest.raises(CourseError, match='most='): near_duplicates([np.zeros((8, 8, 3), np.uint8)]*3, most=most)


@pytest.mark.parametrize('name', ['photos', '/', Path('photos')])
def test_a_folder_is_no_list_of_images(name):
    with pytest.raises(CourseError, match='is one name; give image_files'): near_duplicates(name)


def test_memory_grows_with_the_images_not_with_their_pairs():
    "3,000 equal images are 4.5 million pairs; each is kept with its nearest, and all are one group"
    one = np.asarray(pieces(1)[0].resize((8, 8)))
    pairs = near_duplicates([one]*3000)
    assert len(pairs) <= 3000*21
    assert len(set(alike_groups(pairs, 3000))) == 1


def test_likeness_is_passed_on():
    pairs = pd.DataFrame({'a': [0, 1, 4], 'b': [1, 3, 5]})
    a, b, c, d, e, f, g = alike_groups(pairs, 7)
    assert a == b == d and e == f and len({a, c, e, g}) == 4
    assert alike_groups(pairs[:0], 3) == [0, 1, 2]


def test_views_of_any_kind_of_image(tmp_path):
    im = pieces(1)[0]
    kinds = im, np.asarray(im), coded(im, 'PNG'), torch.from_numpy(np.array(im))
    x = small_views(kinds)
    assert x.shape == (4, 192) and x.dtype == np.float32 and np.allclose(x@x.T, 1, atol=1e-5)


# -- when a photograph was taken

def photograph(file, when=None, tag=0x9003, said=None):
    exif = Image.Exif()
    text = said if said is not None else f'{when:%Y:%m:%d %H:%M:%S}' if when else None
    exif[0x0112] = 1
    if text is not None: (exif.get_ifd(0x8769) if tag == 0x9003 else exif)[tag] = text
    Image.new('RGB', (8, 8)).save(file, exif=exif)
    return file


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_when_a_photograph_was_taken(tmp_path, suffix):
    then = datetime(2026, 5, 4, 3, 2, 1)
    assert taken(photograph(tmp_path/f'a.{suffix}', then)) == then
    assert taken(photograph(tmp_path/f'b.{suffix}', then, 0x0132)) == then
    assert taken(photograph(tmp_path/f'c.{suffix}')) is None
    for i, said in enumerate(('', '0000:00:00 00:00:00', 'yesterday', '    :  :     :  :  ')):
        assert taken(photograph(tmp_path/f'{i}.{suffix}', said=said)) is None


def test_bursts(tmp_path):
    "In the order of the files, whatever the order in time; without a time each is alone"
    start = datetime(2026, 5, 4)
    seconds = 100, 0, None, 9, 18, 200, None, 105
    files = [photograph(tmp_path/f'{i}.jpg', None if s is None else start+timedelta(seconds=s))
             for i, s in enumerate(seconds)]
    groups = bursts(files)
    assert groups[0] == groups[7] and groups[1] == groups[3] == groups[4]
    assert len(set(groups)) == 5 and groups[2] != groups[6]
    assert len(set(bursts(files, seconds=200))) == 3 and bursts([]) == []


def test_broken_photographs_have_no_time(tmp_path):
    (tmp_path/'a.jpg').write_bytes(b'nothing')
    with pytest.raises(CourseError, match=r'a\.jpg'): taken(tmp_path/'a.jpg')
    with pytest.raises(CourseError, match=r'gone\.jpg'): bursts([tmp_path/'gone.jpg'])


# -- groups stay on one side

def made(sizes):
    "Images, labels and groups: of each class groups of these sizes"
    labels = [c for c, ns in sizes.items() for n in ns for _ in range(n)]
    groups = [f'{c}{g}' for c, ns in sizes.items() for g, n in enumerate(ns) for _ in range(n)]
    return [np.full((8, 8, 3), i % 256, np.uint8) for i in range(len(labels))], labels, groups


def sides(images, groups):
    n = len(images.train)
    return [[groups[i] for i in part] for part in (images.places[:n], images.places[n:])]


SIZES = {'cat': [10, 3, 3, 2, 2], 'dog': [4]*5, 'owl': [6, 6], 'eel': [1]*20, 'ape': [30]+[1]*10}


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('share', [0.1, 0.2, 0.5, 0.9])
def test_a_group_is_on_one_side_and_a_class_on_both(seed, share):
    files, labels, groups = made(SIZES)
    images = image_files(files=files, labels=labels, groups=groups, valid_pct=share, seed=seed)
    train, val = sides(images, groups)
    assert not set(train) & set(val) and len(train)+len(val) == len(labels)
    of = [Counter(group[:3] for group in part) for part in (train, val)]
    assert set(of[0]) == set(of[1]) == set(SIZES)
    if share == 0.2:
        assert 3 <= of[1]['cat'] <= 5 and of[1]['dog'] == 4 and of[1]['owl'] == 6 and of[1]['eel'] == 4


@a_class_of_one
def test_groups_of_one_are_no_groups():
    "Shares as without groups; another seed, another part; the same seed, the same"
    files, labels, _ = made({'a': [20], 'b': [10], 'c': [1], 'd': [2]})
    def held(seed, **kwargs): return image_files(files=files, labels=labels, seed=seed, **kwargs)
    alone = range(len(files))
    counts = [Counter(im.labels[len(im.train):]) for im in (held(0), held(0, groups=alone))]
    assert counts[0] == counts[1] == {'a': 4, 'b': 2}
    assert sides(held(0, groups=alone), alone) == sides(held(0, groups=alone), alone) != sides(held(1, groups=alone),
                                                                                           alone)


def test_a_group_may_span_classes():
    "A person who is in two classes is on one side with all of them"
    files, labels, _ = made({'a': [12], 'b': [12]})
    people = [f'person {i % 6}' for i in range(24)]
    images = image_files(files=files, labels=labels, groups=people, valid_pct=1/3)
    train, val = sides(images, people)
    assert len(set(val)) == 2 and not set(train) & set(val)
    assert Counter(images.labels[len(images.train):]) == {'a': 4, 'b': 4}


def test_a_class_in_one_group_is_named_and_not_measured():
    files, labels, groups = made({'a': [4, 4, 4], 'b': [9], 'c': [9], 'd': [1]})
    said = []
    images = image_files(files=files, labels=labels, groups=groups, report=said.append)
    assert len(said) == 1 and "none of class 'b' and 2 more is held out" in said[0]
    assert set(images.labels[len(images.train):]) == {'a'} and images.classes == ['a', 'b', 'c', 'd']
    with pytest.warns(UserWarning, match="class 'b'"): image_files(files=files, labels=labels, groups=groups)


@pytest.mark.parametrize('groups', [
    [date(2026, 1, 1+i//4) for i in range(12)], [i//4 for i in range(12)], [(i//4, 'x') for i in range(12)],
    np.arange(12)//4, pd.Series(list('aaaabbbbcccc')), torch.arange(12)//4, [1]*4+['1']*4+[2.5]*4,
    lambda item: int(item[0, 0, 0])//4, [frozenset({i//4}) for i in range(12)]],
    ids=['dates', 'numbers', 'tuples', 'array', 'series', 'tensor', 'mixed', 'function', 'sets'])
def test_a_group_may_be_named_in_many_ways(groups):
    files, _, _ = made({'a': [6], 'b': [6]})
    images = image_files(files=files, labels=['a', 'b']*6, groups=groups, valid_pct=1/3)
    assert sorted(i//4 for i in images.places[8:]) in ([0]*4, [1]*4, [2]*4)


@pytest.mark.parametrize('groups, says', [
    (['a']*11, 'groups has 11 entries for 12 images'), (['a']*13, 'groups has 13 entries'),
    (['a']*11+[None], 'groups has an empty entry'), (['a']*11+[float('nan')], 'groups has an empty entry'),
    ([1]*11+[pd.NaT], 'groups has an empty entry'), ([1]*11+[pd.NA], 'groups has an empty entry'),
    ([['a']]*12, r"groups has \['a'\], a list; a group is"), ([{}]*12, r'groups has \{\}, a dict'),
    (['a']*12, 'groups leaves nothing to hold out'), (5, 'groups=5 is no list'), (b'a', 'groups=.* is no list'),
    ('a', "groups='a' fits no part of"), ('(', r"groups='\(' is no pattern"), ([], 'groups has 0 entries'),
    (lambda item: None, 'groups has an empty entry')])
def test_what_is_no_group(groups, says):
    files, labels, _ = made({'a': [6], 'b': [6]})
    with pytest.raises(CourseError, match=says) as e:
        image_files(files=files, labels=labels, groups=groups, report=lambda line: None)
    assert '\n' not in str(e.value)


def test_groups_go_with_a_division(small, unsplit):
    files, labels, groups = made({'a': [2, 2], 'b': [2, 2]})
    with pytest.raises(CourseError, match='valid= and groups= both say'):
        image_files(files=files, labels=labels, groups=groups, valid=[0, 1]*4)
    with pytest.raises(CourseError, match='groups= helps to say which share'): image_files(small, groups='.')
    with pytest.raises(CourseError, match='of its own'): image_files(small, groups='.', valid_pct=0.2)
    with pytest.raises(CourseError, match='groups= helps'): image_files(image_files(small), groups='.')
    for labels_, says in (([*labels[:-1], None], 'labels has an empty entry'), (labels[:-1], 'labels has 7')):
        with pytest.raises(CourseError, match=says): image_files(files=files, labels=labels_, groups=groups)
    with pytest.raises(CourseError, match='valid_pct=2 is no share'):
        image_files(files=files, labels=labels, groups=groups, valid_pct=2)
    with pytest.raises(CourseError, match=r'fits no part of .*png'): image_files(unsplit, groups='^x', valid_pct=0.2)


@pytest.mark.parametrize('groups', [['a', 'b'], (1, 2), {'a': 1}, 7])
def test_a_list_of_groups_does_not_go_with_a_folder(unsplit, groups):
    "Whose files come in an order that nobody has said"
    with pytest.raises(CourseError, match='a list goes with files=') as e:
        image_files(unsplit, valid_pct=0.2, groups=groups)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('groups', [r'^(.)', re.compile('^.'), lambda f: f.name[0]],
                         ids='text pattern function'.split())
def test_groups_of_a_folder(tmp_path, digits, own_cache, groups):
    "By the file's name; what was left out is told, what is skipped is gone, a relative folder is one too"
    for label in '37':
        (tmp_path/'photos'/label).mkdir(parents=True)
        for i, f in enumerate(sorted((digits/'train'/label).iterdir())[:20]):
            shutil.copy(f, tmp_path/'photos'/label/f'{i//4}_{i}.png')
    (tmp_path/'photos'/'3'/'notes.txt').write_text('x')
    skip, said = tmp_path/'photos'/'3'/'0_0.png', []
    images = image_files(tmp_path/'photos', valid_pct=0.2, groups=groups, skip=[skip], report=said.append)
    assert 'notes.txt' in said[0] and len(said) == 1 and skip not in images.items and len(images.items) == 39
    assert not {f.name[0] for f in images.train} & {f.name[0] for f in images.val} and not images.whole
    assert images.labels == [f.parent.name for f in images.items] and set(images.labels[len(images.train):]) == {*'37'}
    if isinstance(groups, str):
        assert images.source == str(tmp_path/'photos')
        assert images.split == {'valid_pct': 0.2, 'seed': 0, 'groups': groups}
    else: assert images.source == 'list' and images.split is None
    for make in (get_data, fast_data):
        dls = make(images, 16, 16, bs=4, device='cpu', workers=0)
        assert (dls.train.n, dls.valid.n) == (len(images.train), len(images.val)) and list(dls.vocab) == ['3', '7']
    assert fast_data(tmp_path/'photos', 16, 16, bs=4, valid_pct=0.2, groups=groups, device='cpu',
                     report=said.append).valid.n == 8


@a_class_of_one
def test_a_relative_folder_may_have_groups(unsplit, monkeypatch):
    monkeypatch.chdir(unsplit.parent)
    images = image_files('photos', valid_pct=0.2, groups=lambda f: f)
    assert len(images.items) == 16 and all(f.exists() for f in images.items)


@pytest.fixture
def album(tmp_path, digits):
    "Two classes, photographs by four people each, whose names begin the files'"
    for label in '37':
        (tmp_path/'photos'/label).mkdir(parents=True)
        for i, f in enumerate(sorted((digits/'train'/label).iterdir())[:20]):
            shutil.copy(f, tmp_path/'photos'/label/f'{label}person{i//5}_{i}.png')
    return tmp_path/'photos'


def people(files): return {f.name.partition('_')[0] for f in files}


@pytest.mark.slow
def test_the_command_keeps_groups_together(command, refused, album, tmp_path):
    "In training, on resuming, in evaluation and in 8 bits; a run remembers the pattern, and so does what it proposes"
    run, words = tmp_path/'run', ['train', '--data', album, '--epochs', '1', *SMALL_NET]
    assert '--groups says' in refused(*words, '--groups', '^[^_]+', '--out', run)
    assert "fits no part of" in refused(*words, '--valid', '0.25', '--groups', '^x', '--out', run) and not run.exists()
    status, out, err = command(*words, '--valid', '0.25', '--groups', '^[^_]+', '--out', run)
    assert status == 0 and "--groups '^[^_]+'" in out, err
    split = read_config(run)['split']
    assert split == {'valid_pct': 0.25, 'seed': 0, 'groups': '^[^_]+'}
    assert split == divided_at_training(run/'model.safetensors', album)
    images = image_files(album, **split)
    assert len(images.val) == 10 and not people(images.train) & people(images.val)
    assert command('train', '--out', run, '--resume')[0] == 0
    assert '--groups . differs' in refused('train', '--out', run, '--resume', '--groups', '.')

    evaluate = 'evaluate', run/'model.safetensors', album
    assert "--valid 0.25 --groups '^[^_]+' asks about the others" in command(*evaluate)[2]
    for words in (['--valid', '0.25'], ['--valid', '0.25', '--groups', '^[^_]+']):
        status, out, err = command(*evaluate, *words)
        assert status == 0 and 'on 10 images' in out and not err
    for words in (['--valid', '0.5'], ['--valid', '0.25', '--groups', '.']):
        assert "another part of these images; give --valid 0.25 --groups '^[^_]+'" in refused(*evaluate, *words)
    held = labelled_images(album, '37', **split)[0]
    assert set(held) == set(images.val) and set(calibration_images(album, **split)) == set(images.train)


@pytest.mark.slow
@pytest.mark.parametrize('how', [shutil.copytree, shutil.move])
def test_a_folder_that_was_moved_is_divided_as_it_was(command, album, tmp_path, how):
    "By its images, not by its name: else evaluation would ask about images that were trained on, and say nothing"
    words = '--valid', '0.25', '--groups', '^[^_]+'
    assert command('train', '--data', album, '--epochs', '1', *SMALL_NET, *words, '--out', tmp_path/'run')[0] == 0
    model = tmp_path/'run'/'model.safetensors'
    was = command('evaluate', model, album, '--valid', '0.25')[1].splitlines()[:-1]
    how(album, tmp_path/'elsewhere')
    status, out, err = command('evaluate', model, tmp_path/'elsewhere', '--valid', '0.25')
    assert status == 0 and out.splitlines()[:-1] == was, err
    assert 'asks about the others' in command('evaluate', model, tmp_path/'elsewhere')[2]
    next((tmp_path/'elsewhere'/'3').iterdir()).unlink()  # another set of images: nobody knows
    assert divided_at_training(model, tmp_path/'elsewhere') is None


@a_class_of_one
def test_a_share_drawn_by_another_seed_is_judged_by_it(command, unsplit, tmp_path):
    "Python may draw any; `evaluate --valid` takes the one that the run was not trained on"
    images = next(im for im in (image_files(unsplit, valid_pct=0.3, seed=s) for s in range(1, 9))
                  if im.val != image_files(unsplit, valid_pct=0.3).val)
    run = fit(TINY, images, tmp_path/'run')
    wrong = sum(p != f.parent.name for f, p in zip(images.val, answers(run, images.val), strict=True))
    status, out, err = command('evaluate', run.folder/'model.safetensors', unsplit, '--valid', '0.3')
    assert status == 0 and f'accuracy {1-wrong/len(images.val):.1%} on {len(images.val)} images' in out, err


def answers(run, files):
    return predict_many(*load_model(run.folder/'model.safetensors'), files).idxmax(axis=1)


def test_a_run_with_groups_is_resumed_with_its_images_alone(tmp_path, own_cache, unsplit):
    "Its folder knows that they were given, and not which groups there were"
    def divided(seed=0):
        return image_files(unsplit, valid_pct=0.3, seed=seed, groups=lambda f: f.name[-5], report=lambda line: None)
    run = fit(TINY, divided(), tmp_path/'run')
    again = fit(None, divided(), tmp_path/'run', resume=True)
    assert again.history.accuracy.tolist() == run.history.accuracy.tolist()
    with pytest.raises(CourseError, match='give it again as data='): fit(None, None, tmp_path/'run', resume=True)
    other = next(im for im in map(divided, range(1, 9)) if im.val != divided().val)
    with pytest.raises(CourseError): fit(None, other, tmp_path/'run', resume=True)


# -- unequal classes

@pytest.fixture(scope='module')
def rare(digits):
    "30 images of 3 and 6 of 7 to learn from, 4 and 4 to judge by"
    files = [f for label, n in (('3', 34), ('7', 10)) for f in sorted((digits/'train'/label).iterdir())[:n]]
    held = [*range(30, 34), *range(40, 44)]
    return image_files(files=files, labels=[f.parent.name for f in files], valid=[i in held for i in range(44)])


LOADERS = pytest.mark.parametrize('make', [get_data, fast_data])


def loaders(make, images, **kwargs): return make(images, 16, 16, bs=8, device='cpu', workers=0, **kwargs)


@LOADERS
def test_weights_of_classes(make, rare, own_cache):
    dls = loaders(make, rare)
    assert train_targets(dls).tolist() == [0]*30+[1]*6
    weights = class_weights(dls)
    assert weights.tolist() == pytest.approx([.6, 3.]) and weights.dtype == torch.float32
    assert weights[train_targets(dls)].mean().item() == pytest.approx(1)


@LOADERS
def test_balanced_batches(make, rare, own_cache):
    "Each class equally often, each image of it as often as any other; validation and order are as they were"
    dls = balanced(loaders(make, rare))
    train = dls.train
    assert isinstance(train, BalancedDL) and len(train) == 4 and dls.valid.n == 8 and list(dls.vocab) == ['3', '7']
    orders = [train.get_idxs() for _ in range(3)]
    for order in orders:
        times = Counter(order)
        assert len(order) == 36 and sum(i < 30 for i in order) == 18
        assert {times[i] for i in range(30, 36)} == {3} and max(times[i] for i in range(30)) == 1
    assert orders[0] != orders[1]
    assert sorted(train.new(shuffle=False, drop_last=False).get_idxs()) == list(range(36))
    assert Counter(train.new().get_idxs())[30] == 3 and dls.new_empty().train.n == 0
    assert sorted(train.new(dls.valid.dataset, shuffle=True).get_idxs()) == list(range(8)), "other images as ever"
    y = torch.cat([y for _, y in train])
    assert len(y) == 32 and 12 <= y.sum() <= 18
    set_seed(3)
    first = balanced(loaders(make, rare)).train.get_idxs()
    set_seed(3)
    assert balanced(loaders(make, rare)).train.get_idxs() == first


@LOADERS
def test_training_with_what_is_balanced(make, rare, own_cache):
    dls = balanced(loaders(make, rare))
    model = create_model('ResNet', 2, layers=[1, 1, 1, 1], width=8)
    learn = fast_learner(dls, model, 'fp32', loss_func=CrossEntropyLossFlat(weight=class_weights(dls)),
                         metrics=[accuracy, BalancedAccuracy(), F1Score(average='macro')])
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(2, 1e-2)
        measured = learn.recorder.values[-1]
        preds, targets = learn.get_preds()
        _, trained_on = learn.get_preds(ds_idx=0)
    said = preds.argmax(1)
    right = [(said[targets == c] == c).float().mean().item() for c in (0, 1)]
    assert learn.recorder.metric_names[3:6] == ['accuracy', 'balanced_accuracy_score', 'f1_score']
    assert measured[3] == pytest.approx(mean_of(right))
    assert trained_on.tolist() == [0]*30+[1]*6, "each training image once, in its order"


@LOADERS
def test_balanced_equal_classes_are_as_before(make, own_cache, images):
    dls = balanced(loaders(make, images))
    assert sorted(dls.train.get_idxs()) == list(range(24))


# -- a table

def test_a_csv_in_two_lines(tmp_path, digits, own_cache):
    files = [f for label in '37' for f in sorted((digits/'train'/label).iterdir())[:8]]
    for f in files: shutil.copy(f, tmp_path/f'{f.parent.name}_{f.name}')
    table = pd.DataFrame({'file': [f'{f.parent.name}_{f.name}' for f in files], 'label': [f.parent.name for f in files],
                          'day': [i % 4 for i in range(16)]})
    table.to_csv(tmp_path/'photos.csv', index=False)
    df = pd.read_csv(tmp_path/'photos.csv')
    images = image_files(tmp_path, files=df.file, labels=df.label, groups=df.day, valid_pct=0.25)
    days = dict(zip(table.file, table.day, strict=True))
    assert {days[f.name] for f in images.train}.isdisjoint(days[f.name] for f in images.val)
    assert images.counts == {'train': 12, 'val': 4} and all(isinstance(f, Path) for f in images.items)
