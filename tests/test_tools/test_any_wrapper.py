"""Any of MM's wrappers around any data set of this package."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.datasets.photos import Photos, leaves
from eomt_mm.errors import UserError

WRAPPERS = {
    'repeat': lambda d: dict(type='RepeatDataset', times=2, dataset=d),
    'balance': lambda d: dict(
        type='ClassBalancedDataset', oversample_thr=0.5, dataset=d
    ),
    'concat': lambda d: dict(type='ConcatDataset', datasets=[d]),
    'twice': lambda d: dict(type='ConcatDataset', datasets=[d, d]),
}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Three photos with a label map, instances and a panoptic map each."""
    root = tmp_path_factory.mktemp('any')
    images, instances, panoptic = [], [], []
    for folder in ('images', 'labels', 'panoptic'):
        (root / folder).mkdir()
    ids = np.full((16, 16), 2)
    ids[:8, :8] = 1
    for i in range(3):
        name = f'{i}.png'
        photo = np.full((16, 16, 3), 60 * i, np.uint8)
        Image.fromarray(photo).save(root / 'images' / name)
        Image.fromarray((ids - 1).astype(np.uint8)).save(root / 'labels' / name)
        rgb = np.stack((ids, 0 * ids, 0 * ids), -1).astype(np.uint8)
        Image.fromarray(rgb).save(root / 'panoptic' / name)
        images.append(dict(id=i, file_name=name, height=16, width=16))
        disc = dict(area=64, bbox=[0, 0, 8, 8], iscrowd=0, category_id=1)
        square = [[0, 0, 8, 0, 8, 8, 0, 8]]
        instances.append(dict(disc, id=i, image_id=i, segmentation=square))
        sky = dict(id=2, area=192, bbox=[0, 0, 16, 16], iscrowd=0, category_id=2)
        segments = [dict(disc, id=1), sky]
        panoptic.append(dict(image_id=i, file_name=name, segments_info=segments))
    categories = [
        dict(id=1, name='disc', isthing=1),
        dict(id=2, name='sky', isthing=0),
    ]
    for kind, annotations in (('instance', instances), ('panoptic', panoptic)):
        content = dict(images=images, categories=categories, annotations=annotations)
        (root / f'{kind}.json').write_text(json.dumps(content))
    return root


def leaf(root, kind):
    """A data set of one task, in its scope."""
    load = dict(type='LoadImageFromFile', imdecode_backend='pillow')
    name = kind.capitalize()
    pipeline = [load, dict(type=f'eomt_mm.Load{name}Annotations')]
    if kind == 'semantic':
        return 'mmseg', dict(
            type='eomt_mm.SegDataset',
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            data_root=str(root),
            img_suffix='.png',
            metainfo=dict(classes=('disc', 'sky')),
            pipeline=[*pipeline, dict(type='PackSegInputs')],
        )
    classes = dict(classes=('disc',) if kind == 'instance' else ('disc', 'sky'))
    stuff = dict(thing_classes=('disc',), stuff_classes=('sky',))
    prefix = dict(img='images') | (dict(seg='panoptic') if kind == 'panoptic' else {})
    return 'mmdet', dict(
        type=f'eomt_mm.Coco{name}Dataset',
        data_root=str(root),
        ann_file=f'{kind}.json',
        data_prefix=prefix,
        metainfo=classes | (stuff if kind == 'panoptic' else {}),
        pipeline=[*pipeline, dict(type='PackDetInputs')],
    )


@pytest.mark.parametrize('kind', ['semantic', 'instance', 'panoptic'])
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,  # of a busy machine
    ],
)
@given(
    order=st.lists(st.sampled_from(sorted(WRAPPERS)), max_size=3),
    indices=st.sampled_from([None, 1, 2]),
)
def test_any_nesting(root, kind, order, indices):
    scope, dataset = leaf(root, kind)
    dataset['indices'] = indices
    count = (
        {None: 3, 1: 1, 2: 2}.get(indices, 1) if not isinstance(indices, list) else 1
    )
    for wrapper in order:
        dataset = WRAPPERS[wrapper](dataset)
    loaders = {
        f'{split}_dataloader': dict(batch_size=1, num_workers=0, dataset=dataset)
        for split in ('train', 'test')
    }
    cfg = Config(dict(default_scope=scope, **loaders))
    cli.fill_in(cfg)
    pairs = zip(order, order[1:], strict=False)
    if any(outer == 'balance' != inner for inner, outer in pairs):
        with pytest.raises(UserError, match='ClassBalancedDataset is put around a'):
            cli.check_data(cfg, 'train', 'test')
        return
    cli.check_data(cfg, 'train', 'test')
    assert len(reading.leaves_of(cfg, 'train')) == 2 ** order.count('twice')
    init_default_scope(scope)
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(train) >= count * 2 ** (order.count('twice') + order.count('repeat'))
    for sample in (train[i] for i in range(len(train))):
        truth = sample['data_samples']
        assert 'gt_sem_seg' in truth or len(truth.gt_instances) == 1
    test = DATASETS.build(cfg.test_dataloader.dataset)
    # No image counts twice because of a repetition.
    assert len(test) == count * 2 ** order.count('twice')
    photos = Photos(test)
    assert len([*photos]) == count
    assert all(photos[path].shape == (16, 16, 3) for path in photos)


def test_pictures_are_read_by_the_pipeline_of_their_data_set(root):
    """One of two data sets in a wrapper has a loader that turns the colours."""
    scope, first = leaf(root, 'semantic')
    _, second = leaf(root, 'semantic')
    first['indices'], second['indices'] = [1], [2]
    second['pipeline'] = [
        dict(type='LoadImageFromFile', color_type='grayscale'),
        *second['pipeline'][1:],
    ]
    init_default_scope(scope)
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=[first, second]))
    plain, grey = leaves(dataset)
    read = {
        str(path): photo.mean()
        for path, photo in ((path, Photos(dataset)[path]) for path in Photos(dataset))
    }
    assert [*read.values()] == [60, 120]
    assert (
        plain.pipeline.transforms[0].color_type
        != grey.pipeline.transforms[0].color_type
    )
