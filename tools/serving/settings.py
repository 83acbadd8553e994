"""What the page asks for: how the network runs, and what is made of its outputs."""

import numbers
from dataclasses import dataclass
from typing import NamedTuple

from eomt_mm.errors import UserError

THRESHOLDS = {'object_mask_thr': (0, 1), 'iou_thr': (0, 1), 'max_per_image': (1, 1000)}
MOST_MERGED = 80  # percent of the tokens
OFF, OWN = 'off', 'own'


class Run(NamedTuple):
    """What the network has to run again for.

    Attributes:
        model (int): Number of the model.
        dtype (str): Such as 'fp32'.
        merging (str | int): 'off', 'own' (the config's), or the percentage of tokens
            that are merged away.
        inside (bool): Whether it also predicts before each of the last blocks.
    """

    model: int = 0
    dtype: str = 'fp32'
    merging: str | int = OFF
    inside: bool = False


@dataclass(frozen=True)
class View:
    """What is made of the outputs; the network does not run again for it.

    Attributes:
        thresholds (dict): Values of `THRESHOLDS` that differ from the model's own.
        step (int): Prediction that is shown; -1 is the final one.
        confidence (str, optional): A measure of confidence whose map is wanted.
    """

    thresholds: dict
    step: int = -1
    confidence: str | None = None


def parse(asked: object, models: list) -> tuple[Run, View]:
    """Check what came in JSON.

    Args:
        asked (object): `model`, `dtype`, `merging`, `inside`, `thresholds`, `step` and
            `confidence`, all optional.
        models (list): The models of the page.

    Returns:
        tuple[Run, View]: Both parts.

    Raises:
        UserError: A value is not one that the model has.
    """
    if not isinstance(asked, dict):
        raise UserError('settings are expected as a JSON object')
    number = _whole('model', asked.get('model', 0), 0, len(models) - 1)
    model = models[number]
    dtype = _choice('dtype', asked.get('dtype', model.dtypes[0]), model.dtypes)
    inside = asked.get('inside', False) is True
    if inside and not model.steps:
        raise UserError(f'{model.name} does not show what it predicts between blocks')
    merging = _merging(asked.get('merging', model.merging[0]), model)
    if inside:  # the weights of the other dtypes, and merged tokens, do not predict
        dtype, merging = model.dtypes[0], OFF
    given = asked.get('thresholds', {})
    if not isinstance(given, dict):
        raise UserError(f'thresholds are {given!r}: expected values by name')
    thresholds = {name: _threshold(name, value) for name, value in given.items()}
    steps = len(model.steps) if inside else 1
    step = _whole('step', asked.get('step', -1), -1, steps - 1)
    confidence = asked.get('confidence')
    if confidence is not None:
        _choice('confidence', confidence, model.confidences)
    return Run(number, dtype, merging, inside), View(thresholds, step, confidence)


def _merging(value: object, model) -> str | int:
    if value in model.merging and isinstance(value, str):
        return value
    if 'any' not in model.merging:
        raise UserError(f'{model.name} has no token merging: {OFF!r} is expected')
    return _whole('merging', value, 1, MOST_MERGED)


def _threshold(name: str, value: object) -> float | int:
    if name not in THRESHOLDS:
        raise UserError(f'unknown threshold {name!r}: expected {", ".join(THRESHOLDS)}')
    low, high = THRESHOLDS[name]
    if name == 'max_per_image':
        return _whole(name, value, low, high)
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not low <= value <= high  # false for NaN as well
    ):
        raise UserError(f'{name} is {value!r}: expected a number from {low} to {high}')
    return float(value)


def _whole(name: str, value: object, low: int, high: int) -> int:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise UserError(
            f'{name} is {value!r}: expected a whole number from {low} to {high}'
        )
    return value


def _choice(name: str, value: object, known: list[str]) -> str:
    if value not in known:
        raise UserError(f'{name} is {value!r}: expected one of {", ".join(known)}')
    return value
