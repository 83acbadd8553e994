"""Models of configs: stock ones of MMSegmentation and MMDetection, and this package's.

A model without a checkpoint has random weights and finds next to nothing. EoMT's class
head is then fitted so that some queries find something, as in a trained model.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.errors import UserError
from eomt_mm.models.network import autocast, is_eomt, speed_up

from . import inputs
from .inference import load_model, network_input, photo_info, photo_pipeline
from .measure import Work

PARTS = ('network alone', 'image file to result')


@dataclass(frozen=True)
class Entry:
    """A model to measure.

    Attributes:
        config (str): Path of its config.
        checkpoint (str, optional): Path of its weights.
        dtype (str): 'fp32', 'bf16' or 'fp16'.
        compiled (bool): Whether to compile it.
    """

    config: str
    checkpoint: str | None = None
    dtype: str = 'fp32'
    compiled: bool = False

    def __str__(self) -> str:
        compiled = ' compiled' if self.compiled else ''
        return f'{Path(self.config).stem} {self.dtype}{compiled}'


def read(path: str) -> Config:
    """Read a config and make its scope the current one."""
    cfg = cli.read_config(path)
    if 'model' not in cfg or 'test_dataloader' not in cfg:
        raise UserError(f'{path} has no model with a test_dataloader')
    init_default_scope(cfg.default_scope)
    return cfg


def build(entry: Entry, device: torch.device) -> tuple[Config, nn.Module]:
    """Build a model for inference.

    Args:
        entry (Entry): The model.
        device (torch.device): Device of the computation.

    Returns:
        tuple[Config, nn.Module]: The config, and the model before `speed_up`.

    Raises:
        UserError: If the config or the checkpoint cannot be read.
    """
    cfg = read(entry.config)
    reading.refuse_bands(cfg, 'benchmark.py')
    if entry.checkpoint:
        cli.check_checkpoint(entry.checkpoint)
    return cfg, load_model(cfg, entry.checkpoint, device)


def prepare(
    part: str, entry: Entry, photo: str, batch: int, kept: int, device: torch.device
) -> Work:
    """Make a model and a function that runs it once.

    Args:
        part (str): One of `PARTS`.
        entry (Entry): The model.
        photo (str): An image file, read `batch` times.
        batch (int): Images at a time.
        kept (int): Queries that find something without a checkpoint.
        device (torch.device): Device of the computation.

    Returns:
        Callable: A run. It returns nothing, as results of different models are not
        compared.

    Raises:
        UserError: If the model is unavailable.
    """
    cfg, model = build(entry, device)
    pipeline = photo_pipeline(cfg)

    def load() -> dict:
        return pseudo_collate([pipeline(photo_info(photo)) for _ in range(batch)])

    data = model.data_preprocessor(load(), False)
    images = data['inputs']
    if is_eomt(model):
        images = network_input(model, images)
        if entry.checkpoint is None:
            inputs.fit_class_head(model.backbone, model.mask_head, images[:1], kept)
    speed_up(model, entry.dtype, entry.compiled)

    @torch.inference_mode()
    def network_alone() -> None:
        with autocast(device, entry.dtype):
            model(images, data['data_samples'], mode='tensor')

    @torch.inference_mode()
    def whole() -> None:
        # Other models made in between have left their own scope behind.
        init_default_scope(cfg.default_scope)
        model.test_step(load())

    return network_alone if part == PARTS[0] else whole
