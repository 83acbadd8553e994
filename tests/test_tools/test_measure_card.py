"""The commands for a card: each is one of the benchmark, and failures are contained."""

import argparse
import json
import re
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def card(tool):
    return tool('analysis_tools/measure_card')


@pytest.mark.parametrize('toy', [False, True])
def test_every_step_is_a_command_of_a_tool(tool, card, toy, tmp_path):
    (tmp_path / 'train_whole').mkdir()
    (tmp_path / 'train_whole/iter_40.pth').touch()
    args = argparse.Namespace(out=str(tmp_path), device='cpu', toy=toy)
    for step in card.STEPS:
        _, path, *words = card.command(step, args)
        name = Path(path).relative_to(card.TOOLS).with_suffix('')
        parsed = tool(str(name)).parse_args(words)
        if name == Path('analysis_tools/benchmark'):
            assert parsed.core and parsed.json == f'{tmp_path}/{step}.json'
            assert (parsed.size == ['T']) or not toy


def test_the_large_model_is_the_papers(card):
    from eomt_mm import cli

    cfg = cli.read_config(str(card.CONFIG))
    cli.override(cfg, cli.settings_of(card.LARGE))
    assert cfg.model.backbone.img_size == (640, 640)
    backbone = cfg.model.backbone
    assert (backbone.num_queries, backbone.num_blocks, backbone.timm_args) == (
        200,
        4,
        None,
    )


def test_what_fails_or_lasts_leaves_the_others_alone(card, tmp_path, monkeypatch):
    calls = []

    def run(command, stdout, timeout, **_):
        calls.append(timeout)
        if len(calls) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, len(calls) - 2)

    monkeypatch.setattr(card.subprocess, 'run', run)
    argv = ['--out', str(tmp_path / 'found'), '--device', 'cpu']
    named = card.main(argv)
    assert named.pop('test_whole').startswith('left out: train_whole')
    outcomes = list(named.values())
    assert outcomes[0].startswith('cut short') and outcomes[1] == 'done'
    assert all(found.startswith('failed') for found in outcomes[2:])
    assert max(calls) <= 480
    table = (tmp_path / 'found/steps.md').read_text()
    assert all(step in table for step in card.STEPS)


@pytest.mark.slow
def test_steps_on_a_cpu(card, tmp_path):
    steps = ['inference', 'scenes', 'train_whole', 'test_whole']
    argv = ['--out', str(tmp_path), '--device', 'cpu', '--toy', '--steps', *steps]
    outcomes = card.main(argv)
    assert json.loads((tmp_path / 'inference.json').read_text())
    assert outcomes['inference'] == outcomes['scenes'] == 'done'
    for step in ('train_whole', 'test_whole'):
        assert re.fullmatch(r'done, \d+\.\d images/s', outcomes[step])
