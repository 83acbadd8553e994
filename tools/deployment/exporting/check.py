"""The exported file against PyTorch, on a photograph."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eomt_mm.deploy.predictor import Windows, load_photo
from eomt_mm.errors import UserError

from .files import INPUT
from .graph import RawNetwork
from .silence import quiet

# The largest difference of an output, as a share of its largest value.
LIMITS = {'fp32': 1e-4, 'fp16': 2e-2, 'int8': float('inf')}
# Numbers that a rounding cannot turn into others.
COMPARED = ('class_logits', 'mask_logits', 'class_scores', 'scores')

Run = Callable[[Tensor], list[Tensor]]


def windows_of(photo: str, meta: dict) -> Tensor:
    """A photo as the network gets it, shape (N, 3, H, W) fp32."""
    windows = Windows(load_photo(photo, meta['upright']), meta)
    return torch.from_numpy(np.stack(windows.crops)).float()


def open_file(path: Path) -> Run:
    """The network in a file of either format, by the runtime that it is for."""
    if path.suffix == '.pt2':
        with quiet():
            module = torch.export.load(path).module()
        return lambda images: list(module(images))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        path, options, providers=['CPUExecutionProvider']
    )

    def run(images: Tensor) -> list[Tensor]:
        found = session.run(None, {INPUT: images.numpy()})
        return [torch.from_numpy(output) for output in found]

    return run


@torch.no_grad()
def differences(
    run: Run, network: RawNetwork, windows: Tensor, batch: int
) -> dict[str, float]:
    """The largest difference of each output, as a share of its largest value.

    Args:
        run (Run): The file.
        network (RawNetwork): What it was made from, in fp32.
        windows (Tensor): Shape (N, 3, H, W).
        batch (int): Images that the file takes at once.
    """
    found: dict[str, float] = {}
    for chunk in windows.split(batch):
        # What is missing in a fixed batch is black.
        images = torch.zeros(batch, *chunk.shape[1:])
        images[: len(chunk)] = chunk
        for name, value, expected in zip(
            network.outputs, run(images), network(images), strict=True
        ):
            if name in COMPARED:
                gap = (value - expected).abs().max() / expected.abs().max()
                # NaN is not a small difference.
                gap = gap.nan_to_num(float('inf')).item()
                found[name] = max(gap, found.get(name, 0.0))
    return found


def require(found: dict[str, float], dtype: str) -> None:
    """Raise a UserError if a difference is beyond what the dtype explains."""
    worst = max(found, key=found.get)
    if not found[worst] <= LIMITS[dtype]:
        raise UserError(
            f'the file differs from PyTorch: {worst} by {found[worst]:.1e} of its '
            f'largest value, expected at most {LIMITS[dtype]:.0e} in {dtype}. Nothing '
            'was kept; try another --opset, or --dtype fp32'
        )


@torch.no_grad()
def seconds(runs: list[Run], images: Tensor, repeats: int = 5) -> list[float]:
    """Median seconds of each, by turns, after one run for warming up."""
    times = [[] for _ in runs]
    for turn in range(repeats + 1):
        for run, spent in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(images)
            if turn:
                spent.append(time.perf_counter() - start)
    return [float(np.median(spent)) for spent in times]
