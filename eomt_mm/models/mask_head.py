"""The mask head: from tokens to class logits and mask logits.

EoMT's small mask module (arXiv 2503.19108, Sec. 3.1): a linear layer classifies
each query, a three-layer MLP turns it into a mask embedding, and the dot product
of that embedding with the upscaled patch features is the mask.
"""

import math

from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .backbone_sizes import FollowsBackbone
from .precision import no_autocast

# Stride 4, as in Mask2Former, where the patch size allows it; there is always one
# block, as in the reference.
MASK_STRIDE = 4


def num_upscale_blocks(patch_size: int) -> int:
    """Count the doublings from the patch grid to stride 4; at least one.

    Args:
        patch_size (int): Side of a patch in pixels.

    Returns:
        int: 2 for patches of 16, 1 for 14, 8 and 4.
    """
    return max(1, int(math.log2(patch_size / MASK_STRIDE)))


class ScaleBlock(nn.Module):
    """A block that doubles the resolution of a feature map, or halves it.

    Args:
        dims (int): Number of channels, in and out.
        down (bool): Whether to halve. Defaults to False.
    """

    def __init__(self, dims: int, down: bool = False) -> None:
        super().__init__()
        conv = nn.Conv2d if down else nn.ConvTranspose2d
        self.conv1 = conv(dims, dims, kernel_size=2, stride=2)
        self.act = nn.GELU()
        # Depthwise, no bias: the norm after it has one.
        self.conv2 = nn.Conv2d(dims, dims, 3, padding=1, groups=dims, bias=False)
        self.norm = LayerNorm2d(dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2h, 2w), or to (B, C, h / 2, w / 2)."""
        return self.norm(self.conv2(self.act(self.conv1(x))))


class MaskProduct(nn.Module):
    """The last step of a mask: dot products of queries and pixels."""

    def forward(self, embeddings: Tensor, features: Tensor) -> Tensor:
        """Map embeddings (B, K, C) and features (B, C, H, W) to (B, K, H, W)."""
        masks = embeddings @ features.flatten(2)  # (B, K, H * W)
        return masks.unflatten(2, features.shape[2:])


@MODELS.register_module()
class MaskHead(FollowsBackbone, BaseModule):
    """The layers that predict a class and a mask for every query.

    Initialisation is PyTorch's default for every layer, as in the paper's code.

    Args:
        embed_dims (int, optional): Channels C of the tokens. None is an error: the
            models of this package fill them in.
        num_classes (int): Number of classes without "no object".
        patch_size (int): Side of a patch in pixels; decides how often the patch
            features are doubled. Defaults to 16.
        init_cfg (dict, optional): MMEngine's initialisation config.

    Raises:
        UserError: If `embed_dims` is None.
    """

    def __init__(
        self,
        embed_dims: int | None,
        num_classes: int,
        patch_size: int = 16,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if embed_dims is None:
            raise UserError(
                'embed_dims of the head is missing: EoMTSegmentor and EoMTDetector '
                'take it from the backbone, other models need the number of its '
                'channels'
            )
        self.embed_dims = embed_dims
        self.num_classes = num_classes
        self.class_head = nn.Linear(embed_dims, num_classes + 1)
        self.mask_mlp = nn.Sequential(
            nn.Linear(embed_dims, embed_dims),
            nn.GELU(),
            nn.Linear(embed_dims, embed_dims),
            nn.GELU(),
            nn.Linear(embed_dims, embed_dims),
        )
        self.upscale = nn.Sequential(
            *(ScaleBlock(embed_dims) for _ in range(num_upscale_blocks(patch_size)))
        )
        self.mask_product = MaskProduct()

    def forward(self, queries: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Predict.

        Args:
            queries (Tensor): Normalised query tokens, shape (B, K, C).
            patches (Tensor): Normalised patch tokens as a map, shape (B, C, h, w).

        Returns:
            tuple[Tensor, Tensor]: Class logits of shape (B, K, classes + 1), the
            last being "no object", and mask logits of shape (B, K, H, W): stride 4
            for patches of 16 and 8, 7 for 14.
        """
        features = self.upscale(patches)  # (B, C, H, W)
        masks = self.mask_product(self.mask_mlp(queries), features)  # (B, K, H, W)
        # Class scores are held against thresholds.
        with no_autocast(queries.device):
            classes = self.class_head(queries.to(self.class_head.weight.dtype))
        return classes, masks
