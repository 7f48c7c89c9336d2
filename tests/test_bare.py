"""The bare loop of chapter 0 and the digits as tensors"""
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_course.bare import digit_tensors, fit


def test_the_digits_are_those_of_scikit_learn():
    x, y = digit_tensors()
    assert x.shape == (1797, 1, 8, 8) and x.dtype == torch.float32 and (x.min(), x.max()) == (0, 16)
    assert y.shape == (1797,) and y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_each_image_once_an_epoch_and_a_step_a_batch():
    "Against the loss and the gradient of whole batches, computed outside"
    x, y = (t[:10] for t in digit_tensors())
    seen, rates, net = [], [], linear()
    opt = torch.optim.SGD(net.parameters(), 1e-3)
    rate = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: rates.append(step) or 1/(1+step))
    def note(xb):
        seen.append(xb)
        return xb/16
    losses = fit(net, x, y, opt, rate, epochs=2, bs=4, change=note)
    assert [len(xb) for xb in seen] == [4, 4, 2]*2 and rates == [*range(7)] and net.training
    for epoch in seen[:3], seen[3:]:
        assert sorted(torch.cat(epoch).flatten(1).tolist()) == sorted(x.flatten(1).tolist())
    other, means = linear(), []
    for i in range(2):
        total = 0
        for j, xb in enumerate(seen[3*i:3*i+3]):
            yb = torch.stack([y[(x == image).flatten(1).all(1)][0] for image in xb])
            loss = F.cross_entropy(other(xb/16), yb)
            grads = torch.autograd.grad(loss, [*other.parameters()])
            with torch.no_grad():
                for p, g in zip(other.parameters(), grads, strict=True): p.sub_(g, alpha=1e-3/(1+3*i+j))
            total += loss.item()*len(xb)
        means.append(total/len(x))
    assert losses == pytest.approx(means, rel=1e-5)
    for p, q in zip(net.parameters(), other.parameters(), strict=True): assert torch.allclose(p, q, atol=1e-6)


def test_it_learns_and_refuses_what_has_no_label():
    x, y = digit_tensors()
    net = linear()
    losses = fit(net, x/16, y, torch.optim.Adam(net.parameters(), 1e-2))
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.4
    with pytest.raises(ValueError, match='1797 images and 3 labels'): fit(net, x, y[:3], None)
