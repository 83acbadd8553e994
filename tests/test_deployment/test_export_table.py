"""Every task, backbone and format of the export at the size of ViT-S, as a table."""

import numpy as np
import pytest

from eomt_mm.deploy import Predictor

MERGED = dict(
    type='eomt_mm.ALGM', keep=(0.7, 0.8), local_block=3, global_block=6, window=2
)
BACKBONES = {
    'DINOv2 S': ('dinov2', None, dict()),
    # The only SwiGLU of DINOv2 is the giant, of which this has the width of S.
    'SwiGLU': ('swiglu', None, dict(embed_dim=384, depth=12, num_heads=6)),
    'DINOv3 S': ('dinov3', None, dict()),
    'EVA-02 Ti': ('eva02', None, dict()),
    'DINOv2 S, merged': ('dinov2', MERGED, dict()),
}
# A standard deviation that neither grows nor shrinks 384 channels.
SIZES = dict(size=224, patch=16, std=0.05)
FORMATS = {
    'ONNX fp32': ('full.onnx', ()),
    'ONNX fp16': ('half.onnx', ('--dtype', 'fp16')),
    'pt2 fp32': ('full.pt2', ()),
}
LIMITS = {'ONNX fp32': 1e-4, 'ONNX fp16': 2e-2, 'pt2 fp32': 1e-4}
# Rounding decides pixels on a border, and nothing else.
PIXELS = 1e-3


def differing(found, sample) -> float:
    """Share of pixels that differ; of instances, of those in any mask."""
    if isinstance(found, np.ndarray):
        expected = sample.sem_seg if 'sem_seg' in sample else sample.data
        return float((found != expected[0].numpy()).mean())
    order = sample.scores.argsort(descending=True, stable=True).numpy()
    expected = sample.masks.numpy()[order]
    assert found.labels.tolist() == sample.labels.numpy()[order].tolist()
    return float((found.masks != expected).sum() / max(1, expected.sum()))


@pytest.mark.campaign
@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
@pytest.mark.parametrize('backbone', BACKBONES)
def test_a_row(tiny, export, predict, real_data, tmp_path, capsys, task, backbone):
    photos = sorted(real_data.glob('*/*/images/validation/*.jpg'))[:3]
    assert photos
    arch, merging, timm_args = BACKBONES[backbone]
    model = tiny(task, arch, merging, **SIZES, timm_args=timm_args)
    cells = []
    for name, (file, options) in FORMATS.items():
        path = tmp_path / file
        worst = max(export(model, path, '--photo', photos[0], *options).values())
        assert worst <= LIMITS[name]
        cells.append(f'{worst:.1e}')
        if path.suffix == '.onnx':
            shares = []
            for photo in photos:
                sample = predict(model.cfg, model.checkpoint, photo)
                result = sample.get(f'pred_{result_name(task)}')
                shares.append(differing(Predictor(path)(photo), result))
            cells.append(f'{max(shares):.1e}')
            if name == 'ONNX fp32':
                assert max(shares) <= PIXELS
    with capsys.disabled():
        print(f'\n| {task} | {backbone} | {" | ".join(cells)} |')


def result_name(task: str) -> str:
    return dict(semantic='sem_seg', panoptic='panoptic_seg', instance='instances')[task]
