"How tools/run_notebooks.py stores the figures of a notebook: sharp, and small"
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
