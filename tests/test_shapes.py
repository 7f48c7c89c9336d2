"Shapes as properties: any channels, stride, odd and even sides, a batch of one"
from math import ceil

import pytest
import torch
from hypothesis import given, settings, strategies as st

from resnet_course.bottleneck import _conv_block, bottleneck
from resnet_course.cost import cost_table
from resnet_course.heads import confidence_maps, nin_block, pool_head
from resnet_course.inception import GoogLeNet, inception, naive_inception, split_conv
from resnet_course.layers import ConvLayer, conv_size
from resnet_course.models import create_model
from resnet_course.relatives import (
    PreActBlock, SqueezeExcite, dense_layer, densenet, fire, inverted_residual, separable_conv,
    yolo_bottleneck)
from resnet_course.resblock import PadShortcut, ResBlock, basic_block, conv_shortcut, pool_shortcut
from resnet_course.resizing import size_schedule
from resnet_course.resnet import ResNet, conv_stem, deep_stem

properties = settings(deadline=None, max_examples=40)
sides, channels, strides, batches = st.integers(1, 40), st.integers(1, 24), st.integers(1, 3), st.integers(1, 3)


def image(b, c, h, w): return torch.randn(b, c, h, w)


@properties
@given(n=st.integers(1, 300), ks=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 4))
def test_conv_size_is_torchs(n, ks, stride):
    conv = torch.nn.Conv1d(1, 1, ks, stride, padding=(ks-1)//2)
    assert conv_size(n, ks, stride) == conv(torch.zeros(1, 1, n)).shape[-1] == ceil(n/stride)


@properties
@given(b=batches, ni=channels, nf=channels, ks=st.sampled_from([1, 3, 5]), stride=strides, h=sides, w=sides)
def test_conv_layer(b, ni, nf, ks, stride, h, w):
    out = ConvLayer(ni, nf, ks, stride).eval()(image(b, ni, h, w))
    assert out.shape == (b, nf, ceil(h/stride), ceil(w/stride))
    assert (out >= 0).all() and torch.isfinite(out).all()


@properties
@given(b=batches, ni=channels, quarter=st.integers(1, 6), stride=st.integers(1, 2), h=sides, w=sides,
       block=st.sampled_from([basic_block, _conv_block]), shortcut=st.sampled_from([pool_shortcut, conv_shortcut]))
def test_res_block(b, ni, quarter, stride, h, w, block, shortcut):
    nf, x = 4*quarter, image(b, ni, h, w)
    m = ResBlock(ni, nf, stride, block=block, shortcut=shortcut).eval()
    assert m(x).shape == (b, nf, ceil(h/stride), ceil(w/stride))
    if ni == nf and stride == 1: torch.testing.assert_close(m(x), x.relu())  # the last norm starts at 0


@properties
@given(b=batches, ni=channels, extra=st.integers(0, 9), stride=st.integers(1, 2), h=sides, w=sides)
def test_pad_shortcut(b, ni, extra, stride, h, w):
    x = image(b, ni, h, w)
    m = PadShortcut(ni, ni+extra, stride)
    out = m(x)
    assert out.shape == (b, ni+extra, ceil(h/stride), ceil(w/stride)) and not list(m.parameters())
    assert out[:, ni:].eq(0).all() and out[:, :ni].eq(x[..., ::stride, ::stride]).all()


@properties
@given(b=batches, ni=channels, quarter=st.integers(1, 6), expand=st.integers(1, 3), stride=st.integers(1, 2),
       h=sides, w=sides)
def test_blocks_of_the_relatives(b, ni, quarter, expand, stride, h, w):
    nf, x, small = 4*quarter, image(b, ni, h, w), (ceil(h/stride), ceil(w/stride))
    for block in (PreActBlock(ni, nf, stride), bottleneck(ni, nf, stride, squeeze=2, groups=quarter),
                  separable_conv(ni, nf, stride), inverted_residual(ni, nf, stride, expand=expand),
                  nin_block(ni, nf, 5, stride)):
        assert block.eval()(x).shape == (b, nf, *small)
    for block, channels in (
            (inception(ni, 1, 2, 3, 1, 2, quarter), 6+quarter), (naive_inception(ni, 1, 2, 3), 6+ni),
            (split_conv(ni, nf, 5), nf), (dense_layer(ni, quarter), ni+quarter),
            (fire(ni, quarter, expand), 2*expand), (yolo_bottleneck(ni, nf), nf)):
        assert block.eval()(x).shape == (b, channels, h, w)
    assert SqueezeExcite(ni, 1)(x).shape == x.shape


@properties
@given(b=batches, nf=channels, stride=st.integers(1, 2), h=sides, w=sides)
def test_a_fresh_pre_activation_block_is_the_identity(b, nf, stride, h, w):
    x = image(b, 4*nf, h, w)
    assert torch.equal(PreActBlock(4*nf, 4*nf)(x) if b*h*w > 1 else PreActBlock(4*nf, 4*nf).eval()(x), x)


@properties
@given(b=batches, ni=channels, n_out=st.integers(1, 9), h=sides, w=sides)
def test_confidence_maps_average_to_the_scores(b, ni, n_out, h, w):
    x, head = image(b, ni, h, w), pool_head(ni, n_out)
    torch.testing.assert_close(confidence_maps(x, head[-1]).mean((2, 3)), head(x), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(b=st.integers(1, 2), n_in=st.sampled_from([1, 3, 4]), n_out=st.integers(1, 12),
       layers=st.lists(st.integers(1, 2), min_size=4, max_size=4), expansion=st.sampled_from([1, 4]),
       width=st.sampled_from([4, 8, 12]), h=st.integers(32, 99), w=st.integers(32, 99),
       stem=st.sampled_from([deep_stem, conv_stem]))
def test_resnet(b, n_in, n_out, layers, expansion, width, h, w, stem):
    model = ResNet(n_out, layers, expansion, n_in=n_in, width=width, stem=stem).eval()
    x = image(b, n_in, h, w)
    assert model(x).shape == (b, n_out)
    features = torch.nn.Sequential(*list(model)[:5])(x)
    assert features.shape == (b, 8*width*expansion, ceil(h/32), ceil(w/32))


@properties
@given(sizes=st.lists(st.integers(32, 300), min_size=1, max_size=6, unique=True).map(sorted), more=st.integers(0, 20))
def test_size_schedule(sizes, more):
    schedule = size_schedule(sizes, len(sizes)+more)
    assert len(schedule) == len(sizes)+more and schedule == sorted(schedule) and set(schedule) == set(sizes)
    shares = [schedule.count(s) for s in sizes]
    assert max(shares)-min(shares) <= 1


@properties
@given(ni=channels, nf=channels, groups=st.integers(1, 4), ks=st.sampled_from([1, 3]), stride=strides,
       size=st.integers(1, 50))
def test_cost_of_a_layer(ni, nf, groups, ks, stride, size):
    ni, nf, out = ni*groups, nf*groups, ceil(size/stride)
    total = cost_table(ConvLayer(ni, nf, ks, stride, groups=groups), size, channels=ni).iloc[-1]
    assert total['params'] == ni*nf//groups*ks*ks + 2*nf and total['MACs'] == ni*nf//groups*ks*ks*out*out


@pytest.mark.parametrize('make, says', [
    (lambda: ConvLayer(3, 8, 2), 'even'),
    (lambda: conv_size(9, 4), 'even'),
    (lambda: ConvLayer(3, 8, groups=2), 'divide'),
    (lambda: _conv_block(8, 10, 1), 'divisible by 4'),
    (lambda: PadShortcut(8, 4), 'below'),
    (lambda: size_schedule([32, 64], 1), 'fewer'),
    (lambda: bottleneck(8, 10, squeeze=4), 'nf=10 is not divisible by 4'),
    (lambda: bottleneck(8, 16, squeeze=0), 'squeeze=0'),
    (lambda: bottleneck(8, 16, groups=3), 'groups=3 does not divide'),
    (lambda: PreActBlock(8, 10), 'divisible by 4'),
    (lambda: SqueezeExcite(8, 16), 'squeeze=16'),
    (lambda: dense_layer(8, 0), 'growth=0'),
    (lambda: densenet(10, [6, 12], 0), 'growth=0'),
    (lambda: densenet(10, []), 'layers'),
    (lambda: fire(8, 0, 4), 'squeeze=0'),
    (lambda: inverted_residual(8, 8, expand=0), 'expand=0'),
    (lambda: yolo_bottleneck(8, 8, expand=0.1), 'expand=0.1'),
    (lambda: yolo_bottleneck(8, 8, groups=3), 'groups=3'),
    (lambda: split_conv(8, 8, 2), 'even'),
    (lambda: inception(8, 1, 2, 3, 1, 2, 3, ks=4), 'even'),
    (lambda: GoogLeNet(10, ks=2), 'even'),
    (lambda: create_model('resnext50_32x4d', width=8), 'groups=32 does not divide the 16 channels'),
    (lambda: create_model('mobilenet_v2', width=32), 'takes no width'),
    (lambda: create_model('mobilnet'), 'mobilenet_v2'),
    (lambda: create_model('densenet'), 'densenet121'),
])
def test_errors_name_value_rule_and_fix(make, says):
    with pytest.raises(ValueError, match=says): make()
