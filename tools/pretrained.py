"""Make the weights that the package brings: those of a run in half precision, and a card beside them.

usage: python tools/pretrained.py RECORD [--run FOLDER] [--seed 0] [--to FOLDER]     RECORD: the runs' file in results/
"""
import argparse
import json
import statistics
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
    parser.add_argument('record', type=Path)
    parser.add_argument('--run', type=Path, help="folder of the run whose weights are taken; without it only the card")
    parser.add_argument('--seed', type=int, default=0, help="of that run")
    parser.add_argument('--to', type=Path, default=Path('resnet_course/pretrained'))
    args = parser.parse_args()
    record = json.loads(args.record.read_text())
    args.to.mkdir(parents=True, exist_ok=True)
    file = args.run/'model.safetensors' if args.run else args.to/'imagenette.safetensors'
    model, spec = load_model(file)
    if args.run: save_model(args.to/'imagenette.safetensors', model.half(), spec)
    recipe, scores = record['recipe'], {r['seed']: 100*r['history'][-1]['accuracy'] for r in record['runs']}
    accuracy = f'{scores[args.seed]:.1f}%'
    if len(scores) > 1:
        mean, sd = statistics.mean(scores.values()), statistics.stdev(scores.values())
        seeds = ', '.join(map(str, scores))
        accuracy += f' (seed {args.seed}; {mean:.1f} +- {sd:.1f}%, mean and sd, over seeds {seeds})'
    sizes = ', '.join(f"{recipe['sizes'].count(s)} at {s} px" for s in dict.fromkeys(recipe['sizes']))
    about = dict(net=spec['net'], options=spec['net_options'], params=sum(p.numel() for p in model.parameters()),
                 size=spec['size'], train=record['data']['train'], val=record['data']['val'],
                 copy=record['data']['copy'], accuracy=accuracy, epochs=len(recipe['sizes']), sizes=sizes,
                 record=args.record.stem, commit=record['commit'][:8])
    first, *points = CARD.strip().format(**about).split('\n- ')
    points = [textwrap.fill(f'- {p}', 120, subsequent_indent='  ', break_on_hyphens=False) for p in points]
    (args.to/'imagenette.md').write_text('\n'.join(['# imagenette', '', first, '', *points, '']))


if __name__ == '__main__': main()
