"A chapter among the others: what stands under its title, and links wherever another one is named"
import re
from html import escape

from docutils import nodes

import course_map

FACTS = {file.stem: course_map.facts(file) for file in course_map.FILES}
STEMS = {course_map.number(stem): stem for stem in FACTS}
NAMED = re.compile(r'\b[Cc]hapters? \d+b?(?:(?:, and |, | and | or | to )\d+b?\b)*')
BOOK = re.compile(r"(?:book's|book,|20\d\d,|^[,:]) $")  # a source's chapter, not ours


def minutes(facts):
    "What a chapter takes, in words"
    more = f"{facts['exercises']} min of exercises" if facts['exercises'] else ''
    return [f"{facts['reading']} min to read", *([more] if more else [])]


def where(app, name):
    "The address of a notebook in Colab"
    repository = app.config.html_theme_options['repository_url'].removeprefix('https://github.com/')
    return f'https://colab.research.google.com/github/{repository}/blob/main/{name}.ipynb'


def bar(app, page, context):
    "Minutes, Colab, download, previous and next"
    number = course_map.number(page.split('/')[1])
    facts = FACTS.get(page.split('/')[1])
    said = [f'Chapter {number}', *minutes(facts), f"runs in {facts['running']}"] if facts else ['Appendix']
    source = context['pathto'](f'_sources/{page}.ipynb', 1)
    ways = [f'<a class="button" href="{where(app, page)}">Open in Colab</a>',
            f'<a class="button" href="{source}" download>Download</a>']
    turns = [f'<a rel="{rel}" href="{context[rel]["link"]}">{text.format(context[rel]["title"])}</a>'
             for rel, text in (('prev', '← {}'), ('next', '{} →')) if context.get(rel)]
    return (f'<div class="chapter-bar"><p class="facts">{escape(" · ".join(said))}</p>'
            f'<p class="ways">{" ".join(ways)}</p><p class="turns">{" ".join(turns)}</p></div>')


def dress(app, page, template, context, doctree):
    if not page.startswith('nbs/'): return
    under = r'</h1>(?:\s*<blockquote>.*?</blockquote>)?'
    context['body'] = re.sub(under, lambda m: m[0]+bar(app, page, context), context['body'], count=1, flags=re.S)


def linked(text, own, uri):
    "The parts of a text, with a link for each chapter that it names"
    done,named = 0,list(NAMED.finditer(text))
    for m in named if not BOOK.search(text[:named[0].start()]) else []:
        numbers = list(re.finditer(r'(?:[Cc]hapter )?\d+b?', m[0]))
        for n in numbers:
            stem = STEMS.get(n[0].split()[-1])
            if not stem or stem==own: continue
            yield nodes.Text(text[done:m.start()+n.start()])
            yield nodes.reference('', n[0], refuri=uri(f'nbs/{stem}'), internal=True, reftitle=FACTS[stem]['title'])
            done = m.start()+n.end()
    yield nodes.Text(text[done:])


def link_chapters(app, doctree, docname):
    if not docname.startswith(('nbs/', 'docs/')): return
    own,running = docname.split('/')[1],(nodes.paragraph, nodes.emphasis, nodes.strong)
    def uri(name): return app.builder.get_relative_uri(docname, name)
    for paragraph in doctree.findall(nodes.paragraph):
        for text in [t for t in paragraph.findall(nodes.Text) if isinstance(t.parent, running)]:
            if not NAMED.search(text): continue
            parts = [part for part in linked(text.astext(), own, uri) if part.astext()]
            if len(parts) > 1: text.parent.replace(text, parts)


def setup(app):
    app.connect('html-page-context', dress)
    app.connect('doctree-resolved', link_chapters)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
