"What stands around the code agrees with it: citation, changelog, issue form, hooks, workflows, git attributes"
import json
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from resnet_course.cli import make_parser

SETTINGS = ConfigParser()
SETTINGS.read(ROOT/'settings.ini')
SETTINGS = SETTINGS['DEFAULT']
WORKFLOWS = sorted((ROOT/'.github'/'workflows').glob('*.y*ml'))
GIVERS = ('actions/', 'pypa/gh-action-pypi-publish@')  # whose actions a workflow may use


def read(name): return yaml.safe_load((ROOT/name).read_text())


def git(*words, cwd=ROOT): return subprocess.check_output(['git', *words], cwd=cwd, text=True)


def tool(name):
    "Where the command of a hook is: beside this Python, or on the path"
    return shutil.which(name.split()[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))


def test_citation_follows_settings():
    cited = read('CITATION.cff')
    assert cited['cff-version'] == '1.2.0' and cited['message'] and cited['type'] == 'software'
    assert cited['authors'] == [{'name': SETTINGS['author']}] and cited['keywords'] == SETTINGS['keywords'].split()
    for key, of_settings in dict(title='lib_name', version='version', abstract='description', license='license',
                                 **{'repository-code': 'git_url'}).items():
        assert cited[key] == SETTINGS[of_settings], key


def test_issue_form_asks_for_doctor():
    parts = read('.github/ISSUE_TEMPLATE/bug.yaml')['body']
    assert len({p['id'] for p in parts}) == len(parts) and all(p['attributes']['label'] for p in parts)
    asked = [p for p in parts if 'resnet-course doctor' in p['attributes']['label']]
    assert len(asked) == 1 and asked[0]['validations']['required']
    assert make_parser().parse_args(['doctor']).command == 'doctor'


def test_hooks_fetch_nothing_and_are_there():
    repos = read('.pre-commit-config.yaml')['repos']
    assert [r['repo'] for r in repos] == ['local'] and tool('pre-commit')
    hooks = {h['id']: h for h in repos[0]['hooks']}
    assert {'nbdev-clean', 'nbdev-export', 'ruff'} <= set(hooks)
    for hook in hooks.values(): assert hook['language'] == 'system' and tool(hook['entry']), hook['id']


def needs(job): return [job['needs']] if isinstance(job.get('needs'), str) else job.get('needs', [])


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.stem)
def test_workflows(path):
    "Named as their file, bounded in time, with actions of few givers, calling files and tools that are there"
    workflow = yaml.safe_load(path.read_text())
    assert workflow['name'] == path.stem
    for name, job in workflow['jobs'].items():
        assert set(needs(job)) <= set(workflow['jobs'])
        if 'uses' in job:
            called = read(job['uses'])
            assert 'workflow_call' in called[True]  # YAML reads `on` as true
            continue
        assert 'timeout-minutes' in job, f"{name} has no timeout-minutes"
        for step in job['steps']:
            if 'uses' in step: assert step['uses'].startswith(GIVERS), step['uses']
            for file in re.findall(r'python (\S+\.py)', step.get('run', '')): assert (ROOT/file).is_file(), file
            assert step.keys() & {'uses', 'run'}


def test_a_release_is_tested_and_built_before_it_is_published_without_a_password():
    jobs = read('.github/workflows/release.yaml')['jobs']
    assert any('tools/release.py "$GITHUB_REF_NAME"' in s.get('run', '') for s in jobs['build']['steps'])
    assert jobs['test']['uses'] == './.github/workflows/test.yaml' and set(needs(jobs['publish'])) == {'test', 'build'}
    assert jobs['publish']['permissions'] == {'id-token': 'write'}
    assert 'password' not in str(jobs) and 'secrets' not in str(jobs)


@pytest.mark.parametrize('tag, heading, wrong', [
    ('v{}', '## [{}] - 2026-12-01', None),
    ('{}', '## [{}] - 2026-12-01', 'is not v'),
    ('v{}.1', '## [{}] - 2026-12-01', 'is not v'),
    ('v{}', '## [{}]', 'CHANGELOG.md tells nothing'),
    ('v{}', '## [9{}] - 2026-12-01', 'CHANGELOG.md tells nothing'),
    ('v{}', '## [{}] - 2026-12-01\n\n## [older] - 2026-01-01\n', 'CHANGELOG.md tells nothing')])
def test_a_tag_is_the_version_and_the_changelog_tells_of_it(tmp_path, tag, heading, wrong):
    (tmp_path/'tools').mkdir()
    for name in ('tools/release.py', 'settings.ini'): shutil.copy(ROOT/name, tmp_path/name)
    version = SETTINGS['version']
    sections = '## [Unreleased]', heading.format(version), '- It began.', '## [0.0.1] - 2026-01-01', '- No.'
    (tmp_path/'CHANGELOG.md').write_text('\n\n'.join(sections))
    done = subprocess.run([sys.executable, tmp_path/'tools'/'release.py', tag.format(version)],
                          capture_output=True, text=True, check=False)
    if wrong: assert done.returncode == 1 and wrong in done.stderr and done.stderr.count('\n') == 1
    else: assert (done.returncode, done.stdout) == (0, '- It began.\n')


def test_changelog_has_what_is_unreleased():
    text = (ROOT/'CHANGELOG.md').read_text()
    headings = re.findall(r'^## (.*)', text, re.M)
    assert headings[0] == '[Unreleased]'
    assert all(re.fullmatch(r'\[[\d.]+\] - \d{4}-\d\d-\d\d', h) for h in headings[1:])
    assert set(re.findall(r'^### (.*)', text, re.M)) <= {*'Added Changed Deprecated Removed Fixed Security'.split()}
    for h in headings: assert f"\n{h.split(' ')[0]}: {SETTINGS['git_url']}/" in text, f"{h} has no link"


def test_git_knows_what_is_made_and_how_notebooks_merge(tmp_path, monkeypatch):
    "`nbdev-install-hooks` defines the drivers that .gitattributes names, and finds nothing to add to it"
    (tmp_path/'.gitattributes').write_bytes((ROOT/'.gitattributes').read_bytes())
    monkeypatch.setenv('HOME', str(tmp_path/'home'))
    (tmp_path/'home').mkdir()
    git('init', '-q', cwd=tmp_path)
    subprocess.run([tool('nbdev-install-hooks')], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path/'.gitattributes').read_bytes() == (ROOT/'.gitattributes').read_bytes()
    assert git('config', 'merge.jupyternotebook.driver', cwd=tmp_path).startswith('nbdev-merge')

    def attributes(name):
        return dict(line.split(': ')[1:] for line in git('check-attr', '-a', name, cwd=tmp_path).splitlines())
    assert attributes('nbs/07_resnet.ipynb')['merge'] == 'jupyternotebook'
    for f in (ROOT/'resnet_course').glob('*.py'):
        made = 'autogenerated' in f.read_text()[:500].lower()
        assert (attributes(f'resnet_course/{f.name}')['linguist-generated'] == 'set') == made, f.name


def test_dev_container_is_json_and_dependabot_looks_here():
    container = json.loads((ROOT/'.devcontainer'/'devcontainer.json').read_text())
    assert "pip install -e '.[dev]'" in container['postCreateCommand']
    assert int(re.search(r'python:3\.(\d+)$', container['image'])[1]) >= 11
    updates = read('.github/dependabot.yml')['updates']
    assert {(u['package-ecosystem'], u['directory']) for u in updates} == {('pip', '/'), ('github-actions', '/')}


def test_ruff_finds_nothing():
    "As the pre-commit hook and CI run it, notebooks and all"
    words = [sys.executable, '-m', 'ruff', 'check', '--no-cache']
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
