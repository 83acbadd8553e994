"""Reading label maps."""

from mmseg.datasets import transforms

from eomt_mm.registry import TRANSFORMS

from .reading import bring_to_eight_bits, check_label_size


@TRANSFORMS.register_module()
class LoadSemanticAnnotations(transforms.LoadAnnotations):
    """MMSeg's `LoadAnnotations`, with care; place it right behind `LoadImageFromFile`.

    16-bit grey images come out right, and a label map has the size of its image. In
    inferencers, without a label map, only the former is done.

    Args:
        **kwargs: Those of `mmseg.LoadAnnotations`.
    """

    def transform(self, results: dict) -> dict:
        """Add `gt_seg_map`, (H, W) uint8.

        Raises:
            UserError: The label map is not of the image's size, or the image has
                pixels of 32 bits.
        """
        bring_to_eight_bits(results, self.backend_args)
        if results.get('seg_map_path') is not None:
            results = super().transform(results)
            check_label_size(results)
        return results
