"""A config for a user's own data, with the reasons for its numbers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eomt_mm.errors import UserError

from .finding import INSTANCE, PANOPTIC, SEMANTIC, Found
from .survey import Survey

ROOT = Path(__file__).resolve().parents[2] / 'configs'
BASES = {
    SEMANTIC: 'eomt/eomt_vitl_ade20k.py',
    PANOPTIC: 'eomt/eomt_vitl_coco_panoptic_640.py',
    INSTANCE: 'eomt/eomt_vitl_coco_instance_640.py',
}
PUBLISHED_CROP = {SEMANTIC: 512, PANOPTIC: 640, INSTANCE: 640}
LARGER_CROP = 1280  # published for both of MMDet's tasks
PUBLISHED_QUERIES = {SEMANTIC: 100, PANOPTIC: 200, INSTANCE: 200}
PATCH = 16
STEP = 2 * PATCH  # of crop sizes
BATCH = 4
EPOCHS = 50
FEWEST_ITERS, MOST_ITERS = 2000, 40_000
# What differs from ViT-L in the backbone. The last is no paper's: it starts from
# random weights and learns simple things in minutes.
BACKBONES = {
    'large': {},
    'base': dict(arch='vit_base_patch14_reg4_dinov2', num_blocks=3),
    'small': dict(arch='vit_small_patch14_reg4_dinov2', num_blocks=3),
    'tiny': dict(
        arch='vit_tiny_patch16_224',
        pretrained=False,
        num_blocks=2,
        timm_args=dict(embed_dim=128, depth=5, num_heads=4),
    ),
}
FROM_RANDOM = dict(  # all blocks learn alike, and the gradients are honest
    optimizer=dict(lr=1.5e-3, betas=(0.9, 0.98)),
    paramwise_cfg=dict(decay_rate=1.0),
    clip_grad=dict(max_norm=1.0),
)


@dataclass
class Proposal:
    """Numbers of a config, and why.

    Args:
        queries (int): Number of queries.
        queries_why (str): One clause.
        crop (int): Side of the crop in pixels.
        crop_why (str): One clause.
        iters (int): Length of the training in iterations.
        iters_why (str): One clause.
        batch (int): Images in a batch.
        held_out (int): Images of the training split kept for validation; 0 if there is
            a validation split.
    """

    queries: int
    queries_why: str
    crop: int
    crop_why: str
    iters: int
    iters_why: str
    batch: int
    held_out: int


def propose(found: Found, numbers: Survey, iters: int | None = None) -> Proposal:
    """Choose the numbers of a config.

    Args:
        found (Found): The dataset.
        numbers (Survey): What is in it.
        iters (int, optional): Length of the training; None chooses one.

    Returns:
        Proposal: The numbers.

    Raises:
        UserError: There is nothing to learn from, or to test on.
    """
    images = numbers.images['train']
    held_out = 0
    if 'val' in found.splits:
        _refuse_unlabelled(found, 'val', numbers.targets[images:])
    elif images > 1:  # a single image is learnt and tested on
        held_out = _held_out(numbers.targets, found.root)
    learnt = images - held_out
    _refuse_unlabelled(found, 'train', numbers.targets[:learnt])
    batch = min(BATCH, learnt)
    why = 'as asked'
    if iters is None:
        epochs = -(-EPOCHS * learnt // batch)
        iters = int(np.clip(epochs, FEWEST_ITERS, MOST_ITERS))
        why = f'{iters * batch / learnt:.0f} epochs of {learnt} images, {batch} a batch'
    queries, queries_why = _queries(found.task, numbers.targets)
    crop, crop_why = _crop(found.task, numbers)
    return Proposal(queries, queries_why, crop, crop_why, iters, why, batch, held_out)


def _held_out(targets: np.ndarray, root: Path) -> int:
    """A tenth of the images, the last ones, or more until one has a label."""
    labelled = np.flatnonzero(targets)
    if len(labelled) < 2:
        raise UserError(
            f'{root} has 1 image with labels among {len(targets)}: one to learn from '
            'and one to test on are the least; label another, or remove the others'
        )
    return int(max(1, len(targets) // 10, len(targets) - labelled[-1]))


def _refuse_unlabelled(found: Found, split: str, targets: np.ndarray) -> None:
    if not targets.any():
        raise UserError(
            f'none of the {len(targets)} images of {found.root} for {split} has '
            'anything of a class: add labels, or leave the split out'
        )


def _queries(task: str, targets: np.ndarray) -> tuple[int, str]:
    """Twice as many as nearly all images need, and not less than published.

    A query that matches nothing costs little, and with the published number the
    queries of published weights fit.
    """
    published = PUBLISHED_QUERIES[task]
    usual = int(np.ceil(np.percentile(targets, 99)))
    if 2 * usual <= published:
        return published, f'as published, twice {usual} (99 % of images) or more'
    return -(-2 * usual // 50) * 50, f'twice {usual}, which 99 % of images stay below'


def _crop(task: str, numbers: Survey) -> tuple[int, str]:
    """The published crop, unless images are smaller or things are tiny in it.

    Semantic models see the shorter side whole, the others the longer one.
    """
    published = PUBLISHED_CROP[task]
    sides = numbers.sizes.min(1) if task == SEMANTIC else numbers.sizes.max(1)
    side = int(np.median(sides))
    name = 'shorter' if task == SEMANTIC else 'longer'
    if side < published:
        return max(STEP, round(side / STEP) * STEP), f'{name} sides are {side} (median)'
    if len(numbers.sides):
        thing = float(np.median(numbers.sides))
        if thing * published < PATCH and side > published:
            return LARGER_CROP, (
                f'half of the things would be below {thing * published:.0f} px, less '
                f'than a patch, at {published}'
            )
    return published, f'as published; {name} sides are {side} (median)'


def config_text(
    found: Found,
    numbers: Survey,
    chosen: Proposal,
    backbone: str = 'large',
    load_from: str | None = None,
) -> str:
    """Write the config.

    Args:
        found (Found): The dataset.
        numbers (Survey): What is in it.
        chosen (Proposal): The numbers to write.
        backbone (str): One of :data:`BACKBONES`.
        load_from (str, optional): A checkpoint to start from.

    Returns:
        str: At most 20 lines, complete.
    """
    semantic = found.task == SEMANTIC
    train = found.splits['train']
    val = found.splits.get('val', train)
    lines = [f'_base_ = {_literal(str(ROOT / BASES[found.task]))}']
    lines += ['from eomt_mm.crop_size import set_crop_size']
    lines += [
        f'set_crop_size(_base_, ({chosen.crop}, {chosen.crop}))  # {chosen.crop_why}'
    ]
    meta = dict(classes=numbers.classes, palette=numbers.palette)
    if found.task == PANOPTIC:
        meta['thing_classes'] = numbers.classes[: numbers.num_things]
        meta['stuff_classes'] = numbers.classes[numbers.num_things :]
    own = dict(data_root=str(found.root.resolve()))
    if semantic:
        own = dict(type='eomt_mm.SegDataset', **own)
        own.update(img_suffix=found.suffixes[0], seg_map_suffix=found.suffixes[1])
        if numbers.values:
            own['label_values'] = numbers.values
        if numbers.reduce_zero_label:
            own['reduce_zero_label'] = True
    if load_from:
        lines += [f'load_from = {_literal(load_from)}']
    lines += [f'meta = {_call(meta)}', f'own = {_call(own)[:-1]}, metainfo=meta)']
    trained, tested = _files_of(found.task, train), _files_of(found.task, val)
    if chosen.held_out:
        trained['indices'] = numbers.images['train'] - chosen.held_out
        tested['indices'] = -chosen.held_out
        if found.task == INSTANCE:
            trained['filter_cfg'] = None  # it would number the images anew
    lines += [f'train = {_call(trained)}', f'val = {_call(tested)}']
    network = dict(num_queries=chosen.queries, **BACKBONES[backbone])
    head = dict(num_classes=len(numbers.classes))
    if not semantic:
        head = dict(num_things_classes=numbers.num_things)
    if found.task == PANOPTIC:
        head['num_stuff_classes'] = len(numbers.classes) - numbers.num_things
    part = 'decode_head' if semantic else 'panoptic_head'
    lines += [f'model = {_call({"backbone": network, part: head})}']
    lines[-1] += f'  # {chosen.queries_why}'
    lines += [
        f'train_dataloader = dict(batch_size={chosen.batch}, dataset=dict(**train, '
        '**own))',
        'val_dataloader = dict(dataset=dict(**val, **own))',
        'test_dataloader = val_dataloader',
    ]
    if not semantic:
        truth = dict(ann_file=str(found.root.resolve() / val.ann_file))
        if found.task == PANOPTIC:
            truth['seg_prefix'] = str(found.root.resolve() / val.labels)
        lines += [f'val_evaluator = {_call(truth)}', 'test_evaluator = val_evaluator']
    if not BACKBONES[backbone].get('pretrained', True):
        lines += [f'optim_wrapper = {_call(FROM_RANDOM)}']
    every = max(1, chosen.iters // 10)
    warmup = max(1, chosen.iters // 40), max(2, chosen.iters // 20)
    lines += [
        f'param_scheduler = dict(warmup={warmup})',
        f'train_cfg = dict(max_iters={chosen.iters}, val_interval={every})  '
        f'# {chosen.iters_why}',
        f'default_hooks = dict(checkpoint=dict(interval={every}))',
        'auto_scale_lr = dict(enable=True)  # the rate is for 16 images in a batch',
    ]
    return '\n'.join(lines) + '\n'


def _files_of(task: str, split) -> dict:
    """Where the images of a split lie, as the dataset takes it."""
    if task == SEMANTIC:
        return dict(data_prefix=dict(img_path=split.images, seg_map_path=split.labels))
    prefix = dict(img=split.images)
    if task == PANOPTIC:
        prefix['seg'] = split.labels
    return dict(ann_file=split.ann_file, data_prefix=prefix)


def _call(values: dict) -> str:
    """A dict as the configs write it."""
    items = (
        f'{key}={_call(value) if isinstance(value, dict) else _literal(value)}'
        for key, value in values.items()
    )
    return f'dict({", ".join(items)})'


def _literal(value: object) -> str:
    """A value as text of a config; MMEngine replaces {{...}} even in strings."""
    return repr(value).replace('{{', r'{\x7b')
