"""The shell launchers, with programs on PATH that print how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def call(tmp_path):
    for name in ('python', 'srun'):
        fake = tmp_path / name
        fake.write_text('#!/bin/sh\necho "$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
        fake.chmod(0o755)

    def run(script, *argv, **env):
        env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', **env}
        return subprocess.run(
            ['bash', str(TOOLS / script), *argv],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def test_dist_train(call):
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='host', PORT='29999')
    env['PYTHONPATH'] = '/mine'
    done = call('dist_train.sh', 'c.py', '4', '--amp', '--cfg-options', 'a=b c', **env)
    path, *words = done.stdout.splitlines()
    assert path == f'{TOOLS}/..:/mine'
    assert words == [
        f'{TOOLS}/launch.py',
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=host',
        '--master_port=29999',
        '--nproc_per_node=4',
        f'{TOOLS}/train.py',
        'c.py',
        '--launcher',
        'pytorch',
        '--amp',
        '--cfg-options',
        'a=b c',
    ]


def test_dist_test_defaults(call):
    words = call('dist_test.sh', 'c.py', 'w.pth', '2').stdout.splitlines()[1:]
    assert words == [
        f'{TOOLS}/launch.py',
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--master_port=29500',
        '--nproc_per_node=2',
        f'{TOOLS}/test.py',
        'c.py',
        'w.pth',
        '--launcher',
        'pytorch',
    ]


@pytest.mark.parametrize(
    'script, tail',
    [
        ('slurm_train.sh', ['train.py', 'c.py', '--work-dir', 'x']),
        ('slurm_test.sh', ['test.py', 'c.py', 'x']),
    ],
)
def test_slurm(call, script, tail):
    env = dict(GPUS='16', GPUS_PER_NODE='4', SRUN_ARGS='--qos high')
    done = call(script, 'part', 'job', 'c.py', 'x', '--amp', **env)
    words = done.stdout.splitlines()[1:]
    assert words[:2] == ['-p', 'part']
    assert {'--job-name=job', '--gres=gpu:4', '--ntasks=16'} <= set(words)
    assert words[words.index('--qos') + 1] == 'high'
    at = words.index(f'{TOOLS}/{tail[0]}')
    assert words[at + 1 :] == [*tail[1:], '--launcher', 'slurm', '--amp']


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_usage(call, script):
    assert subprocess.run(['bash', '-n', str(TOOLS / script)]).returncode == 0
    done = call(script, 'c.py')
    assert done.returncode == 2 and 'usage' in done.stderr
