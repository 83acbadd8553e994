"""A trained model and some images of its test set, or of a folder of photographs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

from eomt_mm.cli import config_reading as reading
from eomt_mm.errors import UserError
from eomt_mm.models.token_merging import TokenMerging

# The score that stands for a model, and its factor to percent.
SCORES = {'mIoU': 1, 'coco_panoptic/PQ': 1, 'coco/segm_mAP': 100}
_PHOTOS = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}


def load_model(cfg: Config, checkpoint: str | None) -> nn.Module:
    """Builds the config's model, ready to predict.

    Args:
        cfg: The config.
        checkpoint: The weights; None leaves those at random, the same every time.
    """
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, map_location='cpu')
    return model.to(get_device()).eval()


def head_of(model: nn.Module) -> nn.Module:
    """The mask head of a segmentor or detector."""
    return getattr(model, 'decode_head', None) or model.panoptic_head


class Images:
    """Some images, evenly spread over a dataset, as the test pipeline makes them.

    Args:
        cfg: The config.
        number: Images at most.
        split: 'test' or 'train', whose images go through the test pipeline too.
        folder: Photographs to take instead, which have no ground truth.

    Raises:
        UserError: There are none.
    """

    def __init__(
        self, cfg: Config, number: int, split: str = 'test', folder: str | None = None
    ) -> None:
        init_default_scope(cfg.default_scope)
        if number < 1:
            raise UserError(f'{number} images asked for, expected at least 1')
        pipeline = reading.pipeline_of(cfg)
        if folder is not None:
            self.dataset = _Photos(Path(folder), pipeline)
        else:
            dataset = cfg[f'{split}_dataloader'].dataset
            self.dataset = DATASETS.build(reading.with_pipeline(dataset, pipeline))
        number = min(number, len(self.dataset))
        places = np.linspace(0, len(self.dataset) - 1, number).round()
        self.indices = places.astype(int).tolist()

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int) -> Iterator[dict]:
        """Images as `test_step` takes them, `size` at a time."""
        for start in range(0, len(self.indices), size):
            chunk = self.indices[start : start + size]
            yield pseudo_collate([self.dataset[i] for i in chunk])

    def evaluator(self, cfg: Config) -> Evaluator:
        """The config's test evaluator, for these images alone."""
        evaluator = Evaluator(reading.metrics_of(cfg, 'test'))
        evaluator.dataset_meta = self.dataset.metainfo
        if cfg.default_scope == 'mmdet':
            ids = [self.dataset.get_data_info(i)['img_id'] for i in self.indices]
            for metric in evaluator.metrics:
                metric.img_ids = ids  # or COCO's takes all other images for missed
        return evaluator


class _Photos:
    """The photographs of a folder, through a test pipeline without its labels."""

    metainfo: dict = {}

    def __init__(self, folder: Path, pipeline: Sequence[dict]) -> None:
        found = folder.rglob('*') if folder.is_dir() else []
        self.paths = sorted(p for p in found if p.suffix.lower() in _PHOTOS)
        if not self.paths:
            raise UserError(
                f'no photographs in {folder}: expected files ending in '
                f'{", ".join(sorted(_PHOTOS))}'
            )
        self.pipeline = Compose(reading.without_labels(pipeline))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        info = dict(img_path=str(self.paths[index]), img_id=index)
        return self.pipeline(dict(info, reduce_zero_label=False))


@contextmanager
def merging_with(backbone: nn.Module, method: TokenMerging | None) -> Iterator[None]:
    """Within this context a `QueryViT` has this token merging; None is none."""
    if method is not None:
        depth = backbone.depth
        free = depth - backbone.num_blocks
        method.bind(depth, free, backbone.grid, backbone.rope)
    before, backbone.token_merging = backbone.token_merging, method
    try:
        yield
    finally:
        backbone.token_merging = before


class _Seen(Exception):
    """Ends a forward pass that has shown what it was run for."""


@torch.inference_mode()
def windows_of(model: nn.Module, batch: dict) -> Tensor:
    """What the backbone gets to see of a batch; nothing is computed from it.

    Args:
        model: A segmentor or detector with a `QueryViT`.
        batch: Images as `test_step` takes them.

    Returns:
        Tensor: Normalised windows, shape (B, 3, H, W), those of the first forward pass.
    """
    seen = []

    def stop(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0])
        raise _Seen

    hook = model.backbone.patch_embed.register_forward_pre_hook(stop)
    try:
        model.test_step(batch)
    except _Seen:
        pass
    finally:
        hook.remove()
    return seen[0]


def score(results: dict[str, float]) -> tuple[str, float]:
    """The score that stands for a model, by name and in percent.

    Raises:
        UserError: The evaluator has measured none of those known.
    """
    for name, factor in SCORES.items():
        if name in results:
            return name, factor * float(results[name])
    raise UserError(
        f'the evaluator of the config measures {sorted(results)}, expected one of '
        f'{sorted(SCORES)}'
    )
