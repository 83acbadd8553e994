"""Differences between the stock OpenMMLab packages and their maintained fork, onedl.

Both have the same import names, so an environment holds one of them.
"""

from collections.abc import Iterator
from importlib import metadata
from typing import Any

from .errors import UserError

# Distributions of one import name: stock, fork.
PAIRS = {
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmsegmentation': 'onedl-mmsegmentation',
}
# Major and minor versions this package was run with. Others may well work.
TESTED = {
    'mmengine': '0.10',
    'mmcv': '2.1',
    'mmdet': '3.3',
    'mmsegmentation': '1.2',
    'onedl-mmengine': '0.10',
    'onedl-mmcv': '2.3',
    'onedl-mmdetection': '3.5',
    'onedl-mmsegmentation': '1.4',
    'torch': '2.11',
    'timm': '1.0',
}


def installed_version(package: str) -> str | None:
    """Version of a distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def untested_versions() -> list[str]:
    """Installed packages, of either stack, in a version that was not run."""
    found = {package: installed_version(package) for package in TESTED}
    return [
        f'{package} {version} (tested: {TESTED[package]})'
        for package, version in found.items()
        if version and version.split('.')[:2] != TESTED[package].split('.')
    ]


def refuse_mixed_stacks() -> None:
    """Refuse an environment in which one stack has overwritten files of the other.

    Raises:
        UserError: A stock package and its fork are both installed.
    """
    for stock, fork in PAIRS.items():
        ours, theirs = installed_version(stock), installed_version(fork)
        if ours and theirs:
            raise UserError(
                f'{stock} {ours} and {fork} {theirs} are both installed and overwrite '
                'each other: make a new environment with one of the two, by '
                'pip install "eomt_mm[stock]" or "eomt_mm[onedl]"'
            )


def flips_channels(preprocessor) -> bool:
    """Whether MMSegmentation's data preprocessor turns BGR to RGB, or back.

    The stock class keeps `channel_conversion`, the fork's `_channel_conversion`.
    """
    state = vars(preprocessor)
    name = 'channel_conversion'
    return state[name] if name in state else state[f'_{name}']


class StandingIterator:
    """Batches that already stand where a resumed training goes on.

    MMEngine's loop asks for each batch that was trained on once more. The fork's loop
    calls `skip_iter` instead, or nothing at all.

    Args:
        batches (Iterator): Yields the batch to train on next.
        replaced (Iterator): The loop's own iterator, which tells the two apart.
        done (int): Iterations that were trained.
    """

    def __init__(self, batches: Iterator, replaced: Iterator, done: int) -> None:
        self._batches = batches
        self._asked_again = 0 if hasattr(replaced, 'skip_iter') else done

    def __iter__(self) -> 'StandingIterator':
        return self

    def __next__(self) -> Any:
        if self._asked_again:
            self._asked_again -= 1
            return None
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the batches stand at the right place."""
