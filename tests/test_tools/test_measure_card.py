"""The commands for a card: each is one of the benchmark, and failures are contained."""

import argparse
import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / 'tools/analysis_tools/measure_card.py'


@pytest.fixture
def card():
    spec = importlib.util.spec_from_file_location('measure_card', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('toy', [False, True])
def test_every_step_is_a_command_of_the_benchmark(tool, card, toy):
    benchmark = tool('analysis_tools/benchmark')
    for step in card.STEPS:
        args = argparse.Namespace(out='found', device='cpu', toy=toy)
        parsed = benchmark.parse_args(card.command(step, args)[2:])
        assert parsed.core and parsed.json == f'found/{step}.json'
        assert (parsed.size == ['T']) or not toy


def test_what_fails_or_lasts_leaves_the_others_alone(card, tmp_path, monkeypatch):
    calls = []

    def run(command, stdout, timeout, **_):
        calls.append(timeout)
        if len(calls) == 1:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, len(calls) - 2)

    monkeypatch.setattr(card.subprocess, 'run', run)
    argv = ['--out', str(tmp_path / 'found'), '--device', 'cpu']
    outcomes = list(card.main(argv).values())
    assert outcomes[0].startswith('cut short') and outcomes[1] == 'done'
    assert all(found.startswith('failed') for found in outcomes[2:])
    assert max(calls) <= 480
    table = (tmp_path / 'found/steps.md').read_text()
    assert all(step in table for step in card.STEPS)


@pytest.mark.slow
def test_a_step_on_a_cpu(card, tmp_path):
    argv = ['--out', str(tmp_path), '--device', 'cpu', '--toy', '--steps', 'inference']
    assert card.main(argv) == {'inference': 'done'}
    assert json.loads((tmp_path / 'inference.json').read_text())
