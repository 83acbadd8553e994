"""The dataset configs on their own, on real photographs, and in browse_dataset."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm.errors import UserError

ROOT = Path(__file__).parents[2]
ADE_MINI = ROOT.parent / 'shared/data/ade20k_mini/ADEChallengeData2016'
needs_photos = pytest.mark.skipif(
    not ADE_MINI.is_dir(), reason=f'no real photographs at {ADE_MINI}'
)


@pytest.mark.parametrize(
    'name, crop', [('ade20k', 512), ('cityscapes', 1024), ('scenes', 64)]
)
def test_configs_load_and_fit_the_inferencers(name, crop):
    cfg = Config.fromfile(ROOT / f'configs/_base_/datasets/{name}.py')
    assert tuple(cfg.crop_size) == (crop, crop)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        types = [step.type for step in loader.dataset.pipeline]
        assert types[:2] == ['LoadImageFromFile', 'eomt_mm.LoadSemanticAnnotations']
        assert types[-1] == 'PackSegInputs'
        assert loader.dataset.data_root == cfg.data_root


def test_cityscapes_layout(tmp_path, build):
    for folder, suffix, shape in (
        ('leftImg8bit', 'leftImg8bit', (20, 40, 3)),
        ('gtFine', 'gtFine_labelTrainIds', (20, 40)),
    ):
        path = tmp_path / folder / 'val/ulm' / f'ulm_000000_000000_{suffix}.png'
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full(shape, 18, np.uint8)).save(path)
    item = build(tmp_path, 'val', config='cityscapes')[0]
    assert item['inputs'].shape == (3, 1024, 2048)
    assert (item['data_samples'].gt_sem_seg.data == 18).all()


@needs_photos
def test_training_on_real_photographs(build):
    np.random.seed(0)
    prefix = dict(img_path='images/validation', seg_map_path='annotations/validation')
    dataset = build(ADE_MINI, 'train', data_prefix=prefix)
    padded = 0
    for _ in range(4):
        for item in dataset:
            labels = item['data_samples'].gt_sem_seg.data[0]
            assert item['inputs'].shape == (3, 512, 512)
            assert labels.shape == (512, 512) and (labels != 255).any()
            assert ((labels < 150) | (labels == 255)).all()
            padded += bool((item['inputs'][:, -1, -1] == 0).all())
    assert padded > 0  # small scales leave black borders


@needs_photos
def test_validation_on_real_photographs(build):
    dataset = build(ADE_MINI, 'val')
    for item in dataset:
        sample = item['data_samples']
        photo = Image.open(sample.img_path).convert('RGB')
        width, height = photo.size
        factor = max(512 / height, 512 / width)
        size = (round(width * factor), round(height * factor))
        resized = np.asarray(photo.resize(size, Image.BILINEAR))
        found = item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]
        np.testing.assert_array_equal(found, resized)

        raw = np.asarray(Image.open(sample.seg_map_path)).astype(int)
        expected = np.where(raw == 0, 255, raw - 1)
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0], expected)


@pytest.fixture
def config(tmp_path):
    """A config around the ADE20K one, as the real ones are."""
    path = tmp_path / 'tiny.py'
    path.write_text(
        f'_base_ = [{str(ROOT / "configs/_base_/datasets/ade20k.py")!r}]\n'
        "default_scope = 'mmseg'\n"
        "visualizer = dict(type='SegLocalVisualizer', alpha=0.5,\n"
        "                  vis_backends=[dict(type='LocalVisBackend')])\n"
    )
    return str(path)


@pytest.mark.parametrize('split, width', [('train', 512), ('val', 640)])
def test_browse_dataset(split, width, config, ade, tool, tmp_path):
    browse = tool('analysis_tools/browse_dataset')
    root = ade((20, 30), count=3)
    out = tmp_path / 'panels'
    options = ['--not-show', '--output-dir', str(out), '--number', '2']
    browse.main(
        [config, '--split', split, *options, '--cfg-options', f'data_root={root}']
    )
    panels = sorted(out.iterdir())
    assert [p.name for p in panels] == ['0000_0.png', '0001_1.png']
    assert Image.open(panels[0]).width == 2 * (width + 12) + 12


@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
@pytest.mark.parametrize('split', ['train', 'val'])
def test_browse_every_task(task, split, tool, tmp_path):
    """Things are painted; sky and ground are where the task knows them."""
    scenes = tool('dataset_converters/make_scenes')
    scenes.main([str(tmp_path), '--train', '1', '--val', '1', '--size', '64'])
    root = tmp_path / 'ADEChallengeData2016'
    out = tmp_path / 'panels'
    tool('analysis_tools/browse_dataset').main(
        [str(ROOT / f'configs/demo/eomt_scenes_{task}.py'), '--split', split]
        + ['--not-show', '--output-dir', str(out)]
        + ['--cfg-options', f'data_root={root}']
        + ['train_dataloader.dataset.pipeline.2.prob=0.0']
    )
    (path,) = out.iterdir()
    picture = np.asarray(Image.open(path).convert('RGB'))
    top, gap, side = 2 * (15 + 12), 12, 256
    photo, labels = (
        picture[top : top + side, left : left + side] for left in (gap, 2 * gap + side)
    )
    folder = 'training' if split == 'train' else 'validation'
    name = path.name.removeprefix('0000_')
    instance = Image.open(root / 'annotations_instance' / folder / name)
    thing = np.asarray(instance)[..., 1] > 0
    inside = np.kron(thing, np.ones((4, 4), bool))
    changed = (photo != labels).any(-1)  # where something is painted
    assert changed[inside].mean() > 0.9
    outside = changed[~inside].mean()
    assert outside < 0.3 if task == 'instance' else outside > 0.9


def test_browse_dataset_says_what_is_missing(config, tool, tmp_path, capsys):
    browse = tool('analysis_tools/browse_dataset')
    with pytest.raises(SystemExit):
        browse.main([config, '--not-show'])
    assert '--output-dir' in capsys.readouterr().err
    with pytest.raises(UserError, match='does not exist'):
        browse.main(
            [config, '--not-show', '--output-dir', str(tmp_path / 'o')]
            + ['--cfg-options', f'data_root={tmp_path / "nowhere"}']
        )
    assert not (tmp_path / 'o').exists()


@needs_photos
def test_photos_by_heart_are_trained_as_they_are_tested():
    """A crop as large as the photo is the image that testing sees."""
    init_default_scope('mmseg')
    cfg = Config.fromfile(ROOT / 'configs/demo/eomt_photos_ade20k_mini.py')
    steps = cfg.train_dataloader.dataset.pipeline
    types = [step.type for step in steps]
    assert 'eomt_mm.LoadSemanticAnnotations' in types
    steps = [step for step in steps if step.type != 'eomt_mm.PadAndCrop']
    prefix = dict(img_path='images/validation', seg_map_path='annotations/validation')
    settings = dict(data_root=str(ADE_MINI), data_prefix=prefix)
    train = cfg.train_dataloader.dataset
    train.update(pipeline=steps, **settings)
    test = cfg.test_dataloader.dataset
    test.update(settings)
    for one, other in zip(DATASETS.build(train), DATASETS.build(test), strict=True):
        assert torch.equal(one['inputs'], other['inputs'])
