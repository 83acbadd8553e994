"""Label maps of a semantic data set: are they there, do they fit the classes.

All are looked for, a few are read.
"""

import logging
import os

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from eomt_mm.errors import UserError

READ = 8  # of the label maps, spread over the data set


def check_label_maps(dataset: BaseDataset, split: str) -> None:
    """Check the label maps of a dataset before anything is trained or tested.

    With a single class and `reduce_zero_label`, a warning says how many pixels are
    ignored: every model scores 100 then.

    Args:
        dataset (BaseDataset): As built; passed over where it has no label maps.
        split (str): 'train', 'val' or 'test', for messages.

    Raises:
        UserError: Label maps are missing or damaged, or have labels of no class.
    """
    # Imported here: datasets bring the frameworks, without which other tools run.
    from eomt_mm.datasets import ReadableDataset

    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    infos = [info for info in infos if info.get('seg_map_path')]
    if not infos or 'reduce_zero_label' not in infos[0]:
        return
    advice, may_lack = '', False
    if isinstance(dataset, ReadableDataset):
        advice, may_lack = dataset.labels_advice, dataset.skip_unreadable
    missing = [i for i in infos if not os.path.exists(i['seg_map_path'])]
    if missing and not (may_lack and len(missing) < len(infos)):
        way_out = advice or 'look at data_prefix.seg_map_path and seg_map_suffix'
        raise UserError(
            f'{len(missing)} of {len(infos)} label maps of the {split} dataset are '
            f'missing, the first is {missing[0]["seg_map_path"]}: {way_out}'
        )
    places = np.linspace(0, len(infos) - 1, min(READ, len(infos))).round().astype(int)
    counts = sum(_count(infos[place], dataset, advice, may_lack) for place in places)
    classes = dataset.metainfo.get('classes') or ()
    if len(classes) == 1 and infos[0]['reduce_zero_label'] and counts.sum():
        print_log(
            f'{split}_dataloader: reduce_zero_label=True and the one class '
            f'{classes[0]!r}: label 0 never occurs as a class, and '
            f'{counts[255:].sum()} of {counts.sum()} pixels '
            f'({counts[255:].sum() / counts.sum():.0%}) of the {len(places)} label '
            f'maps that were looked at are ignored, so that any model scores 100. '
            'List the background in classes, too, and set reduce_zero_label=False',
            level=logging.WARNING,
        )


def _count(info: dict, dataset: BaseDataset, advice: str, may_lack: bool) -> np.ndarray:
    """Count the pixels of each label of one label map, shape (256,)."""
    from eomt_mm.datasets.reading import fault_of
    from eomt_mm.datasets.semantic_loading import label_table, read_label_map

    path = info['seg_map_path']
    if not os.path.exists(path):
        return np.zeros(256, int)
    try:
        stored = read_label_map(path)
    except UserError:
        raise
    except Exception as error:
        fault = fault_of(path)
        if fault is None:
            raise
        if may_lack:
            return np.zeros(256, int)
        raise UserError(
            f'cannot read {path}: {fault}; {advice or "mend or remove the file"}'
        ) from error
    table = label_table(info['reduce_zero_label'], info.get('label_map'))
    counts = np.bincount(table[stored].ravel(), minlength=256)
    classes = dataset.metainfo.get('classes') or ()
    wrong = np.flatnonzero(counts[:255])
    wrong = wrong[(wrong >= len(classes)) & (wrong != dataset.ignore_index)]
    if classes and len(wrong):
        way_out = advice or 'look at num_classes and reduce_zero_label of the dataset'
        raise UserError(
            f'label {wrong[0]} in the ground truth of {path}: expected 0 to '
            f'{len(classes) - 1} or 255 (ignored); {way_out}'
        )
    return counts
