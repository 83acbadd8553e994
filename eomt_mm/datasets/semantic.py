"""MMSeg's semantic datasets, reading with care, and the synthetic scenes."""

from pathlib import Path

from mmseg import datasets as mmseg_datasets
from mmseg.datasets import BaseSegDataset

from eomt_mm.registry import DATASETS

from .reading import ReadableDataset
from .scenes import CLASSES, PALETTE


@DATASETS.register_module()
class ADE20KDataset(ReadableDataset, mmseg_datasets.ADE20KDataset):
    """ADE20K, 150 classes; labels 1..150 become 0..149 and 0 is ignored.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.ADE20KDataset`.
    """


@DATASETS.register_module()
class CityscapesDataset(ReadableDataset, mmseg_datasets.CityscapesDataset):
    """Cityscapes, 19 classes, `_gtFine_labelTrainIds.png` label maps.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.CityscapesDataset`.
    """

    @property
    def labels_advice(self) -> str:
        """How to make the maps from the released ones, where those are there."""
        root = Path(self.data_prefix.get('seg_map_path') or '.')
        if not any(root.rglob('*_labelIds.png')) or any(
            root.rglob('*_labelTrainIds.png')
        ):
            return ''
        return (
            f'{root} has label maps as released (labelIds), not converted to the '
            f'{len(self.metainfo["classes"])} classes: run "pip install '
            f'cityscapesscripts" and "CITYSCAPES_DATASET={self.data_root} '
            'csCreateTrainIdLabelImgs", which writes *_gtFine_labelTrainIds.png'
        )


@DATASETS.register_module()
class SegDataset(ReadableDataset, BaseSegDataset):
    """Any images with label maps: a user's own, with classes in `metainfo`.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Those of `mmseg.BaseSegDataset`.
    """


@DATASETS.register_module()
class ScenesDataset(ReadableDataset, BaseSegDataset):
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
