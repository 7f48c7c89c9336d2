"All records in one chart, and their curves as data for curves.js"
import itertools
import json
import math
from functools import cache
from html import escape
from itertools import groupby
from statistics import mean, median

WIDE,HIGH = 430,322  # of a panel, pixels
LEFT,BELOW,TOP = 40,62,30


@cache
def macs(net, options, size):
    "Multiply-adds of one image: a net without numbers says them"
    import torch
    from resnet_course.cost import cost_table
    from resnet_course.models import create_model
    with torch.device('meta'): model = create_model(net, 10, **dict(options))
    return int(cost_table(model, size)['MACs'].iloc[-1])


def cost(record, variant, history):
    "Of the net at the size of the last epoch: as recorded, or from the recipe; nothing where neither is there"
    told = record.get('variants', {}).get(variant, {})
    if 'MACs' in told: return told['MACs']
    recipe = record.get('recipe') or told.get('recipe')
    if not recipe: return None
    options = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in recipe['net_options'].items())
    return macs(recipe['net'], options, history[-1].get('size', recipe['sizes'][-1]))


def variants(record):
    "Each variant of a record that was trained, and the runs of its seeds"
    runs = [run for run in record['runs'] if 'accuracy' in (run.get('history') or [{}])[-1]]
    def name(run): return run.get('variant', record['name'])
    return {key: list(same) for key, same in groupby(sorted(runs, key=name), name)}


def timed(runs):
    "Their histories whose seconds count: those of the record's own machine, if there are any"
    return [run['history'] for run in runs if 'machine' not in run] or [run['history'] for run in runs]


def seconds(runs): return median(sum(e['seconds'] for e in h) for h in timed(runs))


def points(records):
    "What the chart shows; an accuracy on images held out from the training set is another measure, and has no place"
    for title, record in records:
        if 'split' in record: continue
        for variant, runs in variants(record).items():
            last = [100*run['history'][-1]['accuracy'] for run in runs]
            yield {'name': title if variant==record['name'] or len(variants(record))==1 else f'{title}: {variant}',
                   'low': min(last), 'mean': mean(last), 'high': max(last), 'seeds': len(last),
                   'seconds': seconds(runs),
                   'MACs': cost(record, variant, runs[0]['history']), 'gpu': bool(record['machine']['gpu'])}


def panel(found, key, said, unit, left):
    "Accuracy against one thing, which grows tenfold from tick to tick"
    shown = [p for p in found if p[key]]
    low,high = (f(math.log10(p[key]) for p in shown) for f in (min, max))
    low,high = low-.1,high+.1
    worst,least = math.log10(100-min(p['low'] for p in shown)),math.log10(6)  # half the errors, one step up
    def x(v): return left+LEFT+(WIDE-LEFT-12)*(math.log10(v)-low)/(high-low)
    def y(v): return TOP+(HIGH-TOP-BELOW)*(math.log10(100-v)-least)/(worst+.02-least)
    parts = []
    for v in (v for v in (20, 40, 60, 70, 80, 85, 90) if math.log10(100-v) < worst):
        parts.append(f'<line class="grid" x1="{left+LEFT}" x2="{left+WIDE-12}" y1="{y(v):.1f}" y2="{y(v):.1f}"/>'
                     f'<text x="{left+LEFT-7}" y="{y(v)+4:.1f}" text-anchor="end">{v}</text>')
    for n in range(math.ceil(low), math.floor(high)+1):
        parts.append(f'<line class="grid" x1="{x(10**n):.1f}" x2="{x(10**n):.1f}" y1="{TOP}" y2="{HIGH-BELOW}"/>'
                     f'<text x="{x(10**n):.1f}" y="{HIGH-BELOW+16}" text-anchor="middle">{unit(10**n)}</text>')
    parts.append(f'<text x="{left+LEFT}" y="14" class="title">{said}</text>')
    for p in sorted(shown, key=lambda p: -p['gpu']):
        at,kind = x(p[key]),'gpu' if p['gpu'] else 'cpu'
        told = p['name'],f"{p['mean']:.1f}%, {p['seeds']} seed{'s'*(p['seeds']>1)}, {p['seconds']:,.0f} s"
        y1,cy,y2 = (f'{y(p[k]):.1f}' for k in ('high', 'mean', 'low'))
        lines = ''.join(f'<text class="told" x="{left+4}" y="{HIGH-20+16*i}">{escape(line[:70])}</text>'
                        for i, line in enumerate(told))
        parts.append(f'<g class="{kind}" tabindex="-1"><title>{escape(": ".join(told))}</title>{lines}'
                     f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y1}" y2="{y2}"/>'
                     f'<circle cx="{at:.1f}" cy="{cy}" r="4.5"/></g>')
    best = max((p for p in shown if not p['gpu']), key=lambda p: p['mean'])
    end = x(best[key]) > left+WIDE*.6
    parts.append(f'<text x="{x(best[key])+(-9 if end else 9):.1f}" y="{y(best["mean"])-5:.1f}" class="title" '
                 f'text-anchor="{"end" if end else "start"}">{best["mean"]:.1f}%</text>')
    return ''.join(parts)


def short(v):
    for size, letter in ((10**9, 'G'), (10**6, 'M'), (1000, 'k')):
        if v>=size: return f'{v//size} {letter}'
    return str(v)


def chart(records):
    "Two panels, side by side or, on a phone, one below the other"
    found = list(points(records))
    if not found: return ''
    sides = [('seconds', 'Accuracy, %, by seconds of training', lambda v: f'{v:,} s'),
             ('MACs', 'and by multiply-adds for one image', short)]
    drawn = ''.join(
        f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{said}: a dot for each of {len(found)} records">'
        f'{panel(found, key, said, unit, 0)}</svg>' for key, said, unit in sides)
    return (f'<figure class="records">{drawn}<figcaption><span class="cpu">●</span> on a processor '
            '<span class="gpu">●</span> on a GPU. A dot is the mean, the line through it reaches from the worst seed '
            'to the best. Point at one, or tap it, for its name. The laptop recipe was searched on other images: that '
            'search is in the tables alone.</figcaption></figure>')


def curves(records):
    "What curves.js reads: for each variant, epoch by epoch, what the seeds measured"
    found = []
    for title, record in records:
        for variant, runs in variants(record).items():
            histories = [run['history'] for run in runs]
            n = min(map(len, histories))
            took = [list(itertools.accumulate(e['seconds'] for e in h)) for h in timed(runs)]
            found.append({
                'name': title if len(variants(record))==1 else f'{title}: {variant}', 'record': record['name'],
                'seconds': [round(median(t[i] for t in took), 2) for i in range(n)],
                **{key: [[round(h[i][key], 4) for h in histories if math.isfinite(h[i].get(key, math.nan))]
                         for i in range(n)] for key in ('accuracy', 'valid_loss', 'train_loss')}})
    return found


def comparer(records):
    data = json.dumps(curves(records), separators=(',', ':')).replace('<', '\\u003c')
    return (f'<div id="curves" hidden></div><script id="curves-data" type="application/json">{data}</script>'
            '<script defer src="../_static/curves.js"></script>'
            '<p class="without-script">Comparing curves takes JavaScript; the tables below have every run.</p>')
