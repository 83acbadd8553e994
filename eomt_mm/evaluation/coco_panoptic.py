"""MMDetection's panoptic metric, on any machine."""

import os
from collections.abc import Sequence

from mmdet.evaluation import CocoPanopticMetric as MMDetCocoPanopticMetric

from eomt_mm.errors import UserError
from eomt_mm.registry import METRICS

from .stand_in import provide_panopticapi

provide_panopticapi()


@METRICS.register_module()
class CocoPanopticMetric(MMDetCocoPanopticMetric):
    """PQ, SQ and RQ over all classes, things and stuff.

    Args:
        nproc (int, optional): Processes where results are written to
            `outfile_prefix`; without it, each image is scored as it comes. None means
            as many as the CPU cores of this process. Defaults to None.
        **kwargs: Those of `mmdet.CocoPanopticMetric`.
    """

    tmp_dir = None  # MMDet's __del__ reads it, also when __init__ failed

    def __init__(self, nproc: int | None = None, **kwargs) -> None:
        super().__init__(nproc=nproc or _available_cores(), **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Score one batch.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): With `pred_panoptic_seg`.

        Raises:
            UserError: If the annotation file has other classes than the dataset, or
                another order of them; MMDet takes its order for that of the labels.
                If there are no panoptic results.
        """
        if self._coco_api is not None:
            self._check_categories()
        copies = []
        for sample in data_samples:
            if 'pred_panoptic_seg' not in sample:
                raise UserError(
                    'the model has returned no panoptic results for '
                    'CocoPanopticMetric: set model.test_cfg.panoptic_on=True, or '
                    'another test_evaluator'
                )
            # MMDet writes its own number of void into the results, which on a CPU are
            # those that are then painted and saved.
            segments = sample['pred_panoptic_seg']
            segments = {**segments, 'sem_seg': segments['sem_seg'].clone()}
            copies.append({**sample, 'pred_panoptic_seg': segments})
        super().process(data_batch, copies)

    def _check_categories(self) -> None:
        ours = list(self.dataset_meta['classes'])
        theirs = [
            self.categories[category_id]['name']
            for category_id in self._coco_api.get_cat_ids(cat_names=ours)
        ]
        if theirs == ours:
            return
        missing = [name for name in ours if name not in theirs]
        fault = f'has no category {missing[0]!r}' if missing else 'has another order'
        raise UserError(
            f'the annotation file of CocoPanopticMetric {fault}: its categories must '
            f'be named and ordered as the {len(ours)} classes of the dataset, from '
            f'{ours[0]!r} to {ours[-1]!r}'
        )


def _available_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
