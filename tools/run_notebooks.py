"""Run notebooks top to bottom and store their outputs.

Cells marked `#| slow`, `#| cuda` or `#| notest` are skipped and keep the output they have;
`--with slow` runs those too. Figures come at twice the pixels and are stored small: a plot in 64 colours, the
photographs of a cell marked `#| photo` as JPEG.

usage: python tools/run_notebooks.py [--with slow] [NOTEBOOK ...]      default: all chapters and index.ipynb
"""
import argparse
import time
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ('slow', 'cuda', 'notest')


def has_flag(cell, *flags): return any(line.strip() == f'#| {f}' for line in cell.source.splitlines() for f in flags)


class SkippingClient(NotebookClient):
    "Leaves cells with a flag in `skip` as they are"
    skip = FLAGS

    async def async_execute_cell(self, cell, *args, **kwargs):
        if cell.cell_type == 'code' and has_flag(cell, *self.skip): return cell
        return await super().async_execute_cell(cell, *args, **kwargs)


def slim(cell):
    "Store its figures small, and without a height, which would hold where a phone narrows the width"
    for out in cell.outputs:
        data, said = out.get('data', {}), out.get('metadata', {})
        if 'width' not in said.get('image/png', {}): continue  # of one pixel for each, or JPEG already
        said['image/png'].pop('height', None)
        image, buffer = Image.open(BytesIO(b64decode(data['image/png']))), BytesIO()
        if has_flag(cell, 'photo'):
            image.convert('RGB').save(buffer, 'JPEG', quality=88, optimize=True)
            del data['image/png']
            said['image/jpeg'], kind = said.pop('image/png'), 'image/jpeg'
        elif image.mode != 'P':
            image.convert('RGB').quantize(64, dither=Image.Dither.NONE).save(buffer, 'PNG', optimize=True)
            kind = 'image/png'
        else: continue
        data[kind] = b64encode(buffer.getvalue()).decode()


def run(path, skip):
    start, nb = time.perf_counter(), nbformat.read(path, 4)
    client = SkippingClient(nb, timeout=None, kernel_name='python3', resources={'metadata': {'path': path.parent}},
                            extra_arguments=['--InlineBackend.figure_formats=retina'])
    client.skip = skip
    client.execute()
    for cell in nb.cells:  # a warning on stderr is about this machine, not about the lesson
        if cell.cell_type != 'code': continue
        cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
        slim(cell)
    nbformat.write(nb, path)
    nbdev_clean(str(path))
    print(f'{path.relative_to(ROOT)}: {time.perf_counter()-start:.0f} s')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('notebooks', nargs='*', type=Path)
    parser.add_argument('--with', dest='also', choices=FLAGS, action='append', default=[])
    args = parser.parse_args()
    for path in args.notebooks or [*sorted((ROOT/'nbs').glob('*.ipynb')), ROOT/'index.ipynb']:
        run(path.resolve(), [f for f in FLAGS if f not in args.also])


if __name__ == '__main__': main()
