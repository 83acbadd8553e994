"""Painted predictions of a test, over the photos as the test pipeline loads them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from eomt_mm.datasets.photos import read_photo
from eomt_mm.registry import HOOKS


@HOOKS.register_module()
class PaintHook(Hook):
    """Paints each prediction of a test, of MMSegmentation or MMDetection.

    The frameworks' own hooks decode the photo anew and apply its EXIF orientation,
    which the prediction may ignore.

    Args:
        steps (Sequence[dict]): The steps of the test pipeline that load the image.
        interval (int): Batches from one painted batch to the next. Defaults to 1.
        show (bool): Whether a window shows the pictures, instead of files. Defaults to
            False.
        wait_time (float): Seconds that a picture stays. Defaults to 0.
        out_dir (str, optional): Folder of the pictures, below that of the test's log;
            None leaves their place to the visualizer.
        drawing (dict, optional): More arguments of the visualizer's `add_datasample`.
    """

    def __init__(
        self,
        steps: Sequence[dict],
        interval: int = 1,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        drawing: dict | None = None,
    ) -> None:
        self.steps = steps
        self.interval = interval
        self.show = show
        self.wait_time = wait_time
        self.out_dir = out_dir
        self.drawing = drawing or {}
        self._names: Counter[str] = Counter()
        if show:
            Visualizer.get_current_instance()._vis_backends = {}

    def after_test_iter(
        self, runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Paint the predictions of a batch."""
        if not self.every_n_inner_iters(batch_idx, self.interval):
            return
        for sample in outputs:
            path = Path(sample.img_path)
            self._names[path.stem] += 1
            count = self._names[path.stem]
            # Photos of one name in several folders.
            name = f'{path.stem}_{count}' if count > 1 else path.stem
            target = {}
            if self.out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.out_dir)
                target = dict(out_file=str(folder / f'{name}{path.suffix}'))
            # Whether there are labels may decide on the orientation.
            info = dict(
                img_path=str(path),
                seg_map_path=sample.get('seg_map_path'),
                instances=len(sample.get('gt_instances', ())),
            )
            Visualizer.get_current_instance().add_datasample(
                f'test_{name}',
                read_photo(info, self.steps),
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                **target,
                **self.drawing,
            )
