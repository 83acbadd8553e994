"""Mask2Former heads with masks that can be annealed, against the stock ones."""

from types import SimpleNamespace

import pytest
import torch
from mask2former_parts import build, detection_samples, maps, semantic_samples, targets
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmengine.structures import InstanceData

from eomt_mm.engine import MaskAnnealingHook
from eomt_mm.errors import UserError
from eomt_mm.models import Criterion

HEADS = pytest.mark.parametrize(
    ('ours', 'stock'),
    [
        ('eomt_mm.Mask2FormerHead', 'mmdet.Mask2FormerHead'),
        ('eomt_mm.SemanticMask2FormerHead', 'mmseg.Mask2FormerHead'),
    ],
)


@HEADS
def test_masked_outputs_equal_the_stock_heads(head_config, ours, stock):
    head, reference = build(head_config(ours)), build(head_config(stock))
    assert head.state_dict().keys() == reference.state_dict().keys()
    x = maps()
    with torch.no_grad():
        expected = reference(x, [])
        training = head.train()(x)
        testing = head.eval()(x)
    for theirs, trained, tested in zip(expected, training, testing, strict=True):
        assert len(theirs) == len(trained) == len(tested) == 3 + 1
        for a, b, c in zip(theirs, trained, tested, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
            assert torch.equal(b, c)


def test_the_masks_matter(head_config):
    head, x = build(head_config('eomt_mm.Mask2FormerHead')).eval(), maps()
    with torch.no_grad():
        masked = head.final_prediction(x)[1]
        head.mask_probs = [0.0] * 3
        assert not torch.allclose(masked, head.final_prediction(x)[1], atol=1e-2)


def test_a_free_layer_predicts_nothing_in_testing(head_config):
    head, x = build(head_config('eomt_mm.Mask2FormerHead')), maps()
    head.mask_probs = [0.0, 1.0, 0.0]
    seen = []
    for layer in head.transformer_decoder.layers:
        layer.register_forward_pre_hook(
            lambda *args: seen.append(args[2]['cross_attn_mask']), with_kwargs=True
        )
    with torch.no_grad():
        assert len(head.train()(x)[0]) == 4
        assert len(head.eval()(x)[0]) == 1 + 1
    free = [mask is None for mask in seen]
    assert free == [True, False, True] * 2
    # The middle level has 4 x 4 cells; eight heads look through the same mask.
    assert seen[1].shape == (2 * 8, 6, 16)
    by_head = seen[1].unflatten(0, (2, 8))
    assert torch.equal(by_head, by_head[:, :1].expand_as(by_head))


def test_half_of_the_queries_are_masked(head_config, monkeypatch):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    logits = torch.full((1, 6, 4, 4), -1.0)
    logits[0, :5, 0] = 1.0  # the last query has an empty mask
    draws = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.9, 0.1])[None, :, None]
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: draws)
    closed = head._attention_mask(logits, (4, 4), 0.5)
    masked = torch.arange(16) >= 4  # all but the first row of cells
    for query, expected in enumerate([masked] * 3 + [masked & False] * 3):
        assert torch.equal(closed[0, query], expected), query


def test_without_supervision_in_between_one_prediction_is_left(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead', deep_supervision=False))
    assert head.mask_probs == [0.0] * 3
    assert len(head.train()(maps())[0]) == 1


def same_points(*shape, device=None):
    """A stand-in for torch.rand: the same points for every pair of masks."""
    *_, count, two = shape[0] if isinstance(shape[0], tuple) else shape
    batch = shape[0] if len(shape) == 3 else 1
    generator = torch.Generator().manual_seed(7)
    points = torch.empty(1, count, two).uniform_(generator=generator)
    return points.expand(batch, -1, -1).clone()


def test_losses_are_those_of_eomt(head_config, monkeypatch):
    """All steps of the ladder are trained with one loss, whoever wrote it."""
    head, x = build(head_config('eomt_mm.Mask2FormerHead')).train(), maps()
    monkeypatch.setattr(torch, 'rand', same_points)
    with torch.no_grad():
        predictions = head(x)
        found = [InstanceData(**target._asdict()) for target in targets()]
        ours = head.loss_by_feat(*predictions, found, [{}, {}])
        pairs = list(zip(*predictions, strict=True))
        theirs = Criterion(num_points=64)(pairs, targets())
    assert ours.keys() == theirs.keys()
    for name, loss in ours.items():
        assert loss.item() == pytest.approx(theirs[name].item(), rel=1e-4), name


def test_losses_are_computed_in_single_precision(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    x = [torch.full((1, 6, 6), 1.0), torch.full((1, 6, 16, 16), 6e4)]
    found = [InstanceData(**targets()[0]._asdict())]
    with torch.autocast('cpu', torch.float16):
        losses = head.loss_by_feat(*([t.half()] for t in x), found, [{}])
    assert all(
        loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values()
    )


def loss_of(head, samples):
    # MMSeg hands a train_cfg over as well.
    extra = (None,) if 'Semantic' in type(head).__name__ else ()
    return head.loss(maps(), samples, *extra)


SAMPLES = {
    'eomt_mm.Mask2FormerHead': detection_samples,
    'eomt_mm.SemanticMask2FormerHead': semantic_samples,
}


@pytest.mark.parametrize('kind', SAMPLES)
def test_every_parameter_learns(head_config, kind):
    head = build(head_config(kind)).train()
    losses = loss_of(head, SAMPLES[kind]())
    kinds = ('loss_cls', 'loss_mask', 'loss_dice')
    assert len(losses) == 4 * len(kinds)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('kind', SAMPLES)
def test_images_without_targets(head_config, kind):
    head = build(head_config(kind)).train()
    samples = SAMPLES[kind]()
    for sample in samples:
        if 'gt_instances' in sample:
            sample.gt_instances = sample.gt_instances[:0]
            sample.gt_sem_seg.sem_seg[:] = 255
        else:
            sample.gt_sem_seg.data[:] = 255
    losses = loss_of(head, samples)
    assert losses['loss_mask'] == 0 and losses['loss_cls'] > 0
    sum(losses.values()).backward()


@pytest.mark.parametrize('kind', SAMPLES)
def test_ground_truth_of_a_wrong_class_is_refused(head_config, kind):
    head, samples = build(head_config(kind)), SAMPLES[kind]()
    labels = samples[1].gt_sem_seg
    (labels.sem_seg if 'sem_seg' in labels else labels.data)[0, 0, 0] = 9
    with pytest.raises(UserError, match=r'label 9 in the ground truth of a\.jpg'):
        loss_of(head, samples)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(mask_probs=[1.0]), 'mask_probs has 1 values, expected 3'),
        (dict(mask_probs=[1.0] * 3, deep_supervision=False), 'no predictions to mask'),
        (dict(num_stuff_classes=9), r'class_weight has 6 .*\[1.0\] \* 12 \+ \[0.1\]'),
    ],
)
def test_wrong_arguments_are_explained(head_config, change, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(head_config('eomt_mm.Mask2FormerHead', **change))


def test_annealing_hook_sets_the_probabilities_of_the_layers(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    backbone = SimpleNamespace(mask_probs=[0.0] * 4)
    runner = SimpleNamespace(
        model=SimpleNamespace(panoptic_head=head, backbone=backbone),
        iter=0,
        max_iters=12,
        message_hub=MessageHub('masks'),
    )
    hook = MaskAnnealingHook()
    hook.before_train(runner)
    probs = []
    for runner.iter in range(12):
        hook.before_train_iter(runner, 0)
        probs.append(head.mask_probs)
    assert probs[0] == [1.0] * 3 and probs[-1] == [0.0] * 3
    assert probs[6] == [0.0, pytest.approx(0.5**0.9), 1.0]
    assert runner.message_hub.get_scalar('train/mask_prob_2').current() == 0
    assert backbone.mask_probs == [0.0] * 4
    head.deep_supervision = False
    with pytest.raises(UserError, match='nothing is ever masked'):
        hook.before_train(runner)


def test_one_level_serves_all_layers(head_config):
    """Step (3): masks of the finest map, attention to the map of the ViT alone."""
    config = head_config(
        'eomt_mm.Mask2FormerHead',
        in_channels=[32] * 2,
        num_transformer_feat_level=1,
        pixel_decoder=dict(_delete_=True, type='eomt_mm.LinearPixelDecoder'),
    )
    head = build(config).eval()
    sizes = []
    for layer in head.transformer_decoder.layers:
        layer.register_forward_pre_hook(
            lambda *args: sizes.append(args[2]['key'].shape[1]), with_kwargs=True
        )
    fine, _, coarse, _ = maps()
    _, masks = head.final_prediction((fine, coarse))
    assert masks.shape == (2, 6, 16, 16)
    assert sizes == [16] * 3
