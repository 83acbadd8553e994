"""The trees of BRAVO and of the data sets of unknown objects.

BRAVO (arXiv 2409.15107, https://github.com/valeoai/bravo_challenge): a folder
`bravo_SUBSET` for each of six subsets; ground truth has the same tree in another root,
with the suffix of the image replaced. Semantic maps hold the 19 train ids and 255;
masks are 0 where a pixel is valid, something else where it is of an unknown object or
hidden by a corruption. What hides it is no unknown object: those are in two subsets.
"""

from dataclasses import dataclass
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.datasets.cityscapes import CityscapesDataset as StockCityscapes

from eomt_mm.errors import UserError
from eomt_mm.registry import DATASETS

from .reading import ReadableDataset


@dataclass(frozen=True)
class Subset:
    """How a subset of BRAVO is laid out and what is measured of it.

    Attributes:
        folder (str): Below the root.
        image (str): Suffix of images.
        stem (str): Suffix of predictions, less `_pred.png` and `_conf.png`.
        labels (str): Suffix of semantic maps.
        mask (str): Suffix of masks of invalid pixels.
        semantic (bool): Whether the semantic maps are real.
        ood (bool): Whether invalid pixels are to be found by low confidence.
    """

    folder: str
    image: str
    stem: str
    labels: str
    mask: str
    semantic: bool = True
    ood: bool = False


def _driving(folder: str, image: str) -> Subset:
    stem = image.removesuffix('.png')
    return Subset(folder, image, stem, '_gt_labelTrainIds.png', '_gt_invIds.png')


SUBSETS = {
    **{
        f'ACDC{weather}': _driving(f'bravo_ACDC/{weather}', '_rgb_anon.png')
        for weather in ('fog', 'rain', 'night', 'snow')
    },
    'synrain': _driving('bravo_synrain', '_leftImg8bit.png'),
    'SMIYC': Subset(
        'bravo_SMIYC',
        '.jpg',
        '',
        '_labels_semantic_fake.png',
        '_labels_semantic.png',
        semantic=False,
        ood=True,
    ),
    'synobjs': Subset('bravo_synobjs', '.png', '', '_gt.png', '_mask.png', ood=True),
    'synflare': _driving('bravo_synflare', '_leftImg8bit.png'),
    'outofcontext': _driving('bravo_outofcontext', '_leftImg8bit.png'),
}
# The challenge's own, in all subsets.
NUM_IMAGES = 3901


def images_of(root: Path) -> list[tuple[str, Path, str]]:
    """List the images of a tree.

    Args:
        root (Path): Holds `bravo_*` folders, some or all.

    Returns:
        list[tuple[str, Path, str]]: For each image its subset, its path relative to
        the root, and the same path without suffix, as ground truth has it.

    Raises:
        UserError: There are none.
    """
    found = []
    for name, subset in SUBSETS.items():
        for path in sorted((root / subset.folder).rglob(f'*{subset.image}')):
            base = str(path.relative_to(root))[: -len(subset.image)]
            if not f'{base}{subset.image}'.endswith((subset.labels, subset.mask)):
                found.append((name, path.relative_to(root), base))
    if not found:
        folders = ', '.join(sorted({subset.folder for subset in SUBSETS.values()}))
        raise UserError(
            f'{root} has no image of BRAVO: expected folders {folders}; pass '
            '--cfg-options data_root=DIR'
        )
    return found


@DATASETS.register_module()
class BravoDataset(ReadableDataset, BaseSegDataset):
    """The images of BRAVO's tree, all subsets present, without ground truth.

    Args:
        data_root (str): Holds the `bravo_*` folders.
        **kwargs: Those of `mmseg.BaseSegDataset`.
    """

    METAINFO = StockCityscapes.METAINFO

    def load_data_list(self) -> list[dict]:
        """List the images in BRAVO's order."""
        root = Path(self.data_root)
        return [
            dict(
                img_path=str(root / path),
                bravo=(name, base),
                label_map=self.label_map,
                reduce_zero_label=False,
                seg_fields=[],
            )
            for name, path, base in images_of(root)
        ]


# Suffixes of images and label maps, and their folders below the root.
LAYOUTS = {
    'smiyc': ('images', 'labels_masks', '_labels_semantic.png'),
    'fishyscapes': ('images', 'labels', '_labels.png'),
    'road_anomaly': ('original', 'labels', '.png'),
}


@DATASETS.register_module()
class UnknownObjectsDataset(ReadableDataset, BaseSegDataset):
    """SegmentMeIfYouCan, Fishyscapes or RoadAnomaly: 0 known, 1 unknown, 255 void.

    Args:
        layout (str): 'smiyc' (images/NAME.jpg, labels_masks/NAME_labels_semantic.png),
            'fishyscapes' (images/NAME.png, labels/NAME_labels.png) or 'road_anomaly'
            (original/NAME.jpg, labels/NAME.png). Defaults to 'smiyc'.
        img_suffix (str): Defaults to '.jpg'.
        **kwargs: Those of `mmseg.BaseSegDataset`; `metainfo` names the classes that
            are predicted, and they are not those of the labels.
    """

    def __init__(
        self, layout: str = 'smiyc', img_suffix: str = '.jpg', **kwargs
    ) -> None:
        if layout not in LAYOUTS:
            raise UserError(
                f'layout is {layout!r}, expected one of {", ".join(LAYOUTS)}'
            )
        images, labels, suffix = LAYOUTS[layout]
        kwargs.setdefault('data_prefix', dict(img_path=images, seg_map_path=labels))
        super().__init__(img_suffix=img_suffix, seg_map_suffix=suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: An image lacks its label map, or the reverse, unless `ann_file`
                names the images.
        """
        data_list = super().load_data_list()
        wanted = {item['seg_map_path'] for item in data_list}
        folder = Path(self.data_prefix['seg_map_path'])
        found = {str(path) for path in folder.rglob(f'*{self.seg_map_suffix}')}
        extra = set() if self.ann_file else found - wanted
        for what, names in (('missing', wanted - found), ('extra', extra)):
            if names:
                raise UserError(
                    f'{what} label map {min(names)} ({len(names)} in all): each image '
                    f'needs one, ending in {self.seg_map_suffix}, and no more; '
                    'ann_file may name the images that have one'
                )
        return data_list
