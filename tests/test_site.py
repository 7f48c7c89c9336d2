"The documentation site: built with warnings as errors, then looked at in a browser, from disk and without a network"
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from functools import partial
from html import escape
from html.parser import HTMLParser
from io import BytesIO
from statistics import mean, median
from urllib.parse import unquote, urldefrag

import pytest
import torch
from conftest import ROOT
from fastcore.nbio import mk_cell, new_nb, write_nb
from filelock import FileLock
from PIL import Image

pytest.importorskip('sphinx_book_theme', reason="the site is built with Python 3.11 or newer")
pytestmark = pytest.mark.slow
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser here: apt-get install chromium")
CHAPTERS = {f.stem: f for f in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))}
DOCS = ROOT/'docs'
BASE = re.search(r'github.com/(.*)/(.*)', (ROOT/'settings.ini').read_text()).expand(r'https://\1.github.io/\2/')


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "Built once, by the process that asks first"
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base)/'site'
    folder.mkdir(exist_ok=True)
    with FileLock(folder/'lock'):
        if not (said := folder/'said').exists():
            command = [sys.executable, '-m', 'sphinx', '-q', '-W', '-b', 'html', '-c', 'docs', '.', str(folder/'html')]
            built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            said.write_text(f'failed: {built.stdout}{built.stderr}' if built.returncode else '')
    assert not said.read_text(), said.read_text()
    return folder/'html'


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=['--no-sandbox', '--disable-gpu'])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    window = {'width': 1366, 'height': 900}
    context = browser.new_context(viewport=window, color_scheme='light', reduced_motion='reduce')
    yield context.new_page()
    context.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def all_pages(site): return sorted(f for f in site.rglob('*.html') if '_static' not in f.parts)


def pages(site):
    "To look at; one highlighted module stands for all"
    return [f for f in all_pages(site) if '_modules' not in f.parts or f.stem=='layers']


class Page(HTMLParser):
    "Its ids, its links, what it loads by itself, and what it says of itself"
    def __init__(self, file):
        super().__init__()
        self.ids,self.links,self.loads,self.images,self.metas = set(),[],[],[],{}
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get('id'), attrs.get('name')}
        if tag=='a' and attrs.get('href'): self.links.append(attrs['href'])
        elif tag=='link' and attrs.get('rel')!='canonical': self.loads.append(attrs['href'])
        elif attrs.get('src'): self.loads.append(attrs['src'])
        if tag=='img': self.images.append(attrs)
        if tag=='meta': self.metas[attrs.get('name') or attrs.get('property')] = attrs.get('content')


@pytest.fixture(scope='module')
def parsed(site): return {f: Page(f) for f in all_pages(site)}


def test_every_source_has_a_page(site):
    names = ['index', *(f'nbs/{s}' for s in CHAPTERS), '404', 'search', *(f'docs/{f.stem}' for f in DOCS.glob('*.md')),
             *(f'resnet_course/{f.stem}' for f in (ROOT/'resnet_course').glob('[a-z]*.py'))]
    assert not [n for n in names if not (site/f'{n}.html').exists()]
    sitemap = (site/'sitemap.xml').read_text()
    assert all(f'<loc>{BASE}nbs/{s}.html</loc>' in sitemap for s in CHAPTERS)


def test_a_missing_page_leads_back_from_any_address(parsed, site):
    "It is shown in place of whatever was asked for, so nothing in it hangs on where that was"
    page = parsed[site/'404.html']
    assert len(page.links) > 2 and not page.loads
    for link in page.links+page.loads:
        assert link.startswith(BASE) and (site/link.removeprefix(BASE)).exists(), link


@pytest.mark.parametrize('source, folded', [
    ('import torch\nfrom torch import nn', True), ('#| export\nimport torch', True), ('import torch\nx = 1', False),
    ('#| fig-alt: "Dots"\nfig,ax = plt.subplots()\nax.plot(x)', True), ('#| fig-alt: "Dots"\naxs[0].plot(x)', True),
    ('#| fig-alt: "A block"\ndraw_block(block, 64, 56)', False), ('#| export\ndef f(x): return x', False),
    ('#| export\n#| fold\nclass Long: pass', True), ('plot_curves(run.history);', False),
    ('!pip install x\nimport x', False)])
def test_what_is_folded(source, folded, monkeypatch):
    "Imports, and how a figure is drawn; never what the chapter teaches"
    monkeypatch.syspath_prepend(DOCS/'_ext')
    from sources import show
    cell = show({'cell_type': 'code', 'source': source, 'outputs': [], 'metadata': {}})
    assert ('hide-input' in cell['metadata']['tags']) is folded


@pytest.mark.parametrize('output, columns', [
    ({'text': 'conv1    (1, 64)\nbn1      (1, 64)\n'}, True), ({'text': ['name  x\n', 'a     1\n']}, True),
    ({'data': {'text/plain': 'size\n64    11.5\n96    18.4\nName: seconds'}}, False),
    ({'data': {'text/plain': 'side\n64    11.5\n96    18.4'}}, True), ({'text': 'one line  with a gap\n'}, False),
    ({'text': 'A sentence that may wrap.\nAnother one.\n'}, False),
    ({'data': {'text/plain': 'a  b\n1  2', 'text/html': '<table>'}}, False)])
def test_a_printed_table_does_not_wrap(output, columns, monkeypatch):
    monkeypatch.syspath_prepend(DOCS/'_ext')
    from sources import show
    cell = show({'cell_type': 'code', 'source': 'x', 'outputs': [output], 'metadata': {}})
    assert ('columns' in cell['metadata']['tags']) is columns


def test_words_of_the_glossary(site):
    "Linked once a chapter, in running text; each word of the list is said in some chapter"
    anchors, said = re.findall(r'<section id="([\w-]+)">\s*<h3', (site/'docs'/'glossary.html').read_text()), set()
    for stem in CHAPTERS:
        article = re.search('<article.*</article>', (site/'nbs'/f'{stem}.html').read_text(), re.S)[0]
        links = re.findall(r'href="../docs/glossary.html#([\w-]+)"', article)
        assert len(links) == len(set(links)) and set(links) <= set(anchors), stem
        said |= set(links)
        inside = '|'.join(re.findall(r'<(?:code|h[1-6]|pre)\b.*?</(?:code|h[1-6]|pre)>', article, re.S))
        assert 'glossary.html' not in inside, stem
    assert len(anchors) > 40 and said == set(anchors), set(anchors) - said


def test_the_way_through(monkeypatch):
    "Every chapter has its minutes, and uses earlier ones only"
    monkeypatch.syspath_prepend(DOCS/'_ext')
    import course_map
    rows = [course_map.facts(f) for f in course_map.FILES]
    assert [r['stem'] for r in rows] == [s for s in sorted(CHAPTERS) if s < '90']
    for r in rows:
        assert 5 <= r['reading'] <= 60 and r['exercises'] >= 5 and re.search(' s$|min', r['running']), r
        order = [row['number'] for row in rows]
        assert all(order.index(n) < order.index(r['number']) for n in r['needs'].split(', ') if n != '–'), r
    assert all(f"[{r['title']}](../nbs/{r['stem']}.ipynb)" in course_map.page() for r in rows)


def test_links_and_anchors(site, parsed):
    faults = []
    for file, page in parsed.items():
        for link in (link.removeprefix(BASE) for link in page.links+page.loads):
            if re.match(r'https?:|mailto:|data:', link): continue
            path, anchor = urldefrag(unquote(link))
            target = (file.parent/path.split('?')[0]).resolve() if path else file
            if not target.exists(): faults.append(f'{file.relative_to(site)}: no file {link}')
            elif anchor and target.suffix=='.html' and anchor not in parsed[target].ids:
                faults.append(f'{file.relative_to(site)}: no anchor {link}')
    assert not faults, '\n'.join(faults)


def test_nothing_comes_from_another_host(site, parsed):
    assert not {src for page in parsed.values() for src in page.loads if re.match(r'(https?:)?//', src)}
    assert not [f.name for f in site.rglob('*.css') if re.search(r'(url\(|@import )["\']?(https?:)?//', f.read_text())]


def test_pictures_have_a_description(parsed):
    "And their size, so that nothing moves when they come, which all but a page's first do when they are near"
    pictures = [(f.name, i) for f, page in parsed.items() for i in page.images if 'favicon' not in i['src']]
    shown = [(name, i) for name, i in pictures if 'thumb-' not in i['src']]  # a card says in words what it leads to
    assert shown and not [(name, i['src']) for name, i in shown if not i.get('alt')]
    sized = [(name, i) for name, i in pictures if '_images/' in i['src']]
    assert not [(name, i['src']) for name, i in sized if not (i.get('width') and i.get('height'))]
    assert all(i.get('loading')=='lazy' for page in parsed.values()
               for i in [i for i in page.images if '_images/' in i['src']][1:])


def test_pages_are_light(parsed, site):
    "Scripts under 300 kB, all that comes by itself under 1.5 MB, the search's own data aside; each icon is drawn"
    def size(file, src): return (file.parent/src.split('?')[0]).resolve().stat().st_size
    for file, page in parsed.items():
        later = {i['src'] for i in page.images if i.get('loading')=='lazy'}
        loads = {src: size(file, src) for src in set(page.loads)-later
                 if re.match(r'(?!https?:|data:).*\.(js|css|svg|png|jpe?g)(\?|$)', src)
                 and not src.endswith(('searchindex.js', 'said.js'))}
        scripts = sum(n for src, n in loads.items() if '.js' in src and '-net.js' not in src)  # weights are data
        assert scripts < 300_000 and file.stat().st_size+sum(loads.values()) < 1_500_000, (file, loads)
        if file.name!='search.html': assert not [src for src in page.loads if 'searchindex' in src]
    drawn = set(re.findall(r'^\.(fa-[\w-]+) \{ --icon', (site/'_static'/'icons.css').read_text(), re.M))
    used = {re.search(r'fa-(?!solid|lg|fw|brands)[\w-]+', icon)[0] for file in parsed
            for icon in re.findall(r'<(?:i|span) class="([^"]*\bfa[sb]?[ -][^"]*)"', file.read_text())}
    assert len(used) > 8 and used <= drawn, used-drawn


def test_the_first_page(site, parsed):
    "What you will be able to do, the best recorded fact, three ways in, a drawing, a card for each chapter, no pip"
    html = re.search('<article.*</article>', (site/'index.html').read_text(), re.S)[0]
    laptop = json.loads((ROOT/'results'/'laptop.json').read_text())['runs']
    accuracy = 100*mean(run['history'][-1]['accuracy'] for run in laptop)
    said = float(re.search(r'class="fact">.*?<strong>([\d.]+)%</strong>', html)[1])
    assert said >= round(accuracy, 1)  # or a better record
    assert 'no GPU' in html and 'pip install' not in html
    links = parsed[site/'index.html'].links
    assert ('docs/play.html' in links) is (DOCS/'play.md').exists()
    assert 'class="button first" href="nbs/00_data.html"' in html and '/blob/main/nbs/00_data.ipynb' in html
    hero = re.search('<figure><svg.*?</svg>', html, re.S)[0]
    assert hero.count('class="shortcut-way"')==16
    assert all(f'class="{role}"' in hero for role in ('conv', 'data', 'norm'))
    cards = re.findall(r'<a class="lesson" href="nbs/(\w+).html">(.*?)</a>', html, re.S)
    assert [stem for stem, _ in cards]==[s for s in CHAPTERS if s < '90']
    for stem, card in cards: assert re.search(r'<(svg|img).*\d+ min .*(uses \d|stands alone)', card, re.S), stem
    install = re.sub('<.*?>', '', (site/'docs'/'install.html').read_text())
    assert all(words in install for words in ('pip install -e .', 'What a run survives', 'Tested with'))


def test_what_stands_under_a_title(site):
    for stem in CHAPTERS:
        html = (site/'nbs'/f'{stem}.html').read_text()
        under = r'</h1>\s*<blockquote>(?:(?!<section).)*</blockquote><div class="chapter-bar">(.*?)</div>'
        bar = re.search(under, html, re.S)[1]
        assert f'/blob/main/nbs/{stem}.ipynb">Open in Colab' in bar and f'_sources/nbs/{stem}.ipynb" download' in bar
        assert 'rel="prev"' in bar and 'rel="next"' in bar
        number = stem.split('_')[0].lstrip('0') or '0'
        if stem < '90': assert re.search(rf'Chapter {number} · \d+ min to read', bar) and f'<h1>{number}. ' in html


@pytest.mark.parametrize('text, numbers', [
    ('as in chapter 5, and again', ['05']), ('Chapters 5, 6 and 8 need it', ['05', '06', '08']),
    ("the book's chapter 14", []), ('(Howard and Gugger, 2020, chapter 5 for presizing, chapter 7)', []),
    (', chapter 14', []), ('chapter 7 (this one)', []), ('chapter 88', [])])
def test_chapters_are_linked(text, numbers, monkeypatch):
    "Wherever one is named; not a book's, not the one it stands in"
    monkeypatch.syspath_prepend(DOCS/'_ext')
    import chapters
    parts = list(chapters.linked(text, '07_resnet', lambda name: name))
    assert ''.join(part.astext() for part in parts)==text
    assert [part['refuri'][4:6] for part in parts if part.tagname=='reference']==numbers


def test_the_nets_are_counted_once(site, monkeypatch):
    "Half of a build: kept until a file that they are made from, or torch, is another"
    monkeypatch.syspath_prepend(DOCS/'_ext')
    import explorer
    def again(*args): raise RuntimeError('counted again')
    monkeypatch.setattr(explorer, 'ProcessPoolExecutor', again)
    assert explorer.nets()['resnet18']['layers']
    used = {f.stem for f in explorer.sources('models', 'cost', 'resblock')}
    assert {'resnet', 'relatives', 'layers', 'explorer'} <= used and 'cli' not in used
    monkeypatch.setattr(explorer, 'version', lambda name: '0')
    with pytest.raises(RuntimeError, match='again'): explorer.nets()


def test_a_chapter_leads_on_and_out(site):
    "Previous and next, Colab and download of the right notebook, what it teaches and how long it takes"
    stems = [s for s in CHAPTERS if s < '90']
    for before, stem, after in zip(stems[:-2], stems[1:-1], stems[2:], strict=True):
        html = (site/'nbs'/f'{stem}.html').read_text()
        assert re.search(rf'class="left-prev"\s+href="{before}.html"', html)
        assert re.search(rf'class="right-next"\s+href="{after}.html"', html)
        assert f'blob/main/nbs/{stem}.ipynb' in html and f'_sources/nbs/{stem}.ipynb"' in html
        assert (site/'_sources'/'nbs'/f'{stem}.ipynb').read_bytes()==CHAPTERS[stem].read_bytes()


def test_names_lead_to_their_pages(site):
    layers,chapter = (site/'resnet_course'/'layers.html').read_text(),(site/'nbs'/'05_resblock.html').read_text()
    assert all(s in layers for s in ('../nbs/01_conv_layer.html#the-layer', 'Side of the input, pixels', '[source]'))
    assert 'href="../resnet_course/resblock.html#resnet_course.resblock.ResBlock"' in chapter


def test_each_page_says_what_it_is_about(site, parsed):
    "To a search engine and, in the same words, to a network that shows a link to it, with a picture that exists"
    for file, page in parsed.items():
        name,said = file.relative_to(site).as_posix(),page.metas
        if name.split('/')[0] not in ('index.html', 'nbs', 'docs', 'resnet_course'): continue
        assert said.get('description') and said['description']==said.get('og:description'), name
        assert said['og:url']==BASE+name and (site/said['og:image'].removeprefix(BASE)).exists(), name


COURSE = [  # the cells of its one notebook, which exports three modules
    '# Fast\n\n> Three modules, one notebook',
    '#| default_exp fast',
    '#| export claims\n#| doc: What the site asks for\nclass Claim: mime = "text/x-claim"',
    '#| export store\n#| doc: Where images are kept\nfrom dataclasses import dataclass',
    """#| export store
@dataclass(frozen=True)
class Store:
    "What is kept"
    where:str # Its folder
    # Pixels of a side,
    # once cropped
    size:int=64""",
    """#| export store
def keep(
    n:int, # How many
    *more:int, # How many besides
) -> int: # All of them
    "Keep them"
    return n+sum(more)""",
    '#| export store\nLIMITS:dict = {"images": 3}',
    '## The loader',
    '#| export\nfrom resnet_course.store import Store, keep\n_all_ = ["Store", "keep"]',
    '#| export\ndef load(): return keep(1)',
    '| n | exports |\n| --- | --- |\n| 1 | `fast`, `store` |\n| 2 | like `claims` |']


def test_a_notebook_of_three_modules(tmp_path):
    "Each has a page, knows the others, shows fields and parameters, and says what it only passes on"
    package,docs = tmp_path/'resnet_course',tmp_path/'docs'
    for name in ('pyproject.toml', 'settings.ini'): shutil.copy(ROOT/name, tmp_path)
    shutil.copytree(ROOT/'docs', docs)
    for name in ('explorer', 'course_map'):
        (docs/'_ext'/f'{name}.py').write_text(
            'FILES = []\ndef number(stem): return stem[:2]\ndef page(): return "No nets here"')
    for page in docs.glob('*.md'): page.write_text(f'# {page.stem}')
    package.mkdir()
    for name in ('__init__', '_nbdev'): shutil.copy(ROOT/'resnet_course'/f'{name}.py', package)
    cells = [mk_cell(text, 'code' if text[:2]=='#|' else 'markdown', id=f'c{i}') for i, text in enumerate(COURSE)]
    kernel = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    (tmp_path/'nbs').mkdir()
    write_nb(new_nb(cells, kernel), tmp_path/'nbs'/'12_fast.ipynb')
    write_nb(new_nb(cells[:1], kernel), tmp_path/'index.ipynb')
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    for words in (['-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()'],
                  ['-m', 'sphinx', '-q', '-W', '-b', 'html', '-c', 'docs', '.', 'site']):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
        assert done.returncode==0, done.stdout+done.stderr

    def article(name): return re.search('<article.*</article>', (tmp_path/'site'/f'{name}.html').read_text(), re.S)[0]
    fast,store,chapter = map(article, ('resnet_course/fast', 'resnet_course/store', 'nbs/12_fast'))
    said = ' '.join(re.sub('<.*?>', '', store).split())
    for words in ('From the same notebook, chapter 12: claims, fast.', 'where – Its folder', 'LIMITS', 'n – How many',
                  'size – Pixels of a side, once cropped', 'more – How many besides', 'All of them', 'in chapter 12'):
        assert words in said
    home = 'resnet_course.store.keep'
    assert all(f'href="{link}"' in fast for link in ('claims.html', 'store.html', f'store.html#{home}'))
    assert 'href="fast.html"' in store and f'id="{home}"' in store and 'id="resnet_course.fast.keep"' not in fast
    assert chapter.count('tag_export')==7
    linked = {name for name in ('fast', 'store', 'claims') if f'href="../resnet_course/{name}.html"' in chapter}
    assert linked=={'fast', 'store'}


def test_results_show_every_record(site):
    "In a table; in the chart and among the curves if it was a training; notes are folded"
    html = (site/'docs'/'results.html').read_text()
    curves = json.loads(re.search(r'id="curves-data" type="application/json">(.*?)</script>', html, re.S)[1])
    chart = re.search('<figure class="records.*?</figure>', html, re.S)[0]
    for file in (ROOT/'results').rglob('*.json'):
        assert file.relative_to(ROOT).as_posix() in html
        record = json.loads(file.read_text())
        trained = {run.get('variant', '') for run in record['runs'] if 'accuracy' in (run.get('history') or [{}])[-1]}
        assert len([c for c in curves if c['record']==record['name']])==len(trained), file
        if record['note']: assert f'<dt>Note</dt><dd>{escape(record["note"])}</dd>' in html
    assert chart.count('<svg')==2 and chart.count('<circle') > 60


KINDS = 'nbs', 'docs', 'resnet_course'  # folders of pages
COLOURS = ['color-contrast', 'link-in-text-block']  # axe's rules that look at each text or link on its ground
LOOKS = """known => {  // mark an element of each look of text that is not known: its colours, its size, its weight
  const looks = new Set(known), own = node => node.nodeType == Node.TEXT_NODE && node.data.trim()
  const seen = new Map()  // the colours behind an element: its own, and those behind its parent
  const grounds = e => {
    if (e && !seen.has(e)) seen.set(e, getComputedStyle(e).backgroundColor + grounds(e.parentElement))
    return e ? seen.get(e) : ''
  }
  for (const e of document.body.querySelectorAll('*')) {
    if (!e.checkVisibility() || ![...e.childNodes].some(own)) continue
    const {color, fontSize, fontWeight, opacity, textDecorationLine} = getComputedStyle(e)
    const around = e.closest('a') ? getComputedStyle(e.closest('a').parentElement).color : ''  // a link's
    const look = [color, fontSize, fontWeight, opacity, textDecorationLine, around,
                  grounds(e).replaceAll('rgba(0, 0, 0, 0)', '')].join()
    if (!looks.has(look)) e.setAttribute('data-look', '')
    looks.add(look)
  }
  return [...looks]
}"""
THEME = 'theme => document.documentElement.dataset.theme = theme'
AXE = '([context, options]) => axe.run(context || document, options).then(found => found.violations)'
READS = """() => {  // how a page reads on a desk: small or cut code, figures out of shape, the letters of a line
  const small = [], lines = [0, 0]
  for (const e of document.querySelectorAll('article pre')) {
    if (!e.checkVisibility()) continue
    if (parseFloat(getComputedStyle(e).fontSize) < 14) small.push('small: ' + e.textContent.slice(0, 60))
    if (e.scrollWidth > e.clientWidth + 1) small.push('cut off: ' + e.textContent.slice(0, 60))
  }
  for (const e of document.querySelectorAll('article img'))
    if (e.complete && e.naturalWidth && getComputedStyle(e).objectFit == 'fill'
        && Math.abs(e.clientWidth * e.naturalHeight / e.clientHeight / e.naturalWidth - 1) > .03)
      small.push('out of shape: ' + e.src.slice(-60))
  for (const e of document.querySelectorAll('article section > p')) {
    const n = Math.round(e.clientHeight / parseFloat(getComputedStyle(e).lineHeight))
    if (n > 3) { lines[0] += e.textContent.length; lines[1] += n - .5 }  // the last line ends somewhere
  }
  return [small, lines]
}"""
MOVES = """window.moved = [0]; new PerformanceObserver(list => list.getEntries().forEach(e => {
  moved[0] += e.value
  moved.push(...e.sources.map(s => s.node?.className || s.node?.textContent.slice(0, 60)))
})).observe({type: 'layout-shift', buffered: true})"""
CUT = """() => [...document.querySelectorAll('article :is(.scroll, .pst-scrollable-table-container):has(table.rows)')]
  .filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 60))"""
PLAIN = """marked => {  // code without the thousands of words that make its colours, of which all has been said
  for (const pre of document.querySelectorAll('.highlight pre'))
    if (marked || !pre.querySelector('[data-look]')) pre.textContent = pre.textContent
}"""


WIDEST = "Math.max(0, ...[...document.querySelectorAll('article table')].map(table => table.scrollWidth))"


@needs_browser
@pytest.mark.parametrize('kind', [*KINDS, 'others'])
def test_every_page_in_the_browser(site, page, kind, request):
    """No error, no failed request, none to elsewhere, nothing that moves while it loads, nothing wider than the window
    on a phone, a tablet and a desk, nor a wide table on a phone; code in full, prose in lines that can be read;
    axe-core finds nothing, nor, in light and dark, any look of text with too little contrast"""
    from axe_playwright_python.sync_playwright import Axe
    axe,faults,where,known = Axe().axe_script,[],'',[]
    page.on('console', lambda m: faults.append(f'{where}: {m.text}') if m.type=='error' else None)
    page.on('pageerror', lambda e: faults.append(f'{where}: {e}'))
    page.on('requestfailed', lambda r: faults.append(f'{where}: {r.url} failed'))
    def asked(r):
        if not r.url.startswith(('file:', 'data:')): faults.append(f'{where}: asks for {r.url}')
        if '.woff' in r.url: faults.append(f'{where}: fetches a font that nothing here is set in, {r.url}')

    def check(context=None, **options):
        options = {'resultTypes': ['violations'], 'preload': False, **options}
        for v in page.evaluate(AXE, [context, options]):
            faults.append(f"{where}: {v['id']}: {v['nodes'][0]['html'][:150]}")

    page.on('request', asked)
    page.add_init_script(MOVES)
    letters,lines = 0,0
    every = 1 if request.config.getoption('--fuzz') else {'nbs': 3, 'resnet_course': 5}.get(kind, 1)  # axe takes long
    def kind_of(file): return parts[0] if (parts := file.relative_to(site).parts)[0] in KINDS else 'others'
    for i, file in enumerate(f for f in pages(site) if kind_of(f) == kind):
        where = file.relative_to(site)
        page.goto(file.as_uri())
        moved,*what = page.evaluate('moved')
        if moved > .1: faults.append(f'{where}: moves by {moved:.2f} while it loads: {what}')
        for width in (320, 360, 768, *[1920]*(not i), 1366):
            page.set_viewport_size({'width': width, 'height': 900})
            wide = page.evaluate('document.documentElement.scrollWidth')
            if wide > width: faults.append(f'{where}: {wide} px wide in a window of {width}')
            if width==360: faults += [f'{where}: a table that must be scrolled: {t}' for t in page.evaluate(CUT)]
        widest = page.evaluate(WIDEST)
        if widest>1366: faults.append(f'{where}: a table of {widest} px, wider than a desk')
        found,(n, rows) = page.evaluate(READS)
        faults += [f'{where}: {fault}' for fault in found]
        letters,lines = letters+n,lines+rows
        if i%every: continue
        page.evaluate(axe)
        for theme in ('dark', 'light'):
            page.evaluate(THEME, theme)
            known = page.evaluate(LOOKS, known)
        page.evaluate(PLAIN, False)
        if page.query_selector('[data-look]'):
            for theme in ('dark', 'light'):
                page.evaluate(THEME, theme)
                check('[data-look]', runOnly=COLOURS)
        page.evaluate(PLAIN, True)
        check(rules={rule: {'enabled': False} for rule in COLOURS})
    if kind=='nbs' and not 65 <= letters/lines <= 75: faults.append(f'{letters/lines:.0f} letters in a line of prose')
    assert not faults, '\n'.join(faults)


def rare_word():
    "A word of the prose that one notebook has and no other page has even the beginning of, and which"
    def text(stem, *kinds):
        cells = json.loads(CHAPTERS[stem].read_text())['cells']
        return ' '.join(''.join(c['source']) for c in cells if c['cell_type'] in kinds)

    pages = [*(text(s, 'code', 'markdown') for s in CHAPTERS), *(f.read_text() for f in DOCS.glob('*.md'))]
    words = [set(re.findall('[a-z]+', page.lower())) for page in pages]
    starts = Counter(start for ws in words for start in {w[:5] for w in ws})
    found = ((w, stem) for stem in CHAPTERS for w in re.findall(r'\b[a-z]{8,}\b', text(stem, 'markdown')))
    return max((pair for pair in found if starts[pair[0][:5]]==1), key=lambda pair: len(pair[0]))


@needs_browser
def test_search(site, page):
    word, stem = rare_word()
    page.goto((site/'index.html').as_uri())
    page.keyboard.press('Control+k')
    page.keyboard.type(word)
    page.keyboard.press('Enter')
    page.wait_for_selector('#search-results .search a')
    links = page.eval_on_selector_all('#search-results .search a', 'links => links.map(a => a.getAttribute("href"))')
    assert {re.split('[?#]', link)[0] for link in links}=={f'nbs/{stem}.html'}


QUERIES = [  # what people type, and the page that is to come first
    ('skip connection', 'nbs/05_resblock'), ('bottleneck', 'nbs/06_bottleneck'), ('label smoothing', 'docs/results'),
    ('fit_one_cycle', 'nbs/08_training'), ('transfer learning', 'nbs/18_reuse'), ('grad-cam', 'nbs/20_look_inside'),
    ('my own photos', 'nbs/19_your_photographs'), ('overfitting', 'nbs/15_clinic'), ('ONNX', 'nbs/21_ship_it'),
    ('receptive field', 'nbs/07_resnet'), ('install', 'docs/install'),
    ('progressive resizing', 'nbs/09_progressive_resizing')]


@needs_browser
def test_search_finds_what_people_type(site, page):
    "From a disk: the order; from a server: excerpts as well, which quote the text and no menu"
    def links():
        page.wait_for_selector('#search-results .search-summary:has-text("found")')
        return page.eval_on_selector_all('#search-results .search a', 'all => all.map(a => a.getAttribute("href"))')

    faults = []
    for query, first in QUERIES:
        page.goto(f'{(site/"search.html").as_uri()}?q={query}')
        found = [re.split(r'\.html', link)[0] for link in links()]
        if found[:1]!=[first]: faults.append((query, found[:4]))
    assert not faults
    assert 'titles alone' in page.inner_text('main')
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f'http://127.0.0.1:{server.server_port}/search.html?q=skip+connection')
        page.wait_for_selector('#search-results p.context:has-text("skip")')  # they come one after the other
        excerpts = page.locator('#search-results p.context').all_inner_texts()
        server.shutdown()
    assert any('skip' in text.lower() for text in excerpts)
    assert not [text for text in excerpts if re.search('Open in Colab|Contents|min to read|Print to PDF', text)]


@needs_browser
def test_curves_are_compared(site, page):
    "By epoch and by second, from the keyboard, and in words"
    page.goto((site/'docs'/'results.html').as_uri())
    runs = json.loads((ROOT/'results'/'bench'/'laptop-first.json').read_text())['runs']
    last = [100*run['history'][-1]['accuracy'] for run in runs]
    seconds = median(sum(e['seconds'] for e in run['history']) for run in runs)
    said = f'{mean(last):.1f}% (seeds {min(last):.1f} to {max(last):.1f}) after '
    assert f'The laptop recipe as it was first: {said}{seconds:.0f} s' in page.inner_text('#curves ul')
    page.get_by_role('combobox', name='By').focus()
    page.keyboard.press('ArrowDown')
    assert f'{said}25 epochs' in page.inner_text('#curves ul')
    assert page.locator('#curves path.band').count()==3
    for n in (1, 2): page.get_by_label(f'Training {n}').select_option('none')
    page.get_by_label('Measure').select_option('training loss')
    assert page.locator('#curves path.band').count()==1 and '%' not in page.inner_text('#curves ul')


@needs_browser
def test_dark_mode(site, page):
    page.goto((site/'index.html').as_uri())
    def colour(): return page.evaluate('getComputedStyle(document.body).backgroundColor')
    light = colour()
    page.click('.theme-switch-button')
    page.click('.dropdown-menu [data-mode=dark]')
    page.wait_for_function(f"getComputedStyle(document.body).backgroundColor != '{light}'")
    page.goto((site/'nbs'/'05_resblock.html').as_uri())
    assert colour()!=light


@needs_browser
def test_figures_in_the_dark(site, page):
    "A plot's white is the page's colour; a photograph is dimmer; a drawing has its own colours; print is as it was"
    def looks():
        return {kind: set(page.eval_on_selector_all(
            f'article {kind}', 'all => all.map(o => getComputedStyle(o)).map(o => `${o.filter}, ${o.padding} around`)'))
            for kind in ('img.plot', 'img.photo', 'svg.drawing')}

    page.goto((site/'nbs'/'01_conv_layer.html').as_uri())
    plain = looks()
    assert all(found == {'none, 0px around'} for found in plain.values())
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert looks() == {'img.plot': {'invert(1) hue-rotate(180deg), 0px around'},
                       'img.photo': {'brightness(0.9), 0px around'}, 'svg.drawing': {'none, 0px around'}}
    shot = Image.open(BytesIO(page.locator('img.plot').first.screenshot())).convert('RGB')
    around = re.findall(r'\d+', page.evaluate('getComputedStyle(document.body).backgroundColor'))
    assert all(abs(here-int(there)) <= 1 for here, there in zip(shot.getpixel((9, 9)), around, strict=True)), around
    page.emulate_media(media='print')
    assert looks() == plain


@needs_browser
def test_answers_unfold(site, page):
    page.goto((site/'nbs'/'05_resblock.html').as_uri())
    for answer in page.locator('article details').all():
        assert not answer.locator(':scope > :not(summary)').first.is_visible()
        answer.locator('summary').click()
        assert answer.locator(':scope > :not(summary)').first.is_visible()


@needs_browser
@pytest.mark.parametrize('net,size,width', [('resnet50', 224, 64), ('resnet18', 97, 32), ('mobilenet_v2', 64, None)])
def test_explorer(site, page, net, size, width):
    from resnet_course.cost import cost_table
    from resnet_course.models import create_model
    page.goto((site/'docs'/'explorer.html').as_uri())
    page.get_by_label('Net').select_option(net)
    page.get_by_label('Image').select_option(str(size))
    if width: page.get_by_label('Width').select_option(str(width))
    with torch.device('meta'): table = cost_table(create_model(net, **({'width': width} if width else {})), size)
    total = table.iloc[-1]
    shown = [page.inner_text(f'#total-{what}') for what in ('params', 'macs', 'memory')]
    assert shown==[f"{total['params']:,}", f"{total['MACs']:,}", f"{total['memory KB']:,.1f}"]
    page.locator('ol.stack summary').first.focus()
    page.keyboard.press('Enter')
    cells = page.locator('ol.stack details[open] tbody tr').first.locator('td').all_inner_texts()
    row = table.iloc[0]
    numbers = f"{row['params']:,}", f"{row['MACs']:,}", f"{row['memory KB']:,.1f}"
    assert cells==[row['layer'], row['kind'], row['output'], *numbers]


@needs_browser
@pytest.mark.parametrize('address', ['#%', '#net=%E0%A4%A', '#net=vgg', '#size=0'])
def test_explorer_with_an_address_that_means_nothing(site, page, address):
    "It says so, and shows a net all the same"
    faults = []
    page.on('pageerror', lambda e: faults.append(str(e)))
    page.goto((site/'docs'/'explorer.html').as_uri()+address)
    page.wait_for_selector('#total-params')
    assert not faults and 'the usual instead' in page.inner_text('#explorer')


@needs_browser
def test_explorer_without_javascript(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site/'docs'/'explorer.html').as_uri())
    assert page.locator('#explorer select').count() == 0 and page.locator('#explorer p').is_visible()
    assert page.locator('table', has_text='25,576,264').is_visible()
    context.close()
