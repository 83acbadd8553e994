"""Refusing a checkpoint that does not fit, before anything is loaded.

MMEngine loads what matches, logs the rest and goes on, so that a model tested with
the wrong checkpoint gives a low score instead of an error.
"""

import logging

from mmengine.logging import print_log
from torch import Tensor, nn

from eomt_mm.errors import UserError


def refuse_misfit(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """State-dict pre-hook that raises where shapes differ or nothing matches.

    Args:
        module (nn.Module): The model that is about to load.
        state_dict (dict[str, Tensor]): What it is about to load.
        prefix (str): Prefix of the model's keys in `state_dict`.

    Raises:
        UserError: Names the tensors that do not fit.
    """
    own = {prefix + key: value for key, value in module.state_dict().items()}
    common = own.keys() & state_dict.keys()
    if not common:
        raise UserError(
            'the checkpoint holds no parameter of this model: expected keys such as '
            f'{next(iter(own))!r}, found {next(iter(state_dict), "none")!r}. Give a '
            'checkpoint that this config has trained, or convert it'
        )
    misfits = [
        f'{key} is {tuple(state_dict[key].shape)}, the config makes '
        f'{tuple(own[key].shape)}'
        for key in own
        if key in common and state_dict[key].shape != own[key].shape
    ]
    if misfits:
        more = f' and {len(misfits) - 3} more' if len(misfits) > 3 else ''
        raise UserError(
            f'the checkpoint does not fit the config: {"; ".join(misfits[:3])}{more}. '
            'Use the config it was trained with: class_head shows the number of '
            'classes + 1, queries that of queries, pos_embed that of patches'
        )


def restart_class_head(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """State-dict pre-hook: the class head of other classes is not loaded.

    Registered before `refuse_misfit`. A class head that fits is loaded.

    Args:
        module (nn.Module): The model that is about to load.
        state_dict (dict[str, Tensor]): What it is about to load; changed in place.
        prefix (str): Prefix of the model's keys in `state_dict`.
    """
    for key, value in module.state_dict().items():
        loaded = state_dict.get(prefix + key)
        if '.class_head.' in key and loaded is not None and loaded.shape != value.shape:
            print_log(
                f'{key} is not loaded and starts anew: the checkpoint has '
                f'{len(loaded)} rows (classes + 1), the config {len(value)}',
                logger='current',
                level=logging.WARNING,
            )
            state_dict[prefix + key] = value
