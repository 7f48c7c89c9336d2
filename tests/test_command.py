"The command as a person types it"
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import SMALL_NET, a_class_of_one, slow

from resnet_course import CourseError
from resnet_course.data import image_files
from resnet_course.onnx_files import calibration_images
from resnet_course.run_folder import read_config


def started(*words, **kwargs):
    words = [sys.executable, '-m', 'resnet_course', *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True, check=False, **kwargs)


def run(*words, **kwargs):
    done = started(*words, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_command_is_the_module():
    command = shutil.which('resnet-course', path=str(Path(sys.executable).parent))
    assert command, "resnet-course is not beside this python; run: pip install -e '.[dev]'"
    assert subprocess.check_output([command, '--version'], text=True) == run('--version')


@pytest.mark.slow
def test_main_job(tmp_path):
    "No arguments: embedded data, progressive resizing, at least 97% on the held-out images, and a next step"
    out = run('train', cwd=tmp_path)
    assert 'size 32' in out and 'size 48' in out and 'next: resnet-course predict' in out
    folder = next((tmp_path/'runs').iterdir())
    expected = {'config.json', 'history.csv', 'curves.png', 'confusion.png', 'model.safetensors'}
    assert {f.name for f in folder.iterdir()} >= expected
    import pandas as pd
    assert pd.read_csv(folder/'history.csv').accuracy.iloc[-1] >= 0.97
    config = json.loads((folder/'config.json').read_text())
    assert config['counts'] == {'train': 1433, 'val': 364} and {'torch', 'fastai', 'python'} <= set(config['versions'])


@pytest.mark.slow
def test_learning_rate_from_the_finder_then_predict(command, small, tmp_path, monkeypatch):
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    words = ['--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', '2', '--lr', 'auto']
    status, out, err = command('train', *words)
    assert status == 0, err
    assert 'learning rate from the finder' in out
    assert not list((tmp_path/'here').iterdir())
    images = sorted((small/'val').glob('*/*.png'))
    status, out, _ = command('predict', tmp_path/'run'/'model.safetensors', *images, '--json')
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and len(rows) == len(images)
    assert all(sum(r['classes'].values()) == pytest.approx(1) and set(r['classes']) == {'3', '7'} for r in rows)


@pytest.mark.parametrize('recipe, valid_scale', [('fast', 1.), ('fast', 7/8), ('book', 1.)])
def test_predict_agrees_with_validation(small, recipe, valid_scale):
    "An image is prepared for a prediction as it is for validation"
    import torch
    from resnet_course.data import get_data
    from resnet_course.fast import fast_data
    from resnet_course.predict import predict
    from resnet_course.resnet import ResNet
    torch.manual_seed(0)
    make_data = get_data if recipe == 'book' else partial(fast_data, valid_scale=valid_scale)
    dls = make_data(small, 40, 33, bs=8, workers=0)
    model = ResNet(2, [1, 1, 1, 1], width=8).eval()
    with torch.no_grad(): expected = model(dls.valid.one_batch()[0]).softmax(1)
    spec = dict(presize=40, size=33, pipeline=recipe, valid_scale=valid_scale, classes=list(dls.vocab))
    for fn, p in zip(dls.valid_ds.items, expected, strict=True):
        assert predict(model, spec, fn)[list(dls.vocab)].tolist() == pytest.approx(p.tolist(), abs=1e-5)


@pytest.mark.parametrize('recipe, optimiser', [('fast', 'fused Adam'), ('book', 'Adam'), ('laptop', 'Muon')])
def test_recipe(command, small, tmp_path, recipe, optimiser):
    words = ['--recipe', recipe, '--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', '2', '--lr', '0.01']
    assert command('train', *words)[0] == 0
    ran = json.loads((tmp_path/'run'/'config.json').read_text())['recipe']
    assert (ran['pipeline'] == 'book') == (recipe == 'book')
    assert (ran['optimiser'], ran['sizes'], ran['lr']) == (optimiser, [32, 32], 0.01)
    assert (small/'.resnet_course').exists() == (recipe != 'book')
    status, out, _ = command('clean', small)
    assert status == 0 and '0 MB given back' in out and not (small/'.resnet_course').exists()


def test_laptop_recipe_has_a_size_for_each_epoch():
    from resnet_course.options import recipe_of
    from resnet_course.recipes import RECIPES
    laptop = recipe_of({'recipe': 'laptop', 'data': 'digits'})
    assert laptop == RECIPES['laptop'] and laptop.valid_scale == 7/8 and recipe_of({}).valid_scale == 1
    assert recipe_of({'recipe': 'laptop', 'data': 'digits', 'epochs': 4}).sizes == (64, 64, 96, 128)


@pytest.mark.parametrize('words, validate', [('', 'every'), ('--validate every', 'every'), ('--validate last', 'last'),
                                             ('--validate 3', 3)])
def test_when_it_validates(words, validate):
    from resnet_course.cli import make_parser
    from resnet_course.options import recipe_of
    assert recipe_of(vars(make_parser().parse_args(['train', *words.split()]))).validate == validate


@pytest.mark.parametrize('word', ['0', '-1', '1.5', 'never', ''])
def test_when_it_cannot_validate(refused, word):
    line = refused('train', f'--validate={word}')
    assert '--validate' in line and 'every' in line and 'last' in line


def test_a_run_that_validates_at_the_end_says_so(command, small, tmp_path):
    words = ['--data', small, *SMALL_NET, '--epochs', 3, '--size', 32, '--validate', 2, '--out', tmp_path/'run']
    status, out, _ = command('train', *words)
    seen = ['accuracy' in line for line in out.splitlines() if line.startswith('epoch')]
    assert status == 0 and seen == [False, True, True]
    assert command('train', '--resume', '--out', tmp_path/'run', '--validate', 'every')[0] == 2


@pytest.mark.slow
def test_cost_takes_little_more_than_torch():
    "Not fastai, and not the seconds of imports with which torch computes shapes alone"
    code = ("import sys; from resnet_course.cli import main; main(['cost', 'resnet50', '--size', '224']); "
            "assert not {'fastai', 'sympy', 'torch._dynamo', 'torchvision', 'pandas'} & set(sys.modules)")
    out = subprocess.check_output([sys.executable, '-c', code], text=True)
    assert out.splitlines()[-1].split()[0] == 'total' and '25,576,264' in out


@pytest.mark.slow
def test_a_prediction_waits_for_no_torchvision(done, images):
    "It takes as long to import as torch does"
    code = ("import sys; from resnet_course.cli import main; main(['predict', *sys.argv[1:]]); "
            "assert not {'torchvision', 'sympy', 'torch._dynamo'} & set(sys.modules)")
    photo = next((images/'val').glob('*/*.png'))
    out = subprocess.check_output([sys.executable, '-c', code, done.folder/'model.safetensors', photo], text=True)
    assert photo.name in out


def test_help_needs_no_torch():
    code = ("import sys; from resnet_course.cli import make_parser; make_parser().format_help(); "
            "assert 'torch' not in sys.modules")
    subprocess.check_call([sys.executable, '-c', code])


@pytest.mark.parametrize('stop, status', [('SIGINT', 130), ('SIGTERM', 143)])
@pytest.mark.parametrize('module', ['numpy', 'torch', 'fastai'])
def test_stopped_while_modules_are_imported(tmp_path, module, stop, status):
    "A library that swallows the interrupt, or stumbles over it, changes nothing: no traceback, and no run is begun"
    (tmp_path/f'{module}.py').write_text(
        f"import os, signal\ntry: os.kill(os.getpid(), signal.{stop})\nexcept BaseException: pass\n"
        "raise RecursionError('maximum recursion depth exceeded')\n")
    r = started('train', '--data', 'digits', '--out', tmp_path/'run', env=os.environ | {'PYTHONPATH': str(tmp_path)})
    assert (r.returncode, r.stdout, r.stderr) == (status, '', '') and not (tmp_path/'run').exists()


def test_every_command_has_help(command):
    for name in ('train', 'predict', 'evaluate', 'export', 'serve', 'card', 'cost', 'archs', 'clean', 'doctor'):
        status, out, _ = command(name, '--help')
        assert status == 0 and out.startswith(f'usage: resnet-course {name}')


@pytest.mark.slow
def test_archs(command):
    "A line for each net, in the numbers of its cost table"
    from resnet_course.cost import cost_table
    from resnet_course.models import MODELS, create_model
    status, out, _ = command('archs')
    lines = [line.split() for line in out.splitlines()[1:]]
    assert status == 0 and [line[0] for line in lines] == list(MODELS)
    assert {'nin', 'mobilenet_v2', 'resnet152'} < set(MODELS)
    total = cost_table(create_model('squeezenet1_0')).iloc[-1]
    assert ['squeezenet1_0', f'{total.params:,}', f'{total.MACs:,}'] in lines


@pytest.mark.parametrize('name', [
    'nin', slow('googlenet'), slow('wide_resnet50_2'), slow('resnext50_32x4d'), slow('seresnet50'), slow('resnetv2_50'),
    slow('densenet121'), 'squeezenet1_0', 'mobilenet_v2'])
def test_train_and_predict_by_name(command, small, tmp_path, name):
    words = ['--epochs', '1', '--size', '32', '--presize', '32', '--bs', '12', '--workers', '0']
    status, _, err = command('train', '--arch', name, '--data', small, '--out', tmp_path/'run', *words)
    assert status == 0, err
    status, out, err = command('predict', tmp_path/'run'/'model.safetensors', next((small/'val').glob('3/*.png')))
    assert status == 0 and '%' in out, err


def test_cost_of_own_layers(command):
    status, out, _ = command('cost', '--layers', '1,1,1,1', '--expansion', '4', '--size', '65', '--classes', '10')
    assert status == 0 and out.splitlines()[-1].split()[0] == 'total'


def test_doctor(command):
    status, out, _ = command('doctor')
    assert status == 0
    for word in ('torch', 'fastai', 'cores', 'device:', 'digits: found', 'imagenette-160:'): assert word in out


def test_real_imagenette():
    from fastai.data.external import fastai_path
    from resnet_course.data import find_data, get_data, list_images
    if not (fastai_path('data')/'imagenette2-160').is_dir():
        pytest.skip("Imagenette is not on this machine; resnet-course train --data imagenette-160 downloads it")
    images = list_images(find_data('imagenette-160'))
    assert {split: len(files) for split, files in images.items()} == {'train': 9469, 'val': 3925}
    xb, yb = get_data('imagenette-160', 160, 128, bs=4, workers=0).one_batch()
    assert xb.shape == (4, 3, 128, 128) and len(yb) == 4


# -- the terminal

RUN_FILES = {'checkpoint.pt', 'config.json', 'confusion.png', 'curves.png', 'history.csv', 'model.safetensors',
             'trained.txt'}
full = pytest.param('full', marks=pytest.mark.skipif(not Path('/dev/full').exists(), reason="no /dev/full here"))


@pytest.fixture
def nobody_listens(how):
    "A stream that is closed, on a full disk, or a pipe that nobody reads any more"
    read, write = os.pipe()
    os.close(read)
    if how == 'full':
        os.close(write)
        write = os.open('/dev/full', os.O_WRONLY)
    with os.fdopen(write, 'w') as stream:
        if how == 'closed': stream.close()
        yield stream  # closing it fails if something still waits in it


def status_of(*words):
    from resnet_course.cli import main
    try: main([str(w) for w in words])
    except SystemExit as e: return e.code
    return 0


@pytest.mark.parametrize('how', ['gone', 'closed', full])
def test_a_run_goes_on(small, tmp_path, monkeypatch, memory_given_back, capsys, nobody_listens, how):
    monkeypatch.setattr(sys, 'stdout', nobody_listens)
    assert status_of('train', '--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', '2') == 0
    assert {f.name for f in (tmp_path/'run').iterdir()} == RUN_FILES
    assert (tmp_path/'run'/'history.csv').read_text().count('\n') == 3
    said = capsys.readouterr().err
    assert 'No space left on device' in said and said.count('\n') == 1 if how == 'full' else not said


@pytest.mark.parametrize('how, status, says', [
    ('gone', 141, ''), ('closed', 2, 'standard output: Bad file descriptor'),
    pytest.param('full', 2, 'standard output: No space left on device', marks=full.marks)])
@pytest.mark.parametrize('words', ['train --help', '--version', 'cost nin'])
def test_any_other_command_ends(monkeypatch, capsys, nobody_listens, words, status, says):
    monkeypatch.setattr(sys, 'stdout', nobody_listens)
    assert status_of(*words.split()) == status
    said = capsys.readouterr().err
    assert says in said and said.count('\n') == bool(says)


@pytest.mark.parametrize('how', ['gone', 'closed', full])
def test_a_mistake_that_cannot_be_told(monkeypatch, nobody_listens):
    monkeypatch.setattr(sys, 'stderr', nobody_listens)
    assert status_of('train', '--size', 5) == 2


def in_shell(words, **kwargs):
    words = f'{shlex.quote(sys.executable)} -m resnet_course {words}'
    return subprocess.run(['bash', '-c', words], capture_output=True, text=True, check=False, **kwargs)


def test_no_file_is_taken_for_a_stream_that_was_closed(tmp_path):
    code = ("import os; from resnet_course.terminal import complain, open_streams, say; open_streams(); "
            "f = os.open('it', os.O_CREAT | os.O_RDWR); complain('lost'); os.write(f, str(f).encode()); say('lost')")
    subprocess.run(['bash', '-c', '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], cwd=tmp_path, check=False)
    assert (tmp_path/'it').read_text() == '3'


@pytest.mark.slow
def test_a_run_without_any_stream(small, tmp_path):
    "All three closed: the history is numbers, and nothing that was printed"
    options = ' '.join(map(str, ['--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', 1]))
    assert in_shell(f'train {options} <&- >&- 2>&-').returncode == 0
    assert {f.name for f in (tmp_path/'run').iterdir()} == RUN_FILES
    lines = (tmp_path/'run'/'history.csv').read_text().splitlines()
    assert lines[0].startswith('epoch,') and re.fullmatch(r'[\d.,e-]+', lines[1]) and len(lines) == 2
    for f in ('checkpoint.pt', 'model.safetensors', 'config.json', 'curves.png'):
        assert b'validation images' not in (tmp_path/'run'/f).read_bytes()


@pytest.mark.slow
def test_a_home_where_nothing_can_be_kept(small, tmp_path):
    "As in a container that runs as anybody: no library tells its troubles"
    env = os.environ | {'HOME': '/dev/null', 'FASTAI_HOME': '/dev/null', 'MPLCONFIGDIR': '/dev/null/x'}
    options = ' '.join(map(str, ['--data', small, '--out', tmp_path/'run', *SMALL_NET, '--epochs', 1]))
    done = in_shell(f'train {options}', env=env)
    assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('words, status', [
    ('--help | head -c1; exit ${PIPESTATUS[0]}', (0, 141)), ('--help >&-', (2,)),
    ('--version | true; exit ${PIPESTATUS[0]}', (0, 141)),
    ('train --size 5 2>&-', (2,)), ('train --size 5 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}', (2,))])
def test_as_the_shell_sees_it(words, status):
    done = in_shell(words)
    assert done.returncode in status and 'Exception ignored' not in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.parametrize('encoding', ['ascii', 'latin-1', 'cp1252', 'utf-8', 'utf-16-le', 'shift_jis'])
def test_any_name_in_any_encoding(encoding):
    from resnet_course.terminal import say
    name = 'a\x1b[2J\r\n\u202e中é€\udce9\ud800😀$'
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline='\n')
    say(name, name, to=stream)
    text = raw.getvalue().decode(encoding)
    assert text.count('\n') == 2 and text.endswith('\n') and all(line.isprintable() for line in text.split('\n'))
    assert '\\x1b[2J' in text and '\\udce9' in text
    assert ('中' if encoding in ('utf-8', 'utf-16-le', 'shift_jis') else '\\u4e2d') in text


ODD = ['$a_b$', '\x1b[31mred', os.fsdecode(b'caf\xe9'), '中文 名字', "it's", 'a\nb', '\u202eabc', 'x'*200, '-v', '=1+1']


@pytest.fixture
def odd(small, tmp_path):
    "A data folder in a folder, with classes and images of names that people do give, and of some that they do not"
    root, images = tmp_path/'my $HOME data', sorted(small.glob('*/*/*.png'))
    try:
        for split, part in (('train', images[:12]), ('val', images[12:16])):
            for name in ODD:
                (root/split/name).mkdir(parents=True)
                for i, f in enumerate(part[:3]): shutil.copy(f, root/split/name/f'{name[:9]} {i}.png')
    except OSError: pytest.skip("this file system does not take such names")
    return root


@pytest.mark.slow
def test_odd_names_from_training_to_a_table(command, odd, tmp_path):
    "Nothing reaches the terminal that it would obey; hints can be typed; a table has the names' bytes"
    out = tmp_path/'run of $x'
    words = ['--out', out, *SMALL_NET, '--epochs', '1', '--device', 'cpu']
    done = [command('train', '--data', odd, *words)]
    hints = [shlex.split(line.split(': ', 1)[1].removeprefix('grow the images, ').removeprefix('more epochs, '))
             for line in done[0][1].splitlines() if 'resnet-course' in line]
    assert hints[0][2] == str(out/'model.safetensors') and hints[1][3] == str(odd)
    done.append(command('predict', hints[0][2], odd/'val', '--csv', tmp_path/'it.csv'))
    done.append(command('predict', hints[0][2], *sorted(odd.glob('val/*/*.png'))[:9], '--top', 10))
    done.append(command('predict', hints[0][2], odd/'val', '--json'))
    done.append(command('evaluate', hints[0][2], odd, '--figure', tmp_path/'it.png'))
    for status, said, err in done:
        assert (status, err) == (0, '') and all(line.isprintable() for line in said.split('\n')), said
        said.encode()
    assert b'caf\xe9' in (tmp_path/'it.csv').read_bytes() and (tmp_path/'it.png').read_bytes()[1:4] == b'PNG'
    assert len(done[3][1].splitlines()) == 30 and all(json.loads(line) for line in done[3][1].splitlines())
    assert len(done[4][1].splitlines()) == len(ODD)+4


def hint_of(said): return shlex.split(said.splitlines()[-1].split(': ', 1)[1].partition(', ')[2])


@pytest.mark.parametrize('names, same', [(('3', '7'), True), (('5', '9'), False), (('7', '9'), False)])
def test_a_head_belongs_to_its_classes(done, images, names, same):
    "As many classes as before, and others: the head is a new one, or each would begin as another"
    from resnet_course.model_files import load_model, start_weights
    from resnet_course.models import build_model
    file = done.folder/'model.safetensors'
    model, spec = load_model(file)
    assert spec['classes'] == ['3', '7']
    net = build_model(spec, 2)
    fresh = net.head.weight.clone()
    start_weights(net, file, classes=names)
    assert net.head.weight.equal(model.head.weight if same else fresh)
    assert all(a.equal(b) for a, b in zip([*net.parameters()][:-2], [*model.parameters()][:-2], strict=True))


@pytest.mark.parametrize('kind', ['words', 'folders', 'others'])
def test_the_head_of_named_weights(kind):
    "It is theirs by the classes' words and by their folders, and not by their number"
    from resnet_course.model_files import start_weights
    from resnet_course.models import create_model
    from resnet_course.weight_files import find_weights, own_weights
    known = find_weights('resnet18', 'imagenette')
    classes = {'words': known.classes, 'folders': own_weights(known.file).classes, 'others': 'abcdefghij'}[kind]
    theirs, net = create_model('resnet18', weights='imagenette'), create_model('resnet18', 10, width=32)
    start_weights(net, 'imagenette', 'resnet18', list(classes))
    assert net.head.weight.equal(theirs.head.weight) == (kind != 'others')
    assert net.stem[0][0].weight.equal(theirs.stem[0][0].weight)


def test_a_hint_is_the_same_training_but_for_one_thing(command, done, small, tmp_path):
    "Net, weights and all that was said about steps and sizes come along"
    words = ['--layers', '1,1,1,1', '--width', 8, '--weights', done.folder/'model.safetensors', '--bs', 16]
    words += ['--lr', 1e-3, '--precision', 'fp32', '--presize', 40, '--size', 32, '--epochs', 1]
    status, said, err = command('train', '--data', small, *words, '--out', tmp_path/'run')
    assert status == 0, err
    hint = hint_of(said)
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name != '--epochs': assert hint[hint.index(name)+1] == str(value), (name, hint)
    assert hint[hint.index('--epochs')+1] == '2'
    status, _, err = command(*hint[1:], '--out', tmp_path/'next')
    assert status == 0, err


def test_a_width_that_is_said_is_minded(refused, small, tmp_path):
    "The usual one, too, where weights have another"
    for width in (48, 64):
        said = refused('train', '--data', small, '--weights', 'imagenette', '--width', width, '--out', tmp_path/'run')
        assert 'width 32' in said and f'width {width}' in said, said


@pytest.mark.parametrize('name', ['plain', '-x', '~root', "it's", 'a b', 'a\nb', "\x1b[2Jc'\\", '\\', '$HOME', '中',
                                  '!', os.fsdecode(b'caf\xe9f')])
def test_a_hint_can_be_typed(name):
    "As printed, in a shell: the name's own bytes, and no option"
    from resnet_course.terminal import printable, typed
    said = printable(typed(name))
    done = subprocess.run(['bash', '-c', f'printf %s {said}'], capture_output=True, check=False)
    assert os.path.normpath(done.stdout) == os.fsencode(name) and not said.startswith('-') and said.isprintable()


def test_names_with_a_tilde(monkeypatch, tmp_path):
    "The shell leaves it alone after an equals sign"
    from resnet_course.cli import make_parser
    monkeypatch.setenv('HOME', str(tmp_path))
    for words, names in (('train --out=~/x --data=~/y', 'out data'),
                         ('evaluate ~/m ~/d --figure=~/f', 'model data figure'),
                         ('predict ~/m ~/i --csv=~/c', 'model csv'), ('clean ~/d', 'data')):
        given = vars(make_parser().parse_args(words.split()))
        assert all(given[name].startswith(f'{tmp_path}/') for name in names.split())
    assert make_parser().parse_args('predict ~/m - ~/i'.split()).images == ['-', f'{tmp_path}/i']


def test_told_again_on_another_machine_and_in_another_place(command, small, tmp_path):
    words = ['--out', tmp_path/'run', *SMALL_NET, '--epochs', '1']
    assert command('train', '--data', small, *words)[0] == 0
    small.rename(tmp_path/'moved')
    status, _, err = command('train', '--data', tmp_path/'moved', *words, '--device', 'auto', '--resume')
    assert status == 0, err


def test_a_folder_without_val(command, refused, unsplit, tmp_path):
    "Divided by --valid, at a resume as at first, and judged by what was held out"
    (unsplit/'9').rename(unsplit.parent/'9')
    words, run = [*SMALL_NET, '--epochs', 1, '--valid', 0.2], tmp_path/'run'
    assert 'is held out: --valid 0.2' in refused('train', '--data', unsplit, *words[:-2], '--out', run)
    status, out, err = command('train', '--data', unsplit, *words, '--out', run)
    assert status == 0, err
    assert '12 training and 3 validation images in 2 classes' in out and f'--data {unsplit} --valid 0.2' in out
    assert 'differs from the run' in refused('train', '--out', run, '--valid', 0.3, '--resume')
    assert 'lies among the images' in refused('train', '--data', unsplit, *words, '--out', unsplit/'run')
    model = run/'model.safetensors'
    status, out, err = command('evaluate', model, unsplit, '--valid', 0.2)
    assert status == 0 and 'on 3 images' in out and not err
    status, out, err = command('evaluate', model, unsplit)
    assert status == 0 and 'on 15 images' in out and 'were trained on; --valid 0.2' in err
    unsplit.rename(moved := tmp_path/'moved')
    for more in ([], ['--valid', 0.2]):
        status, _, err = command('train', '--data', moved, '--out', run, *more, '--resume')
        assert status == 0, err


def test_weights_of_another_run(command, refused, done, small, tmp_path):
    "Named on the command line, with a last layer of its own for other classes"
    file, words = done.folder/'model.safetensors', [*SMALL_NET, '--epochs', 1, '--lr', 1e-9]
    for name in ('3', '7'):
        for split in ('train', 'val'): (small/split/name).rename(small/split/f'digit {name}')
    status, _, err = command('train', '--data', small, *words, '--weights', file, '--out', tmp_path/'run')
    assert status == 0, err
    from safetensors.torch import load_file
    was, now = load_file(file), load_file(tmp_path/'run'/'model.safetensors')
    kernels = [k for k in was if was[k].ndim == 4]
    assert kernels and all((was[k]-now[k]).abs().max() < 1e-6 for k in kernels)
    other = ['train', '--data', small, '--arch', 'resnet18', '--weights', file, '--out', tmp_path/'other']
    assert "are of 'ResNet', not of resnet18" in refused(*other)
    assert 'is no file' in refused('train', '--data', small, *words, '--weights', tmp_path/'no', '--out', tmp_path/'x')


@a_class_of_one
def test_a_stopped_run_of_a_folder_without_val_goes_on(unsplit, tmp_path):
    from tiny import TINY, fit, results

    from resnet_course.data import image_files
    from resnet_course.errors import CourseError
    def stop(line):
        if line.startswith('epoch 1'): raise KeyboardInterrupt
    images = image_files(unsplit, valid_pct=0.2)
    whole = fit(TINY, images, tmp_path/'whole')
    with pytest.raises(KeyboardInterrupt): fit(TINY, images, tmp_path/'run', report=stop)
    fit(None, None, tmp_path/'run', resume=True)
    assert results(tmp_path/'run') == results(whole.folder)
    config = json.loads((file := tmp_path/'run'/'config.json').read_text())
    for split in ({'valid_pct': 2, 'seed': 0}, {'valid_pct': '0.2', 'seed': 0}, {'valid_pct': 0.2}, 0.2):
        file.write_text(json.dumps(config | {'split': split}))
        with pytest.raises(CourseError, match='split'): fit(None, None, tmp_path/'run', resume=True)


def test_a_wrong_recipe_of_a_run_is_named_with_its_file(refused, done, tmp_path):
    shutil.copytree(done.folder, tmp_path/'run')
    config = json.loads((file := tmp_path/'run'/'config.json').read_text())
    file.write_text(json.dumps(config | {'recipe': config['recipe'] | {'net_options': None}}))
    assert f'{file}: net_options' in refused('train', '--out', tmp_path/'run', '--resume')


@pytest.mark.parametrize('words', ['--progressive 32,48 --size 48 --epochs 2', slow('--progressive 32,48 --epochs 3'),
                                   slow('--recipe laptop --size 32'), '--recipe book --size 32 --skip-broken'])
def test_the_same_words_once_more(command, small, tmp_path, words):
    words = ['train', '--data', small, '--out', tmp_path/'run', '--layers', '1,1,1,1', '--width', '8', '--bs', '8',
             '--presize', '48', *words.split()]
    if '--epochs' not in words: words += ['--epochs', '1']
    for more in ((), ('--resume',)):
        status, _, err = command(*words, *more)
        assert status == 0, err
    status, _, err = command(*words, '--resume', '--size', '40')
    assert status == 2 and '--size 40' in err


@pytest.mark.parametrize('words', ['cost resnet18', 'doctor', 'clean digits', 'predict no.safetensors no.png'])
def test_all_but_training_is_the_work_of_one_process(refused, monkeypatch, words):
    "Else all would be done, printed and written by each"
    for name, value in (('WORLD_SIZE', '2'), ('RANK', '0')): monkeypatch.setenv(name, value)
    assert 'start it without torchrun' in refused(*words.split())


@pytest.mark.parametrize('world, here, says', [
    ('', '', 'resnet-course'), ('1', '1', 'resnet-course'), ('x', '', 'resnet-course'),
    ('2', '2', 'torchrun --nproc-per-node 2 -m resnet_course'),
    ('3', '', 'torchrun --nproc-per-node 3 -m resnet_course'),
    ('16', '8', 'torchrun --nnodes 2 ... --nproc-per-node 8 -m resnet_course')])
def test_how_it_was_started_is_how_to_go_on(monkeypatch, world, here, says):
    from resnet_course import cli
    for name, value in (('WORLD_SIZE', world), ('LOCAL_WORLD_SIZE', here)): monkeypatch.setenv(name, value)
    assert cli._launch() == says


# -- an album with files that cannot be read, from training to shipping

@pytest.fixture
def spoilt(tmp_path, digits):
    "Two classes of 15 images and two broken ones each"
    for label in '37':
        (folder := tmp_path/'album'/label).mkdir(parents=True)
        for f in sorted((digits/'train'/label).iterdir())[:15]: shutil.copy(f, folder)
        (folder/'a.png').write_bytes(b'no')
        (folder/'z.png').write_bytes((folder/f.name).read_bytes()[:50])
    return tmp_path/'album'


@pytest.mark.slow
def test_what_a_run_left_out_its_model_leaves_out(command, refused, spoilt, tmp_path):
    "Trained, evaluated, resumed, moved, in 8 bits and in shards; the lines that are proposed work as they stand"
    run, words = tmp_path/'run', ['--data', spoilt, '--valid', 0.3, *SMALL_NET, '--epochs', 1, '--device', 'cpu']
    assert 'leave them out: --skip-broken' in refused('train', *words, '--out', run)
    status, out, err = command('train', *words, '--skip-broken', '--out', run)
    assert status == 0 and 'skipped 4 of 34 images' in out, err
    n = int(re.search(r'accuracy .* on (\d+) held-out', out)[1])
    again = shlex.split(re.search(r'resnet-course (train .*)', out)[1])
    assert {'--skip-broken', '--device'} <= set(again)
    assert command(*again, '--out', tmp_path/'again')[0] == 0

    model = run/'model.safetensors'
    assert 'leave them out: --skip-broken' in refused('evaluate', model, spoilt, '--valid', 0.3)
    status, out, err = command('evaluate', model, spoilt, '--valid', 0.3, '--skip-broken')
    held = [f for f in image_files(spoilt, valid_pct=0.3).val if f.name in ('a.png', 'z.png')]
    assert status == 0 and f'on {n} images' in out and out.count('skipped ') == len(held) > 0, err
    shutil.copytree(spoilt, tmp_path/'moved')
    status, out, err = command('evaluate', model, tmp_path/'moved', '--skip-broken')
    assert status == 0 and 'on 30 images' in out and 'were trained on; --valid 0.3' in err
    assert command('train', '--out', run, '--resume')[0] == 0

    assert command('shard', spoilt, tmp_path/'whole', '--valid', 0.3)[0] == 0  # bytes as they are
    status, out, err = command('shard', spoilt, tmp_path/'shards', '--valid', 0.3, '--skip-broken')
    assert status == 0 and f'val: {n} images' in out
    assert command('train', '--data', tmp_path/'shards', *words[4:], '--out', tmp_path/'s')[0] == 0
    status, out, err = command('export', model, tmp_path/'net.onnx', '--int8', spoilt)
    assert status == 0 and re.search(r'left out 3 of \d+ files: album/3/a.png \(no image', err) and '8 bits' in out


def test_nothing_but_broken_images(command, refused, done, tmp_path):
    for label in '37':
        (tmp_path/'album'/label).mkdir(parents=True)
        (tmp_path/'album'/label/'a.png').write_bytes(b'no')
    model = done.folder/'model.safetensors'
    assert '2 of 2 images cannot be read' in refused('evaluate', model, tmp_path/'album', '--skip-broken', '--figure',
                                                     tmp_path/'f.png')
    with pytest.warns(UserWarning, match='left out'), pytest.raises(CourseError, match='holds no images'):
        calibration_images(tmp_path/'album')


def test_a_file_that_may_not_be_opened_is_named_and_skipped(command, spoilt, plain_user, tmp_path):
    "Also where the images are only looked at, to know whether they were trained on"
    assert command('train', '--data', spoilt, '--valid', 0.3, *SMALL_NET, '--epochs', 1, '--skip-broken', '--out',
                   tmp_path/'run')[0] == 0
    (locked := sorted((spoilt/'3').iterdir())[4]).chmod(0)
    model = tmp_path/'run'/'model.safetensors'
    status, out, err = command('evaluate', model, spoilt, '--skip-broken', '--figure', tmp_path/'f.png')
    assert status == 0 and f'{locked.name} (Permission denied)' in out and 'on 29 images' in out, err


def test_shards_do_not_go_into_the_album(refused, small, unsplit, tmp_path):
    for out, words in ((unsplit/'sh', [unsplit, '--valid', 0.2]), (unsplit/'3'/'sh', [unsplit, '--valid', 0.2]),
                       (small/'train'/'sh', [small]), (small/'val'/'3'/'sh', [small])):
        assert 'lies among the images' in refused('shard', words[0], out, *words[1:])
        assert not out.exists()


def test_shards_beside_train_and_val(command, small):
    assert command('shard', small, small/'sh')[0] == 0


# -- where a net comes from, and what it knows of itself

@pytest.mark.slow
def test_a_run_begins_with_another_run_of_any_net(command, refused, small, tmp_path):
    "Name and options are in the file: neither --arch nor --width has to be said again"
    words = ['--data', small, '--size', 32, '--presize', 32, '--bs', 8, '--workers', 0, '--epochs', 1, '--lr', 1e-9]
    for first in (['--width', 8], ['--arch', 'squeezenet1_0'],
                  ['--layers', '1,1,1,1', '--width', 12, '--expansion', 4]):
        shutil.rmtree(tmp_path/'a', ignore_errors=True)
        shutil.rmtree(tmp_path/'b', ignore_errors=True)
        assert command('train', *words, *first, '--out', tmp_path/'a')[0] == 0
        file = tmp_path/'a'/'model.safetensors'
        for recipe in ([], ['--recipe', 'laptop']):
            shutil.rmtree(tmp_path/'b', ignore_errors=True)
            status, _, err = command('train', *words, *recipe, '--weights', file, '--out', tmp_path/'b')
            assert status == 0, err
        a, b = (read_config(tmp_path/name)['recipe'] for name in 'ab')
        assert (a['net'], a['net_options']) == (b['net'], b['net_options'])
        assert command('train', '--out', tmp_path/'b', '--resume', '--weights', file)[0] == 0
    other = ['train', *words, '--weights', file, '--out', tmp_path/'c']
    says = f'{file} are of a net with --width 12, and --width 8 was asked for'
    assert says in refused(*other, '--layers', '1,1,1,1', '--expansion', 4, '--width', 8)
    assert 'not of densenet121' in refused(*other, '--arch', 'densenet121')


def test_a_model_away_from_its_run(command, done, unsplit, small, tmp_path):
    "Nobody knows what it was trained on, and that is said; not where `val/` says what was held out"
    (unsplit/'9').rename(tmp_path/'9')
    shutil.copy(done.folder/'model.safetensors', tmp_path/'m.safetensors')
    for model, data, told in ((tmp_path/'m.safetensors', unsplit, True), (tmp_path/'m.safetensors', small, False),
                              (done.folder/'model.safetensors', unsplit, False)):
        status, _, err = command('evaluate', model, data, '--figure', tmp_path/'f.png')
        assert status == 0 and ('nobody knows whether it was trained on these' in err) == told


# -- what was trained on is known by its contents, whatever became of the album

def added(album): shutil.copy(next((album.parent/'more').iterdir()), album/'3'/'a0.png')
def deleted(album): sorted((album/'3').iterdir())[2].unlink()
def renamed(album):
    for i, f in enumerate(sorted((album/'3').iterdir())): f.rename(f.with_name(f'{(7*i) % 31:02d}.png'))


@pytest.fixture
def lived_in(tmp_path, digits):
    "An album of two classes of 20, and some images more"
    for label in '37':
        (tmp_path/'album'/label).mkdir(parents=True)
        for f in sorted((digits/'train'/label).iterdir())[:20]: shutil.copy(f, tmp_path/'album'/label)
    (tmp_path/'more').mkdir()
    for f in sorted((digits/'train'/'3').iterdir())[20:30]: shutil.copy(f, tmp_path/'more')
    return tmp_path/'album'


@pytest.mark.parametrize('change, moved', [(added, False), *[slow(change, moved) for change, moved in (
    (added, True), (deleted, False), (deleted, True), (renamed, False), (renamed, True))]])
def test_an_album_that_has_changed_is_judged_by_what_was_not_trained_on(command, refused, lived_in, tmp_path, change,
                                                                       moved):
    words = ['--valid', 0.2, '--epochs', 1, *SMALL_NET]
    assert command('train', '--data', lived_in, *words, '--out', tmp_path/'run')[0] == 0
    trained = {f.read_bytes() for f in image_files(lived_in, valid_pct=0.2).train}
    change(lived_in)
    album = lived_in.rename(tmp_path/'elsewhere') if moved else lived_in
    held = [f.read_bytes() for f in image_files(album, valid_pct=0.2).val]
    n = sum(b not in trained for b in held)
    model = tmp_path/'run'/'model.safetensors'
    status, out, err = command('evaluate', model, album, '--valid', 0.2)
    assert status == 0 and f'on {n} images' in out, err
    assert (f'left out {len(held)-n} of {len(held)} images: they were trained on' in out) == (n < len(held))
    every = [f.read_bytes() for f in album.rglob('*.png')]
    known = sum(b in trained for b in every)
    status, out, err = command('evaluate', model, album)
    assert status == 0 and f'{known} of {len(every)} images were trained on' in err and f'on {len(every)} images' in out
    os.replace(tmp_path/'run'/'model.safetensors', tmp_path/'m.safetensors')
    for more in ([], ['--valid', 0.2]):
        err = command('evaluate', tmp_path/'m.safetensors', album, *more)[2]
        assert 'nobody knows whether it was trained on these images' in err


def test_the_training_part_of_a_divided_set_is_known_too(command, refused, small, tmp_path):
    assert command('train', '--data', small, '--epochs', 1, *SMALL_NET, '--out', tmp_path/'run')[0] == 0
    model = tmp_path/'run'/'model.safetensors'
    assert not command('evaluate', model, small)[2]
    assert '24 of 24 images were trained on' in command('evaluate', model, small/'train')[2]
    assert 'were trained on; give others' in refused('evaluate', model, small/'train', '--valid', 0.2)
    (tmp_path/'run'/'trained.txt').unlink()
    assert command('train', '--out', tmp_path/'run', '--resume')[0] == 0  # it writes what is missing
    assert '24 of 24 images were trained on' in command('evaluate', model, small/'train')[2]


@pytest.mark.slow
def test_a_run_says_what_makes_its_accuracy_too_good(command, lived_in, tmp_path):
    "A copy under another name on the other side, one image in two classes, a start net that has seen what is held out"
    words = ['train', '--data', lived_in, '--epochs', 1, *SMALL_NET]
    status, out, _ = command(*words, '--valid', 0.2, '--out', tmp_path/'run')
    assert status == 0 and 'too good' not in out and 'in two classes' not in out
    file = tmp_path/'run'/'model.safetensors'
    was, now = (image_files(lived_in, valid_pct=share) for share in (0.2, 0.5))
    n = len(set(was.train) & set(now.val))
    status, out, _ = command(*words, '--valid', 0.5, '--weights', file, '--out', tmp_path/'other')
    assert status == 0 and f'{n} of {len(now.val)} held-out images were trained on by the net that this' in out
    status, out, _ = command(*words, '--valid', 0.2, '--weights', file, '--out', tmp_path/'same')
    assert status == 0 and 'begins with' not in out
    for f in (lived_in/'3').iterdir(): shutil.copy(f, f.with_name(f'copy of {f.name}'))
    shutil.copy(was.train[0], lived_in/'7'/'wrong.png')
    status, out, _ = command(*words, '--valid', 0.2, '--out', tmp_path/'copies')
    says = r'\d+ of 12 held-out images are copies of training images.* e\.g\. \d/.* of \d/'
    assert status == 0 and re.search(says, out), out
    assert re.search(r'\d+ images? (is|are) in two classes, e\.g\. .*wrong\.png', out)


def test_a_figure_replaces_figures_of_evaluate_alone(command, refused, done, small, tmp_path):
    shutil.copytree(done.folder, tmp_path/'run')
    model = tmp_path/'run'/'model.safetensors'
    for name in ('curves.png', 'confusion.png'):
        was = (tmp_path/'run'/name).read_bytes()
        assert 'not from this command' in refused('evaluate', model, small, '--figure', tmp_path/'run'/name)
        assert (tmp_path/'run'/name).read_bytes() == was
    for name in ('notes.txt', 'figure', 'a.jpg'):
        assert 'is no name of a .png file' in refused('evaluate', model, small, '--figure', tmp_path/name)
        assert not (tmp_path/name).exists()
    for _ in range(2):
        assert command('evaluate', model, small, '--figure', tmp_path/'own.png')[0] == 0
        assert command('evaluate', model, small)[0] == 0


# -- what comes out, what goes in

def test_csv_to_standard_output(command, done, small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, files = done.folder/'model.safetensors', sorted((small/'val').glob('*/*'))
    status, out, _ = command('predict', model, *files, '--csv', '-')
    assert status == 0 and not Path('-').exists()
    assert command('predict', model, *files, '--csv', 'f.csv')[0] == 0
    assert out == Path('f.csv').read_text()


def test_folders_and_shards_may_be_named_on_standard_input(command, done, small, tmp_path, monkeypatch):
    assert command('shard', small, tmp_path/'sh')[0] == 0
    names = [small/'val', next((tmp_path/'sh').glob('val*.tar')), sorted((small/'train'/'3').iterdir())[0],
             tmp_path/'sh'/'train']  # all that are called train-*.tar
    monkeypatch.setattr('sys.stdin', io.StringIO(''.join(f'{n}\n' for n in names)))
    status, out, err = command('predict', done.folder/'model.safetensors', '-')
    assert status == 0 and len(out.splitlines()) == 8+8+1+24, err
    assert command('predict', done.folder/'model.safetensors', tmp_path/'sh'/'trai')[0] == 2
