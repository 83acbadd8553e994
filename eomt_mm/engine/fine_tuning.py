"""Fine-tuning: the weights of another training are fitted to the model.

Matching tensors are loaded, position codes and the patch embedding resized, and the
patch embedding of RGB is made to fit other channels. The class head of other classes,
queries of another number and what doubles the features of larger patches start anew. A
table in the log lists all of it. Any other misfit is refused.
"""

import ast
import math
from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest

import timm
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import find_latest_checkpoint
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from eomt_mm.checkpoints import config_of, parse
from eomt_mm.errors import UserError, shorten
from eomt_mm.models.checkpoint_check import compare_states
from eomt_mm.models.network import HEADS
from eomt_mm.models.pretrained import can_embed, fit_patch_embed
from eomt_mm.models.query_vit import QueryViT
from eomt_mm.models.timm_vit import build_vit
from eomt_mm.registry import HOOKS

from .wrapped import unwrapped, whole_state

POS_EMBED = 'backbone.pos_embed'
PATCH_EMBED = 'backbone.patch_embed.proj.weight'
# Names in EoMT, and in MMDet's and MMSeg's Mask2Former.
QUERIES = ('backbone.queries', '.query_embed.weight', '.query_feat.weight')
CLASS_HEADS = ('.class_head.', '.cls_embed.')
DOUBLINGS = '.upscale.'  # there are more of them where patches are larger
# Settings that are read from a checkpoint's config.
_SETTINGS = ('num_blocks', 'img_size', 'patch_size', 'arch', 'num_heads')
_HEAD_PREFIXES = tuple(f'{name}.' for name in HEADS)


def fit_weights(
    model: nn.Module,
    loaded: Mapping[str, Tensor],
    other_classes: str | None = None,
    old_grid: tuple[int, int] | None = None,
    own: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """Make the weights of another training fit a model.

    Args:
        model (nn.Module): The model as initialised, whose `backbone` is a `QueryViT`;
            it is not changed.
        loaded (Mapping[str, Tensor]): State dict of the checkpoint; not changed.
        other_classes (str, optional): Difference between the classes and those of the
            checkpoint, due to which a class head of the same size starts anew.
            Defaults to None, no difference.
        old_grid (tuple[int, int], optional): Rows and columns of patches in the
            checkpoint. Defaults to the model's if there are as many, else a square.
        own (Mapping[str, Tensor], optional): The model's state dict, where its weights
            are in shares. Defaults to `model.state_dict()`.

    Returns:
        tuple[dict[str, Tensor], list[tuple[str, str]]]: The model's complete state
        dict, and a table: actions, their tensors and reasons.

    Raises:
        UserError: If the checkpoint has another architecture, no backbone, or NaN or
            infinite values in what is loaded.
    """
    own = model.state_dict() if own is None else own
    loaded, table = _in_names_of(own, loaded)
    fitted, resized, anew = {}, [], {}
    doublings = _new_doublings(own, loaded)
    for key, initial in own.items():
        if key not in loaded:
            if key in doublings:
                fitted[key] = initial
                anew[_layer(key)] = 'the checkpoint has smaller patches'
            continue
        fitted[key] = loaded[key]
        why = _why_anew(key, loaded[key], initial, other_classes)
        if why:
            fitted[key] = initial
            anew[_layer(key)] = why
        elif key == PATCH_EMBED and can_embed(loaded[key], initial):
            fitted[key], done = fit_patch_embed(loaded[key], initial)
            resized += [(what, f'{key}: {how}') for what, how in done]
        elif key == POS_EMBED and loaded[key].shape[2:] == initial.shape[2:]:
            fitted[key] = initial  # a placeholder until all else fits
    compare_states(own, {**loaded, **fitted})
    _refuse_non_finite(
        {k: loaded[k] for k in fitted if k in loaded and _layer(k) not in anew}
    )

    if POS_EMBED in fitted:
        codes = loaded[POS_EMBED]
        fitted[POS_EMBED] = _resized(codes, model.backbone, old_grid)
        if fitted[POS_EMBED] is not codes:
            shapes = tuple(codes.shape), tuple(fitted[POS_EMBED].shape)
            resized.append(('resized', f'{POS_EMBED}: {shapes[0]} -> {shapes[1]}'))

    unchanged = sum(fitted[key] is loaded.get(key) for key in fitted)
    for key, initial in own.items():
        if key not in fitted:  # a whole module: smaller gaps are refused
            fitted[key] = initial
            anew[key.partition('.')[0]] = 'not in the checkpoint'
    if 'backbone' in anew:
        raise UserError(
            'the checkpoint has no weights of the backbone, so that the ViT would '
            'start at random: give load_from the checkpoint of a whole model'
        )
    # Two levels of a name identify it; there may be hundreds of tensors.
    unused = Counter('.'.join(k.split('.')[:2]) for k in loaded if k not in own)
    table += [
        ('loaded unchanged', _tensors(unchanged)),
        *resized,
        *(('started anew', f'{name}: {why}') for name, why in anew.items()),
        *(('not used', f'{name}: {_tensors(n)}') for name, n in unused.items()),
    ]
    return fitted, table


def _in_names_of(
    own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[tuple[str, str]]]:
    """Drop a wrapper's prefix, and rename the head to the model's name for it."""
    loaded = {key.removeprefix('module.'): value for key, value in loaded.items()}

    def has(state: Mapping[str, Tensor], prefix: str) -> int:
        return sum(key.startswith(prefix) for key in state)

    for old, new in (_HEAD_PREFIXES, _HEAD_PREFIXES[::-1]):
        count = has(loaded, old)
        if count and has(own, new) and not has(own, old) and not has(loaded, new):
            renamed = {
                new + key.removeprefix(old) if key.startswith(old) else key: value
                for key, value in loaded.items()
            }
            return renamed, [('renamed', f'{old}* -> {new}*: {_tensors(count)}')]
    return loaded, []


def _why_anew(
    key: str, loaded: Tensor, initial: Tensor, other_classes: str | None
) -> str | None:
    """Return why a tensor starts anew, or None. Other channels are not a reason."""
    # Single numbers: the batches that a norm has seen.
    if loaded.ndim == 0 or loaded.shape[1:] != initial.shape[1:]:
        return None
    same, now = len(loaded) == len(initial), f'{len(initial)} in the config'
    if any(name in key for name in CLASS_HEADS):
        if same:
            return other_classes
        return f'{len(loaded)} rows (classes + 1) in the checkpoint, {now}'
    if key.endswith(QUERIES) and not same:
        return f'{len(loaded)} in the checkpoint, {now}'
    return None


def _new_doublings(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> set[str]:
    """Name the tensors that a head has because patches are larger than in `loaded`."""
    weights = [state.get(PATCH_EMBED) for state in (loaded, own)]
    sides = [
        weight.shape[-1] for weight in weights if weight is not None and weight.ndim
    ]
    if len(sides) < 2 or sides[0] >= sides[1]:
        return set()
    heads = {key.partition('.')[0] for key in loaded}  # a whole one starts anew anyway
    return {k for k in own if DOUBLINGS in k and k.partition('.')[0] in heads}


def _resized(
    pos_embed: Tensor, backbone: QueryViT, old_grid: tuple[int, int] | None
) -> Tensor:
    """Resize position codes (1, prefix + N, C) to the backbone's grid, as timm does."""
    prefix = backbone.num_prefix_tokens if backbone.pos_embed_covers_prefix else 0
    count = pos_embed.shape[1] - prefix
    if old_grid is None or math.prod(old_grid) != count:
        side = math.isqrt(count)
        old_grid = backbone.grid if count == math.prod(backbone.grid) else (side, side)
    if math.prod(old_grid) != count:
        raise UserError(
            f'{POS_EMBED} of the checkpoint has codes for {count} patches: this is no '
            'square, and the checkpoint does not say which rectangle it is'
        )
    if tuple(old_grid) == tuple(backbone.grid):
        return pos_embed
    return resample_abs_pos_embed(
        pos_embed.float(),
        list(backbone.grid),
        list(old_grid),
        prefix,
        interpolation='bicubic',
        antialias=True,
    )


def _refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN, which would spread to every weight with the first step."""
    broken = [key for key, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise UserError(
            f'the checkpoint has NaN or infinite values in {shorten(broken)}: the '
            'training that wrote it diverged, or the file is damaged. Take an earlier '
            'checkpoint of it'
        )


def _layer(key: str) -> str:
    return key.removesuffix('.weight').removesuffix('.bias')


def _tensors(count: int) -> str:
    return f'{count} tensor{"" if count == 1 else "s"}'


@HOOKS.register_module()
class FineTuningHook(Hook):
    """Fits the weights of `load_from` to the model before training.

    It acts in training, if the backbone is a `QueryViT`. Checkpoints that are tested or
    resumed must fit exactly. If a checkpoint is to be loaded, the backbone's own
    pre-trained weights are neither downloaded nor read.

    Args:
        required (bool): Whether a training without `load_from` is refused. Defaults
            to False.

    Raises:
        UserError: If a required checkpoint is missing, and see `fit_weights`.
    """

    # It precedes hooks that copy the loaded weights, such as MMEngine's EMAHook.
    priority = 'VERY_HIGH'

    def __init__(self, required: bool = False) -> None:
        self.required = required

    def before_run(self, runner) -> None:
        """Look for the checkpoint before anything is initialised."""
        model = _model_to_train(runner)
        if model is None:
            return
        source = runner._load_from
        if source is None and runner._resume:
            source = find_latest_checkpoint(runner.work_dir)
        if source is None and self.required:
            raise UserError(
                'this config starts from the checkpoint of another model, which is '
                'missing: add --cfg-options load_from=CHECKPOINT, or set '
                'required=False of eomt_mm.FineTuningHook in custom_hooks to start '
                'from the pre-trained ViT'
            )
        if source is not None:
            model.backbone.pretrained = False

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Change the checkpoint's weights before they reach the model."""
        model = _model_to_train(runner)
        # A checkpoint that is loaded after the training is there to be tested.
        if model is None or runner._resume or runner.iter > 0:
            return
        meta = checkpoint.get('meta') or {}
        trained = _backbone_settings(config_of(checkpoint) or '')
        other_classes = _difference(
            _classes(meta.get('dataset_meta')),
            _classes(getattr(runner.train_dataloader.dataset, 'metainfo', None)),
        )
        # A bare state dict is a checkpoint as well.
        weights = checkpoint.get('state_dict', checkpoint)
        own = whole_state(runner.model)
        fitted, table = fit_weights(
            model, weights, other_classes, trained.get('grid'), own
        )
        refuse_other_heads(trained, model.backbone)
        weights.clear()
        weights.update(fitted)

        now = model.backbone.num_blocks
        was = trained.get('num_blocks', now)
        if was != now:
            table.append(
                ('last blocks', f'{was} in the checkpoint, {now} in the config')
            )
        lines = '\n'.join(f'  {what:<16}  {row}' for what, row in table)
        print_log(f'fine-tuning from {runner._load_from}\n{lines}', logger='current')


def _model_to_train(runner) -> nn.Module | None:
    """Return the unwrapped model if it is trained and its backbone is a `QueryViT`."""
    model = unwrapped(runner.model)
    trains = isinstance(runner.optim_wrapper, BaseOptimWrapper)  # not built for testing
    has_queries = isinstance(getattr(model, 'backbone', None), QueryViT)
    return model if trains and has_queries else None


def _classes(metainfo: Mapping | None) -> tuple[str, ...]:
    return tuple((metainfo or {}).get('classes') or ())


def _difference(old: tuple[str, ...], new: tuple[str, ...]) -> str | None:
    """Name the first class that differs; None if names are equal or unknown."""
    if not old or not new:
        return None
    for i, (before, now) in enumerate(zip_longest(old, new)):
        if before != now:
            return f'class {i} is {before!r} in the checkpoint, {now!r} in the data'
    return None


def refuse_other_heads(trained: Mapping, backbone: QueryViT) -> None:
    """Compare the numbers of attention heads, which no shape shows.

    Args:
        trained (Mapping): `arch` and `num_heads` of the checkpoint's config, if known.
        backbone (QueryViT): The backbone that takes the weights.

    Raises:
        UserError: If the numbers differ.
    """
    now = backbone.blocks[0].attn.num_heads
    was = trained.get('num_heads') or _heads_of(trained.get('arch'))
    if was not in (None, now):
        raise UserError(
            f'the ViT of the checkpoint has {was} heads of attention, that of the '
            f'config {now}: the shapes are the same, but it is another network. Set '
            f'backbone.arch and backbone.timm_args.num_heads={was}'
        )


def _heads_of(arch: str | None) -> int | None:
    """Return the number of heads of a plain ViT by timm's name, if known."""
    if not isinstance(arch, str) or not timm.is_model(arch):
        return None
    with torch.device('meta'):
        try:
            return build_vit(arch.partition('.')[0], {}).blocks[0].attn.num_heads
        except UserError:
            return None


def _backbone_settings(cfg: str) -> dict:
    """Read the settings of the backbone from a config's text, if they are there.

    The text comes with the checkpoint: it is parsed and never run.

    Returns:
        dict: `num_blocks`, `grid`, `arch` and `num_heads`.
    """
    values = {}
    try:
        for node in ast.walk(parse(cfg)):
            if isinstance(node, ast.keyword) and node.arg == 'backbone':
                options = {option.arg: option.value for option in node.value.keywords}
                timm_args = options.get('timm_args')
                if isinstance(timm_args, ast.Call):
                    options |= {o.arg: o.value for o in timm_args.keywords}
                values = {
                    name: ast.literal_eval(options[name])
                    for name in _SETTINGS
                    if name in options
                }
                break
        size, patch = values.pop('img_size', None), values.pop('patch_size', 16)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            values['grid'] = height // patch, width // patch
    # Not a text that this package would write.
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return {}
    return values
