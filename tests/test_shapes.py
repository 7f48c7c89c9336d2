"Shapes as properties: any channels, stride, odd and even sides, a batch of one"
from math import ceil

import pytest
import torch
from hypothesis import given, settings, strategies as st

from resnet_course.bottleneck import _conv_block
from resnet_course.cost import cost_table
from resnet_course.layers import ConvLayer, conv_size
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


@settings(deadline=None, max_examples=15)
@given(b=st.integers(1, 2), n_in=st.sampled_from([1, 3, 4]), n_out=st.integers(1, 12), layers=st.lists(st.integers(1, 2), min_size=4, max_size=4),
       expansion=st.sampled_from([1, 4]), width=st.sampled_from([4, 8, 12]), h=st.integers(32, 99), w=st.integers(32, 99),
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
@given(ni=channels, nf=channels, groups=st.integers(1, 4), ks=st.sampled_from([1, 3]), stride=strides, size=st.integers(1, 50))
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
])
def test_errors_name_value_rule_and_fix(make, says):
    with pytest.raises(ValueError, match=says): make()
