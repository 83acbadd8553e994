"""The network and its loss against Hugging Face's EoMT, with the same weights."""

import copy

import pytest
import torch
from reference import fixed_rand, tiny_dinov3_pair, tiny_pair, to_reference

from eomt_mm.models import Criterion, Target
from eomt_mm.models.network import Network


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def random_targets(num_images=2, num_labels=5, size=64):
    generator = torch.Generator().manual_seed(3)
    targets = []
    for count in range(1, num_images + 1):
        small = torch.rand(count + 1, 8, 8, generator=generator) > 0.6
        masks = small.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
        labels = torch.randint(num_labels, (count + 1,), generator=generator)
        targets.append(Target(labels, masks))
    return targets


def losses_of(backbone, head, images, targets, points=128):
    predictions = backbone.forward_masked(images, head)
    return Criterion(num_points=points)(predictions, targets)


def reference_losses(reference, images, targets):
    return reference(
        pixel_values=images,
        mask_labels=[t.masks.float() for t in targets],
        class_labels=[t.labels for t in targets],
    )


@pytest.mark.parametrize('swiglu', [False, True])
def test_unmasked_outputs_equal(swiglu):
    backbone, head, reference = tiny_pair(swiglu)
    images = torch.randn(2, 3, 64, 64)
    reference.eval()
    reference.attn_mask_probs.zero_()
    with torch.no_grad():
        classes, masks = head(*backbone(images))
        theirs = reference(pixel_values=images)
    assert relative(classes, theirs.class_queries_logits) < 1e-5
    assert relative(masks, theirs.masks_queries_logits) < 1e-5


@pytest.mark.parametrize('swiglu', [False, True])
def test_masked_outputs_equal(swiglu):
    backbone, head, reference = tiny_pair(swiglu)
    images = torch.randn(2, 3, 64, 64)
    backbone.mask_probs = [1.0, 1.0]
    with torch.no_grad():
        classes, masks = backbone.forward_masked(images, head)[-1]
        theirs = reference(pixel_values=images)
        plain = head(*backbone(images))[1]
    assert relative(classes, theirs.class_queries_logits) < 1e-4
    assert relative(masks, theirs.masks_queries_logits) < 1e-4
    assert relative(plain, theirs.masks_queries_logits) > 1e-3, 'masks had no effect'


@pytest.mark.parametrize('probs', [[0.0, 0.0], [1.0, 1.0]])
def test_outputs_of_dinov3_equal(probs):
    backbone, head, reference = tiny_dinov3_pair()
    images = torch.randn(2, 3, 64, 64)
    backbone.mask_probs = probs
    reference.attn_mask_probs.copy_(torch.tensor(probs))
    with torch.no_grad():
        classes, masks = Network(backbone, head)(images)
        theirs = reference(pixel_values=images)
        plain = head(*backbone(images))[1]
    bound = 1e-4 if any(probs) else 1e-5
    assert relative(classes, theirs.class_queries_logits) < bound
    assert relative(masks, theirs.masks_queries_logits) < bound
    effect = relative(plain, theirs.masks_queries_logits)
    assert effect > 1e-3 if any(probs) else effect < bound


def test_partly_masked_outputs_equal(monkeypatch):
    backbone, head, reference = tiny_pair()
    images = torch.randn(3, 3, 64, 64)
    backbone.mask_probs = [0.5, 0.25]
    reference.attn_mask_probs.copy_(torch.tensor([0.5, 0.25]))
    monkeypatch.setattr(torch, 'rand', fixed_rand)
    with torch.no_grad():
        _, masks = backbone.forward_masked(images, head)[-1]
        theirs = reference(pixel_values=images)
        backbone.mask_probs = [1.0, 1.0]
        _, fully = backbone.forward_masked(images, head)[-1]
    assert relative(masks, theirs.masks_queries_logits) < 1e-4
    assert relative(fully, theirs.masks_queries_logits) > 1e-3, 'nothing was freed'


@pytest.fixture
def float64(monkeypatch):
    """Whatever asks for single precision gets double, so that noise is tiny."""
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.slow
def test_outputs_of_200_queries_equal():
    backbone, head, reference = tiny_pair(num_queries=200, img_size=160)
    images = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        for probs in ([1.0, 1.0], [0.0, 0.0]):
            backbone.mask_probs = probs
            reference.attn_mask_probs.copy_(torch.tensor(probs))
            classes, masks = backbone.forward_masked(images, head)[-1]
            theirs = reference(pixel_values=images)
            assert relative(classes, theirs.class_queries_logits) < 1e-4
            assert relative(masks, theirs.masks_queries_logits) < 1e-4


@pytest.mark.usefixtures('float64')
def test_losses_and_gradients_equal(monkeypatch):
    backbone, head, reference = tiny_pair()
    images, targets = torch.randn(2, 3, 64, 64), random_targets()
    backbone.mask_probs = [1.0, 1.0]
    monkeypatch.setattr(torch, 'rand', fixed_rand)
    ours = losses_of(backbone, head, images, targets)
    theirs = reference_losses(reference, images, targets)
    total = sum(ours.values())
    assert total.dtype == theirs.loss.dtype == torch.float64
    assert total.item() == pytest.approx(theirs.loss.item(), rel=1e-10)

    total.backward()
    theirs.loss.backward()
    grads = dict(reference.named_parameters())
    for name, grad in to_reference(backbone, head, grad=True).items():
        if grads[name].grad.abs().max() > 1e-12:  # the key bias has none but noise
            assert relative(grad, grads[name].grad) < 1e-8, name


def test_each_loss_equal(monkeypatch):
    """Every loss of every prediction, not only their sum."""
    backbone, head, reference = tiny_pair()
    images, targets = torch.randn(2, 3, 64, 64), random_targets()
    backbone.mask_probs = [1.0, 1.0]
    monkeypatch.setattr(torch, 'rand', fixed_rand)
    with torch.no_grad():
        predictions = backbone.forward_masked(images, head)
        ours = Criterion(num_points=128)(predictions, targets)
    weights = dict(cross_entropy=2.0, mask=5.0, dice=5.0)
    for i, (classes, masks) in enumerate(predictions):
        theirs = reference.criterion(
            masks,
            classes,
            [t.masks.float() for t in targets],
            [t.labels for t in targets],
        )
        prefix = '' if i == 2 else f'd{i}.'
        for theirs_name, ours_name in zip(
            weights, ('cls', 'mask', 'dice'), strict=True
        ):
            expected = theirs[f'loss_{theirs_name}'].item() * weights[theirs_name]
            got = ours[f'{prefix}loss_{ours_name}'].item()
            assert got == pytest.approx(expected, rel=1e-5), (i, ours_name)


def test_one_optimiser_step_equal(monkeypatch):
    """The whole training step: loss, clipping, weight decay, then outputs once more."""
    backbone, head, reference = tiny_pair()
    images, targets = torch.randn(2, 3, 64, 64), random_targets()
    backbone.mask_probs = [1.0, 1.0]
    with monkeypatch.context() as patch:
        patch.setattr(torch, 'rand', fixed_rand)
        sum(losses_of(backbone, head, images, targets).values()).backward()
        reference_losses(reference, images, targets).loss.backward()
    parameters = [*backbone.parameters(), *head.parameters()]
    theirs = list(reference.parameters())
    for group in (parameters, theirs):
        torch.nn.utils.clip_grad_norm_(group, 0.01)
        # SGD: Adam would blow the noise of near-zero gradients up to full steps.
        torch.optim.SGD(group, lr=1.0, weight_decay=0.05).step()
    with torch.no_grad():
        _, masks = head(*copy.deepcopy(backbone)(images))
        reference.eval()
        reference.attn_mask_probs.zero_()
        expected = reference(pixel_values=images).masks_queries_logits
    assert relative(masks, expected) < 1e-4
