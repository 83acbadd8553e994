"""The dataset of scenes appears whole or not at all."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from eomt_mm.datasets.scenes import draw_scene
from eomt_mm.errors import UserError

ARGS = ['--train', '3', '--val', '2', '--size', '16']


@pytest.fixture
def make_scenes(tool):
    return tool('dataset_converters/make_scenes')


def contents(root):
    files = (p for p in root.rglob('*') if p.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def test_layout_and_content(make_scenes, tmp_path, build):
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    root = out / 'ADEChallengeData2016'
    assert len(contents(root)) == 4 * (3 + 2) + 2 * 2

    image, semantic, instance = draw_scene(np.random.default_rng((0, 1, 1)), 16)
    name = 'validation/scene_000001.png'
    np.testing.assert_array_equal(Image.open(root / 'images' / name), image)
    np.testing.assert_array_equal(Image.open(root / 'annotations' / name), semantic + 1)
    red, green, _ = np.array(Image.open(root / 'annotations_instance' / name)).T
    np.testing.assert_array_equal(green.T, instance)
    np.testing.assert_array_equal(red.T, np.clip(semantic.astype(int) - 1, 0, None))

    dataset = build(root, 'val', config='scenes')
    assert len(dataset) == 2 and len(dataset.metainfo['classes']) == 7
    labels = dataset[1]['data_samples'].gt_sem_seg.data[0]
    np.testing.assert_array_equal(labels, semantic)


def test_small_things(make_scenes, tmp_path):
    out = tmp_path / 'scenes'
    make_scenes.main(
        [str(out), '--train', '1', '--val', '2', '--size', '96', '--small', '10']
    )
    root = out / 'ADEChallengeData2016'
    image, *_ = draw_scene(np.random.default_rng((0, 1, 1)), 96, 10)
    written = Image.open(root / 'images/validation/scene_000001.png')
    np.testing.assert_array_equal(written, image)
    found = json.loads((root / 'instances_validation.json').read_text())
    assert len(found['annotations']) > 2 * 10
    assert json.loads((out / 'make_scenes.json').read_text())['small'] == 10
    with pytest.raises(SystemExit):
        make_scenes.main([str(out), '--small', '11'])


def test_workers_do_not_change_the_scenes(make_scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(make_scenes, 'CHUNK', 2)
    make_scenes.main([str(tmp_path / 'one'), *ARGS])
    make_scenes.main([str(tmp_path / 'two'), *ARGS, '--workers', '2'])
    assert contents(tmp_path / 'one') == contents(tmp_path / 'two')


def test_again_is_a_no_op(make_scenes, tmp_path, capsys):
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    start = time.process_time()
    make_scenes.main([str(out), *ARGS])
    assert time.process_time() - start < 1
    assert before == {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    assert 'there already' in capsys.readouterr().out


def test_other_arguments_need_overwrite(make_scenes, tmp_path):
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    before = contents(out)
    with pytest.raises(UserError, match="'seed': 0.*'seed': 1.*--overwrite"):
        make_scenes.main([str(out), *ARGS, '--seed', '1'])
    assert contents(out) == before
    make_scenes.main([str(out), *ARGS, '--seed', '1', '--overwrite'])
    assert json.loads((out / make_scenes.MANIFEST).read_text())['seed'] == 1
    assert contents(out) != before


def test_what_an_older_version_wrote_is_written_anew(make_scenes, tmp_path, capsys):
    """Old versions wrote no panoptic maps; the scenes are the same."""
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    whole = contents(out)
    manifest = json.loads((out / make_scenes.MANIFEST).read_text())
    del manifest['layout']
    (out / make_scenes.MANIFEST).write_text(json.dumps(manifest))
    (out / 'ADEChallengeData2016/panoptic_training.json').unlink()
    make_scenes.main([str(out), *ARGS])
    assert 'there already' not in capsys.readouterr().out
    assert contents(out) == whole


def test_a_foreign_directory_is_left_alone(make_scenes, tmp_path):
    (tmp_path / 'thesis.tex').write_text('years of work')
    for extra in ([], ['--overwrite']):
        with pytest.raises(UserError, match='not written by make_scenes'):
            make_scenes.main([str(tmp_path), *ARGS, *extra])
    assert contents(tmp_path) == {'thesis.tex': b'years of work'}


@pytest.mark.parametrize(
    'error', [OSError(errno.ENOSPC, 'No space left on device'), KeyboardInterrupt()]
)
def test_failure_leaves_nothing_and_the_old_dataset(
    error, make_scenes, tmp_path, monkeypatch
):
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    before = contents(tmp_path)
    saved = []

    def save(self, path, *args, **kwargs):
        saved.append(path)
        if len(saved) == 5:
            raise error

    monkeypatch.setattr(Image.Image, 'save', save)
    with pytest.raises(type(error)):
        make_scenes.main([str(out), *ARGS, '--seed', '1', '--overwrite'])
    with pytest.raises(type(error)):
        saved.clear()
        make_scenes.main([str(tmp_path / 'fresh'), *ARGS])
    assert contents(tmp_path) == before


def test_leftovers_of_a_killed_run_are_cleared(make_scenes, tmp_path):
    leftover = tmp_path / '.scenes.partial' / 'half'
    leftover.mkdir(parents=True)
    make_scenes.main([str(tmp_path / 'scenes'), *ARGS])
    assert [p.name for p in tmp_path.iterdir()] == ['scenes']


@pytest.mark.parametrize('option', ['--train', '--val', '--size', '--workers'])
def test_zero_is_refused(option, make_scenes, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        make_scenes.main([str(tmp_path / 'scenes'), option, '0'])
    assert caught.value.code == 2
    assert f'{option} is 0' in capsys.readouterr().err


def test_a_users_file_among_the_scenes_is_kept(make_scenes, tmp_path):
    out = tmp_path / 'scenes'
    make_scenes.main([str(out), *ARGS])
    for folder in (out, out / 'ADEChallengeData2016'):
        (folder / 'thesis.tex').write_text('years of work')
        before = contents(out)
        with pytest.raises(UserError, match='thesis.tex.*move it away'):
            make_scenes.main([str(out), *ARGS, '--seed', '1', '--overwrite'])
        assert contents(out) == before
        (folder / 'thesis.tex').unlink()


def test_a_second_call_waits_and_finds_the_scenes(make_scenes, tmp_path, capsys):
    make_scenes.main([str(tmp_path / 'elsewhere'), *ARGS])
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    second = threading.Thread(
        target=make_scenes.main, args=([str(tmp_path / 'scenes'), *ARGS],)
    )
    second.start()
    second.join(0.5)
    assert second.is_alive()
    (tmp_path / 'elsewhere').rename(tmp_path / 'scenes')
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    os.close(lock)
    second.join(30)
    assert not second.is_alive()
    said = capsys.readouterr().out
    assert 'waiting for another make_scenes.py' in said and 'is there already' in said
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


@pytest.mark.slow
def test_calls_at_once_and_after_a_kill_leave_one_whole_dataset(
    make_scenes, tmp_path, root
):
    args = ['--train', '300', '--val', '2', '--size', '32', '--workers', '2']
    make_scenes.main([str(tmp_path / 'alone/scenes'), *args])
    parent = tmp_path / 'shared'
    script = root / 'tools/dataset_converters/make_scenes.py'
    env = {**os.environ, 'PYTHONPATH': str(root)}

    def start():
        command = [sys.executable, str(script), str(parent / 'scenes'), *args]
        return subprocess.Popen(command, env=env)

    killed = start()
    while not list(parent.glob('.scenes.partial/new/*/images/training/*.png')):
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    calls = [start(), start()]
    assert [call.wait(120) for call in calls] == [0, 0]
    killed.wait()
    assert contents(parent) == contents(tmp_path / 'alone')
