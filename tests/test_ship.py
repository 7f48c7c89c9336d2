"A net that leaves Python: equal in ONNX, smaller in eight bits, asked through a service, told of in a card"
import hashlib
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from contextlib import contextmanager
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import ROOT
from PIL import Image

import resnet_course
from resnet_course.models import create_model, list_models, model_options

SPEC = {'net': 'ResNet', 'net_options': {'layers': [1, 1, 1, 1], 'width': 8}, 'classes': ['3', '7'], 'pipeline': 'fast',
        'presize': 40, 'size': 33, 'valid_scale': 1.}


@pytest.mark.slow
@pytest.mark.parametrize('name', list_models())
def test_every_net_is_the_same_in_onnx(name, tmp_path, request):
    "At odd sizes, square and not, for one image and for three; the names of classes and the sizes come along"
    more = 'resnet34', 'resnet101', 'resnet152', 'wide_resnet50_2', 'densenet121', 'googlenet'
    if name in more and not request.config.getoption('--fuzz'):
        pytest.skip("for the time it takes; --fuzz runs it")
    from resnet_course.onnx_files import load_onnx, save_onnx
    torch.manual_seed(0)
    narrow = 16 if 'resnext' in name else 8  # which has 32 groups
    options = {'width': narrow} if 'width' in model_options(name) else {}
    net = create_model(name, 7, **options).eval()
    spec = {**SPEC, 'net': name, 'net_options': options, 'classes': list('abcdefg'), 'presize': 72, 'size': 65}
    save_onnx(tmp_path/'net.onnx', net, spec)
    exported, told = load_onnx(tmp_path/'net.onnx')
    assert told == {'schema': told['schema'], **spec}
    assert exported.session.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
    for size in ((1, 3, 65, 65), (3, 3, 97, 97), (3, 3, 65, 97), (1, 3, 71, 50)):
        x = torch.randn(size)
        with torch.no_grad(): torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    "A model file of two classes, with random weights that tell images apart"
    from resnet_course.models import build_model
    from resnet_course.run import save_model
    torch.manual_seed(0)
    model = build_model(SPEC, 2)
    with torch.no_grad(): model.head.weight.mul_(20)
    save_model(file := tmp_path_factory.mktemp('net')/'model.safetensors', model, SPEC)
    return file


@pytest.fixture(scope='module')
def exported(net, images):
    "The same as ONNX, in 32 bits and in 8"
    from resnet_course.onnx_files import save_onnx
    from resnet_course.run import load_model
    model, spec = load_model(net)
    files = sorted((images/'train').glob('*/*.png'))
    save_onnx(net.with_name('net.onnx'), model, spec)
    agree = save_onnx(net.with_name('small.onnx'), model, spec, files)
    return net.with_name('net.onnx'), net.with_name('small.onnx'), agree


@pytest.mark.slow
def test_an_exported_net_predicts_as_its_net_does(net, exported, images, command):
    "Through the same resizing and normalisation, by the command; an ONNX file is a model like any other"
    shown = sorted((images/'val').glob('*/*.png'))
    ours, theirs = ([json.loads(line)['classes'] for line in command('predict', file, *shown, '--json')[1].splitlines()]
                    for file in (net, exported[0]))
    assert len(ours) == len(shown) == 8
    for a, b in zip(ours, theirs, strict=True): assert a == pytest.approx(b, abs=1e-4) and list(a) == list(b)
    status, out, err = command('evaluate', exported[0], images)
    assert status == 0 and 'accuracy' in out, err
    assert out.splitlines()[:4] == command('evaluate', net, images)[1].splitlines()[:4]


@pytest.mark.slow
def test_metadata_tell_a_stranger_all_that_it_takes(exported):
    import onnx
    graph = onnx.load(exported[0])
    told = {p.key: p.value for p in graph.metadata_props}
    assert json.loads(told['classes']) == ['3', '7'] and told['output'] == 'logits'
    assert [json.loads(told[k]) for k in ('size', 'presize', 'valid_scale')] == [33, 40, 1.0]
    assert json.loads(told['mean']) == [0.485, 0.456, 0.406] and json.loads(told['sd']) == [0.229, 0.224, 0.225]
    assert told['version'] and [o.version for o in graph.opset_import if not o.domain] == [18]


@pytest.mark.slow
def test_eight_bits_are_a_quarter_and_nearly_the_same(net, exported, images):
    import onnx
    from resnet_course.onnx_files import load_onnx
    from resnet_course.predict import predict_many
    from resnet_course.run import load_model
    full, small, agree = exported
    weights = {t.name: t for t in onnx.load(small).graph.initializer}
    kernels = [t for t in weights.values() if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    scales = [len(t.dims) and t.dims[0] for name, t in weights.items() if 'weight' in name and name.endswith('_scale')]
    assert len(kernels) == 14 and max(scales) == 64, "a scale for each output channel of each convolution"
    assert agree >= 0.9 and load_onnx(small)[1] == load_onnx(full)[1]
    shown = sorted((images/'val').glob('*/*.png'))
    want, got = (predict_many(*load(file), shown).to_numpy() for load, file in ((load_model, net), (load_onnx, small)))
    assert abs(want-got).max() < 0.1 and abs(want-got).max() > 0


def test_calibration_leaves_out_what_the_run_held_out(unsplit, small, tmp_path):
    "Of a folder that the run divided, the training part; of one with `train/`, that; else all of it"
    from resnet_course.lists import divide_images
    from resnet_course.onnx_files import calibration_images
    parts = divide_images(unsplit, valid_pct=0.25)
    assert set(calibration_images(unsplit, valid_pct=0.25)) == set(parts['train']) and parts['val']
    assert set(calibration_images(unsplit)) == set(parts['train'])|set(parts['val'])
    assert all('train' in f.parts for f in calibration_images(small))


def test_calibration_shows_the_net_what_prediction_shows_it(net, images):
    from resnet_course.fast import fast_data
    from resnet_course.onnx_files import calibration_images, prepared_images
    from resnet_course.run import load_model
    model, spec = load_model(net)
    files = sorted((images/'val').glob('*/*.png'))
    batch, = prepared_images(model, spec, files)
    valid = fast_data(images, 40, 33, bs=8, workers=0).valid
    want = valid.one_batch()[0].as_subclass(torch.Tensor)
    torch.testing.assert_close(torch.from_numpy(batch), want, atol=1e-5, rtol=0)
    chosen = calibration_images(images, 6)
    assert len(chosen) == 6 and {f.parent.name for f in chosen} == {"3", "7"} and "val" not in str(chosen)
    assert len(calibration_images(images/'val'/'3')) == 4


@pytest.mark.slow
def test_export_destroys_nothing_and_writes_nothing_half(net, exported, refused, command, tmp_path, monkeypatch):
    other = tmp_path/'other.onnx'
    other.write_text('my notes')
    (tmp_path/'folder.onnx').mkdir()
    assert 'not from here' in refused('export', net, other) and other.read_text() == 'my notes'
    assert 'does not end in .onnx' in refused('export', net, net)
    assert 'is a folder' in refused('export', net, tmp_path/'folder.onnx')
    assert 'is no folder' in refused('export', net, tmp_path/'nowhere'/'x.onnx')
    assert 'is no file' in refused('export', tmp_path/'none', tmp_path/'x.onnx')
    assert 'holds no images' in refused('export', net, tmp_path/'x.onnx', '--int8', tmp_path/'folder.onnx')
    before = (again := tmp_path/'again.onnx').write_bytes(exported[0].read_bytes())
    from resnet_course import onnx_files
    monkeypatch.setattr(onnx_files.OnnxNet, 'forward', lambda self, x: torch.zeros(len(x), 2))
    assert 'differs from its own' in refused('export', net, again)
    assert again.stat().st_size == before and not list(tmp_path.glob('.resnet_course*'))
    monkeypatch.undo()
    status, out, err = command('export', net, again)
    assert status == 0 and out.startswith(f'{again}: ') and 'next: resnet-course predict' in out, err


@pytest.mark.slow
def test_files_that_are_no_exported_net(exported, refused, tmp_path):
    import onnx
    data = exported[0].read_bytes()
    graph = onnx.load(exported[0])
    def tell(key, value):
        changed = onnx.ModelProto.FromString(data)
        for p in changed.metadata_props:
            if p.key == key: p.value = value
        return changed.SerializeToString()
    spec = json.loads({p.key: p.value for p in graph.metadata_props}['resnet_course'])
    del graph.metadata_props[:]
    for name, content, says in (
            ('empty', b'', 'no ONNX file'), ('cut', data[:len(data)//2], 'no ONNX file'),
            ('text', b'hello', 'no ONNX file'),
            ('foreign', graph.SerializeToString(), 'metadata'), ('odd', tell('resnet_course', '[1'), 'metadata'),
            ('list', tell('resnet_course', '[]'), 'not entries'),
            ('size', tell('resnet_course', json.dumps({**spec, 'size': -1})), 'not a whole number from 32'),
            ('classes', tell('resnet_course', json.dumps({**spec, 'classes': ['3']})), 'logits')):
        (file := tmp_path/f'{name}.onnx').write_bytes(content)
        assert says in refused('predict', file, tmp_path), name
    assert 'is no file' in refused('predict', tmp_path/'none.onnx', tmp_path)


@pytest.mark.parametrize('extra, words', [('ship', 'export MODEL x.onnx'), ('serve', 'serve MODEL')])
def test_an_extra_that_is_not_installed_is_one_line(net, refused, tmp_path, monkeypatch, extra, words):
    from resnet_course.extras import EXTRAS
    for package in EXTRAS[extra]: monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    line = refused(*words.replace('MODEL', str(net)).split())
    assert f"pip install {' '.join(EXTRAS[extra])}" in line


def test_extras_are_those_of_settings():
    from resnet_course.extras import EXTRAS
    config = ConfigParser()
    config.read(ROOT/'settings.ini')
    for extra, packages in EXTRAS.items():
        assert {re.split('>', line)[0] for line in config['DEFAULT'][f'{extra}_requirements'].split()} == set(packages)


@contextmanager
def serving(net, stop=signal.SIGINT):
    "The command's address, while it runs in a process of its own; stopped, it ends with 0 and without a complaint"
    words = [sys.executable, '-m', 'resnet_course', 'serve', str(net), '--port', '0']
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield re.match(r'http://127\.0\.0\.1:\d+', process.stdout.readline())[0]
            process.send_signal(stop)
            assert (process.wait(60), process.stderr.read()) == (0, '')
        finally: process.kill()


@pytest.fixture(scope='module')
def service(net):
    with serving(net) as address: yield address


def ask(address, data=None, method=None, headers=()):
    "Status, answer and headers of a request"
    request = urllib.request.Request(address, data, dict(headers), method=method)
    try: reply = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as e: reply = e
    with reply: return reply.status, json.loads(reply.read()), reply.headers


@pytest.mark.slow
def test_the_service_answers_as_predict_does_for_fifty_at_once(net, service, images, command):
    shown = sorted((images/'train').glob('*/*.png'))
    lines = command('predict', net, *shown, '--json')[1].splitlines()
    want = [json.loads(line)['classes'] for line in lines]
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda i: ask(f'{service}/predict', shown[i % len(shown)].read_bytes()), range(50)))
    for i, (status, said, _) in enumerate(replies):
        assert status == 200 and said['classes'] == pytest.approx(want[i % len(shown)], abs=1e-5)
        assert list(said['classes']) == list(want[i % len(shown)]) and said['milliseconds'] > 0


def png(*size, end=None):
    buffer = io.BytesIO()
    Image.new('RGB', size, 'red').save(buffer, 'PNG', compress_level=1)
    return buffer.getvalue()[:end]


@pytest.mark.slow
@pytest.mark.parametrize('data, headers, status, says', [
    (b'no image at all', {}, 400, 'no image that can be read'),
    (partial(png, 600, 600, end=1500), {}, 400, 'no image that can be read'),
    (b'', {}, 400, 'an empty request'),
    (b'x'*20_000_001, {}, 413, 'more than 20 MB'),
    (partial(png, 8000, 6300), {}, 400, 'more than 50 million pixels'),
    (partial(png, 20_000, 15_000), {}, 400, 'more than 50 million pixels'),
    (b'--x', {'Content-Type': 'multipart/form-data; boundary=x'}, 415, 'this is a form'),
], ids='text cut empty large pixels bomb form'.split())
def test_bad_requests_get_one_line_each(service, data, headers, status, says):
    got, said, _ = ask(f'{service}/predict', data() if callable(data) else data, 'POST', headers)
    assert got == status and says in said['error'] and '\n' not in said['error'] and set(said) == {'error'}


@pytest.mark.slow
@pytest.mark.parametrize('host', ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '[::2]'])
def test_it_answers_under_this_machine_s_names_alone(service, images, host):
    "A page elsewhere, whose name was made to lead here, learns nothing"
    photo, port = next((images/'train').glob('*/*.png')).read_bytes(), service.rpartition(':')[2]
    for path, data in (('/', None), ('/health', None), ('/predict', photo), ('/nothing', None)):
        status, said, _ = ask(service+path, data, headers={'Host': host})
        assert status in (400, 403) and 'classes' not in said
    for own in ('localhost', f'localhost:{port}', '[::1]', f'127.0.0.1:{port}'):
        assert ask(f'{service}/health', headers={'Host': own})[0] == 200


@pytest.mark.slow
def test_paths_and_methods(service):
    told = {'status': 'ok', 'net': 'ResNet', 'classes': 2, 'version': resnet_course.__version__}
    assert ask(f'{service}/health')[:2] == (200, told)
    assert ask(f'{service}/nothing')[0] == 404 and 'POST a photograph' in ask(f'{service}/nothing')[1]['error']
    assert ask(f'{service}/predict')[0] == 405 and 'not with GET' in ask(f'{service}/predict')[1]['error']
    assert ask(f'{service}/health', b'x')[0] == 405


@pytest.mark.slow
def test_a_sender_who_goes_away_is_no_accident(service, images):
    "Half a request, then nothing: no traceback (the fixture looks at standard error), and others are answered"
    host, port = service.removeprefix('http://').split(':')
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc')
    with socket.create_connection((host, int(port))) as s:
        s.sendall(b'no request at all\r\n\r\n')
        assert b'400' in s.recv(100)
    assert ask(f'{service}/health')[0] == 200


def test_the_page_needs_nothing_else_and_names_are_text():
    from resnet_course.page import page_of
    page = page_of({**SPEC, 'classes': ['<script>alert(1)</script>', 'b']}, 5)
    assert '<script>alert' not in page and page.count('<script>') == 1
    assert not re.search(r'https?:|src=["\']|@import|url\(', page) and 'name="viewport"' in page


@pytest.mark.slow
@pytest.mark.parametrize('stop', [signal.SIGINT, signal.SIGTERM])
def test_the_service_stops_in_good_order(net, stop):
    with serving(net, stop) as address: assert ask(f'{address}/health')[0] == 200
    with pytest.raises(urllib.error.URLError): ask(f'{address}/health')


@pytest.mark.parametrize('words, says', [
    ('--port 70000', '0 to 65535'), ('--port x', 'is no port'), ('--port -1', 'is no port'),
    ('--host no.such.host.invalid', 'cannot be listened at'), ('--port TAKEN', 'take another port, or --port 0')])
def test_where_no_service_can_listen(net, refused, monkeypatch, words, says):
    "Said before the net is read"
    monkeypatch.setattr('resnet_course.onnx_files.load_any', None)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        words = words.replace('TAKEN', str(taken.getsockname()[1])).split()
        assert says in refused('serve', net, *words)


def test_a_net_that_cannot_answer_is_not_served(net, refused, tmp_path):
    from resnet_course.models import build_model
    from resnet_course.run import save_model
    spec = {**SPEC, 'net_options': {**SPEC['net_options'], 'n_in': 1}}
    save_model(tmp_path/'grey.safetensors', build_model(spec, 2), spec)
    assert 'takes 1 channels' in refused('serve', tmp_path/'grey.safetensors', '--port', '0')


def test_a_card_says_what_is_recorded_and_nothing_else(done, images, command, refused, tmp_path):
    shutil.copytree(done.folder, run := tmp_path/'run')
    status, out, err = command('card', run)
    card = (run/'README.md').read_text()
    assert status == 0 and out == f"card: {run/'README.md'}\n", err
    history = pd.read_csv(run/'history.csv').iloc[-1]
    n, digest = sum(p.numel() for p in done.model.parameters()), hashlib.sha256((run/'model.safetensors').read_bytes())
    for words in (f"accuracy {history.accuracy:.1%}", "24 images to train on and 8 to validate", '3, 7',
                  'layers=[1, 1, 1, 1]', f"{n:,} parameters", 'Learning rate 0.01: given with the recipe',
                  '2 at 32 px', 'random weights', digest.hexdigest()):
        assert words in card, words
    assert str(images.parent) not in card and str(tmp_path) not in card and 'None' not in card
    assert command('card', run)[0] == 0, "it may write its own again"
    (run/'README.md').write_text('# My own words\n')
    assert 'not from this command' in refused('card', run) and (run/'README.md').read_text() == '# My own words\n'
    assert command('card', run, '--file', tmp_path/'CARD.md')[0] == 0


@pytest.mark.slow
def test_a_card_of_a_file_alone(net, exported, refused, command, tmp_path):
    shutil.copy(net, alone := tmp_path/'alone.safetensors')
    assert command('card', alone)[0] == 0
    card = (tmp_path/'README.md').read_text()
    assert 'Not recorded in this file.' in card and 'accuracy ' not in card.partition('## Intended')[0]
    assert command('card', exported[0], '--file', tmp_path/'onnx.md')[0] == 0
    beside = shutil.copy(exported[0], alone.with_name('other.onnx'))
    card = alone.with_name('README.md').read_bytes()
    assert 'README.md is the card of another model; say where that of other.onnx goes' in refused('card', beside)
    assert alone.with_name('README.md').read_bytes() == card
    assert command('card', beside, '--file', alone.with_name('other.md'))[0] == 0 == command('card', alone)[0]
    assert 'holds no model' in refused('card', tmp_path) and 'holds no model' in refused('card', tmp_path/'none')


def test_a_card_of_a_run_that_stopped_or_was_changed(done, command, refused, tmp_path):
    shutil.copytree(done.folder, run := tmp_path/'run')
    lines = (run/'history.csv').read_text().splitlines(keepends=True)
    (run/'history.csv').write_text(''.join(lines[:2]))
    assert command('card', run)[0] == 0 and 'After epoch 1 (the run has 2 epochs' in (run/'README.md').read_text()
    (run/'history.csv').write_text('a,b\n1,2\n')
    assert 'history.csv are not as the run wrote them' in refused('card', run)
    (run/'history.csv').unlink()
    assert command('card', run)[0] == 0 and 'No epoch is recorded.' in (run/'README.md').read_text()
