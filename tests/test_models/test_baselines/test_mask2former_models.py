"""Mask2Former as a detector and as a segmentor."""

import pytest
import torch
from mask2former_parts import build, detection_samples, semantic_samples
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmseg.structures import SegDataSample

from eomt_mm.engine.fine_tuning import fit_weights
from eomt_mm.errors import UserError
from eomt_mm.models.backbone_sizes import write_sizes
from eomt_mm.models.network import speed_up


def detector(head_config, adapter_config, **changes):
    return ConfigDict(
        dict(
            type='eomt_mm.Mask2FormerDetector',
            data_preprocessor=dict(type='eomt_mm.EoMTDetDataPreprocessor'),
            backbone=adapter_config,
            panoptic_head=head_config('eomt_mm.Mask2FormerHead', **changes),
            train_cfg=head_config('eomt_mm.Mask2FormerHead').train_cfg,
            test_cfg=dict(instance_on=True, object_mask_thr=0.2, iou_thr=0.0),
        )
    )


def test_stock_detector_runs_the_same_weights(head_config, adapter_config):
    config = detector(head_config, adapter_config)
    model = build(config).eval()
    classes = dict(num_things_classes=3, num_stuff_classes=2)
    fusion = dict(type='eomt_mm.FusionHead', **classes)
    stock = config | dict(type='mmdet.Mask2Former', panoptic_fusion_head=fusion)
    write_sizes(stock)
    stock = MODELS.build(ConfigDict(stock)).eval()
    stock.load_state_dict(model.state_dict())

    shapes = ('img_shape', 'ori_shape', 'batch_input_shape')
    meta = dict.fromkeys(shapes, (64, 64))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = (
            m.predict(images, [DetDataSample(metainfo=meta) for _ in images])
            for m in (model, stock)
        )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.pred_panoptic_seg.sem_seg, b.pred_panoptic_seg.sem_seg)
        assert torch.equal(a.pred_instances.labels, b.pred_instances.labels)
        same = a.pred_instances.masks == b.pred_instances.masks
        assert same.float().mean() > 0.999 and a.pred_instances.masks.any()

    losses = stock.train().loss(images, detection_samples())
    assert losses.keys() == model.train().loss(images, detection_samples()).keys()


def photos(*shapes):
    inputs = [torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in shapes]
    samples = [
        DetDataSample(metainfo=dict(img_shape=s, ori_shape=s, flip=False))
        for s in shapes
    ]
    return dict(inputs=inputs, data_samples=samples)


def test_tiles_and_views(head_config, adapter_config):
    config = detector(head_config, adapter_config)
    model = build(config).eval()
    weights = model.state_dict()
    config.test_cfg.tiles = dict(overlap=0.5, score_thr=0.0)
    tiled = build(config).eval()
    tiled.load_state_dict(weights)
    with torch.no_grad():
        (found,) = tiled.test_step(photos((100, 80)))
    assert found.pred_instances.masks.shape[1:] == (100, 80)
    assert found.pred_instances.masks.any()

    stock = config | dict(
        type='mmdet.Mask2Former',
        panoptic_fusion_head=dict(
            type='eomt_mm.FusionHead', num_things_classes=3, num_stuff_classes=2
        ),
    )
    write_sizes(stock)
    stock = MODELS.build(ConfigDict(stock)).eval()
    with torch.no_grad(), pytest.raises(UserError, match='does not cut images into'):
        stock.test_step(photos((64, 64)))

    views = MODELS.build(dict(type='eomt_mm.EoMTDetTTAModel', module=model))
    batch = photos((64, 50))
    with torch.no_grad():
        (found,) = views.test_step({key: [value] for key, value in batch.items()})
    assert found.pred_panoptic_seg.sem_seg.shape == (1, 64, 50)


def test_half_precision_is_autocast(head_config, adapter_config):
    """EoMT has a way of its own to be sped up, which is not for these."""
    model = build(detector(head_config, adapter_config)).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(images, mode='tensor')
        speed_up(model, 'bf16')
        after = model(images, mode='tensor')
    assert not torch.equal(before[0], after[0])
    torch.testing.assert_close(before[0], after[0].float(), atol=0.1, rtol=0.1)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_checkpoint_of_other_classes_is_made_to_fit(head_config, adapter_config):
    """And of other numbers of queries and patches, to start a training."""
    model = build(detector(head_config, adapter_config))
    state = model.state_dict()
    options = dict(
        num_stuff_classes=4,
        loss_cls=dict(class_weight=[1.0] * 7 + [0.1]),
        num_queries=9,
    )
    larger = adapter_config | dict(img_size=96)
    other = MODELS.build(detector(head_config, larger, **options))
    with pytest.raises(UserError, match='the checkpoint does not fit the config'):
        other.load_state_dict(state)

    fitted, table = fit_weights(other, state)
    anew = {row.partition(':')[0] for what, row in table if what == 'started anew'}
    assert anew == {
        f'panoptic_head.{part}' for part in ('cls_embed', 'query_embed', 'query_feat')
    }
    assert fitted['backbone.pos_embed'].shape == other.backbone.pos_embed.shape
    assert torch.equal(
        fitted['backbone.adapter.level_embed'], state['backbone.adapter.level_embed']
    )
    other.load_state_dict(fitted)


def segmentor(head_config, adapter_config, kind, head, **options):
    init_default_scope('mmseg')
    return ConfigDict(
        type=kind, backbone=adapter_config, decode_head=head_config(head), **options
    )


def test_sliding_windows_have_the_size_of_the_window(head_config, adapter_config):
    """MMSeg's own head scales them to the padded image, and fails."""
    cut = dict(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(32, 32)))
    ours, stock = (
        build(
            segmentor(head_config, adapter_config, 'mmseg.EncoderDecoder', head, **cut)
        )
        for head in ('eomt_mm.SemanticMask2FormerHead', 'mmseg.Mask2FormerHead')
    )
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        logits = ours.eval().encode_decode(image[..., :64, :64], metas((64, 64)))
        assert logits.shape == (1, 5, 64, 64)
        slid = ours.inference(image, metas((96, 128)))
        with pytest.raises(RuntimeError, match='must match the size'):
            stock.eval().inference(image, metas((96, 128)))
    assert slid.shape == (1, 5, 96, 128)
    # The first window alone reaches the first corner.
    torch.testing.assert_close(
        slid[..., :32, :32], logits_of(ours, image)[..., :32, :32]
    )


def metas(size):
    return [dict(ori_shape=size, img_shape=size, pad_shape=size)]


def logits_of(model, image):
    with torch.no_grad():
        return model.encode_decode(image[..., :64, :64], metas((64, 64)))


def test_semantic_results_come_in_even_windows(head_config, adapter_config):
    config = segmentor(
        head_config,
        adapter_config,
        'eomt_mm.Mask2FormerSegmentor',
        'eomt_mm.SemanticMask2FormerHead',
    )
    model = build(config).eval()
    samples = [SegDataSample(metainfo=dict(ori_shape=(50, 90), img_shape=(64, 115)))]
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    with torch.no_grad():
        (result,) = model.predict([torch.randn(3, 64, 115)], samples)
    assert result.pred_sem_seg.data.shape == (1, 50, 90)
    assert seen == [(2, 3, 64, 64)]
    losses = model.train().loss(torch.randn(2, 3, 64, 64), semantic_samples())
    assert 'decode.d2.loss_dice' in losses
