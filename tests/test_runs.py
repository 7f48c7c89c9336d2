"One run, one folder, one set of images; what a run folder holds is checked before it is believed"
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from fastai.learner import Learner
from tiny import TINY, fit, results, same

from resnet_course import run_folder
from resnet_course.data import image_files
from resnet_course.errors import CourseError
from resnet_course.files import hold_folder, remove_parts, whole_folder, write_whole
from resnet_course.model_files import load_model, save_model
from resnet_course.run_folder import FILES, load_checkpoint, new_folder, read_config, write_config


def one_line(e): return '\n' not in str(e.value) and len(str(e.value)) < 400
def not_fused(opt, init, *args, fused=None, **kwargs): init(opt, *args, **kwargs)


def tensors(state):
    "All tensors in dictionaries and lists of them"
    if isinstance(state, torch.Tensor): return [state]
    inner = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [t for s in inner for t in tensors(s)]


def kept(folder): return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.fixture
def run(done, tmp_path):
    "A run that is done, to be spoiled"
    return Path(shutil.copytree(done.folder, tmp_path/'run'))


# -- one run, one folder

@pytest.mark.parametrize('resume', [False, True])
def test_a_folder_has_one_writer(images, tmp_path, resume):
    "Whoever comes while a run, begun or resumed, is written is refused, and the run is what it would have been"
    out, said = tmp_path/'run', []
    if resume: fit(TINY, images, out)

    def meanwhile(line):
        if not line.startswith('images'): return
        for again in (True, False):
            with pytest.raises(CourseError, match=r'being written by another run|already holds a run') as e:
                fit(None if again else TINY, images, out, resume=again)
            said.append(str(e.value))
    done = fit(None if resume else TINY, images, out, resume=resume, report=meanwhile)
    assert len(said) == 2 and 'being written' in said[0] and len(done.history) == 2
    assert sorted(f.name for f in out.iterdir()) == sorted(FILES)
    with hold_folder(out): pass  # and it was let go


def test_two_that_begin_at_once(images, tmp_path, monkeypatch):
    "Both found the folder free; the second is refused though the first has written nothing yet"
    from resnet_course import fitting
    make_data = fitting.make_data

    def late(*args):
        monkeypatch.undo()
        return first.append(fit(TINY, images, tmp_path/'run')) or make_data(*args)
    first = []
    monkeypatch.setattr(fitting, 'make_data', late)
    with pytest.raises(CourseError, match='already holds a run'): fit(replace(TINY, seed=5), images, tmp_path/'run')
    assert read_config(tmp_path/'run')['recipe']['seed'] == 0 and len(first) == 1


@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('kind', ['file', 'link', 'folder'])
def test_files_that_are_no_runs_are_not_overwritten(images, tmp_path, name, kind):
    out = tmp_path/'mine'
    out.mkdir()
    if kind == 'file': (out/name).write_text('mine')
    elif kind == 'link': (out/name).symlink_to(tmp_path/'nothing')
    else: (out/name).mkdir()
    with pytest.raises(CourseError, match='another out') as e: fit(TINY, images, out)
    assert one_line(e) and [f.name for f in out.iterdir()] == [name] and not (tmp_path/'nothing').exists()


@pytest.mark.parametrize('place', ['train', 'train/3', 'val/7/run', 'train/new', 'link/3'])
def test_a_run_among_its_images_is_refused(small, place):
    "Its figures would be images of a class, and it could never go on"
    (small/'link').symlink_to(small/'val')
    before = sorted(small.rglob('*'))
    with pytest.raises(CourseError, match=r'among the images .* take another out') as e: fit(TINY, small, small/place)
    assert one_line(e) and sorted(small.rglob('*')) == before


def test_a_run_beside_its_images(small):
    fit(replace(TINY, sizes=(32,)), small, small/'run')
    assert len(fit(None, None, small/'run', resume=True).history) == 1


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_a_run_folder_that_is_none(images, tmp_path, kind):
    "It is named before any image is read"
    if kind == 'file': (tmp_path/'run').write_text('mine')
    else: (tmp_path/'run').symlink_to(tmp_path/'nowhere')
    with pytest.raises(CourseError, match='run is no folder; take'): fit(TINY, images/'none', tmp_path/'run')


@pytest.mark.slow
@pytest.mark.parametrize('letter', ['d', 'é', '中', '😀'])
def test_a_data_folder_with_a_name_as_long_as_any(small, tmp_path, monkeypatch, letter):
    (tmp_path/'here').mkdir()
    monkeypatch.chdir(tmp_path/'here')
    data = small.rename(tmp_path/(letter*(255//len(letter.encode()))))
    done = fit(replace(TINY, sizes=(32,)), data, None)
    assert done.folder.name.startswith(f'{letter*9}') and sorted(f.name for f in done.folder.iterdir()) == sorted(FILES)


def test_other_files_may_be_there(images, tmp_path):
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'notes.txt').write_text('mine')
    fit(replace(TINY, sizes=(32,)), images, tmp_path/'run')
    assert (tmp_path/'run'/'notes.txt').read_text() == 'mine'


def test_two_folders_in_one_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda _: 'now')
    assert [new_folder('x').name for _ in range(3)] == ['x-now', 'x-now-2', 'x-now-3']


HOLD = """
import os, sys, time
from resnet_course.files import hold_folder, write_whole
with hold_folder(sys.argv[1]):
    if os.fork() == 0:  # as a process that reads images
        os.write(1, b'begun\\n')  # in one piece: `print` may write its two parts one by one
        time.sleep(20)
        os._exit(0)
    os.write(1, b'held\\n')
    sys.stdin.read(1)
    os._exit(0)
"""


def test_a_held_folder_is_free_when_its_holder_is_gone(tmp_path):
    "Though a process that it started lives on"
    words = [sys.executable, '-c', HOLD, tmp_path]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=os.environ | {'PYTHONPATH': str(ROOT)}) as holder:
        assert {holder.stdout.readline() for _ in range(2)} == {'held\n', 'begun\n'}
        with pytest.raises(CourseError, match='being written by another run'), hold_folder(tmp_path): pass
        holder.stdin.close()
        holder.wait(10)
        with hold_folder(tmp_path): pass
        holder.stdout.close()


def test_unfinished_files_go_but_not_those_of_a_live_writer(tmp_path, monkeypatch):
    dead = tmp_path/'.resnet_course.dead.part'
    dead.write_bytes(b'half')
    (tmp_path/'.resnet_course.folder.part').mkdir()
    (tmp_path/'.resnet_course.folder.part'/'x').write_bytes(b'half')
    (tmp_path/'.resnet_course.link.part').symlink_to(tmp_path/'mine')
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'x').write_bytes(b'mine')
    os.mkfifo(tmp_path/'.resnet_course.pipe.part')
    with whole_folder(tmp_path/'set') as tmp:
        (tmp/'a').write_bytes(b'1')
        remove_parts(tmp_path)
        assert (tmp/'a').exists() and not dead.exists() and (tmp_path/'mine'/'x').read_bytes() == b'mine'
    assert (tmp_path/'set'/'a').read_bytes() == b'1'
    fsync = os.fsync

    def meanwhile(fd):
        remove_parts(tmp_path)
        fsync(fd)
    monkeypatch.setattr(os, 'fsync', meanwhile)
    write_whole(tmp_path/'b', b'2')
    assert (tmp_path/'b').read_bytes() == b'2'


def test_a_link_stays_one_and_a_pipe_is_written_to(tmp_path):
    (tmp_path/'there').mkdir()
    (tmp_path/'link').symlink_to(tmp_path/'there'/'file')
    for data in (b'1', b'2'):
        write_whole(tmp_path/'link', data)
        assert (tmp_path/'link').is_symlink() and (tmp_path/'there'/'file').read_bytes() == data
    write_whole('/dev/null', b'nothing')
    assert not Path('/dev/null').is_file()
    with pytest.raises(OSError, match='nowhere') as e: write_whole(tmp_path/'nowhere'/'file', b'')
    assert e.value.filename == str(tmp_path/'nowhere'/'file')


# -- the same images

def swap(a, b):
    a.rename(a.with_name('x'))
    b.rename(a)
    a.with_name('x').rename(b)


def rename_class(root):
    for split in ('train', 'val'): (root/split/'3').rename(root/split/'4')


def swap_classes(root):
    for split in ('train', 'val'): swap(root/split/'3', root/split/'7')


def swap_two_images(root):
    a, b = sorted((root/'train'/'3').iterdir())[:2]
    swap(a, b)


def change_one_byte(root):
    f = sorted((root/'val'/'3').iterdir())[0]
    s, data = f.stat(), bytearray(f.read_bytes())
    data[-1] ^= 1
    f.write_bytes(data)
    os.utime(f, ns=(s.st_atime_ns, s.st_mtime_ns))


def move_to_validation(root):
    a, b = sorted((root/'train'/'3').iterdir())[0], sorted((root/'val'/'3').iterdir())[0]
    swap(a, b)


def rename_image(root):
    f = sorted((root/'train'/'3').iterdir())[0]
    f.rename(f.with_name('0.png'))


@pytest.mark.parametrize('began_here', [False, True])
@pytest.mark.parametrize('change', [rename_class, swap_classes, swap_two_images, change_one_byte, move_to_validation,
                                    rename_image], ids=lambda f: f.__name__)
def test_a_resume_wants_the_same_images(small, run, change, began_here):
    "Whether or not it is the folder whose times the run knows"
    if began_here: run = fit(TINY, small, run.with_name('here')).folder
    change(small)
    before = kept(run)
    with pytest.raises(CourseError, match='a resumed run needs the same data') as e: fit(None, small, run, resume=True)
    assert one_line(e) and kept(run) == before


def test_images_may_have_moved(small, run, done, tmp_path):
    "Another place, other times: the same images"
    for f in small.glob('*/*/*'): os.utime(f, (1, 1))
    small.rename(tmp_path/'elsewhere')
    again = fit(None, tmp_path/'elsewhere', run, resume=True)
    assert results(run) == results(done.folder) and same(again.model, done.model)


def test_a_resume_reads_what_somebody_may_have_changed(small, tmp_path, monkeypatch):
    "Nothing if no file has been touched; all if one has, or what was learned has been lost, or it was never noted"
    run, read = fit(TINY, small, tmp_path/'run').folder, []
    trained, config = (run/'trained.txt').read_text(), json.loads((run/'config.json').read_text())
    monkeypatch.setattr(run_folder, '_contents', lambda item, c=run_folder._contents: read.append(item) or c(item))

    def reads():
        read.clear()
        fit(None, None, run, resume=True)
        assert (run/'trained.txt').read_text() == trained
        return len(read)
    everything = sum(image_files(small).counts.values())
    assert reads() == 0
    (run/'trained.txt').unlink()
    assert reads() == everything
    (run/'config.json').write_text(json.dumps({k: v for k, v in config.items() if k != 'stamps'}))
    assert reads() == everything
    (run/'config.json').write_text(json.dumps(config))
    os.utime(next(small.glob('train/*/*')))
    assert reads() == everything


@pytest.mark.slow
@pytest.mark.parametrize('name', ['digits', 'imagenette-160'])
def test_a_folder_that_is_called_as_a_known_set(small, tmp_path, name):
    "The run knows where it is, and goes on with it"
    small.rename(tmp_path/name)
    fit(replace(TINY, sizes=(32,)), tmp_path/name, tmp_path/'run')
    assert read_config(tmp_path/'run')['data'] == str(tmp_path/name)
    assert len(fit(None, None, tmp_path/'run', resume=True).history) == 1


def test_labels_of_a_list_may_not_have_changed(images, tmp_path):
    files = sorted(images.glob('*/*/*.png'))
    def listed(labels): return image_files(files=files, labels=labels, valid=['val' in f.parts for f in files])
    labels = [f.parent.name for f in files]
    fit(TINY, listed(labels), tmp_path/'run')
    swapped = [{'3': '7', '7': '3'}[label] for label in labels]
    with pytest.raises(CourseError, match='needs the same data'):
        fit(None, listed(swapped), tmp_path/'run', resume=True)


# -- another machine

@pytest.mark.slow
@pytest.mark.parametrize('optimiser', ['fused Adam', 'fused SGD', 'Adam'])
def test_begun_on_a_gpu(images, tmp_path, optimiser):
    "A run whose configuration says so goes on here, in the format that suits this machine"
    recipe = replace(TINY, optimiser=optimiser, precision='auto', sizes=(32, 32))
    out = tmp_path/'run'

    def stop(line):
        if line.startswith('epoch 1/'): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fit(recipe, images, out, report=stop)
    config = read_config(out)
    write_config(out, config | {'device': 'cuda', 'precision': 'fp16'})
    said = []
    assert len(fit(None, None, out, resume=True, report=said.append).history) == 2
    assert f"{config['precision']} on cpu" in said[0]
    write_config(out, config | {'device': 'cuda', 'recipe': config['recipe'] | {'precision': 'fp16'}})
    checkpoint = load_checkpoint(out/'checkpoint.pt')
    torch.save(checkpoint | {'recipe': config['recipe'] | {'precision': 'fp16'}}, out/'checkpoint.pt')
    with pytest.raises(CourseError, match='precision=fp16 needs a GPU'): fit(None, None, out, resume=True)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:for .*copying from a non-meta')  # nothing is copied there
@pytest.mark.parametrize('averaging', [0., 0.9])
@pytest.mark.parametrize('optimiser', ['Adam', 'fused Adam', 'fused SGD'])
def test_a_resume_on_a_gpu(images, tmp_path, monkeypatch, optimiser, averaging):
    """When training goes on, all that the checkpoint gave lies where the batches will be

    'meta' stands for the GPU: tensors on another device, but nothing is computed, and no optimiser is fused there."""
    recipe = replace(TINY, optimiser=optimiser, averaging=averaging, average_from=0.)
    out, seen, fit_run = tmp_path/'run', [], Learner.fit_run

    def stop(line):
        if line.startswith('epoch 1/'): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): fit(recipe, images, out, report=stop)

    def elsewhere(learn, *args):
        learn.dls.device = torch.device('meta')
        fit_run(learn, *args)

    def look(learn, *_, **__):
        learn.model.to(learn.dls.device)  # fastai does it here, too late for the optimiser's averages
        seen.extend(t for t in tensors(learn.opt.state_dict()['state']) if t.ndim)
        raise KeyboardInterrupt
    for name, f in (('fit_run', elsewhere), ('fit', look), ('save_state', lambda *_, **__: None)):
        monkeypatch.setattr(Learner, name, f)
    for kind in (torch.optim.AdamW, torch.optim.SGD):
        monkeypatch.setattr(kind, '__init__', partialmethod(not_fused, kind.__init__))
    with pytest.raises(KeyboardInterrupt): fit(None, None, out, resume=True)
    assert seen and {t.device.type for t in seen} == {'meta'}


# -- what is read is checked

def without(key): return lambda d: {k: v for k, v in d.items() if k != key}
def put(**entries): return lambda d: d | entries


WRONG_CONFIG = [
    lambda c: {}, lambda c: [c], lambda c: 5, lambda c: None, without('images'), without('counts'), put(classes=None),
    put(classes=[]), put(classes=['a', 'a']), put(classes=[3, 7]), put(counts={'train': 24}), put(counts=24),
    put(counts={'train': '24', 'val': 8}), put(data=5), put(images=None), put(skip_broken='no'), put(device='tpu'),
    put(device=None), put(precision='auto'), put(options=[]), put(recipe=[]), put(recipe={}),
    lambda c: c | {'recipe': c['recipe'] | {'sizes': [10**9]}},
    lambda c: c | {'recipe': c['recipe'] | {'presize': None}},
    lambda c: c | {'recipe': c['recipe'] | {'net_options': {'layers': [10**9, 1, 1, 1]}}},
    lambda c: c | {'recipe': c['recipe'] | {'sizes': None}}, lambda c: c | {'recipe': c['recipe'] | {'lr': 1e-9}},
    lambda c: c | {'recipe': c['recipe'] | {'seed': 2**64}}, lambda c: c | {'recipe': c['recipe'] | {'bs': 'all'}}]


@pytest.mark.parametrize('change', WRONG_CONFIG)
def test_a_wrong_configuration(run, change):
    (run/'config.json').write_text(json.dumps(change(read_config(run))))
    before = kept(run)
    with pytest.raises(CourseError) as e: fit(None, None, run, resume=True)
    assert one_line(e) and str(run) in str(e.value) and kept(run) == before


@pytest.mark.parametrize('text', [b'', b'{', b'['*100_000, b'\xff\xfe{}', b'{"schema": ' + b'1'*5000 + b'}', b'NaN'])
def test_a_configuration_that_is_no_json(run, text):
    (run/'config.json').write_bytes(text)
    before = kept(run)
    with pytest.raises(CourseError) as e: fit(None, None, run, resume=True)
    assert one_line(e) and kept(run) == before


def rows(change): return lambda s: s | {'rows': change(s['rows'])}
def row(**entries): return rows(lambda rows: [rows[0] | entries, *rows[1:]])


def opt(change):
    def of_first(s):
        first, *_ = s['opt'].items() if isinstance(s['opt'], dict) else enumerate(s['opt'])
        return s | {'opt': {**s['opt'], first[0]: change(first[1])}}
    return of_first


NAN, BIAS = float('nan'), 'head.bias'
WRONG_CHECKPOINT = [
    lambda s: [s], lambda s: 5, lambda s: None, lambda s: {}, without('model'), without('opt'), without('images'),
    put(images='other'), put(rows=[]), put(rows=1), put(rows=[1]), put(rows=[1, 2]), rows(lambda r: r+r),
    rows(lambda r: r[::-1]), row(epoch=0), row(epoch=1.), row(train_loss=NAN), row(train_loss='low'),
    row(accuracy=2), row(accuracy=None), row(seconds=-1), row(size=48), row(size=10**9), row(lr=float('inf')),
    rows(lambda r: [without('lr')(r[0])]), put(model={}), put(model=[]), put(opt={}), put(opt=[]), put(opt=5),
    lambda s: s | {'model': s['model'] | {BIAS: torch.zeros(3)}}, lambda s: s | {'model': s['model'] | {BIAS: 5}},
    lambda s: s | {'model': s['model'] | {BIAS: torch.full((2,), NAN)}},
    lambda s: s | {'model': without(BIAS)(s['model'])},
    lambda s: s | {'model': s['model'] | {'more': torch.zeros(1)}},
    lambda s: s | {'model': s['model'] | {BIAS: torch.zeros(2, dtype=torch.int64)}},
    lambda s: s | {'model': s['model'] | {BIAS: torch.zeros(2).to_sparse()}},
    opt(without('exp_avg')), opt(lambda p: p | {'exp_avg': torch.zeros(1)}), opt(lambda p: p | {'exp_avg': None}),
    opt(lambda p: p | {'exp_avg_sq': p['exp_avg_sq']*NAN}), opt(lambda p: p | {'step': 'three'}), opt(lambda p: []),
    lambda s: s | {'recipe': s['recipe'] | {'seed': 7}}, lambda s: s | {'recipe': None}]


@pytest.mark.parametrize('change', WRONG_CHECKPOINT)
def test_a_wrong_checkpoint(run, change):
    torch.save(change(load_checkpoint(run/'checkpoint.pt')), run/'checkpoint.pt')
    before = kept(run)
    with pytest.raises(CourseError) as e: fit(None, None, run, resume=True)
    assert one_line(e) and str(run) in str(e.value) and kept(run) == before


def test_a_checkpoint_without_its_average(images, tmp_path):
    fit(replace(TINY, averaging=0.9), images, tmp_path/'run')
    file = tmp_path/'run'/'checkpoint.pt'
    for change in (without('average'), put(average={}), put(average=5)):
        torch.save(change(load_checkpoint(file)), tmp_path/'changed')
        before, file_bytes = kept(tmp_path/'run'), file.read_bytes()
        file.write_bytes((tmp_path/'changed').read_bytes())
        with pytest.raises(CourseError, match='its average is'): fit(None, None, tmp_path/'run', resume=True)
        file.write_bytes(file_bytes)
        assert kept(tmp_path/'run') == before


def test_a_changed_byte_and_a_packed_checkpoint(run):
    file = run/'checkpoint.pt'
    with zipfile.ZipFile(file) as z: entries = {i: z.read(i) for i in z.infolist()}
    data = bytearray(file.read_bytes())
    largest = max(entries, key=lambda i: i.file_size)
    data[data.index(entries[largest])+largest.file_size//2] ^= 1
    with zipfile.ZipFile(run/'packed', 'w', zipfile.ZIP_DEFLATED) as z:
        for i, content in entries.items(): z.writestr(i.filename, content)
    for wrong in (bytes(data), (run/'packed').read_bytes()):
        file.write_bytes(wrong)
        with pytest.raises(CourseError, match='cut short or holds more than numbers'): fit(None, None, run, resume=True)


@pytest.mark.parametrize('name', [name for name in FILES if name not in ('config.json', 'checkpoint.pt')])
@pytest.mark.parametrize('kind', ['pipe', 'device', 'folder'])
def test_a_result_that_is_no_file(run, name, kind):
    "Whatever is written there would be lost, or wait for ever"
    (run/name).unlink()
    if kind == 'pipe': os.mkfifo(run/name)
    elif kind == 'device': (run/name).symlink_to('/dev/null')
    else: (run/name).mkdir()
    with pytest.raises(CourseError, match=f'{name} is no file') as e: fit(None, None, run, resume=True)
    assert one_line(e)


def test_a_class_of_another_name_is_named(small, run):
    rename_class(small)
    with pytest.raises(CourseError, match="'3' is not in both"): fit(None, small, run, resume=True)


def test_results_without_a_checkpoint(run):
    (run/'checkpoint.pt').unlink()
    before = kept(run)
    with pytest.raises(CourseError, match='results but no checkpoint') as e: fit(None, None, run, resume=True)
    assert one_line(e) and kept(run) == before


WRONG_MODEL = [
    put(net_options={'layers': [10**9, 1, 1, 1], 'width': 8}),
    put(net_options={'layers': [1, 1, 1, 1], 'width': 10**9}),
    put(net_options={'layers': [1, 1, 1, 1], 'width': -8}), put(net_options={'layers': [1, 1, 1, NAN], 'width': 8}),
    put(net_options={'layers': [1, 1, 1, [1]], 'width': 8}), put(net_options={'layers': None, 'width': 8}),
    put(net_options={'layers': [1, 1, 1, 1], 'width': 'big'}), put(net_options={'layers': [1, 1, 1, True], 'width': 8}),
    put(net_options={'layers': [1, 1, 1, 1.], 'width': 8}), put(net_options={'layers': '1111', 'width': 8}),
    put(net_options={'layers': [1, 1, 1, 1], 'width': 8, 'n_in': 10**9}), put(net_options=None), put(net_options=[]),
    put(net_options={'layers': [1, 1, 1, 1], 'width': 8, 'act_cls': 'exec'}), put(net=None), put(net=5), put(net='vgg'),
    put(net='resnet152', net_options={}), put(presize=20_000), put(presize=0), put(presize=-32), put(presize='big'),
    put(presize=None), put(presize=NAN), put(presize=[32]), put(presize=True), put(size=10**9), put(size=None),
    put(size=31), put(valid_scale=NAN), put(valid_scale=0), put(valid_scale=-1), put(valid_scale='1'),
    put(valid_scale=float('inf')), put(pipeline='slow'), put(pipeline=None), put(classes='37'), put(classes=['3', '3']),
    put(classes=[1, 2]), put(classes=['3', None]), put(classes=[]), put(classes={'3': 0, '7': 1}), put(schema=None),
    put(schema=-1), put(schema=1.), put(schema=True), put(schema=[2]), without('size'), without('net'),
    put(schema=0, arch='resnet18'), put(schema=0, layers=[10**9]*4, expansion=1), lambda s: None, lambda s: 'spec']


@pytest.mark.parametrize('change', WRONG_MODEL)
def test_a_wrong_model_file(done, tmp_path, change):
    from safetensors.torch import save_file
    spec = load_model(done.folder/'model.safetensors')[1]
    file, began = tmp_path/'wrong.safetensors', time.perf_counter()
    save_file(done.model.state_dict(), file, {'resnet_course': json.dumps(change(spec))})
    with pytest.raises(CourseError, match='no model of this course') as e: load_model(file)
    assert one_line(e) and time.perf_counter()-began < 2


@pytest.mark.parametrize('value', [NAN, float('inf'), -float('inf')])
@pytest.mark.parametrize('key', ['head.bias', 'stem.0.1.running_var'])
def test_weights_that_are_no_numbers(done, tmp_path, key, value):
    model, spec = load_model(done.folder/'model.safetensors')
    model.state_dict()[key].fill_(value)
    save_model(tmp_path/'wrong', model, spec)
    with pytest.raises(CourseError, match=f'{key} holds what is no finite number'): load_model(tmp_path/'wrong')


def test_weights_of_another_form(done, tmp_path):
    from safetensors.torch import save_file
    weights, spec = done.model.state_dict(), load_model(done.folder/'model.safetensors')[1]
    about = {'resnet_course': json.dumps(spec)}
    for wrong in (weights | {'head.bias': torch.zeros(3)}, without('head.bias')(weights),
                  weights | {'more': torch.zeros(1)}):
        save_file(wrong, tmp_path/'wrong.safetensors', about)
        with pytest.raises(CourseError, match=r'no model of this course: (head.bias|more) is') as e:
            load_model(tmp_path/'wrong.safetensors')
        assert one_line(e)
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save_file(half, tmp_path/'half.safetensors', about)
    model = load_model(tmp_path/'half.safetensors')[0]  # to send by mail, say
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_a_configuration_that_an_editor_has_saved(run, done, encoding):
    (run/'config.json').write_text((run/'config.json').read_text(), encoding=encoding)
    assert results(fit(None, None, run, resume=True).folder) == results(done.folder)
