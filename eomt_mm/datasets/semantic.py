"""MMSeg's semantic datasets, reading with care, and the synthetic scenes."""

from mmseg import datasets as mmseg_datasets
from mmseg.datasets import BaseSegDataset

from eomt_mm.registry import DATASETS

from .reading import ReadableDataset, check_label_size
from .scenes import CLASSES, PALETTE


class _SemanticDataset(ReadableDataset):
    """Adds the check that label maps fit their images, which evaluation needs."""

    def prepare_data(self, idx: int) -> dict | None:
        sample = super().prepare_data(idx)
        # In training the geometry has been at work, and has checked.
        if self.test_mode and sample and 'gt_sem_seg' in sample['data_samples']:
            data_sample = sample['data_samples']
            check_label_size(
                data_sample.gt_sem_seg.shape,
                data_sample.ori_shape,
                data_sample.seg_map_path,
            )
        return sample


@DATASETS.register_module()
class ADE20KDataset(_SemanticDataset, mmseg_datasets.ADE20KDataset):
    """ADE20K, 150 classes; labels 1..150 become 0..149 and 0 is ignored.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.ADE20KDataset`.
    """


@DATASETS.register_module()
class CityscapesDataset(_SemanticDataset, mmseg_datasets.CityscapesDataset):
    """Cityscapes, 19 classes, `_gtFine_labelTrainIds.png` label maps.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.CityscapesDataset`.
    """


@DATASETS.register_module()
class ScenesDataset(_SemanticDataset, BaseSegDataset):
    """The synthetic scenes of `tools/dataset_converters/make_scenes.py`.

    Laid out as ADE20K is: labels 1..7 become 0..6 and 0 is ignored.

    Args:
        img_suffix (str): Defaults to '.png': JPEG would smear the textures.
        reduce_zero_label (bool): Defaults to True.
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.BaseSegDataset`.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self, img_suffix: str = '.png', reduce_zero_label: bool = True, **kwargs
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )
