"The results page: every file of results/, as it stands when the site is built"
import json
from html import escape
from itertools import groupby
from pathlib import Path
from statistics import mean, median, stdev

import charts

RESULTS = Path(__file__).resolve().parent.parent.parent/'results'
# experiments, then the benchmarks in a folder of theirs
FILES = sorted(RESULTS.rglob('*.json'), key=lambda f: (len(f.parts), f))
TITLES = {  # short ones; a record without says in full what it is
    '128px-book': "ResNet-18 at 128 px, the book's way", '128px-fast': 'ResNet-18 at 128 px, the fast way',
    '64px-book': "ResNet-18 at 64 px, the book's way", '64px-fast': 'ResNet-18 at 64 px, the fast way',
    '64px-tricks': 'One trick at a time', 'families-64px': 'Other families, one recipe',
    'googlenet-64px': 'GoogLeNet and its extra heads', 'heads-64px': 'Three heads on one body',
    'laptop': 'The laptop recipe', 'plain-and-residual-64px': 'Plain and residual nets',
    'recipe-64px': "The residual paper's recipe", 'resnet18-128px-5epochs': "The book's recipe, first run",
    'resnet18-64-96-128px-5epochs': 'Growing images', 'shortcuts-64px': 'Three shortcuts',
    'batchnorm': 'Batchnorm of a part of each batch',
    'beyond': 'Sets beyond memory', 'compare': 'Ten nets, two races', 'compare-cost': 'What the named nets cost',
    'compare-rates': 'A learning rate for each family',
    'epoch': 'Speed of a whole epoch', 'gpu-best-128': 'GPU: our best at 128 px', 'gpu-book': "GPU: the book's recipes",
    'gpu-command': 'GPU: the command', 'gpu-ours': "GPU: the book's nets, our way",
    'gpu-resnet50-224': 'GPU: ResNet-50 up to 224 px', 'gpu_check': 'GPU: what the fast path does',
    'growth': 'How cost grows', 'ideas': 'A step: what else was tried',
    'imagenette': 'The weights that the package brings', 'input': 'Speed of loaders',
    'laptop-confirm': 'The laptop recipe, confirmed', 'laptop-fifth': 'The laptop recipe, 5 epochs of it',
    'laptop-first': 'The laptop recipe as it was first', 'laptop-half': 'The laptop recipe, 14 epochs of it',
    'laptop-long': 'The laptop recipe, 27 epochs of it',
    'laptop-screen': 'The laptop recipe, searched', 'laptop-tenth': 'The laptop recipe, 3 epochs of it',
    'laptop-three': 'The laptop recipe, 81 epochs of it',
    'laptop-today': 'The first laptop recipe, beside the new one', 'long': 'What pays in 5 and in 25 epochs',
    'long-80': 'Eighty epochs',
    'memory': 'Peak memory', 'overhead': "What fastai's Learner adds", 'startup': 'How long the command takes to start',
    'step': 'Speed of a training step', 'waterfall': "From the book's way to ours",
    'ranks': 'Two processes beside one', 'transfer': 'Five classes, then five others',
    'trust': 'How far to trust the weights'}


def strip(values, low, high):
    "One dot a seed and a line at their mean, on an axis from `low` to `high`"
    def x(v): return 6 + 188*(v-low)/((high-low) or 1)
    dots = ''.join(f'<circle cx="{x(v):.1f}" cy="10" r="4"/>' for v in values)
    middle,label = x(mean(values)),', '.join(f'{v:.1f}' for v in values)
    return (f'<svg class="strip" viewBox="0 0 200 20" role="img" aria-label="{label} %">'
            '<line class="axis" x1="6" x2="194" y1="10" y2="10"/>'
            f'<line class="mean" x1="{middle:.1f}" x2="{middle:.1f}" y1="2" y2="18"/>{dots}</svg>')


def accuracies(runs, name):
    "A row for each variant: mean and sd over its seeds, each seed as a dot, the median of the seconds"
    by_variant = {}
    for run in runs: by_variant.setdefault(run.get('variant', name), []).append(run)
    last = {variant: [100*run['history'][-1]['accuracy'] for run in same] for variant, same in by_variant.items()}
    low,high = min(map(min, last.values())),max(map(max, last.values()))
    rows = []
    for variant, values in last.items():
        seconds = charts.seconds(by_variant[variant])
        sd = f' ± {stdev(values):.1f}' if len(values)>1 else ''
        dots = strip(values, low, high)
        rows.append([escape(variant), f'{mean(values):.1f}{sd}', dots, len(values), f'{seconds:,.0f}'])
    return ['variant', 'accuracy, %', f'each seed, {low:.1f} to {high:.1f}%', 'seeds', 'seconds'], rows


def cell(value):
    "Measurements of several rounds become their median"
    if isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value): value = median(value)
    if isinstance(value, float): return f'{value:,.4g}'
    return f'{value:,}' if isinstance(value, int) else escape(str(value))


def is_long(value):
    "Whether it belongs into the record's file and not into a table"
    return isinstance(value, dict) or (isinstance(value, list) and any(not isinstance(v, (int, float)) for v in value))


def measurements(runs):
    "Tables of those that measured the same: a row for each measurement"
    rows, kinds = [], {}
    for run in runs:
        facts = {k: v for k, v in run.items() if k!='history'}
        if isinstance(facts.get('seconds'), list) and 'images' in facts:
            facts['images/s'] = facts['images']/median(facts['seconds'])
        rows += [{**facts, **row} for row in run.get('history', [{}])]
    for row in rows: kinds.setdefault(tuple(k for k in row if not is_long(row[k])), []).append(row)
    return ''.join(table(columns, [[cell(row[k]) for k in columns] for row in same]) for columns, same in kinds.items())


def table(columns, rows):
    head = ''.join(f'<th scope="col">{escape(str(c))}</th>' for c in columns)
    body = ''.join('<tr>' + ''.join(f'<td>{c}</td>' for c in row) + '</tr>' for row in rows)
    return (f'<div class="scroll" tabindex="0"><table class="table results"><thead><tr>{head}</tr></thead>'
            f'<tbody>{body}</tbody></table></div>')


def recipe(entries):
    "A recipe in words: a size for each epoch is long, so equal ones are counted"
    def told(name, value):
        if name == 'sizes': return ', '.join(f'{len(list(same))} x {size} px' for size, same in groupby(value))
        return ', '.join(f'{k} {v}' for k, v in value.items()) if isinstance(value, dict) else str(value)
    hidden = {'version', *(() if entries['averaging'] else ('average_from',))}
    if entries['pipeline'] == 'book': hidden |= {'min_scale', 'valid_scale'}  # it has crops of its own
    said = {name: value for name, value in entries.items() if name not in hidden and value}
    return escape('; '.join(f"{name.replace('_', ' ')} {told(name, value)}" for name, value in said.items()))


def experiment(file):
    r = json.loads(file.read_text())
    trained = all('accuracy' in (run.get('history') or [{}])[-1] for run in r['runs'])
    m,data = r['machine'],r['data']
    facts = {
        **({'Note': escape(r['note'])} if r['note'] else {}),
        'Command': f"<code>{escape(r['command'])}</code>",
        **({'Recipe': recipe(r['recipe'])} if 'recipe' in r else {}),
        'Images': escape(f"{data['source']}: {data['train']:,} to train on, {data['val']:,} held out; {data['copy']}"),
        'Precision': escape(r['precision']),
        'Machine': escape(f"{m['cpu']}, {m['cores']} cores, {m['threads']} thread{'s'*(m['threads']>1)}; "
                          f"{m['gpu'] or 'no GPU'}; {m['system']}"),
        'Versions': escape(', '.join(f'{k} {v}' for k, v in r['versions'].items())),
        'Commit': f"<code>{escape(r['commit'][:12])}</code>",
        'Record': f"<code>results/{file.relative_to(RESULTS).as_posix()}</code>"}
    facts = ''.join(f'<dt>{k}</dt><dd>{v}</dd>' for k, v in facts.items())
    numbers = table(*accuracies(r['runs'], r['name'])) if trained else measurements(r['runs'])
    return (f"(record-{file.stem})=\n## {TITLES.get(r['name'], r['what'])}\n\n{r['what']}.\n\n{numbers}\n\n"
            f'<details><summary>How it was measured</summary><dl class="facts">{facts}</dl></details>')


def page():
    records = [(TITLES.get(r['name'], r['what']), r) for r in (json.loads(f.read_text()) for f in FILES)]
    start = f'{charts.chart(records)}\n\n## Compare two or three\n\n{charts.comparer(records)}'
    return '\n\n'.join([start, *map(experiment, FILES)])
