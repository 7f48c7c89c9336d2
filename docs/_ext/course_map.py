"The map of the course: what each chapter needs and how long it takes, read from the notebooks themselves"
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted(f for f in (ROOT/'nbs').glob('[0-9]*.ipynb') if f.stem < '90')
EXERCISE = re.compile(r'\b(\d+) minutes, (?:easy|medium|hard(?:er)?)(?:, (must-do|optional))?')
HOME = {f.stem: re.search(r'File to edit: \.\./nbs/(\w+)\.ipynb', f.read_text())[1]
        for f in (ROOT/'resnet_course').glob('[a-z]*.py')}


def number(stem): return stem.split('_')[0].lstrip('0') or '0'


def facts(file):
    "Number, title, earlier chapters whose functions it imports, minutes of reading and of exercises, running time"
    cells = json.loads(file.read_text())['cells']
    def all_of(kind): return '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == kind)
    text, code = all_of('markdown'), all_of('code')
    homes = {HOME[m] for m in re.findall(r'^\s*from resnet_course\.(\w+) import', code, re.M) if m in HOME}
    running = ' '.join(re.search(r'Running:\s(?:about )?(.+?)[.*]', text, re.S)[1].split())
    exercises = [(int(n), kind) for n, kind in EXERCISE.findall(text)]
    return {'number': number(file.stem), 'title': re.search(r'^# (.*)', text, re.M)[1], 'stem': file.stem,
            'needs': ', '.join(number(h) for h in sorted(homes) if h < file.stem) or '–',
            'reading': int(re.search(r'Reading: about (\d+) minutes', text)[1]),
            'exercises': sum(n for n, kind in exercises if kind != 'optional'),
            'more': sum(n for n, kind in exercises if kind == 'optional') or '–',
            'running': running.replace('half a minute', '30 s').replace('a minute', '1 min').replace(' seconds', ' s')}


HEAD = ('', 'chapter', 'uses', 'reading, min', 'exercises, min', 'optional, min', 'running')
LINE = '| --: | --- | --- | --: | --: | --: | --- |'
ROW = '| {number} | {link} | {needs} | {reading} | {exercises} | {more} | {running} |'
SHORT = '01', '05', '07', '08', '14'


def page():
    rows = [facts(f) for f in FILES]
    for r in rows: r['link'] = f"[{r['title']}](../nbs/{r['stem']}.ipynb)"
    short = [r for r in rows if r['stem'][:2] in SHORT]
    reading, exercises = (round(sum(r[k] for r in rows)/60) for k in ('reading', 'exercises'))
    minutes = sum(r['reading'] for r in short)
    whole = f'All of it is about {reading} hours of reading, and {exercises} more of exercises that are not optional.'
    evening = f'If you have one evening, read these {len(short)} chapters, {minutes} minutes, and run them as you go:'
    table = ['| ' + ' | '.join(HEAD) + ' |', LINE, *(ROW.format(**r) for r in rows)]
    links = [f"- {r['number']}. {r['link']}" for r in short]
    return '\n'.join([*table, '', whole, '', '## Two hours', '', evening, '', *links])
