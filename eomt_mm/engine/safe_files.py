"""Safe loading of the checkpoints that MMEngine writes."""

from collections.abc import Callable
from pickle import UnpicklingError
from types import FunctionType

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

# HistoryBuffer pickles its statistics as getattr(HistoryBuffer, name).
_HISTORY_METHODS = {
    name: value
    for name, value in vars(HistoryBuffer).items()
    if isinstance(value, FunctionType) and not name.startswith('_')
}
# No object or structured arrays: a log holds numbers.
_LOG_DTYPES = ('bool', 'int32', 'int64', 'float16', 'float32', 'float64')


def allow_mmengine_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read the checkpoints MMEngine writes.

    Since torch 2.6 that is the default, and it refuses the log history that MMEngine
    stores beside the weights. What that history is made of is allow-listed here
    instead of switching the protection off: anything else is still refused.
    """
    if digit_version(torch.__version__) < digit_version('2.6'):
        return  # loads without restriction by default
    rebuild_array = np.empty(0).__reduce__()[0]
    rebuild_scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            *(type(np.dtype(name)) for name in _LOG_DTYPES),
            # numpy 1 files say `core`, numpy 2 files `_core`.
            (rebuild_array, 'numpy.core.multiarray._reconstruct'),
            (rebuild_array, 'numpy._core.multiarray._reconstruct'),
            (rebuild_scalar, 'numpy.core.multiarray.scalar'),
            (rebuild_scalar, 'numpy._core.multiarray.scalar'),
            (_history_method, 'builtins.getattr'),
        ]
    )


def _history_method(owner: object, name: str) -> Callable:
    # Stands in for getattr, through which a pickle could reach any function at all.
    if owner is HistoryBuffer and name in _HISTORY_METHODS:
        return _HISTORY_METHODS[name]
    raise UnpicklingError(
        f'refused to look up {name!r} of {owner!r}: a checkpoint may only name the '
        'methods of HistoryBuffer'
    )
