"""The whole path of MMDet's tasks: scenes, training, testing, pictures, inferencer."""

import json
import pickle

import numpy as np
import pytest
from mmdet.apis import DetInferencer
from mmengine.config import Config
from PIL import Image

from eomt_mm import checkpoints
from eomt_mm.errors import UserError
from tiny_models import on_data

TINY_MODEL = {
    'model.backbone.timm_args': dict(embed_dim=32, depth=3, num_heads=4),
    'model.panoptic_head.embed_dims': 32,
    'model.panoptic_head.criterion.num_points': 64,
}
TINY_RUN = {
    'train_dataloader.batch_size': 2,
    'train_cfg.max_iters': 6,
    'train_cfg.val_interval': 3,
    'default_hooks.checkpoint.interval': 3,
    'default_hooks.logger.interval': 1,
    'param_scheduler.warmup': (1, 1),
}
SCORES = {'panoptic': 'coco_panoptic/PQ', 'instance': 'coco/segm_mAP'}
TASKS = pytest.mark.parametrize('task', SCORES)


@pytest.fixture
def tiny(root, scenes, tmp_path):
    """`tiny('panoptic')` writes the demo's config, shrunk, and returns its path."""

    def write(task, **options):
        cfg = on_data(root / f'configs/demo/eomt_scenes_{task}.py', scenes)
        cfg.merge_from_dict(TINY_MODEL | TINY_RUN | options)
        path = tmp_path / f'tiny_{task}.py'
        cfg.dump(path)
        return path

    return write


@TASKS
def test_train_test_and_pictures(run_tool, tiny, tmp_path, task):
    config, run = tiny(task), tmp_path / 'run'
    run_tool('train', config, '--work-dir', run)
    checkpoint = run / 'iter_6.pth'
    saved = checkpoints.read(checkpoint)
    assert saved['meta']['dataset_meta']['classes'][0] == 'disc'
    names = {name.split('.')[0] for name in saved['state_dict']}
    assert names == {'backbone', 'panoptic_head'}
    assert list(run.glob('best_coco_*.pth'))

    (log,) = run.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [record for record in records if 'loss' in record]
    assert len(steps) == 6
    expected = {
        'lr',
        'base_lr',
        'mask_prob_0',
        'loss_cls',
        'd0.loss_cls',
        'd1.loss_dice',
    }
    assert expected <= set(steps[0])
    assert [step['mask_prob_1'] for step in steps][::5] == [1.0, 0.0]

    options = ('--work-dir', run / 'test', '--show-dir', 'vis')
    scores = run_tool('test', config, checkpoint, *options, '--out', run / 'out.pkl')
    assert scores[SCORES[task]] >= 0
    assert len(list((run / 'test').glob('*/vis/*.png'))) == 3
    assert (run / 'out.pkl').stat().st_size > 0

    written = run_tool(
        'analysis_tools/show_results', config, checkpoint, '--out', run / 'pictures'
    )
    assert len(written) == 4
    assert all(np.asarray(Image.open(path)).std() > 0 for path in written)


@TASKS
@pytest.mark.parametrize('least_score', [0.0, 1.0])
def test_inferencer_writes_a_picture(
    run_tool, tiny, tmp_path, real_data, task, least_score
):
    """Also where nothing is found."""
    options = {'object_mask_thr': least_score, 'iou_thr': 0.0}
    config = tiny(task, **{f'model.test_cfg.{k}': v for k, v in options.items()})
    run_tool('train', config, '--work-dir', tmp_path)
    inferencer = DetInferencer(
        str(config), str(tmp_path / 'iter_6.pth'), device='cpu', show_progress=False
    )
    photo = next((real_data / 'coco_mini').rglob('*.jpg'))
    result = inferencer(
        str(photo),
        out_dir=str(tmp_path / 'out'),
        no_save_pred=False,
        pred_score_thr=least_score,
    )
    (painted,) = (tmp_path / 'out/vis').iterdir()
    before, painted = Image.open(photo), Image.open(painted)
    assert painted.size == before.size
    # Noise of JPEG is no paint, nor that Matplotlib before 3.11 resamples the photo.
    coarse = [np.asarray(image.reduce(8)).astype(int) for image in (before, painted)]
    difference = np.abs(coarse[1] - coarse[0]).mean()
    assert (difference > 20) == (least_score == 0)
    (found,) = result['predictions']
    if task == 'panoptic':
        (path,) = (tmp_path / 'out/preds').glob('*_panoptic_seg.png')
        segments = np.asarray(Image.open(path))
        assert segments.shape[1::-1] == before.size
        assert segments.any() == (least_score == 0)
    else:
        assert len(found['labels']) == len(found['masks']) > 0
        assert tuple(found['masks'][0]['size'][::-1]) == before.size


def test_the_inferencer_takes_encoded_masks(run_tool, tiny, tmp_path, real_data):
    found = []
    for encoded in (False, True):
        config = tiny('instance', **{'model.test_cfg.encode_masks': encoded})
        if not encoded:
            run_tool('train', config, '--work-dir', tmp_path)
        inferencer = DetInferencer(
            str(config), str(tmp_path / 'iter_6.pth'), device='cpu', show_progress=False
        )
        photo = next((real_data / 'coco_mini').rglob('*.jpg'))
        out = tmp_path / str(encoded)
        result = inferencer(str(photo), out_dir=str(out), no_save_pred=False)
        (written,) = out.glob('preds/*.json')
        found.append((result['predictions'], json.loads(written.read_text())))
    assert found[0] == found[1] and found[0][1]['masks']


def wrapped(dataset):
    """Every wrapper, nested, around one of ours."""
    balanced = dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=dataset)
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset)
    return dict(type='ConcatDataset', datasets=[balanced, repeated])


@TASKS
def test_wrapped_datasets_by_epochs_in_floats(run_tool, tiny, tmp_path, task):
    """All that MMDet's own configs may have and ours have not."""
    path, plain = tiny(task), tmp_path / 'plain'
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        steps = loader.dataset.pipeline
        steps[0].to_float32 = True
        if split == 'train':
            steps.insert(2, dict(type='eomt_mm.ColorJitter'))
        loader.persistent_workers = True
        loader.dataset = wrapped(loader.dataset)
    cfg.test_dataloader.dataset = cfg.test_dataloader.dataset.datasets[1]
    cfg.val_dataloader = cfg.test_dataloader
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
    cfg.dump(path)
    runner = run_tool('train', path, '--work-dir', tmp_path / 'run')
    assert runner.epoch == 2 and runner.iter == runner.max_iters > 0
    part = runner.model.panoptic_head, runner.model.backbone
    (probabilities,) = [p.mask_probs for p in part if getattr(p, 'mask_probs', None)]
    assert set(probabilities) == {0.0}
    checkpoint = tmp_path / 'run/epoch_2.pth'
    scores = [
        run_tool('test', config, checkpoint, '--work-dir', plain)
        for config in (path, tiny(task))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=2, nan_ok=True)


def test_both_results_in_one_test(run_tool, tiny, tmp_path, scenes):
    config = tiny('panoptic', **{'model.test_cfg.instance_on': True})
    run_tool('train', config, '--work-dir', tmp_path / 'run')
    both = tmp_path / 'both.py'
    both.write_text(
        f'_base_ = {config.name!r}\n'
        "test_evaluator = [{{_base_.test_evaluator}}, dict(type='CocoMetric', "
        f"metric='segm', ann_file='{scenes}/instances_validation.json')]\n"
    )
    options = ('--work-dir', tmp_path / 'test')
    scores = run_tool('test', both, tmp_path / 'run/iter_6.pth', *options)
    assert set(SCORES.values()) <= set(scores)


def test_encoded_masks_are_scored_written_and_painted(run_tool, tiny, tmp_path):
    """Encoded masks score as plain ones do."""
    config = tiny('instance')
    run_tool('train', config, '--work-dir', tmp_path / 'run')
    found = {}
    for encoded in (False, True):
        out = tmp_path / str(encoded)
        option = ('--cfg-options', f'model.test_cfg.encode_masks={encoded}')
        files = ('--work-dir', out, '--out', out / 'out.pkl')
        scores = run_tool('test', config, tmp_path / 'run/iter_6.pth', *files, *option)
        files = ('--work-dir', out / 'b', '--show-dir', 'vis')
        shown = run_tool('test', config, tmp_path / 'run/iter_6.pth', *files, *option)
        assert scores == shown
        pictures = [Image.open(path) for path in sorted(out.glob('b/*/vis/*.png'))]
        dumped = [
            sample['pred_instances']['masks']
            for sample in pickle.loads((out / 'out.pkl').read_bytes())
        ]
        panels = run_tool(
            *('analysis_tools/show_results', config, tmp_path / 'run/iter_6.pth'),
            *('--out', out / 'panels', *option),
        )
        pictures += [Image.open(path) for path in panels]
        found[encoded] = scores, dumped, [picture.tobytes() for picture in pictures]
    assert found[True] == found[False]
    assert len(found[True][2]) == 3 + 4


def test_box_ap_beside_segm_ap(run_tool, tiny, tmp_path):
    config, run = tiny('instance'), tmp_path / 'run'
    run_tool('train', config, '--work-dir', run)
    scores = {}
    for box_from in ('mask', 'largest_component', 0.1):
        out = ('--work-dir', tmp_path / f'test_{box_from}')
        option = ('--cfg-options', f'model.test_cfg.box_from={box_from}')
        scores[box_from] = run_tool('test', config, run / 'iter_6.pth', *out, *option)
    for found in scores.values():
        assert found['coco/bbox_mAP'] >= 0
        assert found['coco/segm_mAP'] == scores['mask']['coco/segm_mAP']
    option = ('--cfg-options', 'model.test_cfg.box_from=2')
    with pytest.raises(UserError, match=r'box_from is 2, expected .* above 0'):
        run_tool('test', config, run / 'iter_6.pth', *out, *option)


@TASKS
def test_tiles(run_tool, tiny, tmp_path, task):
    """One tile scores as none; several run, and are painted."""
    config, run = tiny(task), tmp_path / 'run'
    run_tool('train', config, '--work-dir', run)
    checkpoint, scores = run / 'iter_6.pth', {}
    larger = 'test_dataloader.dataset.pipeline.2.size=(160,160)'
    for name, options in {
        'none': ['model.test_cfg.tiles=None'],
        'one': ['model.test_cfg.tiles.size=64'],
        'many': ['model.test_cfg.tiles.overlap=0.5', larger],
    }.items():
        out = ('--work-dir', tmp_path / name, '--show-dir', 'vis')
        option = ('--cfg-options', *options)
        scores[name] = run_tool('test', config, checkpoint, *out, *option)
        assert len(list((tmp_path / name).glob('*/vis/*.png'))) == 3
    assert scores['one'] == scores['none']
    assert scores['many'][SCORES[task]] >= 0
    with pytest.raises(UserError, match='160 x 160 pixels .* 64 x 64: .* tiles'):
        run_tool('test', config, checkpoint, *out, '--cfg-options', larger)
    option = ('--cfg-options', 'model.test_cfg.tiles.size=4')
    with pytest.raises(UserError, match='tiles.size is 4, .* at least one patch of 8'):
        run_tool('test', config, checkpoint, *out, *option)


@TASKS
def test_test_time_augmentation(run_tool, tiny, tmp_path, task):
    """Mirrored; with views of the config; painted; before the annealing has ended."""
    config, run = tiny(task), tmp_path / 'run'
    run_tool('train', config, '--work-dir', run)
    out = ('--work-dir', tmp_path / 'tta', '--show-dir', 'vis', '--tta')
    scores = run_tool('test', config, run / 'iter_6.pth', *out)
    assert scores[SCORES[task]] >= 0
    assert len(list((tmp_path / 'tta').glob('*/vis/*.png'))) == 3
    (log,) = (tmp_path / 'tta').glob('*/*.log')
    assert 'trained with masked attention' not in log.read_text()

    # One view that is the image itself: the score of a test without.
    text = config.read_text()
    steps = Config.fromfile(config).test_dataloader.dataset.pipeline
    views = tmp_path / 'views.py'

    def write(*sizes):
        load, labels, _, pack = steps
        pack = dict(pack, meta_keys=(*pack.meta_keys, 'flip', 'flip_direction'))
        resizings = [dict(type='eomt_mm.FitInside', size=size) for size in sizes]
        flips = [dict(type='RandomFlip', prob=0.0)]
        transforms = [flips, [dict(labels)], resizings, [pack]]
        pipeline = [dict(load), dict(type='TestTimeAug', transforms=transforms)]
        views.write_text(f'{text}\ntta_pipeline = {pipeline!r}\n')

    write(64)
    found = run_tool(
        'test', views, run / 'iter_6.pth', *out[:1], tmp_path / 'a', '--tta'
    )
    plain = run_tool('test', config, run / 'iter_6.pth', *out[:1], tmp_path / 'b')
    assert found == plain
    write(64, 48)
    found = run_tool(
        'test', views, run / 'iter_6.pth', *out[:1], tmp_path / 'c', '--tta'
    )
    assert found[SCORES[task]] >= 0

    run_tool('test', config, run / 'iter_3.pth', *out[:1], tmp_path / 'early', '--tta')
    (log,) = (tmp_path / 'early').glob('*/*.log')
    warnings = [line for line in log.read_text().splitlines() if 'masked att' in line]
    assert len(warnings) == 1 and 'from iteration 3' in warnings[0]


def test_a_score_of_results_that_are_not_asked_for(run_tool, tiny, tmp_path):
    config = tiny('instance', **{'model.test_cfg.instance_on': False})
    with pytest.raises(UserError, match=r'set model\.test_cfg\.instance_on=True'):
        run_tool('train', config, '--work-dir', tmp_path)


def test_fine_tuning_on_other_classes(run_tool, tiny, tmp_path):
    """A panoptic model becomes an instance model with fewer queries."""
    run_tool('train', tiny('panoptic'), '--work-dir', tmp_path / 'run')
    checkpoint, run = tmp_path / 'run/iter_6.pth', tmp_path / 'fine'
    options = {'model.backbone.num_queries': 4, 'train_cfg.max_iters': 1}
    config = tiny('instance', **options, **{'default_hooks.checkpoint.interval': 1})
    option = f'load_from={checkpoint}'
    run_tool('train', config, '--work-dir', run, '--cfg-options', option)
    (log,) = run.glob('*/*.log')
    log = log.read_text()
    assert f'fine-tuning from {checkpoint}' in log
    assert '  started anew      backbone.queries: 10 in the checkpoint, 4 in' in log
    assert (
        'panoptic_head.class_head: 8 rows (classes + 1) in the checkpoint, 6 in' in log
    )
    run_tool('test', config, run / 'iter_1.pth', '--work-dir', run / 'test')
    with pytest.raises(UserError, match='backbone.queries is .10, 32.'):
        run_tool('test', config, checkpoint, '--work-dir', run / 'test')


def test_a_checkpoint_that_is_missing(run_tool, tiny, tmp_path):
    """The ADE20K panoptic configs require it."""
    option = 'custom_hooks.2.required=True'
    with pytest.raises(UserError, match='add --cfg-options load_from=CHECKPOINT'):
        run_tool(
            'train', tiny('panoptic'), '--work-dir', tmp_path, '--cfg-options', option
        )
    (log,) = tmp_path.glob('*/*.log')
    assert 'Iter(train)' not in log.read_text()


@TASKS
def test_missing_annotation_file(run_tool, tiny, tmp_path, scenes, task):
    option = 'train_dataloader.dataset.ann_file=nowhere.json'
    with pytest.raises(UserError, match=r'nowhere\.json'):
        run_tool('train', tiny(task), '--work-dir', tmp_path, '--cfg-options', option)
