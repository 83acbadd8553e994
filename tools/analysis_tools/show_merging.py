"""Show which patches share a token: pictures of a model's token merging.

    python tools/analysis_tools/show_merging.py CONFIG CHECKPOINT --out pictures

CONFIG has a token_merging, or --cfg-options gives it one. The pictures of a window are
the photo; after each block that merges, the mean colour of each token, with lines
between tokens; last, the tokens as colours, wherever their patches are, where unmerged
patches show the photo. --images DIR takes photographs instead of a dataset.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.cli.panels import LabelMap, contact_sheet, enlarge, paint, panel, save
from eomt_mm.errors import UserError
from eomt_mm.models.token_merging.merging_vit import MergingViT
from eomt_mm.result_names import part_joint, result_names
from measuring.inference import Images, load_model, windows_of

LINE = (255, 255, 255)
GOLDEN = 0.618034  # of a turn: hues of successive tokens are far apart


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Paint merged tokens over photos')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='directory for the pictures')
    parser.add_argument('--images', help='folder of photographs to take')
    parser.add_argument(
        '--number', type=cli.positive, default=6, help='images, spread over the dataset'
    )
    return cli.parse_args(parser, argv)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> list[Path]:
    """Merge and paint.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        list[Path]: The files written, the contact sheet last.

    Raises:
        UserError: If the command, the config or the data are wrong.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    reading.refuse_bands(cfg, 'show_merging.py')
    cli.check_checkpoint(args.checkpoint, cfg=cfg)
    if not args.images:
        cli.check_data(cfg, 'test')
    model = load_model(cfg, args.checkpoint)
    if not isinstance(model.backbone, MergingViT):
        raise UserError(
            f'{args.config} has no token merging: add --cfg-options '
            'model.backbone.token_merging.type=eomt_mm.ALGM '
            'model.backbone.token_merging.threshold=0.9'
        )
    sheet = Path(args.out) / 'merging.png'
    cli.check_output(sheet)
    written, rows = [], []
    images = Images(cfg, args.number, folder=args.images)
    names = result_names(images.paths(), reserved=[sheet.stem])
    joint = part_joint(names.values())
    for batch in images.batches(1):
        stem = names[batch['data_samples'][0].img_path]
        windows = windows_of(model, batch)
        for i, window in enumerate(windows):
            pictures = pictures_of(model, window)
            name = f'{stem}{joint}{i}' if len(windows) > 1 else stem
            path = Path(args.out) / f'{name}.png'
            save(panel(name, pictures, {}), path)
            written.append(path)
            # One heading for all rows: the numbers of tokens differ.
            rows.append({k.partition(':')[0]: v for k, v in pictures.items()})
    save(contact_sheet(rows, {}), sheet)
    print(f'{len(written)} panels and {sheet}')
    return [*written, sheet]


def pictures_of(model: nn.Module, window: Tensor) -> dict[str, Image.Image]:
    """Draw all columns of one window (3, H, W), by heading."""
    photo = enlarge(as_photo(model.data_preprocessor, window))
    pictures = {'photo': photo}
    blocks = model.backbone.token_merging.blocks
    # Of many merges only the first and the last.
    for block in sorted({blocks[0], blocks[-1]}):
        ids = token_ids(model.backbone, window, block)
        heading = f'block {block}: {len(np.unique(ids))} of {ids.size} tokens'
        pictures[heading] = mosaic(photo, ids)
    pictures['one colour, one token'] = linked(photo, ids)
    return pictures


def as_photo(preprocessor: nn.Module, window: Tensor) -> Image.Image:
    """Turn a normalised window (3, H, W) into a picture."""
    pixels = window * preprocessor.std + preprocessor.mean
    pixels = pixels.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(pixels)


def token_ids(vit: nn.Module, window: Tensor, block: int) -> np.ndarray:
    """Find the token of each patch of a window after a block.

    Args:
        vit (QueryViT): A backbone with token merging.
        window (Tensor): Normalised pixels, shape (3, H, W).
        block (int): Number of the block, from 1.

    Returns:
        np.ndarray: Shape (rows, columns).
    """
    (group,) = vit.merged_groups(window[None], block)
    if group.source is None:
        return np.arange(vit.grid[0] * vit.grid[1]).reshape(vit.grid)
    return group.source[0].view(vit.grid).cpu().numpy()


def mosaic(photo: Image.Image, ids: np.ndarray) -> Image.Image:
    """Paint each token in the mean colour of its patches, with lines between them."""
    large = np.array(Image.fromarray(ids.astype(np.int32)).resize(photo.size, 0))
    pixels = np.asarray(photo, np.float64).reshape(-1, 3)
    _, index, counts = np.unique(large, return_inverse=True, return_counts=True)
    index = index.ravel()
    means = [np.bincount(index, pixels[:, c]) / counts for c in range(3)]
    painted = np.stack(means, axis=-1)[index].reshape(*large.shape, 3)
    painted[:, :-1][large[:, :-1] != large[:, 1:]] = LINE
    painted[:-1][large[:-1] != large[1:]] = LINE
    return Image.fromarray(painted.round().astype(np.uint8))


def linked(photo: Image.Image, ids: np.ndarray) -> Image.Image:
    """Paint patches of one token in one colour; unmerged patches show the photo."""
    tokens, counts = np.unique(ids, return_counts=True)
    shared = tokens[counts > 1].tolist()
    colours = {token: _colour(i) for i, token in enumerate(shared)}
    shown = np.where(np.isin(ids, shared), ids, -1)
    names = dict.fromkeys(shared, '')
    return paint(photo, LabelMap(shown, names, colours, clear=-1))


def _colour(number: int) -> tuple[int, int, int]:
    hue = 6 * ((number * GOLDEN) % 1)
    return tuple(
        int(255 * min(1, max(0.15, abs((hue + shift) % 6 - 3) - 1)))
        for shift in (0, 4, 2)
    )


if __name__ == '__main__':
    sys.exit(cli.run(main))
