"Links a word of the glossary where a chapter says it for the first time"
import re
from functools import cache
from pathlib import Path

from docutils import nodes

FILE = Path(__file__).resolve().parent.parent/'glossary.md'
NO_PLACE = nodes.reference, nodes.literal, nodes.title, nodes.image


@cache
def words():
    "A pattern for each word and the anchor of its entry; the long ones first, as one may hold another"
    found = re.findall(r'^### (.+)$', FILE.read_text(), re.M)
    def pattern(word): return re.compile(rf'(?<![\w-]){re.escape(word)}(?:e?s)?(?![\w-])', re.I)
    def anchor(word): return re.sub(r'[^\w -]', '', word.lower()).replace(' ', '-')
    return [(pattern(word), anchor(word)) for word in sorted(found, key=len, reverse=True)]


def places(doctree):
    "Running text, in the order in which it is read"
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.block_quote): continue  # the line under the title
        for text in list(paragraph.findall(nodes.Text)):
            node = text
            while node is not paragraph and not isinstance(node, NO_PLACE): node = node.parent
            if node is paragraph: yield text


def link_words(app, doctree, docname):
    if not docname.startswith('nbs/'): return
    page = app.builder.get_relative_uri(docname, 'docs/glossary')
    for pattern, anchor in words():
        for text in places(doctree):
            if not (m := pattern.search(text)): continue
            link = nodes.reference('', m[0], refuri=f'{page}#{anchor}', internal=True, classes=['word'])
            parts = [nodes.Text(text[:m.start()]), link, nodes.Text(text[m.end():])]
            text.parent.replace(text, [p for p in parts if p.astext()])
            break


def follow(app, docname, source):
    if docname.startswith('nbs/'): app.env.note_dependency(str(FILE))


def setup(app):
    app.connect('source-read', follow)
    app.connect('doctree-resolved', link_words)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
