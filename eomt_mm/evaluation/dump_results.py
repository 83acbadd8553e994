"""MMDet's dump of results, for encoded masks too."""

import pickle
from collections.abc import Sequence

from mmdet.evaluation import DumpDetResults as MMDetDumpDetResults
from mmengine.logging import print_log

from eomt_mm.files import atomic_path
from eomt_mm.registry import METRICS


@METRICS.register_module()
class DumpDetResults(MMDetDumpDetResults):
    """Writes all predictions to a pickle file, masks run-length encoded.

    MMDet's own class encodes masks itself and fails if the model has encoded them
    (`test_cfg.encode_masks`).

    Args:
        **kwargs: Arguments of `mmdet.DumpDetResults`.
    """

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of one batch, on the CPU and without ground truth."""
        for sample in data_samples:
            found = dict(sample.get('pred_instances', {}))
            encoded = found.get('masks')
            if isinstance(encoded, list):
                del found['masks']
                sample = dict(sample, pred_instances=found)
            super().process(data_batch, [sample])
            if isinstance(encoded, list):
                masks = [dict(mask) for mask in encoded]  # builtin types only
                self.results[-1]['pred_instances']['masks'] = masks

    def compute_metrics(self, results: list) -> dict:
        """Write all predictions, whole or not at all."""
        with atomic_path(self.out_file_path) as partial, partial.open('wb') as file:
            pickle.dump(results, file, protocol=2)
        print_log(f'results are saved to {self.out_file_path}', logger='current')
        return {}
