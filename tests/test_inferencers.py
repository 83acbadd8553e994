"""MM's inferencers with several photos at a time: one pass, the same results."""

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmseg.apis import MMSegInferencer

from tiny_models import make_tiny, suit_inferencers

PHOTOS = [
    np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
    for i, size in enumerate([(48, 64), (90, 40), (64, 64)])
]


@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
def test_photos_of_a_batch_share_a_forward_pass(task, tmp_path, monkeypatch):
    tiny = suit_inferencers(make_tiny(tmp_path, task), task)
    made = MMSegInferencer if task == 'semantic' else DetInferencer
    infer = made(str(tiny.config), str(tiny.checkpoint), device='cpu')
    batches, forward = [], infer.model._forward

    def counted(images, *rest):
        batches.append(len(images))
        return forward(images, *rest)

    monkeypatch.setattr(infer.model, '_forward', counted)

    def results(batch_size):
        found = infer(PHOTOS, batch_size=batch_size, return_datasamples=True)
        samples = found if task == 'semantic' else found['predictions']
        kind = dict(semantic='pred_sem_seg', panoptic='pred_panoptic_seg')
        if task == 'instance':
            return [sample.pred_instances.masks for sample in samples]
        return [next(iter(s.get(kind[task]).values())) for s in samples]

    alone = results(1)
    one_by_one = sum(batches)
    batches.clear()
    together = results(3)
    assert batches == [one_by_one]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
