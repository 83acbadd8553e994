"""MMDetection's metric of instances, for the images that were tested."""

from collections.abc import Container, Sequence

from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.fileio import get_local_path

from eomt_mm.datasets.coco_file import InstanceFile
from eomt_mm.errors import UserError
from eomt_mm.registry import METRICS


@METRICS.register_module()
class CocoMetric(MMDetCocoMetric):
    """AP and AR of COCO, from an annotation file that is checked.

    MMDet counts every image of the file, tested or not, and COCOeval takes the
    annotation with id 0 for none.

    Args:
        ann_file (str, optional): None takes the ground truth of the data samples.
            Defaults to None.
        backend_args (dict, optional): MMEngine's file backend. Defaults to None.
        **kwargs: Those of `mmdet.CocoMetric`.
    """

    def __init__(
        self,
        ann_file: str | None = None,
        backend_args: dict | None = None,
        **kwargs,
    ) -> None:
        try:
            super().__init__(backend_args=backend_args, **kwargs)
        except KeyError as error:
            raise UserError(f'CocoMetric: {error.args[0]}') from error
        self._has_file = ann_file is not None
        if self._has_file:
            with get_local_path(ann_file, backend_args=backend_args) as path:
                self._coco_api = InstanceFile(path)
            annotations = self._coco_api.dataset['annotations']
            for number, annotation in enumerate(annotations, start=1):
                annotation['id'] = number
            self._coco_api.anns = {entry['id']: entry for entry in annotations}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of one batch.

        Raises:
            UserError: If the annotation file does not list an image.
        """
        if self._has_file:
            refuse_unlisted(self._coco_api.imgs, data_samples, 'CocoMetric')
        elif not all('instances' in sample for sample in data_samples):
            raise UserError(
                'CocoMetric has no ground truth: set its ann_file to that of the '
                "dataset, or add 'instances' to meta_keys of PackDetInputs"
            )
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Score the images that were tested.

        Raises:
            UserError: If they have no annotation that counts.
        """
        if self._has_file:
            self.img_ids = list(dict.fromkeys(truth['img_id'] for truth, _ in results))
            if not self.format_only:
                self._refuse_nothing()
        return super().compute_metrics(results)

    def _refuse_nothing(self) -> None:
        classes = self.dataset_meta['classes']
        scored = {*self._coco_api.get_cat_ids(cat_names=classes)}
        found = [a for image in self.img_ids for a in self._coco_api.imgToAnns[image]]
        if not any(a['category_id'] in scored and not a['iscrowd'] for a in found):
            raise UserError(
                f'there is no score: the {len(self.img_ids)} images that were tested '
                f'have {len(found)} annotations, each a crowd or of none of the '
                f'{len(classes)} classes: look at the ann_file of CocoMetric'
            )


def refuse_unlisted(
    listed: Container, data_samples: Sequence[dict], metric: str
) -> None:
    """Raise a UserError if an image is not in the evaluator's annotation file."""
    for sample in data_samples:
        if sample['img_id'] not in listed:
            raise UserError(
                f'the ann_file of {metric} does not list image {sample["img_id"]!r} '
                f'({sample["img_path"]}): give the evaluator the ann_file of the '
                'dataset that is tested'
            )
