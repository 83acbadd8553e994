"""Export a trained EoMT to one file that runs without OpenMMLab.

    python tools/deployment/export.py CONFIG CHECKPOINT --out model.onnx
    python tools/deployment/export.py CONFIG CHECKPOINT --out model.pt2 --dtype fp16
    python -m eomt_mm.deploy model.onnx photo.jpg --out picture.png

The file takes raw RGB images (0 to 255) of the network's size and gives class logits
and mask logits. It is compared with PyTorch on a photograph before it gets its name: a
file that differs is not left behind. See docs/deployment.md.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import sys
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.engine import unfinished_annealing
from eomt_mm.errors import UserError
from eomt_mm.files import naming, new_folder
from eomt_mm.models.network import NetworkModel, is_eomt
from exporting import check, files
from exporting.graph import RawNetwork, network_for, program_of
from exporting.meta import first_photo, meta_of
from exporting.precision import halve

# The network also runs in PyTorch, beside the file.
LARGEST_BATCH = 1024


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out', required=True, type=Path, help='file to write, .onnx or .pt2'
    )
    parser.add_argument('--dtype', choices=['fp32', 'fp16'], default='fp32')
    parser.add_argument(
        '--batch',
        type=cli.positive,
        metavar='N',
        help='images at once, fixed; default: any number',
    )
    parser.add_argument(
        '--with-postprocess',
        action='store_true',
        help='also class scores (semantic), or scores, labels and masks of the best',
    )
    parser.add_argument(
        '--quantize',
        choices=['int8'],
        help='weights of linear layers (ONNX): smaller, see the page on deployment',
    )
    parser.add_argument(
        '--photo', help='for the check; default: the first image of the test dataset'
    )
    parser.add_argument(
        '--opset',
        type=int,
        default=files.OPSETS[0],
        help='of ONNX, default %(default)s',
    )
    args = cli.parse_args(parser, argv)
    if args.quantize and (args.dtype != 'fp32' or args.out.suffix != '.onnx'):
        parser.error('--quantize int8 goes with --dtype fp32 and an .onnx file')
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Exports and checks.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict[str, float]: The largest relative difference of each output.

    Raises:
        UserError: Something in the command, the config or the checkpoint is wrong, or
            the file differs from PyTorch.
    """
    args = parse_args(argv)
    check_options(args)
    cfg = cli.load_config(args)
    content = cli.check_checkpoint(args.checkpoint, cfg=cfg)
    cli.check_output(args.out)
    model = load_model(cfg, args.checkpoint)
    refuse_unfit(cfg, model, content)
    dtype = args.quantize or args.dtype
    meta = meta_of(cfg, model, dtype)
    photo = args.photo or first_photo(cfg)
    if photo is None:
        raise UserError(
            'the test dataset is not here to take a photograph for the check from: '
            'give one with --photo'
        )
    windows = check.windows_of(photo, meta)
    network = network_for(model, cfg, meta, args.with_postprocess)
    # What is exported is changed; what it is held against is not.
    exported = deepcopy(network)
    if args.dtype == 'fp16':
        halve(exported)
    # Beside the target, on its disk: files there are moved, not copied.
    with (
        naming(args.out),
        new_folder(args.out.parent),
        TemporaryDirectory(dir=args.out.parent, prefix='.partial-') as folder,
    ):
        path = Path(folder) / args.out.name
        write(exported, windows, path, meta, args)
        run = check.open_file(path)
        found = check.differences(run, network, windows, args.batch or 1)
        check.require(found, dtype)
        report(run, network, path, windows[:1].expand(args.batch or 1, -1, -1, -1))
        # The model last: it is whole as soon as it is there.
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == path):
            os.replace(part, args.out.parent / part.name)
    print(f'against PyTorch in fp32 on {photo}, largest difference:')
    for name, gap in found.items():
        print(f'  {name:<14}{gap:.1e} of the largest value')
    print(f'{args.out} is written, {dtype}, {meta["task"]}')
    return found


def check_options(args: argparse.Namespace) -> None:
    """Refuses what cannot be written, before anything is read.

    Raises:
        UserError: Names the option.
    """
    if args.out.suffix not in ('.onnx', '.pt2'):
        raise UserError(f'--out {args.out}: give a name ending in .onnx or .pt2')
    low, high = files.OPSETS
    if not low <= args.opset <= high:
        raise UserError(
            f'--opset {args.opset}: expected {low} to {high}; PyTorch writes no older '
            'one, and newer ones were not tried'
        )
    if args.batch and args.batch > LARGEST_BATCH:
        raise UserError(
            f'--batch {args.batch}: expected at most {LARGEST_BATCH}; without --batch '
            'the file takes any number of images'
        )


def load_model(cfg: Config, checkpoint: str) -> torch.nn.Module:
    """The config's model on the CPU with its weights, ready to predict."""
    init_default_scope(cfg.default_scope)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    load_checkpoint(model, checkpoint, map_location='cpu')
    return model


def refuse_unfit(cfg: Config, model: NetworkModel, content: dict | None) -> None:
    """Refuses what is not a finished EoMT.

    Raises:
        UserError: Another model, unfinished annealing, or merging by a threshold.
    """
    if not is_eomt(model):
        raise UserError(
            f'{cfg.model.type} is no EoMT of this package: expected '
            'eomt_mm.EoMTSegmentor or eomt_mm.EoMTDetector with an eomt_mm.QueryViT'
        )
    backbone, before = model.backbone, reading.type_name(cfg.model.data_preprocessor)
    if before not in ('EoMTSegDataPreProcessor', 'EoMTDetDataPreprocessor'):
        raise UserError(
            f'model.data_preprocessor is {before}, which pads after the '
            'normalisation: expected eomt_mm.EoMTSegDataPreProcessor or '
            'eomt_mm.EoMTDetDataPreprocessor'
        )
    if cfg.model.backbone.get('in_channels', 3) != 3:
        raise UserError(
            f'backbone.in_channels is {cfg.model.backbone.in_channels}: exported '
            'models and their predictor take RGB images, 3 channels, and no others'
        )
    if any(backbone.mask_probs):
        raise UserError(
            f'backbone.mask_probs is {backbone.mask_probs}: the mask annealing is not '
            'finished, and an exported network has no masks. Train to the end, or set '
            'mask_probs to None'
        )
    if not backbone.fixed_lengths:
        raise UserError(
            'token merging by a threshold leaves another number of tokens in every '
            'image, which a graph cannot have: fix the numbers with '
            'token_merging.keep instead of token_merging.threshold'
        )
    fusion = getattr(model, 'panoptic_fusion_head', None)
    for option, plain in (('tiles', None), ('box_from', 'mask')):
        if fusion and fusion.test_cfg.get(option, plain) != plain:
            raise UserError(
                f'test_cfg.{option} is {fusion.test_cfg[option]!r}, which the '
                'predictor of exported models does not know, and its results would '
                f'differ: --cfg-options model.test_cfg.{option}={plain}'
            )
    meta = (content or {}).get('meta')
    if message := unfinished_annealing(cfg, backbone.num_blocks, meta):
        raise UserError(f'{message} Export a later checkpoint')


def write(
    network: RawNetwork,
    windows: torch.Tensor,
    path: Path,
    meta: dict,
    args: argparse.Namespace,
) -> None:
    """Writes the format that the name asks for."""
    images = windows[:1].expand(args.batch or 1, -1, -1, -1).contiguous()
    program = program_of(network, images, dynamic=args.batch is None)
    if path.suffix == '.pt2':
        files.write_program(program, path, meta)
        return
    if not args.quantize:
        files.write_onnx(program, path, network.outputs, meta, args.opset)
        return
    with TemporaryDirectory(dir=path.parent) as folder:
        full = Path(folder) / path.name
        files.write_onnx(program, full, network.outputs, meta, args.opset)
        files.quantize(full, path)


def report(
    run: check.Run, network: RawNetwork, path: Path, images: torch.Tensor
) -> None:
    """Prints size and speed, beside PyTorch's."""
    size = sum(part.stat().st_size for part in path.parent.iterdir())
    ours, torchs = check.seconds([run, network], images.contiguous(), repeats=3)
    print(
        f'{size / 1e6:.1f} MB; {1000 * ours:.0f} ms for {len(images)} image(s), '
        f'PyTorch in fp32 {1000 * torchs:.0f} ms ({torch.get_num_threads()} thread(s))'
    )


if __name__ == '__main__':
    sys.exit(cli.run(main))
