"""Mask2Former heads with masks that can be annealed, against the stock ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from eomt_mm.engine import MaskAnnealingHook
from eomt_mm.engine.fine_tuning import fit_weights
from eomt_mm.errors import UserError
from eomt_mm.models import Criterion, QueryViT, Target
from eomt_mm.models.baselines import FeaturePyramid, LinearPixelDecoder
from eomt_mm.models.inference import speed_up

HEADS = pytest.mark.parametrize(
    ('ours', 'stock'),
    [
        ('eomt_mm.Mask2FormerHead', 'mmdet.Mask2FormerHead'),
        ('eomt_mm.SemanticMask2FormerHead', 'mmseg.Mask2FormerHead'),
    ],
)


def build(config):
    torch.manual_seed(0)
    head = MODELS.build(config)
    for name, parameter in head.named_parameters():
        torch.nn.init.normal_(parameter, std=1.0 if 'query' in name else 0.15)
    return head


def maps(batch=2, levels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(batch, 32, 16 >> i, 16 >> i, generator=generator)
        for i in range(levels)
    )


def targets():
    """Two images of 64 pixels with two and three targets."""
    masks = torch.zeros(5, 64, 64, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[8 * i : 8 * i + 24, 4 * i : 4 * i + 40] = True
    labels = torch.tensor([0, 3, 1, 2, 4])
    return [Target(labels[:2], masks[:2]), Target(labels[2:], masks[2:])]


@HEADS
def test_masked_outputs_equal_the_stock_heads(head_config, ours, stock):
    head, reference = build(head_config(ours)), build(head_config(stock))
    assert head.state_dict().keys() == reference.state_dict().keys()
    x = maps()
    with torch.no_grad():
        expected = reference(x, [])
        training = head.train()(x)
        testing = head.eval()(x)
    for theirs, trained, tested in zip(expected, training, testing, strict=True):
        assert len(theirs) == len(trained) == len(tested) == 3 + 1
        for a, b, c in zip(theirs, trained, tested, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
            assert torch.equal(b, c)


def test_the_masks_matter(head_config):
    head, x = build(head_config('eomt_mm.Mask2FormerHead')).eval(), maps()
    with torch.no_grad():
        masked = head.final_prediction(x)[1]
        head.mask_probs = [0.0] * 3
        assert not torch.allclose(masked, head.final_prediction(x)[1], atol=1e-2)


def test_a_free_layer_predicts_nothing_in_testing(head_config):
    head, x = build(head_config('eomt_mm.Mask2FormerHead')), maps()
    head.mask_probs = [0.0, 1.0, 0.0]
    seen = []
    for layer in head.transformer_decoder.layers:
        layer.register_forward_pre_hook(
            lambda *args: seen.append(args[2]['cross_attn_mask']), with_kwargs=True
        )
    with torch.no_grad():
        assert len(head.train()(x)[0]) == 4
        assert len(head.eval()(x)[0]) == 1 + 1
    free = [mask is None for mask in seen]
    assert free == [True, False, True] * 2
    # The middle level has 4 x 4 cells; eight heads look through the same mask.
    assert seen[1].shape == (2 * 8, 6, 16)
    by_head = seen[1].unflatten(0, (2, 8))
    assert torch.equal(by_head, by_head[:, :1].expand_as(by_head))


def test_half_of_the_queries_are_masked(head_config, monkeypatch):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    logits = torch.full((1, 6, 4, 4), -1.0)
    logits[0, :5, 0] = 1.0  # the last query has an empty mask
    draws = torch.tensor([0.1, 0.2, 0.3, 0.7, 0.9, 0.1])[None, :, None]
    monkeypatch.setattr(torch, 'rand', lambda *_, **__: draws)
    closed = head._attention_mask(logits, (4, 4), 0.5)
    masked = torch.arange(16) >= 4  # all but the first row of cells
    for query, expected in enumerate([masked] * 3 + [masked & False] * 3):
        assert torch.equal(closed[0, query], expected), query


def test_without_supervision_in_between_one_prediction_is_left(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead', deep_supervision=False))
    assert head.mask_probs == [0.0] * 3
    assert len(head.train()(maps())[0]) == 1


def same_points(*shape, device=None):
    """A stand-in for torch.rand: the same points for every pair of masks."""
    *_, count, two = shape[0] if isinstance(shape[0], tuple) else shape
    batch = shape[0] if len(shape) == 3 else 1
    generator = torch.Generator().manual_seed(7)
    points = torch.empty(1, count, two).uniform_(generator=generator)
    return points.expand(batch, -1, -1).clone()


def test_losses_are_those_of_eomt(head_config, monkeypatch):
    """All steps of the ladder are trained with one loss, whoever wrote it."""
    head, x = build(head_config('eomt_mm.Mask2FormerHead')).train(), maps()
    monkeypatch.setattr(torch, 'rand', same_points)
    with torch.no_grad():
        predictions = head(x)
        found = [InstanceData(**target._asdict()) for target in targets()]
        ours = head.loss_by_feat(*predictions, found, [{}, {}])
        pairs = list(zip(*predictions, strict=True))
        theirs = Criterion(num_points=64)(pairs, targets())
    assert ours.keys() == theirs.keys()
    for name, loss in ours.items():
        assert loss.item() == pytest.approx(theirs[name].item(), rel=1e-4), name


def test_losses_are_computed_in_single_precision(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    x = [torch.full((1, 6, 6), 1.0), torch.full((1, 6, 16, 16), 6e4)]
    found = [InstanceData(**targets()[0]._asdict())]
    with torch.autocast('cpu', torch.float16):
        losses = head.loss_by_feat(*([t.half()] for t in x), found, [{}])
    assert all(
        loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values()
    )


def detection_samples():
    samples = []
    for target in targets():
        sample = DetDataSample(
            metainfo=dict(img_path='a.jpg', batch_input_shape=(64, 64))
        )
        things = target.labels < 3
        masks = target.masks[things].numpy().astype(np.uint8)
        sample.gt_instances = InstanceData(
            labels=target.labels[things], masks=BitmapMasks(masks, 64, 64)
        )
        stuff = torch.full((1, 64, 64), 255)
        for label, mask in zip(target.labels, target.masks, strict=True):
            if label >= 3:
                stuff[0, mask] = label
        sample.gt_sem_seg = PixelData(sem_seg=stuff)
        samples.append(sample)
    return samples


def semantic_samples():
    samples = []
    for target in targets():
        labels = torch.full((1, 64, 64), 255)
        for label, mask in zip(target.labels, target.masks, strict=True):
            labels[0, mask] = label
        sample = SegDataSample(metainfo=dict(img_path='a.jpg'))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return samples


def loss_of(head, samples):
    # MMSeg hands a train_cfg over as well.
    extra = (None,) if 'Semantic' in type(head).__name__ else ()
    return head.loss(maps(), samples, *extra)


SAMPLES = {
    'eomt_mm.Mask2FormerHead': detection_samples,
    'eomt_mm.SemanticMask2FormerHead': semantic_samples,
}


@pytest.mark.parametrize('kind', SAMPLES)
def test_every_parameter_learns(head_config, kind):
    head = build(head_config(kind)).train()
    losses = loss_of(head, SAMPLES[kind]())
    kinds = ('loss_cls', 'loss_mask', 'loss_dice')
    assert len(losses) == 4 * len(kinds)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('kind', SAMPLES)
def test_images_without_targets(head_config, kind):
    head = build(head_config(kind)).train()
    samples = SAMPLES[kind]()
    for sample in samples:
        if 'gt_instances' in sample:
            sample.gt_instances = sample.gt_instances[:0]
            sample.gt_sem_seg.sem_seg[:] = 255
        else:
            sample.gt_sem_seg.data[:] = 255
    losses = loss_of(head, samples)
    assert losses['loss_mask'] == 0 and losses['loss_cls'] > 0
    sum(losses.values()).backward()


@pytest.mark.parametrize('kind', SAMPLES)
def test_ground_truth_of_a_wrong_class_is_refused(head_config, kind):
    head, samples = build(head_config(kind)), SAMPLES[kind]()
    labels = samples[1].gt_sem_seg
    (labels.sem_seg if 'sem_seg' in labels else labels.data)[0, 0, 0] = 9
    with pytest.raises(UserError, match=r'label 9 in the ground truth of a\.jpg'):
        loss_of(head, samples)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(mask_probs=[1.0]), 'mask_probs has 1 values, .* 3 layers'),
        (dict(mask_probs=[1.0] * 3, deep_supervision=False), 'no predictions to mask'),
        (dict(num_stuff_classes=9), r'class_weight has 6 .*\[1.0\] \* 12 \+ \[0.1\]'),
    ],
)
def test_wrong_arguments_are_explained(head_config, change, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(head_config('eomt_mm.Mask2FormerHead', **change))


def test_annealing_hook_sets_the_probabilities_of_the_layers(head_config):
    head = build(head_config('eomt_mm.Mask2FormerHead'))
    backbone = SimpleNamespace(mask_probs=[0.0] * 4)
    runner = SimpleNamespace(
        model=SimpleNamespace(panoptic_head=head, backbone=backbone),
        max_iters=12,
        message_hub=MessageHub('masks'),
    )
    hook = MaskAnnealingHook()
    hook.before_train(runner)
    probs = []
    for runner.iter in range(12):
        hook.before_train_iter(runner, 0)
        probs.append(head.mask_probs)
    assert probs[0] == [1.0] * 3 and probs[-1] == [0.0] * 3
    assert probs[6] == [0.0, pytest.approx(0.5**0.9), 1.0]
    assert runner.message_hub.get_scalar('train/mask_prob_2').current() == 0
    assert backbone.mask_probs == [0.0] * 4
    head.deep_supervision = False
    with pytest.raises(UserError, match='nothing is ever masked'):
        hook.before_train(runner)


def test_linear_decoder_goes_from_coarse_to_fine():
    decoder = LinearPixelDecoder([32] * 4, 16, 24)
    features, memories = decoder(maps())
    assert features.shape == (2, 24, 16, 16)
    assert [m.shape for m in memories] == [(2, 16, s, s) for s in (2, 4, 8)]
    x = maps()
    expected = torch.einsum(
        'oc,bchw->bohw', decoder.projections[0].weight[:, :, 0, 0], x[1]
    )
    bias = decoder.projections[0].bias[:, None, None]
    torch.testing.assert_close(memories[-1], expected + bias)


def test_one_level_serves_all_layers(head_config):
    """Step (3): masks of the finest map, attention to the map of the ViT alone."""
    config = head_config(
        'eomt_mm.Mask2FormerHead',
        in_channels=[32] * 2,
        num_transformer_feat_level=1,
        pixel_decoder=dict(_delete_=True, type='eomt_mm.LinearPixelDecoder'),
    )
    head = build(config).eval()
    sizes = []
    for layer in head.transformer_decoder.layers:
        layer.register_forward_pre_hook(
            lambda *args: sizes.append(args[2]['key'].shape[1]), with_kwargs=True
        )
    fine, _, coarse, _ = maps()
    _, masks = head.final_prediction((fine, coarse))
    assert masks.shape == (2, 6, 16, 16)
    assert sizes == [16] * 3


@pytest.mark.parametrize('patch_size', [8, 16])
def test_pyramid_scales_the_map_of_the_vit(patch_size):
    backbone = QueryViT(
        'vit_tiny_patch16_224',
        64,
        patch_size,
        num_queries=0,
        num_blocks=1,
        pretrained=False,
        timm_args=dict(embed_dim=32, depth=2, num_heads=2),
    )
    assert 'queries' not in backbone.state_dict()
    pyramid = FeaturePyramid(32, patch_size=patch_size)
    feats = backbone(torch.randn(2, 3, 64, 64))
    scales = pyramid(feats)
    assert [x.shape for x in scales] == [
        (2, 32, 64 // s, 64 // s) for s in (4, 8, 16, 32)
    ]
    same = scales[[4, 8, 16, 32].index(patch_size)]
    assert torch.equal(same, feats[1])
    with pytest.raises(UserError, match='stride 12 .* cannot be reached'):
        FeaturePyramid(32, strides=(12,))


def detector(head_config, adapter_config, **changes):
    return ConfigDict(
        dict(
            type='eomt_mm.Mask2FormerDetector',
            data_preprocessor=dict(
                type='eomt_mm.EoMTDetDataPreprocessor', size=(64, 64)
            ),
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
