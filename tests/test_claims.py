"The page What we checked says what the notebooks' stored claims say, leaves none out, and its links lead somewhere"
import re

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

from resnet_course.claims import SOURCES, read_claims

PAGE = ROOT/'nbs'/'94_what_we_checked.ipynb'
IDS = [id for ids in SOURCES.values() for id in ids.split()]
CLAIMS = read_claims(ROOT/'nbs')


def texts(nb):
    data = [o.get('data', {}) for c in nb.cells for o in c.get('outputs', [])]
    return [d['text/markdown'] for d in data if 'text/markdown' in d]


@pytest.fixture(scope='module')
def page(): return texts(nbformat.read(PAGE, 4))


@pytest.mark.slow
def test_page_is_made_from_the_claims_of_today(page):
    nb = nbformat.read(PAGE, 4)
    NotebookClient(nb, kernel_name='python3', resources={'metadata': {'path': PAGE.parent}}).execute()
    assert texts(nb) == page, "the page is stale; run: python tools/run_notebooks.py nbs/94_what_we_checked.ipynb"


def test_each_id_has_its_rows_or_is_open(page):
    assert len(IDS) == len(set(IDS)) and set(CLAIMS['id']) <= set(IDS)
    _, table, _, still_open = page
    rows = [line.split(' | ') for line in table.splitlines() if re.match(r'\| [A-Z]\d+ \|', line)]
    for id in IDS:
        verdicts = [r[3].strip('*') for r in rows if r[0] == f'| {id}']
        assert verdicts == (list(CLAIMS['verdict'][CLAIMS['id'] == id]) or ['open']), id
        assert (f'- **{id}**,' in still_open) == ('open' in verdicts), id


def headings(file):
    "Addresses of all headings of a notebook, as GitHub makes them"
    text = '\n'.join(c.source for c in nbformat.read(file, 4).cells if c.cell_type == 'markdown')
    titles = re.findall(r'^#+ (.*)', re.sub(r'^```.*?^```', '', text, flags=re.M | re.S), re.M)
    return [''.join(ch for ch in t.lower().replace(' ', '-') if ch.isalnum() or ch in '-_') for t in titles]


def test_each_link_leads_to_one_heading(page):
    links = set(re.findall(r'\]\(([^)#]+)#([^)]+)\)', '\n'.join(page)))
    assert len(links) == len(set(CLAIMS['link']))
    for notebook, heading in links: assert headings(ROOT/'nbs'/notebook).count(heading) == 1, f'{notebook}#{heading}'


def test_what_does_not_hold_has_a_note():
    silent = CLAIMS[(CLAIMS['verdict'] == 'does not hold') & (CLAIMS['note'] == '')]
    assert silent.empty, f"say why in one sentence: {silent['id'].tolist()}"
