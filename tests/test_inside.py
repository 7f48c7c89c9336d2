"Maps of where a net looks against captum and by hand; calibration; corruptions; what is refused"
import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop, LayerGradCam, Saliency
from conftest import slow
from torch import nn

from resnet_course.errors import CourseError
from resnet_course.inside import (
    CORRUPTIONS, calibration_error, corrupt, delete, grad_cam, input_gradient, reliability, shuffled, temperature)
from resnet_course.models import create_model

NETS = ['resnet18', 'mobilenet_v2', 'squeezenet1_0', *map(slow, ('resnet50', 'googlenet', 'densenet121'))]


def net_and_images(name, size=64, **options):
    "A net of seven classes with norms that have seen something, and three images"
    torch.manual_seed(0)
    net, x = create_model(name, 7, **options), torch.randn(3, 3, size, size)
    net(x)  # running statistics
    return net.eval(), x


@pytest.fixture(scope='module')
def small_net(): return net_and_images('resnet18', width=8)


@pytest.mark.slow
@pytest.mark.parametrize('name', NETS)
def test_grad_cam_is_captums(name):
    net, x = net_and_images(name, 96)
    layers = [m for part, m in net.named_children() if part.startswith('group')]
    targets = torch.tensor([0, 3, 6])
    for layer in (None, *layers[-2:]):
        for signed in (True, False):
            asked = LayerGradCam(net, layer or layers[-1])
            theirs = asked.attribute(x, targets, relu_attributions=not signed)[:, 0].detach()
            ours = grad_cam(net, x, targets, layer, signed)
            largest = float(theirs.abs().max())
            assert ours.shape == theirs.shape and (largest > 0 or not signed)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5*largest)


def test_grad_cam_by_hand(small_net):
    "Behind the last group are a mean and one linear layer, so the map is the head's weights times the maps"
    net, x = small_net
    maps = x
    for name in ('stem', 'group1', 'group2', 'group3', 'group4'): maps = getattr(net, name)(maps)
    said = net(x).argmax(1)
    want = (net.head.weight[said][:, :, None, None]*maps).sum(1)/maps[0, 0].numel()
    torch.testing.assert_close(grad_cam(net, x, signed=True), want.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(grad_cam(net, x), want.detach().relu(), rtol=1e-4, atol=1e-6)


def test_images_of_a_batch_are_judged_alone_and_the_net_stays(small_net):
    net, x = small_net
    before = {k: v.clone() for k, v in net.state_dict().items()}
    for p in net.parameters(): p.requires_grad_(False)
    for f in (grad_cam, input_gradient):
        with torch.no_grad(): together = f(net, x, 2)
        for i in range(3): torch.testing.assert_close(f(net, x[i:i+1], 2)[0], together[i], rtol=1e-4, atol=1e-6)
        assert not together.requires_grad
    for p in net.parameters(): p.requires_grad_(True)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_input_gradient_is_captums(small_net):
    net, x = small_net
    ours, x = input_gradient(net, x, 4), x.clone().requires_grad_()
    torch.testing.assert_close(ours, Saliency(net).attribute(x, 4).amax(1), rtol=1e-4, atol=1e-7)
    with pytest.warns(UserWarning, match='hooks'): theirs = GuidedBackprop(net).attribute(x, 4).abs().amax(1)
    torch.testing.assert_close(input_gradient(net, x, 4, guided=True), theirs, rtol=1e-4, atol=1e-7)
    assert not torch.allclose(theirs, ours)
    with pytest.warns(UserWarning, match='hooks'): guided = GuidedBackprop(net).attribute(x, 4).sum(1)
    plain = Saliency(net).attribute(x, 4, abs=False).sum(1)
    for ours, theirs in ((input_gradient(net, x, 4, signed=True), plain),
                         (input_gradient(net, x, 4, guided=True, signed=True), guided)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
        assert ours.min() < 0 < ours.max()


def test_shuffled_keeps_the_numbers_and_the_other_parts(small_net):
    net, _ = small_net
    other, again, more = (shuffled(net, ['head', 'group4'], seed) for seed in (0, 0, 1))
    for name, w in net.state_dict().items():
        moved = name.split('.')[0] in ('head', 'group4') and w.ndim in (2, 4)
        assert torch.equal(other.state_dict()[name], w) != moved, name
        assert torch.equal(other.state_dict()[name].flatten().sort()[0], w.flatten().sort()[0])
        assert torch.equal(other.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(other.head.weight, more.head.weight)


def test_delete_takes_the_brightest():
    x = torch.rand(2, 3, 4, 4)+1
    heat = torch.arange(16.).view(1, 4, 4).repeat(2, 1, 1)
    heat[1] = -heat[1]
    gone = delete(x, heat, .25)
    assert (gone[0, :, 3] == 0).all() and (gone[1, :, 0] == 0).all()
    assert torch.equal(gone[0, :, :3], x[0, :, :3]) and torch.equal(gone[1, :, 1:], x[1, :, 1:])
    assert torch.equal(delete(x, heat, 0), x) and (delete(x, heat, 1., fill=7) == 7).all()
    coarse = delete(x.repeat(1, 1, 4, 4), torch.tensor([[[0., 1], [0, 0]]]*2), .1)
    assert (coarse[:, 0] == 0).sum() == 2*round(.1*256) and (coarse[:, :, :4, 12:] == 0).all()


def test_reliability_counts():
    p = torch.tensor([[.9, .1], [.1, .9], [.45, .55], [1., 0], [.5, .5]])
    y = torch.tensor([0, 0, 1, 0, 1])
    t = reliability(p, y, 10)
    assert t.index.tolist() == [4, 5, 8, 9] and t.images.tolist() == [1, 1, 2, 1]
    assert t.accuracy.tolist() == [0, 1, .5, 1]
    assert t.confidence.tolist() == pytest.approx([.5, .55, .9, 1])
    assert calibration_error(p, y, 10) == pytest.approx((.5+.45+2*.4+0)/5)
    assert calibration_error(p, y, 1) == pytest.approx(abs(3.85/5-3/5))


@pytest.mark.parametrize('true', [.5, 1., 2.5])
def test_temperature_is_found_and_mends(true):
    "Labels drawn from what softmax says at the true temperature"
    rng = torch.Generator().manual_seed(0)
    logits = 4*torch.randn(6000, 10, generator=rng)
    y = (logits/true).softmax(1).multinomial(1, generator=rng)[:, 0]
    fitted, test = torch.arange(6000).split(3000)
    t = temperature(logits[fitted], y[fitted])
    assert t == pytest.approx(true, rel=.06)
    before, after = logits[test].softmax(1), (logits[test]/t).softmax(1)
    assert torch.equal(before.argmax(1), after.argmax(1))
    if true != 1:
        assert F.nll_loss(after.log(), y[test]) < F.nll_loss(before.log(), y[test])
        assert calibration_error(after, y[test]) < calibration_error(before, y[test])/2
    best = F.cross_entropy(logits[fitted]/t, y[fitted])
    assert all(best <= F.cross_entropy(logits[fitted]/(t*f), y[fitted])+1e-6 for f in (.95, 1.05))


@pytest.mark.parametrize('kind', CORRUPTIONS)
def test_corruptions(kind):
    "The same with the same seed, bytes of the same shape, stronger from 1 to 5; images are spoilt each by itself"
    rng = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(4, 3, 6, 8, generator=rng), (48, 64), mode='bicubic').clamp(0, 1)
    images = (255*(smooth+.05*torch.randn(4, 3, 48, 64, generator=rng)).clamp(0, 1)).byte()
    before, moved = images.clone(), []
    for strength in range(1, 6):
        x = corrupt(images, kind, strength, seed=3)
        assert x.shape == images.shape and x.dtype == torch.uint8 and not torch.equal(x, images)
        assert torch.equal(x, corrupt(images, kind, strength, seed=3))
        moved.append((x.float()-images).abs().mean().item())
    assert moved == sorted(moved) or (kind == 'pixelate' and moved[0] < moved[4])
    assert torch.equal(images, before)
    drawn = kind in ('noise', 'occlusion')
    assert torch.equal(corrupt(images, kind, 5, seed=4), x) != drawn
    if not drawn: assert torch.equal(corrupt(images[2:3], kind, 5), x[2:3])
    if kind in ('noise', 'brightness'): assert corrupt(torch.full_like(images, 250), kind, 5).max() == 255
    if kind == 'occlusion':
        share = (x == 128).all(1).float().mean((1, 2))
        assert ((share > .45) & (share < .55)).all()


def answers(n=4, c=3): return torch.randn(n, c, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('wrong, said', [
    (lambda net, x: grad_cam(net.train(), x), 'training mode'),
    (lambda net, x: grad_cam(net, x[0]), r"x is \(3, 64, 64\)"),
    (lambda net, x: grad_cam(net, x, 7), r"targets=\[7, 7, 7\].*classes 0 to 6"),
    (lambda net, x: grad_cam(net, x, [0, 1, -1]), "classes 0 to 6"),
    (lambda net, x: grad_cam(net, x, .5), "classes 0 to 6"),
    (lambda net, x: grad_cam(net, x, [0, 1]), "2 targets for 3 images"),
    (lambda net, x: grad_cam(net, x, layer=net.head), r"the layer gives \(3, 7\).*group4"),
    (lambda net, x: grad_cam(net, x, layer=nn.ReLU()), "gives nothing"),
    (lambda net, x: grad_cam(nn.Sequential(net), x), "no groups; give layer="),
    (lambda net, x: input_gradient(net, x[0]), r"x is \(3, 64, 64\)"),
    (lambda net, x: shuffled(net, ['tail']), "no part 'tail'; take some of stem"),
    (lambda net, x: delete(x, x[:, 0], 1.5), "share=1.5"),
    (lambda net, x: delete(x, x, .5), "one map"),
    (lambda net, x: delete(x, x[:2, 0], .5), "one map"),
    (lambda net, x: corrupt(x, 'rain', 1), "'rain' is none of noise, blur"),
    (lambda net, x: corrupt(x, 'noise', 6), "strength=6"),
    (lambda net, x: corrupt(x, 'noise', 1), r"torch.float32, \(3, 3, 64, 64\); give bytes"),
    (lambda net, x: calibration_error(answers(), torch.zeros(4).long()), "no probabilities"),
    (lambda net, x: calibration_error(answers().softmax(1), torch.zeros(3).long()), "for 3 labels"),
    (lambda net, x: reliability(answers().softmax(1), torch.zeros(4).long(), 0), "bins=0"),
    (lambda net, x: temperature(answers(), torch.tensor([0, 1, 2, 3])), "a label is 3; logits has 3 classes"),
    (lambda net, x: temperature(answers(), torch.tensor([0, 1, 2, -1])), "a label is -1"),
    (lambda net, x: temperature(answers()*float('nan'), torch.zeros(4).long()), "not finite"),
    (lambda net, x: temperature(answers()[:0], torch.zeros(0).long()), "for 0 labels"),
])
def test_refused_in_one_line(small_net, wrong, said):
    net, x = small_net
    with pytest.raises(CourseError, match=said) as e: wrong(net, x)
    net.eval()
    assert '\n' not in str(e.value)
    assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
