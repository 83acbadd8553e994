"""Made-up inputs: networks with random weights, photographs, plausible logits."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from eomt_mm.models import MaskHead, QueryViT, Target

Network = tuple[QueryViT, MaskHead]

CLASSES, THINGS = 133, 80  # COCO panoptic

# Models of the paper (arXiv 2503.19108, Sec. 4.1): timm's name, last blocks that carry
# queries. T is none of them: it is there to try a command in seconds.
_DINOV2 = 'vit_{}_patch14_reg4_dinov2'
SIZES = {
    'S': (_DINOV2.format('small'), 3, {}),
    'B': (_DINOV2.format('base'), 3, {}),
    'L': (_DINOV2.format('large'), 4, {}),
    'g': (_DINOV2.format('giant'), 5, {}),
    'T': (_DINOV2.format('small'), 2, dict(embed_dim=64, depth=4, num_heads=4)),
}
# As in a trained model every block counts; timm starts DINOv2's at 1e-5.
LAYER_SCALE = 0.1


def build_network(size: str, image_size: int, queries: int) -> Network:
    """Build the network with random weights, the same every time.

    Args:
        size (str): One of `SIZES`.
        image_size (int): Side of the input in pixels.
        queries (int): Number of queries.

    Returns:
        tuple[QueryViT, MaskHead]: The network in evaluation mode, on the default
        device.
    """
    arch, blocks, timm_args = SIZES[size]
    torch.manual_seed(0)
    backbone = QueryViT(
        arch,
        image_size,
        num_queries=queries,
        num_blocks=blocks,
        pretrained=False,
        timm_args=timm_args,
    )
    head = MaskHead(backbone.embed_dims, CLASSES)
    for name, parameter in backbone.named_parameters():
        if name.endswith('gamma'):
            torch.nn.init.constant_(parameter, LAYER_SCALE)
    return backbone.eval(), head.eval()


@functools.lru_cache(maxsize=1)
def shared_network(
    size: str, image_size: int, queries: int, kept: int, device: torch.device
) -> Network:
    """Build the network once for all contenders that do not change it.

    Its class head is sure of some queries of the first of `photographs`: with random
    weights no query would be kept, and post-processing would have no work.

    Args:
        size (str): One of `SIZES`.
        image_size (int): Side of the input in pixels.
        queries (int): Number of queries.
        kept (int): Queries whose class is sure.
        device (torch.device): Device of the network.

    Returns:
        tuple[QueryViT, MaskHead]: The network in evaluation mode.
    """
    backbone, head = build_network(size, image_size, queries)
    backbone, head = backbone.to(device), head.to(device)
    fit_class_head(backbone, head, photographs(1, image_size).to(device), kept)
    return backbone, head


@torch.no_grad()
def fit_class_head(
    backbone: QueryViT, head: MaskHead, images: Tensor, kept: int
) -> None:
    """Make a head sure of some queries of an image, as training would.

    Args:
        backbone (QueryViT): The backbone, unchanged.
        head (MaskHead): The head, whose class layer is set to the least-squares fit.
        images (Tensor): Normalised images, shape (1, 3, H, W).
        kept (int): Queries whose class is sure; the others are "no object".
    """
    tokens, _ = backbone(images)
    wanted = class_logits(tokens.shape[1], kept, head.num_classes)
    known = F.pad(tokens[0].cpu(), (0, 1), value=1.0).double()  # 1 for the bias
    # A little regularised: the exact fit would hang on the last digit of each token.
    gram = known @ known.T
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = (known.T @ torch.linalg.solve(gram, wanted.double())).float()
    head.class_head.weight.copy_(weights[:-1].T)
    head.class_head.bias.copy_(weights[-1])


def class_logits(queries: int, kept: int, classes: int = CLASSES) -> Tensor:
    """Make logits (K, classes + 1); `kept` of the queries are sure of a class."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(queries, classes + 1, generator=generator) / 2
    logits[:, -1] += 8
    sure = torch.randperm(queries, generator=generator)[:kept]
    logits[sure, -1] -= 8
    some = torch.randint(classes, (len(sure),), generator=generator)
    logits[sure, some] += 9
    return logits


def mask_logits(queries: int, side: int) -> Tensor:
    """Make logits (K, side, side) of round, noisy masks."""
    generator = torch.Generator().manual_seed(1)
    centre = torch.rand(queries, 2, 1, 1, generator=generator) * side
    radius = (0.05 + 0.2 * torch.rand(queries, 1, 1, generator=generator)) * side
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
    distance = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt()
    noise = torch.randn(queries, side, side, generator=generator)
    return 1.5 * (radius - distance) + 0.3 * noise


def photographs(batch: int, side: int) -> Tensor:
    """Make normalised images (B, 3, side, side): smooth colours with some grain."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(batch, 3, 8, 8, generator=generator)
    smooth = F.interpolate(coarse, (side, side), mode='bicubic')
    return smooth + 0.1 * torch.randn(smooth.shape, generator=generator)


def targets(
    batch: int, side: int, device: torch.device, count: int = 12
) -> list[Target]:
    """Make ground truth for a training step: rectangles of some classes."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(batch):
        masks = torch.zeros(count, side, side, dtype=torch.bool)
        corners = torch.randint(side // 2, (count, 2), generator=generator).tolist()
        sides = torch.randint(side // 8, side // 2, (count, 2), generator=generator)
        for mask, (top, left), (h, w) in zip(
            masks, corners, sides.tolist(), strict=True
        ):
            mask[top : top + h, left : left + w] = True
        labels = torch.randint(CLASSES, (count,), generator=generator)
        found.append(Target(labels.to(device), masks.to(device)))
    return found
