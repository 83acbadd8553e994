"""Memory over a long run: 10,000 iterations of the tiniest model stay flat."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

ITERATIONS = 10_000
NOTE_EVERY = 100
# What 10,000 iterations may add after the first fifth, in MB.
ALLOWED = 20
TINY = [
    'model.backbone.timm_args.embed_dim=16',
    'model.backbone.timm_args.depth=2',
    'model.backbone.timm_args.num_heads=2',
    'model.backbone.num_blocks=1',
    'model.decode_head.embed_dims=16',
    'model.decode_head.criterion.num_points=32',
    'train_dataloader.batch_size=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'param_scheduler.warmup=(1,1)',
]


@HOOKS.register_module(name='SoakMemoryNotes')
class MemoryNotes(Hook):
    """Notes the resident memory of the process, in MB."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if (runner.iter + 1) % NOTE_EVERY == 0:
            with (Path(runner.work_dir) / 'memory.jsonl').open('a') as file:
                print(json.dumps([runner.iter + 1, resident()]), file=file)


def resident():
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 1e6


@pytest.mark.campaign
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs Linux')
def test_memory_is_flat(tmp_path, run_tool, root):
    scenes = tmp_path / 'scenes'
    options = ('--train', 16, '--val', 2, '--workers', 1)
    run_tool('dataset_converters/make_scenes', scenes, *options)
    config = tmp_path / 'soak.py'
    config.write_text(
        f'_base_ = {str(root / "configs/demo/eomt_scenes_semantic.py")!r}\n'
        "custom_hooks = [dict(type='eomt_mm.MaskAnnealingHook'),\n"
        "    dict(type='eomt_mm.IterationSeedHook'), dict(type='SoakMemoryNotes')]\n"
    )
    run_tool(
        'train',
        config,
        *('--work-dir', tmp_path / 'run', '--cfg-options', *TINY),
        f'data_root={scenes / "ADEChallengeData2016"}',
        f'train_cfg.max_iters={ITERATIONS}',
        f'train_cfg.val_interval={ITERATIONS // 20}',
        f'default_hooks.checkpoint.interval={ITERATIONS // 20}',
    )
    lines = (tmp_path / 'run/memory.jsonl').read_text().splitlines()
    at, megabytes = np.array([json.loads(line) for line in lines]).T
    for iteration, now in zip(at, megabytes, strict=True):
        print(f'{iteration:.0f} {now:.1f} MB')
    late = at > ITERATIONS / 5
    slope = np.polyfit(at[late], megabytes[late], 1)[0]
    print(f'{slope * 10_000:.1f} MB in 10,000 iterations')
    assert slope * 10_000 < ALLOWED
