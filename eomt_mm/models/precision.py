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
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
