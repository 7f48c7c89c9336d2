"What belongs to the site as a whole: its social card, the sitemap, tables that can be heard"
import itertools
import re
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

SITEMAP = '''<?xml version="1.0" encoding="utf-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
{}</urlset>
'''


def draw_card(path, title, tagline):
    "1200 x 630 pixels, as the networks want it: a net as a stack, narrower and taller from layer to layer"
    fig = Figure((12, 6.3), dpi=100, facecolor='#f7f5f0')
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 1200), ylim=(630, 0))
    ax.axis('off')
    y = 120
    for width, height, colour in ((300, 26, '#c9dde3'), (230, 40, '#94bcc8'), (160, 62, '#5f9bab'),
                                  (100, 92, '#2f7488'), (56, 120, '#12495a')):
        ax.add_patch(Rectangle((990-width/2, y), width, height, color=colour))
        y += height+14
    ax.text(80, 300, title, fontsize=54, color='#12343f', weight='bold', va='center')
    ax.text(80, 385, tagline.replace(': ', ':\n'), fontsize=21, color='#3c525a', va='top', linespacing=1.6)
    fig.savefig(path)


def lean(head):
    "What a page loads, without the theme's icons (style.css draws those that are shown) and the search's scripts"
    unused = 'fontawesome|searchtools|language_data|searchindex'
    return Markup(re.sub(rf'\s*<script[^>]*/?(?:{unused})\.js[^>]*></script>', '', head))


def settle(files, body):
    "Images keep their place until they come, and come when they are near; a page's first one comes at once"
    lazy = itertools.chain([''], itertools.repeat('loading="lazy" '))

    def placed(m):
        file = files.get(m['name'])
        if not file: return m[0]
        with Image.open(file) as im: width,height = im.size
        return f'<img width="{width}" height="{height}" decoding="async" {next(lazy)}{m[1]}'
    return re.sub(r'<img ([^>]*?src="[^":]*_images/(?P<name>[^"/]+)")', placed, body)


def label(body):
    "A wide table's cells say what they are, so that a phone can show each row as a list"
    def rows(m):
        heads = [re.sub('<.*?>', '', h).strip() for h in re.findall(r'<t[hd]\b[^>]*>(.*?)</t[hd]>', m['head'], re.S)]
        if len(heads) < 4 or '<tr' not in m['body']: return m[0]

        def cells(row):
            names = iter(heads)
            return re.sub(r'<td\b', lambda c: f'<td data-label="{next(names, "")}"', row[0])
        told = re.sub(r'<tr\b.*?</tr>', cells, m['body'], flags=re.S)
        return f'<table class="rows {m["kind"]}">{m["head"]}{told}</table>'
    table = r'<table class="(?P<kind>table[^"]*)">(?P<head>\s*<thead>.*?</thead>)(?P<body>.*?)</table>'
    return re.sub(table, rows, body, flags=re.S)


def speak(app, page, template, context, doctree):
    "A table's empty heads are no heads: who hears a table is told a name for each"
    body = re.sub(r'<th\b([^>]*)>((?:<p></p>|&nbsp;|\s)*)</th>', r'<td\1>\2</td>', context.get('body', ''))
    files = {name: Path(app.srcdir)/file for file, name in app.builder.images.items()}
    context.update(lean=lean, body=label(settle(files, body)))


def finish(app, exception):
    if exception or app.builder.name!='html': return
    out,config = Path(app.outdir),app.config
    for file in (out/'_static'/'scripts').glob('fontawesome*'): file.unlink()
    draw_card(out/'_static'/'card.png', config.project, config.tagline)
    pages = ''.join(f'<url><loc>{config.html_baseurl}{name}.html</loc></url>\n' for name in sorted(app.env.found_docs))
    (out/'sitemap.xml').write_text(SITEMAP.format(pages))


def setup(app):
    app.add_config_value('tagline', '', 'html')
    app.connect('html-page-context', speak)
    app.connect('build-finished', finish)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
