"""One training with its tests and results.

The name of a run's folder contains everything that decides its result: config, budget,
seed, data. A finished run is found by its name, a killed one continues from its last
checkpoint, and results of different settings never mix.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eomt_mm.cli import iterations_done, last_checkpoint, read_config, read_scores
from eomt_mm.errors import UserError

from ..output import write_json

# What a test may measure, by heading of a column; a test measures some.
SCORES = {
    'PQ': 'coco_panoptic/PQ',
    'mIoU': 'mIoU',
    'mIoU in distribution': 'in_distribution/mIoU',
    'mIoU out of distribution': 'corrupted/mIoU',
    'AUPRC of unknown objects': 'ood/AUPRC',
}
# Iterations after which the time of one has settled.
PACE_ITERATIONS = 30
# What decides budget, seed and data of the runs: it is what their tables say.
OWNED = {
    'train_cfg.max_iters': 'give --iterations or --seconds',
    'train_cfg.val_begin': 'leave it out, each is tested when it is finished',
    'train_cfg.val_interval': 'leave it out, each is tested when it is finished',
    'default_hooks.checkpoint.interval': 'leave it out, each writes four',
    'randomness.seed': 'give --seeds',
    'data_root': 'give --scenes',
}


def refuse_owned(settings: Mapping[str, object]) -> None:
    """Raise a UserError if common options are those that distinguish runs.

    Args:
        settings (Mapping[str, object]): Settings by key, see `--cfg-options`.
    """
    for key in settings:
        for owned, instead in OWNED.items():
            if key == owned or owned.startswith(f'{key}.'):
                raise UserError(
                    f'--cfg-options {key}: this tool sets {owned} of each training, '
                    f'or its tables would not say what was done: {instead}'
                )


@dataclass(frozen=True)
class Recipe:
    """The common settings of all runs.

    Attributes:
        root (Path): The repository; commands are run there.
        work_dir (str): Folder of all runs, relative to the root or absolute.
        data (str): Text that identifies the data.
        options (tuple[str, ...]): Words for `--cfg-options`.
    """

    root: Path
    work_dir: str
    data: str
    options: tuple[str, ...]

    def digest(self, configs: Sequence[str], *words: str) -> str:
        """Hash configs, options, data and further words to eight letters."""
        contents = [_content(self.root / config) for config in configs]
        key = json.dumps([contents, self.data, self.options, words])
        return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Run:
    """A config trained from a seed, and tested with one config or several.

    Attributes:
        recipe (Recipe): The common settings.
        config (str): The config that is trained, relative to the root.
        tests (tuple[str, ...]): Configs of the tests.
        seed (int): Seed of everything random.
        iterations (int): Length of the training.
    """

    recipe: Recipe
    config: str
    tests: tuple[str, ...]
    seed: int
    iterations: int

    @property
    def name(self) -> str:
        """The name, for messages."""
        return f'{Path(self.config).stem}, seed {self.seed}'

    @functools.cached_property
    def folder(self) -> str:
        """The folder, as commands need it."""
        name = f'{Path(self.config).stem}-seed{self.seed}'
        key = self.recipe.digest([self.config], *self.train_options())
        return f'{self.recipe.work_dir}/{name}-{key}'

    @property
    def path(self) -> Path:
        """The folder."""
        return self.recipe.root / self.folder

    @property
    def is_finished(self) -> bool:
        """Whether there is a result of every test."""
        return all(self._result_path(test).is_file() for test in self.tests)

    @property
    def outcome(self) -> str:
        """The scores of a finished run, for messages."""
        outcomes = []
        for test in self.tests:
            result = self.result(test)
            scores = ', '.join(f'{n} {result[n]:.1f}' for n in SCORES if n in result)
            other = '' if test == self.config else f'with {Path(test).stem}: '
            outcomes.append(f'{other}{scores}')
        return '; '.join(outcomes)

    def result(self, test: str) -> dict | None:
        """What a test has measured, scores in percent; None if it is not done."""
        path = self._result_path(test)
        return json.loads(path.read_text()) if path.is_file() else None

    def steps(self) -> Iterator[list[str]]:
        """Yield the remaining commands; each must succeed before the next.

        Results are written while the commands are iterated over.

        Yields:
            list[str]: A tool with its arguments.
        """
        if self.is_finished:
            return
        done = iterations_done(self.path)
        if done < self.iterations:
            yield self._train_command(resume=done > 0)
        checkpoint = last_checkpoint(self.path)
        if checkpoint is None:
            raise UserError(f'{self.folder}: the training left no checkpoint')
        for test in self.tests:
            if self.result(test) is None:
                command = self._test_command(test, checkpoint.name)
                yield command
                self._write_result(test, command)

    def train_options(self) -> list[str]:
        """Words for `--cfg-options` in training."""
        return [
            f'train_cfg.max_iters={self.iterations}',
            # It is tested when it is finished.
            f'train_cfg.val_begin={self.iterations + 1}',
            f'default_hooks.checkpoint.interval={max(1, self.iterations // 4)}',
            f'randomness.seed={self.seed}',
            *self.recipe.options,
        ]

    def _train_command(self, resume: bool) -> list[str]:
        command = ['tools/train.py', self.config, '--work-dir', self.folder]
        resumed = ['--resume'] if resume else []
        return [*command, *resumed, '--cfg-options', *self.train_options()]

    def _test_command(self, test: str, checkpoint: str) -> list[str]:
        command = ['tools/test.py', test, f'{self.folder}/{checkpoint}']
        command += ['--work-dir', self._test_dir(test)]
        return [*command, '--cfg-options', *self.recipe.options]

    def _test_dir(self, test: str) -> str:
        return f'{self.folder}/test-{Path(test).stem}'

    def _result_path(self, test: str) -> Path:
        return self.path / f'{Path(test).stem}-{self.recipe.digest([test])}.json'

    def _write_result(self, test: str, command: list[str]) -> None:
        scores = read_scores(self.recipe.root / self._test_dir(test))
        result = dict(
            trained=self.config,
            tested=test,
            seed=self.seed,
            iterations=self.iterations,
            **{name: scores[key] for name, key in SCORES.items() if key in scores},
            all_scores=scores,
            commands=[self._train_command(resume=False), command],
        )
        write_json(self._result_path(test), result)


@dataclass(frozen=True)
class Pace:
    """A short training that measures the seconds of an iteration.

    Attributes:
        recipe (Recipe): The settings of the runs.
        config (str): The config, relative to the root.
    """

    recipe: Recipe
    config: str

    @property
    def name(self) -> str:
        """The name, for messages."""
        return f'{Path(self.config).stem}, {PACE_ITERATIONS} iterations for the pace'

    @functools.cached_property
    def path(self) -> Path:
        """The folder of the short training."""
        return self._training.path

    @property
    def is_finished(self) -> bool:
        """Whether the pace is known."""
        return self._result_path.is_file()

    @property
    def outcome(self) -> str:
        """The pace, for messages."""
        return f'{1000 * self.seconds:.0f} ms an iteration'

    @property
    def seconds(self) -> float:
        """The seconds of one iteration."""
        return json.loads(self._result_path.read_text())['seconds']

    def steps(self) -> Iterator[list[str]]:
        """Yield the command, see `Run.steps`."""
        if self.is_finished:
            return
        yield self._training._train_command(resume=False)
        log = max(self.path.glob('*/vis_data/scalars.json'))
        # MMEngine's times are means of the last ten iterations.
        last = json.loads(log.read_text().splitlines()[-1])
        write_json(self._result_path, dict(config=self.config, seconds=last['time']))

    @property
    def _training(self) -> Run:
        options = (*self.recipe.options, 'default_hooks.logger.interval=1')
        recipe = Recipe(
            self.recipe.root, f'{self.recipe.work_dir}/pace', self.recipe.data, options
        )
        return Run(recipe, self.config, (), seed=0, iterations=PACE_ITERATIONS)

    @property
    def _result_path(self) -> Path:
        return self.path / 'pace.json'


@functools.cache
def _content(config: Path) -> str:
    return read_config(str(config)).pretty_text
