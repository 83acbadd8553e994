"""Predictions that `tools/test.py --out` has written, beside their ground truth."""

import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch.utils.data import Dataset

from eomt_mm.datasets.photos import Photos
from eomt_mm.datasets.semantic_loading import read_label_map
from eomt_mm.errors import UserError
from eomt_mm.files import refuse_special
from eomt_mm.result_names import result_names

_CLASSES = {
    ('collections', 'OrderedDict'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('_codecs', 'encode'),  # bytes, in the protocol of MMDet's files
}
_FIELDS = {'pred_instances': InstanceData, 'pred_panoptic_seg': PixelData}


class _Results(pickle.Unpickler):
    """Tensors, numbers and texts alone: other content of a pickle could run."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return lambda content: torch.load(io.BytesIO(content), weights_only=True)
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f'it holds {module}.{name}')
        return super().find_class(module, name)


def read_results(path: Path) -> list[dict]:
    """Read a pickle file of :class:`DumpDetResults`, as data.

    Args:
        path (Path): The file.

    Returns:
        list[dict]: One for each image.

    Raises:
        UserError: It is another kind of file.
    """
    refuse_special(path)
    try:
        with path.open('rb') as file:
            content = _Results(file).load()
    except FileNotFoundError as error:
        raise UserError(f'predictions not found: {path}') from error
    except Exception as error:  # the unpickler raises what a damaged file makes it
        raise UserError(
            f'{path} is no file of predictions ({error}): write it with '
            'tools/test.py --out FILE.pkl'
        ) from error
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and 'img_path' in entry and entry.keys() & _FIELDS
        for entry in content
    ):
        raise UserError(f'{path} holds no predictions of images: expected a list')
    return content


def with_segments(
    dataset: Dataset, results: list[dict]
) -> Iterator[tuple[BaseDataElement, str]]:
    """Join MMDet's predictions with the samples of a dataset.

    Args:
        dataset (Dataset): With a test pipeline.
        results (list[dict]): Of :func:`read_results`.

    Yields:
        tuple[BaseDataElement, str]: A sample with ground truth and prediction, and the
        path of its photo.

    Raises:
        UserError: An image has no prediction.
    """
    by_path: Mapping[str, dict] = {str(entry['img_path']): entry for entry in results}
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        entry = by_path.get(str(sample.img_path))
        if entry is None:
            raise UserError(
                f'the predictions have none for {sample.img_path} ({len(by_path)} for '
                f'{len(dataset)} images): test with the same config'
            )
        for name, kind in _FIELDS.items():
            if name in entry:
                sample.set_field(kind(**entry[name]), name, dtype=kind)
        yield sample, str(sample.img_path)


def with_label_maps(
    dataset: Dataset, folder: Path
) -> Iterator[tuple[BaseDataElement, str]]:
    """Join semantic predictions with the samples of a dataset.

    Args:
        dataset (Dataset): With a test pipeline.
        folder (Path): What :class:`LabelMapHook` has written.

    Yields:
        tuple[BaseDataElement, str]: As :func:`with_segments`.

    Raises:
        UserError: An image has no prediction, or one of another size.
    """
    names = result_names(Photos(dataset))
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        path = folder / f'{names[sample.img_path]}.png'
        if not path.is_file():
            raise UserError(
                f'{path} is not there, the prediction for {sample.img_path}: write '
                'them with tools/test.py --out DIR and the same config'
            )
        labels = torch.from_numpy(read_label_map(str(path)))
        if labels.shape != tuple(sample.ori_shape):
            raise UserError(
                f'{path} has shape {tuple(labels.shape)}, its photo '
                f'{tuple(sample.ori_shape)}: expected the prediction as written by '
                'tools/test.py --out DIR'
            )
        # Stored labels are those of the dataset's files.
        labels = labels.long() - int(sample.get('reduce_zero_label', False))
        sample.pred_sem_seg = PixelData(data=labels[None])
        yield sample, str(sample.img_path)
