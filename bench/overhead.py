"""What fastai's Learner with our callbacks adds to a bare PyTorch loop over the same batches, ResNet-18.

usage: python bench/overhead.py [--json FILE] [--sizes 64] [--rounds 5] [--images 3840]

Both draw from the same loaders, validation included, and do the same: the same net with `matmul_convs`, autocast,
channels last, the fused optimiser with a one-cycle schedule, a running loss, validation loss and accuracy. `ratio` - 1
is the overhead.
"""
from functools import cache, partial

import torch
from fastai.torch_core import set_seed
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from measure import benchmark, options, source
from resnet_course import step
from resnet_course.fast import fast_data, fast_learner
from resnet_course.resnet import resnet18
from resnet_course.step import fused_adam, matmul_convs
from resnet_course.train import best_precision


def learner(dls):
    learn = fast_learner(dls, resnet18(len(dls.vocab)))

    def run():
        with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 3e-3)
    return run


def loop(dls):
    half = best_precision('cpu') == 'bf16'
    layout = torch.channels_last if half else torch.contiguous_format
    net = matmul_convs(resnet18(len(dls.vocab))).to(memory_format=layout)
    opt = fused_adam(net.parameters()).opt

    def forward(x, y):
        x, y = x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            pred = net(x).float()
            return cross_entropy(pred, y), (pred.argmax(1) == y).sum()

    def run():
        schedule, smooth, losses = OneCycleLR(opt, 3e-3, len(dls.train)), torch.zeros(()), []
        net.train()
        for x, y in dls.train:
            loss, _ = forward(x, y)
            loss.backward()
            opt.step()
            schedule.step()
            opt.zero_grad()
            smooth = torch.lerp(loss.detach(), smooth, 0.98)
            losses.append(smooth)
        net.eval()
        total, right = torch.zeros(()), torch.zeros(())
        with torch.no_grad():
            for x, y in dls.valid:
                loss, n = forward(x, y)
                total, right = total+loss*len(x), right+n
        return [loss.item() for loss in losses], total.item()/len(dls.valid_ds), right.item()/len(dls.valid_ds)
    return run


def build(dls, args, make):
    set_seed(0)
    return {'images': sum(dl.n for dl in dls().loaders), 'run': make(dls())}


def cases(args):
    def data(size):
        dls = fast_data(*source(args, size), size, args.bs, device='cpu')
        for dl, n in zip(dls.loaders, (args.images, args.images//3), strict=True): dl.n = min(dl.n, n)
        return dls
    return {f'{size} px': {name: partial(build, cache(partial(data, size)), args, make)
                           for name, make in (('bare loop', loop), ('Learner', learner))} for size in args.sizes}


def parser():
    parser = options(__doc__, 5, [64])
    parser.add_argument('--bs', type=int, default=128)
    parser.add_argument('--images', type=int, default=3840, help="of the training set; a third as many for validation")
    return parser


def main():
    args = parser().parse_args()
    step.keep_memory()
    benchmark(args, "What fastai's Learner adds to a bare PyTorch loop, ResNet-18", cases(args), 'bare loop')


if __name__ == '__main__': main()
