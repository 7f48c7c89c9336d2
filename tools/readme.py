"""Make README.md from index.ipynb: its prose, its code and the text, tables and pictures that its cells gave.

usage: python tools/readme.py [--check]      --check: change nothing, exit 1 when README.md is out of step
"""
import argparse
import base64
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NOTE = '<!-- Made from index.ipynb by tools/readme.py; edit that. -->'


def image(path, alt, width):
    "As wide as the notebook shows it: of a figure at twice the pixels, Markdown alone would show them all"
    alt_text = alt.replace('"', '&quot;')
    return f'<img src="{path}" width="{width}" alt="{alt_text}">' if width else f'![{alt}]({path})'


def render(nb):
    "Markdown text, and the pictures it shows as `{path: bytes}`"
    parts, pictures = [NOTE], {}
    for cell in nb.cells:
        if cell.cell_type == 'markdown': parts.append(cell.source); continue
        lines = cell.source.splitlines()
        directives = {line[2:].strip() for line in lines if line.startswith('#|')}
        if 'hide' in directives: continue
        source = '\n'.join(line for line in lines if not line.startswith('#|')).strip()
        if 'echo: false' not in directives: parts.append(f'```python\n{source}\n```')
        for out in cell.outputs:
            data = out.get('data', {})
            if 'text/markdown' in data: parts.append(data['text/markdown'])
            elif kind := next((k for k in ('image/png', 'image/jpeg') if k in data), None):
                path = f"docs/images/readme-{len(pictures)}.{kind.removeprefix('image/')}"
                pictures[path] = base64.b64decode(data[kind])
                told = [d[8:].strip().strip('"') for d in directives if d.startswith('fig-alt:')]
                parts.append(image(path, next(iter(told), ''), out.metadata.get(kind, {}).get('width')))
            elif text := out.get('text') or data.get('text/plain'): parts.append(f'```\n{text.rstrip()}\n```')
    return '\n\n'.join(parts) + '\n', pictures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args()
    text, pictures = render(nbformat.read(ROOT/'index.ipynb', 4))
    files = {'README.md': text.encode(), **pictures}
    stale = [name for name, data in files.items() if not (ROOT/name).exists() or (ROOT/name).read_bytes() != data]
    if args.check:
        if stale: sys.exit(f"{', '.join(stale)} out of step with index.ipynb; run: python tools/readme.py")
        return
    for name in stale:
        (ROOT/name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/name).write_bytes(files[name])


if __name__ == '__main__': main()
