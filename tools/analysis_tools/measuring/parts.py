"""Timing of the parts of a backbone."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def block_seconds(
    vit: nn.Module, function: Callable[[], object]
) -> list[tuple[float, float]]:
    """Measure the wall time in the two halves of every block.

    Args:
        vit (QueryViT): The backbone.
        function: A function that runs it, in any number of groups of images.

    Returns:
        list[tuple[float, float]]: Seconds of each block from its first norm to its
        second (attention and merging, if any) and from there to the next block (MLP).
    """
    events, hooks = [], []

    def record(place: tuple[int, int] | None) -> Callable[..., None]:
        def hook(*_: object) -> None:
            _wait()
            events.append((time.perf_counter(), place))

        return hook

    for number, block in enumerate(vit.blocks):
        for half, norm in enumerate((block.norm1, block.norm2)):
            hooks.append(norm.register_forward_pre_hook(record((number, half))))
    hooks.append(vit.norm.register_forward_pre_hook(record(None)))
    try:
        function()
    finally:
        for hook in hooks:
            hook.remove()
    spent = [[0.0, 0.0] for _ in vit.blocks]
    for (start, place), (end, _) in zip(events, events[1:], strict=False):
        if place is not None:
            spent[place[0]][place[1]] += end - start
    return [tuple(halves) for halves in spent]


def merging_seconds(function: Callable[[], object]) -> dict[str, float]:
    """Measure the time of the steps of token merging.

    Args:
        function: A function that runs a backbone with token merging.

    Returns:
        dict[str, float]: Seconds of `propose`, `merge` and `unmerge`, of the GPU if
        there is one.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as profiler:
        function()
    prefix = 'token_merging.'
    return {
        event.key.removeprefix(prefix): (
            event.device_time_total if len(activities) > 1 else event.cpu_time_total
        )
        / 1e6
        for event in profiler.key_averages()
        if event.key.startswith(prefix)
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
