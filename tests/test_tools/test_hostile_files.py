"""Hostile files against every way in: nothing runs, each is one line."""

import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm import checkpoints, cli
from eomt_mm.cli.exit import one_line
from eomt_mm.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from hostile_files import files  # noqa: E402

SECONDS, BYTES = 60, 6 * 2**30
ADVICE = ('add_safe_globals', 'weights_only', 'safe_globals')
TRACEBACK = 101


def attempt(work, path: Path, canary: Path, said: Path) -> str:
    """Work on a file in a process of its own: 'refused', 'read' or what went wrong."""
    child = os.fork()
    if child == 0:
        status = TRACEBACK
        try:
            os.chdir(path.parent)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
            with said.open('w') as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                status = work(path)
                sys.stdout.flush()
                sys.stderr.flush()
        except BaseException as error:
            with said.open('a') as log:
                log.write(f'{type(error).__name__}: {error}')
        finally:
            os._exit(status)
    deadline = time.monotonic() + SECONDS
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 'hung'
        time.sleep(0.002)
    if canary.exists():
        canary.unlink()
        return 'executed'
    if os.WIFSIGNALED(status):
        return 'crashed'
    outcome = {0: 'read', 2: 'refused'}.get(os.waitstatus_to_exitcode(status))
    words = said.read_text(errors='replace')
    if outcome == 'refused' and any(word in words for word in ADVICE):
        return 'advice'
    return outcome or 'traceback'


def by_function(function):
    """A way in that raises."""

    def work(path: Path) -> int:
        try:
            function(path)
        except Exception as error:
            line = one_line(error)
            print(line or error)
            fine = (
                line is not None and '\n' not in line and isinstance(error, UserError)
            )
            return 2 if fine else TRACEBACK
        return 0

    return work


def by_tool(main, *argv):
    """A tool; `{}` stands for the file."""

    def work(path: Path) -> int:
        return cli.run(main, [str(word).replace('{}', str(path)) for word in argv])

    return work


def count(work, hostile, folder: Path) -> Counter:
    """Outcomes of all files."""
    folder.mkdir(parents=True, exist_ok=True)
    canary, said = folder / 'canary', folder.parent / f'{folder.name}.txt'
    outcomes, wrong = Counter(), []
    for family, content in hostile(canary):
        path = folder / 'hostile.pth'
        path.write_bytes(content)
        outcome = attempt(work, path, canary, said)
        outcomes[outcome] += 1
        if outcome not in ('read', 'refused'):
            wrong.append((family, outcome, said.read_text(errors='replace')[-300:]))
        left = {p.name for p in folder.iterdir()} - {'hostile.pth', 'work'}
        if left:
            wrong.append((family, 'left behind', sorted(left)))
            for name in left:
                (folder / name).unlink()
    assert not wrong, (dict(outcomes), wrong[:5])
    return outcomes


READERS = {
    'checkpoints.read': by_function(checkpoints.read),
    'read with mmap': by_function(lambda path: checkpoints.read(path, mmap=True)),
    "MMEngine's loader": by_function(
        lambda path: CheckpointLoader.load_checkpoint(str(path))
    ),
    'check before a test': by_function(lambda path: cli.check_checkpoint(str(path))),
    'check before a resume': by_function(
        lambda path: cli.check_checkpoint(str(path), resume=True)
    ),
}


def test_there_are_enough(tmp_path):
    found = files(tmp_path / 'canary')
    assert len(found) >= 300 and len({content for _, content in found}) >= 300
    assert found == files(tmp_path / 'canary')  # the same at each call


def test_the_attacks_work(tmp_path):
    """An unprotected reader would run them."""

    def unprotected(path: Path) -> int:
        torch.load(path, weights_only=False)
        return 0

    outcomes = Counter()
    canary, path = tmp_path / 'canary', tmp_path / 'hostile.pth'
    for family, content in files(canary):
        if family.startswith(('runner by REDUCE', 'runner by INST')):
            path.write_bytes(content)
            outcomes[attempt(unprotected, path, canary, tmp_path / 'said')] += 1
    assert outcomes['executed'] >= 5, outcomes


@pytest.mark.parametrize('way', READERS)
def test_a_sample(way, tmp_path):
    def sample(canary):
        return random.Random(1).sample(files(canary), 60)

    outcomes = count(READERS[way], sample, tmp_path / 'files')
    assert outcomes['refused'] > 40


@pytest.mark.campaign
def test_all(tool, config, tmp_path, root):
    """Every file by every way in; prints the table."""
    test, train = tool('test').main, tool('train').main
    convert = tool('model_converters/eomt2mm').main
    work, short = '--work-dir', 'train_cfg.max_iters=1'
    demo = root / 'configs/demo/eomt_scenes_semantic.py'
    ways = {
        **READERS,
        'tools/test.py': by_tool(test, config, '{}', work, 'work'),
        'train.py --resume': by_tool(train, config, '--resume', '{}', work, 'work'),
        'load_from': by_tool(
            train, config, work, 'work', '--cfg-options', 'load_from={}', short
        ),
        'eomt2mm.py': by_tool(convert, '{}', 'work/out.pth', '--config', demo),
        'eomt2mm.py --to-hf': by_tool(convert, '{}', 'work/out', '--to-hf'),
        'pretrained': by_function(pretrained),
    }

    def some(canary):
        # What stands before a reader takes a second a file.
        families = {}
        for family, content in files(canary):
            families.setdefault(family, []).append((family, content))
        return [entry for group in families.values() for entry in group[:8]]

    rows = []
    for way, function in ways.items():
        hostile = files if way in READERS else some
        outcomes = count(function, hostile, tmp_path / way.replace('/', '_') / 'files')
        print(way, dict(outcomes), flush=True)
        rows.append(f'| {way} | {outcomes["refused"]} | {outcomes["read"]} |')
    print('\n| way in | refused in one line | read as data |\n|---|---|---|')
    print('\n'.join(rows))


def pretrained(path: Path) -> None:
    """Weights of a ViT alone."""
    from eomt_mm.models.pretrained import load_timm_weights

    load_timm_weights('vit_tiny_patch16_224', str(path), dict(depth=1))
