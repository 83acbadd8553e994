"""One model of a comparison: its config, its figures, and remarks on gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm

from eomt_mm.cli import configs_and_checkpoints, override, read_config
from eomt_mm.errors import UserError
from eomt_mm.models.network import autocast, speed_up

from .. import transformers_models
from ..measure import Work
from ..networks import (
    DEFAULT_SIZE,
    build_network,
    channels_of,
    complexity_of,
    find_config,
    model_at,
    network_alone,
    scope_of,
)

Size = tuple[int, int]


@dataclass(frozen=True)
class Score:
    """A score in percent.

    Attributes:
        metric (str): 'PQ', 'mask AP', 'box AP' or 'mIoU'.
        value (float): The score.
        dataset (str): Dataset of the measurement.
        source (str): Source of a quoted score; '' if it was measured here.
    """

    metric: str
    value: float
    dataset: str
    source: str = ''

    def __str__(self) -> str:
        return f'{self.metric} {self.value:.1f}'


@dataclass
class Model:
    """A row of the comparison.

    Attributes:
        label (str): Name of the row.
        config (str): A path, or a name such as 'mmdet::mask2former/...' or 'hf::DIR'.
        checkpoint (str, optional): Path of its weights.
        size (tuple[int, int], optional): Height and width of the image.
        parameters (int, optional): Number of parameters.
        operations (int, optional): Operations for one image, by the paper's convention.
        milliseconds (float, optional): Median time of a forward pass.
        images_per_second (float, optional): Images per second at the median.
        mebibytes (float, optional): Peak memory of a forward pass.
        measured (Score, optional): Score by the evaluator of its config.
        quoted (Score, optional): Score published with its config.
        remarks (list[str]): Reasons for gaps and surprising figures.
        settings (Mapping[str, object]): Options of `--cfg-options` for all configs.
    """

    label: str
    config: str
    checkpoint: str | None = None
    size: Size | None = None
    parameters: int | None = None
    operations: int | None = None
    milliseconds: float | None = None
    images_per_second: float | None = None
    mebibytes: float | None = None
    measured: Score | None = None
    quoted: Score | None = None
    remarks: list[str] = field(default_factory=list)
    settings: Mapping[str, object] = field(default_factory=dict)

    def read(self) -> Config:
        """Read the config, with the options of the model.

        Raises:
            UserError: If it is missing or has errors.
        """
        cfg = read_config(find_config(self.config))
        # Others, such as data_root, need not fit a config that is not tested.
        of_model = {k: v for k, v in self.settings.items() if k.startswith('model.')}
        override(cfg, of_model)
        return cfg

    def read_for_test(self) -> Config:
        """Read the config, with all options.

        Raises:
            UserError: If it is missing, has errors or refuses an option.
        """
        cfg = read_config(find_config(self.config))
        override(cfg, dict(self.settings))
        return cfg

    def remark(self, what: str, reason: str) -> None:
        """Record a remark on a figure or on its absence, each reason once."""
        if not any(reason in known for known in self.remarks):
            self.remarks.append(f'{what}: {reason}')


def parse_words(words: Sequence[str]) -> list[Model]:
    """Parse the models of a command line.

    Args:
        words (Sequence[str]): Configs, each perhaps as LABEL=CONFIG, and each perhaps
            followed by a checkpoint (.pth). An existing file is never cut at a '='.

    Returns:
        list[Model]: One for each config.

    Raises:
        UserError: If a checkpoint has no config or another layout, a name is empty, or
            two models share a label.
    """
    models: list[Model] = []
    for word, checkpoint in configs_and_checkpoints(words):
        label, config = _label_and_config(word)
        stem = config.rpartition('/')[2].removesuffix('.py').removesuffix('.json')
        if label == '' or not stem or config.endswith('::'):
            raise UserError(
                f'{word!r} lacks a name: give CONFIG, mmdet::CONFIG, mmseg::CONFIG, '
                'hf::FOLDER or LABEL=CONFIG'
            )
        models.append(Model(label or stem, config, checkpoint))
    labels = [model.label for model in models]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice:
        raise UserError(
            f'{" and ".join(sorted(twice))} would stand in several rows: give them '
            'names, as in "name=CONFIG"'
        )
    return models


def _label_and_config(word: str) -> tuple[str | None, str]:
    """Split LABEL=CONFIG; the label is None without one."""
    if '=' not in word or Path(word).is_file():
        return None, word
    splits = [(word[:i], word[i + 1 :]) for i, c in enumerate(word) if c == '=']
    # Both parts may hold a '=' themselves: a file that is there decides.
    return next((s for s in splits if Path(s[1]).is_file()), splits[-1])


def count(model: Model, size: Size | None) -> None:
    """Fill in size, parameters and operations."""
    if transformers_models.is_one(model.config):
        found = transformers_models.complexity_of(model.config, size)
    else:
        found = complexity_of(model.read(), size)
    model.size, model.parameters = found.size, found.parameters
    model.operations = found.operations
    if found.on_noise:
        model.remarks.append('GFLOPs depend on the image: counted on noise')


@dataclass(frozen=True)
class Timing:
    """Conditions of the timing.

    Attributes:
        size (tuple[int, int], optional): Height and width of the image; that of each
            config by default.
        batch (int): Images at a time.
        dtype (str): 'fp32', 'bf16' or 'fp16'.
        compiled (bool): Whether to compile.
        device (torch.device): Device of the computation.
    """

    size: Size | None
    batch: int
    dtype: str
    compiled: bool
    device: torch.device


def prepare(model: Model, timing: Timing) -> Work:
    """Build the network that `count` counts, with random weights.

    Args:
        model (Model): A model, whose checkpoint is not read: weights do not change the
            speed.
        timing (Timing): Conditions of the timing.

    Returns:
        Callable: A forward pass. It returns nothing, as results of different models
        are not compared.
    """
    if transformers_models.is_one(model.config):
        forward = _forward_of_transformers(model, timing)
    else:
        forward = _forward_of_config(model, timing)

    @torch.inference_mode()
    def work() -> None:
        forward()

    return work


def _forward_of_config(model: Model, timing: Timing) -> Work:
    cfg = model.read()
    model_cfg, size = model_at(cfg, timing.size)
    with scope_of(cfg):
        torch.manual_seed(0)
        network = revert_sync_batchnorm(build_network(model_cfg)).to(timing.device)
        # Plain fp32 is the same PyTorch for all; there is more that makes EoMT fast on
        # a CPU, and would show that instead of the networks.
        if timing.dtype != 'fp32' or timing.compiled:
            speed_up(network, timing.dtype, timing.compiled)
    return network_alone(network, _images(timing, size, channels_of(network)))


def _forward_of_transformers(model: Model, timing: Timing) -> Work:
    torch.manual_seed(0)
    network = transformers_models.build(model.config).to(timing.device)
    if timing.compiled:
        network.forward = torch.compile(network.forward)
    images = _images(timing, timing.size or DEFAULT_SIZE)
    forward = transformers_models.network_alone(network, images)
    return autocast(timing.device, timing.dtype)(forward)


def _images(timing: Timing, size: Size, channels: int = 3) -> torch.Tensor:
    return torch.randn(timing.batch, channels, *size, device=timing.device)
