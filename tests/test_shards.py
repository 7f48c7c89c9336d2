"Image sets in shards: what is written is WebDataset, what is read is each image once, and what is harmed is one line"
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pandas as pd
import numpy as np
import pytest
import torch
from conftest import SMALL_NET, a_class_of_one, linked_digits
from fastai.distributed import DistributedDL
from PIL import Image
from test_ranks import all_well, fit, together
from tiny import TINY, results
from tiny import fit as fit_here

from resnet_course import CourseError, shards, store
from resnet_course.errors import StorageError
from resnet_course.cache import cache_folder, cached_images
from resnet_course.data import get_data, image_files
from resnet_course.distributed import shared
from resnet_course.fast import fast_data
from resnet_course.images import find_broken
from resnet_course.run import SaveRun
from resnet_course.shards import ShardImage, shard_files, shard_images, write_shards
from resnet_course.workers import worker_faults


def cut(images, out):
    "The set in shards of four; an image takes two blocks for itself and two for its class"
    write_shards(image_files(images), out, 4*2048)
    return out


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits):
    "26 training images make seven shards, the last of two"
    return linked_digits(tmp_path_factory.mktemp('data')/'images', digits, 13, 4)


@pytest.fixture(scope='module')
def seven(images, tmp_path_factory): return cut(images, tmp_path_factory.mktemp('shards')/'seven')


@pytest.fixture
def own(seven, tmp_path): return Path(shutil.copytree(seven, tmp_path/'own'))


def tar_of(path, members):
    "A tar as another tool would make it, without an index"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for name, data in members:
            (info := tarfile.TarInfo(name)).size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def picture(colour=0, kind='png'):
    Image.new('RGB', (9, 9), (colour, 0, 0)).save(data := io.BytesIO(), kind)
    return data.getvalue()


def refusal(source, **kwargs):
    with pytest.raises(CourseError) as e: image_files(source, **kwargs)
    assert '\n' not in str(e.value)
    return str(e.value)


# -- what is written

def test_the_set_is_the_folder(images, seven):
    "Images, classes and order, and so all that a seed decides"
    a, b = image_files(images), image_files(seven)
    assert len(shard_files(seven/'train')) == 7 and (b.counts, b.classes, b.labels) == (a.counts, a.classes, a.labels)
    assert [f.open('rb').read() for f in b.items] == [f.read_bytes() for f in a.items]
    assert [f.name for f in b.items] == [f.name for f in a.items] and len({*map(str, b.items)}) == 34


def test_what_is_written_is_webdataset(images, seven):
    "Pairs of neighbours with one key, an image and a number; classes mixed in each shard; the same bytes each time"
    folders = [f.parent.name for f in image_files(images).train]
    seen, mixed = [], []
    for file in shard_files(seven/'train'):
        with tarfile.open(file) as tar: members = [(m.name, tar.extractfile(m).read()) for m in tar]
        for (image, _), (number, label) in zip(members[::2], members[1::2], strict=True):
            assert image.endswith('.png') and number == image.replace('.png', '.cls')
            assert sorted({*folders})[int(label)] == image.split('/')[0]
            seen.append(image)
        mixed.append(len({image.split('/')[0] for image, _ in members}))
    assert sorted(s.split('/')[0] for s in seen) == folders and len({*seen}) == 26
    assert mixed.count(2) > 3, "not first all of one class, then all of the other"
    again = cut(images, seven.parent/'again')
    assert all((again/f.name).read_bytes() == f.read_bytes() for f in seven.glob('[!.]*'))
    said = json.loads((seven/'_info.json').read_text())
    assert said['classes'] == ['3', '7'] and said['splits']['train']['shard_lengths'] == [4]*6+[2]


@pytest.mark.slow
def test_other_tools_read_it(small, tmp_path):
    for f in small.glob('*/*/*.png'): Image.open(f).convert('RGB').save(f.with_suffix('.jpg')), f.unlink()
    out = cut(small, tmp_path/'out')
    script = """
import sys, webdataset, timm.data
from glob import glob
pairs = webdataset.WebDataset(sorted(glob(sys.argv[1]+'/train-*.tar')), shardshuffle=False).decode('pil')
print(sorted(number for _,number in pairs.to_tuple('jpg','cls')))
data = timm.data.create_dataset('wds/', root=sys.argv[1], split='train', is_training=False, batch_size=1)
print(len(data), sorted(number for _,number in data))
"""
    words = [sys.executable, '-W', 'ignore', '-c', script, out]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{[0]*12+[1]*12}\n24 {[0]*12+[1]*12}\n'


def test_names_that_would_lose_an_image(small, tmp_path):
    "A key ends at the first dot, so two of these would be one"
    for name in ('000.v2.png', '000_v2.png', '000.jpg'): shutil.copy(small/'val'/'3'/'000.png', small/'val'/'3'/name)
    found = image_files(cut(small, tmp_path/'out'))
    assert found.counts == {'train': 24, 'val': 11}
    assert len({f.stem for f in found.val if f.parent.name == '3'}) == 7, "so no two share a key"


def test_nothing_is_half_written(small, tmp_path, monkeypatch):
    def full(*_): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(tarfile.TarFile, 'addfile', full)
    with pytest.raises(OSError, match='No space'): write_shards(image_files(small), tmp_path/'out')
    assert not [f for f in tmp_path.iterdir() if f.name != 'small']


@a_class_of_one
def test_the_command(command, refused, unsplit, tmp_path):
    out = tmp_path/'out'
    assert "holds out" not in command('shard', unsplit, out, '--valid', '0.2')[1] and len(shard_files(out)) == 2
    assert 'is there already; take another' in refused('shard', unsplit, out, '--valid', '0.2')
    assert image_files(out).counts == image_files(unsplit, valid_pct=0.2).counts
    status, said, _ = command('shard', out, tmp_path/'again')
    assert status == 0 and '\ntrain: 13 images in 1 shard\nval: 3 images in 1 shard\nnext: resnet-course' in said
    assert command('shard', unsplit, tmp_path/'small', '--valid', '0.2', '--shard-mb', '0.01')[0] == 0
    assert len(shard_files(tmp_path/'small')) == 4
    assert 'must be a number' in refused('shard', out, tmp_path/'none', '--shard-mb', '0')
    assert 'not of a list' in refused_list(tmp_path/'list')
    assert command('clean', out)[0] == 0 and len(shard_files(out)) == 2


def refused_list(out):
    files = [np.full((8, 8, 3), i, np.uint8) for i in range(4)]
    images = image_files(files=files, labels=list('abab'), valid=[0, 0, 1, 1])
    with pytest.raises(CourseError) as e: write_shards(images, out)
    return str(e.value)


# -- what is read

@pytest.mark.slow
@pytest.mark.parametrize('change', [{}, {'pipeline': 'book'}], ids=['fast', 'book'])
def test_the_net_is_the_same_to_the_bit(images, seven, tmp_path, monkeypatch, change):
    "As from the folder; also of a run that was stopped after an epoch, and went on"
    recipe, begin = replace(TINY, **change), SaveRun.before_epoch
    fit_here(recipe, images, tmp_path/'folder', workers=0)

    def before_epoch(self):
        begin(self)
        if self.epoch == 1: raise KeyboardInterrupt
    monkeypatch.setattr(SaveRun, 'before_epoch', before_epoch)
    with pytest.raises(KeyboardInterrupt): fit_here(recipe, seven, tmp_path/'run', workers=0)
    assert not (tmp_path/'run'/'curves.png').exists()
    monkeypatch.setattr(SaveRun, 'before_epoch', begin)
    fit_here(None, None, tmp_path/'run', True, workers=0)
    assert results(tmp_path/'run') == results(tmp_path/'folder')


@pytest.mark.parametrize('n', [2, 3])
@pytest.mark.parametrize('make', [fast_data, get_data])
def test_each_image_once_over_ranks(seven, n, make):
    "And equally many batches on each rank, though seven shards divide by neither; the last two of 26 wait"
    dl = make(seven, 32, 32, bs=6, device='cpu', workers=0).train
    parts, lengths = [], set()
    for rank in range(n):
        dl.rng.seed(3)
        with shared(dl, rank, n):
            lengths.add((len(dl), dl.n))
            parts.append(dl.get_idxs())
    assert lengths == {(4, 24//n)} and len({*chain(*parts)}) == 24 == sum(map(len, parts))


def test_fastais_own_loader_divides_it(seven):
    class Here(DistributedDL):
        def _broadcast(self, t, rank): return t
    parts, lengths = [], set()
    for rank in range(2):
        dl = fast_data(seven, 32, 32, bs=5, device='cpu').valid
        dl = Here(dl, rank=rank, world_size=2)
        parts.append(dl.get_idxs())
        lengths.add(len(dl))
    assert len(lengths) == 1 and sorted(chain(*parts)) == list(range(8))


@pytest.mark.slow
def test_each_image_once_over_workers_and_shuffled_by_epoch_and_seed(seven):
    orders = []
    for seed in (1, 1, 2):
        dl = get_data(seven, 8, 32, bs=13, device='cpu', workers=2).train
        dl.rng.seed(seed)
        dl.after_batch.fs.clear()
        for _ in range(2):
            seen = [image.numpy().tobytes() for x, _ in dl for image in x]
            assert len(seen) == len({*seen}) == 26
            orders.append(seen)
    assert orders[0] == orders[2] != orders[1] == orders[3] and orders[4] not in orders[:2]


@pytest.mark.slow
def test_two_processes_make_one_net(seven, tmp_path):
    a, b = all_well(together(tmp_path, fit, replace(TINY, pipeline='book'), seven, tmp_path/'run'))
    crops = a.gave['crops'], b.gave['crops']
    assert len(crops[0]) == len(crops[1]) == 6 and not {*crops[0]} & {*crops[1]}
    assert len(results(tmp_path/'run')[1].split()) == 3 and not b.out


def test_a_folder_of_shards_is_judged_as_the_folder_is(command, images, seven, tmp_path):
    from resnet_course.onnx_files import calibration_images
    model, tables = fit_here(TINY, images, tmp_path/'run').folder/'model.safetensors', []
    for folder in (images, seven):
        words = 'predict', model, folder, '--csv', tmp_path/'it.csv'
        assert command(*words)[::2] == (0, ''), folder
        table = pd.read_csv(tmp_path/'it.csv', index_col='image')
        tables.append(table.set_axis(['/'.join(Path(name).parts[-2:]) for name in table.index]).sort_index())
    assert len(tables[0]) == 34
    pd.testing.assert_frame_equal(*tables, atol=1e-5)
    one = command('predict', model, seven/'train-000006.tar', '--json')[1].splitlines()
    assert [json.loads(line)['image'] for line in one] == [str(f) for f in shard_images([seven/'train-000006.tar'])]
    ranges = calibration_images(seven, 100)
    assert len(ranges) == 26 and all('/train-' in str(f) for f in ranges)


def test_threads_read_where_there_is_no_pread(seven, monkeypatch):
    "As on Windows: many at once, and each gets its own bytes"
    found = shard_images(shard_files(seven))
    want = [f.open().read() for f in found]
    monkeypatch.delattr(os, 'pread')
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda f: f.open().read(), found*20))
    assert got == want*20 and len({*want}) > 20


def test_an_image_goes_to_another_process(seven):
    image = image_files(seven).train[0]
    again = pickle.loads(pickle.dumps(image))
    assert again == image and again.open('rb').read() == image.open('rb').read() and again.parent.name in '37'


@a_class_of_one
def test_divided_by_a_share_or_in_groups(unsplit, tmp_path):
    "Tars that do not say what is held out, and such that do"
    tar = tar_of(tmp_path/'all'/'all.tar', [(f'{f.parent.name}/{f.name}', f.read_bytes())
                                            for f in sorted(unsplit.rglob('*.png'))])
    a, b = (image_files(source, valid_pct=0.2) for source in (unsplit, tar.parent))
    assert [f.name for f in a.items] == [f.name for f in b.items] and a.counts == b.counts
    a, b = (image_files(source, valid_pct=0.3, groups=lambda f: f.name[:2], report=str)
            for source in (unsplit, tar.parent))
    assert [f.name for f in a.val] == [f.name for f in b.val] and b.val[0].open('rb').read(4) == b'\x89PNG'
    assert 'none that is called train' in refusal(tar.parent)
    write_shards(a := image_files(unsplit, valid_pct=0.2), tmp_path/'out')
    assert 'has train and val of its own' in refusal(tmp_path/'out', valid_pct=0.2)


# -- tars of others

LAYOUTS = {'names': ['x-train-0.tar', 'x-validation-0.tar'], 'folders': ['train/0.tar', 'val/0.tar'],
           'plain': ['training.tar', 'val.tar']}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kind', ['number', 'text', 'folder'])
def test_tars_of_others(tmp_path, layout, kind, monkeypatch):
    "An index is made, once; captions are nothing to us; a class is a number, a name, or a folder"
    label = {'number': lambda i: str(i % 3*9), 'text': lambda i: 'abc'[i % 3], 'folder': lambda i: 'xyz'[i % 3]}[kind]
    for name in LAYOUTS[layout]:
        members = []
        for i in range(6):
            key = f'{label(i)}/{i}' if kind == 'folder' else f'{i:04}'
            members += [(f'{key}.txt', b'a caption'), (f'{key}.PNG', picture(i))]
            if kind != 'folder': members.append((f'{key}.cls', label(i).encode()+b'\n'))
        tar_of(tmp_path/'set'/name, members)
    scans = []
    scan = shards.scan_tar
    monkeypatch.setattr(shards, 'scan_tar', lambda path: scans.append(path) or scan(path))
    for _ in range(2):
        images = image_files(tmp_path/'set')
        assert images.classes == sorted(map(label, range(3))) and images.counts == {'train': 6, 'val': 6}
        assert not images.left_out and images.train[0].open('rb').read() == picture(0)
    assert len(scans) == 2
    os.utime(tmp_path/'set'/LAYOUTS[layout][0], (1, 1))
    assert image_files(tmp_path/'set').counts['train'] == 6 and len(scans) == 3


def test_an_index_that_cannot_be_kept_here_is_kept_at_home(own, own_cache, plain_user):
    for f in own.glob('.*.index'): f.unlink()
    own.chmod(0o555)
    try:
        assert image_files(own).counts['train'] == 26 and len(list(own_cache.glob('shards/*'))) == 9
        assert not list(own.glob('.*.index'))
    finally: own.chmod(0o755)


@pytest.mark.parametrize('index', ['', '[', '[[1, 2]]', '7', '{}', 'null'])
def test_an_index_that_is_none_is_made_again(own, index):
    for f in own.glob('.*.index'): f.write_text(index)
    assert image_files(own).counts == {'train': 26, 'val': 8}


def test_what_is_left_out_is_named(tmp_path):
    members = [('a/1.png', picture()), ('b/1.png', picture()), ('b/2.v2.png', picture()), ('b/3.png', b'')]
    for name in ('train.tar', 'val.tar'): tar_of(tmp_path/'set'/name, members)
    said = []
    assert image_files(tmp_path/'set', report=said.append).counts == {'train': 2, 'val': 2}
    assert 'left out 4 of 8 files' in said[0] and '2.v2.png (' in said[0] and '3.png (' in said[0]


@pytest.mark.parametrize('members', [[('1.png', picture())], [('1.png', picture()), ('1.cls', b'')],
                                     [('1.png', picture()), ('1.cls', b'a/b')], [('../1.png', picture())]])
def test_an_image_without_a_class(tmp_path, members):
    for name in ('train.tar', 'val.tar'): tar_of(tmp_path/'set'/name, members)
    assert '1.png in shard' in (line := refusal(tmp_path/'set')) and 'has no class' in line


# -- harm

def end_of(path):
    "Where the member begins that is in the middle, where its bytes begin, and where the last one ends"
    with tarfile.open(path) as tar:
        members = list(tar)
        return members[len(members)//2].offset, members[len(members)//2].offset_data, tar.offset


CUTS = {'between members': lambda f: end_of(f)[0], 'in a header': lambda f: end_of(f)[0]+100,
        'in an image': lambda f: end_of(f)[1]+50, 'before its end': lambda f: end_of(f)[2],
        'in its end': lambda f: end_of(f)[2]+512, 'to nothing': lambda f: 0, 'to a byte': lambda f: 1}


@pytest.mark.parametrize('ours', [True, False])
@pytest.mark.parametrize('where', CUTS)
def test_cut_short(own, where, ours):
    "Between members, tarfile and the libraries for such sets lose the rest in silence"
    if not ours: (own/'_info.json').unlink()
    file = own/'train-000003.tar'
    os.truncate(file, CUTS[where](file))
    assert 'train-000003.tar is cut short, or no tar; copy it again' in refusal(own)


@pytest.mark.parametrize('name', ['train-000000.tar', 'train-000003.tar', 'train-000006.tar', 'val-000000.tar'])
def test_a_shard_is_missing(own, refused, name):
    (own/name).unlink()
    assert f'lacks the shard {name}; copy it again' in refusal(own)
    if name == 'train-000003.tar':
        assert f'lacks the shard {name}' in refused('train', '--data', own)
        (own/'_info.json').unlink()  # then a gap in the numbers tells
        assert f'lacks the shard {name}' in refusal(own)


@pytest.mark.parametrize('names, lacks', [
    ('train-8 train-9 train-11', 'train-10'), ('train-8 train-11', 'train-9'),
    ('train-08 train-09 train-11', 'train-10'), ('train-8 train-9 train-10 train-11', ''),
    ('train-099 train-100 val-000', ''), ('train-99 train-101', 'train-100'),
    ('train-0-of-3 train-2-of-3', 'train-1-of-3'), ('train-000-of-003 train-001-of-003', 'train-002-of-003'),
    ('train-1-of-3 train-2-of-3', 'train-0-of-3'), ('train-2-of-3 train-3-of-3', 'train-1-of-3'),
    ('train-1-of-2 train-2-of-2 val-0-of-1', ''), ('train-09-of-11 train-10-of-11', 'train-00-of-11')])
def test_a_number_is_missing(tmp_path, names, lacks):
    "Padded or not, and where a name tells how many there are, the first and the last too"
    for name in names.split(): (tmp_path/f'{name}.tar').touch()
    if not lacks: assert len(shard_files(tmp_path)) == len(names.split())
    else:
        with pytest.raises(CourseError, match=f'lacks the shard {lacks}.tar; copy'): shard_files(tmp_path)


def test_numbers_that_are_meant_to_be_far_apart(own):
    "`_info.json` says what there is"
    said = json.loads((own/'_info.json').read_text())
    said['splits']['train']['filenames'][-1] = 'train-000100.tar'
    (own/'_info.json').write_text(json.dumps(said))
    (own/'train-000006.tar').rename(own/'train-000100.tar')
    assert len(image_files(own).train) == 26


@pytest.mark.parametrize('said', ['cat', '0'])
def test_a_class_by_its_name_or_its_number(tmp_path, said):
    "Where the names are known, a `.cls` may hold either"
    with tarfile.open(tmp_path/'train-0.tar', 'w') as tar:
        for name, data in (('a.png', b'x'), ('a.cls', said.encode())):
            (member := tarfile.TarInfo(name)).size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path/'_info.json').write_text(json.dumps({'classes': ['cat', 'dog'], 'splits': {
        'train': {'filenames': ['train-0.tar'], 'shard_lengths': [1]}}}))
    image, = shard_images(shard_files(tmp_path))
    assert image.parent.name == 'cat'


def test_a_shard_has_other_images(own):
    shutil.copy(own/'val-000000.tar', own/'train-000003.tar')
    n = len(shard_images([own/'val-000001.tar']))
    tar_of(own/'train-000003.tar', [('3/1.png', picture())])
    assert n and 'train-000003.tar has 1 images, and _info.json says 4; copy it again' in refusal(own)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"splits": {"train": {"filenames": ["a"], "shard_lengths": []}}}'])
def test_an_info_that_is_none(own, text):
    (own/'_info.json').write_text(text)
    assert '_info.json does not list the shards; repair or remove it' in refusal(own)


HARM = {'gone': (lambda f: f.unlink(), 'cannot be read (No such file or directory)'),
        'cut': (lambda f: os.truncate(f, 1024), 'has changed since it was listed'),
        'new': (lambda f: os.utime(f, (1, 1)), 'has changed since it was listed')}


@pytest.mark.parametrize('harm', HARM)
def test_harmed_while_it_is_used(own, harm):
    images = image_files(own)
    dls = get_data(images, 8, 32, bs=26, device='cpu', workers=0)
    HARM[harm][0](own/'train-000003.tar')
    with pytest.raises(CourseError) as e: dls.train.one_batch()
    assert f'train-000003.tar {HARM[harm][1]}' in str(e.value) and '\n' not in str(e.value)
    with pytest.raises((CourseError, FileNotFoundError), match=r'(No such file.*|shard )train-000003\.tar'):
        fast_data(images, 8, 32, bs=8, device='cpu')


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_harmed_in_the_middle_of_a_training(own, refused, tmp_path, monkeypatch, workers):
    "One line, no hang, and the epochs before are kept"
    begin = SaveRun.before_epoch
    def before_epoch(self):
        begin(self)
        if self.epoch == 1: os.truncate(own/'train-000003.tar', 4096)
    monkeypatch.setattr(SaveRun, 'before_epoch', before_epoch)
    words = [*SMALL_NET[:-1], workers]
    line = refused('train', '--data', own, '--recipe', 'book', '--out', tmp_path/'run', '--epochs', '3', *words)
    assert 'train-000003.tar has changed since it was listed' in line and (tmp_path/'run'/'checkpoint.pt').exists()


@pytest.fixture
def server(seven, tmp_path, monkeypatch):
    "A server of the seven shards, whose `faults` say what becomes of a request, one after the other; what was asked"
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(SimpleHTTPRequestHandler):
        faults, asked = {}, []
        def __init__(self, *args): super().__init__(*args, directory=seven)
        def log_message(self, *args): pass
        def do_GET(self):
            name = self.path.rpartition('/')[2]
            self.asked.append(name)
            fault, data = next(self.faults.get(name, iter(())), None), (seven/name).read_bytes()
            if fault == 'gone': return self.send_error(404)
            if fault == 'log-in': data = b'<html>who are you?</html>'
            if fault == 'altered': data = data[:600]+bytes([data[600] ^ 1])+data[601:]  # one bit of its first image
            if fault == 'another': data = (seven/'train-000006.tar').read_bytes()  # a whole tar, of two images
            self.send_response(200)
            if fault == 'dropped': self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data[:len(data)//2] if fault in ('cut', 'dropped') else data)

    monkeypatch.setattr('resnet_course.datasets.fastai_path', lambda what: tmp_path/what)
    monkeypatch.setattr('resnet_course.store.time.sleep', lambda seconds: None)
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as served:
        Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        Handler.url = f'http://127.0.0.1:{served.server_port}/a set/seven/'.replace(' ', '%20')
        yield Handler
        served.shutdown()


def test_shards_that_are_elsewhere(server, images):
    "They come once, whole; the set is that of the folder, and then it needs no server"
    from resnet_course.datasets import find_data
    root = find_data(server.url)
    assert [(f.parent.name, f.name) for f in image_files(server.url).items] == [
        (f.parent.name, f.name) for f in image_files(cut(images, root.parent/'here')).items]
    assert len(server.asked) == len(set(server.asked)) == 1+len(list(root.glob('*.tar')))
    server.faults |= {name: iter(['gone']*9) for name in server.asked}
    assert find_data(server.url) == root and len(server.asked) == len(set(server.asked))


def test_a_set_that_has_grown_or_changed_on_its_server(server, seven, images):
    "Nobody asks, until `_info.json` is removed here; then what is new or another one is fetched"
    from resnet_course.datasets import find_data
    root, now = find_data(server.url), (seven/'_info.json').read_text()

    def asks_anew():
        (root/'_info.json').unlink()
        server.asked.clear()
        find_data(server.url)
        return sorted(server.asked)
    assert asks_anew() == ['_info.json']
    for f in (root/'train-000006.tar', root/'.train-000006.tar.index'): f.unlink()  # as if it had been made later
    assert asks_anew() == ['_info.json', 'train-000006.tar']
    put_back = another_set(seven, images)
    try:
        assert (seven/'_info.json').read_text() != now
        assert asks_anew() == ['_info.json', *(f'train-00000{i}.tar' for i in range(7))]
        assert all(f.read_bytes() == (seven/f.name).read_bytes() for f in root.glob('*.tar'))
        assert len(image_files(server.url).train) == 26
    finally: put_back()


@pytest.mark.parametrize('fault', ['cut', 'dropped', 'log-in', 'gone', 'another'])
@pytest.mark.parametrize('name', ['_info.json', 'train-000000.tar', 'val-000001.tar'])
def test_a_shard_that_comes_harmed_is_asked_for_again(server, name, fault):
    "Twice; then it is one line, what came before stays, and the next try fetches what is missing"
    from resnet_course.datasets import find_data
    server.faults[name] = iter([fault]*2)
    root = find_data(server.url)
    assert server.asked.count(name) == 3
    (root/name).unlink()
    server.faults[name], before = iter([fault]*3), len(server.asked)
    with pytest.raises(CourseError, match='cannot download http') as e: find_data(server.url)
    assert name in str(e.value) and '\n' not in str(e.value) and not (root/name).exists()
    assert set(server.asked[before:]) == {name}
    assert find_data(server.url) == root and len(image_files(root).train) == 26
    assert not list(root.glob('.resnet_course*'))


@pytest.mark.parametrize('name', ['../out.tar', '/tmp/out.tar', '.tar', 'a\\b.tar', 'other.txt'])
def test_a_list_of_shards_leaves_its_folder_alone(server, seven, tmp_path, monkeypatch, name):
    from resnet_course.datasets import find_data
    said = json.loads((seven/'_info.json').read_text())
    said['splits']['train']['filenames'][0] = name
    monkeypatch.setattr(Path, 'read_bytes', lambda f, read=Path.read_bytes:
                        json.dumps(said).encode() if f == seven/'_info.json' else read(f))
    with pytest.raises(CourseError, match='no tar beside it'): find_data(server.url)
    assert set(server.asked) == {'_info.json'}


# -- a store that holds some of the shards

ROOM = 25_000  # bytes: each of the nine shards has 10,240


@pytest.fixture
def few(server, monkeypatch):
    "The server, and a store of two shards"
    monkeypatch.setenv('RESNET_COURSE_STORE_GB', f'{ROOM/1e9:.9f}')
    store._came.clear(), store._lost.clear(), store._say_mixed.cache_clear()
    return server


def kept(root): return sum(f.stat().st_size for f in root.glob('*.tar'))
def tars_of(asked): return [name for name in asked if name.endswith('.tar')]


@pytest.mark.parametrize('indices', [True, False])
def test_a_store_holds_some_of_the_shards(few, images, own_cache, monkeypatch, indices):
    "The list needs no image if the server has indices; each shard is fetched once to be decoded, and then never again"
    if not indices:
        few.faults |= {f'.{name}-{i:06}.tar.index': iter(['gone']) for name in ('train', 'val') for i in range(9)}
    here = image_files(cut(images, own_cache.parent/'here'))
    sizes, fetch = [], store.fetch_file
    monkeypatch.setattr(store, 'fetch_file', lambda url, f: (sizes.append(kept(f.parent)+10_240), fetch(url, f))[1])
    there = image_files(few.url)
    assert [(f.parent.name, f.name) for f in there.items] == [(f.parent.name, f.name) for f in here.items]
    assert len(tars_of(few.asked)) == (0 if indices else 9)
    before = len(few.asked)
    pixels = cached_images(there, 40)[0][:]
    assert torch.equal(pixels, cached_images(here, 40)[0][:])
    again = tars_of(few.asked[before:])
    assert len(again) == len(set(again)) == 9
    assert max(sizes) <= ROOM and kept(there.root) <= ROOM
    assert torch.equal(cached_images(few.url, 40)[0][:], pixels) and len(tars_of(few.asked[before:])) == len(again)
    assert not list(there.root.glob('*.new')) and not list(there.root.glob('.*.new'))


def test_a_store_that_grows_fetches_the_rest(few, monkeypatch):
    root = image_files(few.url).root
    monkeypatch.delenv('RESNET_COURSE_STORE_GB')
    assert len(image_files(few.url).items) == 34 and len(list(root.glob('*.tar'))) == 9
    few.faults |= {name: iter(['gone']*9) for name in few.asked}
    assert len(image_files(root).items) == 34


@pytest.mark.parametrize('said', ['x', '0', '-1', 'inf', 'nan', '1 GB', '0.0', '1,5'])
def test_a_store_of_no_size(server, monkeypatch, said):
    monkeypatch.setenv('RESNET_COURSE_STORE_GB', said)
    assert refusal(server.url).startswith(f'RESNET_COURSE_STORE_GB={said!r} is no size')


def test_a_store_smaller_than_a_shard(few, monkeypatch):
    monkeypatch.setenv('RESNET_COURSE_STORE_GB', '0.000009')
    images = image_files(few.url)
    with pytest.raises(CourseError, match='keeps 9e-06; let it keep'):
        cached_images(images, 40)


@pytest.mark.parametrize('fault', ['cut', 'dropped', 'log-in', 'gone', 'another', 'altered'])
def test_a_shard_that_comes_back_harmed(few, fault):
    "Twice is nothing; after three times it is one line, and no image is skipped for it, nor asked for again at once"
    images, name = image_files(few.url), 'train-000003.tar'
    few.faults[name] = iter([fault]*2)
    pixels = cached_images(images, 40)[0][:]
    assert few.asked.count(name) == 3
    shutil.rmtree(cache_folder(images))
    for f in images.root.glob('*.tar'): f.unlink()
    shards._kept_open.cache_clear()
    few.faults[name], before = iter([fault]*3), len(few.asked)
    for words in ({}, {'skip_broken': True}):
        with pytest.raises(CourseError, match=name) as e: fast_data(few.url, 40, 40, 2, **words)
        assert '\n' not in str(e.value) and few.asked[before:].count(name) == 3
    store._lost.clear()  # a minute later
    assert torch.equal(cached_images(few.url, 40)[0][:], pixels)


@pytest.mark.parametrize('lie', ['another shard', 'no list', 'empty', 'other places', 'other sum'])
def test_an_index_that_is_not_of_its_shard(few, seven, monkeypatch, lie):
    "It is made from the shard, or what comes is refused"
    read, index = Path.read_bytes, '.train-000002.tar.index'
    stamp, members, crc = json.loads(read(seven/index))
    told = {'another shard': read(seven/'.train-000006.tar.index'), 'no list': b'{"a": 1}', 'empty': b'',
            'other places': json.dumps([stamp, [[*m[:2], m[2]+1, m[3]] for m in members], crc]).encode(),
            'other sum': json.dumps([stamp, members, crc ^ 1]).encode()}[lie]
    monkeypatch.setattr(Path, 'read_bytes', lambda f: told if f == seven/index else read(f))
    images = image_files(few.url)
    assert len(images.items) == 34
    if lie != 'other places': assert torch.is_tensor(cached_images(images, 40)[0][:])
    else:
        with pytest.raises(CourseError, match=r'it is another one than before; to take what is at .* now, remove'):
            cached_images(images, 40)


def test_many_readers_of_a_small_store(few):
    "Threads that read in mixed order, each after what another has just dropped; and it is said"
    images = image_files(few.url)
    wanted = [f for seed in range(12) for f in np.random.default_rng(seed).permutation(np.array(images.items, object))]
    with pytest.warns(UserWarning, match='images are read in mixed order'), ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda f: f.open().read(), wanted))
    assert read == [ShardImage.at(str(f), f.shard, f.place).open().read() for f in wanted]
    assert all(data[1:4] == b'PNG' for data in read) and kept(images.root) <= ROOM


def test_processes_share_a_small_store(few, tmp_path):
    code = ("import sys; from resnet_course.data import image_files; import numpy as np\n"
            "items = image_files(sys.argv[1]).items\n"
            "order = np.random.default_rng(int(sys.argv[2])).permutation(len(items))\n"
            "print(sum(len(items[i].open().read()) for i in order))")
    root = image_files(few.url).root
    words = sys.executable, '-W', 'ignore', '-c', code, root
    ran = [subprocess.Popen([*words, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(3)]
    said = [int(p.communicate(timeout=120)[0]) for p in ran]
    assert said == [sum(f.place[1] for f in image_files(root).items)]*3 and kept(root) <= ROOM


def test_a_training_from_a_small_store(few, command, tmp_path, monkeypatch):
    "The same run as from all shards, and nothing is fetched to go on with it"
    words = 'train', '--data', few.url, '--epochs', '2', *SMALL_NET
    assert command(*words, '--out', tmp_path/'few')[0] == 0
    few.asked.clear()
    assert command('train', '--resume', '--out', tmp_path/'few')[0] == 0 and tars_of(few.asked) == []
    monkeypatch.delenv('RESNET_COURSE_STORE_GB')
    assert command(*words, '--out', tmp_path/'all')[0] == 0
    first, second = (pd.read_csv(tmp_path/run/'history.csv').drop(columns='seconds') for run in ('few', 'all'))
    pd.testing.assert_frame_equal(first, second)


def another_set(seven, images):
    "The server's set made anew, mixed in another way: the same names, sizes and numbers of images"
    shards, order = sorted(seven.glob('*.tar')), image_files(images)
    kept_as_it_was = {f: f.read_bytes() for f in seven.iterdir() if f.is_file()}
    labelled = dict(zip(order.items, order.labels, strict=True))
    other = replace(order, train=order.train[::-1], labels=[labelled[f] for f in order.train[::-1]+order.val])
    write_shards(other, made := seven.with_name('made'), 4*2048)
    for f in kept_as_it_was: shutil.copy(made/f.name, f)
    shutil.rmtree(made)
    assert [f.stat().st_size for f in shards] == [10240]*9
    return lambda: [f.write_bytes(data) for f, data in kept_as_it_was.items()]


@pytest.mark.parametrize('bounded', [True, False])
def test_a_set_that_is_another_one_now(few, seven, images, monkeypatch, bounded):
    "What came before and what comes now are not mixed in silence; the line names the way out"
    if not bounded: monkeypatch.delenv('RESNET_COURSE_STORE_GB')
    root = image_files(few.url).root
    for name in ('train-000001.tar', 'train-000004.tar'):
        (root/name).unlink(missing_ok=True)
        if not bounded: (root/f'.{name}.index').unlink()
    put_back = another_set(seven, images)
    try:
        with pytest.raises(CourseError, match='it is another one than before') as e: cached_images(few.url, 40)
        assert f'now, remove {root}' in str(e.value) and 'train-00000' in str(e.value) and '.new' not in str(e.value)
        shutil.rmtree(root)
        store._lost.clear()
        assert len({f.name for f in image_files(few.url).train if f.parent.name == '3'}) == 13
        assert len(cached_images(few.url, 40)[0]) == 34
    finally: put_back()


def test_a_store_that_grows_in_the_middle(few, monkeypatch, calls_of_decode):
    "Those who have listed it before read on, and nothing is decoded again"
    before = image_files(few.url)
    pixels = cached_images(before, 40)[0][:]
    monkeypatch.delenv('RESNET_COURSE_STORE_GB')
    after = image_files(few.url)
    assert [(f.shard, f.place) for f in after.items] == [(f.shard, f.place) for f in before.items]
    assert all(f.open().read() for f in before.items) and len(list(before.root.glob('*.tar'))) == 9
    calls_of_decode.clear()
    assert torch.equal(cached_images(after, 40)[0][:], pixels) and not calls_of_decode


@pytest.fixture
def calls_of_decode(monkeypatch):
    from resnet_course import cache
    seen, whole = [], cache._decode
    monkeypatch.setattr(cache, '_decode', lambda *args: seen.append(1) or whole(*args))
    return seen


@pytest.mark.skipif(sys.platform != 'linux', reason="asks /proc")
def test_what_is_dropped_is_closed(few):
    "Or it would take its room on"
    images = image_files(few.url)
    for f in images.items: f.open().read()
    opened = [os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')]
    assert not [name for name in opened if str(images.root) in name]


def test_each_shard_once_whoever_reads(few, seven, done_model):
    "Judging images, looking for broken ones, asking what was trained on: shard by shard"
    from resnet_course.predict import predict_many
    from resnet_course.run_folder import look_at_images, trained_on
    from resnet_course.run import load_model
    images = image_files(few.url)
    mixed = [images.items[i] for i in np.random.default_rng(0).permutation(len(images.items))]
    model, spec = load_model(done_model)
    readers = {'broken': lambda: find_broken(mixed), 'fingerprint': lambda: look_at_images(images),
               'trained': lambda: trained_on(done_model, mixed), 'judged': lambda: predict_many(model, spec, mixed)}
    for name, read in readers.items():
        before = len(few.asked)
        given = read()
        assert len(tars_of(few.asked[before:])) <= 9, name
    assert list(given.index) == [str(f) for f in mixed]
    here = {(f.parent.name, f.name): f for f in image_files(seven).items}
    assert np.allclose(given, predict_many(model, spec, [here[f.parent.name, f.name] for f in mixed]), atol=1e-5)


@pytest.fixture
def done_model(images, command, tmp_path):
    words = 'train', '--data', images, '--epochs', '1', *SMALL_NET, '--out', tmp_path/'done'
    assert command(*words)[0] == 0
    return tmp_path/'done'/'model.safetensors'


def test_what_is_not_known_is_no_answer(few, done_model):
    "A server that is away doesn't make a trained image an unseen one"
    from resnet_course.run_folder import trained_on
    images = image_files(few.url)
    assert trained_on(done_model, images.train) == [True]*26
    for f in images.root.glob('*.tar'): f.unlink()
    few.faults |= {f'train-{i:06}.tar': iter(['gone']*3) for i in range(7)}
    with pytest.raises(StorageError, match='Not Found'): trained_on(done_model, images.train)


def test_a_reading_process_tells_in_one_line(own):
    dls = get_data(image_files(own), 8, 32, bs=26, device='cpu', workers=1)
    with (own/'train-000003.tar').open('ab') as f: f.write(bytes(512))
    with pytest.raises(StorageError) as e, worker_faults(): dls.train.one_batch()
    assert str(e.value) == 'shard train-000003.tar has changed since it was listed; start again'


def test_what_a_killed_download_left_is_removed(few):
    root = image_files(few.url).root
    for name in ('.resnet_course.abc.part', '.train-000000.tar.new'): (root/name).write_bytes(bytes(99))
    cached_images(few.url, 40)
    assert not [f for f in root.iterdir() if f.suffix in ('.part', '.new')]


def test_a_whole_store_that_may_not_be_written(server, plain_user):
    root = image_files(server.url).root
    root.chmod(0o555)
    try: assert len(image_files(server.url).items) == 34
    finally: root.chmod(0o755)


def test_times_that_a_file_system_rounds(few, monkeypatch):
    "FAT keeps two seconds, NTFS a hundred nanoseconds"
    utime = os.utime
    monkeypatch.setattr(os, 'utime', lambda path, ns: utime(path, ns=tuple(t//2_000_000_000*2_000_000_000 for t in ns)))
    assert len(cached_images(few.url, 40)[0][:]) == 34


HARMED = b'', b'[', b'[[1,2],5]', b'[[1,2],[["a/b.png"]]]', b'[[1,"2"],[]]', b'null', b'[[1,2],[],3,4]'


@pytest.mark.parametrize('harm', HARMED)
def test_a_harmed_index_is_made_again(few, harm):
    "At the start, also by the folder's path; and in the middle no image is blamed for it"
    root = image_files(few.url).root
    for f in root.glob('*.tar'): f.unlink()
    (root/'.train-000005.tar.index').write_bytes(harm)
    images = image_files(root)
    assert len(images.items) == 34
    for f in root.glob('*.tar'): f.unlink()
    (root/'.train-000002.tar.index').write_bytes(harm)
    assert len(fast_data(images, 40, 40, 2, skip_broken=True).train.dataset) == 26
    assert not find_broken(images.items)


def test_a_shard_larger_than_the_store_does_not_stay(few, monkeypatch, tmp_path):
    monkeypatch.setenv('RESNET_COURSE_STORE_GB', '9e-6')
    few.faults |= {f'.train-{i:06}.tar.index': iter(['gone']) for i in range(9)}
    assert 'let it keep at least twice as many' in refusal(few.url)
    assert not [f for f in tmp_path.rglob('*') if f.is_file() and f.stat().st_size > 9000 and 'seven-' in str(f)]


def test_images_are_not_skipped_for_a_shard_that_changed(own):
    "None of them is at fault"
    images = image_files(own)
    with (own/'train-000003.tar').open('ab') as f: f.write(bytes(512))
    for read in (lambda: fast_data(images, 40, 40, 2), lambda: fast_data(images, 40, 40, 2, skip_broken=True)):
        with pytest.raises(CourseError, match='has changed since it was listed'): read()
