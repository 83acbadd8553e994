"""See what a model does: a page in the browser, on this machine alone.

    python tools/serve.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...]
    python tools/serve.py model.onnx
    python tools/serve.py --demo

Drop a photo and look: segments, scores, confidence, thresholds, two models side by
side, and what the network predicts on the way. See docs/page.md.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import importlib.util
import sys
from pathlib import Path

from eomt_mm import cli
from eomt_mm.errors import UserError

EXTRA = ('starlette', 'uvicorn')
LOCAL = '127.0.0.1'
PORT = 8765
PATIENCE = 2  # seconds for open answers when the page is closed


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Show models in the browser')
    parser.add_argument(
        'models', nargs='*', metavar='MODEL', help='CONFIG CHECKPOINT, or model.onnx'
    )
    parser.add_argument(
        '--demo', action='store_true', help='the models that `make demo` has trained'
    )
    parser.add_argument(
        '--host',
        default=LOCAL,
        help='address to listen at; default %(default)s, this machine alone',
    )
    parser.add_argument(
        '--port',
        type=cli.not_negative,
        default=PORT,
        help='default %(default)s, or the next that is free',
    )
    positive = cli.positive
    parser.add_argument(
        '--max-megapixels', type=positive, default=50, help='of a photo (%(default)s)'
    )
    parser.add_argument(
        '--max-megabytes', type=positive, default=32, help='of its file (%(default)s)'
    )
    parser.add_argument(
        '--max-waiting', type=positive, default=20, help='in the line (%(default)s)'
    )
    parser.add_argument(
        '--max-held',
        type=positive,
        default=1000,
        help='MB of photos and outputs that are kept (%(default)s)',
    )
    parser.add_argument(
        '--keep-minutes',
        type=positive,
        default=30,
        help='after which an unused page is forgotten (%(default)s)',
    )
    cli.add_cfg_options(parser)
    args = cli.parse_args(parser, argv)
    if args.demo:
        args.models += demo_models()
    if not args.models:
        parser.error('give CONFIG CHECKPOINT, model.onnx or --demo')
    return args


def demo_models() -> list[str]:
    """Return configs and checkpoints of the demo.

    Raises:
        UserError: None was trained.
    """
    from demo import ROOT, TASKS

    found = []
    for task in TASKS.values():
        checkpoint = cli.last_checkpoint(ROOT / task.work_dir)
        if checkpoint is not None:
            found += [str(ROOT / task.config), str(checkpoint)]
    if not found:
        raise UserError(
            'no model of the demo is trained: make demo trains one in about 5 minutes'
        )
    return found


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Raises:
        UserError: A model cannot be shown, no port is free, or the extra is missing.
    """
    args = parse_args(argv)
    require_extra()
    # After the check: these import what the extra brings.
    import uvicorn

    from serving.app import build_app
    from serving.ports import listen
    from serving.service import Limits, Service

    models = load_models(args)
    limits = Limits(
        megapixels=args.max_megapixels,
        megabytes=args.max_megabytes,
        waiting=args.max_waiting,
        held=args.max_held,
        minutes=args.keep_minutes,
    )
    server_socket, taken = listen(args.host, args.port)
    port = server_socket.getsockname()[1]
    for number in taken:
        print(f'port {number} is in use: taking the next')
    is_local = args.host in (LOCAL, 'localhost', '::1')
    hosts = ['127.0.0.1', 'localhost', '[', args.host] if is_local else ['*']
    app = build_app(Service(models, limits), hosts)
    config = uvicorn.Config(
        app, log_level='warning', timeout_graceful_shutdown=PATIENCE, lifespan='on'
    )
    if not is_local:
        print(f'whoever reaches {args.host}:{port} can use this page')
    print(f'open http://{_shown(args.host)}:{port} (Ctrl-C ends it)', flush=True)
    try:
        uvicorn.Server(config).run(sockets=[server_socket])
    except KeyboardInterrupt:
        print('\nthe page is closed')
    finally:
        server_socket.close()


def require_extra() -> None:
    """Raise a UserError if the packages of the extra are not installed."""
    missing = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f'{" and ".join(missing)} not installed: pip install eomt_mm[page]'
        )


def load_models(args: argparse.Namespace) -> list:
    """Load the models that the command line names.

    Raises:
        UserError: One of them cannot be shown, or a checkpoint is missing.
    """
    words = args.models
    files = [word for word in words if word.endswith('.onnx')]
    pairs = cli.configs_and_checkpoints([w for w in words if w not in files])
    for config, checkpoint in pairs:
        if checkpoint is None:
            raise UserError(
                f'{config} has no checkpoint: give CONFIG CHECKPOINT [CONFIG '
                'CHECKPOINT ...], or files that end in .onnx'
            )
    models = []
    for config, checkpoint in pairs:
        models.append(load_config_model(config, checkpoint, args.cfg_options))
    for path in files:
        from serving.onnx_model import OnnxModel

        models.append(OnnxModel(path, Path(path).stem))
    names = [model.name for model in models]
    for number, model in enumerate(models, start=1):
        if names.count(model.name) > 1:
            model.name = f'{number}: {model.name}'
        print(f'{model.name}: {model.task}, {len(model.classes)} classes')
        if model.warning:
            print(f'warning: {model.name}: {model.warning}', file=sys.stderr)
    return models


def load_config_model(config: str, checkpoint: str, options: dict | None):
    """Load one config with its checkpoint, both checked first."""
    from serving.config_model import ConfigModel

    known = argparse.Namespace(config=config, cfg_options=options)
    cfg = cli.load_config(known)
    cli.check_checkpoint(checkpoint)
    return ConfigModel(cfg, checkpoint, Path(config).stem)


def _shown(host: str) -> str:
    return f'[{host}]' if ':' in host else host


if __name__ == '__main__':
    sys.exit(cli.run(main))
