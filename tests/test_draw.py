"Drawings say what the modules do, whatever the module, and leave it as it was"
import re
import xml.etree.ElementTree as ET
from functools import partial
from random import Random

import pytest
import torch
from conftest import ROOT, slow
from torch import nn

from resnet_course.bottleneck import bottleneck
from resnet_course.draw import draw_block, draw_branches, draw_conv, draw_net, draw_row
from resnet_course.errors import CourseError
from resnet_course.inception import Branches, inception, naive_inception
from resnet_course.models import create_model, list_models
from resnet_course.paths import Fork, read_parts, read_paths, shape_text
from resnet_course.relatives import (
    PreActBlock,
    dense_layer,
    fire,
    inverted_residual,
    se_bottleneck,
    separable_conv,
    yolo_bottleneck,
)
from resnet_course.resblock import PadShortcut, ResBlock, basic_block, conv_shortcut, pool_shortcut
from resnet_course.svg import PALETTE, palette_css

SVG = '{http://www.w3.org/2000/svg}'
BLOCKS = {f'{block.__name__}-{shortcut.__name__}-{ni}-{nf}-{stride}':
          (partial(ResBlock, ni, nf, stride, block=block, shortcut=shortcut), ni)
          for block in (basic_block, bottleneck, se_bottleneck)
          for shortcut in (conv_shortcut, pool_shortcut, PadShortcut)
          for ni,nf,stride in ((64,64,1), (64,128,2), (32,64,1), (64,64,2))} | {
    'preact': (partial(PreActBlock, 64, 64), 64), 'preact-2': (partial(PreActBlock, 64, 128, 2), 64),
    'resnext': (partial(ResBlock, 256, 256, block=partial(bottleneck, squeeze=2, groups=32)), 256),
    'dense': (partial(dense_layer, 64), 64), 'fire': (partial(fire, 96, 16, 64), 96),
    'separable': (partial(separable_conv, 32, 64, 2), 32), 'inverted': (partial(inverted_residual, 32, 32), 32),
    'inverted-2': (partial(inverted_residual, 32, 64, 2), 32), 'yolo': (partial(yolo_bottleneck, 64, 64), 64),
    'plain': (partial(basic_block, 64, 64), 64), 'inception': (partial(inception, 192, 64, 96, 128, 16, 32, 32), 192)}
each_block = pytest.mark.parametrize('make, ni', BLOCKS.values(), ids=BLOCKS)


def parse(drawing):
    root = ET.fromstring(drawing.svg)
    assert root.tag == SVG+'svg' and root.get('role') == 'img' and root.find(SVG+'title').text
    assert root.find(SVG+'desc').text and float(root.get('width')) > 0
    return root


def texts(root): return [t.text for t in root.iter(SVG+'text')]
def of_class(root, name): return [e for e in root.iter() if e.get('class') == name]


def outputs(module, ni, side):
    "What each layer gives, by hooks and real numbers"
    made,module = [],module.eval()
    leaves = [m for m in module.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda m, args, out: made.append((m, tuple(out.shape[1:])))) for m in leaves]
    with torch.no_grad(): out = module(torch.zeros(1, ni, side, side))
    for h in hooks: h.remove()
    return tuple(out.shape[1:]), made


def state(module):
    hooks = [len(m._forward_hooks)+len(m._forward_pre_hooks) for m in module.modules()]
    return ([m.training for m in module.modules()], hooks,
            {k: (v.clone(), v.device, v._version, id(v)) for k,v in module.state_dict(keep_vars=True).items()})


def same(a, b):
    (modes, hooks, tensors), (modes2, hooks2, tensors2) = a, b
    return modes == modes2 and hooks == hooks2 and tensors.keys() == tensors2.keys() and all(
        torch.equal(t, tensors2[k][0]) and rest == list(tensors2[k][1:]) for k,(t,*rest) in tensors.items())


@each_block
def test_a_block_has_its_layers_and_its_real_shapes(make, ni):
    module = make()
    out,made = outputs(module, ni, 15)  # odd, so that a stride rounds
    root = parse(draw_block(module, ni, 15))
    convs = [(m,s) for m,s in made if isinstance(m, nn.Conv2d)]
    assert len(of_class(root, 'conv')) == len(convs)
    said = [t for t in texts(root) if re.fullmatch(r'\d+( × \d+){2}', t)]
    assert said[0] == shape_text((ni,15,15)) and said[-1] == shape_text(out)
    assert set(said) <= {shape_text(s) for s in [(ni,15,15), out, *(s for _,s in made)]}
    assert all(shape_text(s) in root.find(SVG+'desc').text for _,s in convs)
    assert texts(root).count('+') == ('Residual' in repr(type(module)) or isinstance(module, (ResBlock,PreActBlock)))
    words = ' '.join(texts(root))
    assert words.count('stride 2') == sum(getattr(m, 'stride', 1) in (2,(2,2)) for m,_ in made
                                          if isinstance(m, (nn.Conv2d,nn.AvgPool2d)))


@each_block
def test_a_drawing_changes_nothing(make, ni):
    module = make().train()
    for m in module.modules():
        m.register_forward_hook(lambda *args: pytest.fail("somebody's hook ran"))
        m.register_forward_pre_hook(lambda *args: pytest.fail("somebody's hook ran"))
    before,rng = state(module),torch.get_rng_state()
    parse(draw_block(module, ni, 15))
    parse(draw_net(nn.Sequential(module), 15, ni))
    assert same(state(module), before) and torch.equal(torch.get_rng_state(), rng)


def convs_in(items):
    return sum(sum(map(convs_in, o.branches)) if isinstance(o, Fork) else o.role == 'conv' for o in items)


@pytest.fixture
def empty(monkeypatch):
    "Makes a net without numbers, at once: nothing is drawn at random first"
    for name in ('kaiming_normal_', 'kaiming_uniform_', 'uniform_', 'normal_', 'trunc_normal_'):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
    def make(build, *args, **kwargs):
        with torch.device('meta'): return build(*args, **kwargs)
    return make


SMALL = 'resnet18', 'resnet50', 'mobilenet_v2'


@pytest.mark.parametrize('name', [n if n in SMALL else slow(n) for n in list_models()])
def test_each_net_of_the_course_can_be_drawn(name, empty):
    net = empty(create_model, name, 7)
    net.train()
    modes = [m.training for m in net.modules()]
    made = {}
    def keep(m, args, out): made.setdefault(m, tuple(out.shape[1:]))
    hooks = [m.register_forward_hook(keep) for m in net.modules()]
    with torch.no_grad(): net.eval()(torch.zeros(1, 3, 65, 65, device='meta'))
    for h in hooks: h.remove()
    net.train()
    root,parts = parse(draw_net(net, 65)),read_parts(net, 65)
    assert [m.training for m in net.modules()] == modes
    for part in parts:
        assert part.name in texts(root) and shape_text(part.shape) in texts(root)
        child = dict(net.named_children()).get(part.name)
        if child is not None: assert part.shape == made[child]
    assert shape_text((7,)) in texts(root) and parts[-1].name == 'head' and parts[0].name == 'stem'
    assert len(of_class(root, 'data')) == 1+sum(len(p.units) for p in parts)
    weighted = [m for m in net.modules() if isinstance(m, (nn.Conv2d,nn.Linear))]
    if len(weighted) < 70: assert convs_in(read_paths(net, 3, 65)) == len(weighted)


@pytest.mark.parametrize('depth, blocks', [('resnet18', [2,2,2,2]), ('resnet152', [3,8,36,3])])
def test_a_resnet_s_groups_have_their_blocks(depth, blocks, empty):
    net = empty(create_model, depth)
    parts = read_parts(net, 224)
    assert [p.name for p in parts] == ['stem', *(f'group{i}' for i in range(1, 5)), 'head']
    assert [[k for k,_ in p.units] for p in parts[1:-1]] == [['block']*n for n in blocks]


def test_torchvision_s_blocks_and_nets(empty):
    tv = pytest.importorskip('torchvision').models
    for make,per_block in ((tv.resnet18, 2), (tv.resnet50, 3)):
        net = empty(make)
        assert [p.name for p in read_parts(net, 224)] == ['stem', *(f'layer{i}' for i in range(1, 5)), 'head']
        root = parse(draw_block(net.layer2[0], net.layer2[0].conv1.in_channels, 56))
        assert len(of_class(root, 'conv')) == per_block+1 and '+' in texts(root)
        out = net.layer2[0].conv1.in_channels
        assert shape_text((out*2,28,28)) in texts(root)
        assert 'identity' in texts(parse(draw_block(net.layer2[1], 2*out, 28)))
    for make in (tv.mobilenet_v2, tv.densenet121, tv.squeezenet1_0, tv.vgg11, tv.googlenet):
        net = empty(make, **dict(init_weights=False) if make is tv.googlenet else {})
        assert texts(parse(draw_net(net, 224)))[-2].startswith('1000'), make.__name__


@pytest.mark.parametrize('seed', range(60))
def test_conv_draws_the_size_that_a_convolution_gives(seed):
    r = Random(seed)
    side,ks,stride,padding = r.randint(1, 20),r.randint(1, 7),r.randint(1, 4),r.randint(0, 3)
    if ks > side+2*padding:
        with pytest.raises(CourseError, match=f'ks={ks} does not fit'): draw_conv(side, ks, stride, padding)
        return
    out = nn.Conv2d(1, 1, ks, stride, padding)(torch.zeros(1, 1, side, side)).shape[-1]
    at = r.randrange(out),r.randrange(out)
    drawing = draw_conv(side, ks, stride, padding, at)
    root,cell = parse(drawing),drawing.scale
    assert f'out: {out} × {out}' in texts(root) and f'in: {side} × {side}' in texts(root)
    data = of_class(root, 'data')
    cells = [round((e.get('d').count('M')-1)/2)+1 for e in data]  # lines between cells, both ways
    ring = [2*(side+2*padding)-1] if padding else []
    assert cells == [side,out] and [e.get('d').count('M') for e in of_class(root, 'plain')] == ring
    window,goal = of_class(root, 'conv')
    assert float(window.get('width')) == pytest.approx(ks*cell, abs=.1)
    assert [float(window.get(k))/cell for k in 'yx'] == pytest.approx([i*stride for i in at], abs=.1)
    x,y = map(float, re.match(r'M(\S+) ([\d.]+)', data[1].get('d')).groups())
    place = [(float(goal.get('y'))-y)/cell, (float(goal.get('x'))-x)/cell]
    assert place == pytest.approx(at, abs=.1)
    if out > 1 and cell > 7: assert len(list(root.iter(SVG+'circle'))) == out*out
    with pytest.raises(CourseError, match='no place'): draw_conv(side, ks, stride, padding, (out,0))


def test_branches_are_as_thick_as_their_channels():
    naive = draw_branches(naive_inception(192, 64, 128, 32), 192, 28)
    reduced = draw_branches(inception(192, 64, 96, 128, 16, 32, 32), 192, 28)
    for drawing,ends,convs in ((naive, [64,128,32,192], 3), (reduced, [64,128,32,32], 6)):
        root = parse(drawing)
        assert len(of_class(root, 'conv')) == convs and shape_text((sum(ends),28,28)) in texts(root)
        boxes = [float(e.get('width'))/drawing.scale for e in of_class(root, 'data') if e.tag == SVG+'rect']
        assert boxes == pytest.approx([192,*ends], abs=.5)
    row = parse(draw_row(naive, reduced, titles=['naive', 'reduced']))
    starts = [e.get('width') for e in of_class(row, 'data') if e.get('height') == '8']
    assert len(starts) == 2 and len(set(starts)) == 1, "one scale"


def test_rows_have_one_scale_and_room_for_all():
    small,large = draw_conv(3, 3),draw_conv(30, 3)
    assert small.scale > large.scale
    for row in ((small,large), (large,small)):
        root = parse(draw_row(*row, titles=['one', 'other']))
        widths = {float(e.get('width')) for e in of_class(root, 'conv')}
        assert widths == {large.scale, 3*large.scale}, "the marks are one pixel, the windows three"
    many = parse(draw_row(*[draw_block(ResBlock(64, 64), 64, 56)]*9, titles=[*'abcdefghi']))
    assert float(many.get('width')) < 1000 and [t for t in texts(many) if len(t) == 1 and t.isalpha()] == [*'abcdefghi']


@pytest.mark.slow
@pytest.mark.parametrize('name, blocks', [
    ('resnet50d', [3,4,6,3]), ('convnext_tiny', [3,3,9,3]), ('regnety_004', [1,3,6,6]), ('densenet121', [6,12,24,16]),
    ('efficientnet_b0', [1,2,2,6,5])])  # groups of one side are one row
def test_timm_s_nets_have_their_blocks(name, blocks, empty):
    parts = read_parts(empty(pytest.importorskip('timm').create_model, name), 224)
    found = [[k for k,_ in p.units].count('block') for p in parts]
    assert [n for n in found if n] == blocks and parts[-1].shape == (1000,)


class Again(nn.Module):
    "One activation, used twice at two sizes"
    def __init__(self):
        super().__init__()
        self.conv,self.act,self.down,self.last = nn.Conv2d(3, 8, 3),nn.ReLU(),nn.Conv2d(8, 8, 3, 2),nn.Conv2d(8, 4, 1)

    def forward(self, x): return self.last(self.act(self.down(self.act(self.conv(x)))))


def test_a_layer_that_is_used_twice():
    made = dict(conv=(8,7,7), down=(8,3,3), last=(4,3,3))
    assert read_parts(Again(), 9) == [(name, [('convolution', shape)], shape) for name,shape in made.items()]
    assert [s.shape for s in read_paths(Again(), 3, 9)] == [(8,7,7), (8,7,7), (8,3,3), (8,3,3), (4,3,3)]


class Twice(nn.Module):
    "Its paths cross: the first layer's output is used inside both branches"
    def __init__(self):
        super().__init__()
        self.a,self.b = nn.Conv2d(8, 8, 1),nn.Conv2d(8, 8, 1)

    def forward(self, x):
        a,b = self.a(x),self.b(x)
        c = a+b
        return (a*c)+(b-c)


class Decides(nn.Module):
    def forward(self, x): return x if x.sum() > 0 else -x


class Two(nn.Module):
    def forward(self, x): return x, x+1


@pytest.mark.parametrize('draw, says', [
    (lambda: draw_block(ResBlock(64, 64), 32, 56), 'ResBlock does not take 32 x 56 x 56'),
    (lambda: draw_block(Decides(), 8, 8), "Decides can't be read"),
    (lambda: draw_block(Twice(), 8, 8), 'Twice has paths that cross'),
    (lambda: draw_block(Two(), 8, 8), 'Two gives more than one map'),
    (lambda: draw_block('block', 8, 8), 'block is no module'),
    (lambda: draw_block(nn.ReLU(), 0, 8), 'channels=0 is no whole number'),
    (lambda: draw_block(nn.ReLU(), 8, 8.5), 'side=8.5 is no whole number'),
    (lambda: draw_branches(ResBlock(64, 64), 64, 56), 'ResBlock does not end by putting'),
    (lambda: draw_branches(Branches(dense_layer(8), nn.ReLU()), 8, 8), 'Branches does not end by putting'),
    (lambda: draw_net(create_model('resnet18', n_in=1), 64), 'ResNet does not take 3 x 64 x 64'),
    (lambda: draw_net(nn.ReLU(), 64), 'ReLU has no convolution'),
    (lambda: draw_conv(0), 'side=0 is no whole number'), (lambda: draw_conv(5, 3, 0), 'stride=0 is no whole number'),
    (lambda: draw_conv(5, True), 'ks=True is no whole number'), (lambda: draw_conv(70), 'a grid shows 64 at most'),
    (draw_row, 'no drawing is given'),
    (lambda: draw_row(draw_conv(3), titles=['a','b']), 'titles has 2 entries for 1 drawings'),
])
def test_what_cannot_be_drawn_is_one_line(draw, says):
    with pytest.raises(CourseError, match=re.escape(says)) as e: draw()
    assert '\n' not in str(e.value) and ';' in str(e.value)


def test_odd_names_are_escaped():
    odd = '<b>&"\'\x1b[31m\ufffe\x00é日'
    named = type('A<&>"\x07', (ResBlock,), {})(64, 64)
    root = parse(draw_row(draw_block(named, 64, 8), titles=[odd]))
    assert any('<b>&"\'' in t and 'é日' in t and '\x1b' not in t for t in texts(root))
    net = nn.Sequential()
    net.add_module('a<&>\x1b', nn.Conv2d(3, 4, 1))
    assert any(t.startswith('a<&>') for t in texts(parse(draw_net(net, 8))))


def test_a_viewer_gets_an_image_and_words(tmp_path):
    drawing = draw_block(ResBlock(64, 64), 64, 56)
    bundle = drawing._repr_mimebundle_()
    assert bundle == {'image/svg+xml': drawing.svg, 'text/plain': repr(drawing)}, "GitHub would strip HTML to its words"
    assert '64 × 56 × 56' in repr(drawing) and '\n' not in repr(drawing)
    drawing.save(tmp_path/'block.svg')
    assert (tmp_path/'block.svg').read_text(encoding='utf-8') == drawing.svg
    for words in ('prefers-color-scheme:dark', 'currentColor', 'var(--draw-data,', 'max-width:100%'):
        assert words in drawing.svg
    assert 'url(' not in drawing.svg and 'id=' not in drawing.svg, "two drawings on a page would share it"


def test_the_site_has_the_palette_in_both_modes():
    css = (ROOT/'docs'/'_static'/'style.css').read_text()
    page = dict(ink='var(--pst-color-text-base)', paper='none', plain='var(--pst-color-background)')
    for mode in ('light', 'dark'):
        rule = palette_css(f'html[data-theme="{mode}"] :is(.drawing,.play)', mode == 'dark', **page)
        assert rule in css, f"style.css lacks {rule}"


def luminance(colour):
    parts = [int(colour[i:i+2], 16)/255 for i in (1,3,5)]
    return sum(w*(c/12.92 if c <= .04045 else ((c+.055)/1.055)**2.4)
               for w,c in zip((.2126,.7152,.0722), parts, strict=True))


def contrast(a, b):
    high,low = sorted((luminance(a),luminance(b)), reverse=True)
    return (high+.05)/(low+.05)


@pytest.mark.parametrize('dark', [False, True])
def test_letters_and_lines_can_be_seen(dark):
    "WCAG 2: 4.5 to 1 for letters on any colour, 3 to 1 for lines on the page"
    ink,page = ('#dfe5e8','#161b1e') if dark else ('#22282b','#ffffff')
    for role,modes in PALETTE.items():
        fill,line = modes[dark]
        assert contrast(ink, fill) >= 4.5 and contrast(line, page) >= 3, role
