"The course's nets give exactly the outputs of timm's, with timm's weights"
import pytest
import timm
import torch

from resnet_course.resnet import create_model

PARAMETERS = {'resnet18': 11_708_744, 'resnet34': 21_816_904, 'resnet50': 25_576_264, 'resnet101': 44_568_392, 'resnet152': 60_212_040}


def copy_by_position(source, target):
    "Random weights and statistics, the same in both nets"
    torch.manual_seed(0)
    pairs = list(zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
        if a.is_floating_point(): a.copy_(torch.rand_like(a)*0.2 + (0.9 if a.dim() == 1 else -0.1))
        b.copy_(a)


@torch.no_grad()
@pytest.mark.parametrize('name, sizes', [
    ('resnet18', (32, 64, 65, 97, 224)), ('resnet34', (65,)), ('resnet50', (64, 97, 160)), ('resnet101', (65,)), ('resnet152', (65,))])
def test_same_outputs_as_timm(name, sizes):
    ours, theirs = create_model(name).eval(), timm.create_model(name+'d').eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == PARAMETERS[name]
    copy_by_position(theirs, ours)
    for size in sizes:
        x = torch.randn(2, 3, size, size)
        for b in (1, 2): assert torch.equal(ours(x[:b]), theirs(x[:b])), size
