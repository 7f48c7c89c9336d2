"What the search goes by besides its own index: other names of a chapter's subject, and how often each page says a word"
import json
import re
from collections import Counter
from pathlib import Path

from docutils import nodes

OFTEN = 5  # times a page says a word before that counts
NAMES = {  # what people type who do not know our words, and the page they look for
    'nbs/00_data': 'data augmentation, data loader, dataset, batch',
    'nbs/01_conv_layer': 'padding, stride, batch normalization, activation function, edge detection',
    'nbs/02_cost': 'flops, number of parameters, memory of a net',
    'nbs/03_last_layers': 'global average pooling, fully connected layer, network in network',
    'nbs/04_inception': 'googlenet, 1x1 convolution',
    'nbs/05_resblock': 'skip connection, shortcut connection, vanishing gradient, degradation problem, residual block',
    'nbs/06_bottleneck': 'bottleneck',
    'nbs/07_resnet': 'resnet50, resnet18, resnet architecture, receptive field',
    'nbs/08_training': 'fit_one_cycle, learning rate, one cycle, mixed precision, confusion matrix',
    'nbs/09_progressive_resizing': 'progressive resizing, image size',
    'nbs/10_relatives': 'wide resnet, pre-activation, resnext, grouped convolution, squeeze and excitation',
    'nbs/10b_lighter': 'densenet, mobilenet, squeezenet, convnext, depthwise convolution, efficientnet',
    'nbs/11_comparison': 'pareto front, statistical power, which model to choose, accuracy vs flops, benchmark of nets',
    'nbs/12_speed': 'slow training, slow data loader, profiling',
    'nbs/13_roofline': 'roofline, arithmetic intensity',
    'nbs/14_ten_minutes': 'muon, training recipe, hyperparameters',
    'nbs/15_clinic': 'overfitting, loss is nan, loss does not go down, debugging',
    'nbs/16_long_runs': 'mixup, cutmix, data augmentation, regularization, test-time augmentation',
    'nbs/17_many_processes': 'distributed training, multi-gpu, ddp, torchrun',
    'nbs/17b_million_files': 'webdataset, tar, shards, large data set',
    'nbs/18_reuse': 'transfer learning, fine-tuning, pretrained weights, imagenet weights',
    'nbs/19_your_photographs': 'my own photos, own images, custom dataset, heic, data leak',
    'nbs/20_look_inside': 'grad-cam, explainability, calibration, uncertainty, robustness',
    'nbs/21_ship_it': 'onnx, deployment, quantization, int8, web page',
    'nbs/91_run': 'resume training, checkpoint',
    'nbs/92_command': 'command line',
    'docs/install': 'install, installation',
    'docs/results': 'label smoothing, benchmark, accuracy of all nets'}


def name(app, docname, source):
    "Entries of the index, at the end of a page's first text"
    if docname not in NAMES: return
    entries = ', '.join(f'! {word}' for word in NAMES[docname].split(', '))
    said = f'\n\n```{{index}} {entries}\n```\n'
    if source[0].startswith('{'):
        nb = json.loads(source[0])
        nb['cells'][0]['source'] += said
        source[0] = json.dumps(nb)
    else: source[0] += said


def count(app, doctree):
    "How often a page says a word, its code included"
    if app.env.docname.startswith('resnet_course/'): return
    text = ' '.join(t.lower() for t in doctree.findall(nodes.Text) if not isinstance(t.parent, nodes.raw))
    words = Counter(re.findall(r'[a-z][a-z0-9_]{2,}', text))
    app.env.metadata[app.env.docname]['said'] = {word: n for word, n in words.items() if n >= OFTEN}


def write(app, exception):
    "Each word that some pages say often and others do not, with the numbers of those pages in a list, and how often"
    if exception or app.builder.name!='html': return
    pages = sorted(page for page, about in app.env.metadata.items() if about.get('said'))
    said = {}
    for i, page in enumerate(pages):
        for word, n in app.env.metadata[page]['said'].items(): said.setdefault(word, []).extend((i, n))
    few = {word: counts for word, counts in said.items() if len(counts) < 1.5*len(pages)}
    text = json.dumps([pages, few], separators=(',', ':'))
    (Path(app.outdir)/'_static'/'said.js').write_text(f'const [PAGES, SAID] = {text}\n')


def setup(app):
    app.connect('source-read', name, priority=600)  # after the sources were made
    app.connect('doctree-read', count)
    app.connect('build-finished', write)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
