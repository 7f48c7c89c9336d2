"The menu, listed once: the theme makes it anew for each page, which took a third of the build"
from sphinx import addnodes


def parts(env):
    "Each part's caption and its pages with their titles"
    listed = env.tocs[env.config.root_doc].findall(addnodes.toctree)
    return [(toc['caption'], [(name, env.titles[name].astext()) for name in toc['includefiles']]) for toc in listed]


def give(app, page, template, context, doctree):
    if not hasattr(app.builder, 'menu'): app.builder.menu = parts(app.env)
    context['menu'] = app.builder.menu


def setup(app):
    app.connect('html-page-context', give)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
