"The documentation site, built with: sphinx-build -W -b html -c docs . _build/html"
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT/'docs'/'_ext')]
parser = ConfigParser()
parser.read(ROOT/'settings.ini')
settings = parser['DEFAULT']
owner,repository = settings['git_url'].split('/')[-2:]

project = settings['lib_name']
author = settings['author']
release = settings['version']
tagline = settings['description']
copyright = f"{author}; {settings['license']}"

# What is read, and by whom
root_doc = 'index'
include_patterns = ['index.ipynb', 'nbs/[0-9]*.ipynb', 'docs/*.md', 'resnet_course/[a-z]*.py']
exclude_patterns = ['_build']
extensions = ['myst_nb', 'sphinx_copybutton', 'sphinx.ext.githubpages', 'sphinx.ext.viewcode', 'sphinxext.opengraph',
              'sources', 'glossary', 'mathml', 'play', 'guess', 'menu', 'chapters', 'front', 'finding', 'whole_site']
source_suffix = {'.ipynb': 'myst-nb', '.md': 'myst-nb', '.py': 'myst-nb'}
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'deflist', 'fieldlist', 'alert', 'attrs_inline']
myst_heading_anchors = 4
nb_execution_mode = 'off'
nb_merge_streams = True
nb_code_prompt_show = 'Show the code'
nb_code_prompt_hide = 'Hide the code'
nb_output_stderr = 'remove'
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {}
html_math_renderer = 'mathml'
html_scaled_image_link = False
add_module_names = False
toc_object_entries_show_parents = 'hide'
copybutton_exclude = '.linenos, .gp, .go'

# What others are told: networks that show a link, and search engines
html_baseurl = f'https://{owner}.github.io/{repository}/'
ogp_site_url = html_baseurl
ogp_type = 'article'
ogp_image = '_static/card.png'
ogp_image_alt = f'{project}: {tagline}'
ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image"/>']

# How it looks
html_theme = 'sphinx_book_theme'
html_title = project
html_static_path = ['_static']
html_css_files = ['icons.css', 'style.css']
html_js_files = ['site.js']
html_favicon = '_static/favicon.svg'
html_logo = '_static/favicon.svg'
html_additional_pages = {'404': '404.html'}
html_context = {  # of page 404, which is shown at any address
    'site': html_baseurl, 'logo': (ROOT/'docs'/'_static'/'favicon.svg').read_text()}
html_sidebars = {'**': ['site-logo.html', 'icon-links.html', 'search-button-field.html', 'site-menu.html']}
templates_path = ['_templates']
html_show_sphinx = False
html_theme_options = dict(
    repository_url=settings['git_url'], repository_branch='main', use_repository_button=True,
    launch_buttons={'colab_url': 'https://colab.research.google.com'},
    logo={'text': project, 'alt_text': ''}, navbar_persistent=[], show_navbar_depth=1, show_toc_level=1,
    pygments_light_style='a11y-high-contrast-light', pygments_dark_style='github-dark',
)
