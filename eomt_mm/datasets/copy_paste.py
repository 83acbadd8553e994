"""Instances of one training image pasted into another."""

from mmdet.datasets import transforms

from eomt_mm.registry import TRANSFORMS

from . import instances


@TRANSFORMS.register_module()
class CopyPaste(transforms.CopyPaste):
    """MMDet's `CopyPaste`, for panoptic label maps too.

    MMDet's version (Simple Copy-Paste, arXiv 2012.07177) leaves the label map as it is,
    so that stuff would be learnt under what was pasted over it. Here the label map
    follows. Instances that nothing is left of are dropped, and the image keeps its
    type. Both images have one size: the wrapper `MultiImageMixDataset` of MMDet reads
    them after the crop.

    Args:
        **kwargs: Those of `mmdet.CopyPaste`.
    """

    def _copy_paste(self, dst_results: dict, src_results: dict) -> dict:
        dtype, labels = dst_results['img'].dtype, dst_results.get('gt_seg_map')
        if labels is not None:
            for mask, label in zip(
                src_results['gt_masks'].masks,
                src_results['gt_bboxes_labels'],
                strict=True,
            ):
                labels[mask > 0] = label
        results = super()._copy_paste(dst_results, src_results)
        results['img'] = results['img'].astype(dtype, copy=False)
        instances.keep(results, results['gt_masks'].masks.any(axis=(1, 2)))
        return results
