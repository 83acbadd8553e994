"""What precision costs the demos' models: scores of `tools/test.py` beside fp32's.

`make demo`, with each TASK, trains the models; those that are missing are skipped.
fp8 is computed by its numbers in fp32 where the device has no such products.
"""

from pathlib import Path

import pytest

from eomt_mm.models import fp8

ROOT = Path(__file__).parents[2]
TASKS = {
    'semantic': 'mIoU',
    'panoptic': 'coco_panoptic/PQ',
    'instance': 'coco/segm_mAP',
}


@pytest.mark.campaign
@pytest.mark.parametrize('task', TASKS)
def test_what_precision_costs(task, tool, monkeypatch, tmp_path):
    work_dir = ROOT / 'work_dirs' / ('demo' if task == 'semantic' else f'demo_{task}')
    if not (work_dir / 'last_checkpoint').exists():
        pytest.skip(f'needs the model of make demo TASK={task}')
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    monkeypatch.setattr(fp8, 'check_device', lambda device: None)
    config = ROOT / f'configs/demo/eomt_scenes_{task}.py'
    scores = {}
    for dtype in ('fp32', 'bf16', 'fp8'):
        argv = [str(config), checkpoint, '--dtype', dtype, '--work-dir', str(tmp_path)]
        score = tool('test').main(argv)[TASKS[task]]
        # AP is a share, the others are percentages.
        scores[dtype] = 100 * score if task == 'instance' else score
    figures = ', '.join(f'{dtype} {score:.2f}' for dtype, score in scores.items())
    print(f'\n{task}, {TASKS[task]}: {figures}')
    assert scores['bf16'] > scores['fp32'] - 0.2
    assert scores['fp8'] > scores['fp32'] - 0.5
