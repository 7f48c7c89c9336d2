"Every notebook runs top to bottom; every exercise's stub fails its check and its folded solution passes"
import re

import pytest
from conftest import ROOT
from fastcore.nbio import read_nb, write_nb
from nbdev import test as nbdev_test

NOTEBOOKS = [*sorted((ROOT/'nbs').glob('*.ipynb')), ROOT/'index.ipynb']
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
    for cell, following in zip(nb.cells, nb.cells[1:]+[None]):
        found = cell.cell_type == 'code' and 'default_exp' not in cell.source and TRY.search(cell.source)
        if not found or following is None or '<summary>Solution</summary>' not in following.source: continue
        cell.source = TRY.sub('', cell.source) + PROVE.format(check=found[1], solution=SOLUTION.search(following.source)[1])
        n += 1
    return n


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    nb = read_nb(path)
    exercises = solve(nb)
    if path.parent.name == 'nbs' and path.stem < '90': assert exercises >= 2, f"{path.name} has {exercises} exercises with a folded solution; a chapter has two or more"
    solved = path.with_name(f'.solved-{path.name}')
    write_nb(nb, solved)
    try:
        ok, _ = nbdev_test.test_nb(solved, skip_flags=['slow', 'cuda', 'notest'], basepath=path.parent)
    finally: solved.unlink()
    assert ok
