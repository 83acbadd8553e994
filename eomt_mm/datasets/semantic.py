"""MMSeg's semantic datasets with careful reading, and the synthetic scenes."""

from collections.abc import Sequence
from pathlib import Path

from mmseg import datasets as mmseg_datasets
from mmseg.datasets import BaseSegDataset

from eomt_mm.errors import UserError
from eomt_mm.registry import DATASETS

from .reading import ReadableDataset
from .scenes import CLASSES, PALETTE
from .scenes_ood import CORRUPTIONS, STRENGTHS


@DATASETS.register_module()
class ADE20KDataset(ReadableDataset, mmseg_datasets.ADE20KDataset):
    """ADE20K, 150 classes; labels 1..150 become 0..149 and 0 is ignored.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.ADE20KDataset`.
    """


@DATASETS.register_module()
class CityscapesDataset(ReadableDataset, mmseg_datasets.CityscapesDataset):
    """Cityscapes, 19 classes, `_gtFine_labelTrainIds.png` label maps.

    Args:
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.CityscapesDataset`.
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


# COCO's ids from 1 to 182, of which eleven stand for nothing; maps store id - 1.
COCO_STUFF_VALUES = tuple(
    value
    for value in range(182)
    if value not in (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
)


@DATASETS.register_module()
class COCOStuffDataset(ReadableDataset, mmseg_datasets.COCOStuffDataset):
    """COCO-Stuff 164k, 171 classes, with the maps of the release.

    MMSeg's class needs maps that its converter has written anew; these are read with
    `seg_map_suffix='_labelTrainIds.png'`.

    Args:
        seg_map_suffix (str): Defaults to '.png', the maps as released.
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.COCOStuffDataset`.
    """

    def __init__(self, seg_map_suffix: str = '.png', **kwargs) -> None:
        super().__init__(seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images."""
        if self.seg_map_suffix == '.png':
            chosen = self.label_map or {}  # where metainfo.classes names some
            self.label_map = dict.fromkeys(range(256), self.ignore_index) | {
                value: chosen.get(label, label)
                for label, value in enumerate(COCO_STUFF_VALUES)
            }
        return super().load_data_list()


@DATASETS.register_module()
class PascalVOCDataset(ReadableDataset, BaseSegDataset):
    """Pascal VOC 2012, 21 classes with the background.

    MMSeg's own class stops with a bare assertion where a file is missing.

    Args:
        ann_file (str): Names of the images, one a line, without suffix.
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.BaseSegDataset`.
    """

    METAINFO = mmseg_datasets.PascalVOCDataset.METAINFO

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: If the list of names is missing.
        """
        if not Path(self.ann_file).is_file():
            raise UserError(
                f'{self.ann_file} does not exist: PascalVOCDataset reads the names of '
                'its images there; pass --cfg-options data_root=DIR with the folder '
                'VOCdevkit/VOC2012, or mend ann_file'
            )
        return super().load_data_list()


@DATASETS.register_module()
class SegDataset(ReadableDataset, BaseSegDataset):
    """Any images with label maps: a user's own, with classes in `metainfo`.

    Args:
        label_values (Sequence[int], optional): The stored value of each class; all
            others are void. (0, 255) takes masks of black and white. None stands for
            0, 1, 2 and so on, with 255 for void. Defaults to None.
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.BaseSegDataset`.
    """

    def __init__(
        self, *args, label_values: Sequence[int] | None = None, **kwargs
    ) -> None:
        self.label_values = label_values
        super().__init__(*args, **kwargs)
        # MMSegmentation's tools read the classes here, not in `metainfo`.
        self.METAINFO = {k: self._metainfo.get(k) for k in ('classes', 'palette')}

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: There are none, or not a value for each class.
        """
        if self.label_values is not None:
            count = len(self.metainfo['classes'])
            if len(set(self.label_values)) != count or self.reduce_zero_label:
                raise UserError(
                    f'label_values={tuple(self.label_values)} for {count} classes: '
                    'expected a value for each class, and reduce_zero_label=False'
                )
            self.label_map = dict.fromkeys(range(256), self.ignore_index)
            self.label_map |= {v: label for label, v in enumerate(self.label_values)}
        return super().load_data_list()


@DATASETS.register_module()
class ScenesDataset(ReadableDataset, BaseSegDataset):
    """The synthetic scenes of `tools/dataset_converters/make_scenes.py`.

    The layout is ADE20K's: labels 1..7 become 0..6 and 0 is ignored.

    Args:
        img_suffix (str): Defaults to '.png': JPEG would smear the textures.
        reduce_zero_label (bool): Defaults to True.
        skip_unreadable (bool): See :class:`ReadableDataset`. Defaults to False.
        **kwargs: Arguments of `mmseg.BaseSegDataset`.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)

    def __init__(
        self, img_suffix: str = '.png', reduce_zero_label: bool = True, **kwargs
    ) -> None:
        super().__init__(
            img_suffix=img_suffix, reduce_zero_label=reduce_zero_label, **kwargs
        )


# What `reduce_zero_label` does, for some images of a dataset only.
FROM_ZERO = {0: 255, **{label + 1: label for label in range(len(CLASSES))}}


@DATASETS.register_module()
class OODScenesDataset(ScenesDataset):
    """Validation scenes as they are, corrupted, and with an unknown object, in one.

    What `make_scenes.py --ood` writes. The first two have the labels of the scenes; the
    last have 0 where pixels are known and 1 where they are of the unknown object.
    Evaluators tell them apart by their paths: `/images/validation/`, `/ood/KIND_N/` and
    `/ood/unknown/`.

    Args:
        data_root (str): Holds `images/`, `annotations/` and `ood/`.
        sets (Sequence[str], optional): Some of `validation`, `KIND_N` and `unknown`.
            Defaults to all.
        **kwargs: Those of :class:`ScenesDataset`.
    """

    def __init__(self, sets: Sequence[str] | None = None, **kwargs) -> None:
        corrupted = [f'{kind}_{n}' for kind in CORRUPTIONS for n in STRENGTHS]
        self.folders = {
            'validation': 'images/validation',
            **{name: f'ood/{name}' for name in corrupted},
            'unknown': 'ood/unknown/images',
        }
        self.sets = [*self.folders] if sets is None else sets
        strange = [name for name in self.sets if name not in self.folders]
        if strange:
            raise UserError(
                f'OODScenesDataset: sets has {strange[0]!r}, expected some of '
                f'{", ".join(self.folders)}'
            )
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images, set after set.

        Raises:
            UserError: There are no scenes out of distribution.
        """
        root = Path(self.data_root)
        data_list = []
        for name in self.sets:
            images = root / self.folders[name]
            found = sorted(images.glob(f'*{self.img_suffix}'))
            if not found:
                raise UserError(
                    f'no scenes in {images}: write them with '
                    'tools/dataset_converters/make_scenes.py DIR --ood'
                )
            maps, suffix, label_map = root / 'annotations/validation', '', FROM_ZERO
            if name == 'unknown':
                maps, suffix, label_map = root / 'ood/unknown/labels', '_labels', None
            data_list += [
                dict(
                    img_path=str(path),
                    seg_map_path=str(maps / f'{path.stem}{suffix}.png'),
                    label_map=label_map,
                    reduce_zero_label=False,
                    seg_fields=[],
                )
                for path in found
            ]
        return data_list
