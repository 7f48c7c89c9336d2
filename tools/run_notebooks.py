"""Run notebooks top to bottom and store their outputs.

Cells marked `#| slow`, `#| cuda` or `#| notest` are skipped and keep the output they have;
`--with slow` runs those too.

usage: python tools/run_notebooks.py [--with slow] [NOTEBOOK ...]      default: all chapters and index.ipynb
"""
import argparse
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import nbdev_clean

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ('slow', 'cuda', 'notest')


class SkippingClient(NotebookClient):
    "Leaves cells with a flag in `skip` as they are"
    skip = FLAGS

    async def async_execute_cell(self, cell, *args, **kwargs):
        lines = cell.source.splitlines() if cell.cell_type == 'code' else []
        if any(line.strip() == f'#| {flag}' for line in lines for flag in self.skip): return cell
        return await super().async_execute_cell(cell, *args, **kwargs)


def run(path, skip):
    start, nb = time.perf_counter(), nbformat.read(path, 4)
    client = SkippingClient(nb, timeout=None, kernel_name='python3', resources={'metadata': {'path': path.parent}})
    client.skip = skip
    client.execute()
    for cell in nb.cells:  # a warning on stderr is about this machine, not about the lesson
        if cell.cell_type == 'code': cell.outputs = [o for o in cell.outputs if o.get('name') != 'stderr']
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
