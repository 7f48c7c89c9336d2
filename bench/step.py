"""Images/s of a training step - forward, loss, backward, optimiser - of one net in four libraries.

usage: python bench/step.py [--json FILE] [--nets resnet18 resnet50] [--sizes 64 128 224] [--builds 3]

`ours`, `timm`, `fastai` and `torchvision` compute in the format of `best_precision`, channels last, with the fused
optimiser of `fast_learner` and memory that is kept (`keep_memory`); the `ordinary` form of each is float32, contiguous,
with torch's AdamW and the system's memory as they come, in a process of their own. The first three libraries compute
the same operations, and in `ours` `matmul_convs` chooses how, as in `fast_learner`. The images are random numbers, 10
classes. `MACs` are an image's multiply-adds in a whole step: forward, the gradient of the weights, and that of the
inputs, which the first convolution does not compute. A net's speed also hangs on where in memory its process happens to
put it, by several percent: so all is built anew `--builds` times, and each build runs `--rounds` rounds.
"""
from functools import partial

import timm
import torch
import torchvision
from fastai.vision.models import xresnet
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from measure import benchmark, options
from resnet_course import step
from resnet_course.models import create_model
from resnet_course.step import fused_adam, matmul_convs
from resnet_course.train import best_precision

LIBRARIES = {
    'ours': lambda name: create_model(name, 10),
    'timm': lambda name: timm.create_model(f'{name}d', num_classes=10),
    'fastai': lambda name: getattr(xresnet, f'x{name}')(n_out=10),
    'torchvision': lambda name: getattr(torchvision.models, name)(num_classes=10),
}


def build(args, size, name, library, ordinary):
    if not ordinary: step.keep_memory()
    torch.manual_seed(0)
    net, bs = LIBRARIES[library](name), args.bs*64//size
    if library == 'ours' and not ordinary: matmul_convs(net)
    layout = torch.contiguous_format if ordinary else torch.channels_last
    net.train().to(memory_format=layout)
    opt = torch.optim.AdamW(net.parameters()) if ordinary else fused_adam(net.parameters())
    x, y = torch.randn(bs, 3, size, size).contiguous(memory_format=layout), torch.randint(10, (bs,))

    turn = max(1, args.steps*64**2//size**2)

    def run(steps=turn):
        for _ in range(steps):
            with torch.autocast('cpu', torch.bfloat16, enabled=best_precision('cpu') == 'bf16' and not ordinary):
                loss = cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            opt.zero_grad()
        return steps
    with FlopCounterMode(display=False) as count: run(1)
    return {'MACs': count.get_total_flops()//2//bs, 'images': bs*run(), 'run': run}


def cases(args):
    return {f'{name}, {size} px': {library+form: partial(build, args, size, name, library, bool(form))
                                   for library in LIBRARIES for form in ('', ', ordinary')}
            for name in args.nets for size in args.sizes}


def parser():
    parser = options(__doc__, 4, [64, 128, 224])
    parser.add_argument('--nets', nargs='+', default=['resnet18', 'resnet50'])
    parser.add_argument('--bs', type=int, default=128, help="images a batch at 64 px; the larger they are, the fewer")
    parser.add_argument('--builds', type=int, default=3)
    parser.add_argument('--steps', type=int, default=4, help="in a turn at 64 px; fewer of larger images, one at least")
    return parser


def main():
    args = parser().parse_args()
    benchmark(args, "Images/s of a training step of one net in four libraries", cases(args), 'ours',
              process=lambda name: 'ordinary' in name, builds=args.builds, timm=timm.__version__)


if __name__ == '__main__': main()
