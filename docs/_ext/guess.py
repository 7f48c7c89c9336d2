"Guess first: behind each `my_guess = ...` a form, before its answer the guess; and how far the reader has come"
import json
import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ANSWERS = {  # the cell that asks for a guess: the one that answers
    '00_data': {'13158b58': 'a7814007', '218eda3d': 'c060'}, '01_conv_layer': {'f1d35a27': 'c016', 'fac0a68a': 'c041'},
    '02_cost': {'ff97f769': '4b538ef2'}, '03_last_layers': {'05d807d3': 'c051'}, '04_inception': {'8da6a607': 'c026'},
    '05_resblock': {'a004': 'c016'}, '06_bottleneck': {'7a519e59': '29ce4d16'}, '07_resnet': {'fa5bafb9': 'a836b4df'},
    '08_training': {'a803': 'a807', '31a85417': 'c046'}, '09_progressive_resizing': {'dd817cde': '99a9c9df'},
    '10_relatives': {'c831d0bc': 'b5bb4afa'}, '10b_lighter': {'10b00006': '10b00008'},
    '11_comparison': {'11a00008': '11a00013', '11a00043': '11a00021', '11a00054': '11a00057'},
    '12_speed': {'b0dc6160': 'c016'}, '13_roofline': {'d3b52f10': '25fd256f'},
    '14_ten_minutes': {'u002': '72e020f4', 'm004': 'm008'}, '15_clinic': {'fc8d40a2': '020751ae'},
    '16_long_runs': {'16a00008': '16a00013', '16a00033': '16a00036'},
    '17_many_processes': {'b3ab9501': '3b252a3b', 'rateb001': 'rateb007'},
    '17b_million_files': {'17b00008': '5ba2d108'},
    '18_reuse': {'ebb3d0ea': '7e36ed62', '18f00002': '18f00007'},
    '19_your_photographs': {'5cf51f39': '84cbf944'},
    '20_look_inside': {'9fb27499': '729a0b61', '0dc07614': 'eee9e673', '2836d028': '1aaac897', 'b323f889': '58c0d68c',
                       '9ef1726d': 'aca98d07'},
    '21_ship_it': {'4835e628': '997c34cd'}}
ASKS = re.compile(r'^\w*guess = .*\.\.\.', re.M)  # as a cell that waits for a guess begins


def hint(source):
    "What the comments of the cell say about a guess"
    said = re.findall(r'# *(.+)$', source, re.M)
    return said[0] if said else 'a share for each, and the part that will be left'


def form(stem, id, source):
    name = f'{stem}/{id}'
    return (f'<form class="guess" data-guess="{name}" hidden>'
            f'<label for="guess-{id}">Your guess: {escape(hint(source))}</label>'
            f'<input id="guess-{id}" type="text" autocomplete="off" maxlength="200">'
            '<button class="play-button">Keep it</button><p class="play-note" role="status"></p></form>')


def back(stem, id): return f'<p class="guessed" data-guess="{stem}/{id}" hidden></p>'


def put(stem, cells):
    "The cells with forms behind guesses and places for them before answers"
    answers = ANSWERS.get(stem, {})
    asked = {answer: id for id, answer in answers.items()}
    made = []
    def add(id, text): made.append({'cell_type': 'markdown', 'id': id, 'metadata': {}, 'source': text})
    for cell in cells:
        id = cell.get('id')
        if id in asked: add(f'back-{id}', back(stem, asked[id]))
        made.append(cell)
        if id in answers: add(f'guess-{id}', form(stem, id, ''.join(cell['source'])))
    if stem < '90': add('done', f'<div class="chapter-done" data-chapter="{stem}" hidden></div>')
    return made


def read(app, docname, source):
    stem = Path(docname).name
    if docname.startswith('nbs/') and source[0].startswith('{'):
        nb = json.loads(source[0])
        nb['cells'] = put(stem, nb['cells'])
        source[0] = json.dumps(nb)
        app.env.note_dependency(__file__)
    if docname == 'docs/map': source[0] += '\n\n<div id="progress" hidden></div>\n'


def scripts(app, page, template, context, doctree):
    if page.split('/')[0] not in ('nbs', 'docs', 'index'): return
    app.add_css_file('play.css')
    app.add_js_file('guess.js', loading_method='defer')


def setup(app):
    app.connect('source-read', read)
    app.connect('html-page-context', scripts)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
