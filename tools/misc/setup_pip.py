"""How `setup_env.py` runs pip: all words to the log, progress and one-line errors out.

Standard library only, and no syntax newer than Python 3.6.
"""

import collections
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from setup_checks import SetupError

NETWORK = re.compile(
    'NewConnectionError|NameResolutionError|Temporary failure in name resolution|'
    'Network is unreachable|ConnectTimeout|ReadTimeout|Read timed out|ProxyError|'
    'Connection refused|Connection broken|IncompleteRead|SSLError'
)


def describe(line, last):
    """What a line of pip's or ninja's output means to somebody waiting.

    Args:
        line (str): The line.
        last (str): What was shown before.

    Returns:
        str: What to show now.
    """
    match = re.match(r'\s*\[(\d+)/(\d+)\]', line)
    if match:
        return 'compiling: file {} of {}'.format(*match.groups())
    match = re.match(r'Progress (\d+) of (\d+)', line)
    if match and int(match.group(2)):
        percent = 100 * int(match.group(1)) // int(match.group(2))
        return f'{last.split(":")[0]}: {percent} %'
    match = re.match(r'\s*(?:Downloading|Using cached|Processing) (\S+)(.*)', line)
    if match:
        name = re.match(r'[^-]*(-[\d.]*\d)?', os.path.basename(match.group(1)))
        size = re.match(r' \([\d.]+ \wB\)', match.group(2))
        return f'getting {name.group()}{size.group() if size else ""}'
    match = re.match(r'\s*Collecting ([^\s=<>!~;\[]+)', line)
    if match:
        return f'looking for {match.group(1)}'
    match = re.match(r'Installing collected packages: (.*)', line)
    if match:
        first, *others = match.group(1).split(', ')
        more = f' and {len(others)} more' if others else ''
        return f'installing {first}{more}'
    match = re.match(r'\s*Building (?:wheel|editable) for (\S+)', line)
    if match:
        return f'building {match.group(1)}'
    return last


def explain(output):
    """The cause of pip's failure in one line, from its output.

    Args:
        output (list[str]): The last lines pip wrote.

    Returns:
        str: What went wrong and, where known, the way out.
    """
    text = '\n'.join(output)
    if 'No space left on device' in text:
        return 'the disk is full: make room'
    unfound = re.search(
        r'user requested \(constraint\) (\S+)|No matching distribution found for (\S+)',
        text,
    )
    package = next(filter(None, unfound.groups())) if unfound else 'a package'
    if NETWORK.search(text):
        return f'no package index reached for {package}: check network and proxy'
    if unfound:
        return f'no package index reached, or it has no {package} for this machine'
    if re.search('Killed signal|signal terminated program|bad_alloc', text):
        return 'the compiler ran out of memory: try MAX_JOBS=1'
    compiler = re.search(r'^\S+:\d+:.*error: .*$|^.*fatal error: .*$', text, re.M)
    if compiler:
        return compiler.group().strip()
    errors = [line for line in output if line.startswith('ERROR:')]
    lines = [line for line in output if line.strip()]
    last = (errors or lines or ['pip failed without a word'])[-1]
    return re.sub('^ERROR: ', '', last).strip()


class Progress:
    """One line that changes on a terminal; a line now and then elsewhere."""

    def __init__(self, stream, every=20, clock=time.monotonic):
        self.stream, self.clock = stream, clock
        self.terminal = stream.isatty()
        self.every = 0.5 if self.terminal else every
        self.start = self.shown = clock()

    def show(self, text):
        """Shows the text and the time since the start, unless it just did."""
        now = self.clock()
        if not text or now - self.shown < self.every:
            return
        self.shown = now
        minutes, seconds = divmod(int(now - self.start), 60)
        line = f'      {minutes}:{seconds:02d}  {text}'
        self.stream.write(f'\r\033[K{line[:79]}' if self.terminal else line + '\n')
        self.stream.flush()

    def close(self):
        """Clears the terminal's line."""
        if self.terminal:
            self.stream.write('\r\033[K')
            self.stream.flush()


class Runner:
    """Runs the environment's Python.

    The lock is handed on to each command: one that outlives a killed set-up keeps
    the next set-up waiting, instead of both writing into the same packages.

    Args:
        venv (str): The environment.
        log (TextIO): Where all output goes.
        lock (int): File descriptor that holds the lock.
    """

    def __init__(self, venv, log, lock):
        self.python = os.path.join(venv, 'bin', 'python')
        self.root, self.log, self.lock = os.path.dirname(venv), log, lock
        self.env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
        self.env.update(
            PATH=os.path.join(venv, 'bin') + os.pathsep + os.environ['PATH'],
            # Of a pip that is killed, gigabytes stay in the temporary directory.
            TMPDIR=os.path.join(venv, 'tmp'),
            PYTHONNOUSERSITE='1',
            PYTHONUNBUFFERED='1',
            PIP_DISABLE_PIP_VERSION_CHECK='1',
            PIP_NO_INPUT='1',
            PIP_USER='0',
        )

    def pip(self, *args, env=()):
        """`pip ARGS` from the project's root; raises SetupError where it fails."""
        self.log.write('\n$ pip {}\n'.format(' '.join(args)))
        os.makedirs(self.env['TMPDIR'], exist_ok=True)
        process = subprocess.Popen(
            [self.python, '-m', 'pip', *args],
            cwd=self.root,
            env=dict(self.env, **dict(env)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors='replace',
            start_new_session=True,
            pass_fds=[self.lock],
        )
        try:
            tail = self.follow(process.stdout)
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
            shutil.rmtree(self.env['TMPDIR'], ignore_errors=True)
        if code:
            raise SetupError(f'{explain(tail)}; log: .venv/setup.log')

    def follow(self, stream):
        """Logs and shows a command's output; returns its last lines."""
        progress, shown = Progress(sys.stdout), ''
        tail = collections.deque(maxlen=400)
        try:
            for line in lines_or_none(stream):
                if line is not None:
                    shown = describe(line, shown)
                    if not line.startswith('Progress '):
                        tail.append(line.rstrip('\n'))
                        self.log.write(line)
                        self.log.flush()
                progress.show(shown)
        finally:
            progress.close()
        return list(tail)

    def ask(self, code):
        """Runs a few lines of Python, away from the project's directory.

        Returns:
            tuple[bool, str]: Whether they ran, and the last line they printed.
        """
        out = subprocess.run(
            [self.python, '-W', 'ignore', '-c', code],
            cwd=tempfile.gettempdir(),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        text = out.stdout.decode(errors='replace')
        self.log.write(text)
        return out.returncode == 0, (text.strip().splitlines() or [''])[-1]


def lines_or_none(stream):
    """Lines of a stream as they come, and None for each half second without one."""
    lines = queue.Queue()

    def read():
        for line in stream:
            lines.put(line)
        lines.put('')

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield line
