"""tools/analysis_tools: plot_schedule.py and plot_run.py."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eomt_mm import cli
from eomt_mm.visualization import plot_training

CONFIG = """
model = dict(type='X', backbone=dict(
    type='eomt_mm.QueryViT', arch='vit_large_patch14_reg4_dinov2', num_blocks=4))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=60)
optim_wrapper = dict(
    type='AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-4),
    constructor='eomt_mm.LayerDecayConstructor', clip_grad=dict(max_norm=0.01))
param_scheduler = dict(
    type='eomt_mm.TwoStageWarmupPolyLR', warmup=(5, 10), by_epoch=False)
custom_hooks = [dict(type='eomt_mm.MaskAnnealingHook')]
"""


@pytest.fixture
def drawn(monkeypatch):
    """Captures what a tool hands to the figure, and draws it."""
    calls = []

    def install(tool):
        def plot(path, *curves, **options):
            calls.append((curves, options))
            plot_training(path, *curves, **options)

        monkeypatch.setattr(tool, 'plot_training', plot)
        return calls

    return install


def assert_is_picture(path):
    picture = np.asarray(Image.open(path).convert('RGB'))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_schedule_of_a_config(tool, tmp_path, drawn):
    (tmp_path / 'c.py').write_text(CONFIG)
    plot = tool('analysis_tools/plot_schedule')
    calls = drawn(plot)
    out = tmp_path / 'new' / 'c.png'
    assert cli.run(plot.main, [str(tmp_path / 'c.py'), '--out', str(out)]) == 0
    assert_is_picture(out)
    (rates, masks), _ = calls[0]
    last, head, first = (values for _, values in rates.values())
    assert list(rates)[0] == 'backbone, block 23'
    assert len(last) == 60
    assert last[5] == 0
    assert last[15] == pytest.approx(1e-4)
    assert last[16] == pytest.approx(1e-4 * (1 - 1 / 45) ** 0.9)
    assert first[15] == pytest.approx(1e-4 * 0.8**23)
    assert head[1] == pytest.approx(1e-4 / 5)
    # Windows of 10 iterations from 10, 20, 30, 40.
    assert list(masks) == ['block 20', 'block 21', 'block 22', 'block 23']
    for i, (_, values) in enumerate(masks.values()):
        assert values[10 + 10 * i] == 1
        assert values[15 + 10 * i] == pytest.approx(0.5**0.9)
        assert values[20 + 10 * i] == 0


def test_schedule_with_overrides(tool, tmp_path, drawn):
    (tmp_path / 'c.py').write_text(CONFIG)
    plot = tool('analysis_tools/plot_schedule')
    calls = drawn(plot)
    argv = [str(tmp_path / 'c.py'), '--out', str(tmp_path / 'c.png')]
    argv += ['--max-iters', '30', '--cfg-options', 'custom_hooks=[]']
    argv += ['model.backbone.timm_args.depth=6', 'param_scheduler.power=1.0']
    assert cli.run(plot.main, argv) == 0
    (rates, masks), _ = calls[0]
    assert masks == {}
    assert 'backbone, block 5' in rates
    assert rates['head and queries'][1][20] == pytest.approx(1e-4 * (1 - 15 / 25))


def test_schedule_of_adaptive_annealing(tool, tmp_path, drawn, capsys):
    """What depends on the run is not drawn, and not passed over either."""
    text = CONFIG.replace('MaskAnnealingHook', 'AdaptiveMaskAnnealingHook')
    (tmp_path / 'c.py').write_text(text)
    plot = tool('analysis_tools/plot_schedule')
    calls = drawn(plot)
    argv = [str(tmp_path / 'c.py'), '--out', str(tmp_path / 'c.png')]
    assert cli.run(plot.main, argv) == 0
    (_, masks), _ = calls[0]
    ((name, (_, values)),) = masks.items()
    assert name == 'ceiling of each block'
    assert [values[i] for i in (40, 45, 50)] == [1, pytest.approx(0.5**0.9), 0]
    said = capsys.readouterr().out
    assert 'AdaptiveMaskAnnealingHook follows the network' in said
    assert 'falls from iteration 40 to 50' in said
    argv += ['--cfg-options', 'model.backbone.num_blocks=0']
    assert cli.run(plot.main, argv) == 0
    assert calls[1][0][1] == {}


def test_schedule_of_mask2former(tool, root, tmp_path, drawn):
    plot = tool('analysis_tools/plot_schedule')
    calls = drawn(plot)
    config = root / 'configs/ladder/step0_vitl_coco_panoptic_640_annealed.py'
    argv = [str(config), '--out', str(tmp_path / 'c.png'), '--max-iters', '60']
    assert cli.run(plot.main, argv) == 0
    (rates, masks), _ = calls[0]
    assert list(rates)[0] == 'backbone, block 23'
    assert list(masks) == [f'layer {i}' for i in range(9)]
    assert [masks['layer 0'][1][i] for i in (10, 20)] == [1, 0]


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_cfg.max_iters=None', 'train_cfg.max_iters'),
        ('model.backbone.arch=vit_lage_patch14', 'vit_lage_patch14'),
        ('param_scheduler.by_epoch=True', 'by_epoch=False'),
    ],
)
def test_configs_that_cannot_be_drawn(tool, tmp_path, capsys, option, message):
    (tmp_path / 'c.py').write_text(CONFIG)
    out = tmp_path / 'c.png'
    argv = [str(tmp_path / 'c.py'), '--out', str(out), '--cfg-options', option]
    assert cli.run(tool('analysis_tools/plot_schedule').main, argv) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def write_log(folder, records, end=''):
    folder = folder / 'vis_data'
    folder.mkdir(parents=True)
    text = ''.join(json.dumps(record) + '\n' for record in records)
    (folder / 'scalars.json').write_text(text + end)


def test_runs_are_merged(tool, tmp_path):
    write_log(
        tmp_path / '20250101_000000',
        [{'loss': float(s), 'step': s} for s in (1, 2, 3, 4)]
        + [{'mIoU': 10.0, 'step': 2}, {'mIoU': 20.0, 'step': 4}],
        end='{"loss": 1.',
    )
    write_log(
        tmp_path / '20250102_000000',
        [{'loss': -float(s), 'step': s} for s in (3, 4, 5)],
    )
    write_log(tmp_path / '20250103_000000', [{'mIoU': 99.0, 'step': 0}])  # a test
    plot = tool('analysis_tools/plot_run')
    records = plot.read_records(tmp_path)
    assert plot.curve(records, 'loss') == ([1, 2, 3, 4, 5], [1, 2, -3, -4, -5])
    assert plot.curve(records, 'mIoU') == ([2], [10.0])


def test_real_run(tool, toy_config, toy_run, tmp_path, drawn):
    config = toy_config(vis_backends=[{'type': 'LocalVisBackend'}])
    config.visualizer = {'type': 'Visualizer', 'vis_backends': config.vis_backends}
    config.visualizer['name'] = config.experiment_name
    config.log_processor = {'by_epoch': False}
    toy_run(config)
    plot = tool('analysis_tools/plot_run')
    calls = drawn(plot)
    assert cli.run(plot.main, [config.work_dir]) == 0
    assert_is_picture(Path(config.work_dir) / 'training.png')
    (rates, masks), options = calls[0]
    assert list(rates) == ['backbone', 'head and queries']
    assert list(masks) == ['masked block 1', 'masked block 2', 'masked block 3']
    assert len(options['loss'][0]) == 12
    assert options['score'] == ('mIoU', ([4, 8, 12], [50.0, 50.0, 50.0]))


def test_no_run(tool, tmp_path, capsys):
    assert cli.run(tool('analysis_tools/plot_run').main, [str(tmp_path)]) == 2
    assert 'scalars.json' in capsys.readouterr().err
