"""The modules that are exported: raw images in, logits and perhaps results out."""

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.models.network import NetworkModel

from .silence import quiet

LOGITS = ['class_logits', 'mask_logits']


class RawNetwork(nn.Module):
    """Backbone and head after the normalisation of the data preprocessor.

    Args:
        model (NetworkModel): An EoMT in evaluation mode.
        reverse (bool): Whether the network was trained on BGR.
    """

    outputs = LOGITS

    def __init__(self, model: NetworkModel, reverse: bool) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.mask_head
        self.reverse, before = reverse, model.data_preprocessor
        self.normalised = before._enable_normalize
        if self.normalised:
            self.register_buffer('mean', before.mean.float())
            self.register_buffer('std', before.std.float())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict.

        Args:
            images (Tensor): RGB from 0 to 255, shape (B, 3, H, W) fp32.

        Returns:
            tuple[Tensor, Tensor]: Class logits (B, K, classes + 1) and mask logits
            (B, K, H / 4, W / 4), both fp32.
        """
        if self.reverse:
            images = images.flip(1)
        if self.normalised:
            images = (images - self.mean) / self.std
        classes, masks = self.head(*self.backbone(images))
        return classes.float(), masks.float()


class SemanticNetwork(RawNetwork):
    """A network that also returns `class_scores`, see `windows.class_map`."""

    outputs = [*LOGITS, 'class_scores']

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict, and also return class scores (B, classes, H, W)."""
        classes, masks = super().forward(images)
        size = self.backbone.img_size
        pixels = F.interpolate(masks, size, mode='bilinear').sigmoid().flatten(2)
        scores = classes.softmax(-1)[..., :-1].mT @ pixels
        return classes, masks, scores.unflatten(2, size)


class SegmentNetwork(RawNetwork):
    """A network that also returns `scores`, `labels` (B, k) and `masks` (B, k, H, W).

    Masks are probabilities, a pixel above 0.5 lies inside. A panoptic query has one
    label, score 0 where that is "no object"; merging the masks is left to the caller.
    Instances are pairs of query and label, their scores times those of their masks,
    and 0 for stuff.

    Args:
        model (NetworkModel): See `RawNetwork`.
        reverse (bool): See `RawNetwork`.
        panoptic (bool): Whether to give segments instead of instances.
        num_things (int): Labels below are things.
        best (int): How many, at most as many as there are.
    """

    outputs = [*LOGITS, 'scores', 'labels', 'masks']

    def __init__(
        self,
        model: NetworkModel,
        reverse: bool,
        panoptic: bool,
        num_things: int,
        best: int,
    ) -> None:
        super().__init__(model, reverse)
        self.panoptic, self.num_things = panoptic, num_things
        queries, labels = self.backbone.num_queries, self.head.num_classes
        self.best = min(best, queries if panoptic else queries * labels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Predict, and also return scores, labels and masks of the best k."""
        classes, masks = super().forward(images)
        shares, num_classes = classes.softmax(-1), self.head.num_classes
        if self.panoptic:
            scores, labels = shares.max(-1)
            scores = scores * (labels != num_classes)
            scores, queries = scores.topk(self.best)
            labels = labels.gather(1, queries)
        else:
            scores, pairs = shares[..., :-1].flatten(1).topk(self.best)
            queries, labels = pairs // num_classes, pairs % num_classes
        places = queries[..., None, None].expand(-1, -1, *masks.shape[2:])
        found = F.interpolate(
            masks.gather(1, places), self.backbone.img_size, mode='bilinear'
        )
        shares = found.sigmoid()
        if not self.panoptic:
            inside = (found > 0).float()
            quality = (shares * inside).sum((2, 3)) / (inside.sum((2, 3)) + 1e-6)
            scores = scores * quality * (labels < self.num_things)
        return classes, masks, scores, labels, shares


def network_for(
    model: NetworkModel, cfg: Config, meta: dict, with_postprocess: bool
) -> RawNetwork:
    """The module to export, in evaluation mode.

    Raises:
        UserError: The best none are asked for.
    """
    before = cfg.model.data_preprocessor
    # Loaders give BGR, and the graph gets RGB.
    reverse = not (before.get('bgr_to_rgb') or before.get('rgb_to_bgr'))
    if not with_postprocess:
        network = RawNetwork(model, reverse)
    elif meta['task'] == 'semantic':
        network = SemanticNetwork(model, reverse)
    else:
        best = int(meta['test']['max_per_image'])
        if best < 1:
            raise UserError(
                '--with-postprocess returns the best max_per_image, and that is '
                f'{best}: --cfg-options model.test_cfg.max_per_image=100'
            )
        network = SegmentNetwork(
            model,
            reverse,
            panoptic=meta['task'] == 'panoptic',
            num_things=meta['num_things'],
            best=best,
        )
    return network.eval()


def program_of(
    network: RawNetwork, images: Tensor, dynamic: bool
) -> torch.export.ExportedProgram:
    """The network as a graph; `dynamic` leaves its number of images open."""
    shapes = {'images': {0: torch.export.Dim('batch', min=1)}} if dynamic else None
    if dynamic:
        # A dimension of 1 would be taken for a constant.
        images = images[:1].expand(2, -1, -1, -1).contiguous()
    with torch.no_grad(), quiet():
        return torch.export.export(network, (images,), dynamic_shapes=shapes)
