"Bad input: one clear line that names value, rule and fix, exit status 2, nothing lost, nothing half-written"
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL_NET
from fastai.callback.core import CancelFitException
from PIL import Image

from resnet_course.run import FiniteLoss


def short(value):
    "A value in a test's name; Python writes out no more than 4,300 digits"
    try: return repr(value)[:30]
    except ValueError: return 'long'


def train(data, out, *more): return ['train', '--data', data, '--out', out, *SMALL_NET, '--epochs', '1', *more]


@pytest.mark.parametrize('words, says', [
    ('--size 31', '32 or more'),
    ('--size big', "'big' is not a number"),
    ('--progressive 16,32', '32 or more'),
    ('--epochs 0', '1 or more'),
    ('--epochs 1.5', 'not a number'),
    ('--lr 0', 'above 0'),
    ('--lr -1e-3', 'above 0'),
    ('--lr nan', 'above 0'),
    ('--lr inf', 'above 0'),
    ('--bs 1', 'batchnorm needs two'),
    ('--bs 5000', 'more than the 1433 training images'),
    ('--seed x', 'not a number'),
    ('--arch resnet19', 'resnet18'),
    ('--arch vgg', 'resnet18'),
    ('--layers 2,2,2', 'needs 4'),
    ('--layers 2,2,2,2,2', 'needs 4'),
    ('--layers 2,0,2,2', '1 or more'),
    ('--layers 2,-1,2,2', '1 or more'),
    ('--layers a,b', 'not a list of whole numbers'),
    ('--layers 2,2,2,2 --expansion 2', 'neither 1 (basic blocks) nor 4'),
    ('--layers 2,2,2,2 --arch resnet18', 'two nets'),
    ('--expansion 4', 'goes with --layers'),
    ('--width 66', 'multiple of 4'),
    ('--width 0', 'multiple of 4'),
    ('--presize 32 --size 64', 'below the size 64'),
    ('--progressive 32,48 --size 64', 'not the last'),
    ('--progressive 32,48,64 --epochs 2', 'fewer than 3 sizes'),
    ('--progressive 48,32', 'does not grow'),
    ('--precision fp8', 'fp8'),
    ('--resume', 'add --out'),
    ('--epoch-count 3', '--epoch-count'),
    ('--data nowhere', 'digits, imagenette-160'),
    # -- numbers without end
    ('--epochs 1000000000', 'at most 100,000'),
    ('--epochs 100001', 'at most 100,000'),
    ('--layers 1000000,1,1,1', 'at most 1,000'),
    ('--layers 1,1,1,1001', 'at most 1,000'),
    ('--layers 1,1,1,1 --expansion 1000000000000', 'at most 4'),
    ('--width 16384', 'at most 4,096'),
    ('--width 100000000000000000000', 'at most 4,096'),
    ('--size 4097', 'at most 4,096'),
    ('--presize 1000000000', 'at most 4,096'),
    ('--progressive 32,5000', 'at most 4,096'),
    ('--bs 65537', 'at most 65,536'),
    ('--seed 18446744073709551616', 'at most 2**63-1'),
    ('--seed 9223372036854775808', 'at most 2**63-1'),
    ('--workers 1000000000000000000000000000000', '4 a core'),
    ('--lr 1e31', 'at most 1e30'),
    ('--lr 1e400', 'at most 1e30'),
    ('--lr 1e-400', 'above 0'),
    *[(f'--{name} {"9"*5000}', 'at most') for name in (
        'epochs', 'size', 'presize', 'bs', 'seed', 'workers', 'width', 'layers', 'progressive', 'lr')],
    # -- numbers that only Python takes for one
    *[(f'--{name} {text}', 'not a') for name in ('epochs', 'seed', 'width', 'layers', 'expansion', 'progressive', 'lr')
      for text in ('1_0', '٣', '\uff15', '0x10', '1e', 'None')],
    *[(f'--{name} {text}', 'not a') for name in ('epochs', 'bs', 'layers') for text in ('1e3', '2.', 'inf', '1,', ',')],
    *[([f'--{name}', text], 'not a') for name in ('epochs', 'lr', 'layers') for text in (' 4', '4 ', '4\n', '', ' ')],
    # -- names
    (['--out', ''], 'empty name'), (['--data', ''], 'empty name'),
    (['--arch', 'x'*10_000], 'resnet18'), (['--arch', '\x1b[2J'], "'\\x1b[2J'"), (['--layers', '\x1b[2J'], '\\x1b[2J'),
    (['--\x1b[2J'], '--\\x1b[2J'), (['--precision', 'caf\udce9'], 'bf16'),
], ids=lambda v: str(v)[:40])
def test_option(refused, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    line = refused('train', *(words.split() if isinstance(words, str) else words))
    assert says in line and len(line) < 400 and line.strip().isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('words, says', [
    ('cost resnet50 --size 40000', 'at most 4,096'), ('cost resnet50 --size 4e2', 'not a number'),
    ('cost resnet18 --classes 100001', 'at most 100,000'), ('cost resnet18 --classes 0', '1 or more'),
    ('cost --layers 1000000000,1,1,1', 'at most 1,000'), ('cost --layers 1,1,1,1 --width 8192', 'at most 4,096'),
    ('cost mobilenet_v2 --width 8', 'takes no width'), ('cost --layers 1,1,1,1 --expansion 3', 'nor 4'),
    (f'predict m x --top {10**30}', 'at most 100,000'), (f'predict m x --top {"1"*5000}', 'at most 100,000')],
    ids=lambda v: str(v)[:40])
def test_number_of_another_command(refused, words, says):
    line = refused(*words.split())
    assert says in line and len(line) < 400


@pytest.mark.parametrize('net, options, says', [
    ('resnet', {}, 'resnet50'), ('resnet19', {}, 'did you mean resnet18 or'), ('vgg16', {}, "'vgg16'; take one of "),
    ('', {}, 'no net is called'), (None, {}, 'no net is called'), (3, {}, 'no net is'),
    ([1], {}, 'no net is called'), ('x'*10**6, {}, 'no net is called'), ('resnet18', None, 'is no dictionary'),
    ('resnet18', [1], 'is no dictionary'), ('resnet18', {'x'*10**6: 1}, 'takes no x'), ('nin', {5: 1}, 'takes no 5'),
    ('resnet18', {'n_out': 3}, 'takes no n_out'), ('ResNet', {}, 'needs its layers'),
    *[('ResNet', {'layers': v}, 'layers=') for v in (
        [10**9, 1, 1, 1], [1, 1, 1, 1001], [1, 1, 1, 0], [1, 1, 1, -1], [1, 1, 1], [1]*10**6, [1, 1, 1, 1.], [True]*4,
        [[1], 1, 1, 1], [1, 1, 1, float('nan')], [1, 1, 1, None], [1, 1, 1, '1'], '1111', 4, None, {}, 10**5000,
        [10**5000]*4)],
    *[('ResNet', {'layers': [1]*4, 'expansion': v}, 'expansion=') for v in (0, 2, 4., '4', True, None, [4], 10**5000)],
    *[('resnet18', {'width': v}, 'width=') for v in (
        0, -4, 66, 16384, 10**30, 10**5000, 64., float('nan'), float('inf'), 'big', None, True, [64], {})],
    *[(net, {'n_in': v}, 'n_in=') for net in ('resnet50', 'nin', 'googlenet') for v in (0, -1, 5000, 3., None, [])],
    *[('googlenet', {'aux': v}, 'aux=') for v in (1, 0, None, 'yes', [], 2.)],
    *[('resnet18', {k: v}, f'{k}=') for k in ('stem', 'block', 'shortcut') for v in (1, 'deep_stem', [], True)],
    ('resnet18', {'pretrained': 1}, 'pretrained=')], ids=short)
def test_net_that_is_none(net, options, says):
    "Names, kinds and limits, before a layer is made"
    from resnet_course import CourseError
    from resnet_course.models import build_model, check_net
    with pytest.raises(CourseError) as e: check_net(net, options)
    assert says in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < 400
    with pytest.raises(CourseError): build_model({'net': net, 'net_options': options}, 10)


@pytest.mark.parametrize('n', [0, -1, 100_001, 10**5000, 1.5, True, '10'], ids=short)
def test_classes_that_are_no_number_of_them(n):
    from resnet_course import CourseError, create_model
    with pytest.raises(CourseError, match='n_out='): create_model('resnet18', n)


@pytest.mark.parametrize('field, value', [
    ('bs', 65_537), ('bs', 10**5000), ('presize', 4_097), ('sizes', (4_097,)), ('sizes', (32,)*100_001), ('wd', 1e4),
    ('sizes', (10**5000,)), ('lr', 1e31), ('lr', 10**400), ('validate', 100_001), ('seed', 2**63), ('net', 'x'*10**6),
    ('net_options', {'n_in': 1}), ('optimiser', 'x'*10**6)], ids=short)
def test_recipe_without_end(field, value):
    from resnet_course import CourseError
    from resnet_course.recipes import Recipe, make_net
    with pytest.raises(CourseError) as e: make_net(Recipe(**{field: value}), 10)
    assert len(str(e.value)) < 400 and '\n' not in str(e.value)


def test_limits_are_told_and_kept(command):
    "The help has the numbers; what is at a limit passes"
    from resnet_course.limits import LIMITS, check_limit
    from resnet_course.models import check_net
    from resnet_course.recipes import Recipe
    told = ' '.join(command('train', '--help')[1].split())
    for most in ('100,000', '1,000', '4,096', '65,536', '2**63-1', '1e30', '4 a core'): assert most in told, most
    for name, ends in LIMITS.items():
        for value in ends: check_limit(name, value)
    check_net('ResNet', {'layers': [1000]*4, 'expansion': 4, 'width': 4096, 'n_in': 4096}, 100_000)
    check_net('googlenet', {'aux': True}), check_net('resnet18', {'block': None, 'stem': lambda ni, nf: None})
    Recipe(bs=65_536, presize=4_096, sizes=(4_096,)*100_000, lr=1e30, seed=2**63-1)


def test_the_largest_seed_trains(command, small, tmp_path):
    status, _, err = command(*train(small, tmp_path/'run', '--seed', 2**63-1))
    assert status == 0, err


def test_a_step_takes_at_least_what_is_said():
    from resnet_course.models import create_model, step_bytes
    spec = {'net': 'resnet18', 'net_options': {'width': 8}}
    weights = 4*sum(p.numel() for p in create_model('resnet18', 10, width=8).parameters())
    small, large = (step_bytes(spec, 10, 64, bs) for bs in (1, 100))
    assert 4*weights == small < large == 3*weights + (large-3*weights)//100*100
    assert step_bytes(spec, 10, 64, 100, states=1, itemsize=2) - 2*weights == (large-3*weights)/2
    assert step_bytes({'net': 'resnet50', 'net_options': {}}, 10, 4096, 64) > 100e9


def test_cost_takes_no_memory(command, monkeypatch):
    from resnet_course import cost
    seen, rows = [], cost.cost_rows
    def note(model, size):
        seen.append({p.device.type for p in model.parameters()})
        return rows(model, size)
    monkeypatch.setattr(cost, 'cost_rows', note)
    status, out, _ = command('cost', 'resnet18', '--size', 4096, '--width', 512)
    assert status == 0 and seen == [{'meta'}] and 'total' in out


def test_workers_that_do_not_fit(monkeypatch, tmp_path):
    from collections import namedtuple

    from resnet_course import CourseError, workers
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: namedtuple('usage', 'free')(64e6))
    workers.check_workers(2, 12_000_000, tmp_path), workers.check_workers(0, 10**12, tmp_path)
    workers.check_workers(99, 10**12, tmp_path/'none')
    with pytest.raises(CourseError, match=r'workers=4 need 108 MB .* has 64 MB; take workers=0'):
        workers.check_workers(4, 12_000_000, tmp_path)


class Killed:
    def __len__(self): return 2
    def __getitem__(self, i): os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line():
    from torch.utils.data import DataLoader

    from resnet_course import CourseError
    from resnet_course.workers import worker_faults
    with pytest.raises(CourseError, match=r'process that reads images has ended .* workers=0') as e, worker_faults():
        list(DataLoader(Killed(), num_workers=1))
    assert '\n' not in str(e.value)
    with pytest.raises(RuntimeError, match='another'), worker_faults(): raise RuntimeError('another')


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu(refused): assert '--device cpu' in refused('train', '--device', 'cuda')


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_fp16_on_cpu(refused): assert 'bf16 or fp32' in refused('train', '--precision', 'fp16')


def test_data_folder(refused, small, tmp_path):
    out = tmp_path/'run'
    (small/'val').rename(small/'valid')
    assert 'no folder val/' in refused(*train(small, out))
    (small/'valid').rename(small/'val')
    shutil.copytree(small/'val'/'3', small/'val'/'8')
    assert "class '8' is in val/ but not in train/" in refused(*train(small, out))
    shutil.rmtree(small/'val'/'8')
    (small/'train'/'9').mkdir()
    assert "class '9'" in refused(*train(small, out))
    for f in (small/'train').iterdir(): shutil.rmtree(f)
    assert 'no class folders' in refused(*train(small, out))
    assert not out.exists()


def make_broken(folder, digits):
    "Five files that are no image, one way each"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(folder/'cut.jpg')
    whole = (folder/'cut.jpg').read_bytes()
    (folder/'cut.jpg').write_bytes(whole[:len(whole)//2])
    noise.save(folder/'cut.png')
    whole = (folder/'cut.png').read_bytes()
    (folder/'cut.png').write_bytes(whole[:len(whole)//2])
    (folder/'empty.png').write_bytes(b'')
    (folder/'text.jpg').write_text('not an image')
    Image.new('1', (20_000, 20_000)).save(folder/'huge.png')
    return {'cut.jpg', 'cut.png', 'empty.png', 'text.jpg', 'huge.png'}


def test_broken_images(refused, command, small, digits, tmp_path):
    names = make_broken(small/'train'/'3', digits)
    line = refused(*train(small, tmp_path/'run'))
    assert '5 of 37 images cannot be read' in line and 'and 2 more' in line and '--skip-broken' in line
    assert not (tmp_path/'run').exists()
    status, out, err = command(*train(small, tmp_path/'run', '--skip-broken'))
    assert status == 0, err
    assert all(f'skipped train/3/{name} (' in out for name in names) and 'skipped 5 of 37 images' in out
    assert '24 training and 8 validation' in out


def test_class_of_broken_images_only(refused, small, tmp_path):
    for f in (small/'val'/'3').iterdir(): f.write_bytes(b'')
    assert "class '3' in" in refused(*train(small, tmp_path/'run', '--skip-broken'))


def test_odd_images_are_used(command, small, tmp_path):
    folder, grey = small/'train'/'3', np.arange(64*64, dtype=np.uint16).reshape(64, 64)*16
    Image.new('CMYK', (40, 40), (9, 99, 0, 0)).save(folder/'cmyk.jpg')
    Image.fromarray(grey).save(folder/'16bit.png')
    Image.new('P', (40, 40)).save(folder/'palette.png', transparency=0)
    Image.new('RGBA', (40, 40), (1, 2, 3, 4)).save(folder/'rgba.png')
    Image.new('LA', (40, 40)).save(folder/'la.png')
    Image.new('RGB', (1, 1)).save(folder/'one.png')
    Image.new('RGB', (20_000, 3)).save(folder/'wide.png')
    status, out, err = command(*train(small, tmp_path/'run'))
    assert status == 0, err
    assert '31 training' in out


def test_16_bit_is_scaled_not_clipped(tmp_path):
    from resnet_course.data import RGBImage
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path/'grey.png')
    assert 126 <= np.asarray(RGBImage.create(tmp_path/'grey.png')).max() <= 129


def test_nan_loss_keeps_the_last_good_checkpoint(command, refused, small, tmp_path):
    out = tmp_path/'run'
    assert command(*train(small, out, '--epochs', '2'))[0] == 0
    line = refused(*train(small, tmp_path/'other', '--lr', '1e30', '--precision', 'fp32'))
    assert 'epoch 1' in line and 'batch' in line and 'no epoch was finished' in line and '--lr' in line
    # in a later epoch: poison the weights as a run would that diverges
    from resnet_course.run import load_checkpoint, load_model
    checkpoint = load_checkpoint(out/'checkpoint.pt')
    config = json.loads((out/'config.json').read_text())
    checkpoint['rows'] = checkpoint['rows'][:1]
    checkpoint['model']['head.weight'].fill_(3e38)
    torch.save(checkpoint, out/'checkpoint.pt')
    before = (out/'checkpoint.pt').read_bytes()
    assert 'the loss became' in refused('train', '--out', out, '--resume')  # which writes that epoch's model again
    model = (out/'model.safetensors').read_bytes()
    assert load_model(out/'model.safetensors')[0].head.weight.eq(3e38).all()
    line = refused('train', '--out', out, '--resume')
    assert 'the loss became nan in epoch 2, training batch 1' in line and 'epoch 1 is kept' in line
    assert (before, model) == ((out/'checkpoint.pt').read_bytes(), (out/'model.safetensors').read_bytes())
    assert config == json.loads((out/'config.json').read_text())


def test_nan_loss_is_found_when_looked_at_once_an_epoch():
    "as on a GPU"
    stop = FiniteLoss()
    stop.learn = SimpleNamespace(iter=2, epoch=1, training=False)
    stop.losses = [torch.tensor(v) for v in (3., 2., 1.)]
    stop.after_validate()
    stop.losses = [torch.tensor(v) for v in (3., float('inf'), 1.)]
    with pytest.raises(CancelFitException): stop.after_validate()
    assert stop.fault == 'the loss became inf in epoch 2, validation batch 2'


def test_run_folders(command, refused, small, tmp_path):
    out = tmp_path/'run'
    assert 'no run to resume' in refused('train', '--out', out, '--resume')
    assert command(*train(small, out))[0] == 0
    kept = {f.name: f.read_bytes() for f in out.iterdir()}
    assert 'already holds a run' in refused(*train(small, out))
    assert 'differs from the run' in refused(*train(small, out, '--lr', '1e-2', '--resume'))
    assert '--epochs 2 differs' in refused('train', '--out', out, '--resume', '--epochs', '2')
    (small/'train'/'3'/'extra.png').write_bytes(next((small/'train'/'7').iterdir()).read_bytes())
    assert 'needs the same data' in refused('train', '--out', out, '--resume')
    assert kept == {f.name: f.read_bytes() for f in out.iterdir()}


class Bomb:
    def __init__(self, path): self.path = path
    def __reduce__(self): return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize('kind', ['code', 'torch', 'cut', 'empty'])
def test_checkpoint_is_refused_never_executed(command, refused, small, tmp_path, kind):
    out, mark = tmp_path/'run', tmp_path/'executed'
    assert command(*train(small, out))[0] == 0
    model, checkpoint = out/'model.safetensors', out/'checkpoint.pt'
    for f in (model, checkpoint):
        if kind == 'code': f.write_bytes(pickle.dumps(Bomb(mark)))
        elif kind == 'torch': torch.save({'model': Bomb(mark)}, f)
        elif kind == 'cut': f.write_bytes(f.read_bytes()[:-1000])
        else: f.write_bytes(b'')
    assert 'nothing in it was run' in refused('train', '--out', out, '--resume')
    image = next((small/'val'/'3').iterdir())
    assert 'cut short or no model of this course' in refused('predict', model, image)
    assert not mark.exists()


def test_weights_of_another_net_are_refused(command, refused, small, tmp_path):
    from resnet_course.run import load_model, save_model
    assert command(*train(small, tmp_path/'run'))[0] == 0
    model, spec = load_model(tmp_path/'run'/'model.safetensors')
    other, image = tmp_path/'other.safetensors', next((small/'val'/'3').iterdir())
    save_model(other, model, spec | {'net_options': spec['net_options'] | {'layers': [2, 1, 1, 1]}})
    assert 'no model of this course' in refused('predict', other, image)


def test_predict(refused, command, small, tmp_path):
    assert 'is no file' in refused('predict', tmp_path/'nothing.safetensors', 'x.png')
    assert command(*train(small, tmp_path/'run'))[0] == 0
    (tmp_path/'text.png').write_text('no image')
    good = next((small/'val'/'3').iterdir())
    images = [tmp_path/'text.png', good, tmp_path/'none.png']
    status, out, err = command('predict', tmp_path/'run'/'model.safetensors', *images)
    assert status == 2 and err.count('\n') == 1 and '2 of 3 images cannot be read' in err
    assert str(good) in out


def test_output_folder_that_cannot_be_made(refused, small, tmp_path):
    (tmp_path/'file').write_text('')
    assert 'check the path' in refused(*train(small, tmp_path/'file'/'run'))


def test_output_folder_not_writable(refused, small, tmp_path, plain_user):
    (tmp_path/'locked').mkdir(mode=0o500)
    assert 'permissions' in refused(*train(small, tmp_path/'locked'/'run'))


def small_disk():
    "Let no file of this process grow above 300 KB: writing fails as it does on a full disk"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


@pytest.mark.slow
def test_full_disk(small, tmp_path):
    out = tmp_path/'run'
    words = [sys.executable, '-m', 'resnet_course', *map(str, train(small, out))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=small_disk)
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
    assert str(out/'checkpoint.pt') in done.stderr and 'free space' in done.stderr.splitlines()[-1]
    assert {f.name for f in out.iterdir()} == {'config.json', 'trained.txt'}  # no file cut short


@pytest.mark.slow
def test_no_network(small, tmp_path):
    "Imagenette is not there and cannot be fetched: the line names the address, the folder and the embedded set"
    env = os.environ | {'FASTAI_HOME': str(tmp_path), 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9'}
    words = [sys.executable, '-m', 'resnet_course', 'train', '--data', 'imagenette-160']
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert 'imagenette2-160.tgz' in line and str(tmp_path/'data'/'imagenette2-160') in line and 'digits' in line
