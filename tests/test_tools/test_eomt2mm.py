"""The converter on bad input: one line, status 2, nothing left behind."""

import errno
import os
import pickle
import re
import resource
import signal
import zipfile

import oracle
import published
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file, save_file

from eomt_mm import cli
from eomt_mm.convert import hugging_face

NAME = 'model_converters/eomt2mm'
TINY = (64, 4, 2, 256, 256)


@pytest.fixture(scope='module')
def tensors():
    """A tiny official file of DINOv2."""
    return published.random_tensors(published.dinov2_shapes(TINY, 64, 6, 7))


@pytest.fixture
def config(tmp_path):
    return oracle.write_config(tmp_path / 'config.py', 'gelu')


@pytest.fixture
def refused(tool, tmp_path, capsys):
    """Run the tool, expect one line of error and nothing written; return the line."""
    main = tool(NAME).main

    def run(src, *argv, dst='out/ours.pth'):
        dst = tmp_path / dst
        before = set(tmp_path.rglob('*'))
        capsys.readouterr()
        assert cli.run(main, [str(x) for x in (src, dst, *argv)]) == 2
        assert set(tmp_path.rglob('*')) == before
        out, err = capsys.readouterr()
        assert err.startswith('error: ') and err.count('\n') == 1
        assert 'written' not in out
        return err.removeprefix('error: ').strip()

    return run


@pytest.fixture
def converted(tool, tmp_path, tensors, config):
    """A checkpoint of ours."""
    torch.save(tensors, tmp_path / 'good.bin')
    argv = [tmp_path / 'good.bin', tmp_path / 'good.pth', '--config', config]
    assert cli.run(tool(NAME).main, [str(x) for x in argv]) == 0
    return tmp_path / 'good.pth'


@pytest.fixture(params=['from a file', 'to transformers'])
def source(request, tmp_path, tensors, config, converted):
    """What is converted, with its options: an official file, a checkpoint of ours."""
    if request.param == 'to transformers':
        return converted, '--to-hf'
    torch.save(tensors, tmp_path / 'tiny.bin')
    return tmp_path / 'tiny.bin', '--config', config


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
def test_truncated(refused, tmp_path, tensors, config, kind, share):
    path = tmp_path / 'model.bin'
    if kind == 'safetensors':
        save_file(tensors, path)
    else:
        zipped = kind == 'zip'
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    line = refused(path, '--config', config)
    assert 'cut short or damaged' in line and str(path) in line


def test_flipped_bits(refused, tmp_path, tensors, config):
    path = tmp_path / 'model.bin'
    torch.save(tensors, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert 'wrong checksum' in refused(path, '--config', config)


@pytest.mark.parametrize('kind', ['torch', 'legacy', 'pickle', 'in the checkpoint'])
def test_code_is_not_run(refused, tmp_path, tensors, config, kind):
    path, trace = tmp_path / 'model.bin', tmp_path / 'run'
    content = dict(state_dict=tensors, hyper_parameters=Evil(trace))
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(Evil(trace), protocol=2))
    elif kind == 'in the checkpoint':
        torch.save(content, path)
        with zipfile.ZipFile(path) as archive:
            assert any(name.endswith('data.pkl') for name in archive.namelist())
    else:
        torch.save(Evil(trace), path, _use_new_zipfile_serialization=kind == 'torch')
    # The trap works: unpickling it leaves a trace.
    pickle.loads(pickle.dumps(Evil(trace)))
    assert trace.exists()
    trace.unlink()

    line = refused(path, '--config', config)
    assert 'more than weights (posix.system), and none of that was run' in line
    assert not trace.exists()


def test_code_in_the_config_of_a_checkpoint_is_not_run(refused, tmp_path, converted):
    trace = tmp_path / 'run'
    content = torch.load(converted, weights_only=True)
    for cfg, said in (
        (f'x = __import__("os").system("touch {trace}")', 'it is not run: give the'),
        # MMEngine's registries would take this for a class.
        (
            f'default_scope="mmseg"; model=dict(type="os.system", '
            f'command="touch {trace}")',
            "names 'os.system', which is not of this package",
        ),
    ):
        content['meta']['cfg'] = cfg.replace('; ', '\n')
        torch.save(content, converted)
        assert said in refused(converted, '--to-hf', dst='hub')
        assert not trace.exists()


@pytest.mark.parametrize('to_hf', [False, True])
def test_another_detector(refused, tmp_path, config, to_hf):
    state = {'backbone.conv1.weight': torch.zeros(3), 'rpn_head.bias': torch.ones(3)}
    torch.save(dict(meta=dict(epoch=12), state_dict=state), tmp_path / 'rcnn.pth')
    if to_hf:
        line = refused(tmp_path / 'rcnn.pth', '--to-hf', dst='hub')
        assert 'not a checkpoint of this package' in line
    else:
        line = refused(tmp_path / 'rcnn.pth', '--config', config)
        assert 'not an EoMT: 2 tensors such as backbone.conv1.weight' in line


@pytest.mark.parametrize('block', [0, 2, 3])
def test_missing_block(refused, tmp_path, tensors, config, block):
    short = {k: v for k, v in tensors.items() if f'blocks.{block}.' not in k}
    torch.save(short, tmp_path / 'short.bin')
    line = refused(tmp_path / 'short.bin', '--config', config)
    assert f'does not fit {config}: it lacks backbone.blocks.{block}.' in line
    assert 'and 11 more' in line


@pytest.mark.parametrize('dtype', [torch.int64, torch.int8, torch.bool])
def test_integers(refused, tmp_path, tensors, config, dtype):
    name = 'network.class_head.weight'
    torch.save({**tensors, name: tensors[name].to(dtype)}, tmp_path / 'int.bin')
    line = refused(tmp_path / 'int.bin', '--config', config)
    assert f'head.class_head.weight is of {dtype}' in line and 'Take the orig' in line


@pytest.mark.parametrize('name', ['mean', 'std'])
def test_other_colours(refused, tmp_path, tensors, config, name):
    """The network is the same, and what it is fed is not."""
    key = f'network.encoder.pixel_{name}'
    for value in (torch.zeros(1, 3, 1, 1), tensors[key].flip(1), tensors[key] * 255):
        torch.save({**tensors, key: value}, tmp_path / 'colours.bin')
        line = refused(tmp_path / 'colours.bin', '--config', config)
        assert f'normalises images with pixel_{name} (' in line
        assert f'config that sets data_preprocessor.{name} to' in line


def test_missing_tensors(refused, tmp_path, config):
    """Broken tensors in other layouts, which split some of this package's tensors."""
    whole = oracle.make_reference('dinov3').state_dict()
    for name, said in (
        ('layers.1.attention.k_proj.weight', 'lacks layers.1.attention.k_proj.weight'),
        ('layers.1.norm2.bias', 'it lacks backbone.blocks.1.norm2.bias'),
        ('class_predictor.weight', 'nothing in it is head.class_head.weight'),
    ):
        path = tmp_path / 'model.safetensors'
        save_file({k: v for k, v in whole.items() if k != name}, path)
        options = oracle.write_config(config, 'dinov3')
        assert said in refused(path, '--config', options)
    save_file({**whole, 'query_updater.weight': torch.ones(3)}, path)
    line = refused(path, '--config', options)
    assert 'EoMT has no tensors such as query_updater.weight' in line


def test_nan(refused, tmp_path, tensors, config):
    broken = {k: v.clone() for k, v in tensors.items()}
    broken['network.q.weight'][0, :3] = torch.nan
    broken['network.class_head.bias'][1] = torch.inf
    torch.save(broken, tmp_path / 'nan.bin')
    line = refused(tmp_path / 'nan.bin', '--config', config)
    assert 'has 4 NaN or infinite values in 2 tensors' in line
    assert 'network.q.weight (3)' in line and 'network.class_head.bias (1)' in line


def test_a_trained_checkpoint_with_nan(refused, converted):
    content = torch.load(converted, weights_only=True)
    content['state_dict']['backbone.queries'][0, 0] = torch.nan
    torch.save(content, converted)
    assert 'backbone.queries (1)' in refused(converted, '--to-hf', dst='hub')


def test_delta_as_absolute(refused, tmp_path, config):
    shapes = published.dinov3_shapes(TINY, 6, 7)
    delta = {name: torch.randn(shape) * 0.01 for name, shape in shapes.items()}
    torch.save(delta, tmp_path / 'd.bin')
    oracle.write_config(config, 'dinov3')
    line = refused(tmp_path / 'd.bin', '--config', config)
    assert 'is a delta file' in line and 'Add --base' in line


def test_no_config_fits(refused, tmp_path, tensors):
    torch.save(tensors, tmp_path / 'tiny.bin')
    line = refused(tmp_path / 'tiny.bin')
    assert 'no config in ' in line and 'give one with --config' in line
    assert 'DINOv2 ViT: 4 blocks, 64 channels' in line
    assert 'queries 6, in the last 2 blocks; classes 7' in line
    assert 'input 64 x 64 pixels' in line


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ('num_queries=6|num_queries=9', r'queries is \(6, 64\) and not \(9, 64\)'),
        ('num_blocks=2|num_blocks=3', 'in the last 2 blocks, .* has num_blocks=3'),
        ('depth=4|depth=5', 'it lacks backbone.blocks.4.'),
        ('depth=4|depth=3', 'it has, unlike the config, backbone.blocks.3.'),
        ('num_heads=4|num_heads=5', 'timm cannot build .* divisible'),
    ],
)
def test_a_config_that_does_not_fit(refused, tmp_path, tensors, config, change, said):
    torch.save(tensors, tmp_path / 'tiny.bin')
    config.write_text(config.read_text().replace(*change.split('|')))
    line = refused(tmp_path / 'tiny.bin', '--config', config)
    assert re.search(said, line), line


def test_other_files(refused, tmp_path, config, root):
    for name, content, said in (
        ('a.bin', b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (
            'b.bin',
            b'<html>Access restricted</html>',
            'not a file of weights',
        ),
        ('c.bin', b'', 'cut short or damaged'),
    ):
        (tmp_path / name).write_bytes(content)
        assert said in refused(tmp_path / name, '--config', config)
    torch.save([1, 2], tmp_path / 'd.bin')
    assert 'holds a list' in refused(tmp_path / 'd.bin', '--config', config)
    torch.save(dict(a=torch.ones(1), b='x'), tmp_path / 'e.bin')
    assert "'b' is a str" in refused(tmp_path / 'e.bin', '--config', config)
    torch.save({}, tmp_path / 'f.bin')
    assert 'no state dict' in refused(tmp_path / 'f.bin', '--config', config)
    assert 'no file ' in refused(tmp_path / 'nowhere.bin', '--config', config)
    assert 'is a folder without' in refused(root / 'docs', '--config', config)
    save_file(
        {
            'embeddings.register_tokens': torch.ones(1),
            'layer.0.attention.q_proj.weight': torch.ones(1),
        },
        tmp_path / 'vit.safetensors',
    )
    line = refused(tmp_path / 'vit.safetensors', '--config', config)
    assert 'is a pre-trained DINOv3' in line


def test_destinations(refused, tmp_path, tensors, config, converted):
    torch.save(tensors, tmp_path / 'tiny.bin')
    before = (tmp_path / 'tiny.bin').read_bytes()
    line = refused(tmp_path / 'tiny.bin', '--config', config, dst='tiny.bin')
    assert 'is a file to read' in line
    assert (tmp_path / 'tiny.bin').read_bytes() == before
    (tmp_path / 'folder').mkdir()
    line = refused(tmp_path / 'tiny.bin', '--config', config, dst='folder')
    assert 'is a folder' in line
    assert 'already; add --to-hf' in refused(converted, '--config', config)


@pytest.mark.parametrize('dst', ['mine.pth', 'mine', 'link'])
def test_what_is_there_already_stays(refused, tmp_path, source, dst):
    """A file, a folder with something in it, and a link to the file."""
    (tmp_path / 'mine.pth').write_text('mine')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/mine.txt').touch()
    (tmp_path / 'link').symlink_to(tmp_path / 'mine.pth')
    line = refused(*source, dst=dst)
    if '--to-hf' not in source and dst == 'mine':
        assert 'is a folder: give the name of a file' in line
    else:
        assert f'{tmp_path / dst} is there already: remove it or give' in line
    assert (tmp_path / 'mine.pth').read_text() == 'mine'


@pytest.fixture
def full_disk():
    """The system itself refuses files above 200 kB, for as long as this lasts."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(refused, source, full_disk):
    assert source[0].stat().st_size > 500_000
    full_disk()
    line = refused(*source, dst='new/folder/out')
    assert re.search('cannot write \\S+/new/folder/out: .*File too large', line), line
    assert 'GB are free there). Make room, or name a place' in line


@pytest.mark.parametrize(
    ('dst', 'said'),
    [
        ('file/below/out', 'Not a directory'),
        ('new/' + 300 * 'x' + '/out', 'File name too long'),
        ('/proc/nowhere/out', 'No such file or directory'),
    ],
)
def test_places_that_cannot_be(refused, tmp_path, source, dst, said):
    (tmp_path / 'file').touch()
    assert said in refused(*source, dst=dst)


def test_a_folder_that_may_not_be_written(refused, source, monkeypatch):
    def closed(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, 'Permission denied', str(self))

    monkeypatch.setattr('pathlib.Path.mkdir', closed)  # root may write everywhere
    assert 'out: Permission denied' in refused(*source, dst='new/out')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(tool, tmp_path, source, monkeypatch, number):
    def end(*args, **kwargs):
        (left,) = tmp_path.rglob('.partial-*')  # it was writing
        assert signal.getsignal(number) is not signal.SIG_DFL
        os.kill(os.getpid(), number)
        raise AssertionError('not ended')

    # Tests that are started under nohup ignore SIGHUP, as the tool would.
    outer = signal.signal(number, signal.SIG_DFL)
    path, *options = source
    argv = [path, tmp_path / 'new/out', *options]
    before = set(tmp_path.rglob('*'))
    monkeypatch.setattr('eomt_mm.files.os.fsync', end)
    try:
        assert cli.run(tool(NAME).main, [str(x) for x in argv]) == 128 + number
    finally:
        signal.signal(number, outer)
    assert set(tmp_path.rglob('*')) == before


def test_a_folder_that_fails_leaves_nothing(
    refused, tmp_path, converted, monkeypatch, tool
):
    def full(*args, **kwargs):
        raise OSError(28, 'No space left on device', 'x')

    with monkeypatch.context() as patch:
        patch.setattr(hugging_face.json, 'dumps', full)
        assert 'No space left' in refused(converted, '--to-hf', dst='hub')
    (tmp_path / 'hub').mkdir()  # empty: may be taken
    argv = [str(converted), str(tmp_path / 'hub'), '--to-hf']
    assert cli.run(tool(NAME).main, argv) == 0
    files = {path.name for path in (tmp_path / 'hub').iterdir()}
    assert files == {'model.safetensors', 'config.json', 'preprocessor_config.json'}
    assert load_file(tmp_path / 'hub/model.safetensors')['query.weight'].shape == (
        6,
        64,
    )


@pytest.mark.parametrize(
    ('arch', 'change', 'said'),
    [
        ('eva02_base_patch14_224', '', 'no EoMT with eva02_base_patch14_224'),
        ('deit3_small_patch16_224', '', 'no EoMT with deit3_small_patch16_224'),
        (
            'vit_small_patch14_reg4_dinov2',
            'num_heads=4|num_heads=4, mlp_ratio=3.5',
            'MLP of the model has 224 hidden channels, in transformers it has 192',
        ),
        (
            'vit_small_patch14_reg4_dinov2',
            'num_heads=4|num_heads=4, qk_norm=True',
            'has no backbone.blocks.0.attn.q_norm.weight',
        ),
    ],
)
def test_what_transformers_has_not(refused, tmp_path, config, arch, change, said):
    oracle.write_config(config, arch)
    if change:
        config.write_text(config.read_text().replace(*change.split('|')))
    cfg = Config.fromfile(config)
    state = oracle.MODELS.build(cfg.model).state_dict()
    meta = dict(cfg=cfg.pretty_text)
    torch.save(dict(meta=meta, state_dict=state), tmp_path / 'trained.pth')
    assert said in refused(tmp_path / 'trained.pth', '--to-hf', dst='hub')


def test_a_name_without_suffix(tool, tmp_path, tensors, config):
    torch.save(tensors, tmp_path / 'tiny.bin')
    argv = [tmp_path / 'tiny.bin', tmp_path / 'new/ours', '--config', config]
    assert cli.run(tool(NAME).main, [str(x) for x in argv]) == 0
    saved = torch.load(tmp_path / 'new/ours', weights_only=True)
    assert saved['meta']['converted_from']['file'] == 'tiny.bin'
