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

from .precision import no_autocast

Prediction = tuple[Tensor, Tensor]

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


class Match(NamedTuple):
    """Pairs of query and target, in the order of targets; each field is (pairs,).

    Attributes:
        image (Tensor): Index of the image.
        query (Tensor): Index of the query.
        target (Tensor): Index of the target among those of all images.
    """

    image: Tensor
    query: Tensor
    target: Tensor


@MODELS.register_module()
class Criterion(nn.Module):
    """Hungarian matching, then class, mask and Dice losses.

    Args:
        class_weight (float): Weight of the classification loss and of its matching
            cost. Defaults to 2.
        mask_weight (float): Weight of the binary cross-entropy. Defaults to 5.
        dice_weight (float): Weight of Dice. Defaults to 5.
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
        with no_autocast(predictions[0][1].device):
            labels = torch.cat([target.labels for target in targets])
            masks = torch.cat([target.masks for target in targets])[:, None].float()
            counts = [len(target.labels) for target in targets]
            matches = self.match(predictions, labels, masks, counts)
            # Every prediction matches the same number of pairs: one reduction.
            num_masks = self._num_masks(len(matches[0].query), masks)
            losses = {}
            for i, (prediction, match) in enumerate(
                zip(predictions, matches, strict=True)
            ):
                prefix = '' if i == len(predictions) - 1 else f'd{i}.'
                terms = self._losses(prediction, labels, masks, match, num_masks)
                losses |= {prefix + name: loss for name, loss in terms.items()}
            return losses

    @torch.no_grad()
    def match(
        self,
        predictions: list[Prediction],
        labels: Tensor,
        masks: Tensor,
        counts: list[int],
    ) -> list[Match]:
        """Assign queries to targets at the least total cost.

        All costs are computed first and brought to the host together: one
        synchronisation an iteration.

        Args:
            predictions (list[tuple[Tensor, Tensor]]): See `forward`.
            labels (Tensor): Classes of the targets of all images, shape (N,).
            masks (Tensor): Their masks, shape (N, 1, H, W) fp32.
            counts (list[int]): Number of targets of each image.

        Returns:
            list[Match]: One for each prediction, on its device.
        """
        device = masks.device
        # Images have different numbers of targets. The layout (image, slot), padded to
        # the fullest image, turns all costs into one batched product.
        image = np.repeat(np.arange(len(counts)), counts)
        first = np.cumsum([0, *counts[:-1]])
        slot = np.arange(len(image)) - first[image]
        at = tuple(torch.from_numpy(np.stack((image, slot))).to(device))
        costs = torch.stack(
            [self._cost(p, labels, masks, at, max(counts)) for p in predictions]
        )

        matches = []
        for cost in costs.cpu().numpy():  # (B, K, M)
            pairs = []
            for b, count in enumerate(counts):
                query, wanted = linear_sum_assignment(cost[b, :, :count])
                order = wanted.argsort()
                target = first[b] + wanted[order]
                pairs.append(np.stack((np.full_like(query, b), query[order], target)))
            matches.append(np.concatenate(pairs, axis=1))
        indices = torch.from_numpy(np.stack(matches)).to(device)
        return [Match(*index) for index in indices]

    def _cost(
        self,
        prediction: Prediction,
        labels: Tensor,
        masks: Tensor,
        at: tuple[Tensor, Tensor],
        most: int,
    ) -> Tensor:
        """Cost of each target for each query of its image, (B, K, M).

        `at` are image and slot of each target, `most` is the number M of slots.
        """
        class_logits, mask_logits = prediction
        batch, num_queries = class_logits.shape[:2]
        if most == 0:
            return mask_logits.new_zeros(batch, num_queries, 0, dtype=torch.float32)
        num_points = self.num_points
        points = torch.rand(batch, num_points, 2, device=masks.device)
        x = sample_points(mask_logits.float(), points)  # (B, K, P)
        t = x.new_zeros(batch, most, num_points)  # (B, M, P)
        t[at] = sample_points(masks, points[at[0]])[:, 0]
        wanted = labels.new_zeros(batch, most)
        wanted[at] = labels

        # Mean over points of t * softplus(-x) + (1 - t) * softplus(x), for every
        # pair; softplus(-x) = softplus(x) - x leaves one product.
        mask_cost = F.softplus(x).mean(2, keepdim=True) - (x / num_points) @ t.mT
        prob = x.sigmoid()
        dice_cost = 1 - (2 * prob @ t.mT + 1) / (
            prob.sum(2, keepdim=True) + t.sum(2)[:, None] + 1
        )
        classes = wanted[:, None].expand(-1, num_queries, -1)
        class_cost = -class_logits.float().softmax(-1).gather(2, classes)
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
        labels: Tensor,
        masks: Tensor,
        match: Match,
        num_masks: Tensor | float,
    ) -> dict[str, Tensor]:
        """The three losses of one prediction; targets are those of all images."""
        class_logits, mask_logits = prediction
        class_logits = class_logits.float()
        no_object = class_logits.shape[-1] - 1
        weight = class_logits.new_ones(no_object + 1)
        weight[-1] = self.no_object_weight
        wanted = labels.new_full(class_logits.shape[:2], no_object)
        wanted[match.image, match.query] = labels[match.target]
        loss_cls = F.cross_entropy(class_logits.flatten(0, 1), wanted.flatten(), weight)

        matched = mask_logits[match.image, match.query].float()  # (pairs, h, w)
        if len(matched) == 0:
            # Keeps every parameter in the graph, as distributed training demands.
            loss_mask = loss_dice = matched.sum()
        else:
            if len(matched) < len(masks):  # some image has more targets than queries
                masks = masks[match.target]
            loss_mask, loss_dice = self._mask_losses(matched[:, None], masks)
        return dict(
            loss_cls=self.class_weight * loss_cls,
            loss_mask=self.mask_weight * loss_mask / num_masks,
            loss_dice=self.dice_weight * loss_dice / num_masks,
        )

    def _mask_losses(self, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over pairs; logits (pairs, 1, h, w), masks (pairs, 1, H, W)."""
        with torch.no_grad():
            points = self._uncertain_points(logits)
            t = sample_points(masks, points)[:, 0]  # (pairs, P)
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

    def _num_masks(self, pairs: int, like: Tensor) -> Tensor | float:
        """Matched pairs, averaged over ranks, at least 1."""
        if not dist.is_distributed():
            return max(float(pairs), 1.0)
        mean = torch.tensor(float(pairs), device=like.device)
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
