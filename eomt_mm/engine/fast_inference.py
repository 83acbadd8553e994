"""The hook that speeds a model up before a test."""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log

from eomt_mm.registry import HOOKS

from .wrapped import unwrapped


@HOOKS.register_module()
class FastInferenceHook(Hook):
    """Applies half precision and compilation once the checkpoint is loaded.

    `tools/test.py` adds it for `--dtype` and `--compile`. It leaves training and its
    validation alone.

    Args:
        dtype (str): 'fp32', 'bf16', 'fp16' or 'fp8'. Defaults to 'fp32'.
        compiled (bool | str): Whether to compile the network, which takes a minute or
            more at the first image of each size; 'max-autotune' takes several. Defaults
            to False.
    """

    def __init__(self, dtype: str = 'fp32', compiled: bool | str = False) -> None:
        self.dtype, self.compiled = dtype, compiled

    def before_test(self, runner) -> None:
        """Speed the model up, see `eomt_mm.models.network`."""
        # Not at the top: the engine does not need the models.
        from eomt_mm.models.network import speed_up

        speed_up(unwrapped(runner.model), self.dtype, self.compiled)
        how = f'{self.dtype}, {"compiled" if self.compiled else "not compiled"}'
        print_log(f'testing in {how}', logger='current', level=logging.INFO)
