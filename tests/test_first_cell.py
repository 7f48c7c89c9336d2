"The first cell of a notebook makes ready for it wherever it is opened, with the package or without"
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager

NOTEBOOKS = [f for f in sorted((ROOT/'nbs').glob('[!.]*.ipynb')) if f.stem != '90_exercise']  # which needs nothing
SHELL = """
import json, os, shutil, sys
asked, clone = [], sys.argv[1]
class Shell:  # what the cell asks of IPython
    def system(self, words):
        asked.append(words)
        shutil.copytree(clone, 'resnet_course')
    def run_line_magic(self, name, words): asked.append(f'{name} {words}')
def get_ipython(): return Shell()
exec(sys.stdin.read())
print(json.dumps([os.getcwd(), asked]))
"""
CLONE, INSTALL = 'git clone -q https://github.com/resnet-course/resnet_course', "pip install -q '..[colab]'"


def first_cell(file):
    cells = [''.join(c['source']) for c in json.loads(file.read_text())['cells'] if c['cell_type'] == 'code']
    first, = (cell for cell in cells if 'git clone' in cell)
    assert not any('resnet_course' in cell for cell in cells[:cells.index(first)]), file
    return first


def test_all_notebooks_have_the_same(): assert {first_cell(f) for f in NOTEBOOKS} == {first_cell(NOTEBOOKS[0])}


@pytest.mark.parametrize('there, where, package, wanted', [
    (False, '', False, [CLONE, INSTALL]),                # a new machine
    (True, '', True, []),                                # the same, its kernel restarted
    (True, '', False, [INSTALL]),                        # another kernel; the clone is no package
    (False, '', True, [CLONE]),                          # from elsewhere; chapters read files of the clone
    (True, 'resnet_course/nbs', True, []), (True, 'resnet_course/nbs', False, [INSTALL]),
    (True, 'resnet_course', True, []),                   # an editor that starts notebooks in the folder it has open
])
def test_it_ends_in_nbs_with_the_package(tmp_path, there, where, package, wanted):
    for clone in ('origin', *(['work/resnet_course'] if there else [])):
        for name in ('nbs/00_data.ipynb', 'resnet_course/__init__.py', 'settings.ini'):
            (tmp_path/clone/name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path/clone/name).touch()
    (tmp_path/'site'/'resnet_course').mkdir(parents=True)
    if package: (tmp_path/'site'/'resnet_course'/'__init__.py').touch()
    work = tmp_path/'work'
    work.mkdir(exist_ok=True)
    path = os.pathsep.join([str(work), str(tmp_path/'site')])  # Colab has its first folder on the path
    done = subprocess.run(
        [sys.executable, '-S', '-c', SHELL, tmp_path/'origin'], cwd=work/where, env={**os.environ, 'PYTHONPATH': path},
        input=TransformerManager().transform_cell(first_cell(NOTEBOOKS[0])), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [str(work/'resnet_course'/'nbs'), wanted]
