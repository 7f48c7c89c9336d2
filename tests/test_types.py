"Names and types as an editor sees them: what `dir` lists, what mypy passes and finds; importing brings no torch"
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import resnet_course

USER = '''\
from resnet_course import CourseError, ResNet, create_model
from resnet_course.cost import cost_table
from resnet_course.data import get_data
from resnet_course.recipes import RECIPES, train
from resnet_course.train import get_learner
net: ResNet = ResNet(10, [2,2,2,2])
big, small = ResNet(1000, [3,4,6,3], 4, width=32), create_model('resnet18', 10, width=16)
dls = get_data('digits', 48, 48, bs=64, workers=None)
try: learn = get_learner(dls, net, precision='fp32', metrics=[])
except CourseError as e: print(str(e))
print(cost_table(net, 64), cost_table(small, 32, channels=1), train(RECIPES['fast'], 'digits').accuracy)
'''
WRONG = {
    'ResNet(10, [2,2,2,2], expansion="four")': 'Argument "expansion" to "ResNet" has incompatible type "str"',
    "get_data('digits', '48', 48)": 'Argument 2 to "get_data" has incompatible type "str"',
    'ResNet(10, [2,2,2,2], depth=18)': 'Unexpected keyword argument "depth" for "ResNet"',
    'create_model(18)': 'Argument 1 to "create_model" has incompatible type "int"',
    "get_learner(dls, net, 16)": 'Argument 3 to "get_learner" has incompatible type "int"',
    "train('fast', 'digits', resume='yes')": 'Argument "resume" to "train" has incompatible type "str"',
    "cost_table(net, '64')": 'Argument 2 to "cost_table" has incompatible type "str"',
    'from resnet_course import resnet_18': 'Module "resnet_course" has no attribute "resnet_18"',
}
CONFIG = '''\
[mypy]
[mypy-torch.*,torchvision.*,fastai.*,fastcore.*,numpy.*,pandas.*,PIL.*]
follow_imports = skip
'''  # their types are theirs; following them takes minutes


def mypy(folder, code):
    "What mypy says of a user's code, in the user's folder: `{line: message}`"
    (folder/'user.py').write_text(code)
    (folder/'mypy.ini').write_text(CONFIG)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))  # found as an installed package is
    said = subprocess.run([sys.executable, '-m', 'mypy', '--cache-dir', folder/'cache', 'user.py'], cwd=folder,
                          env={**os.environ, 'PYTHONPATH': path}, capture_output=True, text=True, check=False)
    assert said.returncode < 2, said.stdout + said.stderr
    return {int(line): text for line, text in re.findall(r'^user.py:(\d+): error: (.*)$', said.stdout, re.M)}


@pytest.mark.slow
def test_mypy_passes_right_lines_and_finds_wrong_ones(tmp_path):
    found = mypy(tmp_path, USER + '\n'.join(WRONG) + '\n')
    first = USER.count('\n') + 1
    assert set(found) == {*range(first, first+len(WRONG))}, found
    for n, message in enumerate(WRONG.values(), first): assert message in found[n], (n, found[n])


def test_public_names_are_listed_and_importing_brings_no_torch():
    code = ("import sys, resnet_course; print(*dir(resnet_course)); assert 'torch' not in sys.modules; "
            "from resnet_course import *; import pydoc; print(pydoc.plain(pydoc.render_doc(resnet_course)))")
    listed, *told = subprocess.check_output([sys.executable, '-c', code], cwd=ROOT, text=True).splitlines()
    assert {'__version__', *resnet_course.__all__} <= set(listed.split())
    shown = '\n'.join(told)
    assert 'class ResNet(' in shown and 'create_model(name: str' in shown and 'class CourseError(' in shown
