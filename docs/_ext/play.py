"What plays in the pages: the scripts of each, what they need of the course, and the weights that a click loads"
import base64
import hashlib
import json
import sys
from functools import partial
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = ROOT/'resnet_course'/'pretrained'/'imagenette.safetensors'
TOOL = ROOT/'tools'/'page_net.py'
SCRIPTS = {'docs/play': ('net.js', 'digit.js', 'digits-net.js', 'play.js'),  # after widget.js, in this order
           'nbs/01_conv_layer': ('conv.js', 'sizes.js'), 'nbs/03_last_layers': ('shift.js',),
           'nbs/05_resblock': ('chart.js', 'block.js', 'depth.js', 'surface.js'), 'nbs/06_bottleneck': ('block.js',),
           'nbs/07_resnet': ('sizes.js',), 'nbs/09_progressive_resizing': ('chart.js', 'testsize.js')}
CAPTION = ('A drawn 3; beside it the answer of the net, 3, with a bar for each digit, the drawing as 8x8 numbers, '
           'the place where the evidence lies, and rows of feature maps for the stem and each of four groups')


def held(n=10):
    "Digits that no run of the course trains on, `n` of each class: their 64 numbers, 0 to g, in a word"
    from sklearn.datasets import load_digits
    digits = load_digits()
    found = []
    for label in range(10):
        images = digits.images[digits.target == label][::5][:n]
        found += [[label, ''.join('0123456789abcdefg'[int(v)] for v in image.flatten())] for image in images]
    return found


def digits():
    return f'''<div id="play-digits" class="play"><p>This plays with JavaScript only. So it looks:</p>
<img src="../_static/play.png" alt="{CAPTION}" width="757" height="1180"></div>
<script id="play-held" type="application/json">{json.dumps(held(), separators=(",", ":"))}</script>'''


def photographs():
    return f'''<div id="play-photos" class="play" data-net="../_static/imagenette-net.js" data-megabytes="{SIZE}">
<p>This plays with JavaScript only. In Python:
<code>resnet-course predict resnet_course/pretrained/imagenette.safetensors PHOTO.jpg</code></p></div>'''


def kernel():
    "The part of the photograph that chapter 1 looks at, at half its size, in grey, a byte a pixel"
    from PIL import Image
    from sklearn.datasets import load_sample_image
    grey = Image.fromarray(load_sample_image('china.jpg')).convert('L').crop((70, 170, 270, 330)).reduce(2)
    photo = base64.b64encode(grey.tobytes()).decode()
    return ('**Slide it yourself**, and write other numbers into it.\n\n<div id="play-conv" class="play" '
            f'data-width="{grey.width}" data-height="{grey.height}" data-photo="{photo}">'
            '<p>This plays with JavaScript only; the pictures above show two of its kernels.</p></div>')


def sizes(preset):
    return ('**Try other layers**: how large is what comes out, and how far does one of its values see?\n\n'
            f'<div id="play-sizes" class="play play-sizes" data-preset="{preset}"><p>This plays with JavaScript only; '
            'the text beside it has the rule.</p></div>')


def block(kind, channels, side):
    return ('**Build a block**, and see what it costs.\n\n'
            f'<div id="play-block" class="play" data-kind="{kind}" data-channels="{channels}" data-side="{side}">'
            '<p>This plays with JavaScript only; the drawings above show the blocks.</p></div>')


def stored(name, cell):
    "What a hidden cell of a chapter has left for its page: numbers of its own run"
    nb = json.loads((ROOT/'nbs'/f'{name}.ipynb').read_text())
    output, = next(c['outputs'] for c in nb['cells'] if c['id'] == cell)
    return json.loads(output['data']['application/json']['numbers'])


def own_numbers(widget, name, cell, title, otherwise):
    "What plays with the numbers of a chapter's own run"
    data = json.dumps(stored(name, cell), separators=(',', ':'))
    return (f'{title}\n\n<div id="play-{widget}" class="play"><p>This plays with JavaScript only; {otherwise}</p></div>'
            f'<script id="{widget}-data" type="application/json">{data}</script>')


SIZE = 3.8  # of the script with the weights, in MB; checked by a test
MADE = {'<!-- digits -->': digits, '<!-- photographs -->': photographs}
AFTER = {  # what comes behind which cell of a notebook
    'nbs/01_conv_layer': {'c016': kernel, 'c031': lambda: sizes('five times stride 2')},
    'nbs/03_last_layers': {'c051': partial(
        own_numbers, 'shift', '03_last_layers', 'c0sh1ft0',
        '**Move a digit yourself**, one it has never seen, and see what either head says to it.',
        'the curves above are the mean over all digits.')},
    'nbs/05_resblock': {
        'a018': lambda: block('residual', 64, 56),
        'c076': partial(own_numbers, 'depth', '05_resblock', 'c0depth0',
                        '**Choose a depth**: how do both nets learn, and what do their gradients do?',
                        'the figures above show two of the depths.'),
        'c082': partial(own_numbers, 'surface', '05_resblock', 'c0surf00',
                        '**Walk on it yourself**: drag the point, or let it roll downhill.',
                        'the picture above has the same heights.')},
    'nbs/06_bottleneck': {'c017': lambda: block('bottleneck', 256, 56)},
    'nbs/07_resnet': {'a050277e': lambda: sizes('three 3x3, the first with stride 2 (the deep stem)')},
    'nbs/09_progressive_resizing': {'c054': partial(
        own_numbers, 'testsize', '09_progressive_resizing', 'c0testsz',
        '**Try every size**: where is the cliff, and which places of the last map make it?',
        'the figure above has some of the sizes.')}}


def sample(name, side=320):
    "A photograph of scikit-learn's as an address that holds all of it: a page from disk may not read files"
    from PIL import Image
    from sklearn.datasets import load_sample_image
    image = Image.fromarray(load_sample_image(name))
    width, height = (side*n//min(image.size) for n in image.size)
    image.resize((width, height)).save(to := BytesIO(), 'JPEG', quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(to.getvalue()).decode()}"


def write_net(to):
    "The laptop net as a script, made anew when its weights or the tool have changed"
    known = hashlib.sha256(WEIGHTS.read_bytes()+TOOL.read_bytes()+Path(__file__).read_bytes()).hexdigest()
    if to.exists() and to.read_text()[-len(known)-1:-1] == known: return
    sys.path.insert(0, str(TOOL.parent))
    from page_net import page_net, script
    from resnet_course.models import create_model, spec_of
    model = create_model('resnet18', weights='imagenette')
    photos = {'temple': sample('china.jpg'), 'flower': sample('flower.jpg')}
    net = script('imagenette', page_net(model, **spec_of(model)))
    to.write_text(f'{net}pageNets.photos = {json.dumps(photos)}\n// {known}\n')


def read(app, docname, source):
    "What plays comes to its place; when this file changes, the page is made again"
    if docname in (*AFTER, 'docs/play'): app.env.note_dependency(__file__)
    if docname in AFTER and source[0].startswith('{'):
        nb = json.loads(source[0])
        for id, make in AFTER[docname].items():
            place = [c.get('id') for c in nb['cells']].index(id)
            nb['cells'].insert(place+1, {'cell_type': 'markdown', 'id': f'play-{id}', 'metadata': {}, 'source': make()})
        source[0] = json.dumps(nb)
    for marker, make in MADE.items():
        if marker in source[0]: source[0] = source[0].replace(marker, make())


def scripts(app, page, template, context, doctree):
    if page not in SCRIPTS: return
    app.add_css_file('play.css')
    for name in ('widget.js', *SCRIPTS[page]): app.add_js_file(name, loading_method='defer')


def finish(app, exception):
    if not exception and app.builder.name == 'html' and WEIGHTS.exists():
        write_net(Path(app.outdir)/'_static'/'imagenette-net.js')


def setup(app):
    app.connect('source-read', read)
    app.connect('html-page-context', scripts)
    app.connect('build-finished', finish)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
