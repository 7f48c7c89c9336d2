"The course's nets give the outputs of timm's and torchvision's, with their weights, and have as many parameters"
import pytest
import timm
import torch
import torchvision
from conftest import slow

from resnet_course.inception import GoogLeNet, googlenet
from resnet_course.models import MODELS, create_model

PARAMETERS = {
    'resnet18': 11_708_744, 'resnet34': 21_816_904, 'resnet50': 25_576_264, 'resnet101': 44_568_392,
    'resnet152': 60_212_040,
    'wide_resnet50_2': 68_883_240, 'resnext50_32x4d': 25_028_904, 'seresnet50': 28_088_024, 'resnetv2_50': 25_549_352,
    'densenet121': 7_978_856, 'squeezenet1_0': 1_248_424, 'mobilenet_v2': 3_504_872, 'googlenet': 6_624_904,
    'efficientnet_lite0': 4_652_008}
# seconds each
DAILY = {'resnet18', 'squeezenet1_0', 'mobilenet_v2'}
WITHOUT_TWIN = {'nin'}  # neither library has it
SIZES = {'resnet18': (32, 64, 65, 97, 224), 'resnet50': (32, 65, 97, 160, 224),
         'resnet34': (65,), 'resnet101': (65,), 'resnet152': (65,)}


def reference(name):
    "The same net of a well-known library, with random weights"
    if name.removeprefix('resnet').isdigit(): return timm.create_model(name+'d')  # the book's stem and shortcuts
    if name == 'efficientnet_lite0': return timm.create_model('tf_efficientnet_lite0')
    if hasattr(torchvision.models, name):
        kwargs = dict(aux_logits=False, transform_input=False, init_weights=False) if name == 'googlenet' else {}
        return getattr(torchvision.models, name)(**kwargs)
    return timm.create_model(name)


def copy_by_position(source, target):
    "Random weights and statistics, the same in both nets, of a size that keeps the activations alive"
    torch.manual_seed(0)
    for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        if a.dim() > 1: torch.nn.init.kaiming_uniform_(a)
        elif a.is_floating_point(): a.uniform_(0.9, 1.1)
        b.copy_(a.view_as(b) if a.shape[2:] == (1, 1) else a)  # timm's resnetv2 has a 1x1 convolution for a linear head


def n_params(model): return sum(p.numel() for p in model.parameters())


def test_every_net_has_an_oracle(): assert set(MODELS) == set(PARAMETERS) | WITHOUT_TWIN


@torch.no_grad()
@pytest.mark.parametrize('name', [n if n in DAILY else slow(n) for n in PARAMETERS])
def test_same_outputs(name):
    ours, theirs = create_model(name).eval(), reference(name).eval()
    assert n_params(ours) == n_params(theirs) == PARAMETERS[name]
    copy_by_position(theirs, ours)
    for size in SIZES.get(name, (32, 65, 224)):
        x = torch.randn(3, 3, size, size)
        for b in (1, 3):
            got, want = ours(x[:b]), theirs(x[:b])
            assert want.std() > 0
            if name == 'resnetv2_50':
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4*want.abs().max().item())
            else: assert torch.equal(got, want), size


def test_googlenet_with_auxiliary_heads():
    "While training, all three outputs are torchvision's; without dropout, which is random"
    ours, theirs = googlenet(aux=True), torchvision.models.googlenet(aux_logits=True, init_weights=False)
    assert n_params(ours) == n_params(theirs) == 13_004_888
    copy_by_position(theirs, ours)
    for m in [*ours.modules(), *theirs.modules()]:
        if isinstance(m, torch.nn.Dropout): m.p = 0.
    x = torch.randn(2, 3, 65, 65)
    got, want = ours.train()(x), theirs.train()(x)
    for a, b in zip(got, (want.logits, want.aux_logits1, want.aux_logits2), strict=True):
        torch.testing.assert_close(a, b)
    assert isinstance(ours.eval()(x), torch.Tensor)
    assert n_params(GoogLeNet()) > n_params(googlenet())  # the paper's 5x5
