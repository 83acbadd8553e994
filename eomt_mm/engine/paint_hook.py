"""Painted predictions, over the photos as the pipeline loads them."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from torch.utils.data import Dataset

from eomt_mm.datasets.photos import Photos
from eomt_mm.registry import HOOKS
from eomt_mm.result_names import flat_names, result_names


@HOOKS.register_module()
class PaintHook(Hook):
    """Paints each prediction of a test or a validation, in MMSeg or MMDet.

    Their own hooks decode the photo anew, always turned by its EXIF orientation, which
    the prediction need not be, and keep one picture of photos of one name.

    Args:
        interval (int): Every how many batches. Defaults to 1.
        show (bool): In a window, and in no file. Defaults to False.
        wait_time (float): Seconds a picture stays. Defaults to 0.
        out_dir (str, optional): Folder of the pictures, below that of the test's log
            unless it is absolute; they lie in the folders of their photos.
        drawing (dict, optional): More arguments of the visualizer's `add_datasample`.
    """

    def __init__(
        self,
        interval: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        drawing: dict | None = None,
    ) -> None:
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir
        self.drawing = drawing or {}
        if show:
            Visualizer.get_current_instance()._vis_backends = {}

    def before_test(self, runner) -> None:
        """Look up the photos, and name their pictures."""
        self._look_up(runner.test_dataloader.dataset)

    def before_val(self, runner) -> None:
        """Look up the photos, and name their pictures."""
        self._look_up(runner.val_dataloader.dataset)

    def after_test_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Paint the predictions of a batch."""
        self._paint(runner, batch_idx, outputs, 'test')

    def after_val_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Paint the predictions of a batch."""
        self._paint(runner, batch_idx, outputs, 'val')

    def _look_up(self, dataset: Dataset) -> None:
        self.photos = Photos(dataset)
        self.names = result_names(self.photos)
        # MMEngine's local backend makes no folders.
        self.flat = flat_names(self.names.values())

    def _paint(
        self,
        runner: Runner,
        batch_idx: int,
        samples: Sequence[BaseDataElement],
        mode: str,
    ) -> None:
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return
        for sample in samples:
            name, target = self.names[sample.img_path], {}
            if self.out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.out_dir)
                target = dict(out_file=str(folder / f'{name}.png'))
            Visualizer.get_current_instance().add_datasample(
                f'{mode}_{self.flat[name]}',
                self.photos[sample.img_path],
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                step=0 if mode == 'test' else runner.iter,
                **target,
                **self.drawing,
            )
