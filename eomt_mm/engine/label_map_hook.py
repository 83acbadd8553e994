"""Label maps of a test, one file for each photo."""

from pathlib import Path

import numpy as np
from mmengine.hooks import Hook
from PIL import Image

from eomt_mm.datasets.photos import Photos
from eomt_mm.files import atomic_path
from eomt_mm.registry import HOOKS
from eomt_mm.result_names import result_names


@HOOKS.register_module()
class LabelMapHook(Hook):
    """Writes each semantic prediction of a test as a PNG, in the folder of its photo.

    MMSegmentation's metric writes all into one folder, where photos of one name
    overwrite each other. Labels are those of the data set's files: they start at 1
    with `reduce_zero_label`.

    Args:
        out_dir (str): Folder to write to.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def before_test(self, runner) -> None:
        """Name the files."""
        self.names = result_names(Photos(runner.test_dataloader.dataset))

    def after_test_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Write the predictions of a batch."""
        for sample in outputs:
            labels = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
            labels = labels + int(sample.get('reduce_zero_label', False))
            dtype = np.uint8 if labels.max() < 256 else np.uint16
            path = self.out_dir / f'{self.names[sample.img_path]}.png'
            with atomic_path(path) as partial:
                Image.fromarray(labels.astype(dtype)).save(partial)
