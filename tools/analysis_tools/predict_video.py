"""Paint what a model predicts over a video, or over a folder of frames.

python tools/analysis_tools/predict_video.py CONFIG CHECKPOINT ride.mp4 --out seen.mp4
python tools/analysis_tools/predict_video.py CONFIG CHECKPOINT frames/ --out seen.mp4

For all three tasks. `--batch` frames go through the network at once. The output, .mp4
or .avi, has the frame rate of the input; folders have `--fps`.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from PIL import Image

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.cli.label_maps import label_maps_of
from eomt_mm.cli.panels import paint
from eomt_mm.datasets.frames import FolderFrames, VideoFrames, video_writer
from measuring.inference import load_model, photo_info

FOLDER_FPS = 25
MOST_FPS = 1000


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
    parser = argparse.ArgumentParser(description='Paint predictions over a video')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('source', type=Path, help='video file or folder of frames')
    parser.add_argument('--out', type=Path, required=True, help='video to write')
    parser.add_argument(
        '--batch', type=cli.positive, default=4, help='frames at once (default: 4)'
    )
    parser.add_argument('--frames', type=cli.positive, help='stop after so many')
    parser.add_argument('--fps', type=float, help='frames per second of the output')
    args = cli.parse_args(parser, argv)
    if args.fps is not None and not 0 < args.fps <= MOST_FPS:
        parser.error(f'--fps is {args.fps:g}: expected more than 0, {MOST_FPS} at most')
    if args.out.resolve() == args.source.resolve():
        parser.error(f'--out {args.out} is the source: give another file')
    return args


@torch.no_grad()
def main(argv: list[str] | None = None) -> int:
    """Predict and paint.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        int: Number of frames written.

    Raises:
        UserError: Something in the command is wrong, or the video is cut short.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    reading.refuse_bands(cfg, 'predict_video.py')
    read = label_maps_of(cfg)
    cli.check_checkpoint(args.checkpoint, cfg=cfg)
    cli.check_output(args.out)
    init_default_scope(cfg.default_scope)
    steps = reading.without_labels(reading.pipeline_of(cfg))
    if args.source.is_dir():
        frames = FolderFrames(args.source, args.frames, steps)
    else:
        frames = VideoFrames(args.source, args.frames)
    fps = args.fps or frames.fps or FOLDER_FPS
    meta = reading.metainfo_of(reading.leaves_of(cfg, 'test')[0], cfg.default_scope)
    with video_writer(args.out, fps) as video:
        model, pipeline = load_model(cfg, args.checkpoint), array_pipeline(cfg, steps)
        written = 0
        for frame, sample in cli.track(
            predictions(model, pipeline, frames, args.batch), frames.count
        ):
            labels = read(sample.cpu(), meta)['prediction']
            video.add(np.asarray(paint(Image.fromarray(frame), labels)))
            written += 1
    print(f'{written} frames: {args.out}')
    return written


def array_pipeline(cfg: Config, steps: list[dict]) -> Compose:
    """The test pipeline for images in memory."""
    loader = dict(type=f'{cfg.default_scope}.LoadImageFromNDArray')
    is_loader = [reading.type_name(step) == 'LoadImageFromFile' for step in steps]
    return Compose(
        [loader if loads else s for loads, s in zip(is_loader, steps, strict=True)]
    )


def predictions(
    model: torch.nn.Module, pipeline: Compose, frames: Iterable[np.ndarray], size: int
) -> Iterator[tuple[np.ndarray, object]]:
    """Frames and their predictions, `size` at a time through the network."""
    frames, number = iter(frames), 0
    while chunk := list(islice(frames, size)):
        items = []
        for frame in chunk:
            image = np.ascontiguousarray(frame[..., ::-1])
            items.append(pipeline(photo_info('', number) | dict(img=image)))
            number += 1
        yield from zip(chunk, model.test_step(pseudo_collate(items)), strict=True)


if __name__ == '__main__':
    sys.exit(cli.run(main))
