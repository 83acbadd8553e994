"""MMSegmentation's metric of classes, which says what it does not score."""

import logging
from collections.abc import Sequence

import numpy as np
from mmengine.logging import print_log
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from eomt_mm.errors import UserError
from eomt_mm.registry import METRICS

MANY = 0.5  # of the pixels; so many ignored ones are worth a line


@METRICS.register_module()
class IoUMetric(MMSegIoUMetric):
    """Mean IoU and the like of the classes that occur.

    Args:
        **kwargs: Those of `mmseg.IoUMetric`.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch, those without a class too."""
        before = len(self.results)
        super().process(data_batch, data_samples)
        if self.format_only:
            return
        for place, sample in enumerate(data_samples, start=before):
            counts = self.results[place]
            pixels = sample['gt_sem_seg']['data'].numel()
            self.results[place] = (*counts, pixels)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Average over the classes.

        Raises:
            UserError: No pixel has a class, so that there is no score.
        """
        if self.format_only:
            return {}
        *counts, pixels = zip(*results, strict=True)
        self._say_what_is_left_out(np.array(sum(counts[3])), sum(pixels), len(results))
        return super().compute_metrics([*zip(*counts, strict=True)])

    def _say_what_is_left_out(
        self, areas: np.ndarray, pixels: int, images: int
    ) -> None:
        classes = self.dataset_meta['classes']
        ignored = int(pixels - areas.sum())
        reduces = bool(self.dataset_meta.get('reduce_zero_label'))
        share = (
            f'{ignored} of the {pixels} pixels ({ignored / pixels:.0%}) in the labels '
            f'of {images} images are ignored'
        )
        absent = [n for n, area in zip(classes, areas, strict=True) if not area]
        if len(absent) == len(classes):
            raise UserError(
                f'there is no score: {share}; look at reduce_zero_label={reduces} and '
                'the classes of the test dataset'
            )
        notes = []
        if absent:
            more = ', ...' if len(absent) > 5 else ''
            notes.append(
                f'{len(absent)} of {len(classes)} classes never occur in the labels of '
                f'{images} images: {", ".join(absent[:5])}{more}; those that are not '
                'predicted either are left out of the mean'
            )
        if len(classes) == 1 and ignored:
            notes.append(
                f'{share}, and all others are {classes[0]!r}, so that any model '
                'scores 100: list the background in classes, too, and set '
                'reduce_zero_label=False'
            )
        elif ignored > MANY * pixels:
            notes.append(f'{share}: see that reduce_zero_label={reduces} is meant')
        for note in notes:
            print_log(note, logger='current', level=logging.WARNING)
