"""What precision costs the demos' models: scores of `tools/test.py` beside fp32's.

`make demo`, with each TASK, and `tools/train.py` with the configs of photographs train
the models; those that are missing are skipped. fp8 is computed by its numbers in fp32
where the device has no such products.
"""

from pathlib import Path

import pytest

from eomt_mm.models import fp8

ROOT = Path(__file__).parents[2]
# Config, work directory and metric.
MODELS = [
    ('eomt_scenes_semantic', 'demo', 'mIoU'),
    ('eomt_scenes_panoptic', 'demo_panoptic', 'coco_panoptic/PQ'),
    ('eomt_scenes_instance', 'demo_instance', 'coco/segm_mAP'),
    ('eomt_photos_ade20k_mini', 'eomt_photos_ade20k_mini', 'mIoU'),
    ('eomt_photos_coco_mini', 'eomt_photos_coco_mini', 'coco_panoptic/PQ'),
]


@pytest.mark.campaign
@pytest.mark.parametrize('name, work_dir, metric', MODELS)
def test_what_precision_costs(name, work_dir, metric, tool, monkeypatch, tmp_path):
    note = ROOT / 'work_dirs' / work_dir / 'last_checkpoint'
    if not note.exists():
        pytest.skip(f'needs the model of configs/demo/{name}.py')
    monkeypatch.setattr(fp8, 'check_device', lambda device: None)
    command = [str(ROOT / f'configs/demo/{name}.py'), note.read_text().strip()]
    command += ['--work-dir', str(tmp_path)]
    scores = {
        dtype: tool('test').main([*command, '--dtype', dtype])[metric]
        for dtype in ('fp32', 'bf16', 'fp8')
    }
    if metric.endswith('mAP'):  # a share, the others are percentages
        scores = {dtype: 100 * score for dtype, score in scores.items()}
    figures = ', '.join(f'{dtype} {score:.2f}' for dtype, score in scores.items())
    print(f'\n{name}, {metric}: {figures}')
    assert scores['bf16'] > scores['fp32'] - 0.2
    assert scores['fp8'] > scores['fp32'] - 0.5
