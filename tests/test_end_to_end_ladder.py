"""Every step of the ladder trains and is tested on the scenes, for every task."""

import json
import math

import pytest
from mmengine.config import Config

from tiny_models import on_data

STEPS = range(6)
SCORES = {
    'panoptic': 'coco_panoptic/PQ',
    'instance': 'coco/segm_mAP',
    'semantic': 'mIoU',
}
CLASSES = {
    'panoptic': dict(num_things_classes=5, num_stuff_classes=2),
    'instance': dict(num_things_classes=5, num_stuff_classes=0),
    'semantic': dict(num_classes=7),
}
DIMS = 32
ITERATIONS = 20


@pytest.fixture
def tiny(root, scenes, tmp_path):
    """`tiny(step, task)` writes the step's config for the scenes, shrunk."""

    def write(step, task, variant=''):
        name = f'step{step}_vitl_coco_panoptic_640{variant}'
        leaf = Config.fromfile(full_config(root, name))
        model = leaf.model
        if task == 'semantic':
            model = semantic(model)
        shrink(model, task)
        cfg = on_data(root / f'configs/demo/eomt_scenes_{task}.py', scenes)
        cfg.model, cfg.custom_hooks = model, leaf.custom_hooks
        cfg.merge_from_dict(
            {
                'train_dataloader.batch_size': 2,
                'train_cfg.max_iters': ITERATIONS,
                'train_cfg.val_interval': ITERATIONS + 1,  # tested afterwards
                'default_hooks.checkpoint.interval': ITERATIONS,
                'default_hooks.logger.interval': 1,
                'param_scheduler.warmup': (2, 2),
            }
        )
        path = tmp_path / f'{name}_{task}.py'
        cfg.dump(path)
        return path

    def semantic(model):
        """The same parts in MMSeg's model."""
        old = model.panoptic_head
        new = 'step5_vitl_ade20k' if 'criterion' in old else 'step0_vitl_ade20k'
        new = Config.fromfile(full_config(root, new)).model
        new.backbone, new.neck = model.backbone, model.get('neck')
        for key in ('num_transformer_feat_level', 'pixel_decoder'):
            if key in old:
                new.decode_head[key] = old[key]
        return new

    return write


def full_config(root, name):
    """Step (5) is EoMT itself, among its own configs."""
    path = root / f'configs/ladder/{name}.py'
    if path.exists():
        return path
    return root / f'configs/eomt/{name.replace("step5", "eomt")}.py'


def shrink(model, task):
    model.backbone.img_size = (64, 64)
    model.backbone.update(
        arch='vit_tiny_patch16_224',
        patch_size=8,
        pretrained=False,
        timm_args=dict(embed_dim=DIMS, depth=4, num_heads=2),
    )
    head = model.decode_head if task == 'semantic' else model.panoptic_head
    head.update(CLASSES[task])
    if task == 'instance':
        model.test_cfg.update(panoptic_on=False, instance_on=True)
    if 'criterion' in head:  # EoMT
        head.criterion.num_points = 64
        model.backbone.update(num_queries=6, num_blocks=2)
        if model.backbone.get('mask_probs'):
            model.backbone.mask_probs = [1.0] * 2
        return
    head.num_queries = 6
    head.transformer_decoder.num_layers = 2
    if head.get('mask_probs'):
        head.mask_probs = [0.0] * 2
    if head.pixel_decoder.get('encoder'):
        head.pixel_decoder.encoder.num_layers = 1
    (head if task == 'semantic' else model).train_cfg.num_points = 64


def losses_of(run):
    (log,) = run.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record for record in records if 'loss' in record]


@pytest.mark.slow
@pytest.mark.parametrize('task', SCORES)
@pytest.mark.parametrize('step', STEPS)
def test_trains_and_is_tested(run_tool, tiny, tmp_path, step, task):
    config, run = tiny(step, task), tmp_path / 'run'
    run_tool('train', config, '--work-dir', run)
    records = losses_of(run)
    assert len(records) == ITERATIONS
    for record in records:
        assert all(math.isfinite(v) for k, v in record.items() if 'loss' in k)
    # Predictions before each of two layers or blocks.
    prefix = 'decode.' if task == 'semantic' else ''
    assert f'{prefix}d1.loss_dice' in records[0]
    assert ('mask_prob_0' in records[0]) is (step == 5)

    checkpoint = run / f'iter_{ITERATIONS}.pth'
    scores = run_tool('test', config, checkpoint, '--work-dir', run / 'test')
    assert 0 <= scores[SCORES[task]] <= 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ('step', 'variant'), [(0, '_annealed'), (0, '_never'), (5, '_never')]
)
def test_variants_of_annealing(run_tool, tiny, tmp_path, step, variant):
    config, run = tiny(step, 'panoptic', variant), tmp_path / 'run'
    runner = run_tool('train', config, '--work-dir', run)
    records = losses_of(run)
    if variant == '_annealed':
        probs = [record['mask_prob_1'] for record in records]
        assert probs[0] == 1 and probs[-1] == 0
        assert runner.model.panoptic_head.mask_probs == [0.0, 0.0]
    else:
        assert 'mask_prob_1' not in records[0] and 'd0.loss_cls' not in records[0]
    checkpoint = run / f'iter_{ITERATIONS}.pth'
    scores = run_tool('test', config, checkpoint, '--work-dir', run / 'test')
    assert scores[SCORES['panoptic']] >= 0
