"""Cost of the networks of the miniature: parameters, operations, speed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eomt_mm.cli import override, read_config, settings_of
from eomt_mm.files import atomic_path

from ..jobs import Launch, run_alone
from .runs import Recipe

ROUNDS = 200  # a round takes some milliseconds


@dataclass(frozen=True)
class Costs:
    """Costs by config, where available.

    Attributes:
        counted (dict[str, dict]): `parameters` and `gflops`.
        speeds (dict[str, float]): Images per second of the network alone, one image
            at a time.
        machine (str): Machine of the speeds, for a reader.
    """

    counted: dict[str, dict] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)
    machine: str = 'this machine'


def cost_of(recipe: Recipe, configs: Sequence[str], launch: Launch) -> Costs:
    """Count and time networks once; earlier measurements are read from files.

    Nothing else should run meanwhile.

    Args:
        recipe (Recipe): The recipe, whose options change the networks, too.
        configs (Sequence[str]): Paths relative to the root.
        launch (Launch): Conditions of the commands.
    """
    folder = f'{recipe.work_dir}/cost-{recipe.digest(configs)}'
    result = recipe.root / folder / 'compare.json'
    if not _is_complete(result):
        words = [
            f'{config}={_with_options(recipe, config, folder)}' for config in configs
        ]
        run_alone(
            [
                *('tools/analysis_tools/compare.py', *words, '--no-memory'),
                *('--rounds', str(ROUNDS), '--warmup', '10', '--out', folder),
            ],
            launch,
        )
    content = json.loads(result.read_text())
    models = {model['label']: model for model in content['models']}
    return Costs(
        {
            config: dict(
                parameters=model['parameters'], gflops=model['operations'] / 1e9
            )
            for config, model in models.items()
            if model['parameters']
        },
        {
            config: model['images_per_second']
            for config, model in models.items()
            if model['images_per_second']
        },
        content['setting'],
    )


def _is_complete(result: Path) -> bool:
    """Whether a comparison is complete; it is written step by step."""
    if not result.is_file():
        return False
    models = json.loads(result.read_text())['models']
    return all(model['images_per_second'] or model['remarks'] for model in models)


def _with_options(recipe: Recipe, config: str, folder: str) -> str:
    """Write a copy of a config with the options applied."""
    cfg = read_config(str(recipe.root / config))
    override(cfg, settings_of(recipe.options))
    path = f'{folder}/{Path(config).name}'
    with atomic_path(recipe.root / path) as partial:
        partial.write_text(cfg.pretty_text)
    return path
