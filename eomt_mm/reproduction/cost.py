"""What the networks of the miniature cost: parameters, operations, speed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eomt_mm.cli import override, read_config, settings_of
from eomt_mm.cli.jobs import Launch, run_alone
from eomt_mm.engine import atomic_path

from .runs import Recipe

ROUNDS = 200  # a round takes some milliseconds


@dataclass(frozen=True)
class Costs:
    """By config, as far as they could be had.

    Attributes:
        counted (dict[str, dict]): `parameters` and `gflops`.
        speeds (dict[str, float]): Images per second of the network alone, one image
            at a time.
        machine (str): Where speed was measured, for a reader.
    """

    counted: dict[str, dict] = field(default_factory=dict)
    speeds: dict[str, float] = field(default_factory=dict)
    machine: str = 'this machine'


def cost_of(
    recipe: Recipe, configs: Sequence[str], photo: str, launch: Launch
) -> Costs:
    """Count and time networks; once, for what was measured before is read.

    Nothing else should run meanwhile.

    Args:
        recipe (Recipe): Its options change the networks, too.
        configs (Sequence[str]): Relative to the root.
        photo (str): An image file for the networks, likewise.
        launch (Launch): How commands are run.
    """
    folder = f'{recipe.work_dir}/cost-{recipe.digest(configs)}'
    complexity, speed = f'{folder}/complexity.json', f'{folder}/speed.json'
    with_options = [_with_options(recipe, config, folder) for config in configs]
    for path, command in (
        (complexity, ['get_flops.py', *with_options]),
        (
            speed,
            [
                *('benchmark.py', *with_options, '--photo', photo, '--no-memory'),
                *('--rounds', str(ROUNDS), '--warmup', '10'),
            ],
        ),
    ):
        if not (recipe.root / path).is_file():
            tool, *words = command
            run_alone([f'tools/analysis_tools/{tool}', *words, '--json', path], launch)
    rows = json.loads((recipe.root / complexity).read_text())
    timed = json.loads((recipe.root / speed).read_text())
    by_name = {Path(config).stem: config for config in configs}
    speeds = {
        by_name[row['contender'].removesuffix(' fp32')]: row['images_per_second']
        for row in timed['rows']
        if row['case'].startswith('network alone') and not row['error']
    }
    about = timed['about']
    return Costs(
        {by_name[Path(row['config']).stem]: row for row in rows if 'error' not in row},
        speeds,
        about.get('gpu') or f'{about["processor"]} with {about["threads"]} thread(s)',
    )


def _with_options(recipe: Recipe, config: str, folder: str) -> str:
    """A copy of a config in which the options are applied."""
    cfg = read_config(str(recipe.root / config))
    override(cfg, settings_of(recipe.options))
    path = f'{folder}/{Path(config).name}'
    with atomic_path(recipe.root / path) as partial:
        partial.write_text(cfg.pretty_text)
    return path
