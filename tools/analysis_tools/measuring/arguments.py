"""Options of the tools that measure."""

import argparse

import torch

from eomt_mm.cli import not_negative, positive
from eomt_mm.errors import UserError


def add_measuring_options(parser: argparse._ActionsContainer) -> None:
    """Add --device, --rounds, --warmup and --no-memory to a parser or a group."""
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu'
    )
    parser.add_argument('--rounds', type=positive, default=10, help='calls that count')
    parser.add_argument(
        '--warmup', type=not_negative, default=1, help='calls before them'
    )
    parser.add_argument(
        '--no-memory', action='store_true', help='on a CPU it takes fresh processes'
    )


def check_device(name: str) -> torch.device:
    """Return the device of a name, if measuring there is possible.

    Raises:
        UserError: If it is missing, or is neither a CPU nor a CUDA device.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # Without CUDA it is an AssertionError; that of 'meta' is a kind of RuntimeError.
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'--device {name} does not work: {reason}; give cpu, or cuda where there '
            'is a GPU'
        ) from error
    if device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device {name}: measured are cpu and cuda')
    return device
