"""What the command-line tools share: options, checks before a run, how they end."""

from .exit import noted_interrupts, rank, run
from .filling_in import fill_in
from .loaders import build_loader
from .options import (
    add_cfg_options,
    add_common_options,
    add_launch_options,
    configs_and_checkpoints,
    load_config,
    not_negative,
    override,
    parse_args,
    positive,
    read_config,
    settings_of,
)
from .preflight import (
    check_checkpoint,
    check_data,
    check_evaluator,
    check_loops,
    check_output,
)
from .processes import join
from .progress import track
from .steps import environment, iterations_done, last_checkpoint, read_scores
from .strategies import (
    check_resumed_kind,
    check_strategy,
    forgo_strategy,
    leave_pretrained,
)

__all__ = [
    'add_cfg_options',
    'add_common_options',
    'add_launch_options',
    'build_loader',
    'check_checkpoint',
    'check_data',
    'check_evaluator',
    'check_loops',
    'check_output',
    'check_resumed_kind',
    'check_strategy',
    'configs_and_checkpoints',
    'environment',
    'fill_in',
    'forgo_strategy',
    'iterations_done',
    'join',
    'last_checkpoint',
    'leave_pretrained',
    'load_config',
    'noted_interrupts',
    'override',
    'not_negative',
    'parse_args',
    'positive',
    'rank',
    'read_config',
    'read_scores',
    'run',
    'settings_of',
    'track',
]
