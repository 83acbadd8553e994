"""Parameters and GFLOPs of networks, by the convention of the EoMT paper.

python tools/analysis_tools/get_flops.py configs/ladder/step*_vitl_coco_panoptic_640.py
python tools/analysis_tools/get_flops.py CONFIG --size 1280 1280 --json flops.json
python tools/analysis_tools/get_flops.py mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py

The network alone is counted, for one image (for one window, where a model tests in
windows): a multiplication with its addition is one operation, and fused attention is
counted. Nothing is downloaded or trained.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys

from eomt_mm import cli
from eomt_mm.errors import UserError
from measuring.networks import complexity_of, find_config
from measuring.output import write_json


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        'configs',
        nargs='+',
        metavar='CONFIG',
        help='a file, or mmdet::NAME or mmseg::NAME for a stock config',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='size of the image; default: that of the config, or 640 640',
    )
    cli.add_cfg_options(parser)
    parser.add_argument('--json', metavar='FILE', help='also write the table there')
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> list[dict]:
    """Count, and print a row for each config.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        list[dict]: `config` and either `size`, `parameters`, `gflops` and `on_noise`
        (see `Complexity`) or `error`.

    Raises:
        UserError: If none of the configs can be counted.
    """
    args = parse_args(argv)
    if args.json:
        cli.check_output(args.json)
    width = max(map(len, args.configs))
    print(f'{"config":{width}}  {"size":>11}  {"parameters":>13}  {"GFLOPs":>8}')
    rows = []
    for name in args.configs:
        row = {'config': name, **count(name, args.size, args.cfg_options)}
        rows.append(row)
        print(f'{name:{width}}  {describe(row)}', flush=True)
    if args.json:
        write_json(args.json, rows)
    if all('error' in row for row in rows):
        raise UserError(f'nothing could be counted: {rows[0]["error"]}')
    return rows


def count(name: str, size: list[int] | None, options: dict | None = None) -> dict:
    """Count one config; a failure does not stop the others."""
    try:
        cfg = cli.read_config(find_config(name))
        cli.override(cfg, options)
        result = complexity_of(cfg, tuple(size) if size else None)
    except Exception as error:  # whatever a foreign config brings with it
        message = ' '.join(str(error).split())
        kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
        return {'error': kind + message}
    return {
        'size': list(result.size),
        'parameters': result.parameters,
        'gflops': round(result.operations / 1e9, 3),
        'on_noise': result.on_noise,
    }


def describe(row: dict) -> str:
    """Format a row without the config's name."""
    if 'error' in row:
        return f'error: {row["error"]}'
    size = ' x '.join(map(str, row['size']))
    note = ' (depends on the image; counted on noise)' if row['on_noise'] else ''
    return f'{size:>11}  {row["parameters"]:>13,}  {row["gflops"]:>8.1f}{note}'


if __name__ == '__main__':
    sys.exit(cli.run(main))
