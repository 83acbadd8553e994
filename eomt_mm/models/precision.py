"""Islands of full precision in a network under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context without autocast, on devices that have it.

    Args:
        device (torch.device): Device of the tensors; 'meta', on which networks are
            counted, has no autocast.

    Returns:
        AbstractContextManager: The context.
    """
    # Asking PyTorch whether a device has autocast would break compiled graphs.
    if device.type == 'meta':
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
