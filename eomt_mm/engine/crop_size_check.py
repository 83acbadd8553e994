"""A crop size that reaches only half of a config is reported before the run."""

import logging

from mmengine.hooks import Hook

from eomt_mm.crop_size import check_crop_size
from eomt_mm.errors import UserError
from eomt_mm.registry import HOOKS


@HOOKS.register_module()
class CropSizeHook(Hook):
    """Compare `crop_size` with the sizes that the run uses.

    MM's own tools merge `--cfg-options crop_size=...` into the variable alone, which
    no part of the run reads.
    """

    def before_run(self, runner) -> None:
        """Log a contradiction; see :func:`check_crop_size`.

        It is no error: configs of the last release set every size by itself.
        """
        try:
            check_crop_size(runner.cfg)
        except UserError as error:
            runner.logger.log(logging.WARNING, str(error))
