"Images as a user has them: folders however they are spelled, lists, tables, pictures in memory; each fault is one line"
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.torch_core import set_seed
from fastai.vision.augment import Flip
from PIL import Image

from resnet_course import CourseError
from resnet_course.data import DATASETS, RGBImage, digits_path, find_dataset, get_data, image_files
from resnet_course.fast import BatchRandomResizedCrop, fast_data

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


def test_one_class_or_one_image_is_no_training(own_cache, table):
    for n in (1, 0):
        with pytest.raises(CourseError): image_files(files=table.file[:n], labels=table.label[:n])
    with pytest.raises(CourseError, match='bs=128 does not fit 32 training images'): fast_data(files=table.file,
                                                                                               labels=table.label,
                                                                                               device='cpu')
