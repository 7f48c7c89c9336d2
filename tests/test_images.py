"Images of all kinds are read as a person sees them, or refused in a few words; no library speaks, nothing waits"
import io
import logging
import os
import random
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from conftest import slow
from PIL import EpsImagePlugin, Image

from resnet_course import CourseError, images
from resnet_course.images import FORMATS, RGBImage, find_broken, image_fault
from resnet_course.model_files import load_model
from resnet_course.serve import classify

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
STEPS = np.arange(12, dtype=np.uint8).reshape(3, 4)*20
UPRIGHT = Image.fromarray(np.kron(STEPS, np.ones((8, 8), np.uint8))).convert('RGB')
RED, SEEN_THROUGH = (200, 10, 20), (255, 255, 255)
TURNED = {  # what a camera stores, for each orientation: the tag undoes it
    1: lambda im: im, 2: lambda im: im.transpose(0), 3: lambda im: im.transpose(3), 4: lambda im: im.transpose(1),
    5: lambda im: im.transpose(5), 6: lambda im: im.transpose(2), 7: lambda im: im.transpose(6),
    8: lambda im: im.transpose(4)}


def saved(im, kind, **kwargs):
    im.save(b := io.BytesIO(), kind, **kwargs)
    return b.getvalue()


def seen(image): return np.asarray(RGBImage.create(image))


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def png(rows, bits, colour, *chunks):
    "A PNG by hand: `rows` of bytes as they are stored"
    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name+data))
    width = len(rows[0])*8//bits//{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    head = struct.pack('>IIBBBBB', width, len(rows), bits, colour, 0, 0, 0)
    data = zlib.compress(b''.join(b'\0'+bytes(row) for row in rows))
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*c) for c in (
        (b'IHDR', head), *chunks, (b'IDAT', data), (b'IEND', b'')))


# -- upright

@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'MPO', 'PNG', 'WEBP', 'TIFF', 'memory', 'converted'])
def test_stands_upright(kind, orientation):
    stored = TURNED[orientation](UPRIGHT)
    how = {'WEBP': {'lossless': True}, 'MPO': {'save_all': True, 'append_images': [stored]}}.get(kind, {})
    if kind in ('memory', 'converted'):
        image = Image.open(io.BytesIO(saved(stored, 'JPEG', exif=exif(orientation))))
        if kind == 'converted': image = image.convert('RGB')
    else: image = saved(stored, kind, exif=exif(orientation), **how)
    once = RGBImage.create(image)
    assert once.size == UPRIGHT.size and np.abs(np.asarray(once).astype(int)-np.asarray(UPRIGHT)).max() < 12
    assert np.array_equal(seen(once), once)  # and is not turned again


def test_upright_by_xmp():
    "As some editors write it; and a palette turns as well"
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert RGBImage.create(saved(TURNED[6](UPRIGHT), 'JPEG', xmp=xmp)).size == UPRIGHT.size
    palette = saved(TURNED[6](UPRIGHT).convert('P'), 'PNG', exif=exif(6))
    assert RGBImage.create(palette).size == UPRIGHT.size


BROKEN_TAGS = [0, 9, 65535, b'Exif\0\0', b'Exif\0\0II*\0\xff\xff\xff\xff', b'\xff'*40, b'Exif\0\0MM\0*']


@pytest.mark.parametrize('tag', BROKEN_TAGS)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_a_broken_orientation_is_none(kind, tag):
    image = saved(UPRIGHT, kind, exif=exif(tag) if isinstance(tag, int) else tag)
    assert RGBImage.create(image).size == UPRIGHT.size


# -- over white

def one_clear(mode, kind, **kwargs):
    "Left half red, right half see-through"
    im = Image.new('RGBA', (8, 4), (*RED, 255))
    im.paste((0, 0, 0, 0), (4, 0, 8, 4))
    return saved(im if mode == 'RGBA' else im.convert(mode), kind, **kwargs)


def palette(transparency, kind='PNG', values=(RED, (0, 0, 0))):
    im = Image.new('P', (8, 4))
    im.putpalette([v for value in values for v in value])
    im.paste(1, (4, 0, 8, 4))
    return saved(im, kind, transparency=transparency)


def halves(mode, left, right):
    im = Image.new(mode, (8, 4), left)
    im.paste(right, (4, 0, 8, 4))
    return im


def with_info(im, **info):
    im.info.update(info)
    return im


GREY = (54,)*3
CLEAR = {
    'RGBA png': (lambda: one_clear('RGBA', 'PNG'), RED),
    'RGBA webp': (lambda: one_clear('RGBA', 'WEBP', lossless=True), RED),
    'RGBA tiff': (lambda: one_clear('RGBA', 'TIFF'), RED),
    'RGBA gif': (lambda: one_clear('RGBA', 'GIF'), RED),
    'LA png': (lambda: saved(halves('LA', (54, 255), (0, 0)), 'PNG'), GREY),
    'LA memory': (lambda: halves('LA', (54, 255), (0, 0)), GREY),
    'La memory': (lambda: halves('LA', (54, 255), (0, 0)).convert('La'), GREY),
    'RGBa memory': (lambda: halves('RGBA', (*RED, 255), (0, 0, 0, 0)).convert('RGBa'), RED),
    'PA memory': (lambda: halves('RGBA', (*RED, 255), (0, 0, 0, 0)).convert('PA'), RED),
    'palette, one': (lambda: palette(1), RED),
    'palette, bytes': (lambda: palette(b'\xff\x00'), RED),
    'palette, few bytes': (lambda: palette(b'\x00', values=((0, 0, 0), RED)), None),
    'palette gif': (lambda: palette(1, 'GIF'), RED),
    'palette memory': (lambda: with_info(Image.open(io.BytesIO(palette(1)))), RED),
    'tRNS grey': (lambda: saved(halves('L', 54, 7), 'PNG', transparency=7), GREY),
    'tRNS colour': (lambda: saved(halves('RGB', RED, (1, 2, 3)), 'PNG', transparency=(1, 2, 3)), RED),
    'tRNS memory': (lambda: with_info(halves('RGB', RED, (1, 2, 3)), transparency=(1, 2, 3)), RED),
    'tRNS 1 bit': (lambda: png([[0b11110000]], 1, 0, (b'tRNS', b'\0\0')), SEEN_THROUGH),
    'tRNS 1 bit, white': (lambda: png([[0b00001111]], 1, 0, (b'tRNS', b'\0\1')), (0, 0, 0)),
    'tRNS 2 bits': (lambda: png([[0b01010101, 0b10101010]], 2, 0, (b'tRNS', b'\0\2')), (85,)*3),
    'tRNS 4 bits': (lambda: png([[0x33, 0x33, 0x55, 0x55]], 4, 0, (b'tRNS', b'\0\5')), (51,)*3),
    'tRNS 16 bits grey': (lambda: png([b'\x80\x00'*4 + b'\x12\x34'*4], 16, 0, (b'tRNS', b'\x12\x34')), (127,)*3),
    'tRNS 16 bits colour': (lambda: png([bytes([200, 9, 10, 9, 20, 9])*4 + bytes([1, 2, 3, 4, 5, 6])*4], 16, 2,
                                        (b'tRNS', bytes([1, 2, 3, 4, 5, 6]))), RED),
    'tRNS 16 bits colour, small': (lambda: png([bytes([200, 9, 10, 9, 20, 9])*4 + bytes([0, 2, 0, 4, 0, 6])*4], 16, 2,
                                               (b'tRNS', bytes([0, 2, 0, 4, 0, 6]))), RED),
    'alpha 16 bits': (lambda: png([bytes([200, 0, 10, 0, 20, 0, 255, 255])*4 + bytes(8)*4], 16, 6), RED),
    'grey alpha 16 bits': (lambda: png([bytes([54, 0, 255, 255])*4 + bytes(4)*4], 16, 4), GREY),
    'array RGBA': (lambda: np.asarray(halves('RGBA', (*RED, 255), (0, 0, 0, 0))), RED),
    'array LA': (lambda: np.asarray(halves('LA', (54, 255), (0, 0))), GREY),
    'array RGBA, 16 bits': (lambda: np.asarray(halves('RGBA', (*RED, 255), (0, 0, 0, 0))).astype(np.uint16)*257, RED),
}


@pytest.mark.parametrize('kind', CLEAR)
def test_transparency_lies_over_white(kind):
    make, left = CLEAR[kind]
    a = seen(make())
    if left is None: a, left = a[:, ::-1], RED
    assert a.shape == (len(a), 8, 3) and a.dtype == np.uint8
    assert (np.abs(a[:, 0].astype(int)-left) <= 1).all() and (a[:, -1] == 255).all(), a[0]


def test_half_transparent_is_half_white():
    tall = Image.fromarray(RNG.integers(0, 256, (500_100, 4, 4), dtype=np.uint8))  # laid over white in two parts
    want = Image.alpha_composite(Image.new('RGBA', tall.size, 'white'), tall).convert('RGB')
    assert np.abs(seen(tall).astype(np.int16)-np.asarray(want)).max() <= 1
    assert seen(Image.new('RGBA', (2, 2), (200, 0, 0, 128)))[0, 0].tolist() == [227, 127, 127]
    palette_of_half = png([[0]], 8, 3, (b'PLTE', bytes([200, 0, 0])), (b'tRNS', b'\x80'))
    assert seen(palette_of_half)[0, 0].tolist() == [227, 127, 127]


# -- deep

def grey(top, n=64): return np.linspace(0, top, n).round().astype(np.uint16).reshape(8, -1)


DEEP = {
    'png': lambda a: saved(Image.fromarray(a), 'PNG'),
    'tiff': lambda a: saved(Image.fromarray(a), 'TIFF'),
    'tiff, packed': lambda a: saved(Image.fromarray(a), 'TIFF', compression='tiff_lzw'),
    'tiff, big-endian': lambda a: saved(Image.fromarray(a.astype('>u2')), 'TIFF'),
    'pgm': lambda a: b'P5 8 8 65535\n' + a.astype('>u2').tobytes(),
    'memory': Image.fromarray,
    'memory, 32 bits': lambda a: Image.fromarray(a.astype(np.int32)),
    'array': lambda a: a,
    'array (h,w,1)': lambda a: a[..., None],
    'array of another order': lambda a: a.astype('>u2'),
    'int64': lambda a: a.astype(np.int64),
    'tensor': lambda a: torch.tensor(a.astype(np.int32))}


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize('kind', DEEP)
def test_sixteen_bits_of_any_depth(kind, bits):
    a = seen(DEEP[kind](grey(2**bits-1)))
    assert (a[..., 0] == grey(2**bits-1).astype(int)*255//(2**bits-1)).all() and a.max() == 255
    assert (seen(DEEP[kind](np.full((8, 8), 2**(bits-1), np.uint16))) == 127 + (bits == 8)).all()


def test_white_that_a_file_states():
    "A PGM of 12 bits that is dark stays dark; a TIFF whose zero is white is no negative"
    assert seen(b'P5 2 1 4095\n' + struct.pack('>HH', 100, 0))[0, 0, 0] == 100*255//4095
    assert seen(b'P2 2 1 4095\n4095 0\n')[0, :, 0].tolist() == [255, 0]
    assert seen(b'P6 1 1 65535\n' + struct.pack('>HHH', 65535, 32768, 0))[0, 0].tolist() == [255, 128, 0]
    tiff = saved(Image.fromarray(grey(65535)), 'TIFF', tiffinfo={262: 0})
    assert seen(tiff)[0, 0, 0] == 255 and seen(tiff)[-1, -1, 0] == 0


ODD = {mode: (lambda mode=mode: PHOTO.convert(mode)) for mode in
       ('1', 'L', 'P', 'RGB', 'RGBX', 'CMYK', 'YCbCr', 'LAB', 'HSV')}


@pytest.mark.parametrize('mode', ODD)
def test_other_modes_as_ever(mode):
    im = ODD[mode]()
    assert np.array_equal(seen(im), np.asarray(im.convert('RGB')))


@pytest.mark.parametrize('shape', [(6, 9), (6, 9, 1), (6, 9, 3), (6, 9, 4)])
def test_arrays(shape):
    a = RNG.integers(0, 256, shape, dtype=np.uint8)
    if shape[-1] == 4: a[..., 3] = 255
    want = np.broadcast_to(a.reshape(6, 9, -1)[..., :3], (6, 9, 3))
    for given in (a, torch.tensor(a), np.asfortranarray(a), a[::-1][::-1], a.astype(np.int64) if a.max() == 255 else a):
        assert np.array_equal(seen(given), want)
    assert np.array_equal(seen(a > 99), seen((a > 99)*np.uint8(255)))


# -- refused

def huge(): return png([b'\0'*2500]*2, 1, 0).replace(struct.pack('>II', 20000, 2), struct.pack('>II', 20000, 12501))


def patched(data, old, new):
    "A PNG with another head, its sum right"
    data = data.replace(old, new)
    return data[:29] + struct.pack('>I', zlib.crc32(data[12:29])) + data[33:]


def tall(kind, height):
    "An image that says it has more rows than there are"
    data = bytearray(saved(PHOTO, kind))
    at = 22 if kind == 'BMP' else data.index(struct.pack('<HHI', 257, 4, 1))+8
    data[at:at+4] = struct.pack('<I', height)
    return bytes(data)


REFUSED = {
    'tall tiff': (lambda: tall('TIFF', 2*PHOTO.height), 'are said to be in'),
    'far too tall tiff': (lambda: tall('TIFF', 10**7), 'are said to be in'),
    'far too tall bmp': (lambda: tall('BMP', 10**7), 'are said to be in'),
    'nothing': (lambda: b'', 'no image of a known format'),
    'page': (lambda: b'<html>404</html>', 'no image of a known format: JPEG, PNG'),
    'eps': (lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n', 'no image of a'),
    'ico': (lambda: saved(PHOTO, 'ICO'), 'no image of a'),
    'psd': (lambda: b'8BPS\0\1' + bytes(99), 'no image of a'),
    'cut jpeg': (lambda: saved(PHOTO.resize((99, 99)), 'JPEG')[:-900], 'truncated'),
    'cut png': (lambda: saved(PHOTO.resize((99, 99)), 'PNG')[:-900], 'truncated'),
    'cut tiff': (lambda: saved(PHOTO.resize((99, 99)), 'TIFF', compression='tiff_lzw')[:-900], ''),
    'cut webp': (lambda: saved(PHOTO.resize((99, 99)), 'WEBP')[:-300], ''),
    'cut gif': (lambda: saved(PHOTO.resize((99, 99)), 'GIF')[:-900], ''),
    'cut bmp': (lambda: saved(PHOTO, 'BMP')[:-60], 'truncated'),
    'cut ppm': (lambda: saved(PHOTO, 'PPM')[:-60], 'truncated'),
    'float tiff': (lambda: saved(Image.fromarray(np.ones((4, 4), np.float32)), 'TIFF'), 'no fixed white'),
    '32 bits': (lambda: saved(Image.fromarray(np.full((4, 4), 70000, np.int32)), 'TIFF'), '70000 have no fixed white'),
    'below zero': (lambda: Image.fromarray(np.full((4, 4), -1, np.int32)), 'no fixed white'),
    'float array': (lambda: np.ones((4, 4, 3)), "astype('uint8')"),
    'half tensor': (lambda: torch.ones(4, 4, 3).half(), "astype('uint8')"),
    'channels first': (lambda: np.ones((3, 4, 5), np.uint8), 'x.transpose(1,2,0)'),
    'channels first, tensor': (lambda: torch.ones(1, 4, 5, dtype=torch.uint8), 'x.permute(1,2,0)'),
    'batch': (lambda: np.ones((2, 4, 5, 3), np.uint8), 'give (h,w)'),
    'row': (lambda: np.ones(4, np.uint8), 'give (h,w)'),
    'no pixels': (lambda: np.ones((0, 4, 3), np.uint8), 'no pixels'),
    'no pixels in memory': (lambda: Image.new('RGB', (0, 5)), 'no pixels'),
    'a number': (lambda: 0, 'int is no image'),
    'none': (lambda: None, 'NoneType is no image'),
    'objects': (lambda: np.array([[None]]), 'no fixed white'),
    'too many': (lambda: patched(huge(), struct.pack('>II', 20000, 12501), struct.pack('>II', 20000, 12501)),
                 '20000 x 12501 are 250 million pixels; at most 250 are read'),
    'far too many': (lambda: patched(huge(), struct.pack('>II', 20000, 12501), struct.pack('>II', 2**31-1, 2**31-1)),
                     'at most 250 are read'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_refused_in_a_few_words(kind):
    make, says = REFUSED[kind]
    why = image_fault(make())
    assert why and says in why and '\n' not in why and len(why) <= 120, why
    with pytest.raises(CourseError) as e: RGBImage.create(make())
    assert why in str(e.value) and '\n' not in str(e.value)


def fifo(path): os.mkfifo(path)
def link(path): path.symlink_to('nowhere')
def loop(path): path.symlink_to(path.name)
def null(path): path.symlink_to('/dev/null')
def zero(path): path.symlink_to('/dev/zero')


@pytest.mark.parametrize('make, says', [
    (fifo, 'no regular file'), (os.mkdir, 'no regular file'), (null, 'no regular file'), (zero, 'no regular file'),
    (link, 'No such file'), (loop, 'symbolic links'), (lambda p: p.write_bytes(b''), 'an empty file'),
    (lambda p: None, 'No such file')])
@pytest.mark.parametrize('name', ['a.jpg', 'é.png', b'\xff\x1b[31m.gif'.decode('utf-8', 'surrogateescape')])
def test_what_is_no_regular_file(tmp_path, name, make, says):
    path = tmp_path/name
    make(path)
    done = []
    thread = threading.Thread(target=lambda: done.append(image_fault(path)), daemon=True)
    thread.start()
    thread.join(5)
    assert done and says in done[0], done or 'it waits'
    with pytest.raises(CourseError) as e: RGBImage.create(path)
    assert str(e.value).isprintable()


def test_names_of_any_bytes_are_read(tmp_path):
    for name in ('$HOME.jpg', ' .png', 'été.webp', 'e\u0301.bmp', '写真.gif', '\x1b[2J\n.tif',
                 b'\xff\xfe.ppm'.decode('utf-8', 'surrogateescape')):
        PHOTO.save(tmp_path/name, {'.tif': 'TIFF', '.jpg': 'JPEG'}.get(os.path.splitext(name)[1]))
        assert seen(tmp_path/name).shape == (6, 9, 3)


def test_no_other_program_is_started(tmp_path, monkeypatch):
    "An EPS whatever it is called"
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args, **kwargs: pytest.fail('Ghostscript was started'))
    for name in ('page.jpg', 'page.eps', 'page'):
        (tmp_path/name).write_bytes(REFUSED['eps'][0]())
        assert 'no image' in image_fault(tmp_path/name)


# -- quiet, and no trace in Pillow's own settings

BABBLERS = {
    'palette': lambda: palette(b'\xff\x80'),
    'exif': lambda: saved(UPRIGHT, 'JPEG', exif=b'Exif\0\0II*\0\x08\0\0\0\xff\0' + b'\x12\x01\x03\0\xff\xff\xff\x7f'*9),
    'mpo': lambda: saved(UPRIGHT, 'MPO', save_all=True, append_images=[UPRIGHT])[:-2000],
    'large': lambda: saved(PHOTO, 'PNG')}


@pytest.mark.parametrize('kind', BABBLERS)
def test_no_warning_of_a_library_is_shown(kind, recwarn, monkeypatch):
    warnings.simplefilter('always')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', PHOTO.width*PHOTO.height-1 if kind == 'large' else None)
    image = BABBLERS[kind]()
    why = image_fault(image)
    assert find_broken([image]*20) == (dict.fromkeys(range(20), why) if why else {})
    assert not recwarn.list, recwarn.list[0].message
    warnings.warn('others are heard', stacklevel=1)
    assert len(recwarn.list) == 1


def damaged(n, seed=0):
    "Images of all formats with bytes changed or cut off"
    rng = random.Random(seed)
    kinds = [(kind, {}) for kind in ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')]
    kinds += [('TIFF', {'compression': c}) for c in ('tiff_lzw', 'tiff_deflate', 'jpeg', 'packbits')]
    whole = [saved(im, kind, **how) for kind, how in kinds for im in (PHOTO.resize((40, 30)),)]
    whole += [saved(PHOTO.resize((40, 30)).convert('1'), 'TIFF', compression='group4'), DEEP['png'](grey(4095)),
              saved(UPRIGHT, 'JPEG', exif=exif(6)), one_clear('RGBA', 'WEBP'), palette(1, 'GIF')]
    for i in range(n):
        data = bytearray(whole[i % len(whole)])
        if i % 3:
            end = 400 if i % 2 else len(data)
            for _ in range(1+i % 5): data[rng.randrange(min(len(data), end))] = rng.randrange(256)
        else: del data[rng.randrange(len(data)):]
        yield bytes(data)


def test_damaged_images_are_read_or_refused_without_a_word(capfd, recwarn):
    warnings.simplefilter('always')
    for data in damaged(320):
        why = image_fault(data)
        assert '\n' not in why and len(why) <= 120
    assert capfd.readouterr() == ('', '') and not recwarn.list
    for handler in logging.getLogger('PIL').handlers: assert isinstance(handler, logging.NullHandler)


def test_large_images_are_read_and_pillows_limit_stays(monkeypatch):
    "However low the user's own is; the smaller numbers here stand for 250 and 64 million"
    monkeypatch.setattr(images, '_HALVED', 1000)
    big = PHOTO.resize((91, 60), Image.Resampling.BICUBIC)
    lazy = Image.open(io.BytesIO(saved(big, 'JPEG')))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    for image in (saved(big, 'PNG'), saved(big, 'JPEG'), saved(big, 'TIFF'), saved(big, 'TIFF', compression='tiff_lzw'),
                  saved(big.convert('P'), 'PNG'), saved(big.convert('RGBA'), 'WEBP'), saved(big, 'BMP'),
                  saved(big, 'GIF'), saved(big, 'PPM'), big, np.asarray(big), np.asarray(big).astype(np.uint16)*16+15,
                  saved(TURNED[6](big), 'JPEG', exif=exif(6)), saved(TURNED[6](big), 'PNG', exif=exif(6)),
                  saved(TURNED[6](big), 'TIFF', exif=exif(6))):
        im = RGBImage.create(image)
        assert im.size == (23, 15) and np.abs(np.asarray(im).astype(int)-np.asarray(big.reduce(4))).mean() < 20
    for image in (saved(big.convert('1'), 'PNG'), DEEP['png'](grey(4095, 6400))):
        assert 90 < seen(image).mean() < 160 and seen(image)[..., 0].size <= 1000
    monkeypatch.setattr('resnet_course.machine.free_memory', lambda: 1000)
    assert image_fault(saved(big, 'PNG')).startswith('an image of 91 x 60 needs 0.0 GB of memory or more, and 0.0')
    assert image_fault(lazy) and lazy.size == big.size
    monkeypatch.setattr(images, 'MOST_PIXELS', 5000)
    assert 'at most' in image_fault(saved(big, 'JPEG')) and 'at most' in image_fault(big)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_reading_does_not_change_the_image_it_was_given():
    data = saved(UPRIGHT, 'JPEG', exif=exif(6))
    im = Image.open(io.BytesIO(data))
    out = RGBImage.create(im)
    out.paste((255, 0, 0), (0, 0, 9, 9))
    assert im.getexif()[0x0112] == 6 and np.array_equal(im, Image.open(io.BytesIO(data)))
    for clear in (palette(1), CLEAR['tRNS 2 bits'][0](), CLEAR['tRNS 16 bits grey'][0](), CLEAR['palette gif'][0]()):
        first = Image.open(io.BytesIO(clear))
        info = dict(first.info)
        assert np.array_equal(seen(first), seen(clear)) and first.info == info
    assert np.array_equal(seen(first), seen(clear))


def test_ordinary_photographs_are_what_pillow_says():
    im = Image.fromarray(RNG.integers(0, 256, (64, 80, 3), dtype=np.uint8))
    for data in (saved(im, 'JPEG'), saved(im.convert('L'), 'JPEG'), saved(im.convert('CMYK'), 'JPEG'), saved(im, 'PNG'),
                 saved(im, 'BMP'), saved(im, 'DIB'), saved(im, 'PPM'), saved(im, 'TIFF'), saved(im, 'WEBP')):
        assert np.array_equal(seen(data), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))


def test_heic_where_its_package_is(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    stored = heif.from_pillow(TURNED[6](UPRIGHT))
    stored.save(tmp_path/'a.heic', exif=exif(6).tobytes(), quality=-1)
    assert np.abs(seen(tmp_path/'a.heic').astype(int)-np.asarray(UPRIGHT)).max() < 9


@pytest.mark.parametrize('brand', ['heic', *map(slow, ('heix', 'heim', 'hevc', 'hevx', 'mif1', 'msf1'))])
def test_heic_without_its_package_names_it(command, done, tmp_path, brand):
    "Whatever the file is called, and where there is no name"
    if 'HEIF' in FORMATS: pytest.skip('pillow-heif is installed')
    data = b'\0\0\0\x18ftyp'+brand.encode()+b'\0\0\0\0mif1'+bytes(300)
    for name in ('a.heic', 'a.jpg', 'a'):
        (tmp_path/name).write_bytes(data)
        assert image_fault(tmp_path/name) == 'needs the package pillow-heif'
    assert image_fault(data) == 'needs the package pillow-heif'
    assert 'pillow-heif' in command('predict', done.folder/'model.safetensors', tmp_path/'a.jpg')[2]
    assert 'pillow-heif' in classify(*load_model(done.folder/'model.safetensors'), data)['error']
    assert image_fault(data.replace(b'ftyp', b'ftyq')).startswith('no image of a known format')
