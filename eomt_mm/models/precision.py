"""Islands of full precision in a network under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Autocast off, on devices that have it.

    Args:
        device (torch.device): Where the tensors are; 'meta', on which networks are
            counted, knows no autocast.

    Returns:
        AbstractContextManager: To be entered for the operations concerned.
    """
    # Asking PyTorch whether a device has autocast would break compiled graphs.
    if device.type == 'meta':
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
