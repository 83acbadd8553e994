"""Options that all tools share, and the config they lead to."""

import argparse
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config, DictAction

from eomt_mm.compat import refuse_mixed_stacks
from eomt_mm.crop_size import set_crop_size
from eomt_mm.errors import UserError

from .config_reading import scope_of
from .filling_in import fill_in

_CALL = re.compile(r'\s*((dict|list|tuple|set)\(.*\)|\{.*\})\s*$', re.DOTALL)
WEIGHTS = ('.pt', '.bin', '.safetensors', '.ckpt', '.pkl', '.npz', '.index.json')


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add `config` and `--cfg-options`."""
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add `--cfg-options` alone, for tools that take several configs."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, for instance train_cfg.max_iters=100 '
        'or key="[a,b]" (quoted, no spaces inside). data_root=DIR reaches every '
        'dataset and evaluator that used the old data root, crop_size="(H,W)" every '
        'transform and the model',
    )


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Add `--work-dir`, `--launcher` and `--local-rank`."""
    parser.add_argument(
        '--work-dir',
        help='directory for logs, checkpoints and scores; '
        'default ./work_dirs/<name of the config>',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # Both spellings: older and newer launchers of PyTorch differ.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def parse_args(
    parser: argparse.ArgumentParser, argv: list[str] | None
) -> argparse.Namespace:
    """Parse `argv`; a `--cfg-options` word without `=` is a usage error."""
    try:
        args = parser.parse_args(argv)
    except (ValueError, AssertionError) as error:  # raised by DictAction
        parser.error(f'--cfg-options takes KEY=VALUE words ({error})')
    if 'local_rank' in args:
        os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def positive(text: str) -> int:
    """Parse an `int` of 1 or more, as the `type` of an option."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """Parse an `int` of 0 or more, as the `type` of an option."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f'{text} is too small; give {least} or more')
    return number


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and apply what the command line says about it.

    Args:
        args: Parsed options; `work_dir` and `launcher` may be absent.

    Returns:
        Config: With `work_dir` and `launcher` set.

    Raises:
        UserError: The config is missing, has errors or refuses an option.
    """
    refuse_mixed_stacks()
    cfg = read_config(args.config)
    override(cfg, args.cfg_options)
    cfg.launcher = getattr(args, 'launcher', 'none')
    if getattr(args, 'work_dir', None):
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('./work_dirs') / Path(args.config).stem)
    fill_in(cfg)
    return cfg


def override(cfg: Config, options: dict | None) -> None:
    """Apply `--cfg-options`; `data_root` and `crop_size` reach every part."""
    options = options or {}
    for key, value in options.items():
        if isinstance(value, str) and _CALL.match(value):
            raise UserError(
                f'--cfg-options {key}={value}: a value is a number, a text, [1,2] or '
                '(1,2), and no Python; give each setting by itself, as '
                f'{key}.NAME=VALUE'
            )
    if 'data_root' in options:
        move_data_root(cfg, str(options['data_root']))
    if 'crop_size' in options:
        set_crop_size(cfg, options['crop_size'])
        options = {**options, 'crop_size': cfg.crop_size}
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options does not fit the config: {error}') from error


def settings_of(words: Sequence[str]) -> dict:
    """Return what words for `--cfg-options` stand for, to be passed on to others.

    Args:
        words (Sequence[str]): KEY=VALUE.

    Returns:
        dict: For `override`.

    Raises:
        UserError: A word is malformed.
    """
    found = argparse.Namespace()
    try:
        DictAction(['--cfg-options'], 'settings')(None, found, words)
    except (ValueError, AssertionError) as error:
        raise UserError(f'--cfg-options takes KEY=VALUE words ({error})') from error
    return found.settings


def configs_and_checkpoints(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Split a command line into configs, and the checkpoints after them, if any.

    Args:
        words (Sequence[str]): Configs; a `.pth` belongs to the config before it.

    Returns:
        list[tuple[str, str | None]]: One for each config.

    Raises:
        UserError: A checkpoint without config or in another layout.
    """
    found: list[tuple[str, str | None]] = []
    for word in words:
        if word.endswith('.pth'):
            if not found or found[-1][1]:
                raise UserError(
                    f'{word} does not follow a config: CONFIG [CHECKPOINT] CONFIG ...'
                )
            found[-1] = (found[-1][0], word)
        elif word.endswith(WEIGHTS) or Path(word).is_dir():
            raise UserError(
                f'{word} is not a config, and checkpoints end in .pth: convert '
                'published weights with tools/model_converters/eomt2mm.py, or rename '
                'what is a checkpoint of MMEngine'
            )
        else:
            found.append((word, None))
    return found


def read_config(path: str) -> Config:
    """Read a config; fail with one readable line for each way it can fail."""
    if not Path(path).is_file():
        raise UserError(f'config not found: {path}{_similar_configs(path)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(
            f'config {path} cannot be read{_line_in_config(error)}: '
            f'{type(error).__name__}: {error}'
        ) from error
    # Python style leaves it open: classes need no scope, tools do.
    if scope := scope_of(cfg):
        cfg.default_scope = scope
    return cfg


def _similar_configs(path: str) -> str:
    known = [str(p) for p in Path('configs').glob('**/*.py') if '_base_' not in p.parts]
    known += [str(p) for p in Path(path).parent.glob('*.py')]
    by_name = {Path(p).name: p for p in known}
    names = difflib.get_close_matches(Path(path).name, by_name, n=3)
    return f'; did you mean {" or ".join(by_name[n] for n in names)}?' if names else ''


def _line_in_config(error: BaseException) -> str:
    # A text config is executed under its own file name in a frame called <module>.
    trace, line = error.__traceback__, ''
    while trace:
        code = trace.tb_frame.f_code
        if code.co_name == '<module>' and code.co_filename.endswith('.py'):
            line = f' ({code.co_filename}, line {trace.tb_lineno})'
        trace = trace.tb_next
    return line


def move_data_root(cfg: Config, new: str) -> None:
    """Replace the data root wherever the config's loaders and evaluators use it.

    A text config copies `data_root` into each dataset when it is read, so that
    overriding the variable alone would change nothing.

    Args:
        cfg: Changed in place.
        new (str): The directory to use instead.

    Raises:
        UserError: The datasets have several roots and the config names none of them
            `data_root`.
    """
    keys = [k for k in cfg if k.endswith(('_dataloader', '_evaluator'))]
    old = cfg.get('data_root')
    if old is None:
        roots = sorted({r for k in keys for r in _data_roots(cfg[k])})
        if len(roots) != 1:
            raise UserError(
                f'data_root={new}: the config has no data_root and its datasets use '
                f'{roots}; override one of them, for instance '
                'train_dataloader.dataset.data_root=DIR'
            )
        old = roots[0]
    for key in keys:
        cfg[key] = _moved(cfg[key], old, new)


def _data_roots(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get('data_root'), str):
            yield node['data_root']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _data_roots(child)


def _moved(node: object, old: str, new: str) -> object:
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _moved(value, old, new)
        return node
    if isinstance(node, (list, tuple)):
        return type(node)(_moved(child, old, new) for child in node)
    if isinstance(node, str) and (node + '/').startswith(old.rstrip('/') + '/'):
        rest = node[len(old.rstrip('/')) :].lstrip('/')
        return str(Path(new, rest)) if rest else new
    return node
