"How tools/run_notebooks.py stores the figures of a notebook: sharp, small, and legible on a telephone"
import ast
import shutil
import subprocess
import sys
from base64 import b64decode, b64encode
from io import BytesIO

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

PLOT = '#| fig-alt: "A line"\nimport matplotlib.pyplot as plt\nplt.figure(figsize=(3,2))\nplt.plot([1,2,4]);'
PHOTO = '#| photo\n' + PLOT

TELEPHONE = 358  # pixels that a page of the site, 390 wide, has for a figure
KEPT = {  # drawn where bfloat16 is fast; the next run there makes them narrow
    ('12_speed', 'c014'), ('13_roofline', 'b0d3460f'), ('13_roofline', 'c123')}
SIZES = {'fontsize', 'labelsize', 'titlesize', 'size'}


@pytest.fixture
def slim(monkeypatch):
    monkeypatch.syspath_prepend(ROOT/'tools')
    from run_notebooks import slim
    return slim


def figure(source, said, size=(300,200)):
    "A cell with a figure of many colours, which says of itself what `said` says"
    rng, buffer = np.random.default_rng(0), BytesIO()
    noise = rng.integers(0, 256, (size[1], size[0]//2, 3), dtype=np.uint8)
    Image.fromarray(np.hstack([np.full_like(noise, 255), noise])).save(buffer, 'PNG')
    data = {'image/png': b64encode(buffer.getvalue()).decode(), 'text/plain': '<Figure>'}
    said = {'image/png': said} if said else {}
    return new_code_cell(source, outputs=[new_output('display_data', data, metadata=said)])


def stored(out):
    "A figure as it is stored: the kind, the picture, and what it says of its size"
    (kind,) = (key for key in out.data if key.startswith('image/'))
    assert set(out.metadata) <= {kind}
    return kind, Image.open(BytesIO(b64decode(out.data[kind]))), out.metadata.get(kind, {})


def test_a_plot_in_few_colours_on_its_white(slim):
    cell = figure(PLOT, {'width': 150, 'height': 100})
    slim(cell)
    kind, image, said = stored(cell.outputs[0])
    assert (kind, image.format, image.mode, image.size, said) == ('image/png', 'PNG', 'P', (300, 200), {'width': 150})
    assert len(image.getcolors()) <= 64 and image.convert('RGB').getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_as_jpeg(slim):
    cell = figure(PHOTO, {'width': 150, 'height': 100})
    slim(cell)
    kind, image, said = stored(cell.outputs[0])
    assert (kind, image.format, image.size, said) == ('image/jpeg', 'JPEG', (300, 200), {'width': 150})


@pytest.mark.parametrize('source', [PLOT, PHOTO], ids=['plot', 'photo'])
def test_what_is_slim_stays(source, slim):
    "As in a cell that is skipped; so does a figure of one pixel for each, which says no width"
    cell, plain = figure(source, {'width': 150, 'height': 100}), figure(source, None)
    slim(cell)
    for done in (cell, plain):
        before = str(done)
        slim(done)
        assert str(done) == before


def test_readme_shows_it_as_wide_as_the_notebook(slim):
    from readme import render
    cells = [figure(source, said) for source in (PLOT, PHOTO) for said in ({'width': 150, 'height': 100}, None)]
    for cell in cells: slim(cell)
    text, pictures = render(new_notebook(cells=cells))
    assert [*pictures] == [f'docs/images/readme-{i}.{kind}' for i, kind in enumerate(('png', 'png', 'jpeg', 'png'))]
    assert '<img src="docs/images/readme-0.png" width="150" alt="A line">' in text
    assert '![A line](docs/images/readme-1.png)' in text
    assert text.count('width="150"') == 2


@pytest.mark.slow
def test_run_twice(tmp_path):
    "At twice the pixels, cleaned with its width, and the second run changes nothing"
    (tmp_path/'tools').mkdir()
    for name in ('pyproject.toml', 'tools/run_notebooks.py'): shutil.copy(ROOT/name, tmp_path/name)
    file, skipped = tmp_path/'a.ipynb', figure('#| slow\n'+PLOT, None)
    nbformat.write(new_notebook(cells=[new_code_cell(PLOT), new_code_cell(PHOTO), skipped]), file)
    texts = []
    for _ in range(2):
        subprocess.run([sys.executable, 'tools/run_notebooks.py', 'a.ipynb'], cwd=tmp_path, check=True)
        texts.append(file.read_text())
    plot, photo, before = (c.outputs[-1] for c in nbformat.read(file, 4).cells)
    for out, kind in ((plot, 'image/png'), (photo, 'image/jpeg')):
        found, image, said = stored(out)
        assert found == kind and said == {'width': image.width//2}
    assert stored(before)[0] == 'image/png' and before.data == skipped.outputs[0].data
    assert texts[0] == texts[1]


def shown(notebook):
    "Stored figures: the cell, the width that each is shown at, and the smallest letters that the cell asks for, points"
    for cell in nbformat.read(notebook, 4).cells:
        lines = cell.source.splitlines()
        if cell.cell_type != 'code' or '#| slow' in lines or 'display.Image(' in cell.source: continue
        for out in cell.outputs:
            for kind in ('image/png', 'image/jpeg'):
                if kind not in out.get('data', {}): continue
                yield cell, out.metadata.get(kind, {}).get('width'), letters(cell.source)


def letters(source):
    "Points: matplotlib's 10, or a smaller number that the source names"
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    named = [kw.value.value for call in calls for kw in call.keywords
             if kw.arg in SIZES and isinstance(kw.value, ast.Constant)]
    return min([10, *(n for n in named if isinstance(n, (int, float)))])


NOTEBOOKS = [*sorted((ROOT/'nbs').glob('[0-9]*.ipynb')), ROOT/'index.ipynb']


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda f: f.stem)
def test_legible_on_a_telephone(notebook):
    "Letters of about 9 pixels where the page narrows the figure to its width; 100 dots an inch, 72 points"
    for cell, width, points in shown(notebook):
        if (notebook.stem, cell.id) in KEPT: continue
        assert width, f"{cell.id}: a figure that says no width is shown too large; tools/run_notebooks.py stores it"
        pixels = points*100/72*min(1, TELEPHONE/width)
        said = f"{cell.id}: {points} points in {width} px are {pixels:.1f} px on a telephone"
        assert pixels >= 8.8, f"{said}; make it 5.4 inches wide, panels one below the other, no text below 10 points"


@pytest.mark.parametrize('source, points', [
    ("plt.plot(x)", 10), ("ax.set_title('a', fontsize=8)", 8), ("ax.text(0, 0, 'a', size=12)", 10),
    ("ax.tick_params(labelsize=7.5)", 7.5)])
def test_smallest_letters(source, points): assert letters(source) == points
