"""Small Mask2Former heads with parameters that matter, and what they are trained on."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.registry import MODELS
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from eomt_mm.models import Target


def build(config):
    torch.manual_seed(0)
    head = MODELS.build(config)
    for name, parameter in head.named_parameters():
        torch.nn.init.normal_(parameter, std=1.0 if 'query' in name else 0.15)
    return head


def maps(batch=2, levels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, 32, 16 >> i, 16 >> i, generator=generator)
        for i in range(levels)
    )


def targets():
    """Two images of 64 pixels with two and three targets."""
    masks = torch.zeros(5, 64, 64, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[8 * i : 8 * i + 24, 4 * i : 4 * i + 40] = True
    labels = torch.tensor([0, 3, 1, 2, 4])
    return [Target(labels[:2], masks[:2]), Target(labels[2:], masks[2:])]


def detection_samples():
    samples = []
    for target in targets():
        sample = DetDataSample(
            metainfo=dict(img_path='a.jpg', batch_input_shape=(64, 64))
        )
        things = target.labels < 3
        masks = target.masks[things].numpy().astype(np.uint8)
        sample.gt_instances = InstanceData(
            labels=target.labels[things], masks=BitmapMasks(masks, 64, 64)
        )
        stuff = torch.full((1, 64, 64), 255)
        for label, mask in zip(target.labels, target.masks, strict=True):
            if label >= 3:
                stuff[0, mask] = label
        sample.gt_sem_seg = PixelData(sem_seg=stuff)
        samples.append(sample)
    return samples


def semantic_samples():
    samples = []
    for target in targets():
        labels = torch.full((1, 64, 64), 255)
        for label, mask in zip(target.labels, target.masks, strict=True):
            labels[0, mask] = label
        sample = SegDataSample(metainfo=dict(img_path='a.jpg'))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return samples
