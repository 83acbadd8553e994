"""Reading of label maps."""

from mmseg.datasets import transforms

from eomt_mm.registry import TRANSFORMS

from .reading import bring_to_eight_bits, check_label_size


@TRANSFORMS.register_module()
class LoadSemanticAnnotations(transforms.LoadAnnotations):
    """MMSeg's `LoadAnnotations` with checks; it follows `LoadImageFromFile` directly.

    It brings 16-bit grey images to 8 bits and requires a label map of the image's size.
    In inferencers, without a label map, it does only the former.

    Args:
        **kwargs: Arguments of `mmseg.LoadAnnotations`.
    """

    def transform(self, results: dict) -> dict:
        """Add `gt_seg_map`, (H, W) uint8.

        Raises:
            UserError: If the label map does not have the image's size, or the image has
                pixels of 32 bits.
        """
        bring_to_eight_bits(results, self.backend_args)
        if results.get('seg_map_path') is not None:
            results = super().transform(results)
            check_label_size(results)
        return results
