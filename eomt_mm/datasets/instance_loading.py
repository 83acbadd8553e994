"""Reading of instances in COCO's format."""

from mmdet.datasets import transforms

from eomt_mm.errors import UserError
from eomt_mm.registry import TRANSFORMS

from .pixels import SettlesPixels


@TRANSFORMS.register_module()
class LoadInstanceAnnotations(SettlesPixels, transforms.LoadAnnotations):
    """MMDet's `LoadAnnotations` with masks, for images of the size that is annotated.

    Polygons for another size lie in the wrong place: training would not notice, and
    testing would score 0.

    Args:
        with_mask (bool): Whether masks are loaded. Defaults to True.
        upright (bool): See :class:`SettlesPixels`. Defaults to False.
        **kwargs: Those of `mmdet.LoadAnnotations`.
    """

    def __init__(self, with_mask: bool = True, **kwargs) -> None:
        super().__init__(with_mask=with_mask, **kwargs)

    def transform(self, results: dict) -> dict:
        """Load boxes, labels and masks, if there is ground truth.

        Raises:
            UserError: If the annotation file gives the image another size.
        """
        self.settle(results)
        if 'instances' not in results:
            return results
        size = results['height'], results['width']
        if size != tuple(results['ori_shape']):
            raise UserError(
                f'{results["img_path"]} has {_pixels(results["ori_shape"])} pixels, '
                f'but {_pixels(size)} in the annotation file, so that its masks do not '
                'fit: was it resized? Write annotations for the image as it is stored. '
                'If they were drawn on the photo turned by its EXIF orientation, set '
                'upright=True in LoadInstanceAnnotations'
            )
        return super().transform(results)


def _pixels(size: tuple[int, int]) -> str:
    return ' x '.join(str(side) for side in size)
