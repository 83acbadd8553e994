"""Painted predictions of a test, over the photos as the test pipeline loads them."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from eomt_mm.datasets.photos import Photos
from eomt_mm.registry import HOOKS
from eomt_mm.result_names import result_names


@HOOKS.register_module()
class PaintHook(Hook):
    """Paints each prediction of a test, of MMSegmentation or MMDetection.

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
        self.photos = Photos(runner.test_dataloader.dataset)
        self.names = result_names(self.photos)

    def after_test_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Paint the predictions of a batch."""
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return
        for sample in outputs:
            name, target = self.names[sample.img_path], {}
            if self.out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.out_dir)
                target = dict(out_file=str(folder / f'{name}.png'))
            Visualizer.get_current_instance().add_datasample(
                f'test_{name}',
                self.photos[sample.img_path],
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                **target,
                **self.drawing,
            )
