"The architecture explorer: `cost_table` of every net when the site is built, as a table and as data for explorer.js"
import hashlib
import json
import re
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

SIZES = (64, 97, 128, 224)  # pixels
WIDTHS = (32, 64, 128)  # channels of the stem, for the nets that take a width
BOTTLENECKS = 'resnet50', 'resnet101', 'resnet152'
SHOWN = 224,64  # in the table that needs no JavaScript


def build(name, width, **kwargs):
    "A net without weights, whose norms and ReLUs only pass a shape on: on `meta` computing them takes most of the time"
    import torch
    from resnet_course.models import create_model
    with torch.device('meta'): net = create_model(name, **kwargs, **({'width': width} if width else {}))
    for m in net.modules():
        if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.ReLU, torch.nn.ReLU6)): m.forward = torch.empty_like
    return net


def takes_width(name):
    from resnet_course.models import model_options
    return 'width' in model_options(name)


def skips(model):
    "Names of the blocks that add what comes in, or what a shortcut makes of it"
    return [name for name, m in model.named_modules() if hasattr(m, 'shortcut') or type(m).__name__ == 'Residual']


def totals(table): return [o.item() for o in table.iloc[-1][['params', 'MACs', 'memory KB']]]


def one_net(name):
    """What explorer.js reads: names and kinds of layers once, parameters for each width, the rest for each size.

    `basic` are the totals of the same net with two 3x3 convolutions for each bottleneck, the same channels in and out.
    """
    from resnet_course.cost import cost_table
    from resnet_course.resblock import basic_block
    net = {'widths': {}}
    for width in WIDTHS if takes_width(name) else ('',):
        model,sizes = build(name, width),{}
        basic = build(name, width, block=basic_block) if name in BOTTLENECKS else None
        for size in SIZES:
            table = cost_table(model, size)
            layers = table.iloc[:-1]
            sizes[str(size)] = {'output': layers['output'].tolist(), 'memory': layers['memory KB'].tolist(),
                           'MACs': layers['MACs'].tolist(), 'total': totals(table)}
            if basic: sizes[str(size)]['basic'] = totals(cost_table(basic, size))
        net['layers'],net['skips'] = layers[['layer', 'kind']].values.tolist(),skips(model)
        net['widths'][str(width)] = {'params': layers['params'].tolist(), 'sizes': sizes}
    return net


def sources(*modules):
    "The files of modules of the package and of all that they import from it"
    todo,found = list(modules),{}
    while todo:
        if (name := todo.pop()) in found: continue
        found[name] = ROOT/'resnet_course'/f'{name}.py'
        todo += re.findall(r'^\s*from \.(\w+) import', found[name].read_text(), re.M)
    return [Path(__file__), *(found[name] for name in sorted(found))]


def nets():
    "Of all names: half of a build's time, so kept in `_build` until a file that they are made from changes"
    from resnet_course.files import write_whole
    from resnet_course.models import MODELS
    made_from = [version('torch').encode(), *(f.read_bytes() for f in sources('models', 'cost', 'resblock'))]
    kept = ROOT/'_build'/'kept'/f"nets-{hashlib.sha256(b'|'.join(made_from)).hexdigest()[:16]}.json"
    if not kept.exists():
        with ProcessPoolExecutor() as pool: found = dict(zip(MODELS, pool.map(one_net, MODELS), strict=True))
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.glob('nets-*.json'): old.unlink(missing_ok=True)
        write_whole(kept, json.dumps(found, separators=(',', ':')).encode())
    return json.loads(kept.read_text())


def page():
    data,(size,width) = nets(),map(str, SHOWN)
    rows = []
    for name, net in data.items():
        params,macs,memory = net['widths'][width if width in net['widths'] else '']['sizes'][size]['total']
        rows.append(f'| `{name}` | {params:,} | {macs:,} | {memory:,.1f} |')
    return '\n'.join([
        f'<div id="explorer"><p>Choosing takes JavaScript; the table below has all nets at {size} px.</p></div>',
        "<script>document.getElementById('explorer').style.minHeight = '60rem'</script>",  # its place is kept
        f'<script id="explorer-data" type="application/json">{json.dumps(data, separators=(",", ":"))}</script>',
        '<script defer src="../_static/explorer.js"></script>', '',
        f'## All nets at {size} px', '',
        '| net | parameters | multiply-adds | memory, KB |', '| --- | ---: | ---: | ---: |', *rows])
