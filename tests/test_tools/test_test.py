"""tools/test.py on a stock tiny model."""

import errno
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from eomt_mm import cli
from eomt_mm.errors import UserError


def test_scores_are_returned_and_written(tool, config, trained, tmp_path):
    argv = [str(config), str(trained), '--work-dir', str(tmp_path)]
    scores = tool('test').main(argv)
    assert 0 <= scores['mIoU'] <= 100
    (written,) = tmp_path.glob('*/*.json')
    assert json.loads(written.read_text())['mIoU'] == scores['mIoU']


def test_out_and_show_dir(tool, config, trained, tmp_path):
    out, show = tmp_path / 'out', tmp_path / 'show'
    argv = [str(config), str(trained), '--work-dir', str(tmp_path / 'w')]
    tool('test').main([*argv, '--out', str(out), '--show-dir', str(show)])
    maps = sorted(out.glob('*.png'))
    assert [p.name for p in maps] == ['0.png', '1.png', '2.png', '3.png']
    # reduce_zero_label: what is written counts from 1, as ADE20K's files do
    labels = np.array(Image.open(maps[0]))
    assert labels.shape == (32, 32) and labels.min() >= 1 and labels.max() <= 3
    assert len(list(show.glob('**/*.png'))) == 4


def test_pictures_need_no_images_of_the_training(
    tool, config, trained, ade_root, tmp_path
):
    for kind in ('images', 'annotations'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
        (tmp_path / 'data' / kind / 'validation').symlink_to(
            ade_root / kind / 'validation'
        )
    argv = [str(config), str(trained), '--work-dir', str(tmp_path / 'w')]
    show = ['--show-dir', str(tmp_path / 'show')]
    root = ['--cfg-options', f'data_root={tmp_path / "data"}']
    tool('test').main([*argv, *show, *root])
    assert len(list((tmp_path / 'show').glob('**/*.png'))) == 4


@pytest.mark.parametrize('workers', [0, 1])
def test_a_photograph_that_mmcv_cannot_read(
    tool, config, trained, ade_root, tmp_path, capsys, workers
):
    shutil.copytree(ade_root, tmp_path / 'data')
    bad = tmp_path / 'data/images/validation/1.jpg'
    Image.fromarray(np.ones((32, 32), np.float32)).save(bad, format='TIFF')
    argv = [str(config), str(trained), '--work-dir', str(tmp_path / 'w')]
    argv += ['--cfg-options', f'data_root={tmp_path / "data"}']
    argv += [f'test_dataloader.num_workers={workers}']
    assert cli.run(tool('test').main, argv) == 2
    assert f'{bad} is not an image that can be read' in capsys.readouterr().err


def test_a_full_disk_is_named(tool, config, trained, tmp_path, monkeypatch, capsys):
    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Image.Image, 'save', full)
    argv = [str(config), str(trained), '--work-dir', str(tmp_path / 'w')]
    argv += ['--out', str(tmp_path / 'out')]
    assert cli.run(tool('test').main, argv) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f'error: No space left on device ({tmp_path / "out/0.png"})'


def test_a_dump_is_whole_or_absent(tmp_path, monkeypatch):
    from eomt_mm.evaluation.dump_results import DumpDetResults

    path = tmp_path / 'results.pkl'
    metric = DumpDetResults(out_file_path=str(path))
    metric.compute_metrics([dict(a=1)])
    assert pickle.loads(path.read_bytes()) == [dict(a=1)]

    def full(results, file, **kwargs):
        file.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(pickle, 'dump', full)
    with pytest.raises(OSError) as caught:
        metric.compute_metrics([dict(a=2)])
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ['results.pkl']
    assert pickle.loads(path.read_bytes()) == [dict(a=1)]


def test_tta_without_a_pipeline_in_the_config(tool, config, trained, tmp_path):
    argv = [str(config), str(trained), '--work-dir', str(tmp_path), '--tta']
    assert 0 <= tool('test').main(argv)['mIoU'] <= 100


@pytest.fixture
def run_named(tool, config, trained, tmp_path):
    """Tests the model under a name; returns its mIoU and its log.

    MMEngine names loggers by the second: without a name, two runs within one second
    would share a log.
    """

    def run(name, *options):
        work_dir = tmp_path / name
        name = f'experiment_name={tmp_path.name}_{name}'
        argv = [str(config), str(trained), '--work-dir', str(work_dir), *options]
        scores = tool('test').main([*argv, '--cfg-options', name])
        (log,) = work_dir.glob('*/*.log')
        return scores['mIoU'], log.read_text()

    return run


@pytest.mark.parametrize('option', [['--amp'], ['--dtype', 'bf16']])
def test_half_precision(run_named, option):
    expected, _ = run_named('fp32')
    found, log = run_named('bf16', *option)
    assert found == pytest.approx(expected, abs=5)
    assert 'testing in bf16' in log


def test_fp32_when_asked_for_is_made_faster(run_named):
    expected, plain = run_named('plain')
    found, log = run_named('fp32', '--dtype', 'fp32')
    assert found == pytest.approx(expected, abs=0.1)
    assert 'testing in fp32' in log and 'testing in' not in plain


def test_fp16_is_refused_on_a_cpu(tool, config, trained, monkeypatch):
    monkeypatch.setattr(tool('test'), 'get_device', lambda: 'cpu')
    with pytest.raises(UserError, match='computes in bf16'):
        tool('test').main([str(config), str(trained), '--dtype', 'fp16'])


def test_tta_flips_before_annotations(tool):
    steps = [{'type': t} for t in ('LoadImageFromFile', 'Resize', 'LoadAnnotations')]
    pack = dict(type='PackSegInputs', meta_keys=('img_path',))
    *head, tta = tool('test').mirrored([*steps, pack])
    assert [s['type'] for s in head] == ['LoadImageFromFile', 'Resize']
    flips, annotations, packs = tta['transforms']
    assert [f['prob'] for f in flips] == [0.0, 1.0]
    assert annotations == [{'type': 'LoadAnnotations'}]
    assert packs[0]['meta_keys'] == ('img_path', 'flip', 'flip_direction')
    assert pack['meta_keys'] == ('img_path',)


def test_tta_of_a_detector_needs_a_model_that_merges(tool):
    steps = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(type='Detector'),
            test_dataloader=dict(dataset=dict(pipeline=steps)),
            tta_model=None,
        )
    )
    with pytest.raises(UserError, match='neither the masks nor .*EoMTDetTTAModel'):
        tool('test').augment(cfg)
    cfg.tta_model = dict(type='Merges')
    tool('test').augment(cfg)
    assert cfg.model == dict(type='Merges', module=dict(type='Detector'))


def test_out_of_a_detector_is_a_pickle(tool):
    cfg = Config(dict(default_scope='mmdet', test_evaluator=dict(type='CocoMetric')))
    with pytest.raises(UserError, match='.pkl'):
        tool('test').save_predictions(cfg, 'folder')
    tool('test').save_predictions(cfg, 'a.pkl')
    first, dump = cfg.test_evaluator
    assert first.type == 'CocoMetric'
    assert dump == dict(type='eomt_mm.DumpDetResults', out_file_path='a.pkl')


@pytest.mark.parametrize('scored', [True, False])
def test_true_masks_are_loaded_where_something_needs_them(tool, scored):
    """MMDet's metrics take them from the samples without a file of their own."""
    evaluator = dict(type='CocoMetric') | (dict(ann_file='a.json') if scored else {})
    step = dict(type='LoadAnnotations', with_mask=True)
    dataset = dict(pipeline=[dict(type='PackDetInputs'), step])
    cfg = Config(
        dict(
            test_evaluator=evaluator,
            test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset)),
        )
    )
    tool('test').forgo_true_masks(cfg)
    found = cfg.test_dataloader.dataset.dataset.pipeline[1].with_mask
    assert found != scored


class TestBadInput:
    @pytest.fixture
    def fails(self, tool, capsys, config, tmp_path):
        def run(checkpoint, *argv):
            capsys.readouterr()
            argv = [config, checkpoint, '--work-dir', tmp_path / 'w', *argv]
            assert cli.run(tool('test').main, [str(a) for a in argv]) == 2
            *_, line = capsys.readouterr().err.splitlines()
            assert line.startswith('error: ')
            return line

        return run

    def test_checkpoint_not_found(self, fails, trained):
        line = fails(trained.with_name('best.pth'))
        assert 'not found' in line and 'iter_2.pth' in line

    def test_checkpoint_is_a_directory(self, fails, trained):
        assert 'iter_2.pth' in fails(trained.parent)

    @pytest.mark.parametrize('size', [0, 1, 100, 20000])
    def test_truncated(self, fails, trained, tmp_path, size):
        path = tmp_path / 'cut.pth'
        path.write_bytes(trained.read_bytes()[:size])
        assert 'checkpoint' in fails(path) and f'{size:,} bytes' in fails(path)

    def test_damaged_inside(self, fails, trained, tmp_path):
        path = tmp_path / 'damaged.pth'
        data = bytearray(trained.read_bytes())
        data[len(data) // 2] ^= 255  # one byte among the weights
        path.write_bytes(data)
        assert 'wrong checksum' in fails(path)

    def test_not_a_checkpoint(self, fails, config):
        assert 'is not a file of weights' in fails(config)

    def test_unsafe_object(self, fails, tmp_path):
        path = tmp_path / 'evil.pth'
        torch.save(dict(state_dict={}, code=pickle.Unpickler), path)
        line = fails(path)
        assert 'Unpickler' in line

    def test_show_without_hook(self, fails, trained, config):
        hook = "visualization=dict(type='SegVisualizationHook')"
        config.write_text(config.read_text().replace(hook, ''))
        assert 'default_hooks.visualization' in fails(trained, '--show-dir', 'x')
