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
])
def test_option(refused, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused('train', *words.split())
    assert not list(tmp_path.iterdir())


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
    from resnet_course.run import load_checkpoint
    checkpoint = load_checkpoint(out/'checkpoint.pt')
    config = json.loads((out/'config.json').read_text())
    checkpoint['rows'] = checkpoint['rows'][:1]
    checkpoint['model']['head.weight'].fill_(3e38)
    torch.save(checkpoint, out/'checkpoint.pt')
    before = (out/'checkpoint.pt').read_bytes()
    line = refused('train', '--out', out, '--resume')
    assert 'the loss became ' in line and ' in epoch 2, training batch 1' in line and 'epoch 1 is kept' in line
    assert before == (out/'checkpoint.pt').read_bytes()
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
    assert [f.name for f in out.iterdir()] == ['config.json']  # no file cut short


@pytest.mark.slow
def test_no_network(small, tmp_path):
    "Imagenette is not there and cannot be fetched: the line names the address, the folder and the embedded set"
    env = os.environ | {'FASTAI_HOME': str(tmp_path), 'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9'}
    words = [sys.executable, '-m', 'resnet_course', 'train', '--data', 'imagenette-160']
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    line = done.stderr.splitlines()[-1]
    assert 'imagenette2-160.tgz' in line and str(tmp_path/'data'/'imagenette2-160') in line and 'digits' in line
