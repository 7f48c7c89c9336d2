"Turns what is read, notebooks and modules, into what Sphinx shows; nothing is written to the source tree"
import ast
import io
import json
import re
import tokenize
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref

import explorer
import experiments
from resnet_course.claims import Claim

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted((ROOT/'resnet_course').glob('[a-z]*.py'))
# what stands at `<!-- made when the site is built -->`, and the files it is made from
MADE = {'docs/explorer': (explorer.page, MODULES),
        'docs/results': (experiments.page, [*{f.parent for f in experiments.FILES}, *experiments.FILES])}
TOC = '```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```'


# Notebooks

def load(path): return json.loads(Path(path).read_text())['cells']


def chapter(stem):
    "Its number as the book says it; nothing for an appendix"
    number = int(stem.split('_')[0])
    return number if number < 90 else None


def heading_of(stem, cell_id):
    "The nearest heading above a cell: its text and its anchor"
    found = ''
    for cell in load(ROOT/'nbs'/f'{stem}.ipynb'):
        if cell['cell_type']=='markdown':
            text = re.sub(r'^```.*?^```', '', ''.join(cell['source']), flags=re.M|re.S)
            found = (re.findall(r'^##+ (.*)', text, re.M) or [found])[-1]
        if cell.get('id')==cell_id: break
    return found, re.sub(r'[^\w\- ]', '', found.lower()).replace(' ', '-')


def blank(output):
    "What a finished progress bar leaves: a style sheet and nothing else"
    html = ''.join(output.get('data', {}).get('text/html', '-'))
    return not re.sub('<style.*?</style>', '', html, flags=re.S).strip()


def show(cell):
    "A cell as the reader should see it, or nothing"
    source = ''.join(cell['source'])
    if cell['cell_type']!='code': return cell
    directives = re.findall(r'^#\| *(.*)$', source, re.M)
    source = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip('\n')
    if 'hide' in directives or not source: return None
    tags = [d for d in directives if d in ('export', 'slow', 'cuda')]
    if 'echo: false' in directives: tags.append('remove-input')
    alt = next((d[9:].strip().strip('"') for d in directives if d.startswith('fig-alt:')), '')
    for out in cell['outputs']: out.get('data', {}).pop(Claim.mime, None)
    return {**cell, 'source': source, 'outputs': [o for o in cell['outputs'] if not blank(o)],
            'metadata': {'tags': tags, 'mystnb': {'image': {'alt': alt}}}}


def contents():
    "The book's contents, for the first page"
    stems = sorted(f.stem for f in (ROOT/'nbs').glob('[0-9]*.ipynb'))
    parts = {'Chapters': [f'nbs/{s}' for s in stems if chapter(s) is not None], 'Look closer': MADE,
             'Appendices': [f'nbs/{s}' for s in stems if chapter(s) is None],
             'The package': [f'resnet_course/{f.stem}' for f in MODULES]}
    return '\n\n'.join(TOC.format(caption, '\n'.join(pages)) for caption, pages in parts.items())


def notebook(docname, text):
    nb = json.loads(text)
    nb['cells'] = [c for c in map(show, nb['cells']) if c]
    first = ''.join(nb['cells'][0]['source'])
    what = re.search(r'^> (.*)', first, re.M)
    if what: nb['metadata']['myst'] = {'html_meta': {'description': what[1].replace('`', '')}}
    if docname=='index':
        nb['cells'].append({'cell_type': 'markdown', 'id': 'contents', 'metadata': {}, 'source': contents()})
    elif (number := chapter(Path(docname).name)) is not None:
        nb['cells'][0]['source'] = first.replace('# ', f'# {number}. ', 1)
    return json.dumps(nb)


# Modules

@cache
def exported():
    "Module of each exported name; of those in two modules, none"
    homes = {}
    for file in MODULES:
        for name in names_of(ast.parse(file.read_text())): homes.setdefault(name, []).append(file.stem)
    return {name: modules[0] for name, modules in homes.items() if len(modules)==1}


@cache
def built_in(module):
    "Stem of the notebook that a module comes from"
    return re.search(r'File to edit: \.\./nbs/(\w+)\.ipynb', (ROOT/'resnet_course'/f'{module}.py').read_text())[1]


def names_of(tree):
    values = {ast.unparse(o.targets[0]): o.value for o in tree.body if isinstance(o, ast.Assign)}
    return ast.literal_eval(values['__all__'])


def signature(func, comments, skip_self=False):
    "Arguments as written, and a list of what their comments say"
    args = func.args
    if skip_self: args.args = args.args[1:]
    named = [*args.posonlyargs, *args.args, *filter(None, [args.vararg]), *args.kwonlyargs, *filter(None, [args.kwarg])]
    fields = [f':param {a.arg}: {comments[a.lineno]}' for a in named if a.lineno in comments]
    last = func.returns and func.returns.end_lineno
    if last in comments: fields.append(f':returns: {comments[last]}')
    text = f'({ast.unparse(args)})' + (f' -> {ast.unparse(func.returns)}' if func.returns else '')
    return text, fields


def describe(obj, name, module, comments, source, built):
    "One exported function, class or value in Markdown"
    kind,args,doc,fields = 'data','','',[]
    if isinstance(obj, ast.FunctionDef):
        kind,doc,(args,fields) = 'function',ast.get_docstring(obj),signature(obj, comments)
    elif isinstance(obj, ast.ClassDef):
        kind,doc = 'class',ast.get_docstring(obj)
        init = next((o for o in obj.body if getattr(o, 'name', '')=='__init__'), None)
        if init: args,fields = signature(init, comments, skip_self=True)
        if obj.bases: doc = f"{doc or ''}\n\nA kind of `{', '.join(map(ast.unparse, obj.bases))}`."
    else: doc = f'```python\n{ast.get_source_segment(source, obj)}\n```'
    head = [f'````{{py:{kind}}} {name}{args}', f':module: resnet_course.{module}']
    return '\n'.join([*head, '', doc or '', '', *fields, '', built, '````'])


def api(docname, text):
    "A module's page, from nothing but its text"
    tree,module,lines = ast.parse(text),Path(docname).name,text.splitlines()
    stem,names = built_in(module),names_of(tree)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = {t.start[0]: t.string.lstrip('# ') for t in tokens if t.type==tokenize.COMMENT}
    objects = {getattr(o, 'name', None) or ast.unparse(o.targets[0]): o for o in tree.body
               if isinstance(o, (ast.FunctionDef, ast.ClassDef, ast.Assign))}
    example = max(names, key=lambda name: [type(objects[name]) is kind for kind in (ast.ClassDef, ast.FunctionDef)])
    place = 'the appendix' if chapter(stem) is None else f'chapter {chapter(stem)}'
    parts = [f'# {module}', f'> {ast.get_docstring(tree)}',
             f'```python\nfrom resnet_course.{module} import {example}\n```']
    for name in names:
        cell = next(m[1] for line in lines[objects[name].lineno-1::-1] if (m := re.match(r'# %% .*#(\w+)', line)))
        heading,anchor = heading_of(stem, cell)
        where = f'[{place}](../nbs/{stem}.ipynb)'
        if heading: where = f'[{place}, "{heading}"](../nbs/{stem}.ipynb#{anchor})'
        parts.append(describe(objects[name], name, module, comments, text, f'Built in {where}.'))
    return '\n\n'.join(parts)


# Events

def read(app, docname, source):
    "What is read now; what the page follows besides is noted, so that it is made again when that changes"
    path = app.env.doc2path(docname)
    if path.suffix=='.ipynb': source[0] = notebook(docname, source[0])
    if path.suffix=='.py':
        source[0] = api(docname, source[0])
        app.env.note_dependency(str(ROOT/'nbs'/f'{built_in(path.stem)}.ipynb'))
    if docname in MADE:
        make,follows = MADE[docname]
        source[0] = source[0].replace('<!-- made when the site is built -->', make())
        for file in follows: app.env.note_dependency(str(file))


def target(literal, docname):
    "Where a name in backticks leads; one that is a plain word too, like `group`, leads on only where it is built"
    text,cell = literal.astext(),literal.parent.parent
    alone = isinstance(cell, nodes.entry) and len(literal.parent)==1
    if alone and text in [f.stem for f in MODULES]: return 'std', 'doc', f'/resnet_course/{text}'
    found = re.fullmatch(r'(?:resnet_course\.)?(?:\w+\.)?(\w+)(?:\(.*\))?', text)
    name = found and found[1]
    module = exported().get(name)
    if not module: return None
    at_home = docname in (f'resnet_course/{module}', f'nbs/{built_in(module)}')
    if name.isalpha() and name.islower() and not at_home: return None
    return 'py', 'obj', f'resnet_course.{module}.{name}'


def link_names(app, doctree):
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, (nodes.title, nodes.reference, pending_xref)): continue
        if not (found := target(literal, app.env.docname)): continue
        to = dict(zip(('refdomain', 'reftype', 'reftarget'), found))
        link = pending_xref('', **to, refexplicit=True, refdoc=app.env.docname)
        literal.replace_self(link)
        link += literal


def outdated(app, env, added, changed, removed):
    "The first page lists the others"
    return ['index'] if added or removed else []


def setup(app):
    app.connect('source-read', read)
    app.connect('doctree-read', link_names)
    app.connect('env-get-outdated', outdated)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
