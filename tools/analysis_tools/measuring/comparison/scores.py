"""Scores: published with a config, and measured by its evaluator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm.cli import check_checkpoint, check_data, read_scores
from eomt_mm.cli import config_reading as reading
from eomt_mm.errors import UserError
from eomt_mm.models.checkpoint_check import refuse_misfit

from ..networks import build_network, find_config, model_at, scope_of
from ..operations import parameters_without_values
from .model import Model, Score

# The first that is there is the score of a model: key of the evaluator, name in
# metafiles, factor to percent.
METRICS = (
    ('coco_panoptic/PQ', 'PQ', 1),
    ('coco/segm_mAP', 'mask AP', 100),
    ('coco/bbox_mAP', 'box AP', 100),
    ('mIoU', 'mIoU', 1),
)


def quoted_score(config: str) -> Score | None:
    """Read a config's score from the metafile beside it.

    Args:
        config (str): A path, or a name such as 'mmdet::mask2former/...'.

    Returns:
        Score | None: None if there is no metafile, or no score in it.
    """
    path = Path(find_config(config))
    for metafile in sorted(path.parent.glob('metafile.y*ml')):
        content = yaml.safe_load(metafile.read_text(encoding='utf-8')) or {}
        # Some metafiles of MMSegmentation are bare lists.
        models = content.get('Models', []) if isinstance(content, dict) else content
        for entry in models:
            if Path(str(entry.get('Config', ''))).name == path.name:
                return _best(entry.get('Results') or [], config, path)
    return None


def _best(results: Sequence[dict] | dict, config: str, path: Path) -> Score | None:
    results = [results] if isinstance(results, dict) else results
    for _, name, _ in METRICS:
        for result in results:
            value = (result.get('Metrics') or {}).get(name)
            if isinstance(value, int | float):
                framework = config.partition('::')[0] if '::' in config else path.stem
                source = result.get('Source', f'metafile of {framework}')
                return Score(name, value, result.get('Dataset', '?'), source)
    return None


def main_score(scores: Mapping[str, float], cfg: Config) -> Score:
    """Choose the score that a model is compared by.

    Args:
        scores (Mapping[str, float]): Scores of the evaluators.
        cfg (Config): Config of the test.

    Raises:
        UserError: If none of them is known.
    """
    for key, name, factor in METRICS:
        if key in scores:
            dataset = reading.leaves_of(cfg, 'test')[0]
            kind = reading.type_name(dataset).removesuffix('Dataset')
            return Score(name, factor * scores[key], kind)
    known = ', '.join(key for key, _, _ in METRICS)
    raise UserError(f'the evaluator measured {[*scores]}, and none of {known}')


def size_remark(cfg: Config, timed: tuple[int, int] | None) -> str | None:
    """Remark that a score belongs to another size than the speed beside it.

    Args:
        cfg (Config): Config of the test.
        timed (tuple[int, int], optional): Height and width that were timed.
    """
    _, own = model_at(cfg)
    if timed in (None, own):
        return None
    has_size = cfg.model.get('backbone', {}).get('img_size')
    where = f'{own[0]} x {own[1]}' if has_size else 'the size of its test pipeline'
    return f'measured at {where}, not at {timed[0]} x {timed[1]}'


def refuse_untestable(cfg: Config, checkpoint: str) -> None:
    """Raise a UserError if a test would fail for its data or its checkpoint."""
    check_data(cfg, 'test')
    refuse_unfit(cfg, checkpoint)


def refuse_unfit(cfg: Config, checkpoint: str) -> None:
    """Raise a UserError if a checkpoint does not belong to a config.

    MMEngine would load the matching tensors and score another network.
    """
    check_checkpoint(checkpoint)
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = content.get('state_dict', content)
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    with scope_of(cfg), parameters_without_values():
        network = build_network(cfg.model)
    refuse_misfit(network, state, '')
    lacking = [
        key
        for key in network.state_dict()
        if key not in state and not key.endswith('num_batches_tracked')
    ]
    if lacking:
        raise UserError(
            f'the checkpoint does not fit the config: it lacks {lacking[0]} and '
            f'{len(lacking) - 1} others'
        )


@dataclass(frozen=True)
class Test:
    """The test of a model with the evaluator of its config, as a job.

    Attributes:
        model (Model): A model with a checkpoint; its score is filled in.
        cfg (Config): Its config.
        tool (Path): tools/test.py.
        path (Path): Folder of the test.
        options (Sequence[str]): Words for `--cfg-options`.
    """

    model: Model
    cfg: Config
    tool: Path
    path: Path
    options: Sequence[str]

    @property
    def name(self) -> str:
        """The name, for messages."""
        return self.model.label

    @property
    def is_finished(self) -> bool:
        """Whether there is a score."""
        return self.model.measured is not None

    @property
    def outcome(self) -> str:
        """The score, for messages."""
        return str(self.model.measured)

    def steps(self) -> Iterator[list[str]]:
        """Yield the one command, and read the score after it."""
        options = ['--cfg-options', *self.options] if self.options else []
        yield [
            str(self.tool),
            find_config(self.model.config),
            str(self.model.checkpoint),
            *('--work-dir', str(self.path), *options),
        ]
        self.model.measured = main_score(read_scores(self.path), self.cfg)
        remark = size_remark(self.cfg, self.model.size)
        if remark:
            self.model.remark('score', remark)
