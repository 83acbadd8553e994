"""MM's own augmentation on own data: every label stays on its colour."""

import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

MULTI_SCALE = """
_base_ = {base!r}
own = _base_.train_dataloader.dataset
own.pipeline[2].transforms = [
    {steps}
    dict(type='eomt_mm.PadAndCrop', size=_base_.crop_size),
]
train_dataloader = dict(dataset=own)
"""
SCALES = (
    "dict(type='RandomChoiceResize', keep_ratio=True, "
    'scales=[(48, 48), (64, 64), (96, 96)]),',
    "dict(type='RandomResize', scale=(64, 64), keep_ratio=True, "
    'ratio_range=(0.5, 2.0)),',
)
MOSAIC = """
_base_ = {base!r}
own = _base_.train_dataloader.dataset
own.pipeline[2].transforms = own.pipeline[2].transforms[1:]  # colours stay
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageMixDataset',
        dataset=dict(own, pipeline=own.pipeline[:-1]),
        pipeline=[
            dict(type='RandomMosaic', prob=0.5, img_scale=_base_.crop_size),
            dict(type='eomt_mm.PadAndCrop', size=_base_.crop_size),
            own.pipeline[-1],
        ],
    )
)
"""


def colour(label):
    return 30 + 25 * label


@pytest.fixture
def painted(datasets, check, tmp_path):
    """`painted(task)`: a config on photos that show nothing but their labels."""

    def write(task):
        root = datasets[task](tmp_path / 'pets')
        base = check.main([str(root), '--out', str(tmp_path / 'out')])
        cfg = Config.fromfile(base)
        init_default_scope(cfg.default_scope)
        read = dict(cfg.val_dataloader.dataset, test_mode=True)
        read['pipeline'] = [
            step for step in read['pipeline'] if 'FitInside' not in step['type']
        ]
        for split in (cfg.train_dataloader, cfg.val_dataloader):
            place = dict(split.dataset, pipeline=read['pipeline'])
            dataset = DATASETS.build(read | place)
            for sample in (dataset[i]['data_samples'] for i in range(len(dataset))):
                photo = np.zeros(sample.ori_shape, np.uint8)
                if 'gt_sem_seg' in sample:
                    data = sample.gt_sem_seg
                    labels = data.get('sem_seg', data.get('data'))[0].numpy()
                    photo = np.where(labels < 255, colour(labels.astype(int)), 0)
                else:
                    truth = sample.gt_instances
                    for mask, label in zip(
                        truth.masks.to_ndarray(), truth.labels, strict=True
                    ):
                        photo[mask > 0] = colour(int(label))
                photo = np.repeat(photo.astype(np.uint8)[..., None], 3, axis=2)
                Image.fromarray(photo).save(sample.img_path, format='PNG')
        return base

    return write


@pytest.fixture
def copy_paste(root):
    """The config that docs/tools.md shows."""
    page = (root / 'docs/tools.md').read_text()
    blocks = re.findall(r'```python\n(.*?)```', page, re.DOTALL)
    (code,) = [block for block in blocks if 'CopyPaste' in block]
    return code.replace("'./mine.py'", '{base!r}')


def train_set(base, text):
    """The training data of a config on top of another one."""
    path = base.with_name('mixed.py')
    path.write_text(text.format(base=str(base)))
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    np.random.seed(0)
    return DATASETS.build(cfg.train_dataloader.dataset)


def shown(image, mask):
    """The colour of most of a region."""
    return int(np.median(image[mask]))


def check_things(image, truth, exclusive):
    """Each thing has its colour, where no other covers it."""
    masks = truth.masks.to_ndarray().astype(bool)
    seen = 0
    for label, mask in zip(truth.labels.tolist(), masks, strict=True):
        assert mask.any()
        alone = mask & (masks.sum(0) == 1)
        if exclusive:
            assert (alone == mask).all()
        if alone.sum() > 60:
            assert abs(shown(image, alone) - colour(label)) < 8, 'colours are 25 apart'
            seen += 1
    return seen


def check_labels(image, found):
    """Most pixels have the colour of their label: edges are blends."""
    data = found.gt_sem_seg
    labels = data.get('sem_seg', data.get('data'))[0].numpy()
    pixels = labels < 255
    assert np.mean(image[pixels] == colour(labels[pixels].astype(int))) > 0.7
    return labels


def image_of(sample):
    assert sample['inputs'].dtype == torch.uint8
    return sample['inputs'][0].numpy()


@pytest.mark.parametrize('task', ['instance', 'panoptic'])
def test_copy_paste(painted, copy_paste, task):
    dataset = train_set(painted(task), copy_paste)
    plain = dataset.dataset
    seen = grown = 0
    for i in range(24):
        sample = dataset[i % len(dataset)]
        image, found = image_of(sample), sample['data_samples']
        seen += check_things(image, found.gt_instances, exclusive=False)
        grown += len(found.gt_instances) > len(plain[i % len(plain)]['gt_masks'])
        if task == 'panoptic':
            labels = check_labels(image, found)
            for mask in found.gt_instances.masks.to_ndarray().astype(bool):
                assert (labels[mask] < 5).all(), 'no stuff below a thing'
    assert seen > 20 and grown > 3


@pytest.mark.parametrize('task', ['instance', 'panoptic', 'semantic'])
def test_multi_scale(painted, task):
    base = painted(task)
    for steps in SCALES:
        dataset = train_set(base, MULTI_SCALE.replace('{steps}', steps))
        for i in range(8):
            sample = dataset[i]
            image, found = image_of(sample), sample['data_samples']
            assert image.shape == (64, 64)
            if task != 'semantic':
                check_things(image, found.gt_instances, exclusive=task == 'panoptic')
            if task != 'instance':
                check_labels(image, found)


def test_mosaic_of_mmseg(painted):
    dataset = train_set(painted('semantic'), MOSAIC)
    for i in range(8):
        sample = dataset[i]
        image = image_of(sample)
        assert image.shape == (64, 64)
        check_labels(image, sample['data_samples'])


def test_mixed_images_are_browsed(painted, copy_paste, run_tool, tmp_path):
    base = painted('panoptic')
    train_set(base, copy_paste)
    options = ('--not-show', '--number', 3, '--output-dir', tmp_path / 'seen')
    run_tool('analysis_tools/browse_dataset', base.with_name('mixed.py'), *options)
    assert len([*(tmp_path / 'seen').iterdir()]) == 3
