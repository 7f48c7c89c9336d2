"""Files that may be anything: they work, or are refused in one line, soon, and without much memory

A tenth of the cases runs with the suite; `pytest tests/test_fuzz.py --fuzz` runs all. The seed is fixed."""
import io
import json
import random
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_bytes

from resnet_course.errors import CourseError

pytestmark = pytest.mark.slow
CASES = {'images': 2_000, 'models': 1_000, 'checkpoints': 1_000, 'configs': 500}
ODD = [None, True, False, 0, 1, -1, 2, 3, 2**31, 2**63, 10**30, 10**400, 0.5, -0.5, float('nan'), float('inf'), '', 'a',
       'big', '\x1b[31m', '\ud800', 'a'*10_000, [], [[]], [1]*1000, {}, {'a': 1}, [None], [{}]]


def scarred(rng, data):
    "The bytes with a few of them changed, cut out, doubled or put elsewhere"
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if not data: break
        a, b = sorted(rng.randrange(len(data)+1) for _ in range(2))
        if rng.random() < 0.5: a = rng.randrange(min(len(data), 64))  # where formats keep their sizes
        kind = rng.randrange(6)
        if kind < 3: data[min(a, len(data)-1)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
        elif kind == 3: del data[a:]
        elif kind == 4: del data[a:b]
        else: data[a:a] = data[a:b][:1000]
    return bytes(data)


def warped(rng, tree):
    "The entries with one of them, at any depth, gone, another or new"
    if isinstance(tree, dict) and tree and rng.random() < 0.8:
        key = rng.choice(list(tree))
        kind = rng.randrange(8)
        if kind == 0: return {k: v for k, v in tree.items() if k != key}
        if kind == 1: return tree | {rng.choice(['', 'new', 'schema', 5]): rng.choice(ODD)}
        return tree | {key: warped(rng, tree[key])}
    if isinstance(tree, (list, tuple)) and tree and rng.random() < 0.8:
        i = rng.randrange(len(tree))
        return rng.choice([[*tree[:i], *tree[i+1:]], [*tree, tree[i]], [*tree[:i], warped(rng, tree[i]), *tree[i+1:]]])
    if isinstance(tree, torch.Tensor) and rng.random() < 0.8:
        return rng.choice([tree[None], tree.double(), tree*float('nan'), tree.flatten()[:1], tree.to_sparse(), tree+1,
                           torch.empty(10**12, device='meta'), tree.new_zeros(1).expand(10**6)])
    return rng.choice(ODD)


def json_of(tree):
    try: return json.dumps(tree)
    except (TypeError, ValueError): return '{"not": "json"'


# -- what is done to each kind

KINDS = [(kind, mode, {}) for kind, modes in {
    'JPEG': 'L RGB CMYK', 'MPO': 'RGB', 'WEBP': 'RGB RGBA', 'BMP': '1 L P RGB', 'GIF': '1 L P', 'PPM': '1 L RGB I;16',
    'PNG': '1 L LA P RGB RGBA I;16'}.items() for mode in modes.split()]
KINDS += [('TIFF', mode, {'compression': packing}) for mode in '1 L LA P RGB RGBA I;16'.split()
          for packing in (None, 'tiff_lzw', 'tiff_deflate', 'packbits', *(['jpeg'] if mode in ('L', 'RGB') else []))]


def images(rng, folder, run):
    "An image of some format and mode, scarred"
    from resnet_course.images import RGBImage, image_fault
    kind, mode, options = rng.choice(KINDS)
    width, height = rng.choice([(1, 1), (7, 5), (64, 48), (300, 200)])
    noise = rng.randbytes(4*width*height)
    if mode == 'I;16': im = Image.frombytes(mode, (width, height), noise[:2*width*height])
    else: im = Image.frombytes('RGBA', (width, height), noise).convert(mode)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[274] = rng.choice([1, 3, 6, 8, 0, 99])
    im.save(buffer, kind, **options, **({'exif': exif} if kind in ('JPEG', 'PNG', 'WEBP') else {}))
    file = folder/f'image.{kind.lower()}'
    file.write_bytes(scarred(rng, buffer.getvalue()))
    fault = image_fault(file)
    assert '\n' not in fault and len(fault) < 300, fault
    if fault: return False
    assert RGBImage.create(file).mode == 'RGB'
    return True


def models(rng, folder, run):
    from resnet_course.model_files import load_model
    from resnet_course.predict import predict
    data = (run/'model.safetensors').read_bytes()
    if rng.random() < 0.5: data = scarred(rng, data)
    else:
        weights, n = load_tensors(data), int.from_bytes(data[:8], 'little')
        spec = json.loads(json.loads(data[8:8+n])['__metadata__']['resnet_course'])
        if rng.random() < 0.3: weights[key] = warped(rng, weights[key := rng.choice(list(weights))])
        else: spec = warped(rng, spec)
        try: data = tensors_bytes(weights, {'resnet_course': json_of(spec)})
        except Exception: data = b''  # no tensors that can be written
    (folder/'model').write_bytes(data)
    model, spec = load_model(folder/'model')
    p = predict(model, spec, Image.new('RGB', (40, 40)))
    assert p.notna().all() and abs(p.sum()-1) < 1e-3
    return True


def resumed(rng, folder, run, spoil):
    from tiny import fit
    out = folder/'run'
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    spoil(out)
    before = {f.name: f.read_bytes() for f in out.iterdir()}
    try: fit(None, None, out, resume=True)
    except CourseError:
        assert before == {f.name: f.read_bytes() for f in out.iterdir()}, "a refused folder was changed"
        raise
    return True


def checkpoints(rng, folder, run):
    def spoil(out):
        file = out/'checkpoint.pt'
        if rng.random() < 0.3: return file.write_bytes(scarred(rng, file.read_bytes()))
        try: torch.save(warped(rng, torch.load(file, weights_only=True)), file)
        except Exception: file.write_bytes(b'')
    return resumed(rng, folder, run, spoil)


def configs(rng, folder, run):
    def spoil(out):
        file = out/'config.json'
        if rng.random() < 0.3: return file.write_bytes(scarred(rng, file.read_bytes()))
        file.write_text(json_of(warped(rng, json.loads(file.read_text()))))
    return resumed(rng, folder, run, spoil)


# -- in a process of its own, whose memory can be measured

def memory_mb(key):
    return next(int(line.split()[1])/1024 for line in Path('/proc/self/status').read_text().splitlines()
                if line.startswith(key))


def cases(kind, n, folder, run):
    "Try `n` cases; how many worked, how many were refused, the longest in seconds, memory above rest in MB"
    warnings.simplefilter('ignore')
    import resnet_course.recipes  # noqa: F401  torchvision and timm warn as they are imported
    warnings.simplefilter('error')
    try_one, counts, longest = globals()[kind], [0, 0], 0
    for seed in range(-10, n):
        if seed == 0:  # all is imported by now
            Path('/proc/self/clear_refs').write_text('5')
            rest = memory_mb('VmRSS')
        began, said = time.perf_counter(), ''
        try: worked = try_one(random.Random(f'{kind} {seed}'), Path(folder), Path(run))
        except CourseError as e: worked, said = False, str(e)
        except BaseException as e: raise AssertionError(f'case {seed}: {type(e).__name__}: {e}') from e
        assert '\n' not in said and len(said) < 1000, f'case {seed}: {said}'
        if seed >= 0: counts[not worked] += 1
        longest = max(longest, time.perf_counter()-began)
    return *counts, longest, memory_mb('VmHWM')-rest


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason="memory is measured as Linux has it")
@pytest.mark.parametrize('kind', CASES)
def test_fuzz(kind, done, tmp_path, request, capfd):
    n = CASES[kind] // (1 if request.config.getoption('--fuzz') else 10)
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        worked, refused, longest, memory = pool.submit(cases, kind, n, tmp_path, done.folder).result()
    printed = capfd.readouterr()
    with capfd.disabled():
        print(f' {kind}: {worked} worked, {refused} refused, {longest:.1f} s at most, {memory:.0f} MB above rest')
    assert worked+refused == n and worked > n/100 and refused > n/10
    assert longest < 10 and memory < 300
    assert not printed.err, f"a library printed lines of its own: {printed.err[:300]}"
