"""Training that starts from the checkpoint of another model."""

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from eomt_mm import checkpoints
from eomt_mm.engine import fine_tuning
from eomt_mm.engine.fine_tuning import fit_weights, refuse_other_heads
from eomt_mm.errors import UserError
from four_classes import (
    CLASS_HEAD,
    DINOV2,
    DINOV3,
    EVA02,
    NAMES,
    build,
    config,
    pillow_resized,
)


class Data(list):
    """One image, and the names of its classes."""

    def __init__(self, task, size, classes):
        labels = torch.zeros(1, size, size, dtype=torch.int64)
        if task == 'semantic':
            sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        else:
            masks = BitmapMasks(np.ones((1, size, size), np.uint8), size, size)
            things = InstanceData(labels=torch.tensor([0]), masks=masks)
            labels = PixelData(sem_seg=labels)
            sample = DetDataSample(gt_instances=things, gt_sem_seg=labels)
        sample.set_metainfo(dict(img_shape=(size, size), ori_shape=(size, size)))
        image = torch.zeros(3, size, size, dtype=torch.uint8)
        super().__init__([dict(inputs=image, data_samples=sample)])
        self.metainfo = dict(classes=classes)


@pytest.fixture
def checkpoint(tmp_path):
    """A semantic model of `NAMES`, saved as MMEngine saves it."""
    state = build(seed=1).state_dict()
    path = tmp_path / 'trained.pth'
    text = Config(dict(model=config())).pretty_text
    meta = dict(dataset_meta=dict(classes=NAMES), cfg=text, iter=7, epoch=0)
    torch.save(dict(meta=meta, state_dict=state), path)
    return path


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(fine_tuning, 'print_log', lambda text, **_: lines.append(text))
    return lines


@pytest.fixture
def make_runner(tmp_path):
    """A Runner that trains for one iteration at a learning rate of 0, or tests."""
    names = iter('abcdefgh')

    def make(task='semantic', classes=NAMES, hook=None, data=None, **options):
        model = config(task, num_classes=len(classes), **options.pop('model', {}))
        size = model['backbone']['img_size']
        loader = dict(
            batch_size=1,
            dataset=Data(task, size, classes) if data is None else data,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        )
        name = next(names)
        quiet = ('checkpoint', 'logger', 'timer', 'runtime_info')
        custom = [dict(type='eomt_mm.FineTuningHook', **(hook or {}))]
        return Runner(
            model=model,
            work_dir=str(tmp_path / name),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=False, max_iters=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
            test_dataloader=loader,
            test_evaluator=[],
            test_cfg=dict(),
            default_scope='mmseg' if task == 'semantic' else 'mmdet',
            default_hooks=dict.fromkeys(quiet),
            custom_hooks=custom + options.pop('custom_hooks', []),
            experiment_name=f'{tmp_path.name}_{name}',
            **options,
        )

    return make


def weights(path):
    return checkpoints.read(path)['state_dict']


def differing(state, path, ours='decode_head.'):
    """Names in `state` whose tensors are not those of the checkpoint."""
    saved = {k.replace('decode_head.', ours): v for k, v in weights(path).items()}
    assert state.keys() == saved.keys()
    return {
        key
        for key, value in state.items()
        if value.shape != saved[key].shape or not torch.equal(value, saved[key])
    }


def test_the_same_model_is_loaded_whole(make_runner, checkpoint, logged):
    model = make_runner(load_from=str(checkpoint)).train()
    assert not differing(model.state_dict(), checkpoint)
    count = len(weights(checkpoint))
    assert logged == [
        f'fine-tuning from {checkpoint}\n  loaded unchanged  {count} tensors'
    ]


def test_another_number_of_classes(make_runner, checkpoint, logged):
    runner = make_runner(load_from=str(checkpoint), classes=NAMES[:3])
    assert differing(runner.train().state_dict(), checkpoint) == CLASS_HEAD
    row = 'class_head: 5 rows (classes + 1) in the checkpoint, 4 in the config'
    assert f'  started anew      decode_head.{row}' in logged[0]


def test_as_many_classes_of_other_names(make_runner, checkpoint, logged):
    classes = ('sky', 'sea', 'disc', 'box')
    runner = make_runner(load_from=str(checkpoint), classes=classes)
    assert differing(runner.train().state_dict(), checkpoint) == CLASS_HEAD
    assert "class 1 is 'grass' in the checkpoint, 'sea' in the data" in logged[0]


def test_another_number_of_queries(make_runner, checkpoint, logged):
    runner = make_runner(load_from=str(checkpoint), model=dict(num_queries=9))
    assert differing(runner.train().state_dict(), checkpoint) == {'backbone.queries'}
    row = 'backbone.queries: 6 in the checkpoint, 9 in the config'
    assert f'  started anew      {row}' in logged[0]


def test_another_number_of_last_blocks(make_runner, checkpoint, logged):
    runner = make_runner(load_from=str(checkpoint), model=dict(num_blocks=1))
    assert not differing(runner.train().state_dict(), checkpoint)
    assert '  last blocks       2 in the checkpoint, 1 in the config' in logged[0]


def test_twice_the_size(make_runner, checkpoint, logged):
    """Position codes are resized, such as from 640 to 1280."""
    runner = make_runner(load_from=str(checkpoint), model=dict(img_size=64))
    state = runner.train().state_dict()
    assert differing(state, checkpoint) == {'backbone.pos_embed'}
    old = weights(checkpoint)['backbone.pos_embed']
    new = state['backbone.pos_embed']
    assert torch.equal(new[:, :1], old[:, :1])  # CLS
    expected = pillow_resized(old[:, 1:], (4, 4), (8, 8))
    torch.testing.assert_close(new[:, 1:], expected, rtol=0, atol=1e-6)
    row = 'backbone.pos_embed: (1, 17, 32) -> (1, 65, 32)'
    assert f'  resized           {row}' in logged[0]


def test_semantic_to_panoptic_with_everything_else(make_runner, checkpoint, logged):
    """The whole table."""
    saved = checkpoints.read(checkpoint)
    saved['state_dict']['backbone.head.weight'] = torch.zeros(3, 32)
    saved['state_dict']['backbone.head.bias'] = torch.zeros(3)
    torch.save(saved, checkpoint)
    options = dict(img_size=16, num_queries=3, num_blocks=3)
    runner = make_runner(
        'panoptic', ('a', 'b'), load_from=str(checkpoint), model=options
    )
    state = runner.train().state_dict()
    del saved['state_dict']['backbone.head.weight']
    del saved['state_dict']['backbone.head.bias']
    torch.save(saved, checkpoint)
    changed = differing(state, checkpoint, 'panoptic_head.')
    assert changed == {
        'backbone.pos_embed',
        'backbone.queries',
        'panoptic_head.class_head.weight',
        'panoptic_head.class_head.bias',
    }
    heads = sum('head' in key for key in state)
    assert logged[0].splitlines() == [
        f'fine-tuning from {checkpoint}',
        f'  renamed           decode_head.* -> panoptic_head.*: {heads} tensors',
        f'  loaded unchanged  {len(state) - 4} tensors',
        '  resized           backbone.pos_embed: (1, 17, 32) -> (1, 5, 32)',
        '  started anew      backbone.queries: 6 in the checkpoint, 3 in the config',
        '  started anew      panoptic_head.class_head: 5 rows (classes + 1) in the '
        'checkpoint, 3 in the config',
        '  not used          backbone.head: 2 tensors',
        '  last blocks       2 in the checkpoint, 3 in the config',
    ]


def test_resuming_stays_strict(make_runner, checkpoint):
    options = dict(load_from=str(checkpoint), classes=NAMES[:3])
    with pytest.raises(UserError, match=r'class_head.weight is \(5, 32\)'):
        make_runner(resume=True, **options).train()


def test_testing_stays_strict(make_runner, checkpoint):
    options = dict(load_from=str(checkpoint), classes=NAMES[:3])
    with pytest.raises(UserError, match=r'class_head.weight is \(5, 32\)'):
        make_runner(**options).test()
    runner = make_runner(**options)
    runner.train()  # what is loaded afterwards is there to be tested
    with pytest.raises(UserError, match=r'class_head.weight is \(5, 32\)'):
        runner.load_checkpoint(str(checkpoint))


class Untouched(Data):
    """Data that must not be read."""

    def __init__(self):
        super().__init__('semantic', 32, NAMES)

    def __getitem__(self, index):
        raise AssertionError('data was read')


def test_a_required_checkpoint(make_runner, checkpoint, tmp_path):
    options = dict(hook=dict(required=True))
    with pytest.raises(UserError, match='add --cfg-options load_from=CHECKPOINT'):
        make_runner(data=Untouched(), **options).train()
    # An empty directory is nothing to resume from.
    with pytest.raises(UserError, match='add --cfg-options load_from=CHECKPOINT'):
        make_runner(data=Untouched(), resume=True, **options).train()
    make_runner(load_from=str(checkpoint), **options).train()
    with torch.no_grad():  # a finished model is tested without
        make_runner(**options).test()


def test_pretrained_weights_are_not_read_in_vain(make_runner, checkpoint, monkeypatch):
    def refuse(*_):
        raise AssertionError('weights were read')

    monkeypatch.setattr('eomt_mm.models.plain_vit.load_timm_weights', refuse)
    options = dict(model=dict(pretrained=True))
    model = make_runner(load_from=str(checkpoint), **options).train()
    assert not differing(model.state_dict(), checkpoint)
    with pytest.raises(AssertionError, match='weights were read'):
        make_runner(**options).train()


def test_averaged_weights_start_alike(make_runner, checkpoint):
    runner = make_runner(
        load_from=str(checkpoint),
        classes=NAMES[:3],
        model=dict(img_size=64),
        custom_hooks=[dict(type='EMAHook', strict_load=True)],
    )
    model = runner.train()
    (hook,) = (h for h in runner.hooks if isinstance(h, EMAHook))
    average = hook.ema_model.module.state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(average[key], value)


def without(prefix):
    return lambda state: {k: v for k, v in state.items() if not k.startswith(prefix)}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without('backbone.'), 'has no weights of the backbone'),
        (without('backbone.blocks.1.'), r'lacks backbone\.blocks\.1\.'),
        (without('backbone.queries'), r'lacks backbone\.queries'),
        (without('decode_head.class_head.bias'), r'lacks decode_head\.class_head'),
        (
            lambda state: {'network.q.weight': torch.zeros(1)},
            r'no parameter of this .* with tools/model_converters/eomt2mm\.py',
        ),
        # Registers, which DINOv2 has without them too.
        (
            lambda state: state | {'backbone.reg_token': torch.zeros(1, 4, 32)},
            r'unlike the config, backbone\.reg_token',
        ),
        (lambda state: build(arch=DINOV2), r'unlike the config, backbone\.reg_token'),
        (
            lambda state: build(timm_args=dict(embed_dim=32, depth=4, num_heads=2)),
            r'unlike the config, backbone\.blocks\.3\.',
        ),
        (
            lambda state: build(timm_args=dict(embed_dim=48, depth=3, num_heads=2)),
            r'is \(1, 1, 48\)',
        ),
        (lambda state: build(arch=DINOV3), r'lacks backbone\.pos_embed'),
        (
            lambda state: state | {'backbone.pos_embed': torch.zeros(17, 32)},
            r'pos_embed is \(17, 32\)',
        ),
    ],
)
def test_other_architectures_are_refused(change, message):
    loaded = change(build().state_dict())
    loaded = loaded if isinstance(loaded, dict) else loaded.state_dict()
    with pytest.raises(UserError, match=message):
        fit_weights(build(), loaded)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('backbone.blocks.1.mlp.fc1.weight', torch.nan),
        ('backbone.pos_embed', torch.inf),
        ('decode_head.mask_mlp.0.bias', -torch.inf),
    ],
)
def test_nan_is_refused(make_runner, checkpoint, key, value):
    saved = checkpoints.read(checkpoint)
    saved['state_dict'][key].view(-1)[3] = value
    torch.save(saved, checkpoint)
    runner = make_runner(load_from=str(checkpoint), model=dict(img_size=64))
    with pytest.raises(
        UserError, match=f'NaN (or infinite )?values in {key}: .* earlier'
    ):
        runner.train()


def test_nan_in_what_is_not_loaded_is_refused_too(make_runner, checkpoint):
    """The training that wrote it diverged."""
    saved = checkpoints.read(checkpoint)
    for key in CLASS_HEAD:
        saved['state_dict'][key].fill_(torch.nan)
    torch.save(saved, checkpoint)
    runner = make_runner(load_from=str(checkpoint), classes=NAMES[:3])
    with pytest.raises(UserError, match='NaN values in .*class_head.* earlier'):
        runner.train()


def test_another_number_of_heads_is_refused(make_runner, checkpoint):
    """No shape tells it, but the config in the checkpoint."""
    timm_args = dict(embed_dim=32, depth=3, num_heads=4)
    options = dict(load_from=str(checkpoint), model=dict(timm_args=timm_args))
    with pytest.raises(UserError, match='has 2 heads .* the config 4: .*heads=2'):
        make_runner(**options).train()
    saved = checkpoints.read(checkpoint)
    saved['meta'].texts.clear()  # then there is nothing to compare with
    torch.save(saved, checkpoint)
    assert not differing(make_runner(**options).train().state_dict(), checkpoint)


@pytest.mark.parametrize(
    ('trained', 'heads'),
    [
        (dict(arch='vit_small_patch14_reg4_dinov2.lvd142m'), 6),
        (dict(arch='vit_small_patch16_224'), 6),
        (dict(arch='vit_base_patch16_224', num_heads=6), 6),
        (dict(arch='vit_base_patch16_224'), 12),
        (dict(arch=EVA02), 12),
        # Of these nothing is known.
        (dict(arch='resnet18'), None),
        (dict(arch='hf-hub:some/model'), None),
        (dict(arch=['vit_base_patch16_224']), None),
        ({}, None),
    ],
)
def test_heads_are_known_by_name(trained, heads):
    model = build(timm_args=dict(embed_dim=48, depth=3, num_heads=6))
    if heads in (6, None):
        refuse_other_heads(trained, model.backbone)
    else:
        with pytest.raises(UserError, match=f'has {heads} heads'):
            refuse_other_heads(trained, model.backbone)


@pytest.mark.parametrize('wrapped', [True, False])
def test_bare_and_wrapped_state_dicts(make_runner, checkpoint, tmp_path, wrapped):
    state = weights(checkpoint)
    if wrapped:
        state = {f'module.{key}': value for key, value in state.items()}
    path = tmp_path / 'bare.pth'
    torch.save(state, path)
    model = make_runner(load_from=str(path), classes=NAMES[:3]).train()
    assert differing(model.state_dict(), checkpoint) == CLASS_HEAD
