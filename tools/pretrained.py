"""Make the weights that the package brings from a run folder: half precision, and a card beside them.

usage: python tools/pretrained.py RUN RECORD [--to FOLDER]     RECORD: the run's file in results/
"""
import argparse
import json
import textwrap
from pathlib import Path

from resnet_course.model_files import load_model, save_model

CARD = """
Weights of `{net}` with `{options}`, {params:,} parameters in half precision, for `create_model({net!r},
weights='imagenette')` and `resnet-course train --weights imagenette`.
- **Learned from** {train:,} photographs of ten classes: {copy}. Random weights at the start.
- **Accuracy** {accuracy} on the {val:,} validation images, last epoch, no test-time augmentation, {size} px. What is
new in the recipe was chosen on held-out training images; the net's width and the first sizes, earlier, on these.
- **How** {epochs} epochs, {sizes}. The recipe, each epoch and the machine: `results/bench/{record}.json`, commit
{commit}. The command there makes them again, up to rounding.
- **For** trying out, teaching, and as a start for photographs of your own. It knows ten classes and will name one of
them whatever it is shown.
- **Not for** decisions about people or safety. The photographs were found on the web by ImageNet's makers and show the
world as the web did then.
- **Terms** Imagenette is a part of ImageNet, whose terms allow research and teaching that is not commercial; the rights
in the photographs are their owners'. The code is under Apache-2.0. Ask a lawyer before you sell what began here.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path)
    parser.add_argument('record', type=Path)
    parser.add_argument('--to', type=Path, default=Path('resnet_course/pretrained'))
    args = parser.parse_args()
    model, spec = load_model(args.run/'model.safetensors')
    record = json.loads(args.record.read_text())
    recipe, runs = record['recipe'], record['runs']
    args.to.mkdir(parents=True, exist_ok=True)
    save_model(args.to/'imagenette.safetensors', model.half(), spec)
    scores = ', '.join(f"{100*r['history'][-1]['accuracy']:.1f}% (seed {r['seed']})" for r in runs)
    sizes = ', '.join(f"{recipe['sizes'].count(s)} at {s} px" for s in dict.fromkeys(recipe['sizes']))
    about = dict(net=spec['net'], options=spec['net_options'], params=sum(p.numel() for p in model.parameters()),
                 size=spec['size'], train=record['data']['train'], val=record['data']['val'],
                 copy=record['data']['copy'], accuracy=scores, epochs=len(recipe['sizes']), sizes=sizes,
                 record=args.record.stem, commit=record['commit'][:8])
    first, *points = CARD.strip().format(**about).split('\n- ')
    points = [textwrap.fill(f'- {p}', 120, subsequent_indent='  ', break_on_hyphens=False) for p in points]
    (args.to/'imagenette.md').write_text('\n'.join(['# imagenette', '', first, '', *points, '']))


if __name__ == '__main__': main()
