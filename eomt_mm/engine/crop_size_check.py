"""A check before the run that the crop size reaches the whole config."""

import logging

from mmengine.hooks import Hook

from eomt_mm.crop_size import check_crop_size
from eomt_mm.errors import UserError
from eomt_mm.registry import HOOKS


@HOOKS.register_module()
class CropSizeHook(Hook):
    """Compares `crop_size` with the sizes that the run uses.

    MM's own tools merge `--cfg-options crop_size=...` into the variable alone, which
    no part of the run reads.
    """

    def before_run(self, runner) -> None:
        """Log a contradiction, see :func:`check_crop_size`.

        It is not an error: configs of the last release set each size separately.
        """
        try:
            check_crop_size(runner.cfg)
        except UserError as error:
            runner.logger.log(logging.WARNING, str(error))
