"Every notebook runs; every exercise's stub fails its check, its folded solution passes; claims come out as stored"
import re
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from conftest import ROOT, slow
from fastcore.nbio import read_nb, write_nb
from forked import FORKED
from nbdev import test as nbdev_test

from resnet_course.claims import CLAIMS, Claim

FLAGS = ['slow', 'cuda', 'notest']
FAST = {'90_exercise', '93_results', '94_what_we_checked', 'index'}  # for every day
NOTEBOOKS = [*sorted((ROOT/'nbs').glob('[!.]*.ipynb')), ROOT/'index.ipynb']
TRY = re.compile(r'^try_exercise\((\w+)\)$', re.M)
SOLUTION = re.compile(r'<summary>Solution</summary>\s*```python\n(.*?)```', re.S)
PROVE = '''
from fastcore.test import test_fail
test_fail({check})
{solution}
{check}()
'''


def solve(nb):
    "Put each folded solution in its place; give the number of exercises"
    n = 0
    for cell, following in zip(nb.cells, [*nb.cells[1:], None], strict=True):
        found = cell.cell_type == 'code' and 'default_exp' not in cell.source and TRY.search(cell.source)
        if not found or following is None or '<summary>Solution</summary>' not in following.source: continue
        solution = SOLUTION.search(following.source)[1]
        cell.source = TRY.sub('', cell.source) + PROVE.format(check=found[1], solution=solution)
        n += 1
    return n


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_no_cell_is_a_wall(path):
    "A chapter shows at most 25 lines at once; a cell that can't be cut is folded on the site"
    for cell in read_nb(path).cells:
        lines = cell.source.splitlines() if cell.cell_type == 'code' else []
        if '#| fold' in lines or '#| hide' in lines: continue
        n = sum(not line.startswith('#|') for line in lines)
        assert n <= 25, f"{cell.id} has {n} lines; cut it in two, or fold it (#| fold)"


def stored_claims(nb):
    "The claims in the outputs of the cells that this test runs"
    skipped = {f'#| {flag}' for flag in FLAGS}
    ran = (c for c in nb.cells if c.cell_type == 'code' and not skipped & set(c.source.splitlines()))
    return [o['data'][Claim.mime] for c in ran for o in c.get('outputs', []) if Claim.mime in o.get('data', {})]


def to_compare(record): return {k: v for k, v in record.items() if k in ('id', 'says') or not record['varies']}


def run_cells(file, folder):
    "Whether all cells pass, and the claims they made"
    threads = torch.get_num_threads()
    CLAIMS.clear()
    try: ok, _ = nbdev_test.test_nb(file, skip_flags=FLAGS, basepath=folder)
    finally: torch.set_num_threads(threads)  # a chapter that takes one thread takes it for itself
    return ok, [vars(c) for c in CLAIMS]


def run_apart(*args):
    "As `run_cells`, in a process of its own: a chapter's memory, its settings and its threads go with it"
    with ProcessPoolExecutor(1, mp_context=FORKED) as pool: return pool.submit(run_cells, *args).result()


@pytest.fixture
def beside(tmp_path):
    "The project again, made of links: a notebook that is written here is not written there"
    for f in ROOT.iterdir():
        if f.name not in ('nbs', '.git', '_build'): (tmp_path/f.name).symlink_to(f)
    (tmp_path/'nbs').mkdir()
    for f in (ROOT/'nbs').iterdir(): (tmp_path/'nbs'/f.name).symlink_to(f)
    return tmp_path


@pytest.mark.filterwarnings('ignore:unclosed file:ResourceWarning')  # a lesson opens an image in one line
@pytest.mark.parametrize('path', [p if p.stem in FAST else slow(p) for p in NOTEBOOKS], ids=lambda p: p.stem)
def test_notebook(path, beside):
    nb = read_nb(path)
    stored, exercises = stored_claims(nb), solve(nb)
    if path.parent.name == 'nbs' and path.stem < '90':
        assert exercises >= 2, f"{path.name} has {exercises} exercises with a folded solution; a chapter has two"
    solved = beside/path.relative_to(ROOT)
    solved.unlink()
    write_nb(nb, solved)
    ok, claims = (run_cells if path.stem in FAST else run_apart)(solved, solved.parent)
    assert ok
    assert [to_compare(c) for c in claims] == [to_compare(r) for r in stored], \
        "run the notebook again (tools/run_notebooks.py), then 94 and index.ipynb"
