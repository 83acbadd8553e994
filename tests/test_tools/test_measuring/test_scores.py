"""Scores: published ones, measured ones, checkpoints that do not fit."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from eomt_mm.errors import UserError
from measuring.comparison.model import Model
from measuring.comparison.scores import (
    Test,
    main_score,
    quoted_score,
    refuse_unfit,
    refuse_untestable,
    size_remark,
)

STEP5 = 'configs/demo/ladder/step5_scenes_panoptic.py'


@pytest.mark.parametrize(
    ('config', 'score', 'dataset', 'source'),
    [
        # As their metafiles have it; some list one result, some several.
        (
            'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
            'PQ 52.0',
            'COCO',
            'metafile of mmdet',
        ),
        (
            'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
            'mask AP 34.7',
            'COCO',
            'metafile of mmdet',
        ),
        (
            'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
            'mIoU 37.4',
            'ADE20K',
            'metafile of mmseg',
        ),
    ],
)
def test_published_scores_of_stock_configs(config, score, dataset, source):
    quoted = quoted_score(config)
    assert (str(quoted), quoted.dataset, quoted.source) == (score, dataset, source)


def test_published_scores_of_this_repository(root):
    ladder = root / 'configs/ladder'
    quoted = quoted_score(str(ladder / 'step0_vits_coco_panoptic_640.py'))
    assert str(quoted) == 'PQ 50.5'
    assert quoted.source == 'arXiv 2503.19108, Table 3'
    # Of ViT-S on ADE20K the paper has none.
    assert quoted_score(str(root / 'configs/eomt/eomt_vits_ade20k.py')) is None
    assert quoted_score(str(root / STEP5)) is None


def cfg_of(dataset):
    return Config(dict(test_dataloader=dict(dataset=dataset)))


def test_the_score_a_model_is_compared_by():
    wrapped = dict(type='RepeatDataset', dataset=dict(type='mmdet.CocoDataset'))
    scores = {'coco/bbox_mAP': 0.382, 'coco/segm_mAP': 0.347}
    score = main_score(scores, cfg_of(wrapped))
    assert (score.metric, score.dataset, score.source) == ('mask AP', 'Coco', '')
    assert score.value == pytest.approx(34.7)
    panoptic = cfg_of(dict(type='eomt_mm.ScenesPanopticDataset'))
    score = main_score({'mIoU': 50.0, 'coco_panoptic/PQ': 40.0}, panoptic)
    assert (str(score), score.dataset) == ('PQ 40.0', 'ScenesPanoptic')
    with pytest.raises(UserError, match=r"measured \['speed'\]"):
        main_score({'speed': 1.0}, panoptic)


@pytest.fixture
def tiny(root):
    cfg = Config.fromfile(root / STEP5)
    cfg.merge_from_dict(
        {
            'model.backbone.timm_args': dict(embed_dim=32, depth=4, num_heads=2),
            'model.panoptic_head.embed_dims': 32,
        }
    )
    init_default_scope('mmdet')
    return cfg, MODELS.build(cfg.model).state_dict()


def test_checkpoints_that_fit(tiny, tmp_path):
    cfg, state = tiny
    path = tmp_path / 'a.pth'
    # As MMEngine writes it in distributed training, and with what is never loaded.
    wrapped = {f'module.{key}': value for key, value in state.items()}
    torch.save(dict(state_dict=wrapped | dict(extra=torch.ones(1))), path)
    refuse_unfit(cfg, str(path))
    torch.save(state, path)
    refuse_unfit(cfg, str(path))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('backbone.norm.bias'), 'it lacks backbone.norm.bias'),
        (
            lambda s: [s.pop(k) for k in [*s] if k.startswith('panoptic_head')],
            'it lacks panoptic_head.* others',
        ),
        (
            lambda s: s.update({'backbone.queries': torch.ones(9, 32)}),
            r'backbone.queries is \(9, 32\), the config makes \(10, 32\)',
        ),
        (lambda s: s.clear(), 'holds no weights: its state_dict is empty'),
    ],
)
def test_checkpoints_that_do_not_fit(tiny, tmp_path, change, message):
    """MMEngine would load the rest and test another network."""
    cfg, state = tiny
    state = dict(state)
    change(state)
    torch.save(dict(state_dict=state), tmp_path / 'a.pth')
    with pytest.raises(UserError, match=message):
        refuse_unfit(cfg, str(tmp_path / 'a.pth'))


def test_data_are_looked_for_before_a_test(tiny, tmp_path):
    cfg = tiny[0]
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='nowhere; .* data_root=DIR'):
        refuse_untestable(cfg, 'unread.pth')


def test_a_score_of_another_size_says_so():
    def cfg(**backbone):
        return Config(dict(model=dict(backbone=backbone)))

    own = cfg(img_size=(64, 96))
    assert size_remark(own, (64, 96)) is size_remark(own, None) is None
    assert size_remark(own, (128, 128)) == 'measured at 64 x 96, not at 128 x 128'
    stock = size_remark(cfg(), (128, 128))
    assert stock == 'measured at the size of its test pipeline, not at 128 x 128'


def test_a_test_is_the_one_of_tools(tmp_path):
    model = Model('x', 'configs/x.py', 'x.pth', size=(512, 512))
    cfg = cfg_of(dict(type='CityscapesDataset'))
    cfg.model = dict(backbone=dict(img_size=1024))
    test = Test(model, cfg, tmp_path / 'test.py', tmp_path, ['data_root=d'])
    steps = test.steps()
    assert next(steps) == [
        str(tmp_path / 'test.py'),
        'configs/x.py',
        'x.pth',
        *('--work-dir', str(tmp_path), '--cfg-options', 'data_root=d'),
    ]
    (tmp_path / '20260101').mkdir()
    (tmp_path / '20260101/20260101.json').write_text('{"mIoU": 44.25, "aAcc": 80.0}')
    assert not test.is_finished
    assert next(steps, None) is None
    assert test.is_finished and test.outcome == 'mIoU 44.2'
    assert model.measured.dataset == 'Cityscapes'
    assert model.remarks == ['score: measured at 1024 x 1024, not at 512 x 512']


Test.__test__ = False
