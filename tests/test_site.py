"The documentation site: built with warnings as errors, then looked at in a real browser, from disk and without a network"
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import torch
from conftest import ROOT

pytest.importorskip('sphinx_book_theme', reason="the site is built with Python 3.11 or newer")
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser here: install chromium (apt-get install chromium) or Google Chrome")
CHAPTERS = {f.stem: f for f in sorted((ROOT/'nbs').glob('[0-9]*.ipynb'))}
BASE = re.search(r'github.com/(.*)/(.*)', (ROOT/'settings.ini').read_text()).expand(r'https://\1.github.io/\2/')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')/'html'
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '-b', 'html', '-c', 'docs', '.', str(out)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode==0, built.stdout+built.stderr
    return out


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=['--no-sandbox', '--disable-gpu'])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={'width': 1366, 'height': 900}, color_scheme='light')
    yield context.new_page()
    context.close()


def pages(site): return sorted(f for f in site.rglob('*.html') if '_modules' not in f.parts) + [site/'_modules'/'resnet_course'/'layers.html']


class Page(HTMLParser):
    "Its ids, its links, and what it loads by itself"
    def __init__(self, file):
        super().__init__()
        self.ids,self.links,self.loads,self.images = set(),[],[],[]
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get('id'), attrs.get('name')}
        if tag=='a' and attrs.get('href'): self.links.append(attrs['href'])
        elif tag=='link' and attrs.get('rel')!='canonical': self.loads.append(attrs['href'])
        elif attrs.get('src'): self.loads.append(attrs['src'])
        if tag=='img': self.images.append(attrs)


@pytest.fixture(scope='module')
def parsed(site): return {f: Page(f) for f in site.rglob('*.html')}


def test_every_source_has_a_page(site):
    names = ['index', *(f'nbs/{s}' for s in CHAPTERS), 'docs/explorer', 'docs/results', '404', 'search',
             *(f'resnet_course/{f.stem}' for f in (ROOT/'resnet_course').glob('[a-z]*.py'))]
    assert not [n for n in names if not (site/f'{n}.html').exists()]
    sitemap = (site/'sitemap.xml').read_text()
    assert all(f'<loc>{BASE}nbs/{s}.html</loc>' in sitemap for s in CHAPTERS)


def test_links_and_anchors(site, parsed):
    faults = []
    for file, page in parsed.items():
        for link in page.links+page.loads:
            link = link.removeprefix(BASE)
            if re.match(r'https?:|mailto:|data:', link): continue
            path, anchor = urldefrag(unquote(link))
            target = (site if file.name=='404.html' else file.parent).joinpath(path.split('?')[0]).resolve() if path else file
            if not target.exists(): faults.append(f'{file.relative_to(site)}: no file {link}')
            elif anchor and target.suffix=='.html' and anchor not in parsed[target].ids: faults.append(f'{file.relative_to(site)}: no anchor {link}')
    assert not faults, '\n'.join(faults)


def test_nothing_comes_from_another_host(site, parsed):
    assert not {src for page in parsed.values() for src in page.loads if re.match(r'(https?:)?//', src)}
    assert not [f.name for f in site.rglob('*.css') if re.search(r'(url\(|@import )["\']?(https?:)?//', f.read_text())]


def test_pictures_have_a_description(parsed):
    assert not [(f.name, i['src']) for f, page in parsed.items() for i in page.images if 'alt' not in i or not i['alt'] and 'favicon' not in i['src']]


def test_a_chapter_leads_on_and_out(site):
    "Previous and next, Colab and download of the right notebook, what it teaches and how long it takes"
    stems = [s for s in CHAPTERS if s < '90']
    for before, stem, after in zip(stems, stems[1:], stems[2:]):
        html = (site/'nbs'/f'{stem}.html').read_text()
        assert re.search(rf'class="left-prev"\s+href="{before}.html"', html) and re.search(rf'class="right-next"\s+href="{after}.html"', html)
        assert f'blob/main/nbs/{stem}.ipynb' in html and f'_sources/nbs/{stem}.ipynb"' in html
        assert (site/'_sources'/'nbs'/f'{stem}.ipynb').read_bytes()==CHAPTERS[stem].read_bytes()


def test_names_lead_to_their_pages(site):
    layers,chapter = (site/'resnet_course'/'layers.html').read_text(),(site/'nbs'/'05_resblock.html').read_text()
    assert '../nbs/01_conv_layer.html#the-layer' in layers and 'Side of the input, pixels' in layers and '[source]' in layers
    assert 'href="../resnet_course/resblock.html#resnet_course.resblock.ResBlock"' in chapter


def test_results_show_every_record(site):
    html = (site/'docs'/'results.html').read_text()
    assert all(f'results/{f.name}' in html for f in (ROOT/'results').glob('*.json'))


@needs_browser
def test_every_page_in_the_browser(site, page):
    "No error, no failed request, none to elsewhere, and nothing wider than the window on a phone, a tablet and a desk"
    faults,where = [],''
    page.on('console', lambda m: faults.append(f'{where}: {m.text}') if m.type=='error' else None)
    page.on('pageerror', lambda e: faults.append(f'{where}: {e}'))
    page.on('requestfailed', lambda r: faults.append(f'{where}: {r.url} failed'))
    page.on('request', lambda r: None if r.url.startswith(('file:', 'data:')) else faults.append(f'{where}: asks for {r.url}'))
    for file in pages(site):
        where = file.relative_to(site)
        page.goto(file.as_uri())
        for width in (360, 768, 1366):
            page.set_viewport_size({'width': width, 'height': 900})
            wide = page.evaluate('document.documentElement.scrollWidth')
            if wide > width: faults.append(f'{where}: {wide} px wide in a window of {width}')
    assert not faults, '\n'.join(faults)


@needs_browser
def test_accessibility(site, page):
    "axe-core finds nothing serious, in light and, for colours, in dark"
    from axe_playwright_python.sync_playwright import Axe
    axe,faults = Axe(),[]
    for file in pages(site):
        page.goto(file.as_uri())
        for theme, options in ('light', {}), ('dark', {'runOnly': ['color-contrast']}):
            page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
            for v in axe.run(page, options={'resultTypes': ['violations'], **options}).response['violations']:
                if v['impact'] in ('serious', 'critical'): faults.append(f"{file.relative_to(site)}, {theme}: {v['id']}: {v['nodes'][0]['html'][:150]}")
    assert not faults, '\n'.join(faults)


def rare_word():
    "A word of the prose that one notebook has and no other has even the beginning of"
    words = {s: set(re.findall('[a-z]+', ' '.join(''.join(c['source']) for c in json.loads(f.read_text())['cells']).lower())) for s, f in CHAPTERS.items()}
    starts = Counter(start for ws in words.values() for start in {w[:5] for w in ws})
    prose = ' '.join(''.join(c['source']) for c in json.loads(CHAPTERS['05_resblock'].read_text())['cells'] if c['cell_type']=='markdown')
    return max((w for w in re.findall(r'\b[a-z]{8,}\b', prose) if starts[w[:5]]==1), key=len)


@needs_browser
def test_search(site, page):
    page.goto((site/'index.html').as_uri())
    page.keyboard.press('Control+k')
    page.keyboard.type(rare_word())
    page.keyboard.press('Enter')
    page.wait_for_selector('#search-results .search a')
    assert [a.split('?')[0].split('#')[0] for a in page.eval_on_selector_all('#search-results .search a', 'as => as.map(a => a.getAttribute("href"))')] == ['nbs/05_resblock.html']


@needs_browser
def test_dark_mode(site, page):
    page.goto((site/'index.html').as_uri())
    def colour(): return page.evaluate('getComputedStyle(document.body).backgroundColor')
    seen = {colour()}
    for _ in range(3):
        page.click('.theme-switch-button >> visible=true')
        seen.add(colour())
    assert len(seen)==2


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
    from resnet_course.resnet import create_model
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
    assert cells==[row['layer'], row['kind'], row['output'], f"{row['params']:,}", f"{row['MACs']:,}", f"{row['memory KB']:,.1f}"]


@needs_browser
def test_explorer_without_javascript(site, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site/'docs'/'explorer.html').as_uri())
    assert not page.locator('#explorer').is_visible()
    assert page.locator('table', has_text='25,576,264').is_visible()
    context.close()
