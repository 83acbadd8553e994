"""tools/analysis_tools/benchmark.py: every mode, on toys."""

import itertools
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.models.confidence import CONFIDENCES
from measuring import core, hugging_face, naive

ONCE = '--kept 3 --ori 48 64 --rounds 1'.split()
TOY = ['--size', 'T', '--image-size', '64', '--queries', '10', *ONCE]
NOTHING_MORE = ['--no-memory', '--warmup', '0']
QUICK = [*TOY, *NOTHING_MORE]


def within_rounding(results):
    """Another library for the products rounds otherwise."""
    return results == 'equal' or float(results.removeprefix('within ')) < 1e-5


@pytest.fixture
def benchmark(tool, tmp_path, monkeypatch):
    """Runs the tool and returns its rows, by case and contender."""
    # Seconds for half precision on a CPU without its instructions.
    monkeypatch.setattr('measuring.limit.SIDES', {'cpu': 128})

    def run(*argv):
        path = tmp_path / 'figures.json'
        tool('analysis_tools/benchmark').main([*map(str, argv), '--json', str(path)])
        rows = json.loads(path.read_text())['rows']
        return {(row['case'], row['contender']): row for row in rows}

    return run


def test_every_stage_of_the_core_agrees_with_its_opponents(benchmark):
    rows = benchmark('--core', '--stage', *core.STAGES, *QUICK)
    assert len({case for case, _ in rows}) == 9
    for (case, who), row in rows.items():
        if who == 'hugging face fp32' and case.startswith('instance'):
            assert 'another protocol' in row['error']
            continue
        assert row['error'] is None and row['milliseconds'] > 0, (case, who)
        first = who in ('ours fp32', 'full fp32')
        assert first or row['results'].startswith(('equal', 'within'))
        if who == 'free fp32':  # without a mask it is something else
            assert not within_rounding(row['results'].split(',')[0])


def test_post_processing_agrees_with_mmdetection(benchmark):
    argv = ('--core', '--stage', 'postprocess', '--against', 'mmdet')
    rows = benchmark(*argv, *QUICK)
    compared = [row for (_, who), row in rows.items() if who == 'mmdet fp32']
    assert [row['case'].split(',')[0] for row in compared] == ['panoptic', 'instance']
    assert all(row['results'].startswith('equal') for row in compared)


def test_half_precision_is_compared_with_fp32(benchmark):
    rows = benchmark('--core', '--dtype', 'fp32', 'bf16', *QUICK)
    (case,) = {case for case, _ in rows}
    assert rows[case, 'ours bf16']['results'].startswith('within')
    assert rows[case, 'ours bf16']['share_of_limit'] > 0


@pytest.mark.slow
def test_memory_is_measured_in_fresh_processes(benchmark):
    rows = benchmark('--core', *TOY, '--against', 'naive')
    assert all(row['mebibytes'] > 0 for row in rows.values())


def test_without_transformers_its_row_says_so(benchmark, monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    rows = benchmark('--core', *QUICK)
    (case,) = {case for case, _ in rows}
    assert 'transformers is not installed' in rows[case, 'hugging face fp32']['error']
    assert within_rounding(rows[case, 'naive fp32']['results'])


def test_outputs_that_differ_are_an_error_after_all_is_written(
    benchmark, monkeypatch, tmp_path
):
    right = naive.NaiveEoMT._predict

    def wrong(self, x):
        classes, masks = right(self, x)
        return classes, masks * 1.001

    monkeypatch.setattr(naive.NaiveEoMT, '_predict', wrong)
    with pytest.raises(UserError, match='results differ.*naive fp32'):
        benchmark('--core', *QUICK)
    rows = json.loads((tmp_path / 'figures.json').read_text())['rows']
    assert len(rows) == 3
    assert rows[2]['results'].startswith('DIFFERENT: within 1e-03')


ALONE = """
    import sys
    from importlib.machinery import PathFinder

    class Gone:
        find_distributions = PathFinder.find_distributions

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition('.')[0] in {gone}:
                return None
            return PathFinder.find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Gone
    sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]
    import runpy
    sys.argv = {argv}
    sys.path[0] = {folder!r}
    runpy.run_path(sys.argv[0], run_name='__main__')
"""


def test_core_runs_without_compiled_operators(root, tmp_path):
    """The core runs on torch, timm, scipy and MMEngine alone."""
    gone = 'mmcv mmdet mmseg transformers pycocotools'
    folder, path = root / 'tools/analysis_tools', tmp_path / 'figures.json'
    argv = [
        str(folder / 'benchmark.py'),
        '--core',
        '--stage',
        'network',
        'train',
        'postprocess',
    ]
    argv += [*QUICK, '--json', str(path)]
    script = textwrap.dedent(ALONE).format(
        gone=set(gone.split()), argv=argv, folder=str(folder)
    )
    run = subprocess.run(
        [sys.executable, '-c', script],
        env={**os.environ, 'PYTHONPATH': str(root)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    rows = {
        (row['case'].split(',')[0], row['contender']): row
        for row in json.loads(path.read_text())['rows']
    }
    assert within_rounding(rows['network', 'naive fp32']['results'])
    assert 'transformers' in rows['network', 'hugging face fp32']['error']
    assert within_rounding(rows['train masked', 'naive fp32']['results'].split(',')[0])
    assert rows['panoptic', 'naive fp32']['results'].startswith('equal')


def test_configs_of_both_frameworks_and_one_that_is_missing(benchmark, root, config):
    ours = root / 'configs/demo/eomt_scenes_panoptic.py'
    rows = benchmark(config, ours, 'nowhere.py', '--batch', '2', *ONCE, *NOTHING_MORE)
    assert len({case for case, _ in rows}) == 2
    for (_, who), row in rows.items():
        if who == 'nowhere fp32':
            assert row['error'].startswith('config not found')
        else:
            assert row['error'] is None and row['images_per_second'] > 0


def test_a_config_of_tiles_and_one_of_bands(benchmark, root):
    tiles = root / 'configs/demo/eomt_scenes_panoptic_tiles.py'
    bands = root / 'configs/demo/eomt_scenes_bands.py'
    rows = benchmark(tiles, bands, *ONCE, '--ori', '96', '128', *NOTHING_MORE)
    for (_, who), row in rows.items():
        if who == 'eomt_scenes_bands fp32':
            assert row['error'].startswith('benchmark.py takes photographs (RGB)')
        else:
            assert row['error'] is None and row['images_per_second'] > 0


def test_checkpoint_belongs_to_the_config_before_it(
    benchmark, config, trained, tmp_path
):
    rows = benchmark(config, trained, *ONCE, *NOTHING_MORE)
    assert all(row['error'] is None for row in rows.values())
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(trained.read_bytes()[:1000])
    rows = benchmark(config, damaged, *ONCE, *NOTHING_MORE)
    assert all('cut short' in row['error'] for row in rows.values())
    with pytest.raises(UserError, match='does not follow a config'):
        benchmark(trained, config, *ONCE, *NOTHING_MORE)
    with pytest.raises(UserError, match='checkpoints end in .pth'):
        benchmark(config, 'weights.safetensors', *ONCE, *NOTHING_MORE)


@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_whole_path_agrees_with_the_stock_classes(benchmark, root, task):
    config = root / f'configs/demo/eomt_scenes_{task}.py'
    rows = benchmark('--whole-path', config, *ONCE, *NOTHING_MORE)
    (case,) = {case for case, _ in rows}
    assert rows[case, 'stock fp32']['results'].startswith('equal')
    assert '(1 ids)' not in rows[case, 'stock fp32']['results']
    assert 'DINOv2' in rows[case, 'hugging face fp32']['error']


@pytest.mark.parametrize('task', ['panoptic', 'semantic'])
def test_whole_path_of_hugging_face(benchmark, tmp_path, root, task):
    """Pixels differ only where the photo was resized in another way."""
    path = tmp_path / f'{task}.py'
    head = 'panoptic_head' if task == 'panoptic' else 'decode_head'
    path.write_text(
        f'_base_ = {str(root / f"configs/demo/eomt_scenes_{task}.py")!r}\n'
        "model = dict(backbone=dict(arch='vit_small_patch14_reg4_dinov2', "
        'patch_size=16, timm_args=dict(embed_dim=64, depth=4, num_heads=4)), '
        f'{head}=dict(embed_dims=64, patch_size=16))'
    )
    rows = benchmark('--whole-path', path, *ONCE, *NOTHING_MORE, '--ori', '64', '64')
    (case,) = {case for case, _ in rows}
    row = rows[case, 'hugging face fp32']
    assert row['error'] is None
    assert row['results'].startswith('equal') or float(row['results'].split('%')[0]) < 5


SMALL = ['--ori', '64', '80', '--rounds', '1', '--processor-time']
SEMANTIC = 'configs/demo/eomt_scenes_semantic.py'


def test_confidence_against_none(benchmark, root):
    rows = benchmark('confidence', root / SEMANTIC, *SMALL, *NOTHING_MORE)
    maps, frame = 'scores of 7 classes at 80 x 64', 'file of 80 x 64'
    expected = {(maps, who) for who in ('without', *CONFIDENCES)}
    expected |= {(frame, who) for who in ('without', 'class_score')}
    assert rows.keys() == {(f'{case} to result', who) for case, who in expected}
    for (_, who), row in rows.items():
        assert row['error'] is None and row['milliseconds'] > 0
        assert who == 'without' or row['results'].startswith('equal')


@pytest.mark.slow
def test_confidence_takes_memory(benchmark, root, tmp_path):
    """Memory is that of fresh processes; checkpoint and case are options."""
    cfg = Config.fromfile(root / SEMANTIC)
    init_default_scope('mmseg')
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'model.pth')
    argv = [root / SEMANTIC, tmp_path / 'model.pth', '--maps', '--frame', 'entropy']
    rows = benchmark('confidence', *argv, *SMALL)
    assert {who for _, who in rows} == {'without', 'entropy'} and len(rows) == 2
    assert all(row['mebibytes'] > 0 for row in rows.values())


def test_a_confidence_that_changes_the_result_is_an_error(benchmark, root, monkeypatch):
    calls = itertools.count()

    def wrong(scores, size):
        return scores.argmax(0).roll(next(calls), 0)

    monkeypatch.setattr('measuring.confidence_cost.resized_argmax', wrong)
    argv = ['--maps', 'rba', '--frame', *SMALL, *NOTHING_MORE]
    with pytest.raises(UserError, match='results differ.*rba'):
        benchmark('confidence', root / SEMANTIC, *argv)


def test_confidence_of_a_panoptic_model(tool, root, capsys):
    argv = ['confidence', str(root / 'configs/demo/eomt_scenes_panoptic.py')]
    assert cli.run(tool('analysis_tools/benchmark').main, argv) == 2
    assert 'has no confidence maps' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['confidence', 'a.py', '--frame', '--maps'], 'give some measures'),
        (['confidence', 'a.py', '--frame', 'margin'], 'invalid choice'),
        (['confidence', 'nowhere.py'], 'config not found'),
        (
            ['confidence', 'a.py', '--device', 'cuda', '--processor-time'],
            '--processor-time is of a CPU',
        ),
        (['--core', '--device', 'nonsense'], 'does not work'),
        (['--core', 'config.py'], 'takes no configs'),
        ([], 'give --core'),
        (['a.py', '--photo', 'nowhere.jpg'], 'no such file'),
        (['a.py', '--photo', __file__], 'not an image that can be read'),
        (['--core', '--batch', '0'], 'too small; give 1 or more'),
        (['--core', '--warmup', '-1'], 'too small; give 0 or more'),
        (['--core', '--json', '/proc/nothing/a.json'], 'give another --json'),
        (['--core', '--dtype', 'fp16', '--device', 'cpu'], 'computes in bf16'),
        (['--core', '--dtype', 'fp8', '--device', 'cpu'], 'fp8 needs an NVIDIA GPU'),
        (['--core', '--kept', '300'], '--kept 300 of --queries 200'),
        (['a.py', '--image-size', '512'], '--image-size belongs to --core'),
        (['a.py', '--kept', '1', '2'], 'several belong to --core'),
        (['--whole-path', '--batch', '8'], 'one photo at a time'),
    ],
)
def test_bad_commands_are_one_line(tool, capsys, argv, words):
    try:
        status = cli.run(tool('analysis_tools/benchmark').main, argv)
    except SystemExit as end:  # argparse
        status = end.code
    assert status == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_weights_under_other_names_are_refused(monkeypatch):
    from measuring.inputs import build_network

    backbone, head = build_network('T', 64, 10)
    transformers = hugging_face._transformers()
    model = transformers.EomtForUniversalSegmentation
    renamed = type(model.__name__, (model,), {})

    def load(self, tensors, strict):
        return torch.nn.modules.module._IncompatibleKeys([], ['new.name'])

    renamed.load_state_dict = load
    monkeypatch.setattr(transformers, model.__name__, renamed)
    with pytest.raises(UserError, match='other parameters'):
        hugging_face.reference_model(backbone, head)
