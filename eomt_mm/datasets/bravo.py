"""The tree of BRAVO (arXiv 2409.15107, https://github.com/valeoai/bravo_challenge).

There is a folder `bravo_SUBSET` for each of six subsets. Ground truth has the same tree
in another root, with the suffix of the image replaced. Semantic maps hold the 19 train
ids and 255. Masks are 0 where a pixel is valid, something else where it is of an
unknown object or hidden by a corruption; unknown objects are in two of the subsets.
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
# Endings of a submission's files.
PAIR = ('_pred.png', '_conf.png')
# The challenge's images, in all subsets.
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
            # Ground truth and submissions may lie in the same tree.
            if not path.name.endswith((subset.labels, subset.mask, *PAIR)):
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
