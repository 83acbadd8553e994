"""The file that holds the threshold of a calibration.

`tools/analysis_tools/calibrate_algm.py` writes it, `ALGM(threshold='auto')` reads it.
It is JSON with at least `threshold`, and the `local_block` and `window` to which the
threshold belongs.
"""

import json
from pathlib import Path

from eomt_mm.errors import UserError
from eomt_mm.files import refuse_special

_WAY_OUT = 'make one with tools/analysis_tools/calibrate_algm.py CONFIG CHECKPOINT'


def read_threshold(path: str | None, local_block: int | None, window: int) -> float:
    """Read the threshold of a calibration file.

    Args:
        path (str, optional): The file.
        local_block (int, optional): Block of the local merge that is to use it.
        window (int): Side of the windows that are to use it, in patches.

    Returns:
        float: Least mean similarity of a window that is merged.

    Raises:
        UserError: The file is missing, is not a calibration, or belongs to another
            block or window.
    """
    if path is None:
        raise UserError(
            "token_merging.threshold is 'auto' and token_merging.calibration names no "
            f'file: {_WAY_OUT}'
        )
    refuse_special(path)
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
        threshold = float(content['threshold'])
        made_for = content['local_block'], content['window']
    except OSError as error:
        raise UserError(
            f'token_merging.calibration {path} cannot be read ({error.strerror}): '
            f'{_WAY_OUT}'
        ) from error
    # RecursionError and OverflowError: brackets without end, integers beyond a float.
    except (
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
        OverflowError,
    ) as error:
        raise UserError(
            f'token_merging.calibration {path} is not a calibration '
            f'({type(error).__name__}: {error}): {_WAY_OUT}'
        ) from error
    if made_for != (local_block, window):
        raise UserError(
            f'token_merging.calibration {path} was made for windows of {made_for[1]} '
            f'in block {made_for[0]}, but the model merges windows of {window} in '
            f'block {local_block}: {_WAY_OUT} again'
        )
    return threshold
