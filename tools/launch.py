"""Starts the processes of a training or test, as torchrun does, and ends in one line.

python tools/launch.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch

The options are torchrun's. When a process fails or is killed, the others on this
machine are ended, and where the failure has not been told yet, one line tells it.
"""

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main(argv: list[str] | None = None) -> int:
    """Launches.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        int: 0, or the exit status of the process that failed first.
    """
    # It reports each signal it sends, and a failed child in some twenty lines.
    logging.getLogger('torch.distributed').setLevel(logging.CRITICAL)
    try:
        torchrun(argv)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            # A tool's line or traceback stands above.
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        print(
            f'error: process {rank} was ended by {name}, and the others with it: '
            'to go on from the latest checkpoint, start again with --resume',
            file=sys.stderr,
        )
        return 128 - failure.exitcode
    return 0


if __name__ == '__main__':
    sys.exit(main())
