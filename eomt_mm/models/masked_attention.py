"""Self-attention whose query tokens see only the patches of their own mask.

Masked attention of EoMT (arXiv 2503.19108, Sec. 3.2): before a block, every query
predicts a mask; inside the block the query attends only to the patch tokens that
lie in it. Nothing else is restricted: queries see each other and the prefix
tokens, patch and prefix tokens see everything.

Only the K query rows of the N x N attention matrix are therefore ever masked.
`split_attention` computes them apart from the other rows, so that those keep the
unmasked flash kernel and no N x N mask is ever built.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import Attention, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor

# (q, k, v, mask, dropout_p) to the shape of q, see `attend`.
Attend = Callable[..., Tensor]


@torch.no_grad()
def query_patch_mask(mask_logits: Tensor, grid: tuple[int, int], prob: float) -> Tensor:
    """Turn a prediction into the patches that each query may attend to.

    A patch is open to a query where the resized mask logit is above 0. With
    probability `1 - prob`, drawn for each image and query, the query is freed and
    all its patches are open. A query without a single positive cell keeps no patch:
    it still sees the other queries and the prefix tokens, so its softmax row is
    never empty.

    Args:
        mask_logits (Tensor): Shape (B, K, h, w), any resolution.
        grid (tuple[int, int]): Rows and columns of the patch grid.
        prob (float): Probability that a query is masked, in (0, 1].

    Returns:
        Tensor: Shape (B, K, N) bool, True where the query may attend.
    """
    mask = F.interpolate(mask_logits, size=grid, mode='bilinear').flatten(2) > 0
    if prob < 1:
        free = torch.rand(*mask.shape[:2], 1, device=mask.device) > prob
        mask = mask | free
    return mask


def split_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout_p: float = 0.0
) -> Tensor:
    """Attend with a mask over the last columns in the first K rows.

    Equal to attention with the full mask, at a fraction of its memory.

    Args:
        q (Tensor): Shape (B, heads, T, d), the K queries first.
        k (Tensor): Shape (B, heads, T, d).
        v (Tensor): Shape (B, heads, T, d).
        mask (Tensor): Shape (B, K, N) bool, True where a query may attend to one
            of the last N tokens. The T - N tokens before them are open to all.
        dropout_p (float): Dropout on the attention weights. Defaults to 0.

    Returns:
        Tensor: Shape (B, heads, T, d).
    """
    num_queries, num_patches = mask.shape[1:]
    rows = F.pad(mask, (k.shape[2] - num_patches, 0), value=True)  # (B, K, T)
    masked = F.scaled_dot_product_attention(
        q[:, :, :num_queries], k, v, attn_mask=rows[:, None], dropout_p=dropout_p
    )
    free = F.scaled_dot_product_attention(
        q[:, :, num_queries:], k, v, dropout_p=dropout_p
    )
    return torch.cat((masked, free), dim=2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Compute the attention of a block; on a CPU a faster kernel may replace it.

    Args:
        q (Tensor): Shape (B, heads, T, d).
        k (Tensor): Shape (B, heads, T, d).
        v (Tensor): Shape (B, heads, T, d).
        mask (Tensor, optional): Shape (B, K, N) bool, see `split_attention`.
        dropout_p (float): Dropout on the attention weights. Defaults to 0.

    Returns:
        Tensor: Shape (B, heads, T, d).
    """
    if mask is not None:
        return split_attention(q, k, v, mask, dropout_p)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)


class MaskedAttention:
    """The part that both attention layers share: attention and output projection.

    Attributes:
        attend (Callable): The function `attend`. Replaced by `cpu.prepare`;
            proportional attention does not go through it.
    """

    attend: Attend = staticmethod(attend)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attend with the layer's dropout; the shape is (B, T, C), as the layer's."""
        dropout_p = self.attn_drop.p if self.training else 0.0
        return self.merge_heads(self.attend(q, k, v, mask, dropout_p))

    def merge_heads(self, x: Tensor) -> Tensor:
        """Join the heads (B, heads, T, d) to (B, T, C), normalise and project."""
        x = x.transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(self.norm(x)))


class SplitAttention(MaskedAttention, Attention):
    """timm's self-attention with a query -> patch mask.

    Parameters and names are timm's.
    """

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Attend.

        Args:
            x (Tensor): Tokens, shape (B, T, C).
            attn_mask (Tensor, optional): Shape (B, K, N), see `split_attention`.
            is_causal (bool): timm's argument; nothing here is causal.

        Returns:
            Tensor: Shape (B, T, C).
        """
        return self._attend(*self.project(x), attn_mask)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (B, T, C) to queries, keys, values, each (B, heads, T, d)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.q_norm(q), self.k_norm(k), v


class RotarySplitAttention(MaskedAttention, EvaAttention):
    """The self-attention of timm's EVA-02 and DINOv3, with a query -> patch mask.

    Parameters and names are timm's. The rotary codes belong to the patches, the last
    tokens: whatever stands in front of them (queries, CLS, registers) has no place in
    the image and is never rotated.
    """

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            x (Tensor): Tokens, shape (B, T, C).
            rope (Tensor, optional): Sines and cosines of the last N tokens, shape
                (N, 2d), or (B, 1, N, 2d) where every image has its own.
            attn_mask (Tensor, optional): Shape (B, K, N), see `split_attention`.
            is_causal (bool): timm's argument; nothing here is causal.

        Returns:
            Tensor: Shape (B, T, C).
        """
        q, k, v = self.project(x)
        if rope is not None:
            q, k = (self.rotate(t, rope).type_as(v) for t in (q, k))
        return self._attend(q, k, v, attn_mask)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to queries, keys, values, each (B, heads, T, d); no bias in keys."""
        if self.qkv is None:
            qkv = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        else:
            bias = None
            if self.q_bias is not None:
                bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
            qkv = self._qkv(x, bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for t in qkv)
        return self.q_norm(q), self.k_norm(k), v

    def _qkv(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return queries, keys and values side by side, (B, T, 3 C)."""
        return F.linear(x, self.qkv.weight, bias)

    def rotate(self, x: Tensor, rope: Tensor) -> Tensor:
        """Rotate the last tokens of queries or keys (B, heads, T, d).

        Args:
            x (Tensor): Queries or keys.
            rope (Tensor): See `forward`.

        Returns:
            Tensor: The same shape and type.
        """
        start = x.shape[2] - rope.shape[-2]
        patches = apply_rot_embed_cat(x[:, :, start:], rope, half=self.rotate_half)
        return torch.cat((x[:, :, :start], patches), dim=2)
