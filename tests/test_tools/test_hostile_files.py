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
from hostile_files import files, hub_folders  # noqa: E402

SECONDS, BYTES = 60, 6 * 2**30  # the memory beyond what the tests themselves hold
ADVICE = ('add_safe_globals', 'weights_only', 'safe_globals')
TRACEBACK = 101


def held() -> int:
    """Bytes of address space of this process."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    return pages * resource.getpagesize()


def attempt(work, path: Path, canary: Path, said: Path) -> str:
    """Work on a file in a process of its own: 'refused', 'read' or what went wrong."""
    child = os.fork()
    if child == 0:
        status = TRACEBACK
        try:
            os.chdir(path.parent)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            limit = held() + BYTES
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
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


def refused_by_tool(name, *argv):
    """A tool that is started with a config and a hostile file."""

    def make(tool, config):
        return by_tool(tool(name).main, *(config if w is CONFIG else w for w in argv))

    return make


def refused_by_inferencer(name):
    """An inferencer of MMSegmentation or MMDetection."""

    def make(tool, config):
        def start(path):
            if name == 'MMSegInferencer':
                from mmseg.apis import MMSegInferencer

                MMSegInferencer(str(config), str(path), device='cpu')
            else:
                from mmdet.apis import DetInferencer

                DetInferencer(str(PANOPTIC), str(path), device='cpu')

        return by_function(start)

    return make


CONFIG = object()
CONFIGS = Path(__file__).parents[2] / 'configs/demo'
SEMANTIC, PANOPTIC = (
    CONFIGS / f'eomt_scenes_{task}.py' for task in ('semantic', 'panoptic')
)
WORK, SHORT = ('--work-dir', 'work'), 'train_cfg.max_iters=1'
TOOLS = {
    'tools/test.py': refused_by_tool('test', CONFIG, '{}', *WORK),
    'train.py --resume': refused_by_tool('train', CONFIG, '--resume', '{}', *WORK),
    'load_from': refused_by_tool(
        'train', CONFIG, *WORK, '--cfg-options', 'load_from={}', SHORT
    ),
    'eomt2mm.py': refused_by_tool(
        'model_converters/eomt2mm', '{}', 'work/out.pth', '--config', SEMANTIC
    ),
    'eomt2mm.py --to-hf': refused_by_tool(
        'model_converters/eomt2mm', '{}', 'work/out', '--to-hf'
    ),
    'show_results.py': refused_by_tool(
        'analysis_tools/show_results', CONFIG, '{}', '--out', 'work'
    ),
    'compare.py': refused_by_tool(
        'analysis_tools/compare', SEMANTIC, '{}', '--out', 'work'
    ),
    'pretrained': lambda tool, config: by_function(pretrained),
    'MMSegInferencer': refused_by_inferencer('MMSegInferencer'),
    'DetInferencer': refused_by_inferencer('DetInferencer'),
}


@pytest.mark.campaign
@pytest.mark.parametrize('way', READERS)
def test_every_file_by_a_reader(way, tmp_path):
    report(way, count(READERS[way], files, tmp_path / 'files'))


@pytest.mark.campaign
@pytest.mark.parametrize('way', TOOLS)
def test_each_family_by_a_tool(way, tool, config, tmp_path):
    """Four files of a family: what stands before a reader takes a second a file."""

    def some(canary):
        families = {}
        for family, content in files(canary):
            families.setdefault(family, []).append((family, content))
        return [entry for group in families.values() for entry in group[:4]]

    report(way, count(TOOLS[way](tool, config), some, tmp_path / 'files'))


def report(way: str, outcomes: Counter) -> None:
    """Print a row of the table: way in, refused in one line, read as data."""
    print(f'\n| {way} | {outcomes["refused"]} | {outcomes["read"]} |', flush=True)


@pytest.mark.parametrize('family, content', list(hub_folders()))
def test_a_hostile_hub_folder(family, content, tmp_path, tool, capsys):
    """A folder as the hub has it ends the converter in one line, and leaves nothing."""
    folder = tmp_path / 'hub'
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    main = tool('model_converters/eomt2mm').main
    out = tmp_path / 'out.pth'
    status = cli.run(main, [str(folder), str(out), '--config', str(SEMANTIC)])
    line = capsys.readouterr().err.strip()
    assert status == 2 and line.startswith('error: ') and '\n' not in line, line
    assert not out.exists() and sorted(p.name for p in tmp_path.iterdir()) == ['hub']


def pretrained(path: Path) -> None:
    """Weights of a ViT alone."""
    from eomt_mm.models.pretrained import load_timm_weights

    load_timm_weights('vit_tiny_patch16_224', str(path), dict(depth=1))
