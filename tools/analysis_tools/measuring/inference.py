"""A trained model and some images of its test set, or of a folder of photographs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from eomt_mm.cli import check_evaluator
from eomt_mm.cli import config_reading as reading
from eomt_mm.datasets.frames import IMAGES
from eomt_mm.errors import UserError
from eomt_mm.models.segmentor import WindowedSegmentor
from eomt_mm.models.token_merging import TokenMerging
from eomt_mm.models.windows import WindowAverage

# The score that stands for a model, and its factor to percent.
SCORES = {'mIoU': 1, 'coco_panoptic/PQ': 1, 'coco/segm_mAP': 100}


def load_model(
    cfg: Config, checkpoint: str | None, device: torch.device | None = None
) -> nn.Module:
    """Build the config's model, ready to predict; nothing is downloaded.

    Args:
        cfg (Config): The config.
        checkpoint (str, optional): The weights; None keeps random ones, the same every
            time.
        device (torch.device, optional): Device of the model. Defaults to the GPU if
            there is one.
    """
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, map_location='cpu')
    return model.to(device or get_device())


def ask_for_confidence(cfg: Config, measure: str | None = None) -> None:
    """Have a semantic EoMT return confidence maps.

    Args:
        cfg (Config): The config.
        measure (str, optional): A key of `CONFIDENCES`. Defaults to the config's.

    Raises:
        UserError: The config has a model of another kind, or names no measure.
    """
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(cfg.model.type)
    if cfg.default_scope != 'mmseg' or not issubclass(kind, WindowedSegmentor):
        raise UserError(
            f'{cfg.model.type} has no confidence maps: take a config with an '
            'eomt_mm.EoMTSegmentor'
        )
    measure = measure or (cfg.model.get('test_cfg') or {}).get('confidence')
    if not measure:
        raise UserError(
            'the config asks for no confidence maps: set '
            "model.test_cfg.confidence='class_score'"
        )
    cfg.merge_from_dict({'model.test_cfg.confidence': measure})


def photo_pipeline(cfg: Config) -> Compose:
    """Build the test pipeline without annotations; it takes a dict with `img_path`."""
    return Compose(reading.without_labels(reading.pipeline_of(cfg)))


def photo_info(path: str, number: int = 0) -> dict:
    """Make the input of `photo_pipeline`, with keys that annotations would add."""
    return dict(img_path=path, img_id=number, seg_fields=[], reduce_zero_label=False)


class Images:
    """Images of a dataset, evenly spread, after the test pipeline.

    Args:
        cfg: The config.
        number: Largest number of images.
        split: 'test' or 'train'; both pass through the test pipeline.
        folder: Photographs to use instead, without ground truth.

    Raises:
        UserError: If there are no images.
    """

    def __init__(
        self, cfg: Config, number: int, split: str = 'test', folder: str | None = None
    ) -> None:
        init_default_scope(cfg.default_scope)
        if number < 1:
            raise UserError(f'{number} images asked for, expected at least 1')
        pipeline = reading.pipeline_of(cfg)
        if folder is not None:
            self.dataset = _Photos(Path(folder), cfg)
        else:
            dataset = cfg[f'{split}_dataloader'].dataset
            self.dataset = DATASETS.build(reading.with_pipeline(dataset, pipeline))
        number = min(number, len(self.dataset))
        places = np.linspace(0, len(self.dataset) - 1, number).round()
        self.indices = places.astype(int).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def paths(self) -> list[str]:
        """Where the images are."""
        return [str(self.dataset.get_data_info(i)['img_path']) for i in self.indices]

    def batches(self, size: int) -> Iterator[dict]:
        """Yield batches for `test_step`, `size` images at a time."""
        for start in range(0, len(self.indices), size):
            chunk = self.indices[start : start + size]
            yield pseudo_collate([self.dataset[i] for i in chunk])

    def evaluator(self, cfg: Config) -> Evaluator:
        """Build the config's test evaluator, for these images alone."""
        check_evaluator(cfg, 'test')
        evaluator = Evaluator(reading.metrics_of(cfg, 'test'))
        evaluator.dataset_meta = self.dataset.metainfo
        if cfg.default_scope == 'mmdet':
            ids = [self.dataset.get_data_info(i)['img_id'] for i in self.indices]
            for metric in evaluator.metrics:
                metric.img_ids = ids  # or COCO's takes all other images for missed
        return evaluator


class _Photos:
    """The photographs of a folder, after a test pipeline without labels."""

    metainfo: dict = {}

    def __init__(self, folder: Path, cfg: Config) -> None:
        found = folder.rglob('*') if folder.is_dir() else []
        self.paths = sorted(p for p in found if p.suffix.lower() in IMAGES)
        if not self.paths:
            raise UserError(
                f'no photographs in {folder}: expected files ending in '
                f'{", ".join(sorted(IMAGES))}'
            )
        self.pipeline = photo_pipeline(cfg)

    def __len__(self) -> int:
        return len(self.paths)

    def get_data_info(self, index: int) -> dict:
        return photo_info(str(self.paths[index]), index)

    def __getitem__(self, index: int) -> dict:
        return self.pipeline(self.get_data_info(index))


@contextmanager
def merging_with(backbone: nn.Module, method: TokenMerging | None) -> Iterator[None]:
    """Set the token merging of a `MergingViT` within this context."""
    before = backbone.token_merging
    backbone.set_merging(method)
    try:
        yield
    finally:
        backbone.token_merging = before


def windows_of(model: nn.Module, batch: dict) -> Tensor:
    """Return the network's input of a batch.

    Args:
        model (nn.Module): A segmentor or detector of this package.
        batch (dict): Input of `test_step`.

    Returns:
        Tensor: Normalised images or windows, shape (B, 3, H, W).
    """
    return network_input(model, model.data_preprocessor(batch, False)['inputs'])


def network_input(model: nn.Module, images: Tensor | list[Tensor]) -> Tensor:
    """Return the network's input: preprocessed images, or their windows or tiles."""
    if model.tiling:
        black = model.data_preprocessor.black()
        tiles = [tile for image in images for tile in model.tiling.cut(image, black)[0]]
        return torch.stack(tiles)
    if isinstance(images, Tensor):
        return images
    size = model.backbone.img_size
    averages = [WindowAverage(image.shape[1:], size) for image in images]
    return torch.stack(
        [
            average.crop(image, i)
            for average, image in zip(averages, images, strict=True)
            for i in range(len(average.corners))
        ]
    )


def score(results: dict[str, float]) -> tuple[str, float]:
    """Return the main score of a model, by name and in percent.

    Raises:
        UserError: If the evaluator has measured no known score.
    """
    for name, factor in SCORES.items():
        if name in results:
            return name, factor * float(results[name])
    raise UserError(
        f'the evaluator of the config measures {sorted(results)}, expected one of '
        f'{sorted(SCORES)}'
    )
