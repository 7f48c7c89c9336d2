"The front door: the first page, and what stands under a chapter's title"
import base64
import io
import json
import math
import re
from html import escape
from pathlib import Path
from statistics import mean, stdev

from PIL import Image

import chapters
import charts
import course_map
import experiments

ROOT = Path(__file__).resolve().parent.parent.parent
TITLE = 'From one convolution to a ResNet-50'
PLACE = '<div id="front"></div>'
THUMB = 360,240  # pixels, shown at half of that
COUNT = 'no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'
PARTS = {'Build': 0, 'Train and compare': 8, 'Faster': 12, 'Longer, larger': 15, 'Use': 18}  # and their first chapters


def best():
    "The record of a quarter of an hour without a GPU, three seeds or more, that gets most of the held-out images right"
    found = []
    for file in experiments.FILES:
        r = json.loads(file.read_text())
        if r['machine']['gpu'] or 'split' in r or 'imagenette' not in r['data']['source']: continue
        for runs in charts.variants(r).values():
            if len(runs) < 3: continue
            last = [100*run['history'][-1]['accuracy'] for run in runs]
            if (minutes := charts.seconds(runs)/60) > 15: continue
            found.append({'accuracy': mean(last), 'sd': stdev(last), 'seeds': len(last), 'minutes': minutes,
                          'images': r['data']['val'], 'threads': r['machine']['threads'], 'anchor': file.stem})
    return max(found, key=lambda o: o['accuracy'], default=None)


def slab(c, left, middle, shape, role):
    "A map in perspective: its side as its height, its channels as its thickness; where it ends on the right"
    channels,side = (*shape, 1)[:2]
    high,thick = 8.4*math.sqrt(side),1.5+.3*math.sqrt(channels)
    dx,dy = .34*high,.22*high
    x,y = left,middle-high/2
    d = (f'M{x:.1f} {y:.1f}l{dx:.1f} {-dy:.1f}h{thick:.1f}v{high:.1f}l{-dx:.1f} {dy:.1f}h{-thick:.1f}z'
         f'h{thick:.1f}m0 0l{dx:.1f} {-dy:.1f}m{-dx:.1f} {dy:.1f}v{high:.1f}')
    c.add('path', (x,x+thick+dx), (y-dy,y+high), d=d, stroke_linejoin='round', **{'class': role})
    return x+thick,y-dy


def stack():
    "A ResNet-50 from the image to the answer, read from the net itself: one slab for a block, an arc for its shortcut"
    from resnet_course.models import create_model
    from resnet_course.paths import read_parts
    from resnet_course.svg import Canvas, Drawing
    parts,c,x = read_parts(create_model('resnet50', 10), 224),Canvas(),0.

    def name(left, right, *lines):
        for i, line in enumerate(lines):
            c.text((left+right)/2, 96+15*i, line, size=12, **({'font_weight': 600} if not i else {}))

    for i, units in enumerate([[('image', (3, 224, 224))], *(part.units for part in parts)]):
        role = {0: 'plain', 1: 'conv', len(parts): 'norm'}.get(i, 'data')
        first,shown = x,units[-1:] if i==1 else units
        for kind, made in shown:
            end,top = slab(c, x, 0, made, role)
            step = 5+.34*8.4*math.sqrt((*made, 1, 1)[1])*.42
            if kind=='block':
                high = top-13
                start,stop,low = x-step*.35,end+step*.65,top+6
                arc = f'M{start:.1f} {low:.1f}C{x:.1f} {high:.1f} {end+step*.3:.1f} {high:.1f} {stop:.1f} {low:.1f}'
                c.add('path', (start,stop), (high,top), d=arc, stroke_width=2, **{'class': 'shortcut-way'})
            x = end+step
        told = {0: ('photograph', '224 × 224'), 1: ('stem',), len(parts): ('answer', '10 classes')}.get(
            i, (f'group {i-1}', f'{len(units)} blocks'))
        name(first, x, *told)
        x += 26 if i else 60
    return Drawing(lambda scale: c, 'A ResNet-50, drawn from the net itself',
                   'A photograph, the stem, four groups of 3, 4, 6 and 3 blocks, each block with a shortcut over it, '
                   'and the answer for ten classes: maps get smaller and thicker from left to right.').svg


def first_picture(stem):
    "The first that a chapter shows, small: a drawing as such, anything else as the bytes of an image"
    cells = json.loads((ROOT/'nbs'/f'{stem}.ipynb').read_text())['cells']
    for cell in cells:
        for data in (out.get('data', {}) for out in cell.get('outputs', [])):
            if drawing := ''.join(data.get('image/svg+xml', '')): return 'drawing', drawing
            if picture := data.get('image/png') or data.get('image/jpeg'):
                return 'photo' if '#| photo' in ''.join(cell['source']) else 'plot', base64.b64decode(picture)
    return '', ''


def thumbnail(app, stem):
    kind,picture = first_picture(stem)
    if kind=='drawing':
        bare = re.sub('<(title|desc|style)>.*?</\\1>|<rect class="paper".*?/>', '', picture, flags=re.S)
        return re.sub(r' (role|width|height|style)="[^"]*"', '', bare.split('>')[0])+bare[len(bare.split('>')[0]):]
    if not kind: return ''
    with Image.open(io.BytesIO(picture)) as im: small = im.convert('RGB')
    small.thumbnail(THUMB)
    name = f'thumb-{stem}.{"png" if kind=="plot" else "jpg"}'
    to = Path(app.outdir)/'_images'/name
    to.parent.mkdir(exist_ok=True)
    if kind=='plot': small.quantize(32, dither=0).save(to, optimize=True)
    else: small.save(to, quality=82)
    return (f'<img class="{kind}" src="_images/{name}" width="{small.width}" height="{small.height}" alt="" '
            'loading="lazy" decoding="async">')


def card(app, facts):
    "A chapter: picture, number and title, what it is about, how long it takes and what it stands on"
    first = ''.join(json.loads((ROOT/'nbs'/f"{facts['stem']}.ipynb").read_text())['cells'][0]['source'])
    what = re.search(r'^> (.*)', first, re.M)[1].replace('`', '')
    needs = f"uses {facts['needs']}" if facts['needs']!='–' else 'stands alone'
    said = f"{facts['reading']+facts['exercises']} min with exercises · {needs}"
    return (f'<li><a class="lesson" href="nbs/{facts["stem"]}.html"><span class="thumb" aria-hidden="true">'
            f'{thumbnail(app, facts["stem"])}</span><span class="words"><strong>{facts["number"]}. '
            f'{escape(facts["title"])}</strong><span>{escape(what)}</span><small>{escape(said)}</small></span></a></li>')


def claim(found):
    "The best fact, in a sentence"
    if not found: return ''
    said = (f'<strong>{found["accuracy"]:.1f}%</strong> of {found["images"]:,} held-out photographs right, trained '
            f'from scratch in <strong>{found["minutes"]:.1f} minutes</strong> on {COUNT[found["threads"]]} cores of a '
            f'processor: <strong>no GPU</strong>. (Mean of {COUNT[found["seeds"]]} seeds, sd {found["sd"]:.1f}.)')
    return f'<p class="fact"><a href="docs/results.html#record-{found["anchor"]}">{said}</a></p>'


def page(app):
    rows = list(chapters.FACTS.values())
    if not rows: return ''
    start = f'nbs/{rows[0]["stem"]}'
    play = '<a class="button" href="docs/play.html">Play with a net</a>' if 'docs/play' in app.env.found_docs else ''
    short = [r for r in rows if r['stem'][:2] in course_map.SHORT]
    bounds = [*PARTS.values(), 90]
    groups = [(name, [r for r in rows if low <= int(r['stem'][:2]) < high])
              for (name, low), high in zip(PARTS.items(), bounds[1:], strict=True)]
    cards = ''.join(f'<h3>{name}</h3><ul class="cards">{"".join(card(app, r) for r in group)}</ul>'
                    for name, group in groups if group)
    path = ''.join(f'<li><a href="nbs/{r["stem"]}.html">{r["number"]}. {escape(r["title"])}</a> '
                   f'<small>{r["reading"]} min</small></li>' for r in short)
    return f'''<div class="hero">
<p class="lead">Build a residual network with your own hands: a convolution, a layer, a block, a whole net. Train it on
your own computer, see what it looks at, and take it to your own photographs.</p>
{claim(best())}
<p class="ways"><a class="button first" href="{start}.html">Start</a>
<a class="button" href="{chapters.where(app, start)}">Open in Colab</a> {play}</p>
<figure>{stack()}
<figcaption>A ResNet-50, drawn from the net itself: 16 blocks, each with a way around it.</figcaption></figure>
</div>
<section id="chapters"><h2>Chapters</h2>{cards}</section>
<section id="one-evening"><h2>One evening</h2>
<p>Short of time? These {COUNT[len(short)]} chapters take {sum(r["reading"] for r in short)} minutes to read, and you
can run them as you go. <a href="docs/map.html">The way through</a> has times for all of them.</p>
<ol class="path">{path}</ol></section>'''


def dress(app, name, template, context, doctree):
    if PLACE not in context.get('body', ''): return
    context['body'] = context['body'].replace(PLACE, page(app))
    context['meta'] = {**(context['meta'] or {}), 'html_theme.sidebar_secondary.remove': True}


# What the first page and the page on installing show of index.ipynb, from which README.md is made

def sections(text):
    "Text before the first heading of the second level, and the sections by their headings"
    start,*others = re.split(r'^## (.*)$', text, flags=re.M)
    return start,dict(zip(others[::2], others[1::2], strict=True))


FOR = 'Who it is for'


def home(cells):
    "The first page's text: who the course is for, and why there is another one"
    start,parts = sections('\n\n'.join(''.join(c['source']) for c in cells if c['cell_type']=='markdown'))
    why = '\n\n'.join(part for part in start.split('\n\n') if re.match(r'[A-Z]', part))
    who = parts.get(FOR, '').strip()
    return '\n\n'.join([f'# {TITLE}', PLACE, *([f'## {FOR}', who, '## Why another course', why] if who else [])])


def install():
    "Everything else that README.md says, with links from the folder of the page"
    _,parts = sections((ROOT/'README.md').read_text())
    kept = {name: part.strip() for name, part in parts.items() if name not in (FOR, 'How to read it')}
    return '\n\n'.join(f'## {name}\n\n{part}' for name, part in kept.items()).replace('](nbs/', '](../nbs/')


def setup(app):
    app.connect('html-page-context', dress)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
