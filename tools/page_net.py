"""Make a ResNet's model file one script that docs/_static/net.js runs in a page: norms folded, weights in 8 bits.

usage: python tools/page_net.py MODEL FILE.js     FILE.js: say docs/_static/digits-net.js; it becomes pageNets.digits

The net that docs/_static/digits-net.js holds:
    resnet-course train --data digits --width 8 --presize 128 --size 128 --epochs 20 --out runs/digits
    python tools/page_net.py runs/digits/model.safetensors docs/_static/digits-net.js
"""
import argparse
import base64
import json
import operator
from pathlib import Path

import torch
import torch.nn.functional as F
from fastai.vision.core import imagenet_stats
from torch import nn
from torch.fx.experimental.optimization import fuse

from resnet_course.model_files import load_model

SUMS = operator.add, operator.iadd, torch.add
RELUS = F.relu, torch.relu


def one(value):
    "A number of which both sides have the same"
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if sides[0] != sides[1]: raise ValueError(f"{sides} are two numbers; the page's engine takes square kernels only")
    return sides[0]


@torch.no_grad()
def rounded(
    model, # Net that torch.fx can trace
): # The same net without norms, each weight one of 255 steps, of a size for each channel out
    "What the page computes, in PyTorch"
    net = fuse(model.eval().float())
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)):
            step = steps(m.weight)
            m.weight.copy_((m.weight/step).round()*step)
    return net.eval()


def steps(w): return (w.abs().flatten(1).amax(1)/127).clamp(min=1e-12).view(-1, *[1]*(w.ndim-1))


def layer(m, own):
    "What a layer computes, as net.js wants it; its numbers are appended to `own`"
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        w = m.weight if m.weight.ndim == 4 else m.weight[:, :, None, None]
        own.append((w, torch.zeros(len(w)) if m.bias is None else m.bias))
        if isinstance(m, nn.Linear): return dict(op='linear', ni=w.shape[1], nf=len(w))
        if m.groups > 1 or one(m.dilation) > 1 or m.padding_mode != 'zeros':
            raise ValueError(f"{m} is grouped, dilated or not padded with zeros; the page's engine knows plain ones")
        sizes = dict(ks=one(m.kernel_size), stride=one(m.stride), pad=one(m.padding))
        return dict(op='conv', ni=w.shape[1], nf=len(w), **sizes)
    if isinstance(m, (nn.MaxPool2d, nn.AvgPool2d)) and one(getattr(m, 'dilation', 1)) == 1:
        op = 'max' if isinstance(m, nn.MaxPool2d) else 'avg'
        return dict(op=op, ks=one(m.kernel_size), stride=one(m.stride), pad=one(m.padding), ceil=m.ceil_mode)
    if isinstance(m, nn.AdaptiveAvgPool2d) and one(m.output_size) == 1: return dict(op='mean')
    if isinstance(m, nn.ReLU): return dict(op='relu')
    if isinstance(m, (nn.Flatten, nn.Identity, nn.Dropout)): return None
    raise ValueError(f"{type(m).__name__} is none of what the page's engine computes; see tools/page_net.py")


def graph(net):
    "Nodes in the order in which they are computed, each with what it is made `from`; weights of those that have some"
    modules, nodes, place, own = dict(net.named_modules()), [], {}, []
    for node in net.graph.nodes:
        sources = [place[a] for a in node.all_input_nodes]
        name = str(node.target)
        if node.op == 'placeholder': made = dict(op='image')
        elif node.op == 'output': break
        elif node.op == 'call_module': made = layer(modules[name], own)
        elif node.target in SUMS and len(sources) == 2: made, name = dict(op='add'), ''
        elif node.target in RELUS: made, name = dict(op='relu'), ''
        else: raise ValueError(f"{node.target} is none of what the page's engine computes; see tools/page_net.py")
        if made is None: place[node] = sources[0]
        else:
            block = [path for path, _ in (node.meta.get('nn_module_stack') or {}).values()] if not name else []
            place[node] = len(nodes)
            name = name or (block[-1] if block else '')
            nodes.append({**made, 'name': name, **({'from': sources} if sources else {})})
    return nodes, own


def page_net(
    model, # Net in evaluation mode
    **spec, # What else is known of it, as in its model file
):
    "A net as a value that JSON can hold; weights are channel out, row, column, channel in"
    mean, sd = imagenet_stats
    about = {k: v for k, v in spec.items() if k in ('net', 'net_options', 'classes', 'size', 'presize', 'valid_scale')}
    nodes, own = graph(rounded(model))
    whole, parts = bytearray(), []
    for w, b in own:
        whole += (w/steps(w)).round().to(torch.int8).permute(0, 2, 3, 1).contiguous().detach().numpy().tobytes()
        parts += [steps(w).flatten(), b]
    numbers = torch.cat(parts).detach().float().numpy().astype('<f4').tobytes()
    return {**about, 'mean': mean, 'sd': sd, 'nodes': nodes,
            'weights': base64.b64encode(whole).decode(), 'numbers': base64.b64encode(numbers).decode()}


def script(name, net):
    return f'(globalThis.pageNets ??= {{}})[{json.dumps(name)}] = {json.dumps(net, separators=(",", ":"))}\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument('to', type=Path)
    args = parser.parse_args()
    model, spec = load_model(args.model)
    args.to.write_text(script(args.to.stem.removesuffix('-net'), page_net(model, **spec)))


if __name__ == '__main__': main()
