"""Evaluation: panoptic quality on a fresh machine.

`coco_instances`, `coco_panoptic` and `dump_results` need MMDetection and are not
imported here; the registry finds them at the first look-up.
"""

from .panoptic_quality import PQStat, id2rgb, rgb2id
from .stand_in import provide_panopticapi

__all__ = ['PQStat', 'id2rgb', 'provide_panopticapi', 'rgb2id']
