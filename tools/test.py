"""Test a checkpoint with the evaluator of its config.

python tools/test.py CONFIG CHECKPOINT
python tools/test.py CONFIG CHECKPOINT --show-dir pictures
python tools/test.py CONFIG CHECKPOINT --out predictions
python tools/test.py CONFIG CHECKPOINT --dtype bf16 --compile
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import sys
from copy import deepcopy

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.cli.filling_in import painter
from eomt_mm.errors import UserError
from eomt_mm.files import naming


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; the flags are MMSegmentation's and MMDetection's."""
    parser = argparse.ArgumentParser(description='Test (and evaluate) a model')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    cli.add_launch_options(parser)
    parser.add_argument(
        '--out',
        help='save the predictions: a directory of label maps, in the folders of '
        'their photos (default_scope mmseg), or a pickle file (default_scope mmdet)',
    )
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument(
        '--show-dir',
        help='save painted predictions, in the folders of their photos: in this '
        'directory (mmseg) or in this one below work_dir/timestamp (mmdet)',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds per picture with --show'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: also mirrored, or the views of tta_pipeline',
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        '--dtype',
        choices=['fp32', 'bf16', 'fp16', 'fp8'],
        help='precision of the network, which is made faster, on a CPU in fp32 too; '
        'what comes after it stays fp32',
    )
    precision.add_argument(
        '--amp',
        dest='dtype',
        action='store_const',
        const='bf16',
        help='the same as --dtype bf16',
    )
    parser.add_argument(
        '--compile',
        action='store_true',
        help='compile the network: pays for many images of one size, takes a minute or '
        'more at the first',
    )
    parser.add_argument(
        '--max-autotune',
        dest='compile',
        action='store_const',
        const='max-autotune',
        help='the same, and let the compiler try more kernels, for minutes',
    )
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> dict:
    """Test.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: The scores by name.

    Raises:
        UserError: If the command, the config or the data are wrong.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    cli.forgo_strategy(cfg)
    cli.join(cfg)
    cli.check_checkpoint(args.checkpoint, cfg=cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    cli.check_loops(cfg, 'test')
    forgo_labels(cfg)
    if args.show or args.show_dir:
        paint(cfg, args)
    elif is_mmdet(cfg):
        forgo_true_masks(cfg)
    if args.tta:
        augment(cfg)
    save_predictions(cfg, args.out)
    if args.dtype or args.compile:
        speed_up(cfg, args)
    cli.check_data(cfg, 'test')

    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    # MMSegmentation's visualization hook asks for the iteration, and MMEngine would
    # build the loop of the training, with its images, to tell.
    runner._train_loop = None
    cli.build_loader(runner, 'test')
    with naming(args.out or args.show_dir or cfg.work_dir):
        return runner.test()


def paint(cfg: Config, args: argparse.Namespace) -> None:
    """Turn on the visualization hook."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UserError(
            '--show and --show-dir need default_hooks.visualization in the config, '
            "for instance dict(type='SegVisualizationHook')"
        )
    painting = painter(hook)
    painting.update(show=args.show, wait_time=args.wait_time if args.show else 0)
    if args.show_dir:
        below_log = is_mmdet(cfg)
        painting.out_dir = (
            args.show_dir if below_log else os.path.abspath(args.show_dir)
        )
    cfg.default_hooks.visualization = painting


def forgo_labels(cfg: Config) -> None:
    """Skip annotations if every evaluator only writes predictions."""
    metrics = reading.metrics_of(cfg, 'test')
    if metrics and all(metric.get('format_only') for metric in metrics):
        for dataset in reading.leaves_of(cfg, 'test'):
            dataset.pipeline = reading.without_labels(dataset.pipeline)
            if not is_mmdet(cfg) and 'data_prefix' in dataset:
                dataset.data_prefix.pop('seg_map_path', None)


def forgo_true_masks(cfg: Config) -> None:
    """Leave out the true mask of each instance, which only pictures show.

    Evaluators read their annotation file. A hundred masks of a photograph of
    6000 x 4000 pixels are 2.4 GB.
    """
    if all(metric.get('ann_file') for metric in reading.metrics_of(cfg, 'test')):
        for dataset in reading.leaves_of(cfg, 'test'):
            for step in filter(reading.loads_labels, dataset.pipeline):
                step['with_mask'] = False


def augment(cfg: Config) -> None:
    """Wrap the model in the config's `tta_model`, or in MMSegmentation's.

    Raises:
        UserError: If a detector has no `tta_model`.
    """
    tta_model = cfg.get('tta_model')
    if is_mmdet(cfg) and not tta_model:
        raise UserError(
            '--tta: MMDet merges neither the masks nor the panoptic segments of '
            'several views. Leave --tta out, or set in the config '
            "tta_model=dict(type='eomt_mm.EoMTDetTTAModel'), which does for the "
            'detectors of eomt_mm'
        )
    for dataset in reading.leaves_of(cfg, 'test'):
        dataset.pipeline = cfg.get('tta_pipeline') or mirrored(dataset.pipeline)
    tta_model = tta_model or dict(type='mmseg.SegTTAModel')
    cfg.model = ConfigDict(**tta_model, module=cfg.model)


def mirrored(pipeline: list[dict]) -> list[dict]:
    """Make a test pipeline that shows each image twice: as it is and mirrored.

    The flip precedes the loading of annotations, so that these stay unchanged.
    """
    *steps, pack = deepcopy(list(pipeline))
    cut = next(
        (i for i, step in enumerate(steps) if reading.loads_labels(step)), len(steps)
    )
    if 'meta_keys' in pack:
        pack['meta_keys'] = (*pack['meta_keys'], 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    branches = [flips, *([step] for step in steps[cut:]), [pack]]
    return [*steps[:cut], dict(type='TestTimeAug', transforms=branches)]


def save_predictions(cfg: Config, out: str | None) -> None:
    """Has hooks and evaluators write what the model predicts.

    Args:
        cfg (Config): Changed in place.
        out (str, optional): Where; None leaves it to the `output_dir` of evaluators.
    """
    metrics = reading.metrics_of(cfg, 'test')
    if is_mmdet(cfg):
        if out is None:
            return
        if not out.endswith(('.pkl', '.pickle')):
            raise UserError(f'--out {out}: with default_scope mmdet give a .pkl file')
        dump = dict(type='eomt_mm.DumpDetResults', out_file_path=out)
        cfg.test_evaluator = [*metrics, dump]
        return
    folders = {out} - {None}
    for metric in metrics:
        if reading.type_name(metric) == 'CityscapesMetric':  # in the numbers it wants
            metric.update(dict(output_dir=out, keep_results=True) if out else {})
            folders.clear()
        elif reading.type_name(metric) == 'IoUMetric':
            metric.type = 'eomt_mm.IoUMetric'
            folders |= {metric.pop('output_dir', None)} - {None}
    hooks = [dict(type='eomt_mm.LabelMapHook', out_dir=folder) for folder in folders]
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]


def speed_up(cfg: Config, args: argparse.Namespace) -> None:
    """Add half precision and compilation."""
    # Not at the top: most tests go without.
    from eomt_mm.models.network import check_dtype

    check_dtype(args.dtype or 'fp32', torch.device(get_device()))
    hook = dict(
        type='eomt_mm.FastInferenceHook',
        dtype=args.dtype or 'fp32',
        compiled=args.compile,
    )
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def is_mmdet(cfg: Config) -> bool:
    """Whether the config works with MMDetection's data samples."""
    return reading.scope_of(cfg) == 'mmdet'


if __name__ == '__main__':
    sys.exit(cli.run(main))
