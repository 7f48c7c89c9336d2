"""What else might make a training step of ResNet-18 faster on a CPU? Each idea beside the step as it is.

usage: python bench/ideas.py [--json FILE] [--sizes 64 128] [--builds 2] [--rounds 6]

`ours` is the step of `step.py`: the format of `best_precision` by autocast, channels last, `matmul_convs`, fused Adam,
memory kept. Each idea changes one thing of it. `norm and ReLU compiled` lets inductor make one pass of each pair,
forward and backward; `compiled` is the whole net, `compiled, max-autotune` the same with the kernels tried out;
`bfloat16 weights` are kept in that format, and the optimiser's in float32 beside them, where autocast turns them anew
in each step; `contiguous` leaves it to oneDNN to choose a blocked layout and to turn each map into it and back. Random
images, 10 classes; batches hold as many pixels at each size. A process for each, and everything `--builds` times.
`two processes`: two steps at once, of one thread each and half the batch, which is what two ranks would do without
their all-reduce; their images count together.
"""
import argparse
import atexit
import subprocess
import sys
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from measure import benchmark, options
from resnet_course import step
from resnet_course.models import create_model
from resnet_course.step import fused_adam, matmul_convs
from resnet_course.train import best_precision


def autocast(net, x, y):
    with torch.autocast('cpu', torch.bfloat16, enabled=best_precision('cpu') == 'bf16'): return cross_entropy(net(x), y)


def plain(net, layout=torch.channels_last):
    "The step as it is"
    net.to(memory_format=layout)
    opt = fused_adam(net.parameters())

    def one(x, y):
        loss = autocast(net, x.contiguous(memory_format=layout), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss
    return one


def whole(net, mode=None):
    net.compile(mode=mode)
    return plain(net)


def pairs(net):
    "Each norm and the ReLU behind it as one module, compiled"
    for parent in list(net.modules()):
        if not isinstance(parent, nn.Sequential): continue
        layers = list(parent.children())
        for i, (a, b) in enumerate(pairwise(layers)):
            if not (isinstance(a, nn.BatchNorm2d) and isinstance(b, nn.ReLU)): continue
            parent[i], parent[i+1] = nn.Sequential(a, b), nn.Identity()
            parent[i].compile()
    return plain(net)


def masters(net):
    "Weights in bfloat16 for the net, the same in float32 for the optimiser; norms in float32 alone"
    net.to(memory_format=torch.channels_last)
    norms = [p for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    kernels = [p for p in net.parameters() if all(p is not n for n in norms)]
    kept = [p.detach().clone().requires_grad_() for p in kernels]
    for p in kernels: p.data = p.data.to(torch.bfloat16)
    opt = fused_adam([*kept, *norms])
    for p in kept: p.grad = torch.zeros_like(p)

    def one(x, y):
        loss = cross_entropy(net(x.to(torch.bfloat16)).float(), y)
        loss.backward()
        torch._foreach_copy_([p.grad for p in kept], [p.grad for p in kernels])
        opt.step()
        with torch.no_grad(): torch._foreach_copy_(kernels, kept)
        net.zero_grad()
        return loss
    return one


IDEAS = {
    'ours': plain,
    'norm and ReLU compiled': pairs,
    'compiled': whole,
    'compiled, max-autotune': partial(whole, mode='max-autotune'),
    'bfloat16 weights': masters,
    'contiguous': partial(plain, layout=torch.contiguous_format),
}


def build(args, size, make, share=1):
    step.keep_memory()
    torch.manual_seed(0)
    one, bs = make(matmul_convs(create_model('resnet18', 10)).train()), args.bs*64//size//share
    x = torch.randn(bs, 3, size, size).contiguous(memory_format=torch.channels_last)
    y, turn = torch.randint(10, (bs,)), max(1, args.steps*64**2//size**2)

    def run(steps=turn):
        for _ in range(steps): one(x, y)
    run(3)
    return {'images': bs*turn, 'run': run}


def wait_for_turns(args):
    "One of the two processes: a turn for each line that comes, and a line back"
    torch.set_num_threads(1)
    run = build(args, args.sizes[0], plain, 2)['run']
    print('ready', flush=True)
    for _ in sys.stdin:
        run()
        print('done', flush=True)


def two(args, size):
    "Two processes that wait for their turns"
    words = [sys.executable, __file__, '--half', '--sizes', size, '--bs', args.bs, '--steps', args.steps]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True, 'bufsize': 1}
    halves = [subprocess.Popen([*map(str, words)], **pipes) for _ in range(2)]
    for half in halves: atexit.register(half.kill)

    def told(answer):
        for half in halves:
            if half.stdout.readline().strip() != answer: sys.exit("one of the two processes has failed")

    def run():
        for half in halves: print(file=half.stdin)
        told('done')
    told('ready')
    return {'images': 2*(args.bs*64//size//2)*max(1, args.steps*64**2//size**2), 'run': run}


def cases(args):
    return {f'{size} px': {**{name: partial(build, args, size, make) for name, make in IDEAS.items()},
                           'two processes': partial(two, args, size)} for size in args.sizes}


def parser():
    parser = options(__doc__, 6, [64, 128])
    parser.add_argument('--bs', type=int, default=128, help="images a batch at 64 px; the larger they are, the fewer")
    parser.add_argument('--builds', type=int, default=2)
    parser.add_argument('--steps', type=int, default=8, help="in a turn at 64 px; fewer of larger images, one at least")
    parser.add_argument('--half', action='store_true', help=argparse.SUPPRESS)
    return parser


def main():
    args = parser().parse_args()
    if args.half: return wait_for_turns(args)
    benchmark(args, "Images/s of a training step of ResNet-18: ideas beside the step as it is", cases(args), 'ours',
              process=str, builds=args.builds)


if __name__ == '__main__': main()
