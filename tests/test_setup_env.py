"""The parts of tools/misc/setup_*.py that need no environment."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools/misc'))

import setup_checks  # noqa: E402
import setup_env  # noqa: E402
import setup_pip  # noqa: E402
from setup_checks import SetupError  # noqa: E402

VERSIONS = {
    'python3': (3, 13),
    'python3.8': (3, 8),
    'python3.10': (3, 10),
    'python3.12': (3, 12),
    'shim': None,
}


def one_line(error):
    return str(error.value) and '\n' not in str(error.value)


def test_unsupported_default_falls_through_to_a_supported_python():
    names = ['python3', 'shim', 'python3.12', 'python3.10']
    chosen = setup_checks.choose_python('', names, VERSIONS.get)
    assert chosen == ('python3.12', (3, 12))


@pytest.mark.parametrize(
    'asked, words',
    [('python3.8', 'is Python 3.8'), ('python3', '3.13'), ('shim', 'does not run')],
)
def test_named_python_is_never_replaced(asked, words):
    with pytest.raises(SetupError, match=words) as error:
        setup_checks.choose_python(asked, ['python3.12'], VERSIONS.get)
    assert one_line(error) and '3.10 to 3.12' in str(error.value)


def test_no_python_at_all():
    with pytest.raises(SetupError, match='no Python runs here'):
        setup_checks.choose_python('', ['shim'], VERSIONS.get)


def test_probe_runs_the_interpreter(tmp_path):
    assert setup_checks.probe(sys.executable) == sys.version_info[:2]
    assert setup_checks.probe(str(tmp_path / 'missing')) is None
    shim = tmp_path / 'python3.12'
    shim.write_text('#!/bin/sh\necho "python3.12: command not found" >&2\nexit 127\n')
    shim.chmod(0o755)
    assert setup_checks.probe(str(shim)) is None


def test_full_disk_is_told_before_the_start():
    usage = SimpleNamespace(free=6.5e9)
    setup_checks.check_disk('/a', 6.4e9, usage=lambda path: usage)
    with pytest.raises(SetupError, match='/a: 7.0 GB needed, 6.5 GB free') as error:
        setup_checks.check_disk('/a', 7e9, usage=lambda path: usage)
    assert one_line(error)


def test_tree_bytes(tmp_path):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder/file').write_bytes(b'x' * 100_000)
    assert 100_000 <= setup_checks.tree_bytes(tmp_path) < 150_000


def test_compiler_found_or_explained():
    only_clang = {'clang++': '/usr/bin/clang++'}.get
    assert setup_checks.find_compiler({}, only_clang) == 'clang++'
    ccache = {'ccache': '/usr/bin/ccache'}.get
    assert setup_checks.find_compiler({'CXX': 'ccache g++'}, ccache) == 'ccache g++'
    with pytest.raises(SetupError, match='no C\\+\\+ compiler') as error:
        setup_checks.find_compiler({}, {}.get)
    assert one_line(error)


def test_compile_jobs():
    assert setup_checks.compile_jobs({}, 8, 32e9) == 8
    assert setup_checks.compile_jobs({}, 8, 4e9) == 2
    assert setup_checks.compile_jobs({}, 8, 1e9) == 1
    assert setup_checks.compile_jobs({'MAX_JOBS': '3'}, 8, 1e9) == 3
    for wrong in ('0', 'all', '-1'):
        with pytest.raises(SetupError, match=f'MAX_JOBS={wrong}'):
            setup_checks.compile_jobs({'MAX_JOBS': wrong}, 8, 32e9)


def test_key_follows_everything_the_environment_depends_on(tmp_path):
    (tmp_path / 'a.txt').write_text('torch==1')
    (tmp_path / 'b.txt').write_text('')

    def key(version=(3, 11), cuda=False, root=str(tmp_path)):
        return setup_env.stamp_key(version, cuda, root, ('a.txt', 'b.txt'))

    first = key()
    assert key(version=[3, 11]) == first  # as it comes back from JSON
    assert first not in (key(version=(3, 12)), key(cuda=True))
    (tmp_path / 'a.txt').write_text('torch==2')
    assert key() != first


def test_inputs_of_the_key_exist():
    assert all((ROOT / name).is_file() for name in setup_env.INPUTS)


def test_stamp_is_read_back_or_taken_for_missing(tmp_path):
    path = str(tmp_path / 'setup.json')
    assert setup_env.read_stamp(path) == {}
    setup_env.write_stamp({'key': 'k', 'done': ['torch']}, path)
    assert setup_env.read_stamp(path) == {'key': 'k', 'done': ['torch']}
    Path(path).write_text('{"key": "k", "do')
    assert setup_env.read_stamp(path) == {}


def test_complete_only_with_every_package(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'PYTHON', sys.executable)
    for name in ('numpy', 'torch', 'more'):
        (tmp_path / name).mkdir()
    stamp = {'key': 'k', 'packages': ['numpy', 'torch']}
    site = str(tmp_path)
    assert setup_env.complete(stamp, 'k', site)
    assert not setup_env.complete(stamp, 'other', site)
    assert not setup_env.complete({'key': 'k', 'done': ['torch']}, 'k', site)
    (tmp_path / 'torch').rmdir()
    assert not setup_env.complete(stamp, 'k', site)
    assert not setup_env.complete(stamp, 'k', str(tmp_path / 'missing'))


def fake_package(site, name, content='print()'):
    (site / f'{name}.py').write_text(content)
    info = site / f'{name}-1.0.dist-info'
    info.mkdir()
    rows = f'{name}.py,sha256=x,7\n__pycache__/{name}.pyc,,\n{info.name}/RECORD,,\n'
    (info / 'RECORD').write_text(rows)
    return info


def test_damaged_packages_are_forgotten(tmp_path):
    kept = fake_package(tmp_path, 'kept')
    short = fake_package(tmp_path, 'short', content='')
    missing = fake_package(tmp_path, 'missing')
    (tmp_path / 'missing.py').unlink()
    unrecorded = fake_package(tmp_path, 'unrecorded')
    (unrecorded / 'RECORD').unlink()
    (tmp_path / '~umpy').mkdir()

    names = ['missing', 'short', 'unrecorded']
    assert setup_env.forget_damaged(str(tmp_path)) == names
    assert kept.exists() and not short.exists() and not missing.exists()
    assert not (tmp_path / '~umpy').exists()
    assert setup_env.forget_damaged(str(tmp_path / 'nowhere')) == []


@pytest.mark.parametrize(
    'line, shown',
    [
        ('Collecting torch==2.11.0 (from -c x (line 3))', 'looking for torch'),
        (
            'Downloading torch-2.11.0-cp311-cp311-linux_x86_64.whl (530.6 MB)',
            'getting torch-2.11.0 (530.6 MB)',
        ),
        ('Progress 250 of 1000', 'getting x (9 MB): 25 %'),
        ('Progress 0 of 0', 'getting x (9 MB): 24 %'),
        ('Installing collected packages: a, b, c', 'installing a and 2 more'),
        ('Installing collected packages: a', 'installing a'),
        ('Processing /x/scipy-1.17.1-cp311.whl (from -r x)', 'getting scipy-1.17.1'),
        ('Building wheel for mmcv (pyproject.toml): started', 'building mmcv'),
        ('  [12/77] c++ -MMD -MF x.o.d -c x.cpp', 'compiling: file 12 of 77'),
        ('  anything else', 'getting x (9 MB): 24 %'),
    ],
)
def test_describe(line, shown):
    assert setup_pip.describe(line, 'getting x (9 MB): 24 %') == shown


@pytest.mark.parametrize(
    'output, words',
    [
        (['ERROR: x: [Errno 28] No space left on device'], 'disk is full'),
        (
            [
                'WARNING: Retrying (...) after connection broken by '
                "'NewConnectionError(...)': /simple/timm/",
                'ERROR: No matching distribution found for timm==1.0.31',
            ],
            'no package index reached for timm==1.0.31',
        ),
        (
            [
                'The user requested (constraint) pip==26.3',
                'ERROR: ResolutionImpossible',
            ],
            'has no pip==26.3',
        ),
        (
            ['x', 'ERROR: No matching distribution found for numpy==9'],
            'has no numpy==9',
        ),
        (
            ['c++: fatal error: Killed signal terminated program cc1plus'],
            'MAX_JOBS=1',
        ),
        (
            ['a.cpp:3:1: error: expected ;', 'ERROR: Failed to build mmcv'],
            'a.cpp:3:1: error: expected ;',
        ),
        (['some', 'ERROR: Failed to build x', ''], 'Failed to build x'),
        ([], 'without a word'),
    ],
)
def test_explain_in_one_line(output, words):
    line = setup_pip.explain(output)
    assert words in line and '\n' not in line


def test_progress_on_a_pipe_is_a_line_now_and_then():
    stream, now = io.StringIO(), [0]
    progress = setup_pip.Progress(stream, every=20, clock=lambda: now[0])
    for now[0] in range(0, 70):
        progress.show('installing')
    progress.close()
    assert stream.getvalue().split('\n')[:-1] == [
        '      0:20  installing',
        '      0:40  installing',
        '      1:00  installing',
    ]


def test_steps_announce_the_compile_time():
    notes = {name: note for name, note, _ in setup_env.make_steps(jobs=2)}
    assert 'about 6 minutes with 2' in notes['mmcv']
