"""`eomt_mm.SegDataset`: a user's own label maps, read with care."""

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm.errors import UserError

CLASSES = ('road', 'verge', 'other')


@pytest.fixture
def build(tmp_path):
    """`build(**options)` makes the dataset of three images."""
    init_default_scope('mmseg')
    rng = np.random.default_rng(0)
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for name in 'abc':
        photo = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        labels = rng.integers(0, 3, (8, 12), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / f'images/{name}.jpg')
        Image.fromarray(labels).save(tmp_path / f'labels/{name}.png')

    def make(**options):
        return DATASETS.build(
            dict(
                type='eomt_mm.SegDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images', seg_map_path='labels'),
                metainfo=dict(classes=CLASSES),
                pipeline=[
                    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
                    dict(type='eomt_mm.LoadSemanticAnnotations'),
                    dict(type='PackSegInputs'),
                ],
            )
            | options
        )

    return make


def test_labels_are_those_of_the_files(build, tmp_path):
    dataset = build()
    assert dataset.metainfo['classes'] == CLASSES and len(dataset) == 3
    sample = dataset[1]
    stored = np.array(Image.open(tmp_path / 'labels/b.png'))
    assert np.array_equal(sample['data_samples'].gt_sem_seg.data[0], stored)
    assert sample['inputs'].shape == (3, 8, 12)
    # ClassBalancedDataset asks for the classes of an image.
    assert dataset.get_cat_ids(1) == np.unique(stored).tolist()


def test_a_broken_file_is_named_or_skipped(build, tmp_path):
    path = tmp_path / 'images/b.jpg'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r'cannot read .*b\.jpg: '):
        build()[1]
    dataset = build(skip_unreadable=True)
    assert dataset[1]['data_samples'].img_path != str(path)
    assert dataset.num_skipped == 1


def test_a_label_map_of_another_size_is_refused(build, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'labels/c.png')
    with pytest.raises(UserError, match=r'label map .*c\.png has shape \(8, 8\)'):
        build()[2]


def test_a_folder_without_images_is_refused(build):
    with pytest.raises(UserError, match='no image found; SegDataset expects images'):
        build(img_suffix='.tif')


def test_stored_values_of_classes(build, tmp_path):
    dataset = build(metainfo=dict(classes=('no', 'yes')), label_values=(0, 255))
    stored = np.zeros((8, 12), np.uint8)
    stored[2:], stored[5:] = 255, 7
    Image.fromarray(stored).save(tmp_path / 'labels/a.png')
    labels = dataset[0]['data_samples'].gt_sem_seg.data[0].numpy()
    expected = np.zeros((8, 12), int)
    expected[2:], expected[5:] = 1, 255
    assert (labels == expected).all()
    with pytest.raises(UserError, match='a value for each class'):
        build(label_values=(0, 255))
