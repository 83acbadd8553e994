"""Matching and losses against plain transcriptions of their formulas."""

import itertools
import os
import subprocess
import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models import Criterion, Target
from eomt_mm.models.criterion import sample_points

K, CLASSES, SIZE = 4, 3, 32


def prediction(seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randn(batch, K, CLASSES + 1, generator=generator)
    masks = 3 * torch.randn(batch, K, 8, 8, generator=generator)
    return classes.requires_grad_(), masks.requires_grad_()


def target(*labels, seed=1):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(len(labels), SIZE, SIZE, generator=generator) > 0.5
    return Target(torch.tensor(labels, dtype=torch.int64), masks)


def match(predictions, targets, points=20):
    labels = torch.cat([t.labels for t in targets])
    masks = torch.cat([t.masks for t in targets])[:, None].float()
    counts = [len(t.labels) for t in targets]
    return Criterion(num_points=points).match(predictions, labels, masks, counts)


def test_points_are_read_bilinearly_with_zeros_outside():
    ramp = torch.arange(4.0).view(1, 1, 1, 4)  # value x at pixel centre (x + .5) / 4
    points = torch.tensor([[[0.125, 0.5], [0.25, 0.5], [0.875, 0.5], [1.0, 0.5]]])
    torch.testing.assert_close(
        sample_points(ramp, points)[0, 0], torch.tensor([0.0, 0.5, 3.0, 1.5])
    )


def test_match_is_the_cheapest_of_all_assignments(monkeypatch):
    """Brute force over all assignments, with costs written out pair by pair."""
    (classes, masks), goal = prediction(batch=1), target(2, 0, 2)
    points = torch.rand(1, 50, 2)
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: points)
    (found,) = match([(classes, masks)], [goal], points=50)

    x = sample_points(masks, points)[0]
    t = sample_points(goal.masks[None].float(), points)[0]
    probs = classes[0].softmax(-1)

    def cost(query, wanted):
        bce = F.binary_cross_entropy_with_logits(x[query], t[wanted])
        p = x[query].sigmoid()
        overlap = 2 * (p * t[wanted]).sum() + 1
        dice = 1 - overlap / (p.sum() + t[wanted].sum() + 1)
        return 5 * bce + 5 * dice - 2 * probs[query, goal.labels[wanted]]

    best = min(
        itertools.permutations(range(K), 3),
        key=lambda queries: sum(cost(q, i) for i, q in enumerate(queries)),
    )
    assert found.query.tolist() == list(best)
    assert found.target.tolist() == [0, 1, 2]


def test_each_image_is_matched_at_its_own_points(monkeypatch):
    """Brute force on two images with different points and numbers of targets."""
    classes, masks = prediction()
    goals = [target(1, seed=1), target(2, 0, 2, seed=2)]
    points = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: points)
    (found,) = match([(classes, masks)], goals, points=12)

    def cheapest(image, at, targets_at):
        goal, prob = goals[image], classes[image].softmax(-1)
        costs = torch.zeros(K, len(goal.labels))
        for query, wanted in itertools.product(range(K), range(len(goal.labels))):
            mask, truth = masks[image, query], goal.masks[wanted].float()
            x = sample_points(mask[None, None], points[at, None])
            t = sample_points(truth[None, None], points[targets_at, None])
            p = x.sigmoid()
            bce = F.binary_cross_entropy_with_logits(x, t)
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            costs[query, wanted] = (
                5 * bce + 5 * dice - 2 * prob[query, goal.labels[wanted]]
            )
        return min(
            itertools.permutations(range(K), len(goal.labels)),
            key=lambda queries: sum(costs[q, i] for i, q in enumerate(queries)),
        )

    first, second = cheapest(0, 0, 0), cheapest(1, 1, 1)
    for at in ((0, 0), (0, 1), (1, 0)):
        assert cheapest(1, *at) != second, 'the points do not matter'
    assert found.image.tolist() == [0, 1, 1, 1]
    assert found.query.tolist() == [*first, *second]
    assert found.target.tolist() == [0, 1, 2, 3]


def test_mask_losses_read_each_pair_at_its_own_points(monkeypatch):
    """A plain loop over pairs, with points that differ from pair to pair."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    masks = (torch.rand(3, 1, SIZE, SIZE, generator=generator) > 0.5).float()
    candidates = torch.rand(3, 60, 2, generator=generator)
    uniform = torch.rand(3, 5, 2, generator=generator)
    draws = iter([candidates, uniform])
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: next(draws))
    bce_sum, dice_sum = Criterion(num_points=20)._mask_losses(logits, masks)

    bce, dice = [], []
    for i in range(3):
        sure = sample_points(logits[i, None], candidates[i, None])[0, 0].abs().tolist()
        order = sorted(range(60), key=sure.__getitem__)
        points = torch.cat((candidates[i, order[:15]], uniform[i]))[None]
        x = sample_points(logits[i, None], points)[0, 0]
        t = sample_points(masks[i, None], points)[0, 0]
        p = x.sigmoid()
        bce.append(-(t * p.log() + (1 - t) * (1 - p).log()).mean().item())
        dice.append(1 - (2 * (p * t).sum() + 1).item() / (p.sum() + t.sum() + 1).item())
    assert bce_sum.item() == pytest.approx(sum(bce), rel=1e-5)
    assert dice_sum.item() == pytest.approx(sum(dice), rel=1e-5)


def test_names_and_number_of_losses():
    predictions = [prediction(seed) for seed in range(3)]
    losses = Criterion(num_points=20)(predictions, [target(0), target(1, 2)])
    kinds = ('loss_cls', 'loss_mask', 'loss_dice')
    assert set(losses) == {p + k for p in ('', 'd0.', 'd1.') for k in kinds}


def test_uncertain_points_are_preferred():
    """Only the left half is uncertain: three quarters of the points must lie there."""
    logits = torch.full((1, 1, 8, 8), 10.0)
    logits[..., :4] = 0.0
    points = Criterion(num_points=400)._uncertain_points(logits)
    assert points.shape == (1, 400, 2)
    assert (points[0, :300, 0] < 0.57).all()
    assert (points[0, 300:, 0] > 0.57).any()


def test_more_targets_than_queries():
    losses = Criterion(num_points=20)([prediction()], [target(*[0] * 7), target(1)])
    assert all(loss.isfinite() for loss in losses.values())
    (found,) = match([prediction()], [target(*[0] * 7), target(1)])
    assert found.image.tolist() == [0] * K + [1]
    assert sorted(found.query[:K].tolist()) == list(range(K))
    assert found.target[-1] == 7


@pytest.mark.parametrize('empty', ['one image', 'all images'])
def test_images_without_targets(empty):
    """No target: every query is "no object", and every parameter keeps a gradient."""
    classes, masks = prediction()
    first = target() if empty == 'all images' else target(1)
    losses = Criterion(num_points=20)([(classes, masks)], [first, target()])
    sum(losses.values()).backward()
    assert classes.grad.isfinite().all()
    assert masks.grad is not None
    if empty == 'all images':
        assert losses['loss_mask'] == losses['loss_dice'] == 0
        labels = torch.full((2 * K,), CLASSES)
        expected = 2 * F.cross_entropy(classes.flatten(0, 1), labels)
        assert losses['loss_cls'].item() == pytest.approx(expected.item())


def test_broken_predictions_do_not_stop_the_matching():
    classes, masks = (p.detach() for p in prediction())
    masks[0, 0] = float('nan')
    masks[0, 1] = float('inf')
    (found,) = match([(classes, masks)], [target(0), target(1)])
    assert found.query[0] not in (0, 1)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_fp32_under_autocast(dtype):
    """Logits of half precision, large as mask logits are, and still no overflow."""
    classes, masks = (p.detach() for p in prediction())
    low = [(classes.to(dtype), (masks * 1000).to(dtype))]
    goal = [target(0), target(1, 2)]
    torch.manual_seed(0)
    full = Criterion(num_points=50)([tuple(p.float() for p in low[0])], goal)
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = Criterion(num_points=50)(low, goal)
    for name, loss in full.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(loss.item(), rel=1e-6), name


@pytest.mark.slow
def test_number_of_masks_is_averaged_over_ranks(tmp_path):
    """Two processes with 1 and 3 masks: both divide by 2."""
    code = """
        import sys, torch
        import torch.distributed as dist
        from eomt_mm.models import Criterion, Target
        rank = int(sys.argv[1])
        dist.init_process_group(
            'gloo', init_method='file://' + sys.argv[2], rank=rank, world_size=2)
        torch.manual_seed(0)
        classes, masks = torch.randn(1, 4, 4), torch.randn(1, 4, 8, 8)
        labels = torch.zeros(1 + 2 * rank, dtype=torch.int64)
        goal = [Target(labels, torch.rand(1 + 2 * rank, 32, 32) > .5)]
        torch.manual_seed(0)
        shared = Criterion(num_points=50)([(classes, masks)], goal)['loss_mask']
        dist.destroy_process_group()
        torch.manual_seed(0)
        alone = Criterion(num_points=50)([(classes, masks)], goal)['loss_mask']
        torch.testing.assert_close(shared * 2, alone * len(labels))
    """
    script = tmp_path / 'rank.py'
    script.write_text(textwrap.dedent(code))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = os.environ | {'PYTHONPATH': root, 'OMP_NUM_THREADS': '1'}
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(tmp_path / 'store')], env=env
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
