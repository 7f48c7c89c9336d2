"One prediction, many, and a judgement: the same in Python and by the command, in order, and what is broken is named"
import copy
import io
import json
import os
import shutil
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import linked_digits
from fastai.vision.core import TensorImage
from fasttransform import Transform
from PIL import Image

from resnet_course import CourseError
from resnet_course.plots import plot_confusion, png_bytes
from resnet_course.models import create_model
from resnet_course.predict import class_table, labelled_images, predict, predict_many
from resnet_course.recipes import Recipe, train
from resnet_course.resnet import ResNet
from resnet_course.model_files import save_model
from resnet_course.run import load_model, read_config

TINY = {'layers': [1, 1, 1, 1], 'width': 8}
RECIPE = Recipe('ResNet', TINY, presize=40, sizes=[33]*3, bs=32, lr=1e-2, precision='fp32')
CLASSES = ['3', '7']
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
no_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="an Apple machine")


@pytest.fixture(scope='module')
def images(tmp_path_factory, digits):
    "Two classes with 40 training and 20 validation images each"
    return linked_digits(tmp_path_factory.mktemp('images'), digits, 40, 20)


@pytest.fixture(scope='module')
def run(images, tmp_path_factory):
    "A short training in float32"
    return train(RECIPE, images, tmp_path_factory.mktemp('run')/'run', report=lambda _: None, device='cpu')


@pytest.fixture(scope='module')
def model_file(run): return run.folder/'model.safetensors'


@pytest.fixture(scope='module')
def loaded(model_file): return load_model(model_file)


@pytest.fixture
def files(images): return sorted((images/'val').glob('*/*.png'))


def spec(pipeline='fast', valid_scale=1.):
    return {'pipeline': pipeline, 'valid_scale': valid_scale, 'classes': CLASSES, 'presize': 40, 'size': 33}


def spelled(f):
    im = Image.open(f).convert('RGB')
    return [f, str(f), Path(f).read_bytes(), np.asarray(im), torch.tensor(np.asarray(im)), im]


# -- predict_many

@pytest.mark.parametrize('bs', [1, 7, 64])
@pytest.mark.parametrize('how', [('fast', 1.), ('fast', 7/8), ('book', 1.)])
def test_many_equal_single_ones(files, tmp_path, how, bs):
    "Whatever their sizes and formats"
    torch.manual_seed(0)
    model, rng = ResNet(2, [1, 1, 1, 1], width=8).eval(), np.random.default_rng(0)
    for i, (w, h) in enumerate([(1, 1), (300, 40), (40, 300), (64, 64), (33, 57), (500, 375)]):
        noise = Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8))
        noise.convert(['RGB', 'L', 'CMYK', 'RGB', '1', 'RGB'][i]).save(tmp_path/f'{i}.jpg')
    mixed = [*sorted(tmp_path.glob('*.jpg')), *files[:11]]
    many = predict_many(model, spec(*how), mixed, bs=bs)
    assert list(many.index) == list(map(str, mixed)) and list(many.columns) == CLASSES and many.index.name == 'image'
    single = [predict(model, spec(*how), f) for f in mixed]
    assert all(list(p) == sorted(p, reverse=True) for p in single)
    assert many.to_numpy() == pytest.approx(np.array([p[CLASSES] for p in single]), abs=1e-5)
    assert many.sum(axis=1).to_numpy() == pytest.approx(np.ones(len(mixed)), abs=1e-5) and many.to_numpy().std() > 1e-3


def test_constants_go_where_the_net_is(loaded, files, monkeypatch):
    "fastai makes those of its transforms on the GPU, if there is one, wherever the batch goes"
    from resnet_course import predict as module
    moved, make = [], module.get_tfms
    class Constant:
        def to(self, device):
            moved.append(device.type)
            return 1.
    class Away(Transform):
        parameters, constant, order = ['constant'], Constant(), 98
        def encodes(self, x: TensorImage): return x*self.constant
    monkeypatch.setattr(module, 'get_tfms', lambda *sides: (make(*sides)[0], [*make(*sides)[1], Away()]))
    assert predict(loaded[0], spec('book'), files[0]).notna().all() and moved == ['cpu']


def test_an_image_however_it_is_there(loaded, files):
    expected = predict(*loaded, files[0])
    for kind in spelled(files[0]): assert predict(*loaded, kind).tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    many = predict_many(*loaded, [kind for f in files[:3] for kind in spelled(f)], bs=4)
    assert list(many.index) == [str(f) if i < 2 else str(n*6+i) for n, f in enumerate(files[:3]) for i in range(6)]
    assert many.to_numpy() == pytest.approx(predict_many(*loaded, files[:3]).to_numpy().repeat(6, axis=0), abs=1e-5)


def test_none_one_and_an_iterator(loaded, files):
    empty = predict_many(*loaded, [])
    assert empty.shape == (0, 2) and list(empty.columns) == CLASSES and empty.index.name == 'image'
    assert empty.to_numpy().dtype == np.float32
    assert len(predict_many(*loaded, files[:1])) == 1
    assert predict_many(*loaded, iter(files)).equals(predict_many(*loaded, files))
    assert predict_many(*loaded, np.array(list(map(str, files)))).equals(predict_many(*loaded, files))
    assert len(predict_many(*loaded, [files[0]]*3)) == 3


def broken(folder):
    "Four files that are no image; the last is not there"
    (folder/'empty.png').write_bytes(b'')
    (folder/'text.jpg').write_text('words')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder/'cut.jpg')
    (folder/'cut.jpg').write_bytes((folder/'cut.jpg').read_bytes()[:900])
    return [folder/'empty.png', folder/'text.jpg', folder/'cut.jpg', folder/'gone.png']


@pytest.mark.parametrize('bs', [1, 3, 64])
def test_broken_ones_in_between_leave_the_order(loaded, files, tmp_path, bs):
    bad, faults = broken(tmp_path), {}
    mixed = [bad[0], *files[:3], bad[1], bad[2], *files[3:9], bad[3]]
    many = predict_many(*loaded, mixed, bs=bs, faults=faults)
    assert list(many.index) == list(map(str, files[:9])) and set(faults) == set(bad)
    assert all(isinstance(why, str) and why and '\n' not in why for why in faults.values())
    assert many.to_numpy() == pytest.approx(predict_many(*loaded, files[:9]).to_numpy(), abs=1e-5)
    with pytest.raises(CourseError, match=r'4 of 13 images cannot be read: .* and 1 more') as e:
        predict_many(*loaded, mixed, bs=bs)
    assert '\n' not in str(e.value)
    assert predict_many(*loaded, bad, faults=(only := {})).shape == (0, 2) and len(only) == 4


def test_broken_ones_in_memory_are_named_by_their_place(loaded, files):
    many = predict_many(*loaded, [files[0].read_bytes(), b'no image', np.zeros((4, 4, 7)), None], faults=(faults := {}))
    assert list(many.index) == ['0'] and set(faults) == {1, 2, 3}
    with pytest.raises(CourseError, match='1 of 1 images cannot be read'): predict(*loaded, b'no image')
    with pytest.raises(CourseError, match=r'1 of 1 images cannot be read: .*gone\.png'): predict(*loaded, 'gone.png')


@pytest.mark.parametrize('what', ['one.png', Path('one.png'), 5, None])
def test_files_that_are_no_list(loaded, what):
    "A name alone is not a list of its letters"
    with pytest.raises(CourseError, match=r'files|list') as e: predict_many(*loaded, what)
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('bs', [0, -1, 1.5, 'all'])
def test_batch_size_that_is_none(loaded, files, bs):
    with pytest.raises(CourseError, match='bs='): predict_many(*loaded, files, bs=bs)


def test_the_net_is_left_as_it_was(loaded, files):
    model, its = loaded
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    model.stem.eval()  # a part that is kept still
    try:
        a = predict_many(model, its, files)
        assert model.training and not model.stem.training and model.head.training
        with pytest.raises(CourseError): predict_many(model, its, ['gone.png'])
        assert model.training
    finally: model.eval()
    assert a.equals(predict_many(model, its, files))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.slow
def test_a_thousand_files(loaded, digits):
    files = sorted((digits/'train').glob('*/*.png'))[:1000]
    many = predict_many(*loaded, files)
    assert list(many.index) == list(map(str, files)) and not many.isna().any(axis=None)
    for i in (0, 63, 64, 500, 999):
        assert many.iloc[i].tolist() == pytest.approx(predict(*loaded, files[i])[CLASSES].tolist(), abs=1e-5)


def test_few_images_are_read_ahead(loaded, files, monkeypatch):
    "Memory does not grow with the number of files"
    from resnet_course import predict as module
    opened, ahead, create, forward = [0], [], module.RGBImage.create, loaded[0].forward
    def note(f):
        opened[0] += 1
        return create(f)
    def count(x):
        ahead.append(opened[0]-sum(len(b) for b in batches))
        batches.append(x)
        return forward(x)
    batches = []
    monkeypatch.setattr(module.RGBImage, 'create', note)
    monkeypatch.setattr(loaded[0], 'forward', count)
    predict_many(*loaded, files*2, bs=4)
    assert len(batches) == 20 and max(ahead) <= 4*min(8, os.cpu_count())


@pytest.mark.parametrize('presize, size, most', [(40, 33, 64), (224, 224, 64), (224, 320, 31), (640, 224, 7),
                                                 (4096, 64, 1), (64, 4096, 1)])
def test_batches_of_large_images_are_smaller(files, monkeypatch, presize, size, most):
    "64 x 224^2 pixels at most"
    from resnet_course import predict as module
    seen = []
    class Mean(torch.nn.Linear):
        def forward(self, x):
            seen.append(len(x))
            return torch.zeros(len(x), 2)
    monkeypatch.setattr(module, '_pipelines', lambda spec, device: (lambda im: torch.zeros(3, 1, 1), lambda x: x))
    many = predict_many(Mean(1, 1), spec() | {'presize': presize, 'size': size}, files*4)
    assert len(many) == 160 == sum(seen) and max(seen) == min(most, 64) and sorted(seen)[1:] == [most]*(len(seen)-1)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
def test_answers_that_are_no_numbers(loaded, files, value):
    model = copy.deepcopy(loaded[0])
    with torch.no_grad(): model.head.bias.fill_(value)
    with pytest.raises(CourseError, match='not finite') as e: predict_many(model, loaded[1], files)
    assert '\n' not in str(e.value)
    with pytest.raises(CourseError, match='not finite'): predict(model, loaded[1], files[0])


# -- figures

def figure_of(n, classes=None):
    "A confusion figure, its bytes, and the labels and texts that it has"
    rng = np.random.default_rng(0)
    classes = classes or [f'class {i}' for i in range(n)]
    true = rng.integers(0, n, 5000)
    said = np.where(rng.random(5000) < 0.8, true, rng.integers(0, n, 5000))
    fig = plot_confusion(torch.tensor(true), torch.tensor(said), classes)
    png = png_bytes(fig)
    return fig, png, [t.get_text() for t in fig.axes[0].get_xticklabels()]


@pytest.mark.slow
@pytest.mark.parametrize('n, labels', [(1, 1), (2, 2), (20, 20), (51, 26), (102, 34), (1000, 50), (100_000, 50)])
def test_figure_of_any_number_of_classes(n, labels):
    "Up to fifty each cell has its number; beyond, none has, and the figure stays as large as it is"
    fig, png, names = figure_of(n)
    assert len(names) == labels and names[0] == 'class 0' and png[1:4] == b'PNG' and len(png) < 1_000_000
    assert len(fig.axes[0].texts) == (n**2 if n <= 50 else 0) and max(fig.get_size_inches()) <= (25 if n <= 50 else 11)


@pytest.mark.slow
def test_figure_of_many_classes_takes_little_memory():
    figure_of(2)
    tracemalloc.start()
    figure_of(100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


@pytest.mark.slow
def test_neighbours_share_a_cell_beyond_a_thousand():
    "Nobody is lost"
    for n in (999, 1001, 2345):
        fig = plot_confusion(np.arange(n), np.arange(n)[::-1], list(map(str, range(n))))
        assert fig.axes[0].images[0].get_array().sum() == n


@pytest.mark.slow
def test_figure_with_any_name(capsys):
    "Not a warning (they are errors in these tests), not a word on standard error"
    names = ['$a_b$', '$', '\\alpha $x', '\x1b[31mred', os.fsdecode(b'caf\xe9'), '中文名字', '日本語'*30, 'العربية',
             '😀', 'x'*300, 'a\nb', 'ไทย', 'e\u0301', '\u202eabc', '', ' ', '\U0010fffd', 'a\u200db']
    _, _, shown = figure_of(len(names), names)
    assert shown[:4] == ['$a_b$', '$', '\\alpha $x', '\\x1b[31mred'] and shown[4] == 'caf\\udce9'
    assert shown[5] in ('中文名字', '\\u4e2d\\u6587\\u540d\\u5b57') and all(len(name) <= 30 for name in shown)
    assert shown[9] == 'x'*29+'…' and shown[10] == 'a\\nb' and shown[13] == '\\u202eabc'
    assert not capsys.readouterr().err


def test_a_font_that_has_the_letters_is_found():
    "Of those that come with matplotlib"
    from matplotlib.font_manager import FontProperties, findfont, get_font
    usual, stix = (set(get_font(findfont(FontProperties(family=f))).get_charmap()) for f in (None, 'STIXGeneral'))
    letter = next(chr(c) for c in sorted(stix-usual) if chr(c).isprintable() and chr(c).isalpha())
    fig, _, shown = figure_of(2, [f'a{letter}', 'b'])
    assert shown == [f'a{letter}', 'b'] and len(fig.axes[0].get_xticklabels()[0].get_fontfamily()) > 1


# -- tables

def test_class_table():
    table = class_table(['a', 'a', 'a', 'b'], ['a', 'b', 'b', 'b'], ['a', 'b', 'c'])
    assert list(table.index) == ['a', 'b', 'c'] and table['images'].tolist() == [3, 1, 0]
    assert table['accuracy'].tolist() == pytest.approx([1/3, 1, np.nan], nan_ok=True)
    assert table['most often taken for'].tolist() == ['b', '', '']


def test_labelled_images(images, small, tmp_path):
    for source in (images, str(images)+'/', images/'val'):
        files, labels = labelled_images(source, CLASSES)
        assert len(files) == 40 and labels == [f.parent.name for f in files] and all('val' in f.parts for f in files)
    assert len(labelled_images('digits', list('0123456789'))[0]) == 364
    shutil.copytree(small/'val', tmp_path/'here')
    (tmp_path/'here'/'.hidden').mkdir()
    assert len(labelled_images(tmp_path/'here', ['1', '3', '7'])[0]) == 8
    with pytest.raises(CourseError, match=r"class '7' in .* is none of the model's"):
        labelled_images(tmp_path/'here', ['3'])
    (tmp_path/'none').mkdir()
    with pytest.raises(CourseError, match='no images in class folders'): labelled_images(tmp_path/'none', CLASSES)


def test_class_table_is_what_counting_gives():
    "In no time for a thousand classes; the first of equals is named"
    rng = np.random.default_rng(0)
    classes = [f'c{i}' for i in range(1000)]
    true, said = (np.array(classes)[np.minimum(*rng.integers(0, 990, (2, 50_000)))] for _ in '12')
    said = np.where(rng.random(50_000) < 0.7, true, said)
    began = time.perf_counter()
    table = class_table(true, said, classes)
    assert time.perf_counter()-began < 1.5 and list(table.index) == classes and table.index.name == 'class'
    for name in classes[::97]:
        of = said[true == name]
        wrong = [s for s in of if s != name]
        most = max(wrong, key=wrong.count) if wrong else ''
        assert table.loc[name].tolist() == [len(of), pytest.approx((of == name).mean()), most]
    assert table.loc['c995'].tolist() == [0, pytest.approx(np.nan, nan_ok=True), '']
    assert class_table(['a'], ['a'], ['a', 'b'])['most often taken for'].tolist() == ['', '']


# -- the command

def lines(out): return [json.loads(line) for line in out.splitlines()]


def test_command_takes_files_folders_and_standard_input(command, model_file, loaded, images, files, monkeypatch):
    expected = predict_many(*loaded, files)
    def read(out): return pd.DataFrame({r['image']: r['classes'] for r in lines(out)}).T[CLASSES]
    names = ''.join(f'{f}\n' for f in files)
    rest = names.removeprefix(''.join(f'{f}\n' for f in files[:5]))
    for words, stdin in ((files, ''), ([images/'val'], ''), ([f'{images}/val/3/', images/'val'/'7'], ''),
                         (['-'], names), (['-'], names[:-1]), (['-'], names.replace('\n', '\r\n')),
                         ([*files[:5], '-'], f'\n\n{rest}')):
        monkeypatch.setattr(sys, 'stdin', io.StringIO(stdin))
        status, out, err = command('predict', model_file, *words, '--json', '--device', 'cpu')
        assert status == 0 and not err
        assert [os.path.normpath(i) for i in read(out).index] == list(map(str, files))
        assert read(out).to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-5)


def test_command_names_what_it_leaves_out_of_a_folder(command, model_file, files, tmp_path):
    "On standard error: standard output is read by programs"
    (tmp_path/'folder').mkdir()
    (tmp_path/'folder'/'good.png').symlink_to(files[0])
    (tmp_path/'folder'/'gone.png').symlink_to(tmp_path/'nothing')
    (tmp_path/'folder'/'scan').write_bytes(b'no image')
    status, out, err = command('predict', model_file, tmp_path/'folder', files[1], '--json')
    assert status == 0 and len(lines(out)) == 2 and err.count('\n') == 1
    assert 'left out 2 of 4 files' in err and 'gone.png (a link to nothing)' in err and 'scan (no image)' in err


def test_command_counts_an_image_as_often_as_it_is_named(command, model_file, files, tmp_path):
    (tmp_path/'none.png').write_bytes(b'none')
    words = tmp_path/'none.png', files[0], tmp_path/'none.png', files[0], files[0]
    status, out, err = command('predict', model_file, *words, '--csv', tmp_path/'it.csv')
    assert status == 2 and '3 images in' in out and '2 of 5 images cannot be read' in err
    assert len(pd.read_csv(tmp_path/'it.csv')) == 3


@pytest.mark.parametrize('n_in', [1, 4])
def test_a_net_for_images_of_other_channels(refused, model_file, images, files, tmp_path, n_in):
    net = {'net': 'resnet18', 'net_options': {'width': 4, 'n_in': n_in}}
    save_model(tmp_path/'other', create_model('resnet18', 2, width=4, n_in=n_in), load_model(model_file)[1] | net)
    for words in (('predict', tmp_path/'other', files[0]), ('evaluate', tmp_path/'other', images)):
        assert f'takes {n_in} channels, and images have 3' in refused(*words)


def test_command_prints_the_best_of_each(command, model_file, loaded, files):
    status, out, _ = command('predict', model_file, files[0], '--top', 1)
    best = predict(*loaded, files[0])
    assert status == 0 and out == f"{files[0]}: {best.index[0]} {best.iloc[0]:.1%}\n"
    assert command('predict', model_file, files[0], '--top', 9)[1].count('%') == 2


def test_command_writes_a_table(command, model_file, loaded, images, files, tmp_path):
    bad = broken(tmp_path)
    status, out, err = command('predict', model_file, images/'val', '--csv', tmp_path/'it.csv', '--device', 'cpu')
    assert status == 0 and out == f"40 images in {tmp_path/'it.csv'}\n" and not err
    table = pd.read_csv(tmp_path/'it.csv', index_col='image')
    assert list(table.index) == list(map(str, files)) and list(table) == CLASSES
    assert table.to_numpy() == pytest.approx(predict_many(*loaded, files).to_numpy(), abs=1e-5)
    status, out, err = command('predict', model_file, bad[0], *files[:2], bad[3], '--csv', tmp_path/'it.csv')
    assert status == 2 and err.count('\n') == 1 and '2 of 4 images cannot be read' in err and 'gone.png' in err
    assert list(pd.read_csv(tmp_path/'it.csv')['image']) == list(map(str, files[:2]))


def test_command_goes_through_more_than_one_part(command, model_file, digits, tmp_path):
    "512 images are a part"
    some = sorted((digits/'train').glob('*/*.png'))[:520]
    folder = tmp_path/'many'
    folder.mkdir()
    for i, f in enumerate(some): (folder/f'{i:03d}.png').symlink_to(f)
    (folder/'notes.txt').write_text('no image')
    status, out, _ = command('predict', model_file, folder, '--csv', tmp_path/'it.csv')
    table = pd.read_csv(tmp_path/'it.csv')
    assert status == 0 and out.startswith('520 images')
    assert list(table['image']) == [str(folder/f'{i:03d}.png') for i in range(520)]


@pytest.mark.parametrize('words, says', [
    (['{empty}'], 'no images in'), (['-'], 'no images in -'), ([], 'IMAGE'), (['{file}', '--top', '0'], '1 or more'),
    (['{file}', '--csv', '{empty}/no/it.csv'], 'check the path'), (['{file}', '--csv', '{empty}'], 'check the path'),
    (['{file}', '--csv', '{empty}/it.csv', '--json'], '--json'), (['{file}', '--device', 'gpu'], '--device'),
    pytest.param(['{file}', '--device', 'cuda'], '--device cpu', marks=no_cuda),
    pytest.param(['{file}', '--device', 'mps'], '--device cpu', marks=no_mps)])
def test_command_refuses(refused, model_file, files, tmp_path, monkeypatch, words, says):
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''))
    (tmp_path/'empty').mkdir()
    assert says in refused('predict', model_file, *[w.format(empty=tmp_path/'empty', file=files[0]) for w in words])
    assert not list((tmp_path/'empty').iterdir())


def test_evaluate_gives_what_the_run_recorded(command, run, model_file, images, loaded, files):
    "Accuracy in float32, table and figure"
    assert read_config(run.folder)['precision'] == 'fp32'
    right = (predict_many(*loaded, files).idxmax(axis=1) == [f.parent.name for f in files]).mean()
    assert run.accuracy == pytest.approx(right) == pytest.approx(run.history.accuracy.iloc[-1])
    for data in (images, images/'val'):
        status, out, err = command('evaluate', model_file, data, '--device', 'cpu')
        assert status == 0 and not err and f"accuracy {run.accuracy:.1%} on 40 images" in out
        rows = [line.split() for line in out.splitlines()[1:]]
        assert [r[:2] for r in rows if r[0] in CLASSES] == [[c, '20'] for c in CLASSES]
        figure = Path(out.splitlines()[-1].removeprefix('figure: '))
        assert figure.parent == run.folder and figure.suffix == '.png'
        with Image.open(figure) as im: assert im.format == 'PNG' and min(im.size) > 100
        figure.unlink()


def test_evaluate_of_a_folder_with_a_name_as_long_as_any(command, model_file, small, tmp_path):
    shutil.copy(model_file, tmp_path)
    status, _, err = command('evaluate', tmp_path/model_file.name, small.rename(tmp_path/('é'*127)))
    assert status == 0 and len(list(tmp_path.glob('confusion-é*.png'))) == 1, err


def test_evaluate_writes_the_figure_where_it_is_told(command, model_file, images, tmp_path):
    status, out, _ = command('evaluate', model_file, images, '--figure', tmp_path/'mine.png')
    assert status == 0 and (tmp_path/'mine.png').read_bytes()[1:4] == b'PNG' and str(tmp_path/'mine.png') in out


@pytest.mark.parametrize('change, says', [
    (lambda d: (d/'val'/'9').mkdir(), "class '9' in"), (shutil.rmtree, 'is no folder'),
    (lambda d: [shutil.rmtree(d/s) for s in ('train', 'val')], 'no images in class folders'),
    (lambda d: (d/'val'/'3'/'cut.png').write_bytes(b'no'), '1 of 9 images cannot be read')])
def test_evaluate_refuses(refused, model_file, small, tmp_path, change, says):
    change(small)
    assert says in refused('evaluate', model_file, small, '--figure', tmp_path/'it.png')
    assert not (tmp_path/'it.png').exists()


@no_cuda
def test_evaluate_without_a_gpu(refused, model_file, images):
    assert '--device cpu' in refused('evaluate', model_file, images, '--device', 'cuda')


def test_evaluate_of_some_classes_only(command, model_file, small):
    shutil.rmtree(small/'val'/'7')
    status, out, err = command('evaluate', model_file, small/'val')
    assert status == 0 and not err and 'on 4 images' in out


@pytest.mark.parametrize('what', ['photograph', 'picture', 'model', 'table', 'text'])
@pytest.mark.parametrize('words', [('predict', '{images}', '--csv'), ('evaluate', '{images}', '--figure')])
def test_a_command_writes_over_nothing_but_its_own(command, model_file, images, files, tmp_path, what, words):
    "Whoever forgets the name after --csv has given a photograph"
    from PIL import Image
    there = tmp_path/f'{what}.png'
    if what == 'photograph': Image.open(files[0]).convert('RGB').save(there, 'JPEG')
    elif what == 'picture': shutil.copy(files[0], there)
    elif what == 'model': shutil.copy(model_file, there)
    else: there.write_text('name,age\nA,1\n' if what == 'table' else 'dear diary')
    was, (name, *rest) = there.read_bytes(), [w.format(images=images/'val') for w in words]
    status, out, err = command(name, model_file, *rest, there)
    assert status == 2 and 'is there, and not from this command; take another name' in err and not out
    assert there.read_bytes() == was
    there.write_bytes(b'')  # as mktemp leaves it
    for _ in range(2): assert command(name, model_file, *rest, there)[0] == 0  # and then its own
    assert there.read_bytes() != was
