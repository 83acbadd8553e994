"""Convert a published EoMT to a checkpoint of this package, or back.

    python tools/model_converters/eomt2mm.py pytorch_model.bin eomt.pth
    python tools/model_converters/eomt2mm.py delta.bin eomt.pth --base dinov3/
    python tools/model_converters/eomt2mm.py iter_39120.pth FOLDER --to-hf

reads the authors' `.bin` and Lightning `.ckpt` files and the safetensors of Hugging
Face's `Eomt` and `EomtDinov3`. The tensors show the kind of file. Files are never
unpickled; output is written whole or not at all.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys
from pathlib import Path

from eomt_mm import cli, convert
from eomt_mm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Convert a published EoMT to a checkpoint of this package, or back'
    )
    parser.add_argument('src', help='file, or folder with model.safetensors')
    parser.add_argument(
        'dst', type=Path, help='file to write; with --to-hf, folder to write'
    )
    parser.add_argument(
        '--base',
        help='pre-trained DINOv3 of Hugging Face, file or folder, for the delta files '
        'of the authors',
    )
    parser.add_argument(
        '--config', help='config the checkpoint is for (default: the one that fits)'
    )
    parser.add_argument(
        '--to-hf',
        action='store_true',
        help='from a checkpoint of this package to a folder for transformers',
    )
    args = parser.parse_args(argv)
    if args.to_hf and args.base:
        parser.error(
            '--base is for delta files, --to-hf for checkpoints of this package'
        )
    return args


def choose_config(source: convert.Source) -> Path:
    """Choose the first config that fits, and print the others.

    Raises:
        UserError: If no config fits.
    """
    folder = ROOT / 'configs/eomt'
    configs = {path: cli.read_config(str(path)) for path in folder.rglob('*.py')}
    fits = convert.fitting_configs(source.inventory, configs)
    if not fits:
        found = '; '.join(f'{label} {text}' for label, text in source.rows())
        raise UserError(
            f'no config in {folder} fits {source.path} ({found}): give one with '
            '--config'
        )
    names = [str(path.relative_to(ROOT)) for path in fits]
    show([('config', names[0])])
    if names[1:]:
        show([('', f'also fits: {name}') for name in names[1:]])
    if source.inventory.img_size is None:
        show([('', 'the tensors do not show the input size: the smallest is taken')])
    return fits[0]


def show(rows: list[tuple[str, str]]) -> None:
    """Print rows of a table."""
    for label, text in rows:
        print(f'  {label:<9} {text}')


def to_package(args: argparse.Namespace) -> None:
    """Convert a published checkpoint."""
    path = convert.locate(args.src)
    base = convert.locate(args.base) if args.base else None
    if args.dst.is_dir():
        raise UserError(f'{args.dst} is a folder: give the name of a file')
    if args.dst.exists() and any(args.dst.samefile(p) for p in (path, base) if p):
        raise UserError(f'{args.dst} is a file to read: give another name')
    if args.dst.exists():
        raise UserError(f'{args.dst} is there already: remove it or give another name')
    source = convert.read_source(path, base)
    print(path)
    show(source.rows())
    config = args.config or choose_config(source)
    name = str(args.config or config.relative_to(ROOT))
    convert.to_package(source, cli.read_config(str(config)), name, args.dst)
    print(f'{args.dst} is written; test it with')
    print(f'  python tools/test.py {name} {args.dst}')


def to_transformers(args: argparse.Namespace) -> None:
    """Convert a checkpoint of this package to a folder for transformers."""
    cfg = cli.read_config(args.config) if args.config else None
    config = convert.to_transformers(convert.locate(args.src), args.dst, cfg)
    print(f'{args.dst} is written; load it with')
    (architecture,) = config['architectures']
    print(f'  transformers.{architecture}.from_pretrained({str(args.dst)!r})')


def main(argv: list[str] | None = None) -> None:
    """Convert."""
    args = parse_args(argv)
    if args.to_hf:
        to_transformers(args)
    else:
        to_package(args)


if __name__ == '__main__':
    sys.exit(cli.run(main))
