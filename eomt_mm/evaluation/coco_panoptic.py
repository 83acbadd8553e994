"""MMDetection's panoptic metric, on any machine."""

import math
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from mmdet.evaluation import CocoPanopticMetric as MMDetCocoPanopticMetric
from mmdet.evaluation.functional import INSTANCE_OFFSET, pq_compute_single_core
from mmengine.fileio import get_local_path

from eomt_mm.datasets.annotation_check import check_things
from eomt_mm.datasets.coco_file import PanopticFile
from eomt_mm.errors import UserError
from eomt_mm.registry import METRICS

from .coco_instances import refuse_unlisted
from .stand_in import provide_panopticapi

provide_panopticapi()

from panopticapi.evaluation import PQStat  # noqa: E402


@METRICS.register_module()
class CocoPanopticMetric(MMDetCocoPanopticMetric):
    """PQ, SQ and RQ over all classes, things and stuff.

    With an `ann_file`, the true map of an image is the PNG that its annotation names,
    and images without an annotation are not scored, as panopticapi does it. MMDet
    guesses the name from that of the photograph.

    Args:
        ann_file (str, optional): Checked as a whole; None takes the ground truth of
            the data samples. Defaults to None.
        nproc (int, optional): Processes where results are written to
            `outfile_prefix`; without it, each image is scored as it comes. None means
            as many as the CPU cores of this process. Defaults to None.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
        **kwargs: Those of `mmdet.CocoPanopticMetric`.
    """

    tmp_dir = None  # MMDet's __del__ reads it, also when __init__ failed

    def __init__(
        self,
        ann_file: str | None = None,
        nproc: int | None = None,
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        nproc = nproc or _available_cores()
        super().__init__(nproc=nproc, backend_args=backend_args, **kwargs)
        if ann_file:
            with get_local_path(ann_file, backend_args=backend_args) as path:
                self._coco_api = PanopticFile(path)
            self.categories = self._coco_api.cats
            for image, name in self._coco_api.map_names.items():
                self._coco_api.imgs[image]['segm_file'] = name

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
            refuse_unlisted(self._coco_api.imgs, data_samples, 'CocoPanopticMetric')
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
            ids = segments['sem_seg'].clone()
            # It writes 0 for void; without things, the first class of stuff has it.
            ids[ids == 0] = INSTANCE_OFFSET
            segments = {**segments, 'sem_seg': ids}
            copies.append({**sample, 'pred_panoptic_seg': segments})
        super().process(data_batch, copies)

    def _compute_batch_pq_stats(self, data_samples: Sequence[dict]) -> None:
        """Score each image at once."""
        if self._coco_api is None:
            return super()._compute_batch_pq_stats(data_samples)
        classes = self.dataset_meta['classes']
        categories = dict(enumerate(self._coco_api.get_cat_ids(cat_names=classes)))
        for sample in data_samples:
            image = sample['img_id']
            if image not in self._coco_api.map_names:
                # An entry for each image: MMEngine counts them across processes.
                self.results.append(PQStat())
                continue
            name = self._coco_api.map_names[image]
            prediction = self._parse_predictions(sample, image, name, categories)
            height, width = sample['ori_shape'][:2]
            truth = dict(
                image_id=image,
                width=width,
                height=height,
                file_name=name,
                segments_info=self._coco_api.imgToAnns[image],
            )
            stat = pq_compute_single_core(
                proc_id=0,
                annotation_set=[(truth, prediction)],
                gt_folder=self.seg_prefix,
                pred_folder=self.seg_out_dir,
                categories=self.categories,
                backend_args=self.backend_args,
            )
            self.results.append(stat)

    def _process_gt_and_predictions(self, data_samples: Sequence[dict]) -> None:
        """Write each result under the name of its true map; all are scored later."""
        if self._coco_api is None:
            return super()._process_gt_and_predictions(data_samples)
        for sample in data_samples:
            image = sample['img_id']
            # Images without a map have none to be mistaken for.
            name = self._coco_api.map_names.get(image) or self._own_name(image)
            height, width = sample['ori_shape'][:2]
            truth = dict(image_id=image, width=width, height=height)
            prediction = self._parse_predictions(sample, image, name)
            self.results.append((truth, prediction))

    def _own_name(self, image: int | str) -> str:
        """Name of the result of an image without a true map: that of its photo."""
        photo = self._coco_api.imgs[image]['file_name']
        name = PurePosixPath(photo).with_suffix('.png').as_posix()
        taken = self._coco_api.map_names.values()
        return f'{photo}.png' if name in taken else name

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over the classes.

        Raises:
            UserError: If the file has no annotations, or none of the images that were
                tested has one that counts.
        """
        if not (self._coco_api is None or self._coco_api.map_names or self.format_only):
            raise UserError(
                'the ann_file of CocoPanopticMetric has no annotations, so there is no '
                'score: give it another file, or set format_only=True and '
                'outfile_prefix to have the results written only'
            )
        scores = super().compute_metrics(results)
        if math.isnan(scores.get('PQ', 0)):
            raise UserError(
                f'there is no score: the {len(results)} images that were tested have '
                'no segments but crowds, and nothing is predicted: look at the '
                'ann_file of CocoPanopticMetric'
            )
        return scores

    def _check_categories(self) -> None:
        ours = list(self.dataset_meta['classes'])
        theirs = [
            self.categories[category_id]['name']
            for category_id in self._coco_api.get_cat_ids(cat_names=ours)
        ]
        if theirs == ours:
            categories = self._coco_api.dataset['categories']
            check_things(self._coco_api.path, categories, self.dataset_meta)
            return
        missing = [name for name in ours if name not in theirs]
        twice = [name for name in theirs if theirs.count(name) > 1]
        fault = f'has no category {missing[0]!r}' if missing else 'has another order'
        if twice:
            fault = f'has {theirs.count(twice[0])} categories {twice[0]!r}'
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
