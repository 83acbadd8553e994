"""The device that a benchmark measures on."""

import torch

from eomt_mm.errors import UserError


def check_device(name: str) -> torch.device:
    """The device of a name, if one can measure there.

    Raises:
        UserError: It is not there, or is neither a CPU nor a GPU of CUDA.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # Without CUDA, PyTorch raises AssertionError; NotImplementedError is for 'meta'.
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'--device {name} does not work: {reason}; give cpu, or cuda where there '
            'is a GPU'
        ) from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: measured are cpu and cuda')
    return device
