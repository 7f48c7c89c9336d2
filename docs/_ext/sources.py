"Turns what is read, notebooks and modules, into what Sphinx shows; nothing is written to the source tree"
import ast
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

from docutils import nodes
from fastcore.docments import docments, isdataclass
from sphinx.addnodes import pending_xref

import course_map
import explorer
import experiments
import front
from resnet_course.claims import Claim

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted((ROOT/'resnet_course').glob('[a-z]*.py'))
PLACE = '<!-- made when the site is built -->'
# what stands there, and the files it is made from
MADE = {'docs/map': (course_map.page, course_map.FILES),
        'docs/explorer': (explorer.page, [*MODULES, Path(explorer.__file__)]),
        'docs/install': (front.install, [ROOT/'README.md']),
        'docs/results': (experiments.page, [*{f.parent for f in experiments.FILES}, *experiments.FILES])}
CLOSER = ('docs/play', 'docs/install', 'docs/map', 'docs/explorer', 'docs/results', 'docs/glossary',
          'docs/teachers')
TOC = '```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```'


# Notebooks

def load(path): return json.loads(Path(path).read_text())['cells']


def chapter(stem):
    "Its number as the book says it; nothing for an appendix"
    return course_map.number(stem) if stem < '90' else None


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


def in_columns(output):
    "Whether an output is a printed table: most of its lines have gaps"
    lines = ''.join(output.get('text') or output.get('data', {}).get('text/plain', '')).splitlines()
    rows = [line for line in lines if re.search(r'\S {2,}\S', line)]
    return len(rows)>1 and 2*len(rows)>len(lines) and not {'text/html','image/png'} & set(output.get('data', {}))


def aside(source, directives):
    "Whether the code can wait: imports alone, or the drawing of a figure"
    if any(d.startswith('fig-alt:') for d in directives): return bool(re.search(r'\b(plt|axs?)\.|\baxs?\[', source))
    try: return all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body)
    except SyntaxError: return False  # with a line of the shell


def show(cell):
    "A cell as the reader should see it, or nothing"
    source = ''.join(cell['source'])
    if cell['cell_type']!='code': return cell
    directives = re.findall(r'^#\| *(.*)$', source, re.M)
    source = re.sub(r'^#\|.*\n?', '', source, flags=re.M).strip('\n')
    if 'hide' in directives or not source: return None
    tags = [word for word in (d.split()[0] for d in directives if d) if word in ('export', 'slow', 'cuda')]
    if 'echo: false' in directives: tags.append('remove-input')
    elif 'fold' in directives or aside(source, directives): tags.append('hide-input')
    if any(map(in_columns, cell['outputs'])): tags.append('columns')  # which must not wrap
    alt = next((d[9:].strip().strip('"') for d in directives if d.startswith('fig-alt:')), '')
    looks = 'photo' if 'photo' in directives else 'plot'  # which tells what the dark does to it
    for data in (out.get('data', {}) for out in cell['outputs']):
        data.pop(Claim.mime, None)
        drawing = ''.join(data.get('image/svg+xml', ''))  # as an image it could not follow the page's mode
        if 'class="drawing"' in drawing: data['text/html'] = drawing
    return {**cell, 'source': source, 'outputs': [o for o in cell['outputs'] if not blank(o)],
            'metadata': {'tags': tags, 'mystnb': {'image': {'alt': alt, 'classes': looks}}}}


def contents():
    "The book's contents, for the first page"
    stems = sorted(f.stem for f in (ROOT/'nbs').glob('[0-9]*.ipynb'))
    parts = {'Chapters': [f'nbs/{s}' for s in stems if chapter(s) is not None], 'Look closer': CLOSER,
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
        said = f'{front.home(nb["cells"])}\n\n{contents()}'
        nb['cells'] = [{'cell_type': 'markdown', 'id': 'home', 'metadata': {}, 'source': said}]
    elif (number := chapter(Path(docname).name)) is not None:
        nb['cells'][0]['source'] = first.replace('# ', f'# {number}. ', 1)
    return json.dumps(nb)


# Modules

def names_in(node):
    "What a statement of a module defines"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)): return [node.name]
    targets = getattr(node, 'targets', [getattr(node, 'target', None)])
    return [o.id for target in targets for o in getattr(target, 'elts', [target]) if isinstance(o, ast.Name)]


def definitions(text):
    "Each name that a module exports: its statement and the cell it comes from; nothing for one that it only passes on"
    tree,lines = ast.parse(text),text.splitlines()
    found = {name: node for node in tree.body for name in names_in(node)}
    def cell(node): return next(m[1] for line in lines[node.lineno-1::-1] if (m := re.match(r'# %% .*#(\w+)', line)))
    names = ast.literal_eval(found['__all__'].value)
    return {name: name in found and (found[name], cell(found[name])) for name in names}


@cache
def exported():
    "Module of each exported name; of those that two modules define, none"
    homes = {}
    for file in MODULES:
        for name, here in definitions(file.read_text()).items():
            if here: homes.setdefault(name, []).append(file.stem)
    return {name: modules[0] for name, modules in homes.items() if len(modules)==1}


@cache
def built_in(module):
    "Stem of the notebook that a module comes from"
    return re.search(r'File to edit: \.\./nbs/(\w+)\.ipynb', (ROOT/'resnet_course'/f'{module}.py').read_text())[1]


def signature(node, obj):
    "Arguments as written; those of a class are its fields or its `__init__`'s"
    if isdataclass(obj): return f"({', '.join(ast.unparse(o) for o in node.body if isinstance(o, ast.AnnAssign))})"
    if isinstance(node, ast.ClassDef):
        node = next((o for o in node.body if getattr(o, 'name', '')=='__init__'), None)
        if not node: return ''
        node.args.args = node.args.args[1:]
    return f'({ast.unparse(node.args)})' + (f' -> {ast.unparse(node.returns)}' if node.returns else '')


def describe(name, node, obj, module, source, built):
    "One exported function, class or value in Markdown"
    kind,args,doc,fields = 'data','',f'```python\n{ast.get_source_segment(source, node)}\n```',[]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        kind = 'class' if isinstance(node, ast.ClassDef) else 'function'
        args,doc = signature(node, obj),ast.get_docstring(node) or ''
        said = {k: ' '.join(v.split()) for k, v in docments(obj, args_kwargs=True).items() if v and args}
        fields = [':returns: '+v if k=='return' else f':param {k}: {v}' for k, v in said.items()]
        if getattr(node, 'bases', None): doc += f"\n\nA kind of `{', '.join(map(ast.unparse, node.bases))}`."
    head = [f'````{{py:{kind}}} {name}{args}', f':module: resnet_course.{module}']
    return '\n'.join([*head, '', doc, '', *fields, '', built, '````'])


def link(name):
    "Leads to where a name is defined, even if it is a plain word"
    home = exported().get(name)
    return f'{{py:obj}}`~resnet_course.{home}.{name}`' if home else f'`{name}`'


def api(docname, text):
    "A module's page: its text tells what it exports, fastcore what the comments beside parameters say"
    module,what = Path(docname).name,ast.get_docstring(ast.parse(text))
    stem,names,objects = built_in(module),definitions(text),import_module(f'resnet_course.{module}')
    own = {name: here for name, here in names.items() if here}
    passed = ', '.join(link(name) for name in names if name not in own)
    beside = ', '.join(f'[`{f.stem}`]({f.name})' for f in MODULES if f.stem!=module and built_in(f.stem)==stem)
    kinds = {name: type(here[0]) for name, here in own.items()}
    example = max(names, key=lambda name: [kinds.get(name) is kind for kind in (ast.ClassDef, ast.FunctionDef)])
    place = 'the appendix' if chapter(stem) is None else f'chapter {chapter(stem)}'
    parts = [f'---\nmyst: {json.dumps({"html_meta": {"description": what.replace("`", "")}})}\n---',
             f'# {module}', f'> {what}', f'```python\nfrom resnet_course.{module} import {example}\n```']
    if beside: parts.append(f'From the same notebook, [{place}](../nbs/{stem}.ipynb): {beside}.')
    if passed: parts.append(f'Built elsewhere, imported from here as well: {passed}.')
    for name, (node, cell) in own.items():
        heading,anchor = heading_of(stem, cell)
        where = f'[{place}](../nbs/{stem}.ipynb)'
        if heading: where = f'[{place}, "{heading}"](../nbs/{stem}.ipynb#{anchor})'
        parts.append(describe(name, node, getattr(objects, name), module, text, f'Built in {where}.'))
    return '\n\n'.join(parts)


# Events

def read(app, docname, source):
    "What is read now; what the page follows besides is noted, so that it is made again when that changes"
    path = app.env.doc2path(docname)
    if path.suffix=='.ipynb': source[0] = notebook(docname, source[0])
    for file in (*course_map.FILES, *experiments.FILES) if docname=='index' else (): app.env.note_dependency(str(file))
    if path.suffix=='.py':
        source[0] = api(docname, source[0])
        app.env.note_dependency(str(ROOT/'nbs'/f'{built_in(path.stem)}.ipynb'))
    if docname in MADE and PLACE in source[0]:
        make,follows = MADE[docname]
        source[0] = source[0].replace(PLACE, make())
        for file in follows: app.env.note_dependency(str(file))


def target(literal, docname):
    "Where a name in backticks leads; one that is a plain word too, like `group`, leads on only where it is built"
    text,cell = literal.astext(),literal.parent.parent
    words = ''.join(o for o in literal.parent if isinstance(o, nodes.Text))
    alone = isinstance(cell, nodes.entry) and not words.strip(', ')
    if alone and text in [f.stem for f in MODULES]: return 'std', 'doc', f'/resnet_course/{text}'
    found = re.fullmatch(r'(?:resnet_course\.)?(?:\w+\.)?(\w+)(?:\(.*\))?', text)
    name = found and found[1]
    module = exported().get(name)
    if not module: return None
    at_home = docname in (f'resnet_course/{module}', f'nbs/{built_in(module)}')
    if name.isalpha() and name.islower() and not at_home: return None
    return 'py', 'obj', f'resnet_course.{module}.{name}'


def inside(node, kinds):
    while node is not None and not isinstance(node, kinds): node = node.parent
    return node is not None


def link_names(app, doctree):
    for literal in list(doctree.findall(nodes.literal)):
        if inside(literal.parent, (nodes.title, nodes.reference, pending_xref)): continue
        if not (found := target(literal, app.env.docname)): continue
        to = dict(zip(('refdomain', 'reftype', 'reftarget'), found, strict=True))
        link = pending_xref('', **to, refexplicit=True, refdoc=app.env.docname)
        literal.replace_self(link)
        link += literal


def own_words(app, doctree):
    "What a page says it is about stands on its card too"
    for meta in doctree.findall(nodes.meta):
        if meta.get('name')=='description': app.env.metadata[app.env.docname]['og:description'] = meta['content']


def outdated(app, env, added, changed, removed):
    "The first page lists the others"
    return ['index'] if added or removed else []


def setup(app):
    app.connect('source-read', read)
    app.connect('doctree-read', link_names)
    app.connect('doctree-read', own_words)
    app.connect('env-get-outdated', outdated)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
