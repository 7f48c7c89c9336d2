"Images as a user has them: folders however they are spelled, lists, tables, pictures in memory; each fault is one line"
import gzip
import io
import os
import shutil
import tarfile
import threading
import unicodedata
import zipfile
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.augment import Flip
from conftest import SMALL_NET, a_class_of_one, slow
from PIL import Image

from resnet_course import CourseError, datasets
from resnet_course.data import (
    DATASETS, RGBImage, digits_path, find_data, find_dataset, get_data, image_files, list_images, usable_images)
from resnet_course.fast import BatchRandomResizedCrop, fast_data
from resnet_course.folders import images_in
from resnet_course.recipes import train

DIGITS = DATASETS['digits']


def mirrors(dls):
    "Whether the training batches may be mirrored"
    tfms = dls.train.after_batch.fs
    return any(f.flip for f in tfms if isinstance(f, BatchRandomResizedCrop)) or any(isinstance(f, Flip) for f in tfms)


@pytest.fixture(scope='module')
def table(digits):
    "Files and labels of two classes, 20 each, as a user's table has them"
    files = [f for label in '37' for f in sorted((digits/'train'/label).iterdir())[:20]]
    return pd.DataFrame({'file': [str(f) for f in files], 'label': [f.parent.name for f in files]})


# -- the same set, however it is spelled

def at_home(path):
    if not path.is_relative_to(Path.home()): pytest.skip("the cache folder is not under this home")
    return f'~/{path.relative_to(Path.home())}'


def linked(path, tmp):
    (tmp/'link').symlink_to(path, target_is_directory=True)
    return tmp/'link'


SPELLINGS = {
    'name': lambda p, tmp: 'digits',
    'path': lambda p, tmp: p,
    'text': lambda p, tmp: str(p),
    'slash': lambda p, tmp: f'{p}/',
    'relative': lambda p, tmp: os.path.relpath(p),
    'dots': lambda p, tmp: p/'train'/'..',
    'twice': lambda p, tmp: str(p).replace('/', '//'),
    'link': linked,
    'link above': lambda p, tmp: linked(p.parent, tmp)/p.name,
    'dataset': lambda p, tmp: find_dataset(p),
    'files': lambda p, tmp: image_files(p),
    'home': lambda p, tmp: at_home(p)}


@pytest.mark.parametrize('spelled', SPELLINGS)
def test_digits_are_never_mirrored(digits, tmp_path, spelled):
    source = SPELLINGS[spelled](digits, tmp_path)
    images = image_files(source)
    assert images.dataset == DIGITS and images.dataset.mirror is False
    assert (len(images.train), len(images.val)) == (1433, 364)
    if spelled not in ('path', 'link', 'name'): return
    for make in (fast_data, get_data):
        assert not mirrors(make(source, 32, 32, bs=8, workers=0, device='cpu'))
        assert mirrors(make(source, 32, 32, bs=8, mirror=True, workers=0, device='cpu'))


@pytest.mark.slow
def test_digits_by_list_from_their_folder_are_not_mirrored(own_cache, table):
    digits = digits_path()
    names = [f'{Path(f).parent.parent.name}/{Path(f).parent.name}/{Path(f).name}' for f in table.file]
    for source in ('digits', digits):
        assert not mirrors(fast_data(source, 32, 32, bs=8, files=names, labels=table.label, device='cpu'))


def test_other_folders_are_mirrored(small):
    for source in (small, f'{small}/', image_files(small)):
        assert mirrors(fast_data(source, 32, 32, bs=8, device='cpu'))
    assert not mirrors(fast_data(small, 32, 32, bs=8, mirror=False, device='cpu'))


def test_a_data_set_that_a_user_changed_is_still_found(digits):
    images = image_files(replace(DIGITS, bs=32, mirror=True))
    assert len(images.train) == 1433 and images.dataset.bs == 32 and images.dataset.mirror


def test_sizes_that_are_not_given_are_the_data_sets(digits):
    for make in (fast_data, get_data):
        assert make('digits', bs=8, workers=0, device='cpu').one_batch()[0].shape == (8, 3, 48, 48)


@pytest.mark.parametrize('source', ['', 'nowhere', 'no/where', Path('nowhere')])
def test_no_such_folder(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CourseError, match='digits, imagenette-160') as e: image_files(source)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('source', [5, None, ['a.png'], {'train': []}])
def test_a_source_of_another_type(source):
    with pytest.raises(CourseError): image_files(source)


# -- files that are left out

@pytest.mark.parametrize('spelled', ['path', 'text', 'relative', 'listed'])
def test_skipped_however_they_are_spelled(small, monkeypatch, spelled):
    monkeypatch.chdir(small.parent)
    fn = next((small/'train'/'3').iterdir())
    skip = [{'path': fn, 'text': str(fn), 'relative': os.path.relpath(fn), 'listed': str(fn)}[spelled]]
    images = image_files(image_files(small) if spelled == 'listed' else small, skip=skip)
    assert len(images.train) == 23 and fn not in images.items and not images.whole


def test_skipped_from_a_list(table):
    for skip in ([table.file[3]], [Path(table.file[3])]):
        images = image_files(files=table.file, labels=table.label, skip=skip)
        assert len(images.items) == 39 and Path(table.file[3]) not in images.items
    pictures = [RGBImage.create(f) for f in table.file]
    images = image_files(files=pictures, labels=table.label, skip=[3])
    assert len(images.items) == 39 and not any(im is pictures[3] for im in images.items)


# -- lists

def from_csv(table, tmp):
    table.to_csv(tmp/'t.csv', index=False)
    table = pd.read_csv(tmp/'t.csv', dtype={'label': str})
    return table.file, table.label


def flat(table, tmp):
    "One folder, the class in each name"
    (tmp/'flat').mkdir()
    for i, (f, label) in enumerate(zip(table.file, table.label, strict=True)):
        shutil.copy(f, tmp/'flat'/f'{label}_{i:02d}.png')
    files = sorted((tmp/'flat').iterdir())
    return files, [f.name.split('_')[0] for f in files]


def hugging_face(table, tmp):
    "Rows of pictures and numbers, as `datasets` gives them"
    rows = [{'image': Image.open(f), 'label': np.int64(n)} for f, n in zip(table.file, table.label, strict=True)]
    return [row['image'] for row in rows], [row['label'] for row in rows]


def rgb(table): return [np.asarray(Image.open(f).convert('RGB')) for f in table.file]


LISTS = {
    'lists': lambda t, tmp: (list(t.file), list(t.label)),
    'columns': lambda t, tmp: (t.file, t.label),
    'arrays': lambda t, tmp: (t.file.to_numpy(), t.label.to_numpy()),
    'csv': from_csv,
    'paths': lambda t, tmp: ([Path(f) for f in t.file], t.label),
    'iterators': lambda t, tmp: (iter(t.file), iter(t.label)),
    'categories': lambda t, tmp: (t.file, t.label.astype('category')),
    'other index': lambda t, tmp: (t.set_index(t.index[::-1]+100).file, t.label),
    'flat': flat,
    'PIL': lambda t, tmp: ([Image.open(f) for f in t.file], t.label),
    'bytes': lambda t, tmp: ([Path(f).read_bytes() for f in t.file], t.label),
    'pixels': lambda t, tmp: (np.stack(rgb(t)), t.label),
    'tensor': lambda t, tmp: (torch.tensor(np.stack(rgb(t))), t.label),
    'grey': lambda t, tmp: ([np.asarray(Image.open(f)) for f in t.file], t.label),
    'Hugging Face': hugging_face,
    'numbers': lambda t, tmp: (t.file, t.label.astype(int).to_numpy()),
    'tensors': lambda t, tmp: (t.file, torch.tensor(t.label.astype(int)))}


def look(image): return np.asarray(RGBImage.create(image).resize((32, 32), 2)).tobytes()


@pytest.mark.parametrize('kind', LISTS)
def test_lists(own_cache, table, tmp_path, kind):
    "Both pipelines show the same images with the same labels"
    files, labels = map(list, LISTS[kind](table, tmp_path))
    images = image_files(files=files, labels=labels)
    assert images.root is None and images.classes == ['3', '7']
    assert (len(images.train), len(images.val), len(images.labels)) == (32, 8, 40)
    ours, book = (make(images, 32, 32, bs=8, device='cpu') for make in (fast_data, get_data))
    (x, y), (bx, by) = ours.valid.one_batch(), book.valid.one_batch()
    assert y.tolist() == by.tolist() == [0]*4+[1]*4 and list(ours.vocab) == ['3', '7']
    assert torch.allclose(ours.valid.after_batch.fs[-1].decode(x).float(),
                          book.valid.after_batch.fs[-1].decode(bx)*255, atol=1)
    truth = {look(f): str(int(label)) for f, label in zip(files, labels, strict=True)}
    assert len(truth) > 30
    assert [truth[look(im)] for im in images.items] == images.labels


def test_numbers_are_in_their_own_order(table):
    images = image_files(files=table.file, labels=[10 if label == '3' else 9 for label in table.label])
    assert images.classes == ['9', '10']


def test_names_that_lie_in_a_folder(own_cache, table, tmp_path):
    files, labels = flat(table, tmp_path)
    images = image_files(tmp_path/'flat', files=[f.name for f in files], labels=labels, skip=[files[0].name])
    assert set(images.items) == set(files[1:])
    assert fast_data(images, 32, 32, bs=8, device='cpu').one_batch()[0].shape == (8, 3, 32, 32)


def test_class_is_never_read_off_a_path(own_cache, table):
    wrong = ['7' if label == '3' else '3' for label in table.label]
    for make in (fast_data, get_data):
        dls = make(files=table.file, labels=wrong, presize=32, resize=32, bs=8, workers=0, device='cpu')
        said = [dls.vocab[i] for i in dls.valid.one_batch()[1]]
        assert said == ['3' if f.parent.name == '7' else '7' for f in dls.valid_ds.items]
    with pytest.raises(CourseError, match='labels='): image_files(files=table.file)


# -- which are held out

def parts(images): return sorted(map(str, images.train)), sorted(map(str, images.val))


def test_mask(table):
    mask = np.arange(40) % 4 == 0
    series, tensor = pd.Series(mask, index=range(100, 140)), torch.tensor(mask)
    for valid in (mask, list(mask), series, mask.astype(int), tensor, iter(mask)):
        images = image_files(files=table.file, labels=table.label, valid=valid)
        assert parts(images) == (sorted(table.file[~mask]), sorted(table.file[mask]))
        assert images.labels == [*table.label[~mask], *table.label[mask]]


@a_class_of_one
def test_random_share_is_of_each_class_and_repeatable(table):
    labels = ['3']*30+['7']*9+['8']  # one class with one image: it is trained on
    def make(**kwargs): return image_files(files=table.file, labels=labels, **kwargs)
    first = make()
    assert Counter(first.labels[:len(first.train)]) == {'3': 24, '7': 7, '8': 1}
    assert Counter(first.labels[len(first.train):]) == {'3': 6, '7': 2}
    assert parts(make()) == parts(first) == parts(make(seed=0, valid_pct=0.2)) != parts(make(seed=1))
    set_seed(5)
    assert parts(make()) == parts(first)
    assert len(make(valid_pct=0.5).val) == 15+4 and len(make(valid_pct=0.99).train) == 3


@pytest.mark.parametrize('wrong', [0, 1, -0.1, 1.5, float('nan'), '0.2'])
def test_share_out_of_range(table, wrong):
    with pytest.raises(CourseError, match='valid_pct'):
        image_files(files=table.file, labels=table.label, valid_pct=wrong)


def test_shares_and_masks_go_with_lists(small):
    "Nothing that is said is passed over"
    for said in ({'valid_pct': 0.5}, {'valid': [True]}, {'labels': ['3']}, {'seed': 3}):
        with pytest.raises(CourseError, match='files='): image_files(small, **said)


@pytest.mark.parametrize('change, says', [
    (dict(labels=lambda t: t.label[:-1]), 'labels has 39 entries for 40 images'),
    (dict(valid=lambda t: [True]*3), 'valid has 3 entries for 40 images'),
    (dict(files=lambda t: []), 'images'),
    (dict(files=lambda t: [*t.file[:-2], 'gone.png', '/no/where.png']),
     '2 of 40 files are not there: gone.png, /no/where.png'),
    (dict(labels=lambda t: [*t.label[:-1], float('nan')]), 'empty entry'),
    (dict(labels=lambda t: [*t.label[:-1], None]), 'empty entry'),
    (dict(labels=lambda t: pd.Series([*t.label[:-1], None])), 'empty entry'),
    (dict(labels=lambda t: pd.Series([*[3]*39, None], dtype='Int64')), 'empty entry'),
    (dict(labels=lambda t: pd.Series([*t.label[:-1], None], dtype='category')), 'empty entry'),
    (dict(labels=lambda t: [*[3]*39, '7']), 'mixes kinds'),
    (dict(labels=lambda t: [*[1]*20, *[1.]*19, 2]), 'mixes kinds'),
    (dict(labels=lambda t: [*[1]*20, *[True]*19, 2]), 'mixes kinds'),
    (dict(labels=lambda t: [['3', '7']]*40), 'labels'),
    (dict(labels=lambda t: np.eye(2)[[0, 1]*20]), 'labels'),
    (dict(labels=lambda t: 5), 'labels'),
    (dict(files=lambda t: 5), 'files'),
    (dict(valid=lambda t: 5), 'valid'),
    (dict(valid=lambda t: [True]*40), 'train on'),
    (dict(valid=lambda t: [False]*40), 'hold out'),
    (dict(valid=lambda t: t.label == '7'), "class '7' is held out but not trained on"),
    (dict(valid=lambda t: [*[True]*5, float('nan'), *[False]*34]), 'valid has nan'),
    (dict(valid=lambda t: ['True', 'False']*20), "valid has 'True'"),
    (dict(valid=lambda t: ['train', '']*20), "valid has 'train'"),
    (dict(valid=lambda t: [3, 5]*20), 'valid has 3'),
    (dict(files=lambda t: [*t.file[:-1], 5]), 'image'),
    (dict(files=lambda t: [*t.file[:-1], None]), 'image'),
])
def test_what_is_wrong_with_a_list_is_one_line(own_cache, table, change, says, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {'files': table.file, 'labels': table.label} | {k: make(table) for k, make in change.items()}
    with pytest.raises(CourseError, match=says) as e: fast_data(**given, presize=32, resize=32, bs=4, device='cpu')
    assert '\n' not in str(e.value)


def test_broken_images_of_a_list_are_named(own_cache, table, tmp_path):
    files = [shutil.copy(f, tmp_path/f'{i}.png') for i, f in enumerate(table.file)]
    files[7].write_bytes(b'')
    with pytest.raises(CourseError, match=r'1 of 40 images cannot be read: .*7\.png'): fast_data(files=files,
                                                                                               labels=table.label,
                                                                                               presize=32, resize=32,
                                                                                               bs=8, device='cpu')
    pictures = [f.read_bytes() for f in files]
    with pytest.raises(CourseError, match='1 of 40 images cannot be read: image '):
        fast_data(files=pictures, labels=table.label, presize=32, resize=32, bs=8, device='cpu')
    assert len(fast_data(files=pictures, labels=table.label, presize=32, resize=32, bs=8, device='cpu',
                         skip=[7]).train_ds) in (31, 32)


@pytest.mark.parametrize('place', [0, 20, 39])
def test_the_number_of_a_broken_image_is_its_place_in_the_users_list(own_cache, table, place):
    "`skip=` takes the number that the error names"
    pictures = [Path(f).read_bytes() for f in table.file]
    pictures[place] = b''
    with pytest.raises(CourseError, match=f'image {place} '):
        fast_data(files=pictures, labels=table.label, presize=32, resize=32, bs=8, device='cpu')


@pytest.mark.parametrize('place', [0, 3, -1])
def test_a_broken_image_of_a_folder_is_named_wherever_it_is(small, refused, place):
    fn = sorted((small/'train').glob('*/*'))[place]
    fn.write_bytes(b'')
    says = f'1 of 32 images cannot be read: train/{fn.parent.name}/{fn.name}'
    with pytest.raises(CourseError, match=says): fast_data(small, 32, 32, bs=8, device='cpu')
    assert says in refused('train', '--data', small, '--out', small/'run', '--size', 32, '--bs', 8)


def test_one_class_or_one_image_is_no_training(own_cache, table, small):
    for n in (1, 0):
        with pytest.raises(CourseError): image_files(files=table.file[:n], labels=table.label[:n])
    for split in ('train', 'val'): shutil.rmtree(small/split/'3')
    for images, name in ((image_files(files=table.file, labels=['x']*40), "the list has one class, 'x'"),
                         (small, "small has one class, '7'")):
        for use in (usable_images, partial(get_data, bs=2), partial(fast_data, bs=2)):
            with pytest.raises(CourseError, match=f"{name}; a net needs two to choose between"): use(images)
    with pytest.raises(CourseError, match='bs=128 does not fit 32 training images'): fast_data(files=table.file, bs=128,
                                                                                               labels=table.label,
                                                                                               device='cpu')


# -- an image that is listed twice

def linked(file, tmp_path):
    (tmp_path/'other.png').symlink_to(file)
    return tmp_path/'other.png'


def hard(file, tmp_path):
    os.link(file, tmp_path/'other.png')
    return tmp_path/'other.png'


AGAIN = {  # the same image once more, under any name
    'the same name': lambda f, tmp: f, 'another spelling': lambda f, tmp: f.parent/'..'/f.parent.name/f.name,
    'a link': linked, 'a hard link': hard, 'relative': lambda f, tmp: Path(os.path.relpath(f)),
    'bytes': lambda f, tmp: bytes(bytearray(f)), 'an object': lambda f, tmp: f}


def listed_twice(how, tmp_path, table):
    "Files, or images in memory, of which number 3 is there again as number 40"
    copies = [Path(shutil.copy(f, tmp_path/f'{i}.png')) for i, f in enumerate(table.file)]
    if how == 'bytes': copies = [f.read_bytes() for f in copies]
    if how == 'an object': copies = [np.asarray(Image.open(f)) for f in copies]
    return [*copies, AGAIN[how](copies[3], tmp_path)]


@pytest.mark.parametrize('how', AGAIN)
def test_an_image_that_is_listed_twice_stays_on_one_side(how, tmp_path, table):
    files, labels = listed_twice(how, tmp_path, table), [*table.label, table.label[3]]
    held = set()
    for seed in range(12):
        images = image_files(files=files, labels=labels, valid_pct=0.4, seed=seed)
        n = len(images.train)
        sides = {i: k < n for k, i in enumerate(images.places)}
        assert len(images.items) == 41 and sides[3] == sides[40]
        assert sum(not side for i, side in sides.items() if i != 40) == 16  # each image counts once
        held.add(sides[3])
    assert held == {True, False}
    for valid in ([i == 3 for i in range(41)], [i == 40 for i in range(41)]):
        with pytest.raises(CourseError, match='more than once, to learn from and held out') as e:
            image_files(files=files, labels=labels, valid=valid)
        assert ('image 40' if how in ('bytes', 'an object') else '.png') in str(e.value)
    def grouped():  # each alone, so the two come apart for some seed
        for seed in range(20): image_files(files=files, labels=labels, groups=range(41), seed=seed)
    with pytest.raises(CourseError, match='more than once, to learn from and held out'): grouped()
    assert len(image_files(files=files, labels=labels, valid=[i in (3, 40, 30) for i in range(41)]).val) == 3
    with pytest.raises(CourseError, match="more than once, as '3' and as '7'; an image has one class"):
        image_files(files=files, labels=[*table.label, '7'])


def test_rows_may_be_repeated_to_learn_them_more_often(table):
    "An image ten times in the list is ten times in training, or ten times held out"
    files, labels = [*table.file, *list(table.file[:5])*9], [*table.label, *list(table.label[:5])*9]
    images = image_files(files=files, labels=labels)
    n = len(images.train)
    assert len(images.items) == 85 and not set(images.items[:n]) & set(images.items[n:])
    assert len(set(images.items[n:])) == 8


# -- a class that nothing measures

def put_back(folder):
    for f in (folder/'val'/'7').iterdir(): shutil.move(f, folder/'train'/'7'/f'v{f.name}')
    (folder/'val'/'7').rmdir()


@pytest.mark.parametrize('kind', ['folder', 'list'])
@pytest.mark.parametrize('names, says', [
    (('dog', 'dog '), "classes 'dog' and 'dog ' differ"), (('Dog', 'dog'), "classes 'Dog' and 'dog' differ"),
    (('my dog', 'my_dog', 'MY  DOG'), "classes 'MY  DOG' and 'my dog' differ"),
    (('A', 'a', 'B', 'b', 'c'), "classes 'A' and 'a' (and 1 more) differ"),
    (('1', '-1', '10'), ''), (('dog', 'dogs', 'hot-dog'), '')])
def test_classes_that_may_be_one(tmp_path, kind, names, says):
    "Said once, and nothing is changed"
    for part in ('train', 'val'):
        for name in names:
            (tmp_path/part/name).mkdir(parents=True)
            Image.new('RGB', (9, 9)).save(tmp_path/part/name/'1.png')
    files, said = sorted(tmp_path.rglob('*.png')), []
    words = {'files': files, 'labels': [f.parent.name for f in files], 'valid': [f.parts[-3] == 'val' for f in files]}
    images = image_files(*[tmp_path] if kind == 'folder' else [], **words if kind == 'list' else {}, report=said.append)
    assert images.classes == sorted(names) and len(said) == bool(says)
    if says: assert said[0] == f'{says} in capitals or spaces alone; if they are one, call them the same'


def test_a_class_without_held_out_images_is_told(small, unsplit, table, command, tmp_path):
    "However the images are divided; by the library and by the command"
    labels, said = [*['a']*20, *['b']*18, 'c', 'd'], []
    put_back(small)
    for images, says in ((partial(image_files, small), "class '7' is held out.*put some of its images in val/"),
                         (partial(image_files, unsplit, valid_pct=0.2), "class '9' is held out.*: add images of it$"),
                         (partial(image_files, unsplit, valid_pct=0.2, groups=r'\d+'), "class '9' is held out"),
                         (partial(image_files, files=table.file, labels=labels), "class 'c' and 1 more is held out"),
                         (partial(image_files, files=table.file, labels=labels, valid=[1]*3+[0]*37), "'b' and 2 more"),
                         (partial(get_data, unsplit, 16, 16, valid_pct=0.2, workers=0, device='cpu'), "class '9'"),
                         (partial(fast_data, unsplit, 16, 16, valid_pct=0.2, device='cpu'), "class '9'")):
        with pytest.warns(UserWarning, match=f'none of .*{says}') as found: images()
        assert len(found) == 1
    said = []
    image_files(files=table.file, labels=labels, valid=[i%2 for i in range(38)]+[0, 0], report=said.append)
    assert said == ["none of class 'c' and 1 more is held out, so nothing measures it: add images of it"]
    with pytest.warns(UserWarning, match='hold out a larger share, or add images of it, not all in one group'):
        image_files(files=table.file, labels=labels, valid=[1]*10+[0]*30)
    words = ['--epochs', 1, *SMALL_NET, '--out', tmp_path/'run']
    status, out, err = command('train', '--data', unsplit, '--valid', 0.2, *words)
    assert status == 0 and out.count("none of class '9' is held out") == 1, err
    status, out, err = command('evaluate', tmp_path/'run'/'model.safetensors', unsplit, '--valid', 0.2)
    assert status == 0 and 'nan' not in out.lower() and [line.split() for line in out.splitlines()
                                                         if line.startswith('9')] == [['9', '0', '-']], out


@pytest.mark.parametrize('word, near', [('valid_pc', 'valid_pct'), ('lables', 'labels'), ('split', None)])
def test_a_word_that_nobody_knows(small, tmp_path, word, near):
    "The function that was called says so, and what was meant"
    for make in (partial(get_data, small, workers=0), partial(fast_data, small), partial(train, 'fast', small)):
        with pytest.raises(CourseError, match=f'{word}= is unknown here; '
                           + (f'did you mean {near}=' if near else 'take files, labels, ')):
            make(**{word: 0.2})


def test_two_parts_with_all_classes_are_told_nothing(small, table, recwarn):
    image_files(small)
    image_files(files=table.file, labels=table.label)
    assert not recwarn.list


# -- what is left out by name, and how many in a batch

@pytest.mark.parametrize('skip', [True, False, 'a.png', Path('a.png'), b'a.png', 3])
def test_skip_is_a_list(small, table, skip):
    for make in (partial(image_files, small), partial(image_files, files=table.file, labels=table.label),
                 partial(fast_data, small, 16, 16)):
        with pytest.raises(CourseError, match='is no list; give the files to leave out, or skip_broken=True'):
            make(skip=skip)


def test_what_cannot_be_read_is_left_out_in_python_too(small, unsplit, table, tmp_path):
    (unsplit/'3'/'bad.png').write_bytes(b'no')
    said = []
    images = usable_images(unsplit, skip_broken=True, report=said.append, valid_pct=0.2, seed=1)
    assert len(images.items) == 16 and not images.whole and 'skipped 1 of 17 images' in said
    listed = {'files': [*table.file, b'no'], 'labels': [*table.label, '7'], 'skip_broken': True, 'report': said.append}
    assert len(usable_images(None, **listed).items) == 40
    for make in (partial(get_data, workers=0), fast_data):
        dls = make(presize=16, resize=16, device='cpu', **listed)
        assert dls.train.n+dls.valid.n == 40
        with pytest.raises(CourseError, match=r'leave them out: skip_broken=True$'):
            make(presize=16, resize=16, device='cpu', **listed | {'skip_broken': False, 'files': [b'no', *table.file]})


@pytest.mark.parametrize('wrong', ['32', 0, -1, 32.5, [32]])
@pytest.mark.parametrize('name', ['presize', 'resize', 'bs'])
def test_a_side_or_a_batch_that_is_none(small, name, wrong):
    for make in (partial(get_data, workers=0), fast_data):
        with pytest.raises(CourseError, match=f'{name}=.*; take'): make(small, device='cpu', **{name: wrong})


@pytest.mark.parametrize('make', [slow(partial(get_data, workers=0)), fast_data])
def test_a_small_set_fits_a_batch(table, small, own_cache, make):
    "Smaller batches for a person's own few images, as the command has them; a known set as it says"
    for n, bs in ((40, 8), (10, 8), (4, 2)):
        chosen = table.iloc[[*range(n//2), *range(20, 20+n//2)]]
        dls = make(files=chosen.file, labels=chosen.label, valid_pct=0.4 if n == 4 else 0.2, presize=16, resize=16,
                   device='cpu')
        assert dls.bs == min(bs, dls.train.n) and len(dls.train) >= 1
        x, _ = dls.one_batch()
        assert len(x) == dls.bs
    assert make(small, 16, 16, device='cpu').bs == 8 and make('digits', 16, 16, device='cpu').bs == 64
    with pytest.raises(CourseError, match='bs=128 does not fit'): make(small, 16, 16, bs=128, device='cpu')


# -- folders: used, or named

def image(path, kind='PNG'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8, 8), 'teal').save(path, kind)


NFC, NFD = (unicodedata.normalize(form, 'caf\u00e9') for form in ('NFC', 'NFD'))
BYTES = b'\xe9\xff'.decode('utf-8', 'surrogateescape')  # as Latin-1 is read in a UTF-8 world


@pytest.mark.parametrize('name', ['a.JPG', 'a.jpe', 'a.jfif', 'a.mpo', 'a.webp', 'a.PnG', 'a.gif', 'a.dib', 'a.tif',
                                  'a.pgm', 'no suffix', 'a.', 'a.backup', 'a.jpg.1', 'a b\t.png', '\x1b[31m.png',
                                  f'{BYTES}.png', BYTES, f'{NFD}.png', '\u5199\u771f.png', '$x `y`.png', '-rf.png'])
def test_images_are_used_whatever_they_are_called(small, name):
    image(small/'train'/'3'/name)
    (small/'train'/'7'/f'link{name}').symlink_to(small/'train'/'3'/name)
    images = image_files(small)
    assert {small/'train'/'3'/name, small/'train'/'7'/f'link{name}'} <= set(images.train) and len(images.train) == 26
    assert get_data(images, 16, 16, bs=26, workers=0, device='cpu').one_batch()[0].shape == (26, 3, 16, 16)


def text(path): path.write_text('words')
def to_null(path): path.symlink_to('/dev/null')
def to_nothing(path): path.symlink_to('nowhere')
def to_itself(path): path.symlink_to(path.name)


LEFT_OUT = {
    'text': ('train/3/notes.txt', text, 'no image'),
    'page': ('train/3/README', text, 'no image'),
    'script': ('val/7/x\x1b[31m.sh', text, 'no image'),
    'heic': ('train/3/a.heic', text, 'needs the package pillow-heif'),
    'pipe': ('train/3/a.jpg', os.mkfifo, 'no regular file'),
    'dangling': ('train/3/a.png', to_nothing, 'a link to nothing'),
    'loop': ('train/3/a.png', to_itself, 'a link to nothing'),
    'device': ('train/3/a.png', to_null, 'a link to no regular file'),
    'deeper': ('train/3/more/a.png', image, 'in a folder inside a class'),
    'much deeper': ('train/3/more/and/more/a', image, 'in a folder inside a class'),
    'text deeper': ('train/3/more/a.txt', text, 'no image'),
    'linked folder': ('train/3/more', lambda path: path.symlink_to('..'), 'a link to a folder'),
    'beside the classes': ('train/a.png', image, 'in no class folder'),
    'text beside the classes': ('val/list.csv', text, 'no image')}


@pytest.mark.parametrize('kind', LEFT_OUT)
def test_what_is_left_out_is_named(small, kind, monkeypatch):
    monkeypatch.setattr('resnet_course.folders.SUFFIXES', {'.png', '.jpg'})  # as without pillow-heif
    name, make, why = LEFT_OUT[kind]
    (small/name).parent.mkdir(parents=True, exist_ok=True)
    make(small/name)
    images = image_files(small, report=(said := []).append)
    assert images.left_out == {small/name: why} and (len(images.train), len(images.val)) == (24, 8) and images.whole
    assert len(said) == 1 and said[0].startswith('left out 1 of 33 files: ') and f'({why})' in said[0]
    assert said[0].isprintable() and name.split('/')[-1].split('\x1b')[0] in said[0]
    for listed in (lambda **k: usable_images(small, **k), lambda **k: image_files(small, **k)):
        assert listed(report=(again := []).append).left_out == images.left_out and again == said
    with pytest.warns(UserWarning, match='left out 1 of 33'): get_data(small, 16, 16, bs=8, workers=0, device='cpu')
    assert image_files(images, skip=images.train[:1]).left_out == images.left_out


def test_junk_is_left_out_without_a_word_and_many_are_three(small):
    for name in ('Thumbs.db', 'desktop.ini', '.DS_Store', '._a.jpg', '.hidden/a.png', '__MACOSX/3/a.png'):
        (small/'train'/'3'/name).parent.mkdir(parents=True, exist_ok=True)
        (small/'train'/'3'/name).write_bytes(b'junk')
        if '/' not in name: text(small/'train'/name)
    assert not image_files(small).left_out
    for i in range(9): text(small/'train'/'3'/f'{i}.txt')
    image_files(small, report=(said := []).append)
    three = ', '.join(f'train/3/{i}.txt (no image)' for i in range(3))
    assert said == [f'left out 9 of 41 files: {three} and 6 more']


def moved(small, *pairs):
    for old, new in pairs:
        (small/new).parent.mkdir(parents=True, exist_ok=True)
        (small/old).rename(small/new)


WRONG = {
    'one folder too many': (lambda s: moved(s, ('train/3', 'x'), ('x', 'train/3/images')),
                            "class '3' in {s}/train has its 12 image(s) in 3/images/; move them up into 3/"),
    'two too many': (lambda s: moved(s, ('val/7', 'x'), ('x', 'val/7/a/b'), ('val/7/a/b/000.png', 'val/7/c/x')),
                     "class '7' in {s}/val has its 4 image(s) in 7/a/b/ and others; move them up into 7/"),
    'no split': (lambda s: moved(s, ('train/3', 'cat'), ('train/7', 'dog'), ('val', '.val'), ('train', '.train')),
                 '{s} has no folder train/ but class folders (cat/, dog/); move some images of each class to val/'),
    'other name': (lambda s: moved(s, ('val', 'valid')),
                   '{s} has no folder val/ (it has train/, valid/); put the images in train/CLASS/ and val/CLASS/'),
    'nested': (lambda s: moved(s, ('train', 'data/train'), ('val', 'data/val')),
               '{s} has no folder train/, but {s}/data has; give that'),
    'nothing': (lambda s: moved(s, ('train', '.a'), ('val', '.b')),
                '{s} has no folder train/; put the images in train/CLASS/ and val/CLASS/'),
    'a file': (lambda s: moved(s, ('val/3/000.png', 'x'), ('val', '.b'), ('x', 'val')),
               '{s} has no folder val/ (it has train/); put'),
    'case': (lambda s: moved(s, ('train/3', 'train/dog'), ('val/3', 'val/Dog')),
             "class 'Dog' is in val/ but not in train/, which has 'dog': call both the same"),
    'typing': (lambda s: moved(s, ('train/3', 'train/golden retriever'), ('val/3', 'val/golden_retriever')),
               "class 'golden_retriever' is in val/ but not in train/, which has 'golden retriever'"),
    'accents twice': (lambda s: moved(s, ('train/3', f'train/{NFC}'), ('train/7', f'train/{NFD}')),
                      '{s}/train has two folders that are both called'),
    'text only': (lambda s: [f.rename(f.with_name(f'.{f.name}')) for f in (s/'train'/'3').iterdir()],
                  "class '3' in {s}/train has no images; add some or remove the folder"),
    'control': (lambda s: (s/'val'/'x\x1b[2J\n').mkdir(), r"class 'x\x1b[2J\n' in {s}/val has no images"),
}


@pytest.mark.parametrize('kind', WRONG)
def test_a_wrong_folder_is_one_line_that_helps(small, kind):
    make, says = WRONG[kind]
    make(small)
    with pytest.raises(CourseError) as e: image_files(small)
    assert str(e.value).startswith(says.format(s=small)) and str(e.value).isprintable(), str(e.value)


def test_a_folder_that_may_not_be_listed(small, plain_user):
    (small/'train'/'3').chmod(0o000)
    try:
        with pytest.raises(CourseError, match=r'3 cannot be listed \(Permission denied\)'): image_files(small)
    finally: (small/'train'/'3').chmod(0o755)


def test_an_accent_is_one_class_however_it_is_stored(small, own_cache):
    moved(small, ('train/3', f'train/{NFC}'), ('val/3', f'val/{NFD}'))
    moved(small, *((f'{split}/7', f'{split}/{BYTES}') for split in ('train', 'val')))
    images = image_files(small)
    assert images.classes == sorted([NFC, BYTES]) and (len(images.train), len(images.val)) == (24, 8)
    for make in (fast_data, get_data):
        dls = make(images, 16, 16, bs=8, workers=0, device='cpu')
        assert list(dls.vocab) == images.classes
        assert Counter(dls.valid.one_batch()[1].tolist()) == {0: 4, 1: 4}
    listed = image_files(files=images.items, labels=[NFC]*16+[NFD]*10+['x']*6, valid_pct=0.25)
    assert listed.classes == [NFC, 'x'] and Counter(listed.labels) == {NFC: 26, 'x': 6}


def test_classes_that_differ_in_case_are_two(small):
    moved(small, *((f'{s}/{a}', f'{s}/{b}') for s in ('train', 'val') for a, b in (('3', 'dog'), ('7', 'Dog'))))
    with pytest.warns(UserWarning, match='differ in capitals'): assert image_files(small).classes == ['Dog', 'dog']


def test_folders_and_classes_that_are_links(small, tmp_path):
    (tmp_path/'elsewhere').mkdir()
    (small/'train'/'3').rename(tmp_path/'elsewhere'/'3')
    (small/'val').rename(tmp_path/'elsewhere'/'val')
    (small/'train'/'3').symlink_to(tmp_path/'elsewhere'/'3')
    (small/'val').symlink_to(tmp_path/'elsewhere'/'val')
    images = image_files(small)
    assert (len(images.train), len(images.val)) == (24, 8) and set(images.labels) == {'3', '7'}


@pytest.mark.parametrize('spelled', ['~', '~/', '~/.', '~/../small'])
def test_home_where_the_shell_did_not_expand_it(small, monkeypatch, spelled):
    monkeypatch.setenv('HOME', str(small))
    assert len(image_files(spelled).items) == 32 and len(list_images(spelled)['train']) == 24
    names = [f'~/{f.relative_to(small)}' for f in sorted(small.glob('*/*/*'))]
    labels = [n.split('/')[2] for n in names]
    images = image_files(files=names, labels=labels, skip=names[:1])
    assert len(images.items) == 31 and all(f.is_file() for f in images.items)
    assert len(image_files(spelled, skip=names[:1]).items) == 31


@pytest.mark.parametrize('source', ['~nobody-of-that-name/x', 'a\0b', 'x'*5000, '/dev/null', '-'])
def test_sources_that_are_none(source):
    with pytest.raises(CourseError, match='digits, imagenette-160'): image_files(source)


@pytest.mark.parametrize('n, bs', [(2, 1), (2, 2), (9, 4), (9, 8), (3, 2)])
def test_no_training_batch_of_one_image_left_over(small, n, bs):
    "One of 9 is left over in batches of 8, and batchnorm has nothing to compare it with"
    images = image_files(small)
    keep = [images.train[0], *images.train[12:12+n-1]]
    images = image_files(images, skip=[f for f in images.train if f not in keep] + [*images.val[1:4], *images.val[5:]])
    for make in (fast_data, get_data):
        dls = make(images, 16, 16, bs=bs, workers=0, device='cpu')
        assert [len(y) for _, y in dls.train] == [bs]*(n//bs) and [len(y) for _, y in dls.valid][-1] == 2 - (bs == 1)


@a_class_of_one
def test_one_validation_image(small, own_cache):
    images = image_files(small)
    images = image_files(files=images.train[:2]+images.train[-1:], labels=['3', '3', '7'], valid=[0, 1, 0])
    for make in (fast_data, get_data):
        assert [len(y) for _, y in make(images, 16, 16, bs=2, workers=0, device='cpu').valid] == [1]


# -- what is downloaded is whole or absent

def packed(folder, name, kind='tgz', more=()):
    "An archive of a folder, in memory"
    b = io.BytesIO()
    if kind == 'zip':
        with zipfile.ZipFile(b, 'w') as z:
            for f in sorted(folder.rglob('*')): z.write(f, f'{name}/{f.relative_to(folder)}')
        return b.getvalue()
    with tarfile.open(fileobj=b, mode='w:gz') as t:
        t.add(folder, name)
        for member, data in more:
            member.size = len(data)
            t.addfile(member, io.BytesIO(data))
    return b.getvalue()


def member(name, kind=tarfile.REGTYPE, link=''):
    m = tarfile.TarInfo(name)
    m.type, m.linkname = kind, link
    return m


@pytest.fixture
def served(tmp_path, monkeypatch, small):
    "`tiny`, a known set of 32 images at an address here; `answer['data']` is what comes, or `answer['code']`"
    answer = {'data': packed(small, 'tiny'), 'code': 200, 'short': 0, 'asked': 0}

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            answer['asked'] += 1
            self.send_response(answer['code'])
            if answer['short'] is not None: self.send_header('Content-Length', len(answer['data']) + answer['short'])
            self.end_headers()
            self.wfile.write(answer['data'])
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    tiny = datasets.Dataset('tiny', f'http://127.0.0.1:{server.server_port}/tiny.tgz', counts=(24, 8))
    monkeypatch.setitem(DATASETS, 'tiny', tiny)
    monkeypatch.setattr(datasets, 'fastai_path', lambda kind: tmp_path/'fastai'/kind)
    yield answer, tmp_path/'fastai'/'data'/'tiny'
    server.shutdown()
    server.server_close()


def test_download(served, small):
    answer, place = served
    with pytest.raises(CourseError, match='tiny is not on this disk'): find_data('tiny', download=False)
    assert answer['asked'] == 0 and not place.parent.exists()
    assert find_data('tiny') == place == find_data('tiny', download=False) == find_data(place) and answer['asked'] == 1
    assert sorted(f.name for f in place.iterdir()) == ['train', 'val'] and os.listdir(place.parent) == ['tiny']
    assert {f.relative_to(place) for f in place.rglob('*')} == {f.relative_to(small) for f in small.rglob('*')}
    assert len(image_files('tiny').items) == 32


def test_download_of_other_archives(served, small):
    answer, place = served
    absolute = member(f'{small.parent}/out.txt')
    for data in (packed(small, 'tiny', 'zip'), packed(small, '.'), packed(small, 'other'),
                 packed(small, 'tiny', more=[(absolute, b'x')])):
        answer['data'], answer['short'] = data, None
        assert find_data('tiny') == place and len(list(place.rglob('*.png'))) == 32
        assert not list(small.parent.rglob('out.txt'))
        shutil.rmtree(place)


def locked(data): return data.replace(b'PK\1\2\x14\3\x14\0\0', b'PK\1\2\x14\3\x14\0\1')
def cut(data): return data[:len(data)//2]
def flipped(data): return data[:len(data)//2] + bytes([data[len(data)//2] ^ 255]) + data[len(data)//2+1:]


ANSWERS = {
    'cut, length told': (lambda d, s: {'data': cut(d), 'short': len(d)-len(cut(d))}, 'only 1,.* bytes came'),
    'cut, length not told': (lambda d, s: {'data': cut(d), 'short': None}, 'cannot'),
    'cut, length agrees': (lambda d, s: {'data': cut(d)}, 'cannot'),
    'one byte wrong': (lambda d, s: {'data': flipped(d)}, 'cannot'),
    'page': (lambda d, s: {'data': b'<html>Log in</html>'}, 'what came is no archive'),
    'nothing': (lambda d, s: {'data': b''}, 'what came is no archive'),
    'not found': (lambda d, s: {'code': 404, 'data': b'<html>\nno\n</html>'}, 'Not Found'),
    'trouble': (lambda d, s: {'code': 503}, 'Service Unavailable'),
    'empty archive': (lambda d, s: {'data': gzip.compress(bytes(10240))}, 'no train/ and val/'),
    'locked archive': (lambda d, s: {'data': locked(packed(s, 'tiny', 'zip'))}, 'password'),
    'another archive': (lambda d, s: {'data': packed(s/'train', 'tiny')}, 'no train/ and val/'),
    'a part': (lambda d, s: (s/'val'/'3'/'000.png').unlink() or {'data': packed(s, 'tiny')},
               r'\(24, 7\) images, not \(24, 8\)'),
    'way out': (lambda d, s: {'data': packed(s, 'tiny', more=[(member('../../out.txt'), b'x')])}, 'outside'),
    'link out': (lambda d, s: {'data': packed(s, 'tiny', more=[
        (member('tiny/link', tarfile.SYMTYPE, str(s.parent)), b''), (member('tiny/link/out.txt'), b'x')])}, 'absolute'),
    'device': (lambda d, s: {'data': packed(s, 'tiny', more=[(member('tiny/zero', tarfile.CHRTYPE), b'')])}, 'special'),
}


@pytest.mark.parametrize('kind', ANSWERS)
def test_a_download_that_fails_leaves_nothing_and_the_next_succeeds(served, small, kind):
    answer, place = served
    good, (make, says) = dict(answer), ANSWERS[kind]
    answer.update(make(answer['data'], small))
    with pytest.raises(CourseError, match=says) as e: find_data('tiny')
    line = str(e.value)
    assert line.isprintable() and line.startswith('cannot download http://127.0.0.1') and str(place) in line
    assert not os.listdir(place.parent) and not list(small.parent.rglob('out.txt'))
    answer.update(good)
    assert find_data('tiny') == place and len(list(place.rglob('*.png'))) == 32


def test_no_byte_of_an_archive_is_wrong(served):
    "Also where it is a pixel's"
    answer, place = served
    data = answer['data']
    for at in range(len(data)//10, len(data), len(data)//12):
        answer['data'] = data[:at] + bytes([data[at] ^ 255]) + data[at+1:]  # all bits: one may only fill up a byte
        with pytest.raises(CourseError, match='cannot download'): find_data('tiny')
        assert not os.listdir(place.parent)


@pytest.mark.parametrize('signal', [KeyboardInterrupt, SystemExit])
def test_a_download_that_is_stopped_leaves_nothing(served, monkeypatch, signal):
    _, place = served
    def stopped(*args):
        raise signal
    with monkeypatch.context() as m:
        m.setattr(datasets, '_unpack', stopped)
        with pytest.raises(signal): find_data('tiny')
    assert not os.listdir(place.parent)
    assert find_data('tiny') == place


def test_a_known_set_that_is_not_whole_is_not_found(served):
    _, place = served
    find_data('tiny')
    shutil.rmtree(place/'val'/'3')
    next((place/'train'/'7').iterdir()).unlink()
    for source in ('tiny', place, DATASETS['tiny'].where):
        with pytest.raises(CourseError) as e: image_files(source)
        assert str(e.value) == (f'tiny is not whole: {place} has 23 of 24 training and 4 of 8 validation images; '
                                'remove that folder, and it is made anew')


@pytest.mark.parametrize('kind', ['no place', 'no configuration', 'of another'])
def test_a_home_where_fastai_cannot_keep_its_settings(small, tmp_path, monkeypatch, kind):
    "People's own folders need none; a known set lies where it would lie by fastai's usual settings"
    from fastai.data.external import fastai_cfg
    home = tmp_path/'home'
    if kind == 'no place': home.write_text('')
    else:
        home.mkdir()
        (home/'config.ini').write_text('not settings' if kind == 'no configuration' else '[DEFAULT]\nmodel = x\n')
    monkeypatch.setenv('FASTAI_HOME', str(home))
    fastai_cfg.cache_clear()
    try:
        assert find_data(small) == small
        with pytest.raises(CourseError, match='is not on this disk') as e: find_data('imagenette-160', download=False)
        assert str(home/'data') in str(e.value)
    finally: fastai_cfg.cache_clear()


@pytest.mark.slow
def test_digits_are_whole_or_written_again(own_cache):
    with pytest.raises(CourseError, match='digits is not on this disk'): find_data('digits', download=False)
    assert not own_cache.exists()
    path = digits_path()
    assert find_data('digits', download=False) == path
    inode = path.stat().st_ino
    assert digits_path() == path and path.stat().st_ino == inode
    (path/'val'/'3'/'000.png').unlink()
    with pytest.raises(CourseError, match=r'digits is not whole.*363 of 364'): find_data('digits', download=False)
    shutil.rmtree(path/'train'/'9')
    (own_cache/'.resnet_course.killed.part'/'train').mkdir(parents=True)
    assert len(image_files('digits').items) == 1797 and os.listdir(own_cache) == ['digits']


def test_images_in_any_folder(small):
    "As `predict` takes it: below it too, whatever they are called"
    image(small/'more'/'deep'/'no suffix')
    text(small/'notes.txt')
    (small/'loop').symlink_to('.')
    left_out = {}
    files = images_in(small, left_out)
    assert files == sorted([*small.glob('*/*/*.png'), small/'more'/'deep'/'no suffix']) and len(files) == 33
    assert left_out == {small/'notes.txt': 'no image', small/'loop': 'a link to a folder'}


# -- a folder without val/

@a_class_of_one
def test_a_share_of_each_class_is_held_out(unsplit):
    "The same one each time; nothing is moved, and a class of one image stays for training"
    images = image_files(unsplit, valid_pct=0.2)
    assert images.counts == {'train': 13, 'val': 3} and images.classes == ['3', '7', '9']
    assert sorted(f.parent.name for f in images.val) == ['3', '3', '7']
    assert sorted(images.items) == sorted(f for f in unsplit.rglob('*.png'))
    again, other = image_files(unsplit, valid_pct=0.2), image_files(unsplit, valid_pct=0.2, seed=1)
    assert again.val == images.val != other.val and again.split == {'valid_pct': 0.2, 'seed': 0} != other.split
    assert images.labels == [f.parent.name for f in images.items]
    fewer = image_files(unsplit, valid_pct=0.2, skip=[images.train[0]])
    assert len(fewer.items) == 15 and fewer.split == images.split


@a_class_of_one
def test_batches_of_a_divided_folder(unsplit, own_cache):
    from resnet_course.fast import fast_data
    for dls in (get_data(unsplit, 16, 16, bs=4, valid_pct=0.2, workers=0, device='cpu'),
                fast_data(unsplit, 16, 16, bs=4, valid_pct=0.2, device='cpu')):
        assert (dls.train.n, dls.valid.n) == (13, 3) and list(dls.vocab) == ['3', '7', '9']


@pytest.mark.parametrize('make, pct, says', [
    (lambda s: None, 0, 'valid_pct=0 is no share between 0 and 1'), (lambda s: None, 1., 'valid_pct=1.0 is no share'),
    (lambda s: None, '0.2', "valid_pct='0.2' is no share"),
    (lambda s: None, 0.01, 'of 16 images in 3 classes holds none'),
    (lambda s: (s/'empty').mkdir(), 0.2, "class 'empty' in {s} has no images"),
    (lambda s: (s/'train').mkdir() or (s/'3').rename(s/'train'/'3'), 0.2, "{s} has train/ of its own; leave"),
    (lambda s: shutil.copytree(s, s/'train') and shutil.copytree(s/'train', s/'val'), 0.2,
     '{s} has train/ and val/ of its own; leave valid_pct=0.2 out')])
def test_a_folder_that_cannot_be_divided(unsplit, make, pct, says):
    make(unsplit)
    with pytest.raises(CourseError) as e: image_files(unsplit, valid_pct=pct)
    assert says.format(s=unsplit) in str(e.value)


@a_class_of_one
def test_train_may_be_a_class(unsplit):
    (unsplit/'9').rename(unsplit/'train')
    assert image_files(unsplit, valid_pct=0.2).classes == ['3', '7', 'train']


@a_class_of_one
def test_divided_once(small, unsplit):
    with pytest.raises(CourseError, match='of its own'): image_files(small, valid_pct=0.2)
    with pytest.raises(CourseError, match='of its own'): image_files('digits', valid_pct=0.2)
    with pytest.raises(CourseError, match='comes too late'):
        image_files(image_files(unsplit, valid_pct=0.2), valid_pct=0.3)
    with pytest.raises(CourseError, match='seed=1 says which share'): image_files(small, seed=1)
    with pytest.raises(CourseError, match=r'is held out: valid_pct=0\.2'): image_files(unsplit)
