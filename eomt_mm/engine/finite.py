"""A check for weights that are not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that hold NaN or infinite values.

    Args:
        tensors (Mapping[str, Tensor]): A state dict. There is one synchronisation.
    """
    names = [name for name, value in tensors.items() if isinstance(value, Tensor)]
    if not names:
        return []
    finite = torch.stack([tensors[name].isfinite().all() for name in names])
    return [name for name, fine in zip(names, finite.tolist(), strict=True) if not fine]
