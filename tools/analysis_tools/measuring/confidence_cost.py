"""What confidence maps cost: a frame with and without, and the maps alone.

    python tools/analysis_tools/benchmark.py confidence CONFIG [CHECKPOINT]

CONFIG has a semantic EoMT or a step of its ladder. All contenders of a case take turns,
and each has its memory measured in a process of its own. The maps alone are made of
smooth, made-up class scores at the size of the frame, together with the class map that
every result has. Without CHECKPOINT the weights are random, which costs the same.
"""

import argparse
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmengine.dataset import Compose, pseudo_collate
from torch import Tensor, nn

from eomt_mm import cli
from eomt_mm.models.confidence import CONFIDENCES, confidence_map
from eomt_mm.models.windows import resized_argmax

from .arguments import add_measuring_options
from .contest import Contest
from .inference import ask_for_confidence, load_model, photo_info, photo_pipeline
from .measure import Work

WITHOUT = 'without'
GRAIN = 16  # pixels between made-up scores, the rest is interpolated


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        'benchmark.py confidence',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument(
        '--frame',
        nargs='*',
        choices=CONFIDENCES,
        default=['class_score'],
        help='measures of whole frames; none leaves frames out',
    )
    parser.add_argument(
        '--maps',
        nargs='*',
        choices=CONFIDENCES,
        default=[*CONFIDENCES],
        help='measures of maps alone; none leaves these out',
    )
    parser.add_argument(
        '--ori',
        type=cli.positive,
        nargs=2,
        default=(1024, 2048),
        help='height and width of the frame',
    )
    add_measuring_options(parser)
    parser.add_argument(
        '--processor-time',
        action='store_true',
        help='seconds of the processor, where other work shares its cores',
    )
    parser.add_argument('--json', metavar='FILE', help='also write all figures here')
    parser.add_argument('--memory-of', nargs=2, help=argparse.SUPPRESS)
    args = cli.parse_args(parser, argv)
    if not (args.frame or args.maps):
        parser.error('give some measures to --frame or --maps')
    if args.processor_time and args.device.startswith('cuda'):
        parser.error('--processor-time is of a CPU, and the work is on a GPU')
    return args


def contests(
    args: argparse.Namespace, device: torch.device, photo: str
) -> list[Contest]:
    """Make the two cases; the results of all contenders must be equal.

    Args:
        args (argparse.Namespace): What `parse_args` returns.
        device (torch.device): Device of the computation.
        photo (str): An image file of the frame's size.

    Raises:
        UserError: The config has no model with confidence maps.
    """
    cfg = cli.load_config(args)
    ask_for_confidence(cfg, 'class_score')
    if args.checkpoint:
        cli.check_checkpoint(args.checkpoint)
    height, width = args.ori
    found = []
    if args.maps:
        classes = cfg.model.decode_head.num_classes
        make = functools.partial(prepare_map, classes, tuple(args.ori), device)
        case = f'scores of {classes} classes at {width} x {height} to result'
        found.append(_contest(case, args.maps, make))
    if args.frame:

        @functools.cache
        def build() -> tuple[nn.Module, Compose]:
            return load_model(cfg, args.checkpoint, device), photo_pipeline(cfg)

        make = functools.partial(prepare_frame, build, photo)
        found.append(
            _contest(f'file of {width} x {height} to result', args.frame, make)
        )
    return found


def _contest(case: str, measures: list[str], make: Callable[[str], Work]) -> Contest:
    names = [WITHOUT, *measures]
    contenders = {name: functools.partial(make, name) for name in names}
    return Contest(case, images=1, contenders=contenders, exact=set(names))


def prepare_map(
    classes: int, size: tuple[int, int], device: torch.device, measure: str
) -> Work:
    """Make class scores, and a function that finishes an image with a measure.

    Args:
        classes (int): Number of classes.
        size (tuple[int, int]): Height and width in pixels.
        device (torch.device): Device of the computation.
        measure (str): A key of `CONFIDENCES`, or `WITHOUT`.

    Returns:
        Callable: Returns the class map, shape (H, W).
    """
    scores = made_up_scores(classes, size).to(device)

    @torch.inference_mode()
    def finish() -> Tensor:
        kept = measure != WITHOUT and confidence_map(scores, measure, size)
        result = resized_argmax(scores, size)
        del kept  # until now, as in a result
        return result

    return finish


@functools.lru_cache(maxsize=1)
def made_up_scores(classes: int, size: tuple[int, int]) -> Tensor:
    """Make smooth scores of regions, shape (classes, H, W), pixels side by side."""
    generator = torch.Generator().manual_seed(0)
    coarse = [max(2, side // GRAIN) for side in size]
    logits = torch.randn(1, classes, *coarse, generator=generator)
    scores = F.interpolate(5 * logits, size, mode='bilinear')[0].softmax(0)
    return scores.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def prepare_frame(
    build: Callable[[], tuple[nn.Module, Compose]], photo: str, measure: str
) -> Work:
    """Make a function that predicts a photo with a measure.

    Args:
        build (Callable): Returns the model and its test pipeline, always the same.
        photo (str): An image file.
        measure (str): A key of `CONFIDENCES`, or `WITHOUT`.

    Returns:
        Callable: Returns the class map, shape (1, H, W).
    """
    model, pipeline = build()

    @torch.inference_mode()
    def predict() -> Tensor:
        model.test_cfg['confidence'] = None if measure == WITHOUT else measure
        (sample,) = model.test_step(pseudo_collate([pipeline(photo_info(photo))]))
        return sample.pred_sem_seg.data

    return predict
