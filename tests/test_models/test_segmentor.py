"""The bridge to MMSegmentation."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from eomt_mm.errors import UserError
from eomt_mm.models.backbone_sizes import write_sizes
from eomt_mm.models.segmentor import EoMTSegDataPreProcessor
from eomt_mm.models.targets import semantic_targets
from tiny_models import tiny_backbone

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def config(type_='eomt_mm.EoMTSegmentor', **test_cfg):
    return dict(
        type=type_,
        data_preprocessor=dict(
            type='eomt_mm.EoMTSegDataPreProcessor',
            mean=MEAN,
            std=STD,
            bgr_to_rgb=True,
        ),
        backbone=tiny_backbone(),
        decode_head=dict(
            type='eomt_mm.SemanticHead',
            embed_dims=32,
            patch_size=8,
            num_classes=4,
            criterion=dict(type='eomt_mm.Criterion', num_points=64),
        ),
        test_cfg=test_cfg,
    )


@pytest.fixture
def model():
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def sample(ori_shape, img_shape=None, **meta):
    img_shape = img_shape or ori_shape
    return SegDataSample(
        metainfo=dict(ori_shape=ori_shape, img_shape=img_shape, **meta)
    )


def photo(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(
        256, (3, height, width), generator=generator, dtype=torch.uint8
    )


def reference_prediction(model, image, img_shape, ori_shape):
    """The paper's inference, written out for one image of short side 32."""
    height, width = image.shape[1:]
    padded = np.zeros((3, max(32, height), max(32, width)), np.uint8)
    padded[:, :height, :width] = image.flip(0)
    mean, std = (np.array(v)[:, None, None] for v in (MEAN, STD))
    x = torch.from_numpy(((padded - mean) / std).astype(np.float32))
    length = max(x.shape[1:])
    count = -(-length // 32)
    step = 0 if count == 1 else (length - 32) / (count - 1)
    total, times = torch.zeros(4, *x.shape[1:]), torch.zeros(*x.shape[1:])
    for i in range(count):
        start = int(i * step)
        rows, cols = slice(0, 32), slice(start, start + 32)
        if x.shape[1] > 32:
            rows, cols = cols, rows
        with torch.no_grad():
            classes, masks = model.decode_head(*model.backbone(x[None, :, rows, cols]))
        masks = F.interpolate(masks, (32, 32), mode='bilinear').sigmoid()
        scores = torch.einsum('bqc,bqhw->bchw', classes.softmax(-1)[..., :-1], masks)
        total[:, rows, cols] += scores[0]
        times[rows, cols] += 1
    scores = (total / times)[None, :, : img_shape[0], : img_shape[1]]
    return F.interpolate(scores, ori_shape, mode='bilinear')[0].argmax(0)


def test_prediction_equals_the_reference_at_any_size(model):
    """Wide, high, square and smaller than a window, all in one batch."""
    shapes = [(32, 77), (50, 32), (32, 32), (20, 32), (32, 1), (1, 32)]
    images = [photo(*shape, seed=i) for i, shape in enumerate(shapes)]
    samples = [sample((2 * h + 1, 3 * w), (h, w)) for h, w in shapes]
    with torch.no_grad():
        results = model.test_step({'inputs': images, 'data_samples': samples})
    for image, shape, result in zip(images, shapes, results, strict=True):
        expected = reference_prediction(
            model, image, shape, (2 * shape[0] + 1, 3 * shape[1])
        )
        assert torch.equal(result.pred_sem_seg.data[0], expected), shape
    assert 'seg_logits' not in results[0]


def test_windows_of_a_batch_share_bounded_forward_passes(model):
    sizes = []
    model.backbone.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    model.test_cfg['max_windows'] = 4
    images = [photo(32, 100), photo(32, 32), photo(32, 64)]  # 4 + 1 + 2 windows
    samples = [sample(tuple(image.shape[1:])) for image in images]
    with torch.no_grad():
        few = model.test_step({'inputs': images, 'data_samples': samples})
        few = [result.pred_sem_seg.data for result in few]
        assert sizes == [4, 3]
        model.test_cfg['max_windows'] = 100
        many = model.test_step({'inputs': images, 'data_samples': samples})
    for one, other in zip(few, many, strict=True):
        assert (one != other.pred_sem_seg.data).float().mean() < 1e-3


def test_padding_is_raw_zero_before_normalisation(model):
    batch = {'inputs': [photo(20, 32)], 'data_samples': [sample((20, 32))]}
    image = model.data_preprocessor(batch)['inputs'][0]
    assert image.shape == (3, 32, 32)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(image[:, 20:], black[:, None, None].expand(3, 12, 32))


def training_batch(*maps):
    return {
        'inputs': [photo(32, 32, seed) for seed in range(len(maps))],
        'data_samples': [
            SegDataSample(
                gt_sem_seg=PixelData(data=labels[None]),
                metainfo={'img_path': f'{i}.jpg'},
            )
            for i, labels in enumerate(maps)
        ],
    }


def test_training_loss_names_and_gradients(model):
    maps = [torch.randint(4, (32, 32)), torch.full((32, 32), 255)]
    model.train()
    model.backbone.mask_probs = [1.0, 0.5]
    data = model.data_preprocessor(training_batch(*maps), True)
    losses = model(**data, mode='loss')
    kinds = ('loss_cls', 'loss_mask', 'loss_dice')
    expected = {f'decode.{p}{k}' for p in ('', 'd0.', 'd1.') for k in kinds}
    assert set(losses) == expected
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_batch_without_any_label(model):
    model.train()
    data = model.data_preprocessor(training_batch(torch.full((32, 32), 255)), True)
    losses = model(**data, mode='loss')
    assert losses['decode.loss_mask'] == 0
    assert losses['decode.loss_cls'] > 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_targets_are_one_mask_per_class():
    labels = torch.tensor([[[0, 0, 2], [255, 2, 2]], [[255] * 3] * 2])
    first, second = semantic_targets(labels, 4, 255, ['a', 'b'])
    assert first.labels.tolist() == [0, 2]
    assert first.masks.int().tolist() == [
        [[1, 1, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 1, 1]],
    ]
    assert second.labels.shape == (0,)
    assert second.masks.shape == (0, 2, 3)


@pytest.mark.parametrize('wrong', [4, -1, 200])
def test_a_label_beyond_the_classes_names_value_and_file(wrong):
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[1, 0, 0] = wrong
    with pytest.raises(UserError, match=rf'label {wrong} .* b\.png: expected 0 to 3'):
        semantic_targets(labels, 4, 255, ['a.png', 'b.png'])


def test_stock_encoder_decoder_runs_the_same_weights(model):
    stock = config('EncoderDecoder') | dict(test_cfg=ConfigDict(mode='whole'))
    write_sizes(stock)
    stock = MODELS.build(stock).eval()
    stock.load_state_dict(model.state_dict(), strict=True)
    batch = {'inputs': [photo(32, 32)], 'data_samples': [sample((40, 50), (32, 32))]}
    with torch.no_grad():
        expected = stock(
            torch.stack(stock.data_preprocessor(copy.deepcopy(batch))['inputs']),
            [sample((40, 50), (32, 32))],
            mode='predict',
        )[0]
        ours = model.test_step(batch)[0]
    assert torch.equal(ours.pred_sem_seg.data, expected.pred_sem_seg.data)


def test_validation_masks_while_training_masks(model):
    """The reference validates with the masks of the current iteration."""
    batch = {'inputs': [photo(32, 32)], 'data_samples': [sample((32, 32))]}
    image = torch.stack(model.data_preprocessor(copy.deepcopy(batch))['inputs'])
    model.test_cfg['keep_logits'] = True
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # masks that differ between queries
    with torch.no_grad():
        plain = model.test_step(copy.deepcopy(batch))[0].seg_logits.data
        model.backbone.mask_probs = [1.0, 1.0]
        masked = model.test_step(batch)[0].seg_logits.data
        classes, masks = model.backbone.forward_masked(image, model.decode_head)[-1]
    masks = F.interpolate(masks, (32, 32), mode='bilinear').sigmoid()
    expected = torch.einsum('qc,qhw->chw', classes[0].softmax(-1)[:, :-1], masks[0])
    torch.testing.assert_close(masked, expected)
    assert not torch.allclose(masked, plain)


def test_flipped_image_is_flipped_back(model):
    image = photo(32, 32)
    plain = {'inputs': [image], 'data_samples': [sample((32, 32))]}
    flipped = {
        'inputs': [image],
        'data_samples': [sample((32, 32), flip=True, flip_direction='horizontal')],
    }
    with torch.no_grad():
        one = model.test_step(plain)[0].pred_sem_seg.data
        other = model.test_step(flipped)[0].pred_sem_seg.data
    assert torch.equal(one.flip(2), other)


def test_test_time_augmentation_averages_class_scores(model):
    tta = MODELS.build(
        dict(type='eomt_mm.EoMTSegTTAModel', module=model, data_preprocessor=None)
    )
    image = photo(32, 40)
    views = {
        'inputs': [[image], [image.flip(2)]],
        'data_samples': [
            [sample((32, 40), img_path='a.jpg')],
            [
                sample(
                    (32, 40), flip=True, flip_direction='horizontal', img_path='a.jpg'
                )
            ],
        ],
    }
    with torch.no_grad():
        merged = tta.test_step(views)[0]
        scores = [
            model.test_step({'inputs': i, 'data_samples': s})[0].seg_logits.data
            for i, s in zip(views['inputs'], views['data_samples'], strict=True)
        ]
    torch.testing.assert_close(merged.seg_logits.data, (scores[0] + scores[1]) / 2)
    assert merged.pred_sem_seg.data.shape == (1, 32, 40)


def test_slide_mode_is_refused():
    init_default_scope('mmseg')
    with pytest.raises(UserError, match="mode is 'slide'"):
        MODELS.build(config(mode='slide'))


def test_unknown_test_options_are_refused():
    init_default_scope('mmseg')
    known = 'Known are: max_windows, keep_logits, confidence, mode'
    with pytest.raises(UserError, match=f"'max_window', 'stride'. {known}"):
        MODELS.build(config(max_window=4, stride=(2, 2), keep_logits=True))
    assert MODELS.build(config(max_windows=4)).test_cfg == dict(
        max_windows=4, keep_logits=False, confidence=None
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(decode_head=dict(num_classes=7)), r'class_head.weight is \(5, 32\)'),
        (dict(backbone=dict(num_queries=9)), r'backbone.queries is \(6, 32\)'),
        (dict(backbone=dict(img_size=64)), r'pos_embed is \(1, 17, 32\)'),
    ],
)
def test_checkpoint_of_another_model_is_refused(model, change, message):
    other = config()
    for key, value in change.items():
        other[key] |= value
    other = MODELS.build(other)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(UserError, match=message):
        other.load_state_dict(model.state_dict())
    after = other.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ('lost', 'message'),
    [
        ('backbone.blocks.2.', r'lacks backbone\.blocks\.2\.\S+, .* and \d+ more\.'),
        ('backbone.queries', r'lacks backbone\.queries\. '),
        ('decode_head.class_head.bias', r'lacks decode_head\.class_head\.bias\. '),
    ],
)
def test_part_of_a_module_is_refused(model, lost, message):
    state = model.state_dict()
    part = {key: value for key, value in state.items() if not key.startswith(lost)}
    assert len(part) < len(state)
    with pytest.raises(UserError, match=message):
        model.load_state_dict(part, strict=False)


def test_checkpoint_of_another_depth_is_refused(model):
    deeper = config()
    deeper['backbone']['timm_args'] |= dict(depth=5)
    deeper = MODELS.build(deeper)
    with pytest.raises(UserError, match=r'lacks backbone\.blocks\.3\.'):
        deeper.load_state_dict(model.state_dict(), strict=False)
    with pytest.raises(UserError, match=r'unlike the config, backbone\.blocks\.3\.'):
        model.load_state_dict(deeper.state_dict(), strict=False)


@pytest.mark.parametrize('module', ['backbone', 'decode_head'])
def test_a_module_alone_may_be_loaded(model, module):
    state = {k: v + 1 for k, v in model.state_dict().items() if k.startswith(module)}
    model.load_state_dict(state | {'backbone.head.bias': torch.ones(2)}, strict=False)
    after = model.state_dict()
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_checkpoint_without_any_known_key_is_refused(model):
    with pytest.raises(UserError, match='no parameter of this model'):
        model.load_state_dict({'layer1.weight': torch.zeros(1)}, strict=False)


def test_a_wrong_label_in_testing_names_value_and_file(model):
    """It would only lower the score otherwise."""
    labelled = sample((32, 32), img_path='val.png')
    labelled.gt_sem_seg = PixelData(data=torch.full((1, 32, 32), 199))
    with pytest.raises(UserError, match=r'label 199 in the ground truth of val\.png'):
        model.test_step({'inputs': [photo(32, 32)], 'data_samples': [labelled]})
    labelled.gt_sem_seg.data[:] = 255
    with torch.no_grad():
        model.test_step({'inputs': [photo(32, 32)], 'data_samples': [labelled]})


@pytest.mark.parametrize('training', [False, True])
def test_without_mean_nothing_is_normalised(training):
    preprocessor = EoMTSegDataPreProcessor(size=(8, 8))
    image = torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8)
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 8, 8)))
    data = preprocessor(dict(inputs=[image], data_samples=[sample]), training)
    assert torch.equal(data['inputs'][0], image.float())
