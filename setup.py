"All metadata comes from settings.ini, so that a number or a name is written once"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).parent
config = ConfigParser()
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

setup(
    version=cfg['version'],
    description=cfg['description'],
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    license=cfg['license'],
    url=cfg['git_url'],
    keywords=cfg['keywords'].split(),
    packages=find_packages(include=['resnet_course', 'resnet_course.*']),
    package_data={'resnet_course': ['py.typed', 'pretrained/*']},  # weights and the card beside them
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split()
                    for extra in ('dev', 'pretrained', 'ship', 'serve', 'colab')},  # the last: what the chapters import
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"]},
)
