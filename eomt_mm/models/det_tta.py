"""Test-time augmentation of MMDetection's tasks.

MMDetection's own merges boxes. Here the logits of all views of an image are merged, and
then become panoptic segments, instances or classes as those of one view do.
"""

from mmdet.structures import DetDataSample
from mmengine.model import BaseTTAModel
from torch import nn

from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .detector import QueryDetector
from .tiles import Segments
from .views import View, check_merge, merge_views


@MODELS.register_module()
class EoMTDetTTAModel(BaseTTAModel):
    """Test-time augmentation of a panoptic or instance detector of this package.

    Args:
        module (dict | nn.Module): The detector, or its config.
        data_preprocessor (dict, optional): Takes the place of the detector's.
        merge (str): 'match' or 'query', see `views.merge_views`. Defaults to 'match'.
        match_thr (float): See `views.merge_views`. Defaults to 0.25.

    Raises:
        UserError: If the detector is another, or cuts images into tiles.
    """

    def __init__(
        self,
        module: dict | nn.Module,
        data_preprocessor: dict | None = None,
        merge: str = 'match',
        match_thr: float = 0.25,
    ) -> None:
        check_merge(merge, match_thr)
        super().__init__(module, data_preprocessor)
        if not isinstance(self.module, QueryDetector):
            raise UserError(
                f'EoMTDetTTAModel merges views of the detectors of eomt_mm, not of '
                f'{type(self.module).__name__}: leave --tta out, or set a tta_model '
                'that does in the config'
            )
        if self.module.tiling:
            raise UserError(
                'test-time augmentation with test_cfg.tiles: views would be merged '
                'with tiles in them. Leave --tta out, or set model.test_cfg.tiles=None'
            )
        self.module.logits_only = True
        self.merge, self.match_thr = merge, match_thr

    def merge_preds(
        self, data_samples_list: list[list[DetDataSample]]
    ) -> list[DetDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list (list[list[DetDataSample]]): The views of each image,
                with `query_logits`.

        Returns:
            list[DetDataSample]: The first view of each, with the results of all.
        """
        merged = [samples[0] for samples in data_samples_list]
        results = []
        for samples in data_samples_list:
            views = [view_of(sample) for sample in samples]
            segments = merge_views(views, self.merge, self.match_thr)
            ori_shape = tuple(samples[0].ori_shape[:2])
            results.append(self.module.panoptic_fusion_head.result(segments, ori_shape))
            for sample in samples:
                del sample.query_logits
        return self.module.add_pred_to_datasample(merged, results)


def view_of(sample: DetDataSample) -> View:
    """Read a view from what `QueryDetector` leaves in a sample."""
    logits = sample.query_logits
    segments = Segments(
        logits.class_logits,
        logits.mask_logits,
        tuple(sample.img_shape[:2]),
        tuple(sample.batch_input_shape),
    )
    meta = sample.metainfo
    return View(segments, meta.get('flip_direction') if meta.get('flip') else None)
