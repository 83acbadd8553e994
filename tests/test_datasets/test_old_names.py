"""What a config of the last release says still works, with one line in the log."""

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from PIL import Image

from eomt_mm.datasets.pixels import announce_removal
from eomt_mm.models.plain_vit import PlainViT
from eomt_mm.models.query_vit import QueryViT


@pytest.fixture
def log(tmp_path):
    """The lines of the current log."""
    path = tmp_path / 'run.log'
    MMLogger.get_instance('old_names', log_file=str(path))
    announce_removal.cache_clear()
    yield lambda: path.read_text().splitlines()
    announce_removal.cache_clear()


def test_old_transforms_do_what_the_loader_does(log, tmp_path):
    init_default_scope('mmseg')
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 2**16, (6, 8)).astype(np.uint16)
    labels = rng.integers(0, 3, (6, 8)).astype(np.uint8)
    for name, array in (('image', pixels), ('labels', labels)):
        Image.fromarray(array).save(tmp_path / f'{name}.png')

    def load(*steps):
        results = dict(
            img_path=str(tmp_path / 'image.png'),
            seg_map_path=str(tmp_path / 'labels.png'),
            seg_fields=[],
            reduce_zero_label=False,
        )
        load_image = dict(type='LoadImageFromFile', imdecode_backend='pillow')
        for step in (load_image, *steps):
            results = TRANSFORMS.build(step).transform(results)
        return results

    old_steps = (
        dict(type='eomt_mm.DecodeSixteenBit'),
        dict(type='LoadAnnotations'),
        dict(type='eomt_mm.CheckLabelSize'),
    )
    old, _ = load(*old_steps), load(*old_steps)
    new = load(dict(type='eomt_mm.LoadSemanticAnnotations'))
    assert np.array_equal(old['img'], new['img'])
    assert np.array_equal(old['img'][..., 0], pixels >> 8)
    assert np.array_equal(old['gt_seg_map'], new['gt_seg_map'])
    notes = [line for line in log() if 'will be removed in the next release' in line]
    assert len(notes) == 2  # one for each name, however often it is built
    assert 'eomt_mm.DecodeSixteenBit' in notes[0]
    assert 'eomt_mm.CheckLabelSize' in notes[1]
    assert all('eomt_mm.LoadSemanticAnnotations' in line for line in notes)


def test_a_backbone_without_queries_is_a_plain_vit(log):
    options = dict(
        type='eomt_mm.QueryViT',
        arch='vit_tiny_patch16_224',
        img_size=32,
        patch_size=8,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=2, num_heads=2),
    )
    old = MODELS.build(dict(options, num_queries=0, num_blocks=1, mask_probs=[0.0]))
    assert isinstance(old, PlainViT) and not isinstance(old, QueryViT)
    (features,) = old(torch.zeros(1, 3, 32, 32))
    assert features.shape == (1, 32, 4, 4)
    assert any("num_queries=0 is 'eomt_mm.PlainViT' now" in line for line in log())
