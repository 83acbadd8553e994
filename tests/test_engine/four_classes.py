"""Small models of four classes, as configs and built."""

import numpy as np
import torch
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from tiny_models import tiny_backbone

NAMES = ('sky', 'grass', 'disc', 'box')
DINOV2 = 'vit_small_patch14_reg4_dinov2'
EVA02 = 'eva02_base_patch14_224'
DINOV3 = 'vit_small_patch16_dinov3_qkvb'


CLASS_HEAD = {'decode_head.class_head.weight', 'decode_head.class_head.bias'}


def config(task='semantic', num_classes=4, **backbone):
    """Four classes, six queries, 4 x 4 patches, two of three blocks with queries."""
    head = dict(criterion=dict(type='eomt_mm.Criterion'))
    head['criterion']['num_points'] = 16
    backbone = tiny_backbone(**backbone)
    preprocessor = dict(mean=[128.0] * 3, std=[64.0] * 3)
    if task == 'semantic':
        head.update(type='eomt_mm.SemanticHead', num_classes=num_classes)
        return dict(
            type='eomt_mm.EoMTSegmentor',
            data_preprocessor=dict(
                preprocessor, type='eomt_mm.EoMTSegDataPreProcessor'
            ),
            backbone=backbone,
            decode_head=head,
        )
    head.update(type='eomt_mm.PanopticHead', num_things_classes=num_classes - 1)
    return dict(
        type='eomt_mm.EoMTDetector',
        data_preprocessor=dict(preprocessor, type='eomt_mm.EoMTDetDataPreprocessor'),
        backbone=backbone,
        panoptic_head=head | dict(num_stuff_classes=1),
        test_cfg=dict(panoptic_on=True),
    )


def build(*args, seed=0, **kwargs):
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    return MODELS.build(config(*args, **kwargs))


def pillow_resized(codes, old, new):
    """Bicubic with antialiasing, of another library: (1, N, C) on grids (h, w)."""
    channels = codes[0].reshape(*old, -1).permute(2, 0, 1).numpy()
    size = new[::-1]
    resized = [Image.fromarray(c).resize(size, Image.BICUBIC) for c in channels]
    return torch.tensor(np.stack(resized)).flatten(1).T[None]
