"""The whole path through the tools: scenes, training, resuming, testing, inferencer."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from eomt_mm import checkpoints
from eomt_mm.errors import UserError

TINY_MODEL = [
    'model.backbone.timm_args.embed_dim=32',
    'model.backbone.timm_args.depth=3',
    'model.backbone.timm_args.num_heads=4',
    'model.decode_head.embed_dims=32',
    'model.decode_head.criterion.num_points=64',
]
TINY_RUN = [
    'train_dataloader.batch_size=2',
    'train_cfg.max_iters=6',
    'train_cfg.val_interval=3',
    'default_hooks.checkpoint.interval=3',
    'default_hooks.logger.interval=1',
    'param_scheduler.warmup=(1,1)',
]


@pytest.fixture
def train(run_tool, root, scenes):
    """Train the demo's model, shrunk, for six iterations."""

    def run(work_dir, *argv, options=()):
        return run_tool(
            'train',
            root / 'configs/demo/eomt_scenes_semantic.py',
            *('--work-dir', work_dir, *argv, '--cfg-options'),
            *(f'data_root={scenes}', *TINY_MODEL, *TINY_RUN, *options),
        )

    return run


@pytest.fixture
def test(run_tool, root, scenes):
    def run(checkpoint, *argv, options=()):
        return run_tool(
            'test',
            root / 'configs/demo/eomt_scenes_semantic.py',
            *(checkpoint, '--work-dir', checkpoint.parent / 'test', *argv),
            *('--cfg-options', f'data_root={scenes}', *TINY_MODEL, *options),
        )

    return run


# The augmentation of ADE20K, so that the data stream is random too.
AUGMENTED = (
    'train_dataloader.dataset.pipeline='
    "[dict(type='LoadImageFromFile',imdecode_backend='pillow'),"
    "dict(type='LoadAnnotations'),dict(type='eomt_mm.RetryUntilLabelled',transforms="
    "[dict(type='eomt_mm.ColorJitter'),dict(type='RandomFlip',prob=0.5),"
    "dict(type='eomt_mm.ScaleJitter',size=64,scale_range=(0.5,2.0)),"
    "dict(type='eomt_mm.PadAndCrop',size=64)]),dict(type='PackSegInputs')]"
)


def augmented(tmp_path, root, size=64):
    pipeline = AUGMENTED.partition('=')[2].replace('size=64', f'size={size}')
    path = tmp_path / 'augmented.py'
    path.write_text(
        f'_base_ = {str(root / "configs/demo/eomt_scenes_semantic.py")!r}\n'
        f'train_dataloader = dict(dataset=dict(pipeline={pipeline}))'
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_training_equals_uninterrupted(
    run_tool, root, scenes, tmp_path, workers
):
    """Real model, augmentation, validation in between: bit for bit."""
    config = augmented(tmp_path, root)
    persistent = workers > 0
    options = [
        f'data_root={scenes}',
        *TINY_MODEL,
        *TINY_RUN,
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={persistent}',
    ]

    def train(work_dir, *argv):
        argv = (config, '--work-dir', work_dir, *argv, '--cfg-options', *options)
        return run_tool('train', *argv).model.state_dict()

    whole = train(tmp_path / 'whole')
    half = tmp_path / 'half'
    half.mkdir()
    shutil.copy(tmp_path / 'whole' / 'iter_3.pth', half)
    resumed = train(half, '--resume', half / 'iter_3.pth')
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())

    halfway = checkpoints.read(half / 'iter_3.pth')['state_dict']
    assert any(not torch.equal(value, whole[name]) for name, value in halfway.items())


def test_train_then_test(train, test, tmp_path):
    train(tmp_path)
    checkpoint = tmp_path / 'iter_6.pth'
    saved = checkpoints.read(checkpoint)
    assert saved['meta']['dataset_meta']['classes'][0] == 'sky'

    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [record for record in records if 'loss' in record]
    assert len(steps) == 6
    names = {'lr', 'base_lr', 'mask_prob_0', 'mask_prob_1', 'decode.d1.loss_dice'}
    assert names <= set(steps[0])
    assert [step['mask_prob_1'] for step in steps][::5] == [1.0, 0.0]
    # Head first, then the backbone; both to be had from the log.
    assert [step['base_lr'] > 0 for step in steps[:3]] == [False, True, True]
    assert [step['lr'] > 0 for step in steps[:3]] == [False, False, True]

    scores = test(checkpoint, '--out', tmp_path / 'out')
    assert 0 <= scores['mIoU'] <= 100
    assert len(list((tmp_path / 'out').glob('*.png'))) == 3
    assert test(checkpoint, '--tta')['mIoU'] >= 0


def test_checkpoint_of_another_number_of_queries(train, test, tmp_path):
    train(tmp_path)
    with pytest.raises(UserError, match='queries is .*, 32., the config makes .7, 32'):
        test(tmp_path / 'iter_6.pth', options=['model.backbone.num_queries=7'])


def test_fine_tuning_of_panoptic_weights_at_another_size(
    run_tool, root, scenes, tmp_path
):
    """Another task, another size and other classes, through the tools alone."""
    options = [option.replace('decode_head', 'panoptic_head') for option in TINY_MODEL]
    options += [f'data_root={scenes}', *TINY_RUN, 'train_cfg.max_iters=1']
    run_tool(
        'train',
        root / 'configs/demo/eomt_scenes_panoptic.py',
        *('--work-dir', tmp_path / 'panoptic', '--cfg-options', *options),
        'default_hooks.checkpoint.interval=1',
    )
    checkpoint = tmp_path / 'panoptic/iter_1.pth'
    config = augmented(tmp_path, root, size=128)
    larger = [
        'model.data_preprocessor.size=(128,128)',
        'model.backbone.img_size=128',
        'model.backbone.num_blocks=1',
        'val_dataloader.dataset.pipeline.2.size=128',
        f'load_from={checkpoint}',
    ]
    options = [f'data_root={scenes}', *TINY_MODEL, *TINY_RUN, *larger]
    fine = tmp_path / 'fine'
    run_tool('train', config, '--work-dir', fine, '--cfg-options', *options)
    (log,) = fine.glob('*/*.log')
    assert log.read_text().count('fine-tuning from') == 1
    table = log.read_text().partition('fine-tuning from ')[2].splitlines()
    state = checkpoints.read(checkpoint)['state_dict']
    count, heads = len(state), sum('head' in key for key in state)
    assert table[:6] == [
        str(checkpoint),
        f'  renamed           panoptic_head.* -> decode_head.*: {heads} tensors',
        f'  loaded unchanged  {count - 3} tensors',
        '  resized           backbone.pos_embed: (1, 65, 32) -> (1, 257, 32)',
        "  started anew      decode_head.class_head: class 0 is 'disc' in the "
        "checkpoint, 'sky' in the data",
        '  last blocks       2 in the checkpoint, 1 in the config',
    ]


@pytest.mark.parametrize('count', [2, 19])
def test_another_number_of_classes_than_the_data(train, tmp_path, count):
    fault = f'num_classes={count}, but the train dataset .*ScenesDataset has 7'
    with pytest.raises(UserError, match=fault):
        train(tmp_path, options=[f'model.decode_head.num_classes={count}'])


def test_annealing_that_does_not_increase(train, tmp_path):
    options = [
        'custom_hooks.0.start=[0.5,0.2]',
        'custom_hooks.0.end=[0.6,0.4]',
    ]
    with pytest.raises(UserError, match='windows .* do not increase'):
        train(tmp_path, options=options)


def test_inferencer_writes_a_picture(train, root, tmp_path, real_data):
    from mmengine.config import Config
    from mmseg.apis import MMSegInferencer

    train(tmp_path)
    cfg = Config.fromfile(root / 'configs/demo/eomt_scenes_semantic.py')
    cfg.merge_from_dict(
        {
            'model.backbone.timm_args': dict(embed_dim=32, depth=3, num_heads=4),
            'model.decode_head.embed_dims': 32,
        }
    )
    cfg.dump(tmp_path / 'config.py')
    inferencer = MMSegInferencer(
        str(tmp_path / 'config.py'), str(tmp_path / 'iter_6.pth'), device='cpu'
    )
    photo = next((real_data / 'ade20k_mini').rglob('*.jpg'))
    result = inferencer(str(photo), out_dir=str(tmp_path / 'pictures'))
    with Image.open(photo) as image:
        assert result['predictions'].shape == image.size[::-1]
    picture = next((tmp_path / 'pictures/vis').iterdir())
    assert np.asarray(Image.open(picture)).std() > 0


def test_real_photographs(run_tool, root, tmp_path, real_data):
    """The config that learns ADE20K photographs, for two iterations."""
    config = root / 'configs/demo/eomt_photos_ade20k_mini.py'
    options = [
        f'data_root={real_data / "ade20k_mini/ADEChallengeData2016"}',
        *TINY_MODEL,
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
    ]
    argv = ('--work-dir', tmp_path, '--cfg-options', *options)
    run_tool('train', config, *argv)
    scores = run_tool('test', config, tmp_path / 'iter_2.pth', *argv)
    assert scores['aAcc'] >= 0
