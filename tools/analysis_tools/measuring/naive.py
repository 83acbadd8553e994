"""EoMT without any optimisation, to measure against.

Parameters and results are the same. It expands a full N x N mask over the heads in
every block that can be masked, and resizes every mask to the size of the image before
it selects any, as the reference code and the frameworks' own heads do.
"""

import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import Tensor, nn

from eomt_mm.models import MaskHead, QueryViT
from eomt_mm.models.postprocess import INSTANCE_OFFSET, Instances, Size


class NaiveEoMT(nn.Module):
    """The network, on this package's modules.

    Args:
        backbone (QueryViT): A backbone of timm's `VisionTransformer` family.
        head (MaskHead): Its head.
    """

    def __init__(self, backbone: QueryViT, head: MaskHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits and mask logits, without masks."""
        return self._run(images, masked=False)[-1]

    def forward_masked(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return all predictions, with masks at the backbone's `mask_probs`."""
        return self._run(images, masked=True)

    def _run(self, images: Tensor, masked: bool) -> list[tuple[Tensor, Tensor]]:
        vit, predictions, mask = self.backbone, [], None
        first = vit.depth - vit.num_blocks
        x = vit.patch_embed(images) + vit.pos_embed
        prefix = [t.expand(len(x), -1, -1) for t in (vit.cls_token, vit.reg_token)]
        x = torch.cat((*prefix, x), dim=1)
        for i, block in enumerate(vit.blocks):
            if i == first:
                x = torch.cat((vit.queries.expand(len(x), -1, -1), x), dim=1)
            if i >= first and masked:
                predictions.append(self._predict(x))
                mask = self._mask(x, predictions[-1][1], vit.mask_probs[i - first])
            x = x + block.ls1(Attention.forward(block.attn, block.norm1(x), mask))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return [*predictions, self._predict(x)]

    def _predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vit, head = self.backbone, self.head
        x = vit.norm(x)
        queries = x[:, : vit.num_queries]
        patches = x[:, vit.num_queries + vit.num_prefix_tokens :]
        patches = patches.transpose(1, 2).unflatten(2, vit.grid)
        masks = torch.einsum(
            'bqc,bchw->bqhw', head.mask_mlp(queries), head.upscale(patches)
        )
        return head.class_head(queries), masks

    def _mask(self, x: Tensor, mask_logits: Tensor, prob: float) -> Tensor:
        """Return the tokens that each token may attend to, (B, heads, N, N)."""
        vit = self.backbone
        batch, tokens, _ = x.shape
        queries, patches = vit.num_queries, vit.num_queries + vit.num_prefix_tokens
        mask = torch.ones(batch, tokens, tokens, dtype=torch.bool, device=x.device)
        small = F.interpolate(mask_logits, vit.grid, mode='bilinear').flatten(2)
        mask[:, :queries, patches:] = small > 0
        if prob == 0:  # draws nothing, as `QueryViT`: the loss draws its points
            mask[:] = True
        elif prob < 1:
            free = torch.rand(batch, queries, 1, device=x.device) > prob
            mask[:, :queries, patches:] |= free
        return mask[:, None].expand(-1, vit.blocks[0].attn.num_heads, -1, -1)


def naive_panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    score_thr: float = 0.8,
    overlap_thr: float = 0.8,
) -> Tensor:
    """See `eomt_mm.models.postprocess.panoptic_result`."""
    num_classes = class_logits.shape[1] - 1
    masks = _all_resized(mask_logits, img_shape, input_size, ori_shape).sigmoid()
    scores, labels = class_logits.float().softmax(-1).max(-1)
    keep = (labels != num_classes) & (scores > score_thr)
    masks, scores, labels = masks[keep], scores[keep], labels[keep]
    result = torch.full(ori_shape, num_classes, device=mask_logits.device)
    if len(masks) == 0:
        return result
    owner = (scores[:, None, None] * masks).argmax(0)
    instance = 0
    for k, label in enumerate(labels.tolist()):
        owned, inside = owner == k, masks[k] >= 0.5
        areas = [int(region.sum()) for region in (owned, inside, owned & inside)]
        if 0 in areas or areas[0] / areas[1] < overlap_thr:
            continue
        if label < num_things:
            instance += 1
            label += instance * INSTANCE_OFFSET
        result[owned & inside] = label
    return result


def naive_instances(
    class_logits: Tensor,
    mask_logits: Tensor,
    img_shape: Size,
    input_size: Size,
    ori_shape: Size,
    num_things: int,
    max_per_image: int = 100,
) -> Instances:
    """See `eomt_mm.models.postprocess.instance_result`."""
    num_classes = class_logits.shape[1] - 1
    logits = _all_resized(mask_logits, img_shape, input_size, ori_shape)
    scores = class_logits.float().softmax(-1)[:, :-1].flatten()
    scores, pairs = scores.topk(min(max_per_image, len(scores)), sorted=False)
    is_thing = pairs % num_classes < num_things
    scores, pairs = scores[is_thing], pairs[is_thing]
    logits = logits[pairs // num_classes]
    masks = logits > 0
    quality = (logits.sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
    boxes = scores.new_zeros(len(scores), 4)
    for box, mask in zip(boxes, masks, strict=True):
        y, x = mask.nonzero(as_tuple=True)
        if len(x):
            box[:] = torch.stack((x.min(), y.min(), x.max() + 1, y.max() + 1))
    return Instances(pairs % num_classes, scores * quality, masks, boxes)


def naive_semantic(
    class_logits: Tensor, mask_logits: Tensor, input_size: Size, ori_shape: Size
) -> Tensor:
    """Return the class of every pixel, shape (H, W), from one window."""
    masks = F.interpolate(mask_logits[None].float(), input_size, mode='bilinear')[0]
    scores = class_logits.float().softmax(-1)[:, :-1]
    maps = torch.einsum('qc,qhw->chw', scores, masks.sigmoid())
    return F.interpolate(maps[None], ori_shape, mode='bilinear')[0].argmax(0)


def _all_resized(
    mask_logits: Tensor, img_shape: Size, input_size: Size, ori_shape: Size
) -> Tensor:
    height, width = img_shape
    masks = F.interpolate(mask_logits[None].float(), input_size, mode='bilinear')
    masks = masks[..., :height, :width]
    return F.interpolate(masks, ori_shape, mode='bilinear')[0]
