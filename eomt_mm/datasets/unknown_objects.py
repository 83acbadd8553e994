"""Data sets of unknown objects on roads, as they are released.

Their labels become 0 (known), 1 (unknown) and 255 (void), those of `OODMetric`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.datasets.cityscapes import CityscapesDataset as StockCityscapes

from eomt_mm.errors import UserError
from eomt_mm.registry import DATASETS

from .reading import ReadableDataset


@dataclass(frozen=True)
class Layout:
    """Where images and label maps are, and what the labels mean.

    Attributes:
        images (str): Folder of the images below the root.
        labels (str): Folder of the label maps.
        img_suffix (str): Ending of an image.
        seg_map_suffix (str): Ending of a label map, in place of the image's.
        values (dict[int, int]): Labels of which stored ones mean something else.
        number (int): Characters in front of the name of a label map that are not of
            its image's.
    """

    images: str
    labels: str
    img_suffix: str
    seg_map_suffix: str
    values: dict[int, int] = field(default_factory=dict)
    number: int = 0


LAYOUTS = {
    'smiyc': Layout('images', 'labels_masks', '.jpg', '_labels_semantic.png'),
    # Background, road, anomaly.
    'road_anomaly': Layout(
        'frames', 'frames', '.jpg', '.labels/labels_semantic.png', {1: 0, 2: 1}
    ),
    'fishyscapes': Layout(
        'leftImg8bit',
        'fishyscapes_lostandfound',
        '_leftImg8bit.png',
        '_labels.png',
        number=len('0000_'),
    ),
}


@DATASETS.register_module()
class UnknownObjectsDataset(ReadableDataset, BaseSegDataset):
    """SegmentMeIfYouCan, RoadAnomaly or Fishyscapes Lost & Found, as released.

    Args:
        layout (str): 'smiyc' (images/NAME.jpg, labels_masks/NAME_labels_semantic.png),
            'road_anomaly' (frames/NAME.jpg, frames/NAME.labels/labels_semantic.png) or
            'fishyscapes' (fishyscapes_lostandfound/0000_NAME_labels.png, and below
            leftImg8bit the images of Lost & Found, NAME_leftImg8bit.png, of which only
            those with a label map count). Defaults to 'smiyc'.
        **kwargs: Those of `mmseg.BaseSegDataset`. `img_suffix`, `seg_map_suffix` and
            `data_prefix` default to the layout's, where a release has '.webp' say so.
            `metainfo` has the classes that are predicted, which are not those of the
            labels, and defaults to Cityscapes'.
    """

    def __init__(self, layout: str = 'smiyc', **kwargs) -> None:
        if layout not in LAYOUTS:
            raise UserError(
                f'layout is {layout!r}, expected one of {", ".join(LAYOUTS)}'
            )
        self.layout = LAYOUTS[layout]
        if self.layout.number and kwargs.get('ann_file'):
            raise UserError(
                f'ann_file={kwargs["ann_file"]!r}: the label maps of {layout} name its '
                'images; leave ann_file out'
            )
        folders = dict(img_path=self.layout.images, seg_map_path=self.layout.labels)
        defaults = dict(
            data_prefix=folders,
            img_suffix=self.layout.img_suffix,
            seg_map_suffix=self.layout.seg_map_suffix,
            metainfo=StockCityscapes.METAINFO,
        )
        super().__init__(**defaults | kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images.

        Raises:
            UserError: An image lacks its label map, or the reverse, unless `ann_file`
                names the images.
        """
        if self.layout.number:
            data_list = self._with_labels()
        else:
            data_list = super().load_data_list()
            self._check_pairs(data_list)
        for item in data_list:
            item['label_map'] = self.layout.values or None
        return data_list

    def _with_labels(self) -> list[dict]:
        """List label maps with their images, which lie anywhere below a folder."""
        root = Path(self.data_prefix['img_path'])
        images = {path.name: path for path in root.rglob(f'*{self.img_suffix}')}
        data_list = []
        for path in self._label_maps():
            stem = path.name[self.layout.number :].removesuffix(self.seg_map_suffix)
            image = images.get(f'{stem}{self.img_suffix}')
            if image is None:
                raise UserError(
                    f'{stem}{self.img_suffix}, the image of {path}, is nowhere below '
                    f'{root}: unpack Lost & Found there'
                )
            info = dict(img_path=str(image), seg_map_path=str(path), seg_fields=[])
            data_list.append(info | dict(reduce_zero_label=self.reduce_zero_label))
        if not data_list:
            raise UserError(
                f'no label map {self.seg_map_suffix} in '
                f'{self.data_prefix["seg_map_path"]}: pass --cfg-options data_root=DIR'
            )
        return data_list

    def _check_pairs(self, data_list: list[dict]) -> None:
        wanted = {item['seg_map_path'] for item in data_list}
        found = {str(path) for path in self._label_maps()}
        extra = set() if self.ann_file else found - wanted
        for what, names in (('missing', wanted - found), ('extra', extra)):
            if names:
                raise UserError(
                    f'{what} label map {min(names)} ({len(names)} in all): each image '
                    f'needs one, ending in {self.seg_map_suffix}, and no more; '
                    'ann_file may name the images that have one'
                )

    def _label_maps(self) -> list[Path]:
        folder = Path(self.data_prefix['seg_map_path'])
        return sorted(folder.rglob(f'*{self.seg_map_suffix}'))
