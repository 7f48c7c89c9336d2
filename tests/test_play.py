"What plays in the pages of the site, used in a browser as a reader uses it, and compared with PyTorch"
import base64
import json
import math
import re
import sys

import numpy as np
import pytest
import test_site
import torch
import torch.nn.functional as F
from conftest import ROOT
from PIL import Image
from torch import nn

from resnet_course.inside import grad_cam
from resnet_course.models import create_model
from resnet_course.resblock import conv_shortcut
from resnet_course.resnet import ResNet, conv_stem

sys.path[:0] = [str(ROOT/'tools'), str(ROOT/'docs'/'_ext')]
from guess import ANSWERS, ASKS  # noqa: E402
from page_net import page_net, rounded  # noqa: E402

pytestmark = [pytest.mark.slow, test_site.needs_browser]
site, browser = test_site.site, test_site.browser
THEME = 'theme => document.documentElement.dataset.theme = theme'
AXE = """include => axe.run({include, exclude: ['#pst-back-to-top']}, {resultTypes: ['violations'], preload: false})
  .then(found => found.violations.map(v => [v.id, v.nodes[0].html]))"""


class Played:
    "A page from disk, and whatever it complains of or asks for"
    def __init__(self, context, file):
        self.faults, self.page = [], context.new_page()
        self.page.on('console', lambda m: self.faults.append(m.text) if m.type == 'error' else None)
        self.page.on('pageerror', lambda e: self.faults.append(str(e)))
        def asked(r):
            if r.url[:5] not in ('file:', 'data:', 'blob:'): self.faults.append(r.url)

        self.page.on('request', asked)
        self.page.goto(file.as_uri())

    def looks(self, *parts):
        "Nothing wider than the window, nothing that axe finds in the page or in some parts of it, light and dark"
        from axe_playwright_python.sync_playwright import Axe
        for width in (1920, 768, 360, 1366):
            self.page.set_viewport_size({'width': width, 'height': 900})
            wide = self.page.evaluate('document.documentElement.scrollWidth')
            if wide > width: self.faults.append(f'{wide} px wide in a window of {width}')
        self.page.evaluate(Axe().axe_script)
        for theme in ('dark', 'light'):
            self.page.evaluate(THEME, theme)
            self.faults += [f'{theme}: {found}' for found in self.page.evaluate(AXE, parts or ['html'])]
        assert not self.faults, self.faults


@pytest.fixture(scope='module')
def opened(browser, site):
    "Pages by name, each opened once"
    context, found = browser.new_context(viewport={'width': 1366, 'height': 900}, reduced_motion='reduce'), {}
    context.set_default_timeout(120_000)
    def open_(name):
        if name not in found: found[name] = Played(context, site/f'{name}.html')
        return found[name]
    yield open_
    context.close()


def said(page, id): return page.inner_text(f'{id} .play-answer strong')


# The engine

RUN = """([net, x, side, edit, label]) => {
  net = typeof net == 'string' ? loadNet(pageNets[net]) : loadNet(net)
  const sets = Object.fromEntries(Object.entries(edit).map(([k, v]) => [k, new Set(v)]))
  const image = {data: Float32Array.from(x), c: 3, h: side, w: side}, times = []
  const timed = () => {
    const began = performance.now(), maps = run(net, image, sets)
    times.push(performance.now() - began)
    return maps
  }
  const maps = timed()
  if (side > 64) { timed(); timed() }
  return {y: [...maps.at(-1).data], cam: [...classMap(net, maps, label).data], ms: Math.min(...times)}
}"""


def in_page(page, net, x, label=0, **edit):
    return page.evaluate(RUN, [net, x[0].permute(1, 2, 0).flatten().tolist(), x.shape[-1], edit, label])


def worn(model):
    "Norms as after some training"
    torch.manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, .3)
            m.running_var.uniform_(.5, 2)
            nn.init.uniform_(m.weight, .5, 1.5)
            nn.init.normal_(m.bias, 0, .2)
    return model.eval()


def close(a, b, tolerance=1e-3): return (torch.as_tensor(a)-torch.as_tensor(b).flatten()).abs().max() < tolerance


class Part(nn.Module):
    "One of the two ways through a block"
    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x): return self.way(x).relu()


@pytest.mark.parametrize('net, side', [
    (dict(layers=[1,2,1,1], expansion=4, width=4), 33),
    (dict(layers=[1,1,1,2], width=8, stem=conv_stem, shortcut=conv_shortcut), 65)])
@torch.no_grad()
def test_any_plain_resnet_is_computed_as_in_pytorch(opened, net, side):
    "Odd sides, both stems, both shortcuts, basic blocks and bottlenecks; whole, with a block taken out, without a skip"
    model, page = worn(ResNet(7, **net)), opened('docs/play').page
    made, x, whole = page_net(model, classes=[*'abcdefg'], size=side), torch.randn(1, 3, side, side), rounded(model)
    assert close(in_page(page, made, x)['y'], whole(x)) and close(whole(x), model(x), .2)
    block, name = model.group4[-1], f'group4.{len(model.group4)-1}'
    for state, way in (('out', block.shortcut), ('alone', block.convs)):
        model.group4[-1] = Part(way)
        less = rounded(model)
        assert close(in_page(page, made, x, **{state: [name]})['y'], less(x)) and not close(whole(x), less(x))


@pytest.mark.parametrize('model', [create_model('resnext50_32x4d', 10), create_model('seresnet50', 10)])
def test_what_the_page_cannot_compute_is_refused(model):
    with pytest.raises(ValueError, match="page's engine"): page_net(model.eval())


@torch.no_grad()
def test_the_laptop_net_in_the_page(opened, site):
    "Loaded by a click only, as large as the page says; equal to PyTorch, its class map to Grad-CAM; under a second"
    page, file = opened('docs/play').page, site/'_static'/'imagenette-net.js'
    assert page.evaluate('Object.keys(pageNets)') == ['digits']
    megabytes = page.get_attribute('#play-photos', 'data-megabytes')
    assert abs(file.stat().st_size/1e6-float(megabytes)) < .1 and float(megabytes) < 6
    page.click(f'text=Load the net ({megabytes} MB)')
    page.wait_for_selector('text=The temple')
    model = create_model('resnet18', weights='imagenette').eval()
    torch.manual_seed(0)
    x = torch.randn(1, 3, 128, 128)
    label = model(x).argmax().item()
    found, heat = in_page(page, 'imagenette', x, label), grad_cam(model, x, label)
    assert close(found['y'], rounded(model)(x)) and heat.max() > 0 and close(found['cam'], heat, .05*heat.max())
    assert found['ms'] < 1000


def test_a_photograph(opened, tmp_path):
    "One of ours, one of the reader's, and a file that is none; with its answer, its maps, and a block taken out"
    page = opened('docs/play').page
    if page.is_visible('text=Load the net'): page.click('text=Load the net')
    page.click('text=The temple')
    page.wait_for_selector('#play-photos .play-answer strong')
    assert said(page, '#play-photos') == 'church' and page.locator('#play-photos .play-bars li').count() == 5
    assert page.locator('#play-photos .play-parts figure').count() == 5
    before = page.inner_text('#play-photos .play-bars')
    page.get_by_role('button', name='skip of group3.1').last.click()
    bars = 'document.querySelector("#play-photos .play-bars").innerText'
    page.wait_for_function(f'before => {bars} != before', arg=before)
    assert '1 without skip' in page.inner_text('#play-photos .play-blocks')
    page.locator('#play-photos').get_by_role('button', name='All whole').click()
    page.wait_for_function(f'before => {bars} == before', arg=before)
    Image.new('RGB', (90, 60), 'green').save(tmp_path/'lawn.png')
    page.set_input_files('#photo-file', tmp_path/'lawn.png')
    page.wait_for_selector('#play-photos [aria-label="lawn.png, as the net is shown it"]')
    (tmp_path/'words.png').write_text('no picture')
    page.set_input_files('#photo-file', tmp_path/'words.png')
    page.wait_for_selector('text=words.png is no photograph')


# The digits

def arc(x, y, rx, ry, a, b, n=14):
    angles = [math.radians(a+(b-a)*i/n) for i in range(n+1)]
    return [(x+rx*math.cos(t), y+ry*math.sin(t)) for t in angles]


DRAWN = [  # twenty digits as a hand draws them, in a box of 100; nothing was tuned on them
    (0, [arc(52, 48, 22, 38, -70, 290)]), (0, [arc(50, 55, 30, 32, -120, 240)]),
    (1, [[(48, 15), (52, 88)]]), (1, [[(36, 32), (54, 14), (54, 86)], [(36, 86), (72, 86)]]),
    (2, [[*arc(50, 34, 22, 20, -180, 30), (28, 84), (74, 82)]]),
    (2, [[*arc(48, 30, 26, 18, -150, 50), (20, 90), (82, 90)]]),
    (3, [[*arc(46, 32, 22, 18, -160, 70), *arc(48, 70, 24, 20, -70, 160)]]),
    (3, [[*arc(50, 28, 18, 16, -140, 90), *arc(50, 66, 26, 24, -90, 140)]]),
    (4, [[(44, 12), (22, 58), (80, 58)], [(62, 34), (58, 92)]]), (4, [[(60, 90), (60, 12), (22, 62), (80, 62)]]),
    (5, [[(70, 14), (36, 14), (33, 46), *arc(50, 64, 22, 20, -130, 130)]]),
    (5, [[(72, 10), (38, 12), (30, 50), (56, 46), (70, 64), (60, 84), (30, 88)]]),
    (6, [[(60, 10), (40, 34), (32, 62), *arc(52, 68, 20, 18, 180, -180)]]),
    (6, [[*arc(66, 54, 36, 42, -110, -180), *arc(48, 68, 18, 20, 180, 540)]]),
    (7, [[(24, 16), (74, 14), (46, 90)]]), (7, [[(26, 18), (72, 16), (48, 90)], [(38, 54), (70, 50)]]),
    (8, [[*arc(50, 32, 16, 18, 90, 450), *arc(50, 68, 20, 20, -90, 270)]]),
    (8, [[(68, 22), *arc(48, 30, 18, 16, -40, -200), (60, 58), *arc(48, 70, 20, 18, -30, 190), (66, 28)]]),
    (9, [[*arc(48, 34, 20, 20, -10, -370), (66, 40), (60, 90)]]),
    (9, [[*arc(52, 30, 18, 18, 0, -360), (70, 56), *arc(48, 64, 22, 26, 0, 140)]])]


DRAW = """strokes => {  // all at once: a mouse that is moved by hand waits for each picture
  const pad = document.querySelector('.play-pad'), box = pad.getBoundingClientRect()
  pad.setPointerCapture = () => {}  // of a pointer that there is not
  for (const points of strokes)
    points.forEach(([x, y], i) => {
      const at = {clientX: box.left + x*box.width/100, clientY: box.top + y*box.height/100}
      for (const kind of [i ? 'pointermove' : 'pointerdown', ...(i == points.length - 1 ? ['pointerup'] : [])])
        pad.dispatchEvent(new PointerEvent(kind, at))
    })
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
}"""


def test_drawn_digits(opened):
    page, read = opened('docs/play').page, []
    for digit, strokes in DRAWN:
        page.click('#play-digits >> text=Clear')
        page.evaluate(DRAW, strokes)
        read.append((digit, int(said(page, '#play-digits'))))
    assert sum(a == b for a, b in read) >= 18, read


def test_a_digit_drawn_with_a_mouse(opened):
    page = opened('docs/play').page
    page.click('#play-digits >> text=Clear')
    page.locator('.play-pad').scroll_into_view_if_needed()
    pad = page.locator('.play-pad').bounding_box()
    for stroke in [[(.3, .15), (.75, .15), (.45, .9)], [(.38, .5), (.75, .5)]]:
        for i, (x, y) in enumerate(stroke):
            page.mouse.move(pad['x']+x*pad['width'], pad['y']+y*pad['height'], steps=3)
            if not i: page.mouse.down()
        page.mouse.up()
    page.wait_for_function('document.querySelector("#play-digits .play-answer strong").textContent == "7"')


def test_a_digit_drawn_with_keys(opened):
    "A 1: the pen goes up, is put down, goes down; its answer is read out once nothing changes any more"
    page = opened('docs/play').page
    page.focus('.play-pad')
    page.keyboard.press('Delete')
    page.wait_for_selector('text=Of an empty pad it says')
    keys = [*['ArrowUp']*9, 'ArrowLeft', 'Space', *['ArrowDown']*18, 'Space', 'ArrowRight']
    for key in keys: page.keyboard.press(key)
    spoken = '#play-digits [role=status].visually-hidden'
    page.wait_for_function('spoken => document.querySelector(spoken).textContent.startsWith("1, ")', arg=spoken)
    assert said(page, '#play-digits') == '1'


def test_what_survives(opened):
    "The digits that the net never saw, whole and with a block taken out: the page counts as PyTorch does"
    page = opened('docs/play').page
    def count():
        page.get_by_role('button', name='Read 100').click()
        page.wait_for_selector('text=/It reads \\d+ of 100/')
        return int(re.search(r'It reads (\d+) of 100', page.inner_text('#play-digits .play-blocks'))[1])

    assert count() >= 96
    page.select_option('#digit-side', '129')
    page.wait_for_selector('text=16 of 64 maps, 5x5')
    assert 60 < count() < 85  # chapter 9
    page.select_option('#digit-side', '128')
    convs = page.locator('#play-digits').get_by_role('button', name='convs of group3.1')
    convs.click()
    assert convs.get_attribute('aria-pressed') == 'false' and count() < 70
    page.locator('#play-digits').get_by_role('button', name='skip of group3.1').click()  # never both
    assert convs.get_attribute('aria-pressed') == 'true'
    page.locator('#play-digits').get_by_role('button', name='All whole').click()


def test_digits_are_enlarged_as_the_course_does(opened, site):
    "What a run sees, so that only the drawing may differ"
    from resnet_course.data import find_data
    held = json.loads(re.search(r'id="play-held"[^>]*>(.*?)</script>', (site/'docs'/'play.html').read_text())[1])
    assert [sum(label == i for label, _ in held) for i in range(10)] == [10]*10
    page = opened('docs/play').page
    for i in (0, 37, 99):
        label, numbers = held[i]
        file = sorted((find_data('digits')/'val'/str(label)).iterdir())[i%10]
        theirs = np.asarray(Image.open(file).resize((128, 128), Image.BILINEAR)).flatten()
        ours = page.evaluate('n => [...enlarged(Uint8Array.from(n, c => parseInt(c, 17)), 128)]', numbers)
        assert abs(np.array(ours)-theirs).max() <= 1  # Pillow rounds twice


# Chapter 1's kernel

def test_the_kernel_of_chapter_1(opened):
    "Dragged, moved with keys, edited, with stride and padding: nine products and a sum, as PyTorch has them"
    page = opened('nbs/01_conv_layer').page
    photo = base64.b64decode(page.get_attribute('#play-conv', 'data-photo'))
    grey = torch.tensor(list(photo)).view(80, 100)/255
    kernel = torch.tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1.]])
    def same(y, x, **kw):
        sums = F.conv2d(grey[None, None], kernel[None, None], **kw)[0, 0]
        said = page.inner_text('#play-conv')
        assert f'80x100 pixels, the new picture {len(sums)}x{len(sums[0])}' in said
        assert abs(float(re.search(r'Their sum: (.*)', said)[1])-sums[y, x]) < .0051, (y, x)
        shown = [float(t.split()[-1]) for t in page.locator('.conv-products span').all_inner_texts()]
        assert abs(sum(shown)-sums[y, x]) < .05

    photo = page.locator('#play-conv canvas').first
    photo.scroll_into_view_if_needed()
    box, zoom = photo.bounding_box(), photo.bounding_box()['width']/100
    page.mouse.move(box['x']+10.5*zoom, box['y']+10.5*zoom)
    page.mouse.down()
    page.mouse.move(box['x']+21.5*zoom, box['y']+31.5*zoom)
    page.mouse.up()
    same(30, 20)
    photo.focus()
    for key in ('ArrowUp', 'ArrowUp', 'ArrowLeft'): page.keyboard.press(key)
    same(28, 19)
    page.fill('[aria-label="kernel, row 2, column 3"]', '5')
    kernel[1, 2] = 5
    same(28, 19)
    page.select_option('#conv-padding', '1')
    same(28, 19, padding=1)
    page.select_option('#conv-stride', '2')
    same(28, 19, padding=1, stride=2)
    for _ in range(30): page.keyboard.press('Tab')  # keys are not caught outside
    page.select_option('#conv-preset', 'sharpen')
    kernel = torch.tensor([[0, -1, 0], [-1, 5, -1], [0, -1, 0.]])
    same(28, 19, padding=1, stride=2)


# Sizes, and a block to build

def test_sizes_and_receptive_fields(opened):
    "The output's side as chapter 1 has it; how far a value sees, as gradients tell"
    from resnet_course.layers import conv_size
    page, layers, x = opened('nbs/07_resnet').page, [(3, 2), (3, 1), (3, 1), (5, 2), (1, 1)], torch.zeros(1, 1, 97, 97)
    page.fill('#play-sizes-side', '97')
    for _ in range(2): page.click('text=One more layer')
    for i, (what, value) in ((4, ('kernel', 5)), (4, ('stride', 2)), (5, ('kernel', 1))):
        page.select_option(f'[aria-label="{what} of layer {i}"]', str(value))
    side, net = 97, nn.Sequential(*[nn.Conv2d(1, 1, ks, s, (ks-1)//2) for ks, s in layers])
    for ks, s in layers: side = conv_size(side, ks, s)
    for conv in net: nn.init.ones_(conv.weight)
    out = net(x.requires_grad_())
    seen = torch.autograd.grad(out[0, 0, side//2, side//2], x)[0][0, 0].any(0).sum()
    said = page.inner_text('#play-sizes')
    assert f'The output has {side}x{side} pixels. Each of them sees {seen}x{seen} pixels' in said
    for typed, taken in (('0', 1), ('12345', 9999), ('', 1)):
        page.fill('#play-sizes-side', typed)
        assert f'From 1 to 9999 pixels: taken as {taken}.' in page.inner_text('#play-sizes')
    for button, end in (('One more layer', 30), ('One less', 1)):
        for _ in range(31): page.get_by_role('button', name=button).evaluate('button => button.click()')
        assert page.locator('#play-sizes tbody tr').count() == end
        assert page.get_by_role('button', name=button).get_attribute('aria-disabled') == 'true'


@pytest.mark.parametrize('kind, ni, nf, stride, side', [
    ('bottleneck', 256, 512, 2, 7), ('residual', 64, 64, 1, 56), ('residual', 64, 128, 2, 7), ('plain', 16, 32, 2, 28)])
def test_a_block_costs_what_cost_table_says(opened, kind, ni, nf, stride, side):
    from resnet_course.bottleneck import bottleneck
    from resnet_course.cost import cost_table
    from resnet_course.resblock import ResBlock, basic_block
    page = opened('nbs/06_bottleneck').page
    for name, value in dict(kind=kind, ni=ni, nf=nf, stride=stride, side=side).items():
        page.select_option(f'#block-{name}', str(value))
    make = bottleneck if kind == 'bottleneck' else basic_block
    block = make(ni, nf, stride) if kind == 'plain' else ResBlock(ni, nf, stride, block=make)
    total, out = cost_table(block, side, channels=ni).iloc[-1], block(torch.zeros(2, ni, side, side)).shape[-1]
    shown = [page.inner_text(f'#block-{what}') for what in ('params', 'macs', 'out')]
    assert shown == [f"{total['params']:,}", f"{total['MACs']:,}", f'{nf}x{out}x{out}']


# What plays with a chapter's own numbers

def stored(name, cell):
    cells = json.loads((ROOT/'nbs'/f'{name}.ipynb').read_text())['cells']
    output, = next(c for c in cells if c['id'] == cell)['outputs']
    return json.loads(output['data']['application/json']['numbers'])


def test_a_digit_under_both_heads(opened):
    "Moved by keys, dragged, put there by a click into a map, and no farther than the square: what the nets said there"
    page, data = opened('nbs/03_last_layers').page, stored('03_last_layers', 'c0sh1ft0')
    told = {name: torch.tensor([*base64.b64decode(v)]).view(10, 9, 9, 10) for name, v in data['answers'].items()}
    def same(digit, down, right):
        for name in told:
            text, p = page.inner_text(f'[aria-label="The {name} head"]'), told[name][digit]
            assert f"says {p[4+down, 4+right].argmax()}" in text, (name, down, right)
            assert f"Right at {(p.argmax(2) == data['labels'][digit]).sum()} of 81 places" in text
    same(0, 0, 0)
    pad = page.locator('#play-shift canvas').first
    pad.focus()
    for key in ('ArrowRight', 'ArrowRight', 'ArrowUp'): page.keyboard.press(key)
    same(0, -1, 2)
    page.select_option('#shift-digit', '7')
    for _ in range(9): page.click('#play-shift [aria-label="down"]')
    same(7, 4, 2)
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    page.mouse.move(box['x']+box['width']/2, box['y']+box['height']/2)
    page.mouse.down()
    page.mouse.move(box['x']+box['width']*(1/2-3/16), box['y']+box['height']*(1/2-5/16))
    page.mouse.up()
    same(7, -1, -1)
    page.locator('[aria-label="The pooled head"] canvas').click(position={'x': 3, 'y': 3})
    same(7, -4, -4)
    page.click('#play-shift >> text=Middle')
    same(7, 0, 0)


def test_a_depth_and_what_came_of_it(opened):
    page, rows = opened('nbs/05_resblock').page, stored('05_resblock', 'c0depth0')
    assert [r['layers'] for r in rows] == [8, 14, 20, 26, 32, 38, 44]
    slider = page.locator('#depth-layers')
    slider.focus()
    for key, row in (('Home', rows[0]), ('ArrowRight', rows[1]), ('End', rows[-1])):
        page.keyboard.press(key)
        text = page.inner_text('#play-depth')
        assert slider.get_attribute('aria-valuetext') == f"{row['layers']} layers"
        for name in ('plain', 'residual'):
            end, grown = (float(v.replace(',', '')) for v in
                          re.search(rf'{name} ends at ([\d.]+), its gradient grows ([\d,.]+) times', text).groups())
            first, *_, last = row['norms'][name]
            assert abs(end-row['losses'][name][-1]) < .0051 and abs(grown-first/last) < max(.051, first/last/100)
        assert page.locator('#play-depth .chart').count() == 2


def test_a_point_on_the_loss_surface(opened):
    "At the grid's own points it has their heights; rolling ends lower; the edge holds it"
    page, data = opened('nbs/05_resblock').page, stored('05_resblock', 'c0surf00')
    def loss(): return float(said(page, '#play-surface'))
    point = page.locator('#play-surface canvas')
    for name, z in data['nets'].items():
        page.select_option('#surface-net', name)
        page.click('#play-surface button >> text=Back up')
        point.focus()
        for key, n in (('ArrowLeft', 7), ('ArrowDown', 6)):
            for _ in range(n): page.keyboard.press(key)
        assert abs(loss()-z[5][5]) < .0051
        for _ in range(4): page.keyboard.press('ArrowRight')
        assert abs(loss()-z[5][7]) < .0051
        for _ in range(30): page.keyboard.press('ArrowUp')
        assert abs(loss()-z[0][7]) < .0051
        page.click('#play-surface button >> text=Back up')
        above = loss()
        page.click('#play-surface button >> text=Let it roll')
        assert loss() < above
    assert loss() < .2  # the last is the deep residual net's bowl


def test_sizes_at_test(opened):
    page, data = opened('nbs/09_progressive_resizing').page, stored('09_progressive_resizing', 'c0testsz')
    for trained, steps in (('32', 0), ('32', 1), ('64', 1), ('64', 16)):
        page.select_option('#testsize-trained', trained)
        slider = page.locator('#testsize-px')
        slider.focus()
        page.keyboard.press('Home')
        for _ in range(steps): page.keyboard.press('ArrowRight')
        found, px, text = data[trained], int(trained)+steps, page.inner_text('#play-testsize')
        assert found['sizes'][steps] == px and f'{px} px' in text
        assert f"{round(found['built'][steps])}% right at {px} px" in text
        side, whole = -(-px//32), px//32
        assert f'{side}x{side} places' in text and page.locator('.last-map .edge').count() == side**2-whole**2
        assert page.locator('.last-map span').count() == side**2


# The explorer's address

def test_the_explorer_says_what_an_address_asks_in_vain(opened):
    page = opened('docs/explorer').page
    def go(hash): page.evaluate('hash => { location.hash = hash }', hash)
    def net(): return page.inner_text('#explorer h2#stack')
    go('net=resnet34&size=128')
    page.wait_for_function('document.getElementById("stack").textContent.startsWith("resnet34")')
    assert not page.is_visible('[role=alert]') and page.input_value('#explorer-size') == '128'
    go('net=resnet35&size=100')
    page.wait_for_selector('[role=alert]:not([hidden])')
    assert 'net resnet35 is not here' in (said := page.inner_text('[role=alert]')) and 'size 100 is not here' in said
    assert net().startswith('resnet50')
    go('all-nets-at-224-px')
    page.wait_for_function('scrollY > 1000')
    assert page.url.endswith('#all-nets-at-224-px')


def test_two_nets_side_by_side_and_blocks_that_stay_open(opened):
    page = opened('docs/explorer').page
    page.select_option('#explorer-net', 'resnet18')
    assert page.locator('#explorer li.skip').count() == 7  # eight blocks, the first two alike
    page.locator('#explorer summary', has_text='stem').click()
    page.select_option('#explorer-with', 'resnet50')
    assert page.locator('#explorer .net').count() == 2 and page.locator('#explorer details[open]').count() == 2
    mine, theirs = [sum(p.numel() for p in create_model(n).parameters()) for n in ('resnet18', 'resnet50')]
    assert f'resnet50 has {theirs/mine:.2f} times the parameters' in page.inner_text('p.beside')
    assert 'with=resnet50' in page.url
    page.reload()
    assert page.locator('#explorer .net').count() == 2
    heads = page.locator('#explorer .net > h2, #explorer .net > div dl').evaluate_all('es => es.map(e => e.tagName)')
    assert heads == ['H2', 'DL', 'H2', 'DL']  # each net's numbers stand below its name


@pytest.mark.parametrize('way', ['mouse', 'touch'])
def test_a_dot_of_the_chart_says_what_it_is(opened, way):
    page = opened('docs/results').page
    dot = page.locator('figure.records g').nth(7)
    page.mouse.move(1, 1)
    dot.locator('.told').first.wait_for(state='hidden')
    if way == 'mouse': dot.locator('circle').hover(force=True)
    else: dot.evaluate('e => e.focus()')  # as a tap does
    shown = page.locator('figure.records .told >> visible=true')
    assert shown.count() == 2 and ': '.join(shown.all_text_contents()) == dot.locator('title').text_content()
    inside = """texts => texts.every(t => { const [a, b] = [t, t.ownerSVGElement].map(e => e.getBoundingClientRect())
      return a.left >= b.left - 1 && a.right <= b.right + 1 && a.bottom <= b.bottom + 1 })"""
    assert shown.evaluate_all(inside)


def test_names_of_dots_fit_the_chart(opened):
    page = opened('docs/results').page
    page.add_style_tag(content='figure.records .told { visibility: visible !important }')
    long = page.locator('figure.records .told').evaluate_all("""texts => texts.filter(t =>
      t.getBoundingClientRect().right > t.ownerSVGElement.getBoundingClientRect().right + 1).map(t => t.textContent)""")
    assert not long


def test_labels_of_a_block_stand_clear_of_its_boxes(opened):
    "Of the largest shapes as well, in the picture and beside no box"
    page = opened('nbs/06_bottleneck').page
    for kind in ('plain', 'residual', 'bottleneck'):
        for field, value in (('kind', kind), ('ni', 2048), ('nf', 2048), ('side', 112), ('stride', 2)):
            page.select_option(f'#block-{field}', str(value))
        over = page.evaluate("""() => {
          const box = e => e.getBoundingClientRect(), svg = document.querySelector('.block-drawing')
          const boxes = [...svg.querySelectorAll('rect')].map(box), all = box(svg)
          return [...svg.querySelectorAll('text.small')].filter(t => { const a = box(t)
            return a.left < all.left || a.right > all.right || boxes.some(b => a.left < b.right && b.left < a.right
              && a.top + 3 < b.bottom && b.top < a.bottom - 3) }).map(t => t.textContent) }""")
        assert not over, kind


# Guess first

def asked():
    "The cells of each chapter that wait for a guess"
    found = {}
    for stem, file in test_site.CHAPTERS.items():
        cells = [c for c in json.loads(file.read_text())['cells'] if c['cell_type'] == 'code']
        ids = [c['id'] for c in cells if ASKS.search(''.join(c['source']))]
        if ids: found[stem] = ids
    return found


def test_each_guess_has_an_answer_behind_it():
    assert {stem: list(answers) for stem, answers in ANSWERS.items()} == asked()
    for stem, answers in ANSWERS.items():
        order = [c['id'] for c in json.loads(test_site.CHAPTERS[stem].read_text())['cells']]
        assert all(order.index(guess) < order.index(answer) for guess, answer in answers.items()), stem


def test_two_tabs_keep_what_each_was_told(browser, site):
    "A page that was open before knows what another has kept since"
    context = browser.new_context()
    tabs = [context.new_page() for _ in range(3)]
    for tab, name in zip(tabs, ('nbs/02_cost', 'nbs/05_resblock', 'nbs/07_resnet'), strict=True):
        tab.goto((site/f'{name}.html').as_uri())
    for tab in tabs:
        tab.click('text=I have read this chapter')
        tab.wait_for_timeout(500)  # until other processes of the browser see it
    kept = json.loads(tabs[0].evaluate("localStorage.getItem('resnet_course')"))
    assert len(kept['read']) == 3
    context.close()


def test_a_guess_is_kept_and_shown_beside_the_answer(opened):
    "In this browser only, past a reload; so is which chapters have been read; until all of it is forgotten"
    page = opened('nbs/01_conv_layer').page
    assert not page.is_visible('p.guessed')
    page.get_by_label("Your guess: 'blurred', 'vertical'").fill('<b>only the vertical</b>')
    page.keyboard.press('Enter')
    assert 'in this browser only' in page.inner_text('form.guess [role=status] >> nth=0')
    page.click('text=I have read this chapter')
    page.reload()
    assert page.inner_text('p.guessed >> visible=true') == 'You guessed: <b>only the vertical</b>'
    behind = page.locator('p.guessed:not([hidden])').evaluate('place => place.nextElementSibling.textContent')
    assert behind.startswith('Vertical it is')
    assert page.get_by_role('button', name='You have read this chapter').get_attribute('aria-pressed') == 'true'
    for _ in range(20):  # another process of the browser may see what was stored a moment later
        page = opened('docs/map').page
        if '0 of' not in page.inner_text('#progress'): break
        page.wait_for_timeout(100)
    assert re.search(r'1 of \d+ chapters read, guesses kept: 1', page.inner_text('#progress'))
    page.click('text=Forget all of it')
    page.click('#progress h2')  # thought better of it
    assert '1 of' in page.inner_text('#progress') and page.is_visible('text=Forget all of it')
    page.click('text=Forget all of it')
    page.click('text=Sure?')
    assert page.evaluate("document.activeElement.tagName") == 'H2'  # the button is another one now
    assert '0 of' in page.inner_text('#progress') and page.evaluate('localStorage.length') < 9
    assert page.evaluate("localStorage.getItem('resnet_course')") is None


@pytest.mark.parametrize('name, parts', [
    ('docs/play', []), ('docs/map', []), ('docs/explorer', []),
    *[(f'nbs/{stem}', ['.play', 'form.guess', '.chapter-done'])
      for stem in ('01_conv_layer', '03_last_layers', '05_resblock', '06_bottleneck', '07_resnet',
                   '09_progressive_resizing')]])
def test_the_page_looks_right(opened, name, parts): opened(name).looks(*parts)


def test_without_javascript(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site/'docs'/'play.html').as_uri())
    assert page.locator('#play-digits img').evaluate('image => image.naturalWidth') > 600
    assert page.locator('text=This plays with JavaScript only').first.is_visible()
    for name, says in (('explorer', 'Choosing takes JavaScript; the table below'),
                       ('results', 'Comparing curves takes JavaScript; the tables below')):
        page.goto((site/'docs'/f'{name}.html').as_uri())
        assert page.locator(f'text={says}').is_visible() and page.locator('article table').first.is_visible()
    context.close()
