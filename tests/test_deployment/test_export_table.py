"""Every task, backbone and format of the export at the size of ViT-S, as a table."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from eomt_mm.deploy import Predictor
from measuring.inference import load_model, photo_info, photo_pipeline, windows_of

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


@torch.no_grad()
def vary(model: SimpleNamespace, photo) -> None:
    """Centre classes and masks on a photo, or all pictures are of one class."""
    built = load_model(model.cfg, str(model.checkpoint), torch.device('cpu'))
    head, seen = built.mask_head, []
    head.mask_product.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    batch = pseudo_collate([photo_pipeline(model.cfg)(photo_info(str(photo)))])
    classes, _ = built.network(windows_of(built, batch))
    classes = classes.flatten(0, 1)
    scale = 2 / classes.std(0)
    head.class_head.weight *= scale[:, None]
    head.class_head.bias.sub_(classes.mean(0)).mul_(scale)
    ((embeddings, features),) = seen
    mean = features.mean((0, 2, 3))
    mean /= mean.norm()
    last = head.mask_mlp[4]
    last.weight -= mean.outer(mean @ last.weight)
    last.bias -= mean * (mean @ last.bias)
    masks = (embeddings - (embeddings @ mean)[..., None] * mean) @ features.flatten(2)
    last.weight *= 3 / masks.std()
    last.bias *= 3 / masks.std()
    torch.save({'state_dict': built.state_dict(), 'meta': {}}, model.checkpoint)


def variety(task: str, results: list) -> int:
    """Number of classes, of segments, or of instances that are a part of the photo."""
    if task == 'instance':
        shares = torch.cat([r.masks.float().mean((1, 2)) for r in results])
        return int(((shares > 0.01) & (shares < 0.99)).sum())
    maps = [r.sem_seg if 'sem_seg' in r else r.data for r in results]
    return len(torch.cat([one.flatten() for one in maps]).unique())


def differing(found, sample) -> float:
    """Share of pixels that differ; of instances, of those in any mask."""
    if isinstance(found, np.ndarray):
        expected = sample.sem_seg if 'sem_seg' in sample else sample.data
        return float((found != expected[0].numpy()).mean())
    masks, labels = sample.masks.numpy(), sample.labels.numpy()
    assert sorted(found.labels.tolist()) == sorted(labels.tolist())
    # Rounding swaps scores that are nearly equal: the nearest of the same label counts.
    wrong = sum(
        (masks[labels == label] != mask).sum((1, 2)).min()
        for label, mask in zip(found.labels, found.masks, strict=True)
    )
    return float(wrong / max(1, masks.sum()))


@pytest.mark.campaign
@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
@pytest.mark.parametrize('backbone', BACKBONES)
def test_a_row(tiny, export, predict, real_data, tmp_path, capsys, task, backbone):
    photos = sorted(real_data.glob('*/*/images/validation/*.jpg'))[:3]
    assert photos
    arch, merging, timm_args = BACKBONES[backbone]
    model = tiny(task, arch, merging, **SIZES, timm_args=timm_args)
    vary(model, photos[0])
    expected = [predict(model.cfg, model.checkpoint, photo) for photo in photos]
    expected = [sample.get(f'pred_{result_name(task)}') for sample in expected]
    assert variety(task, expected) > 1, 'pictures of nothing cannot differ'
    cells = []
    for name, (file, options) in FORMATS.items():
        path = tmp_path / file
        worst = max(export(model, path, '--photo', photos[0], *options).values())
        assert worst <= LIMITS[name]
        cells.append(f'{worst:.1e}')
        if path.suffix == '.onnx':
            shares = [
                differing(Predictor(path)(photo), result)
                for photo, result in zip(photos, expected, strict=True)
            ]
            cells.append(f'{max(shares):.1e}')
            if name == 'ONNX fp32':
                assert max(shares) <= PIXELS
    with capsys.disabled():
        print(f'\n| {task} | {backbone} | {" | ".join(cells)} |')


def result_name(task: str) -> str:
    return dict(semantic='sem_seg', panoptic='panoptic_seg', instance='instances')[task]
