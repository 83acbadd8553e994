"""An exported model on the page: NumPy, Pillow and ONNX Runtime."""

import time

import numpy as np

from eomt_mm.deploy import Predictor, postprocess
from eomt_mm.deploy.painting import SURE, paint
from eomt_mm.deploy.predictor import Windows
from eomt_mm.errors import UserError

from .outputs import Logits, Model, Outputs, Size
from .saving import run_lengths
from .segments import Segments, from_ids, from_masks, panoptic_scores
from .settings import OFF, Run, View

MOST_BYTES = 2e9  # of instance masks at once


class OnnxModel(Model):
    """A file of `tools/deployment/export.py`.

    Args:
        path (str): The file.
        name (str): For the page.
    """

    def __init__(self, path: str, name: str) -> None:
        self.name, self.predictor = name, Predictor(path)
        meta = self.predictor.meta
        self.task, self.num_things = meta['task'], meta['num_things']
        self.classes, self.palette = meta['classes'], meta['palette']
        test = meta['test']
        self.thresholds = {
            'semantic': {},
            'panoptic': dict(
                object_mask_thr=test['score_thr'], iou_thr=test['overlap_thr']
            ),
            'instance': dict(
                object_mask_thr=SURE, max_per_image=int(test['max_per_image'])
            ),
        }[self.task]
        self.dtypes, self.merging = [str(meta.get('dtype', 'fp32'))], [OFF]
        self.steps, self.confidences = [], []

    def look(self, pixels: np.ndarray, run: Run) -> Outputs:
        """See `Model.look`."""
        start = time.perf_counter()
        windows = Windows(pixels, self.predictor.meta)
        begun = time.perf_counter()
        logits = zip(*self.predictor.logits(windows.crops), strict=True)
        step = Logits(*map(np.stack, logits))
        seconds = dict(fit=begun - start, network=time.perf_counter() - begun)
        windows.crops = []  # nothing needs the pixels any more
        return Outputs([step], windows.fitted, windows.whole, seconds, windows)

    def finish(self, outputs: Outputs, view: View, size: Size) -> Segments:
        """See `Model.finish`."""
        result = self._result(outputs, view, size)
        if self.task == 'semantic':
            return from_ids(result, -1, {}, offset=2**31)
        if self.task == 'panoptic':
            void, logits = len(self.classes), (part[0] for part in outputs.steps[0])
            scores = panoptic_scores(
                result, void, *logits, outputs.fitted, outputs.padded
            )
            return from_ids(result, void, scores)
        least = (self.thresholds | view.thresholds)['object_mask_thr']
        count = int((result.scores > least).sum())  # the surest come first
        masks = result.masks[:count]
        return from_masks(
            masks,
            result.labels[:count],
            result.scores[:count],
            [run_lengths(mask) for mask in masks],
            size,
        )

    def picture(self, pixels: np.ndarray, outputs: Outputs, view: View) -> np.ndarray:
        """See `Model.picture`; the painter is that of `eomt_mm.deploy`."""
        result = self._result(outputs, view, pixels.shape[:2])
        return np.asarray(paint(pixels, result, self.predictor.meta))

    def _result(self, outputs: Outputs, view: View, size: Size):
        """Finish as `Predictor` does, with other thresholds."""
        step = outputs.steps[0]
        if self.task == 'semantic':
            scores = outputs.windows.average(zip(*step, strict=True))
            return postprocess.best_classes(scores, size)
        values = self.thresholds | view.thresholds
        test = dict(
            score_thr=values['object_mask_thr'],
            overlap_thr=values.get('iou_thr'),
            max_per_image=values.get('max_per_image', 0),
        )
        needed = test['max_per_image'] * size[0] * size[1]
        if needed > MOST_BYTES:
            raise UserError(
                f'{test["max_per_image"]} masks of this photo take '
                f'{needed / 1e9:.1f} GB: choose a smaller max_per_image'
            )

        def fit(mask: np.ndarray) -> np.ndarray:
            mask = postprocess.resize(mask, outputs.padded)
            height, width = outputs.fitted
            return postprocess.resize(mask[:height, :width], size)

        meta = self.predictor.meta | dict(test=test)
        finish = getattr(postprocess, self.task)
        return finish(step.classes[0], step.masks[0], fit, size, meta)
