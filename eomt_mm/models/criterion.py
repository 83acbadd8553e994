"""Matching and losses of mask classification, as in Mask2Former and EoMT.

Every prediction of the network (one before each of the last blocks, one at the end)
is matched to the targets by itself and supervised alike (arXiv 2503.19108,
Sec. 3.2; arXiv 2112.01527, Sec. 3.3). Masks are compared at sampled points only.
Everything runs in fp32, whatever autocast is on: mask logits are unbounded dot
products and overflow in fp16.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine import dist
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from eomt_mm.registry import MODELS

Prediction = tuple[Tensor, Tensor]
# For one image: matched queries and the targets they got, in order of targets.
Match = tuple[Tensor, Tensor]

# Costs beyond this are as good as infinite, yet scipy can still add them up.
MAX_COST = 1e10


class Target(NamedTuple):
    """What is to be found in one image.

    Attributes:
        labels (Tensor): Class of each of the M targets, shape (M,) int64.
        masks (Tensor): Shape (M, H, W) bool. A pixel in no mask (void, crowd,
            padding) is a negative for every query.
    """

    labels: Tensor
    masks: Tensor


@MODELS.register_module()
class Criterion(nn.Module):
    """Hungarian matching, then class, mask and Dice losses.

    Args:
        class_weight (float): Weight of the classification loss and of its matching
            cost. Defaults to 2.
        mask_weight (float): Same for the binary cross-entropy. Defaults to 5.
        dice_weight (float): Same for Dice. Defaults to 5.
        no_object_weight (float): Weight of the "no object" class in the
            classification loss. Defaults to 0.1.
        num_points (int): Points per mask, for matching and for the losses. Defaults
            to 12544, which is 112 x 112.
        oversample_ratio (float): The losses draw this many times `num_points`
            candidates and keep the most uncertain. Defaults to 3.
        importance_ratio (float): Share of the points that is chosen by uncertainty;
            the rest is uniform. Defaults to 0.75.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.class_weight = class_weight
        self.mask_weight = mask_weight
        self.dice_weight = dice_weight
        self.no_object_weight = no_object_weight
        self.num_points = num_points
        self.num_candidates = int(num_points * oversample_ratio)
        self.num_uncertain = int(num_points * importance_ratio)

    def forward(
        self, predictions: list[Prediction], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Compute all losses.

        Args:
            predictions (list[tuple[Tensor, Tensor]]): Class logits (B, K,
                classes + 1) and mask logits (B, K, h, w), the final prediction last.
            targets (list[Target]): One for each of the B images.

        Returns:
            dict[str, Tensor]: `loss_cls`, `loss_mask`, `loss_dice` of the final
            prediction, and the same with the prefix `d{i}.` for the i-th of the
            others.
        """
        with torch.autocast(predictions[0][1].device.type, enabled=False):
            matches = self.match(predictions, targets)
            # Every prediction matches the same number of pairs: one reduction.
            num_masks = self._num_masks(matches[0], predictions[0][1])
            masks = torch.cat([target.masks for target in targets]).float()
            losses = {}
            for i, (prediction, match) in enumerate(
                zip(predictions, matches, strict=True)
            ):
                prefix = '' if i == len(predictions) - 1 else f'd{i}.'
                for name, loss in self._losses(
                    prediction, targets, match, masks, num_masks
                ).items():
                    losses[prefix + name] = loss
            return losses

    @torch.no_grad()
    def match(
        self, predictions: list[Prediction], targets: list[Target]
    ) -> list[list[Match]]:
        """Assign queries to targets at the least total cost.

        All costs are computed first and brought to the host together: one
        synchronisation an iteration.

        Args:
            predictions (list[tuple[Tensor, Tensor]]): As in `forward`.
            targets (list[Target]): As in `forward`.

        Returns:
            list[list[tuple[Tensor, Tensor]]]: For each prediction and image, the
            matched query indices and target indices, in order of targets, on the
            predictions' device.
        """
        costs = [
            self._cost(class_logits[b].float(), mask_logits[b].float(), target)
            for class_logits, mask_logits in predictions
            for b, target in enumerate(targets)
        ]
        on_host = torch.cat([cost.flatten() for cost in costs]).cpu()
        on_host = on_host.split([cost.numel() for cost in costs])
        pairs = [
            _assign(host.view(cost.shape))
            for host, cost in zip(on_host, costs, strict=True)
        ]
        # Back in one transfer, too.
        packed = torch.from_numpy(np.hstack(pairs)).to(costs[0].device)
        matches = list(packed.split([queries.size for queries, _ in pairs], dim=1))
        return [
            [(m[0], m[1]) for m in matches[i : i + len(targets)]]
            for i in range(0, len(matches), len(targets))
        ]

    def _cost(
        self, class_logits: Tensor, mask_logits: Tensor, target: Target
    ) -> Tensor:
        """Cost of giving each target to each query of one image, (K, M)."""
        points = torch.rand(1, self.num_points, 2, device=mask_logits.device)
        x = sample_points(mask_logits[None], points)[0]  # (K, P)
        t = sample_points(target.masks[None].float(), points)[0]  # (M, P)

        # Mean over points of t * softplus(-x) + (1 - t) * softplus(x), for every
        # pair; softplus(-x) = softplus(x) - x leaves one product.
        p = self.num_points
        mask_cost = F.softplus(x).sum(1, keepdim=True) / p - (x / p) @ t.T
        prob = x.sigmoid()
        dice_cost = 1 - (2 * prob @ t.T + 1) / (
            prob.sum(1, keepdim=True) + t.sum(1) + 1
        )
        class_cost = -class_logits.softmax(-1)[:, target.labels]
        cost = (
            self.mask_weight * mask_cost
            + self.class_weight * class_cost
            + self.dice_weight * dice_cost
        )
        # A broken prediction is matched last, not first.
        return cost.nan_to_num(nan=MAX_COST).clamp(-MAX_COST, MAX_COST)

    def _losses(
        self,
        prediction: Prediction,
        targets: list[Target],
        match: list[Match],
        masks: Tensor,
        num_masks: Tensor | float,
    ) -> dict[str, Tensor]:
        """The three losses of one prediction; `masks` are those of all images."""
        class_logits, mask_logits = prediction
        no_object = class_logits.shape[-1] - 1
        weight = class_logits.new_ones(no_object + 1, dtype=torch.float32)
        weight[-1] = self.no_object_weight
        labels = torch.full(class_logits.shape[:2], no_object, device=weight.device)
        for b, (queries, wanted) in enumerate(match):
            labels[b, queries] = targets[b].labels[wanted]
        loss_cls = F.cross_entropy(
            class_logits.float().flatten(0, 1), labels.flatten(), weight
        )

        matched = torch.cat(
            [mask_logits[b, queries] for b, (queries, _) in enumerate(match)]
        ).float()  # (pairs, h, w)
        if len(matched) == 0:
            # Keeps every parameter in the graph, as distributed training demands.
            loss_mask = loss_dice = matched.sum()
        else:
            if len(matched) < len(masks):  # some image has more targets than queries
                masks = masks[_matched_targets(targets, match)]
            loss_mask, loss_dice = self._mask_losses(matched, masks)
        return dict(
            loss_cls=self.class_weight * loss_cls,
            loss_mask=self.mask_weight * loss_mask / num_masks,
            loss_dice=self.dice_weight * loss_dice / num_masks,
        )

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over pairs; logits (pairs, h, w), masks (pairs, H, W)."""
        logits = logits[:, None]
        with torch.no_grad():
            points = self._uncertain_points(logits)
            t = sample_points(masks[:, None], points)[:, 0]
        x = sample_points(logits, points)[:, 0]  # (pairs, P)
        bce = F.binary_cross_entropy_with_logits(x, t, reduction='none').mean(1)
        prob = x.sigmoid()
        dice = 1 - (2 * (prob * t).sum(1) + 1) / (prob.sum(1) + t.sum(1) + 1)
        return bce.sum(), dice.sum()

    def _uncertain_points(self, logits: Tensor) -> Tensor:
        """Points where the masks are least sure, and some uniform ones.

        Args:
            logits (Tensor): Shape (pairs, 1, h, w).

        Returns:
            Tensor: Shape (pairs, P, 2) in [0, 1], x before y.
        """
        candidates = torch.rand(
            len(logits), self.num_candidates, 2, device=logits.device
        )
        certainty = sample_points(logits, candidates)[:, 0].abs()
        chosen = certainty.topk(self.num_uncertain, dim=1, largest=False).indices
        uniform = torch.rand(
            len(logits), self.num_points - self.num_uncertain, 2, device=logits.device
        )
        kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
        return torch.cat((kept, uniform), dim=1)

    def _num_masks(self, match: list[Match], like: Tensor) -> Tensor | float:
        """Matched pairs, averaged over ranks, at least 1."""
        count = float(sum(len(queries) for queries, _ in match))
        if not dist.is_distributed():
            return max(count, 1.0)
        mean = torch.tensor(count, device=like.device)
        dist.all_reduce(mean, op='mean')
        return mean.clamp(min=1)


def sample_points(maps: Tensor, points: Tensor) -> Tensor:
    """Read maps at points, bilinearly, with zeros outside.

    Args:
        maps (Tensor): Shape (B, C, H, W).
        points (Tensor): Shape (B, P, 2) in [0, 1], x before y.

    Returns:
        Tensor: Shape (B, C, P).
    """
    grid = 2 * points[:, :, None] - 1  # (B, P, 1, 2)
    return F.grid_sample(maps, grid, align_corners=False)[..., 0]


def _assign(cost: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian assignment of a (K, M) cost matrix, in order of targets."""
    queries, wanted = linear_sum_assignment(cost.numpy())
    order = wanted.argsort()
    return queries[order], wanted[order]


def _matched_targets(targets: list[Target], match: list[Match]) -> Tensor:
    """Indices of the matched targets among those of all images."""
    sizes = [len(target.labels) for target in targets]
    offsets = [sum(sizes[:b]) for b in range(len(sizes))]
    return torch.cat(
        [wanted + start for start, (_, wanted) in zip(offsets, match, strict=True)]
    )
