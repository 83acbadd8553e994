"""Draw the learning rates and mask probabilities of a config without running it.

python tools/analysis_tools/plot_schedule.py configs/eomt/eomt_vitl_ade20k.py
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

import timm
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from eomt_mm import cli
from eomt_mm.engine import (
    AdaptiveMaskAnnealingHook,
    annealing_hook,
    mask_probability,
)
from eomt_mm.errors import UserError
from eomt_mm.models.network import head_of
from eomt_mm.models.pretrained import check_arch
from eomt_mm.visualization import Curve, plot_training


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Draw the schedule of a config')
    cli.add_common_options(parser)
    parser.add_argument(
        '--out', type=Path, help='PNG to write (work_dirs/<config>_schedule.png)'
    )
    parser.add_argument('--max-iters', type=int, help='short for train_cfg.max_iters=N')
    return cli.parse_args(parser, argv)


class ScheduleProbe(nn.Module):
    """A stand-in for a model, with one parameter for each kind of learning rate."""

    def __init__(self, depth: int, num_blocks: int) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.depth = depth
        self.backbone.num_blocks = num_blocks
        self.backbone.blocks = nn.ModuleDict(
            {str(i): nn.Linear(1, 1, bias=False) for i in {0, depth - 1}}
        )
        self.head = nn.Linear(1, 1, bias=False)


def backbone_depth(backbone: dict) -> int:
    """Return the number of blocks of `model.backbone`, without its weights."""
    check_arch(backbone['arch'])
    with torch.device('meta'):
        vit = timm.create_model(
            backbone['arch'], num_classes=0, **(backbone.get('timm_args') or {})
        )
    return len(vit.blocks)


def learning_rates(
    config: Config, depth: int, num_blocks: int, max_iters: int
) -> dict[str, Curve]:
    """Step the config's own optimizer groups and schedulers through the run."""
    probe = ScheduleProbe(depth, num_blocks)
    # Without AMP, which asks for an accelerator, clipping, accumulation.
    settings = {
        key: config.optim_wrapper[key]
        for key in ('optimizer', 'constructor', 'paramwise_cfg')
        if key in config.optim_wrapper
    }
    wrapper = build_optim_wrapper(probe, settings)
    schedules = config.get('param_scheduler') or []
    schedulers = []
    for schedule in [schedules] if isinstance(schedules, dict) else schedules:
        if schedule.get('by_epoch', True):
            raise UserError(
                f'param_scheduler {schedule["type"]} counts epochs, whose length the '
                'config does not contain: write by_epoch=False'
            )
        schedulers.append(
            PARAM_SCHEDULERS.build(
                {'end': max_iters, **schedule}, default_args={'optimizer': wrapper}
            )
        )

    group_of = {id(p): g for g in wrapper.optimizer.param_groups for p in g['params']}
    last, first = (probe.backbone.blocks[str(i)].weight for i in (depth - 1, 0))
    scale = group_of[id(first)].get('lr_scale', 1.0)
    parameters = {
        f'backbone, block {depth - 1}': last,
        'head and queries': probe.head.weight,
        f'backbone, block 0 (x {scale:.2g})': first,
    }
    values = {label: [] for label in parameters}
    for _ in range(max_iters):
        for label, parameter in parameters.items():
            values[label].append(group_of[id(parameter)]['lr'])
        wrapper.step()  # without gradients: schedulers want to see it called
        for scheduler in schedulers:
            scheduler.step()
    return {label: (range(max_iters), rates) for label, rates in values.items()}


def masked_parts(model: dict, depth: int) -> list[str]:
    """Name the annealed parts: blocks of the ViT, or layers of Mask2Former."""
    head = head_of(model) or {}
    if 'transformer_decoder' in head:
        layers = head['transformer_decoder']['num_layers']
        return [f'layer {i}' for i in range(layers)]
    num_blocks = model['backbone'].get('num_blocks', 0)
    return [f'block {i}' for i in range(depth - num_blocks, depth)]


def mask_probabilities(
    config: Config, names: list[str], max_iters: int
) -> dict[str, Curve]:
    """Return the annealing of the parts `names`; empty without a hook.

    Adaptive annealing depends on the run: what can be drawn, and is said, is the
    ceiling that all parts have in common.
    """
    hook = annealing_hook(config)
    if hook is None:
        return {}
    if isinstance(hook, AdaptiveMaskAnnealingHook):
        names = [f'ceiling of each {names[0].partition(" ")[0]}'] if names else []
    windows = hook.windows(len(names), max_iters)
    if isinstance(hook, AdaptiveMaskAnnealingHook) and windows:
        print(
            'AdaptiveMaskAnnealingHook follows the network: drawn is the ceiling of '
            f'the mask probabilities, which falls from iteration {windows[0][0]} to '
            f'{windows[0][1]}; plot_run.py draws what a run has measured'
        )
    steps = range(max_iters)
    return {
        name: (
            steps,
            [mask_probability(step, start, end, hook.power) for step in steps],
        )
        for name, (start, end) in zip(names, windows, strict=True)
    }


def main(argv: list[str] | None = None) -> None:
    """Draw the schedule."""
    args = parse_args(argv)
    config = cli.read_config(args.config)
    cli.override(config, args.cfg_options)
    max_iters = args.max_iters or (config.get('train_cfg') or {}).get('max_iters')
    if max_iters is None:
        raise UserError(
            f'{args.config} has no train_cfg.max_iters, which the whole schedule is '
            'measured by: set it or pass --max-iters'
        )
    model = config.get('model', {})
    backbone = model.get('backbone', {})
    if 'arch' not in backbone:
        raise UserError(
            f'{args.config} has no model.backbone with `arch`, such as one of type '
            "'eomt_mm.QueryViT'"
        )
    depth = backbone_depth(backbone)
    name = Path(args.config).stem
    out = args.out or Path('work_dirs') / f'{name}_schedule.png'
    plot_training(
        out,
        learning_rates(config, depth, backbone.get('num_blocks', 1), max_iters),
        mask_probabilities(config, masked_parts(model, depth), max_iters),
        title=f'{name}, {max_iters} iterations',
    )
    print(out)


if __name__ == '__main__':
    sys.exit(cli.run(main))
