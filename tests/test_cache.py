"Decoded images in shards: opened unread, checked once, made again where harmed, kept where one may write"
import os
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import a_class_of_one
from PIL import Image

from resnet_course import CourseError, cache
from resnet_course.cache import CachedImages, cache_folder, cached_images, remove_cache
from resnet_course.data import RGBImage, image_files
from resnet_course.fast import fast_data

SIDE = 40
PER = 5 # images in a shard: 32 images are 7 shards, the last has 2


@pytest.fixture(autouse=True)
def shards(monkeypatch): monkeypatch.setattr(cache, 'SHARD', PER*3*SIDE**2+7)


@pytest.fixture
def calls(monkeypatch):
    "How often each image is looked up, each folder listed, and shards are summed up or decoded, from here on"
    seen = Counter()
    def count(module, name, key):
        whole = getattr(module, name)
        def noted(*args, **kwargs):
            if (k := key(*args, **kwargs)) is not None: seen[k] += 1
            return whole(*args, **kwargs)
        monkeypatch.setattr(module, name, noted)
    def image(p, **_):
        if not isinstance(p, int) and Path(p).suffix == '.png': return 'stat', *Path(p).parts[-3:]
    count(os, 'stat', image)
    count(os, 'scandir', lambda p='.', **_: ('list', str(p)))
    count(os, 'listdir', lambda p='.': ('list', str(p)))
    monkeypatch.setattr(cache, 'zlib', SimpleNamespace(crc32=zlib.crc32))  # Pillow sums up too
    count(cache.zlib, 'crc32', lambda *_: 'crc32')
    count(cache, '_decode', lambda *_: 'decode')
    return seen


def of(seen, what): return [n for k, n in seen.items() if k == what or k[0] == what]


def expected(files): return np.stack([np.asarray(RGBImage.create(f).resize((SIDE, SIDE), 2)) for f in files])


def is_red(image): return (image == torch.tensor([255, 0, 0])).all()
def files_of(folder): return sorted(folder.rglob('*.safetensors'))


# -- shards

def test_shards_hold_what_one_file_would(small, monkeypatch):
    images = image_files(small)
    cached = cached_images(images, SIDE)[0]
    assert len(files_of(small)) == len(cached.files) == 7 and len(cached) == 32 and cached.nbytes == 32*3*SIDE**2
    whole = cached[:].numpy()
    assert np.abs(whole.astype(int)-expected(images.items)).max() <= 1
    assert all(f.stat().st_size < cache.SHARD+1000 for f in cached.files)
    monkeypatch.setattr(cache, 'SHARD', 64_000_000)
    assert (cached_images(images, SIDE)[0][:].numpy() == whole).all() and len(files_of(small)) == 1
    monkeypatch.setattr(cache, 'SHARD', 1)  # less than an image
    assert (cached_images(images, SIDE)[0][:].numpy() == whole).all() and len(files_of(small)) == 32


@pytest.mark.parametrize('rows', [0, 31, -1, -4, -32, np.int64(7), slice(None), slice(3, 17, 4), slice(None, None, -1),
                                  slice(-4, None), [], [31, 0, 6, 6], [-1, -4],
                                  np.array([9, 30]), torch.tensor([9, 30]), np.arange(32) % 3 == 0, list(range(32))])
@pytest.mark.parametrize('one', [True, False])
def test_rows_as_of_an_array(small, monkeypatch, rows, one):
    if one: monkeypatch.setattr(cache, 'SHARD', 64_000_000)
    cached = cached_images(small, SIDE)[0]
    whole = np.concatenate([cached.shard(i) for i in range(len(cached.parts))])
    assert np.array_equal(cached[rows].numpy(), whole[rows])


def test_rows_that_are_not_there(small):
    cached = cached_images(small, SIDE)[0]
    for row in (32, 34, 99, -33, [0, 32]):
        with pytest.raises(IndexError): cached[row]
    assert len(list(cached)) == 32


def test_a_batch_is_a_copy(small, monkeypatch):
    for size in (cache.SHARD, 64_000_000):
        monkeypatch.setattr(cache, 'SHARD', size)
        cached = cached_images(small, SIDE)[0]
        before = cached[[0, 6]].clone()
        cached[[0, 6]].zero_(), cached[0].zero_(), cached[:].zero_()
        assert torch.equal(cached[[0, 6]], before) and torch.equal(cached_images(small, SIDE)[0][[0, 6]], before)


# -- reading

@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason="reads what is resident from /proc")
def test_opening_reads_no_pixels(small, monkeypatch):
    def resident():
        "Of the shards, MB"
        pages, ours = 0, False
        for line in Path('/proc/self/smaps').read_text().splitlines():
            if not line.split(' ', 1)[0].endswith(':'): ours = line.endswith('.safetensors')
            elif ours and line.startswith('Rss:'): pages += int(line.split()[1])
        return pages/1e3
    monkeypatch.setattr(cache, 'SHARD', 80_000_000)
    megabytes = 32*3*1600**2/1e6  # so many that what the system maps around a page that is read does not count
    cached_images(small, 1600)
    before = resident()
    cached = cached_images(small, 1600)[0]
    opened = resident()-before
    sum(int(cached.shard(i).sum()) for i in range(len(cached.parts)))
    assert opened < megabytes/20 < megabytes/2 < resident()-before


def test_checked_at_the_first_read_and_only_then(small, calls):
    cached_images(small, SIDE)
    calls.clear()
    cached = cached_images(small, SIDE)[0]
    assert calls['crc32'] == calls['decode'] == 0 and len(cached) == 32 and cached.nbytes
    cached[0], cached[3], cached[:4]
    assert calls['crc32'] == 1 and cached.checked == {0}
    for _ in range(3): cached[:]
    assert calls['crc32'] == 7 and calls['decode'] == 0
    cached.to('cpu')
    assert calls['crc32'] == 7


def test_files_are_listed_once(small, calls):
    "Each folder once; each file before and after it is decoded, and later once"
    fast_data(small, SIDE, 32, bs=8, device='cpu')
    folders = [small, *(small/s for s in ('train', 'val')), *(small/s/c for s in ('train', 'val') for c in '37')]
    listed = {k[1]: n for k, n in calls.items() if k[0] == 'list'}
    assert all(listed.get(str(f), 0) <= 1 for f in folders) and all(listed[str(f)] == 1 for f in folders[1:]), listed
    assert len(of(calls, 'stat')) == 32 and max(of(calls, 'stat')) == 2 and calls['decode'] == 7
    calls.clear()
    fast_data(small, SIDE, 32, bs=8, device='cpu')
    listed = {k[1]: n for k, n in calls.items() if k[0] == 'list'}
    assert all(listed[str(f)] == 1 for f in folders[1:]), listed
    assert len(of(calls, 'stat')) == 32 and max(of(calls, 'stat')) == 1 and calls['decode'] == calls['crc32'] == 0


def test_files_listed_before_are_not_listed_again(small, calls):
    images = image_files(small)
    fast_data(images, SIDE, 32, bs=8, device='cpu')
    calls.clear()
    fast_data(images, SIDE, 32, bs=8, device='cpu')
    assert not [k for k in calls if k[0] == 'list' and 'train' in k[1]] and max(of(calls, 'stat')) == 1


def test_an_epoch_sums_up_each_shard_once(small, calls):
    dls = fast_data(small, SIDE, 32, bs=8, device='cpu')
    for _ in range(2):
        for dl in dls.loaders: assert sum(len(y) for _, y in dl) == len(dl.dataset)
    made = calls['decode']
    assert made == 7 and calls['crc32'] == 7+7  # written, then read


# -- harm

def alter(file): file.write_bytes((data := file.read_bytes())[:-1000]+bytes([data[-1000] ^ 1])+data[-999:])


HARM = {'altered': alter, 'gone': Path.unlink, 'cut': lambda f: f.write_bytes(f.read_bytes()[:-2000]),
        'empty': lambda f: f.write_bytes(b'')}


@pytest.mark.parametrize('harm', HARM)
def test_a_harmed_shard_alone_is_made_again(small, calls, harm):
    whole = cached_images(small, SIDE)[0]
    pixels, files = whole[:].clone(), whole.files
    HARM[harm](files[3])
    calls.clear()
    assert torch.equal(cached_images(small, SIDE)[0][:], pixels) and calls['decode'] == 1
    calls.clear()
    assert torch.equal(cached_images(small, SIDE)[0][:],
                       pixels) and calls['decode'] == 0 and files_of(small) == sorted(files)


def test_altered_between_opening_and_the_first_read(small, calls):
    pixels = cached_images(small, SIDE)[0][:].clone()
    cached = cached_images(small, SIDE)[0]
    with open(cached.files[2], 'r+b') as f:
        f.seek(-1000, 2)
        f.write(b'x'*100)
    calls.clear()
    assert torch.equal(cached[:], pixels) and calls['decode'] == 1
    assert torch.equal(cached_images(small, SIDE)[0][:], pixels)


def test_removed_while_it_is_used(small):
    pixels = cached_images(small, SIDE)[0][:].clone()
    for read_first in (True, False):
        cached = cached_images(small, SIDE)[0]
        if read_first: cached[:]
        assert remove_cache(small) > cached.nbytes and not (small/'.resnet_course').exists()
        assert torch.equal(cached[:], pixels)


def test_an_epoch_survives_clean(small, command):
    dls = fast_data(small, SIDE, 32, bs=8, device='cpu')
    before = dls.valid.one_batch()[0]
    assert command('clean', small)[0] == 0
    assert torch.equal(dls.valid.one_batch()[0], before) and sum(len(y) for _, y in dls.train) == 24


def test_image_that_changed_after_its_shard_was_opened_and_harmed(small):
    "It cannot be made as it was: one line, no image of today among those of yesterday"
    cached_images(small, SIDE)
    cached = cached_images(small, SIDE)[0]
    alter(cached.files[0])
    os.utime(cached.items[0], (1, 1))
    with pytest.raises(CourseError, match='changed'): CachedImages.shard(cached, 0)


def test_one_new_image_leaves_the_other_shards(small, calls):
    images = image_files(small)
    cached_images(small, SIDE)
    Image.new('RGB', (9, 9), 'red').save(images.val[-1])
    calls.clear()
    cached = cached_images(small, SIDE)[0]
    assert calls['decode'] == 1 and is_red(cached[31]) and len(files_of(small)) == 7


# -- where it is kept

def test_kept_beside_the_images_if_they_are_ours(own_cache, small):
    assert cache_folder(small) == small/'.resnet_course' and cached_images(small, SIDE) and not own_cache.exists()


def kept_at_home(source, own_cache, pixels):
    folder = cache_folder(source)
    assert folder.is_relative_to(own_cache) and files_of(folder) == files_of(own_cache) and len(files_of(folder)) == 7
    assert torch.equal(cached_images(source, SIDE)[0][:], pixels)
    assert remove_cache(source) > pixels.nbytes and not files_of(own_cache)


def test_read_only_folder(own_cache, small, plain_user):
    pixels = cached_images(small, SIDE)[0][:].clone()
    remove_cache(small)
    small.chmod(0o555)
    try:
        assert torch.equal(fast_data(small, SIDE, 32, bs=8, device='cpu').valid.cached[0][:], pixels)
        assert not (small/'.resnet_course').exists()
        kept_at_home(small, own_cache, pixels)
    finally: small.chmod(0o755)


def test_folder_of_another_user(own_cache, small, monkeypatch):
    pixels = cached_images(small, SIDE)[0][:].clone()
    remove_cache(small)
    if os.geteuid() == 0: os.chown(small, 12345, 12345)
    else: monkeypatch.setattr(os, 'getuid', lambda: os.geteuid()+1)
    cached_images(small, SIDE)
    assert not (small/'.resnet_course').exists()
    kept_at_home(small, own_cache, pixels)


def test_two_foreign_folders_and_one_by_two_names_in_one_home(own_cache, small, plain_user):
    other = shutil.copytree(small, small.parent/'other')
    (small.parent/'link').symlink_to(small)
    for f in (small, other): f.chmod(0o555)
    try:
        assert cache_folder(small) == cache_folder(small.parent/'link') == cache_folder(f'{small}/')
        assert cache_folder(small) != cache_folder(other)
    finally: [f.chmod(0o755) for f in (small, other)]


def test_no_place_at_all(small, tmp_path, plain_user, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'locked'))
    (tmp_path/'locked').mkdir(mode=0o555)
    small.chmod(0o555)
    try:
        with pytest.raises(CourseError, match=r"cannot keep decoded images in .*locked.*pipeline='book'") as e:
            cached_images(small, SIDE)
        assert '\n' not in str(e.value)
    finally: small.chmod(0o755)


# -- lists

@pytest.fixture
def listed(small):
    "Files of a user's list, and their labels"
    files = sorted(small.glob('*/*/*.png'))
    return files, [f.parent.name for f in files]


def in_memory(files, kind):
    if kind == 'relative': return [os.path.relpath(f) for f in files]
    if kind == 'bytes': return [f.read_bytes() for f in files]
    pictures = [Image.open(f) for f in files]
    return pictures if kind == 'PIL' else [np.asarray(im) if kind == 'array' else torch.tensor(np.asarray(im))
                                           for im in pictures]


@pytest.mark.parametrize('kind', ['files', 'relative', 'PIL', 'bytes', 'array', 'tensor'])
def test_lists_are_kept(own_cache, small, listed, calls, kind, monkeypatch):
    "In the user's cache folder, and found again by what is in them"
    monkeypatch.chdir(small)
    def images():
        items = listed[0] if kind == 'files' else in_memory(listed[0], kind)
        return image_files(files=items, labels=listed[1])
    first = cached_images(images(), SIDE)[0]
    assert len(files_of(own_cache)) == 7 == len(first.files) and not list(small.rglob('.resnet_course'))
    truth = np.abs(first[:].numpy().astype(int)-expected(images().items))
    assert truth.max() <= 1
    calls.clear()
    again = cached_images(images(), SIDE)[0]
    assert torch.equal(again[:], first[:]) and calls['decode'] == 0 and len(files_of(own_cache)) == 7
    assert remove_cache(images()) > first.nbytes and not files_of(own_cache)


def test_a_list_of_changed_files_is_decoded_anew(own_cache, listed, calls):
    images = image_files(files=listed[0], labels=listed[1])
    cached_images(images, SIDE)
    Image.new('RGB', (9, 9), 'red').save(images.items[0])
    calls.clear()
    assert is_red(cached_images(images, SIDE)[0][0]) and calls['decode'] == 1


def test_same_names_in_another_folder(own_cache, small, listed, monkeypatch):
    "Relative names mean what they mean there"
    other = shutil.copytree(small, small.parent/'other')
    for f in other.rglob('*.png'): Image.new('RGB', (9, 9), 'red').save(f)
    names = [os.path.relpath(f, small) for f in listed[0]]
    pixels = []
    for folder in (small, other, small):
        monkeypatch.chdir(folder)
        pixels.append(cached_images(image_files(files=names, labels=listed[1]), SIDE)[0][:])
    assert torch.equal(pixels[0], pixels[2]) and (pixels[1][..., 1:] == 0).all() and pixels[0][..., 1:].any()


def test_images_in_memory_that_differ_in_their_colours_alone(own_cache):
    "One set of numbers, two palettes; one set of bytes, two shapes; one picture, two modes"
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    def of_mode(mode, size=(8, 8)):
        return Image.frombytes(mode, size, ramp.repeat(len(Image.new(mode, (1, 1)).getbands())).tobytes())
    red, blue = of_mode('P'), of_mode('P')
    red.putpalette([v for i in range(256) for v in (i, 0, 0)])
    blue.putpalette([v for i in range(256) for v in (0, 0, i)])
    kinds = red, blue, of_mode('L'), of_mode('L', (4, 16)), of_mode('HSV'), of_mode('RGB')
    for pictures in [[im.copy() for _ in range(4)] for im in kinds]:  # one alone could not have two classes
        cached = cached_images(image_files(files=pictures, labels=[0, 0, 1, 1], valid=[0, 1, 0, 1]), SIDE)[0]
        assert torch.equal(cached[:], cache._decode(pictures, SIDE)[0])


@a_class_of_one
@pytest.mark.parametrize('kind', ['folder', 'groups', 'files', 'PIL', 'other order'])
def test_another_split_decodes_nothing(own_cache, unsplit, calls, kind):
    "Whatever is held out, and however a list is ordered: each image is found where it was kept"
    files = sorted(unsplit.rglob('*.png'))
    labels, order = [f.parent.name for f in files], range(len(files))
    def divided(seed):
        if kind == 'folder': return image_files(unsplit, valid_pct=0.3, seed=seed)
        if kind == 'groups': return image_files(unsplit, valid_pct=0.3, seed=seed, groups='.*')
        if kind == 'other order': return image_files(files=[files[i] for i in order[::1-2*seed]],
                                                     labels=[labels[i] for i in order[::1-2*seed]], valid_pct=0.3)
        return image_files(files=in_memory(files, kind) if kind == 'PIL' else files, labels=labels, valid_pct=0.3,
                           seed=seed)
    lists = [divided(seed) for seed in (0, 1)]
    assert lists[0].train != lists[1].train
    cached = cached_images(lists[0], SIDE)[0]
    assert len(cached.files) == 4 == len(files_of(cached.folder))
    calls.clear()
    again = cached_images(lists[1], SIDE)[0]
    assert calls['decode'] == 0 and again.files == cached.files and len(files_of(cached.folder)) == 4
    for images, kept in zip(lists, (cached, again), strict=True):
        assert torch.equal(kept[:], cache._decode(images.items, SIDE)[0]) and torch.equal(kept.to('cpu'), kept[:])
        assert torch.equal(fast_data(images, SIDE, SIDE, bs=8).valid.one_batch()[1],
                           torch.tensor([images.classes.index(c) for c in images.labels[len(images.train):]]))


def test_left_out_images_are_kept_apart(small, calls):
    "Going back and forth between all and some decodes nothing again"
    skip = {image_files(small).train[0]}
    cached_images(small, SIDE), cached_images(small, SIDE, skip=skip)
    calls.clear()
    assert len(cached_images(small, SIDE)[0]) == 32 and len(cached_images(small, SIDE,
                                                                          skip=skip)[0]) == 31 and calls['decode'] == 0


# -- given back

def test_clean_never_follows_a_link(refused, small, tmp_path):
    cached_images(small, SIDE)
    hidden, mine = small/'.resnet_course', tmp_path/'mine'
    shard = files_of(small)[0]
    hidden.rename(mine)
    hidden.symlink_to(mine)
    kept = {f: f.read_bytes() for f in files_of(mine)}
    assert 'left in' in (line := refused('clean', small)) and '.resnet_course (not made by the course)' in line
    assert hidden.is_symlink() and kept == {f: f.read_bytes() for f in files_of(mine)}
    hidden.unlink()
    hidden.mkdir()
    (hidden/f'{SIDE}px').symlink_to(mine/f'{SIDE}px')
    (hidden/'64px').mkdir()
    (hidden/'64px'/shard.name).symlink_to(mine/f'{SIDE}px'/shard.name)
    line = refused('clean', small)
    assert f'{SIDE}px (not made by the course)' in line and f'{shard.name} (not made' in line
    assert kept == {f: f.read_bytes() for f in files_of(mine)} and len(list(hidden.rglob('*'))) == 3


def test_clean_deletes_only_what_the_course_has_made(refused, command, small):
    "Of this version, of older ones, and what killed writers left; what is another's stays, and is named"
    cached_images(small, SIDE), cached_images(small, SIDE, skip={image_files(small).train[0]})
    hidden, key = small/'.resnet_course', '0123456789abcdef.safetensors'
    ours = (f'160px-{key}', f'160px-all-{key}', f'160px-part-{key}', f'.160px-all-{key}.a1_zz9y0',
            '.resnet_course.x.part', f'{SIDE}px/.{key}.abcdefgh', f'{SIDE}px/.resnet_course.y.part')
    for name in ours: (hidden/name).write_bytes(b'ours')
    others = {hidden/name for name in (
        'notes.txt', f'{SIDE}px/weights.safetensors', f'{SIDE}px/{key}.bak', f'old/{key}', f'160px-{key}.txt', 'px/x')}
    for f in others:
        f.parent.mkdir(exist_ok=True)
        f.write_text('mine')
    line = refused('clean', small)
    assert 'MB given back, but left in' in line and 'not made by the course' in line and 'and 3 more' in line
    assert {f for f in hidden.rglob('*') if f.is_file()} == others
    shutil.rmtree(hidden)
    cached_images(small, SIDE)
    assert command('clean', small) == (0, f'{hidden}: 0 MB given back\n', '') and not hidden.exists()
    assert command('clean', small) == (0, f'{hidden}: 0 MB given back\n', '')


def test_clean_leaves_a_live_writer_alone(refused, small):
    import fcntl
    cached_images(small, SIDE)
    part = small/'.resnet_course'/f'{SIDE}px'/'.resnet_course.z.part'
    with open(part, 'wb') as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        assert f'{part.name} (still being written)' in refused('clean', small)
        assert part.exists() and not files_of(small)
        cached_images(small, SIDE)
        assert part.exists()
    cached_images(small, SIDE)
    assert not part.exists()


def test_clean_that_may_not(refused, small, plain_user):
    cached_images(small, SIDE)
    folder = small/'.resnet_course'/f'{SIDE}px'
    folder.chmod(0o555)
    try: assert 'Permission denied' in (line := refused('clean', small)) and '0 MB given back' in line
    finally: folder.chmod(0o755)
    assert len(files_of(small)) == 7


@pytest.mark.parametrize('data', ['imagenette-160', 'imagenette-320', 'https://example.org/birds.tgz', 'digits'])
def test_clean_fetches_nothing(refused, own_cache, tmp_path, monkeypatch, data):
    monkeypatch.setattr('resnet_course.datasets.fastai_path', lambda *_: tmp_path/'fastai')
    monkeypatch.setattr('socket.create_connection', lambda *_, **__: pytest.fail("it asks the network"))
    assert 'is not on this' in refused('clean', data)
    assert not own_cache.exists() and not (tmp_path/'fastai').exists()


@a_class_of_one
def test_clean_of_a_folder_without_val(command, unsplit, own_cache):
    cached_images(image_files(unsplit, valid_pct=0.2), SIDE)
    assert (unsplit/'.resnet_course').exists()
    status, out, _ = command('clean', unsplit)
    assert status == 0 and 'MB given back' in out and not (unsplit/'.resnet_course').exists()
    assert len(list(unsplit.rglob('*.png'))) == 16


def test_clean_of_no_data_set(refused, small, tmp_path):
    cached_images(small, SIDE)
    shutil.move(small/'.resnet_course', tmp_path/'.resnet_course')
    assert 'holds no data set' in refused('clean', tmp_path) and len(files_of(tmp_path)) == 7
    assert 'is no folder' in refused('clean', tmp_path/'none')


# -- what lies in the way

def in_the_way(what, hidden, shard, mine):
    folder = shard.parent
    if what == 'hidden folder is a file': hidden.write_text('mine')
    elif what == 'folder is a file': folder.parent.mkdir(), folder.write_text('mine')
    else: folder.mkdir(parents=True)
    if what == 'shard is a folder': shard.mkdir()
    elif what == 'shard is a pipe': os.mkfifo(shard)
    elif what == 'shard is a link': shard.symlink_to(mine)
    elif what == 'shard is a link to nothing': shard.symlink_to(mine.parent/'none')
    elif what == 'no checksum': cache.write_whole(shard, cache.safetensors_bytes({'images': torch.zeros(3)}, {}))
    elif what == 'odd checksum':
        images = torch.zeros(PER, SIDE, SIDE, 3, dtype=torch.uint8)
        cache.write_whole(shard, cache.safetensors_bytes({'images': images}, {'crc32': '9'*5000}))
    elif what == 'bfloat16':
        images = torch.zeros(PER, SIDE, SIDE, 3, dtype=torch.bfloat16)
        cache.write_whole(shard, cache.safetensors_bytes({'images': images}, {'crc32': '0'}))


@pytest.mark.parametrize('what, says', [
    ('hidden folder is a file', 'cannot keep decoded images'), ('folder is a file', 'cannot keep decoded images'),
    ('shard is a folder', 'is no file'), ('shard is a pipe', 'is no file'), ('shard is a link', ''),
    ('shard is a link to nothing', ''), ('no checksum', ''), ('odd checksum', ''), ('bfloat16', '')])
def test_something_in_the_way(small, tmp_path, what, says):
    "One line, or it is replaced; and what a link points at stays as it is"
    expected_pixels, mine = cached_images(small, SIDE)[0], tmp_path/'mine'
    shard, whole = expected_pixels.files[0], expected_pixels[:].clone()
    remove_cache(small)
    mine.write_text('mine')
    in_the_way(what, small/'.resnet_course', shard, mine)
    if says:
        with pytest.raises(CourseError, match=says) as e: cached_images(small, SIDE)
        assert '\n' not in str(e.value)
    else: assert torch.equal(cached_images(small, SIDE)[0][:], whole) and shard.is_file() and not shard.is_symlink()
    assert mine.read_text() == 'mine' and not (tmp_path/'none').exists()


def test_a_place_with_too_long_a_name(small, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, '_folder_for', lambda *_: tmp_path/('x'*300))
    with pytest.raises(CourseError, match=r'cannot keep decoded images in .* too long'): cached_images(small, SIDE)


def test_folder_that_vanishes_while_it_is_filled(small, monkeypatch):
    decode, hidden = cache._decode, small/'.resnet_course'
    def and_gone(*args):
        shutil.rmtree(hidden, ignore_errors=True)
        return decode(*args)
    monkeypatch.setattr(cache, '_decode', and_gone)
    cached = cached_images(small, SIDE)[0]
    assert len(files_of(hidden)) == 1 and np.abs(cached[:].numpy().astype(int)-expected(cached.items)).max() <= 1


def swapped(a, b):
    a.rename(a.with_name('x'))
    b.rename(a)
    a.with_name('x').rename(b)


def rewritten(a, b): a.write_bytes(b.read_bytes())


@pytest.mark.parametrize('change', [swapped, rewritten])
def test_a_change_that_keeps_size_and_time_is_noticed(small, change):
    "Images without compression are of one size, and what is unpacked may have one time"
    a, b = small/'train'/'3'/'a.bmp', small/'train'/'7'/'a.bmp'
    for f, colour in ((a, 'black'), (b, 'white')):
        Image.new('RGB', (32, 32), colour).save(f)
        os.utime(f, (1, 1))
    for folder in (a.parent, b.parent): os.utime(folder, (1, 1))
    def first_pixel():
        images, files = cached_images(small, 32)
        return images[files.index(a)].flatten()[0].item()
    assert first_pixel() == 0
    change(a, b)
    os.utime(a, (1, 1))
    assert first_pixel() == 255


# -- larger than memory

BEYOND = """
import re, resource, sys
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import ResNet

def begin(data, presize, bs):
    dls = fast_data(data, presize, 32, bs=bs, device='cpu')
    return fast_learner(dls, ResNet(2, [1,1,1,1], width=8), 'fp32')

begin(sys.argv[1], 32, 4)  # all imports
at_rest = 1024*int(re.search(r'VmData:\\s+(\\d+)', open('/proc/self/status').read())[1])
resource.setrlimit(resource.RLIMIT_DATA, (at_rest+300_000_000+3*512**2*32, -1))
for _ in range(2):  # made, then opened
    learn = begin(sys.argv[2], 512, 32)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    print(len(learn.dls.train.cached[0].files), learn.dls.train.cached[0].nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason="reads from /proc what a process has")
def test_a_cache_that_does_not_fit_into_memory(images, tmp_path):
    "1 GB made and trained from, with 300 MB and a batch more than the process has at rest"
    for i in range(1300):
        folder = tmp_path/'many'/('val' if i % 13 == 0 else 'train')/'ab'[i//13 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (16, 16), (i % 256, i//256, 99)).save(folder/f'{i}.png')
    words = [sys.executable, '-W', 'ignore', '-c', BEYOND, images, tmp_path/'many']
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout) == (0, '17 1022361600\n'*2), done.stderr[-2000:]
    shutil.rmtree(tmp_path/'many')
