"The fast path: what it computes equals fastai's, its cache is whole or absent, and every fault is one line"
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from fastai.callback import schedule  # noqa: F401  adds fit_one_cycle
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.optimizer import Adam
from fastai.torch_core import TensorImage, set_seed
from fastai.vision.augment import RandomResizedCrop, Resize
from PIL import Image
from scipy.stats import ks_2samp

from resnet_course import CourseError
from resnet_course import cache, step
from resnet_course.data import get_data
from resnet_course.fast import (BatchRandomResizedCrop, NormalizeBytes, cache_file, cached_images, crop_cpu, crop_gpu,
                                fast_data, fast_learner, fused_adam, matmul_convs, random_boxes, remove_cache)
from resnet_course.pixels import crop_middle, middle_square
from resnet_course.resizing import set_size
from resnet_course.resnet import ResNet


def caches(folder): return sorted(folder.glob('.resnet_course/*/*'))


# -- what it computes

def test_validation_images_are_the_books(small):
    "Undo the normalisation: the bytes in validation are those of fastai's Resize"
    book, ours = get_data(small, 40, 40, bs=8, workers=0), fast_data(small, 40, 40, bs=8, device='cpu')
    x, y = ours.valid.one_batch()
    bytes_ours = ours.valid.after_batch.fs[-1].decode(x)
    for image, label, fn in zip(bytes_ours, y, ours.valid_ds.items, strict=True):
        expected = book.valid.after_item(book.valid_ds[list(book.valid_ds.items).index(fn)])[0]
        assert torch.equal(image.as_subclass(torch.Tensor), torch.as_tensor(np.asarray(expected)).reshape(image.shape))
        assert ours.vocab[label] == fn.parent.name


@pytest.mark.parametrize('side', [1, 7, 32, 49, 160, 224])
def test_the_middle_square_is_fastai_s(side):
    "Of images that are wide, tall, square, smaller than it, one pixel; rounding falls where it falls there"
    rng = np.random.default_rng(side)
    shapes = [(1, 1), (2, 9), (9, 2), (31, 30), (49, 147), (300, 225), (375, 500), (side, side), (side+1, 3*side)]
    for w, h in [*shapes, *rng.integers(1, 400, (20, 2)).tolist()]:
        image = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
        if not int(min(w, h)/side*side): continue  # fastai cuts nothing out, and cannot resize it
        assert np.array_equal(middle_square(image, side), Resize(side)(image, split_idx=1))
    assert middle_square(Image.new('RGB', (1, 1)), 49).size == (49, 49)


def test_the_middle_of_a_batch():
    x = torch.arange(2*3*40*60).reshape(2, 3, 40, 60).remainder(251).byte()
    assert torch.equal(crop_middle(x, (40, 60)), x) and torch.equal(crop_middle(x, (20, 30), .5), x[..., 10:30, 15:45])
    assert crop_middle(x, (33, 31), 7/8).shape == (2, 3, 33, 31)


def test_normalised_as_fastai_does(small):
    from fastai.data.transforms import IntToFloatTensor, Normalize
    from fastai.vision.core import imagenet_stats
    x = TensorImage(torch.randint(0, 256, (3, 3, 33, 65), dtype=torch.uint8))
    expected = Normalize.from_stats(*imagenet_stats, cuda=False)(IntToFloatTensor()(x))
    result = NormalizeBytes()(x)
    assert torch.allclose(result, expected, atol=1e-5) and result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(NormalizeBytes().decode(result), x)


@pytest.mark.parametrize('side', [160, 33])
def test_boxes_are_drawn_as_fastai_draws_them(side):
    random.seed(0)
    torch.manual_seed(0)
    crop, image = RandomResizedCrop(64, min_scale=0.35), Image.new('RGB', (side, side))
    theirs = []
    for _ in range(4000):
        crop.before_call(image, 0)
        (w, h), (left, top) = crop.cp_size, crop.tl
        theirs.append([top, left, h, w])
    ours, theirs = random_boxes(4000, side, side).numpy(), np.array(theirs)
    assert ours.min() >= 0 and (ours[:, :2]+ours[:, 2:]).max() <= side
    for name, a, b in zip(['top', 'left', 'height', 'width'], ours.T, theirs.T, strict=True):
        assert ks_2samp(a, b).pvalue > 0.001, name
    for f in (lambda b: b[:, 2]*b[:, 3], lambda b: b[:, 3]/b[:, 2], lambda b: b[:, 0]/(side-b[:, 2]+1)):
        assert ks_2samp(f(ours), f(theirs)).pvalue > 0.001


def test_half_are_mirrored_and_each_has_a_box_of_its_own():
    torch.manual_seed(0)
    ramp = torch.arange(160, dtype=torch.uint8).expand(1000, 3, 160, 160).contiguous(memory_format=torch.channels_last)
    x = BatchRandomResizedCrop(32)(TensorImage(ramp), split_idx=0)
    mirrored = x[:, 0, 0, 0] > x[:, 0, 0, -1]
    assert 430 < mirrored.sum() < 570 and len(x[:, 0].flatten(1).unique(dim=0)) > 800
    assert not (BatchRandomResizedCrop(32, flip=False)(TensorImage(ramp), split_idx=0)[:, 0, 0, 0] > 150).any()


def test_lighting_is_fastais(digits):
    dls = fast_data('digits', 32, 32, bs=512, lighting=True)
    names = [type(f).__name__ for f in dls.train.after_batch.fs]
    assert names == ['BatchRandomResizedCrop', 'IntToFloatTensor', 'Brightness', 'Contrast', 'Normalize']
    plain = fast_data('digits', 32, 32, bs=512)
    spread = [d.train.one_batch()[0].flatten(1).std(1).std() for d in (dls, plain)]
    assert spread[0] > spread[1]


def test_both_crops_agree():
    "roi_align, for a GPU, and the antialiased resize of the CPU give nearly the same images"
    torch.manual_seed(0)
    coarse = torch.rand(8, 3, 20, 20)*255
    smooth = torch.nn.functional.interpolate(coarse, (160, 160), mode='bicubic').clamp(0, 255).byte()
    boxes, flips = random_boxes(8, 160, 160), torch.arange(8) % 2 == 0
    for size in (64, 97, 128):
        a = crop_cpu(smooth, boxes, flips, (size, size)).float()
        b = crop_gpu(smooth, boxes, flips, (size, size))
        assert (10*torch.log10(255**2/((a-b)**2).mean())) > 38


def test_fused_adam_is_fastais_adam():
    def weights(opt_func):
        set_seed(0, True)
        learn = Learner(fast_data('digits', 32, 32, bs=256, device='cpu'), ResNet(10, [1, 1, 1, 1], width=8),
                        loss_func=CrossEntropyLossFlat(), opt_func=opt_func)
        start = [p.detach().clone() for p in learn.model.parameters()]
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3, cbs=[])
        return start, list(learn.model.parameters())
    (start, a), (_, b) = weights(Adam), weights(fused_adam)
    assert max((p-q).abs().max() for p, q in zip(a, b, strict=True)) < 1e-4
    assert max((p-q).abs().max() for p, q in zip(a, start, strict=True)) > 1e-3


def test_norms_and_biases_do_not_decay():
    net = ResNet(10, [1, 1, 1, 1], width=8)
    groups = fused_adam([list(net.parameters())], wd=0.1).opt.param_groups
    assert [g['weight_decay'] for g in groups] == [0.1, 0.]
    assert sum(len(g['params']) for g in groups) == len(list(net.parameters()))
    assert all(p.ndim == 1 for p in groups[1]['params'])


@pytest.mark.skipif(not torch.cpu.get_capabilities().get('avx512_bf16', False), reason="this CPU computes no bfloat16")
def test_precision_reaches_the_convolutions():
    "fastai's own to_bf16 leaves them in float32 on a CPU"
    seen = []
    def dtype_of(learn):
        hook = learn.model.group1.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
        hook.remove()
        return seen[-1]
    def net(): return ResNet(10, [1, 1, 1, 1], width=8)
    dls = fast_data('digits', 32, 32, bs=512, device='cpu')
    assert dtype_of(fast_learner(dls, net())) == torch.bfloat16
    theirs = Learner(dls, net(), loss_func=CrossEntropyLossFlat()).to_bf16()
    with pytest.warns(UserWarning, match='CUDA is not available'): assert dtype_of(theirs) == torch.float32


def test_without_bfloat16_it_trains_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', dict)
    learn = fast_learner(fast_data('digits', 32, 32, bs=512, device='cpu'), ResNet(10, [1, 1, 1, 1], width=8))
    assert not hasattr(learn, 'b_float16')


@pytest.fixture
def products(monkeypatch):
    "The kernels and strides that were computed as a product of matrices"
    seen, whole = [], step.matmul_conv2d
    def note(x, weight, bias, stride):
        seen.append((weight.shape[-1], stride))
        return whole(x, weight, bias, stride)
    monkeypatch.setattr(step, 'matmul_conv2d', note)
    return seen


def test_products_where_places_are_few_and_only_there(products):
    "In bfloat16 the last two groups at 64 px; nowhere at 256 px, nor in float32"
    net = matmul_convs(ResNet(10, [1, 1, 1, 1], width=8)).eval()
    small, large = torch.randn(4, 3, 64, 64), torch.randn(4, 3, 256, 256)
    with torch.no_grad():
        net(small)
        with torch.autocast('cpu', torch.bfloat16):
            net(large)
            assert not products
            net(small)
    assert products == [(3, 2), (3, 1), (1, 1)]*2


def test_products_give_what_convolutions_give(products):
    "Loss and every gradient of a step in bfloat16, up to its rounding"
    def step(change):
        set_seed(0)
        net = change(ResNet(10, [1, 1, 1, 1], 4, width=16)).train()
        with torch.autocast('cpu', torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(net(torch.randn(8, 3, 40, 40)).float(), torch.arange(8))
        loss.backward()
        return loss.item(), {k: p.grad for k, p in net.named_parameters()}
    (loss, grads), (loss2, grads2) = step(lambda net: net), step(matmul_convs)
    assert products and list(grads) == list(grads2)
    assert loss2 == pytest.approx(loss, abs=0.02)
    for k, g in grads.items(): assert (grads2[k]-g).norm() <= 0.1*g.norm(), k


def test_one_image_without_a_batch_stays_a_convolution(products):
    net = matmul_convs(torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3, padding=1))).to(torch.bfloat16)
    assert net(torch.randn(64, 1, 1).to(torch.bfloat16)).shape == (64, 1, 1) and not products


def test_only_plain_convolutions_change():
    conv = torch.nn.Conv2d
    plain = conv(4, 4, 3, padding=1), conv(4, 8, 1, 2, bias=False), conv(4, 4, 5, 2, 2)
    other = (conv(4, 4, 3), conv(4, 4, 2), conv(4, 4, 3, (1, 2), 1), conv(4, 4, (1, 3), padding=(0, 1)),
             conv(4, 4, 3, padding=1, groups=2), conv(4, 4, 3, padding=2, dilation=2), conv(4, 4, 3, padding='same'),
             conv(4, 4, 3, padding=1, padding_mode='reflect'), torch.nn.ConvTranspose2d(4, 4, 3, padding=1))
    net = torch.nn.Sequential(*plain, *other)
    weights = {k: v.data_ptr() for k, v in net.state_dict().items()}
    assert [type(m) is step.FewPlacesConv2d for m in matmul_convs(net)] == [True]*len(plain)+[False]*len(other)
    assert {k: v.data_ptr() for k, v in net.state_dict().items()} == weights


def test_still_fastais_dataloaders(small):
    from fastai.interpret import ClassificationInterpretation
    import fastai.vision.learner  # noqa: F401  adds plot_top_losses
    dls = fast_data(small, 40, 33, bs=4, device=torch.device('cpu'))
    xb, _ = dls.one_batch()
    assert xb.shape == (4, 3, 33, 33) and xb.is_contiguous(memory_format=torch.channels_last)
    assert list(dls.vocab) == ['3', '7']
    set_size(dls, 47)
    assert dls.one_batch()[0].shape[-1] == 47
    dls.show_batch()
    learn = fast_learner(dls, ResNet(2, [1, 1, 1, 1], width=8))
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
        values = learn.recorder.values[-1]
        assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 8
        preds, targets = learn.get_preds()
        assert values[2] == pytest.approx((preds.argmax(1) == targets).float().mean().item())
        assert values[1] == pytest.approx(torch.nn.functional.nll_loss(preds.log(), targets).item(), abs=0.02)
        assert learn.predict(dls.valid_ds.items[0])[0] in ('3', '7')


# -- the cache

def test_decoded_once(small, monkeypatch):
    first, _ = cached_images(small, 40)
    monkeypatch.setattr(cache, '_decode', None)  # called: TypeError
    again, _ = cached_images(small, 40)
    assert torch.equal(first[:], again[:]) and len(caches(small)) == 1
    assert remove_cache(small) > again.nbytes and not caches(small)


@pytest.mark.parametrize('change', ['touch', 'new file', 'no file', 'other size'])
def test_stale(small, change):
    before = cache_file(small, 40)[0]
    cached_images(small, 40)
    file = next((small/'train'/'3').iterdir())
    if change == 'touch': os.utime(file, (1, 1))
    if change == 'new file': shutil.copy(file, small/'train'/'7'/'new.png')
    if change == 'no file': file.unlink()
    images, files = cached_images(small, 48 if change == 'other size' else 40)
    assert len(images) == len(files) == {'new file': 33, 'no file': 31}.get(change, 32)
    assert len(caches(small)) == (2 if change == 'other size' else 1)
    assert before.exists() == (change == 'other size')


@pytest.mark.parametrize('harm', ['cut', 'altered', 'empty', 'other file'])
def test_harmed_cache_is_made_again(small, harm):
    images = cached_images(small, 40)[0][:]
    file = cache_file(small, 40)[0]
    data = bytearray(file.read_bytes())
    if harm == 'cut': data = data[:len(data)//2]
    if harm == 'altered': data[-1000] ^= 1
    if harm == 'empty': data = b''
    if harm == 'other file': data = b'{"not": "ours"}'
    file.write_bytes(data)
    assert torch.equal(cached_images(small, 40)[0][:], images) and len(caches(small)) == 1


def test_truncated_image_at_cache_time(small, refused, tmp_path):
    file = next((small/'train'/'3').iterdir())
    file.write_bytes(file.read_bytes()[:60])
    says = f'1 of 32 images cannot be read: train/3/{file.name}'
    with pytest.raises(CourseError, match=says): cached_images(small, 40)
    assert not caches(small)
    assert len(cached_images(small, 40, skip={file})[0]) == 31


def test_source_that_changes_while_it_is_read(small, monkeypatch):
    decode = cache._decode
    def slow(files, *args):
        images = decode(files, *args)
        os.utime(files[0], (1, 1))
        return images
    monkeypatch.setattr(cache, '_decode', slow)
    with pytest.raises(CourseError, match='changed while it was read'): cached_images(small, 40)
    assert not caches(small)


def test_no_room(small, monkeypatch):
    monkeypatch.setattr(cache.shutil, 'disk_usage', lambda _: type('d', (), {'free': 1000}))
    says = r"32 images of 40 px take 0\.00 GB decoded.* of disk.*pipeline='book'"
    with pytest.raises(CourseError, match=says): cached_images(small, 40)
    assert not (small/'.resnet_course').exists()


def test_disk_that_fills_up(small, monkeypatch):
    def full(fd): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(CourseError, match=r"No space left on device.*pipeline='book'"): cached_images(small, 40)
    assert not caches(small)


def test_cache_cannot_be_made(small):
    (small/'.resnet_course').write_text('in the way')
    with pytest.raises(CourseError, match=r"cannot keep decoded images.*pipeline='book'"): cached_images(small, 40)


@pytest.mark.slow
def test_two_processes_at_once(small):
    "Both are ready before either begins"
    code = ("import sys, time; from pathlib import Path; from resnet_course.fast import cached_images\n"
            "print('ready', flush=True); sys.stdin.readline(); print(int(cached_images(sys.argv[1], 40)[0][:].sum()))")
    words = [sys.executable, '-c', code, str(small)]
    both = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for p in both: assert p.stdout.readline() == 'ready\n'
    for p in both: p.stdin.write('go\n'), p.stdin.flush()
    sums = [int(p.communicate(timeout=120)[0]) for p in both]
    assert sums[0] == sums[1] == int(cached_images(small, 40)[0][:].sum()) and len(caches(small)) == 1


def test_graph_needs_a_gpu():
    if torch.cuda.is_available(): pytest.skip("this machine has a GPU")
    learn = fast_learner(fast_data('digits', 32, 32, bs=512), ResNet(10, [1, 1, 1, 1], width=8), graph=True)
    with pytest.raises(ValueError, match='CUDA graphs need a GPU'), learn.no_bar(), learn.no_logging(): learn.fit(1)


def test_compiled_in_place_keeps_names(monkeypatch):
    net, compiled = ResNet(10, [1, 1, 1, 1], width=8), []
    monkeypatch.setattr(net, 'compile', lambda: compiled.append(True))
    learn = fast_learner(fast_data('digits', 32, 32, bs=512), net, compile=True)
    assert compiled and not any('_orig_mod' in k for k in learn.model.state_dict())
