"""Odd images come through both pipelines; broken files are named or skipped."""

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image
from torch.utils.data import DataLoader

from eomt_mm.errors import UserError

PHOTO = np.random.default_rng(1).integers(0, 256, (20, 30, 4), np.uint8)
DEEP = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)


def save_as_jpg_name(image, root):
    """The datasets look for .jpg; the decoder looks at the content."""
    for split in ('training', 'validation'):
        image.save(root / f'images/{split}/0.jpg', format='PNG')


ODD = {
    'grey': Image.fromarray(PHOTO[..., 0]),
    'palette': Image.fromarray(PHOTO[..., :3]).quantize(16),
    'rgba': Image.fromarray(PHOTO),
    'bilevel': Image.fromarray(PHOTO[..., 0] > 128),
    '16-bit': Image.fromarray(DEEP),
}


@pytest.mark.parametrize('kind', ODD)
def test_odd_images(kind, ade, build):
    root = ade()
    save_as_jpg_name(ODD[kind], root)
    for _ in range(3):
        item = build(root, 'train')[0]
        assert item['inputs'].shape == (3, 512, 512)
        assert item['inputs'].dtype == torch.uint8

    item = build(root, 'val')[0]
    assert item['inputs'].shape == (3, 512, 768)
    assert item['data_samples'].gt_sem_seg.shape == (20, 30)
    if kind == '16-bit':
        rgb = np.repeat((DEEP // 256).astype(np.uint8)[..., None], 3, axis=-1)
        rgb = Image.fromarray(rgb)
    else:
        rgb = ODD[kind].convert('RGB')
    expected = np.asarray(rgb.resize((768, 512), Image.BILINEAR))
    found = item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('pixels', 'found'),
    [
        (np.full((20, 30), 70000, np.int32), 'has 32-bit pixels from 70000 to 70000'),
        (np.full((20, 30), -1, np.int32), 'has 32-bit pixels from -1 to -1'),
        (np.full((20, 30), 0.5, np.float32), 'has 32-bit floating-point pixels'),
    ],
)
def test_pixels_of_32_bits(pixels, found, ade, build):
    root = ade()
    Image.fromarray(pixels).save(root / 'images/training/0.jpg', format='TIFF')
    with pytest.raises(UserError, match=found):
        build(root, 'train')[0]


@pytest.mark.parametrize('size', [(1, 50), (50, 1), (1, 1)])
def test_one_pixel_high(size, ade, build):
    root = ade(size)
    for _ in range(5):
        assert build(root, 'train')[0]['inputs'].shape == (3, 512, 512)
    sample = build(root, 'val')[0]['data_samples']
    assert sample.ori_shape == sample.gt_sem_seg.shape == size


def test_nothing_labelled(ade, build):
    root = ade()
    void = Image.fromarray(np.zeros((20, 30), np.uint8))
    void.save(root / 'annotations/training/0.png')
    item = build(root, 'train')[0]
    assert (item['data_samples'].gt_sem_seg.data == 255).all()


def test_one_class(ade, build):
    root = ade()
    only = Image.fromarray(np.full((20, 30), 150, np.uint8))
    only.save(root / 'annotations/training/0.png')
    labels = build(root, 'train')[0]['data_samples'].gt_sem_seg.data
    assert set(labels.unique().tolist()) <= {149, 255}
    assert (labels == 149).any()


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
    'truncated image': ('images', truncate, 'truncated'),
    'empty image': ('images', lambda path: path.write_bytes(b''), 'empty'),
    'no image': ('images', lambda path: path.write_text('hello'), 'not an image'),
    'empty label': ('annotations', lambda path: path.write_bytes(b''), 'empty'),
    'missing label': ('annotations', lambda path: path.unlink(), 'no such file'),
}


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('case', BROKEN)
def test_broken_files_are_named(case, split, ade, build):
    folder, spoil, reason = BROKEN[case]
    root = ade((200, 300))
    suffix = 'jpg' if folder == 'images' else 'png'
    ade_split = {'train': 'training', 'val': 'validation'}[split]
    path = root / folder / ade_split / f'0.{suffix}'
    spoil(path)
    with pytest.raises(UserError) as caught:
        build(root, split)[0]
    message = str(caught.value)
    assert str(path) in message and reason in message
    assert 'skip_unreadable' in message and '\n' not in message


def test_other_errors_are_not_blamed_on_files(ade, build):
    dataset = build(ade(), 'train')

    def fail(results):
        raise ZeroDivisionError('elsewhere')

    dataset.pipeline.transforms.append(fail)
    with pytest.raises(ZeroDivisionError, match='elsewhere'):
        dataset[0]


@pytest.mark.parametrize('num_workers', [0, 2])
def test_unreadable_files_are_skipped_and_counted(num_workers, ade, build, tmp_path):
    log = tmp_path / 'log'
    MMLogger.get_instance(f'skip{num_workers}', log_file=str(log))
    root = ade(count=6)
    for i in (1, 4):
        (root / f'images/training/{i}.jpg').write_bytes(b'')
    dataset = build(root, 'train', skip_unreadable=True)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=num_workers, collate_fn=lambda x: x
    )
    for _ in range(2):
        paths = [item['data_samples'].img_path for item in loader]
        assert len(paths) == 6
        assert not any(p.endswith(('1.jpg', '4.jpg')) for p in paths)
    assert dataset.num_skipped == 2
    logged = log.read_text()
    assert logged.count('1.jpg: the file is empty') == 1
    assert logged.count('4.jpg: the file is empty') == 1
    assert '(1 of 6 skipped)' in logged and '(2 of 6 skipped)' in logged


def test_all_unreadable_is_an_error(ade, build):
    root = ade(count=2)
    for path in (root / 'images/training').iterdir():
        path.write_bytes(b'')
    with pytest.raises(UserError, match='none of the 2 images can be read'):
        build(root, 'train', skip_unreadable=True)[0]


def test_skipping_is_for_training_only(ade, build):
    with pytest.raises(UserError, match='skip_unreadable'):
        build(ade(), 'val', skip_unreadable=True)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_label_of_another_size(split, ade, build):
    root = ade()
    for ade_split in ('training', 'validation'):
        path = root / f'annotations/{ade_split}/0.png'
        Image.fromarray(np.ones((30, 20), np.uint8)).save(path)
    with pytest.raises(UserError, match=r'0\.png.*\(30, 20\).*\(20, 30\)'):
        build(root, split)[0]


def test_colour_labels_are_refused(ade, build):
    root = ade()
    colours = Image.fromarray(np.ones((20, 30, 3), np.uint8))
    colours.save(root / 'annotations/training/0.png')
    with pytest.raises(UserError, match='has 3 channels, expected one'):
        build(root, 'train')[0]


def test_missing_and_empty_folders(tmp_path, build):
    with pytest.raises(UserError, match='does not exist.*data_root'):
        build(tmp_path / 'nowhere', 'train')
    (tmp_path / 'images/training').mkdir(parents=True)
    with pytest.raises(UserError, match='no image found.*data_root'):
        build(tmp_path, 'train')
