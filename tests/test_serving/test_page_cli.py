"""tools/serve.py: what it needs, and one line for what is missing."""

import re
import socket
import sys

import pytest
import torch

from eomt_mm import cli


@pytest.fixture
def serve_tool(root, monkeypatch):
    """The tool as a module."""
    import importlib

    monkeypatch.syspath_prepend(str(root / 'tools'))
    return importlib.import_module('serve')


@pytest.fixture
def no_server(monkeypatch):
    """Binds and says where, and does not serve."""
    import uvicorn

    seen = []
    monkeypatch.setattr(
        uvicorn.Server, 'run', lambda self, sockets: seen.append(sockets[0])
    )
    return seen


def words_of(model):
    return [str(model.config), str(model.checkpoint)]


def test_a_port_in_use_is_named_and_the_next_is_taken(
    serve_tool, tiny, no_server, capsys
):
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        argv = [*words_of(tiny('semantic')), '--port', str(port)]
        assert cli.run(serve_tool.main, argv) == 0
    said = capsys.readouterr().out
    assert f'port {port} is in use: taking the next' in said
    assert f'open http://127.0.0.1:{port + 1}' in said or 'open http://127.' in said
    assert len(no_server) == 1


def test_two_configs_of_one_name_are_told_apart(serve_tool, tiny, no_server, capsys):
    argv = [*words_of(tiny('semantic')), *words_of(tiny('panoptic')), '--port', '0']
    assert cli.run(serve_tool.main, argv) == 0
    said = capsys.readouterr().out
    assert '1: tiny: semantic, 4 classes' in said
    assert '2: tiny: panoptic, 4 classes' in said


@pytest.mark.parametrize('missing', ['starlette', 'uvicorn'])
def test_the_extra_is_missing(serve_tool, tiny, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    find = serve_tool.importlib.util.find_spec
    monkeypatch.setattr(
        serve_tool.importlib.util,
        'find_spec',
        lambda name: None if name == missing else find(name),
    )
    assert cli.run(serve_tool.main, words_of(tiny('semantic'))) == 2
    error = capsys.readouterr().err
    assert error == f'error: {missing} not installed: pip install eomt_mm[page]\n'


def test_a_checkpoint_that_does_not_fit(serve_tool, tiny, no_server, capsys):
    argv = [str(tiny('semantic').config), str(tiny('panoptic').checkpoint)]
    assert cli.run(serve_tool.main, argv) == 2
    error = capsys.readouterr().err
    assert 'panoptic' in error and 'does not fit the config' in error
    assert error.count('\n') == 1


def test_an_annealing_that_is_not_finished(
    serve_tool, tiny, no_server, capsys, tmp_path
):
    """A line at the start, and another on the page."""
    model = tiny('semantic')
    config, early = tmp_path / 'tiny.py', tmp_path / 'early.pth'
    config.write_text(
        model.config.read_text()
        + "custom_hooks = [dict(type='eomt_mm.MaskAnnealingHook')]\n"
        + 'train_cfg = dict(max_iters=120)\n'
    )
    content = torch.load(model.checkpoint)
    torch.save(dict(content, meta=dict(content['meta'], iter=60)), early)
    argv = [str(config), str(early), *words_of(model), '--port', '0']
    assert cli.run(serve_tool.main, argv) == 0
    warning = 'This checkpoint is from iteration 60, .* at iteration 100 of 120.'
    assert re.fullmatch(f'warning: 1: tiny: {warning}\n', capsys.readouterr().err)
    first, second = serve_tool.load_models(serve_tool.parse_args(argv))
    assert re.fullmatch(warning, first.about()['warning'])
    assert second.about()['warning'] == ''


@pytest.mark.parametrize(
    'argv, words',
    [
        (['none.py', 'none.pth'], 'config not found: none.py'),
        (['{config}', 'none.pth'], 'checkpoint not found: none.pth'),
        (['{config}'], 'has no checkpoint'),
        (['{checkpoint}'], 'does not follow a config'),
        (['none.onnx'], 'none.onnx cannot be read'),
        (['{config}', '{checkpoint}', '--host', 'no.such.invalid'], '--host'),
    ],
)
def test_bad_input_is_one_line(serve_tool, tiny, no_server, capsys, argv, words):
    model = tiny('semantic')
    names = dict(config=model.config, checkpoint=model.checkpoint)
    argv = [word.format(**names) for word in argv]
    assert cli.run(serve_tool.main, argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count('\n') == 1 and error.startswith('error: ')


def test_nothing_to_show(serve_tool, capsys):
    with pytest.raises(SystemExit) as ended:
        serve_tool.main([])
    assert ended.value.code == 2
    assert '--demo' in capsys.readouterr().err


def test_models_of_the_demo(serve_tool, monkeypatch, tmp_path):
    import demo

    monkeypatch.setattr(demo, 'ROOT', tmp_path)
    with pytest.raises(cli.options.UserError, match='make demo'):
        serve_tool.demo_models()
    folder = tmp_path / 'work_dirs/demo_panoptic'
    folder.mkdir(parents=True)
    (folder / 'iter_3.pth').touch()
    (folder / 'last_checkpoint').write_text('elsewhere/iter_3.pth')
    config, checkpoint = serve_tool.demo_models()
    assert config.endswith('eomt_scenes_panoptic.py')
    assert checkpoint == str(folder / 'iter_3.pth')
