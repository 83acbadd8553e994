"""Print a config after inheritance and overrides.

python tools/misc/print_config.py CONFIG --cfg-options data_root=/data/ade
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys

from eomt_mm import cli
from eomt_mm.errors import UserError


def main(argv: list[str] | None = None) -> None:
    """Print the whole config; `--save-path` saves it."""
    parser = argparse.ArgumentParser(description='Print the whole config')
    cli.add_common_options(parser)
    parser.add_argument('--save-path', help='also save it (.py, .json, .yml)')
    args = cli.parse_args(parser, argv)
    cfg = cli.read_config(args.config)
    cli.override(cfg, args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path:
        if not args.save_path.endswith(('.py', '.json', '.yml')):
            raise UserError(f'--save-path {args.save_path}: end it in .py, .json, .yml')
        cfg.dump(args.save_path)


if __name__ == '__main__':
    sys.exit(cli.run(main))
