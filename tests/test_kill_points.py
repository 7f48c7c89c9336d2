"""A run stopped before any write, flush or renaming goes on to the same bytes; so does one whose disk was full there

The run is not killed: its folder is copied at each such moment, half-written files and all, which is what a killed
process leaves. `test_resume` kills real processes."""
import errno
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
from tiny import TINY, fit, results

from resnet_course import files
from resnet_course.errors import CourseError
from resnet_course.run_folder import FILES

pytestmark = pytest.mark.slow
RECIPE = replace(TINY, averaging=0.5, average_from=0.4)


class HalfWriter:
    "A file that asks before it writes, and in the middle of it"
    def __init__(self, file, moment): self.file, self.moment = file, moment
    def __enter__(self): return self
    def __exit__(self, *args): self.file.close()
    def flush(self): self.file.flush()
    def write(self, data):
        self.moment('write')
        self.file.write(data[:len(data)//2])
        self.file.flush()
        self.moment('second half')
        self.file.write(data[len(data)//2:])


@pytest.fixture
def at_each_moment(monkeypatch):
    "Call a function before all that a run does to its folder"
    def watch(moment):
        def before(module, name):
            original = getattr(module, name)
            def wrapper(*args, **kwargs):
                moment(name)
                return original(*args, **kwargs)
            monkeypatch.setattr(module, name, wrapper)
        for name in ('fsync', 'replace', 'chmod'): before(files.os, name)
        before(files.tempfile, 'mkstemp')
        monkeypatch.setattr(files, 'open', lambda *a: HalfWriter(open(*a), moment), raising=False)  # noqa: SIM115
    return watch


def contents(folder):
    "What is in a folder, whatever the unfinished files are called"
    def name(f): return '.part' if f.suffix == '.part' else f.name
    return tuple(sorted((name(f), blake2b(f.read_bytes()).hexdigest()) for f in folder.rglob('*') if f.is_file()))


def goes_on(out, recipe, images, whole):
    "Resume, or start where nothing was begun, and compare"
    if (out/'config.json').exists(): run = fit(None, None, out, resume=True)
    else:
        with pytest.raises(CourseError, match='no run to resume'): fit(None, None, out, resume=True)
        run = fit(recipe, images, out)
    assert results(out) == results(whole.folder) and run.accuracy == whole.accuracy
    assert sorted(f.name for f in out.iterdir()) == sorted(FILES)


def test_killed_at_any_moment(done, images, tmp_path, at_each_moment, monkeypatch):
    states, moments, out = {}, [], tmp_path/'run'

    def copy(moment):
        moments.append(moment)
        if not out.exists() or (state := contents(out)) in states: return
        states[state] = tmp_path/f'state{len(states)}'
        states[state].mkdir()
        for f in out.iterdir(): (states[state]/f.name).write_bytes(f.read_bytes())
    at_each_moment(copy)
    whole = fit(RECIPE, images, out)
    monkeypatch.undo()
    assert moments.count('write') == 2+3*len(RECIPE.sizes)+2  # configuration, images; three files an epoch; two figures
    assert len(states) > 3*moments.count('write')  # before each renaming an empty, a half and a whole file
    for state in states.values(): goes_on(state, RECIPE, images, whole)


def test_killed_when_the_rate_is_found(images, tmp_path, at_each_moment, monkeypatch):
    "The configuration is written again with the finder's rate, which keeps the weights in the folder meanwhile"
    recipe, written = replace(TINY, lr='auto', sizes=(32,)), []

    def stop(moment):
        written.append(moment)
        if written.count('write') == 2: raise SystemExit
    whole = fit(recipe, images, tmp_path/'whole')
    at_each_moment(stop)
    with pytest.raises(SystemExit): fit(recipe, images, tmp_path/'run')
    monkeypatch.undo()
    (tmp_path/'run'/'.resnet_course.x.part').mkdir()  # as a kill would leave it
    (tmp_path/'run'/'.resnet_course.x.part'/'_tmp.pth').write_bytes(b'weights')
    goes_on(tmp_path/'run', recipe, images, whole)


@pytest.mark.parametrize('room', range(0, 63, 7))
def test_full_disk_at_some_moment(done, images, tmp_path, at_each_moment, monkeypatch, room):
    "What is done to the folder fails from then on"
    out, seen = tmp_path/'run', []

    def full(moment):
        seen.append(moment)
        if len(seen) > room: raise OSError(errno.ENOSPC, 'No space left on device')
    at_each_moment(full)
    with pytest.raises(OSError, match='No space left') as e: fit(TINY, images, out)
    monkeypatch.undo()
    assert Path(e.value.filename).parent == out and not list(out.glob('.*'))
    goes_on(out, TINY, images, done)
