"Package, notebooks, README and metadata are in step"
import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

import resnet_course

SETTINGS = ConfigParser()
SETTINGS.read(ROOT/'settings.ini')
SETTINGS = SETTINGS['DEFAULT']
NOTEBOOKS = [*sorted((ROOT/'nbs').glob('*.ipynb')), ROOT/'index.ipynb']
MODULES = sorted(f.stem for f in (ROOT/'resnet_course').glob('*.py') if not f.stem.startswith('_'))


def copy_of_tree(tmp_path):
    listing = ['git', 'ls-files', '-co', '--exclude-standard', '-z']
    files = subprocess.check_output(listing, cwd=ROOT, text=True).split('\0')
    for name in filter(None, files):
        if not (ROOT/name).exists(): continue
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/name).write_bytes((ROOT/name).read_bytes())
    return {name: (tmp_path/name).read_bytes() for name in files if name and (tmp_path/name).exists()}


def test_export_clean_and_readme_change_nothing(tmp_path):
    before = copy_of_tree(tmp_path)
    for words in (['-c', 'from nbdev.export import nb_export; from nbdev.doclinks import nbdev_export; nbdev_export()'],
                  ['-c', 'from nbdev.clean import nbdev_clean; nbdev_clean("nbs"); nbdev_clean("index.ipynb")'],
                  ['tools/readme.py', '--check']):
        subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    changed = [name for name, data in before.items() if (tmp_path/name).read_bytes() != data]
    assert not changed, f"{changed} out of step: run nbdev-export, nbdev-clean and python tools/readme.py"


def test_each_module_has_its_notebook():
    def exports(f): return {m[0]: m[1] for m in re.finditer(r'#\| (?:default_exp|export) (\w+)', f.read_text())}
    exported = [module for f in NOTEBOOKS for module in exports(f).values()]
    assert set(MODULES) == set(exported)
    assert len(exported) == len(set(exported)), "a module has one notebook"


def test_one_version(): assert resnet_course.__version__ == SETTINGS['version']


def test_lazy_names():
    from resnet_course import ResNet, create_model
    assert create_model('resnet18', 7).head.out_features == 7 and issubclass(ResNet, object)
    with pytest.raises(AttributeError): _ = resnet_course.nothing


def test_callbacks_can_be_imported_from_where_they_were():
    from resnet_course import callbacks, fast, step
    for name in callbacks.__all__:
        assert name in step.__all__ and name in fast.__all__
        assert getattr(step, name) is getattr(fast, name) is getattr(callbacks, name)


def test_addresses_follow_settings():
    "The repository's address stands in settings.ini; where a notebook must write it out, it is the same"
    owner_and_name = SETTINGS['git_url'].removeprefix('https://github.com/')
    for f in [*NOTEBOOKS, ROOT/'README.md', ROOT/'CONTRIBUTING.md']:
        for m in re.finditer(r'github(?:\.com)?/([\w-]+/resnet_course)\b', f.read_text()):
            assert m[1] == owner_and_name, f"{f.name} has {m[1]}, settings.ini has {owner_and_name}; change it there"


@pytest.mark.parametrize('name', MODULES)
def test_public_names_are_documented(name):
    module = importlib.import_module(f'resnet_course.{name}')
    assert module.__doc__, f"{name} has no docstring: begin its notebook with '> one line'"
    for public in module.__all__:
        thing = getattr(module, public)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)): continue
        inherited = getattr(thing.__mro__[1], '__doc__', None) if inspect.isclass(thing) else None
        assert thing.__doc__ and thing.__doc__ != inherited, f"{name}.{public} has no docstring"


def imports(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import): yield from (a.name.split('.')[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level: yield node.module.split('.')[0]


def private_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').startswith('resnet_course')):
            yield from (a.name for a in node.names if a.name.startswith('_') and not a.name.startswith('__'))


def test_private_names_stay_in_their_module():
    "The book's `_conv_block` is public in all but its name"
    files = [f for folder in ('resnet_course', 'bench', 'tools', 'docs/_ext') for f in (ROOT/folder).glob('*.py')]
    found = {f.name: set(private_imports(f)) - {'_conv_block'} for f in files}
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize('name', MODULES)
def test_modules_fit_a_reading(name):
    lines = (ROOT/'resnet_course'/f'{name}.py').read_text().count('\n')
    assert lines <= 300, f"{name} has {lines} lines: give a part of it a module of its own"


def code_of(path):
    if path.suffix == '.py': return path.read_text()
    cells = [''.join(c['source']) for c in json.loads(path.read_text())['cells'] if c['cell_type'] == 'code']
    return '\n'.join(re.sub(r'^(\s*)[!%].*', r'\1pass', c, flags=re.M) for c in cells)


def declared(*keys): return {re.split(r'[<>=!~\[]', line)[0].lower() for key in keys for line in SETTINGS[key].split()}


@pytest.mark.slow
@pytest.mark.parametrize('folder, keys', [
    ('resnet_course', ['requirements', 'pretrained_requirements', 'ship_requirements', 'serve_requirements']),
    *((folder, ['requirements', 'dev_requirements']) for folder in ('tests', 'tools', 'bench')),
    ('nbs', ['requirements', 'colab_requirements']),
])
def test_every_import_is_declared(folder, keys):
    homes = [folder, *(['bench', 'tools', 'docs/_ext'] if folder == 'tests' else [])]  # what tests put on their path
    own = {'resnet_course', 'conftest'}.union(f.stem for home in homes for f in (ROOT/home).glob('*.py'))
    own |= set(sys.stdlib_module_names)
    distributions = packages_distributions()
    for f in [*(ROOT/folder).glob('*.py'), *(ROOT/folder).glob('[!.]*.ipynb')]:
        if f.name == '_nbdev.py': continue  # nbdev-export reads it, nobody else
        for name in set(imports(code_of(f))) - own:
            owners = {d.lower() for d in distributions.get(name, [name])}
            if folder == 'nbs' and owners == {'ipython'}: continue  # it runs the notebook
            assert owners & declared(*keys), \
                f"{f.name} imports {name}; declare one of {owners} in settings.ini {keys[-1]}"


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package(tmp_path):
    copy_of_tree(tmp_path/'tree')
    def python(*words): subprocess.run([sys.executable, *words], check=True, capture_output=True)
    python('-m', 'build', '--no-isolation', '-o', tmp_path/'dist', tmp_path/'tree')
    for f in (tmp_path/'dist').iterdir():
        target = tmp_path/f.name.replace('.', '_')
        python('-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation', '--target', target, f)
        code = "import resnet_course, resnet_course.models as m; print(resnet_course.__file__); m.create_model"
        environment = {'PYTHONPATH': str(target)}
        where = subprocess.check_output([sys.executable, '-c', code], cwd=tmp_path, text=True, env=environment)
        assert where.startswith(str(target))
        assert (target/'resnet_course'/'py.typed').is_file(), "without it, type checkers skip it"
        assert sorted(m.stem for m in (target/'resnet_course').glob('*.py') if not m.stem.startswith('_')) == MODULES


@pytest.mark.parametrize('path', sorted((ROOT/'results').rglob('*.json')), ids=lambda p: p.stem)
def test_records_are_json_for_everybody(path):
    "Python writes NaN, and no browser reads it"
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f'{path.name} has {word}'))


@pytest.mark.parametrize('path', sorted((ROOT/'results').glob('*.json')), ids=lambda p: p.stem)
def test_recorded_experiments_are_complete(path):
    "A number in the prose can be traced: command, commit, data, machine, versions, three seeds or more, each epoch"
    result = json.loads(path.read_text())
    assert {'name', 'what', 'command', 'commit', 'data', 'machine', 'versions', 'precision', 'runs'} <= set(result)
    assert result['name'] == path.stem and re.fullmatch('[0-9a-f]{40}', result['commit'])
    assert {'source', 'train', 'val', 'copy'} <= set(result['data'])
    seeds = {}
    for run in result['runs']:
        seeds.setdefault(run.get('variant'), []).append(run['seed'])
        assert [h['epoch'] for h in run['history']] == list(range(1, len(run['history'])+1))
        every = result.get('recipe', {}).get('validate', 'every') == 'every'
        assert all(0 < h['accuracy'] < 1 for h in run['history'][0 if every else -1:])
        assert all(h['seconds'] > 0 for h in run['history'])
    assert all(len(set(s)) == len(s) >= 3 for s in seeds.values()), seeds
    if 'variants' in result: assert set(seeds) == set(result['variants'])
