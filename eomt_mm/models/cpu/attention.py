"""Attention on a CPU, for inference: some rows at a time, in two products of oneDNN.

The weights of so few rows stay in the cache between the products. PyTorch's own kernel
for CPUs relies on MKL, and computes bf16 in fp32.

In bf16 there is no pass for the softmax. oneDNN can apply a sigmoid to the sums of a
product while they are fp32, and far below 0 a sigmoid is the exponential: a number
above every logit of its row, subtracted within the product, makes them so. The weights
come out without their normalisation, which is a product with ones. Logits are never
rounded to bf16, as they are not in PyTorch's own kernel: attention that is sharp, or
whose keys have much in common, would magnify that. What is rounded once more than there
is the result before its normalisation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import masked_attention
from .onednn import inputs_side_by_side, linear

# Below this PyTorch's kernel, a single call, is as fast.
LEAST_TOKENS = 300
# Weights that each thread computes at once: 2 MiB in either precision, and more where
# that were fewer rows than a product needs to be fast.
WEIGHTS_AT_ONCE = {torch.float32: 2**19, torch.bfloat16: 2**20}
LEAST_ROWS = 192

# sigmoid(x) = exp(x) (1 - exp(x) + ...): from here on the difference is a tenth of
# the rounding of bf16.
LARGEST_LOGIT = -8.0
# How far below that the largest logit of a row may be: exp(-68) leaves the weights of
# fp32's range that are not 1e-8 of the largest.
LARGEST_GAP = 60.0
# Two numbers of bf16 hold what is subtracted to 1 in 2^17: to 0.25 here. The weights of
# a row are then wrong by one factor, which the normalisation takes out.
LARGEST_BOUND = 2.0**15
# Neighbouring keys are alike, so a bound on the logits of so many together is close.
KEYS_PER_BOUND = 64
# Partial sums of a row's weights, each rounded to bf16. As many as oneDNN computes at
# once in any case: where they differ, so do their roundings, and average out.
PARTIAL_SUMS = 16


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attention as in `masked_attention.attend`; without gradients.

    PyTorch gets few tokens, what is neither fp32 nor bf16, and whatever is masked.

    Args:
        q (Tensor): Shape (B, heads, T, d).
        k (Tensor): The same.
        v (Tensor): The same.
        mask (Tensor, optional): See `masked_attention.attend`.
        dropout_p (float): See `masked_attention.attend`. Defaults to 0.

    Returns:
        Tensor: Shape (B, heads, T, d).
    """
    is_known = q.dtype == k.dtype == v.dtype and q.dtype in WEIGHTS_AT_ONCE
    is_free = mask is None and not dropout_p
    if is_known and is_free and q.shape[2] >= LEAST_TOKENS:
        return _attention(q, k, v)
    return masked_attention.attend(q, k, v, mask, dropout_p)


@torch.library.custom_op('eomt_mm::attention_in_pieces', mutates_args=())
def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    batch, heads, tokens, dims = q.shape
    scale = dims**-0.5
    # bf16 holds the scaled q if the scale is a power of two: of the usual 64 channels.
    is_exact = q.dtype == torch.bfloat16 and math.frexp(scale)[0] == 0.5
    attend_head = attend_in_bf16 if is_exact else attend_by_softmax
    at_once = max(LEAST_ROWS, WEIGHTS_AT_ONCE[q.dtype] // tokens)
    rows = torch.get_num_threads() * at_once
    out = q.new_empty(batch, tokens, heads, dims).transpose(1, 2)
    for image in range(batch):
        for head in range(heads):
            one = (image, head)
            out[one] = attend_head(q[one].float() * scale, k[one], v[one], rows)
    return out


@_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape).transpose(1, 2).contiguous().transpose(1, 2)


def attend_by_softmax(q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
    """Attention of one head; logits and softmax are fp32.

    Args:
        q (Tensor): Shape (T, d), fp32, scaled.
        k (Tensor): Shape (T', d), fp32 or bf16.
        v (Tensor): Shape (T', d), of that dtype.
        rows (int): How many to compute at once.

    Returns:
        Tensor: Shape (T, d), of that dtype.
    """
    # As weights of linear layers, (T', d) and (d, T'), those of one input side by side.
    keys, values = inputs_side_by_side(k.float()), v.contiguous().mT
    out = []
    for some in q.split(rows):
        weights = linear(some, keys)  # frees the last ones first: theirs is cached
        weights = weights.softmax(-1).to(v.dtype)
        out.append(linear(weights, values))
    return torch.cat(out)


def attend_in_bf16(q: Tensor, k: Tensor, v: Tensor, rows: int) -> Tensor:
    """Attention of one head in bf16; without a softmax where that is possible.

    Args:
        q (Tensor): Shape (T, d), fp32, scaled; numbers that bf16 holds.
        k (Tensor): Shape (T', d), bf16.
        v (Tensor): Shape (T', d), bf16.
        rows (int): How many to compute at once.

    Returns:
        Tensor: Shape (T, d), bf16.
    """
    upper, lower = largest_logits(q, k.float())
    # False of NaN as well.
    near = (upper - lower <= LARGEST_GAP) & (upper.abs() <= LARGEST_BOUND)
    if near.all():
        return attend_by_exponentials(q, k, v, rows, upper)
    out = torch.empty_like(q, dtype=v.dtype)
    if near.any():
        out[near] = attend_by_exponentials(q[near], k, v, rows, upper[near])
    out[~near] = attend_by_softmax(q[~near], k, v, rows)
    return out


def attend_by_exponentials(
    q: Tensor, k: Tensor, v: Tensor, rows: int, upper: Tensor
) -> Tensor:
    """Attention of one head whose weights are computed along with the logits.

    Args:
        q (Tensor): Shape (T, d), fp32, scaled; numbers that bf16 holds.
        k (Tensor): Shape (T', d), bf16.
        v (Tensor): Shape (T', d), bf16.
        rows (int): How many to compute at once.
        upper (Tensor): A number above every logit of a row, or below it by rounding
            alone, and at most `LARGEST_GAP` above the largest, shape (T,).

    Returns:
        Tensor: Shape (T, d), bf16.
    """
    dims = v.shape[1]
    # [q, coarse, fine] [k, 1, 1] = q k + coarse + fine: the logit less its bound.
    shift = LARGEST_LOGIT - upper[:, None]
    coarse = shift.bfloat16()
    fine = (shift - coarse).bfloat16()
    queries = torch.cat((q.bfloat16(), coarse, fine), 1)
    keys = F.pad(k, (0, 2), value=1.0)
    # Columns of ones, each for its share of the keys: identity matrices in a pile.
    summing = torch.eye(PARTIAL_SUMS, dtype=v.dtype)
    summing = summing.expand(-(-len(v) // PARTIAL_SUMS), -1, -1).flatten(0, 1)
    values = torch.cat((v, summing[: len(v)]), 1).mT
    out = []
    for some in queries.split(rows):
        weights = linear(some, keys, after='sigmoid')
        out.append(linear(weights, values))
    out = torch.cat(out)
    total = out[:, dims:].sum(1, keepdim=True, dtype=torch.float32)
    return (out[:, :dims] / total).to(v.dtype)


def largest_logits(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds on the largest logit of each row, from the balls that hold the keys.

    A key of a ball with centre c and radius r has a logit of at most q c + |q| r, and
    some key of it has one of at least q c where c is the mean of its keys.

    Args:
        q (Tensor): Shape (T, d).
        k (Tensor): Shape (T', d).

    Returns:
        tuple[Tensor, Tensor]: Upper and lower bounds, of shape (T,) each.
    """
    spare = -len(k) % KEYS_PER_BOUND
    keys = torch.cat((k, k[-1:].expand(spare, -1))).unflatten(0, (-1, KEYS_PER_BOUND))
    centres = keys.mean(1)
    radii = torch.linalg.vector_norm(keys - centres[:, None], dim=2).amax(1)
    # (balls, T), so that the maxima are those of whole rows.
    logits = linear(centres, q)
    reach = torch.linalg.vector_norm(q, dim=1) * radii[:, None]
    return (logits + reach).amax(0), logits.amax(0)
