"""Mask probabilities of a config, checked."""

from collections.abc import Sequence

from eomt_mm.errors import UserError


def settle_mask_probs(
    given: Sequence[float] | None, count: int, default: float, deep_supervision: bool
) -> list[float]:
    """Return one mask probability for each block or layer that can be masked.

    Args:
        given (Sequence[float], optional): `mask_probs` of a config.
        count (int): Number of these blocks or layers.
        default (float): Probability of all of them if none is given.
        deep_supervision (bool): Whether there are predictions to mask with.

    Raises:
        UserError: If their number is wrong, or if they mask without predictions.
    """
    probs = [default] * count if given is None else list(given)
    if len(probs) != count:
        raise UserError(
            f'mask_probs has {len(probs)} values, expected {count}: one for each block '
            'or layer that can be masked'
        )
    if any(probs) and not deep_supervision:
        raise UserError(
            f'mask_probs is {probs}, but without deep_supervision there are no '
            'predictions to mask with: set one of them'
        )
    return probs
