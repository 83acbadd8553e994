"""Segment a photo: `python -m eomt_mm.deploy model.onnx photo.jpg --out picture.png`.

Prints what was found. Exit status 2, with one line, where a file cannot be used; 130
after Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path

from .painting import describe, paint
from .predictor import Predictor, load_photo


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of the command."""
    parser = argparse.ArgumentParser(
        prog='python -m eomt_mm.deploy', description='Segment a photo'
    )
    parser.add_argument('model', help='file of tools/deployment/export.py')
    parser.add_argument('photo', help='image file')
    parser.add_argument('--out', type=Path, help='picture to write, such as out.png')
    parser.add_argument(
        '--threads', type=int, default=0, help="of the CPU; default: ONNX Runtime's"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Segment a photo.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        int: The exit status.
    """
    args = parse_args(argv)
    try:
        segment(args)
    except KeyboardInterrupt:
        print('\ninterrupted', file=sys.stderr)
        return 130  # 128 + SIGINT, what shells report
    except (UserError, MemoryError) as error:
        line = str(error)
        if isinstance(error, MemoryError):
            line = f'the memory is not enough for this model and photo ({line})'
        line = ' '.join(line.split())
        # Names in a file could otherwise steer the terminal.
        line = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        print(f'error: {line}', file=sys.stderr)
        return 2
    return 0


def segment(args: argparse.Namespace) -> None:
    """Run the model on the photo, print and paint."""
    if args.out and args.out.suffix.lower() not in ('.png', '.jpg', '.jpeg', '.webp'):
        raise UserError(f'--out {args.out}: give a name ending in .png, .jpg or .webp')
    predictor = Predictor(args.model, threads=args.threads)
    photo = load_photo(args.photo, predictor.meta['upright'])
    result = predictor(photo)
    for line in describe(result, predictor.meta):
        print(''.join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
    if args.out:
        try:
            with atomic_path(args.out) as partial:
                paint(photo, result, predictor.meta).save(partial)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f'--out {args.out} cannot be written ({reason})') from error


if __name__ == '__main__':
    sys.exit(main())
