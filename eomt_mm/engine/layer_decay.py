"""Layer-wise learning rate decay for a plain ViT with timm's parameter names."""

from collections import defaultdict

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from eomt_mm.errors import UserError
from eomt_mm.models.freezing import EMBEDDINGS
from eomt_mm.models.plain_vit import NEW_PARTS
from eomt_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .wrapped import plain_name

FINAL_NORMS = ('norm', 'fc_norm')


def layer_decay_scale(name: str, depth: int, decay: float) -> float:
    """Return the learning rate factor of one backbone parameter.

    `decay ** (depth - 1 - i)` for block i, hence 1 for the last block. The
    embeddings share block 0's factor (BEiT-style constructors decay them once more;
    EoMT does not) and the final norm has the full rate.

    Args:
        name: Parameter name below `backbone.`, for example `blocks.3.attn.qkv.weight`.
        depth: Number of blocks of the ViT.
        decay: Factor from one block to the one before.

    Raises:
        UserError: If the name belongs to no known part of a timm ViT.
    """
    part, _, rest = name.partition('.')
    if part == 'blocks':
        return decay ** (depth - 1 - int(rest.partition('.')[0]))
    if part in EMBEDDINGS:
        return decay ** (depth - 1)
    # New parts live in the backbone, but learn and warm up with the head.
    if part in FINAL_NORMS or part in NEW_PARTS:
        return 1.0
    known = ', '.join(('blocks', *EMBEDDINGS, *FINAL_NORMS, *NEW_PARTS))
    raise UserError(
        f'no layer-wise learning rate for backbone.{name}: expected a parameter of '
        f'{known}; add its name in eomt_mm/engine/layer_decay.py, or train with '
        "constructor='DefaultOptimWrapperConstructor'"
    )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """Optimizer wrapper with layer-wise learning rate decay in the backbone.

    `paramwise_cfg` takes two keys: `decay_rate` (0.8) and `decay_last_blocks`
    (True). Without the latter the masked blocks, the last `backbone.num_blocks`, have
    the full rate; the blocks before are unaffected. Weight decay applies to every
    parameter, norms, biases and embeddings included, as in the paper's recipe.

    The few parameter groups carry `is_backbone`, which the warm-up schedule reads,
    and `lr_scale`. The first group is the backbone at full rate and MMEngine appends
    the optimizer's defaults as a last one, so of the two rates in its log `lr` is
    the backbone's and `base_lr` the head's.

    Raises:
        UserError: If `paramwise_cfg` has an unknown key, the learning rate is missing,
            or the backbone has no `depth`.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        options = {'decay_rate': 0.8, 'decay_last_blocks': True}
        unknown = sorted(set(paramwise_cfg or {}) - set(options))
        if unknown:
            raise UserError(
                f'paramwise_cfg has {", ".join(unknown)}: LayerDecayConstructor knows '
                f'{", ".join(options)} and decays all weights alike'
            )
        super().__init__(optim_wrapper_cfg, {**options, **(paramwise_cfg or {})})
        if self.base_lr is None:
            raise UserError('optim_wrapper.optimizer has no lr: write for example 1e-4')

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append the parameter groups of the whole model to `params`."""
        scale = self._backbone_scale(module)
        groups = defaultdict(list)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            root, _, rest = plain_name(name).partition('.')
            new = rest.partition('.')[0] in NEW_PARTS
            is_backbone = root == 'backbone' and not new
            groups[is_backbone, scale(rest) if is_backbone else 1.0].append(parameter)
        # Sorted down: backbone before head, and within it the full rate first.
        for (is_backbone, factor), parameters in sorted(
            groups.items(), key=lambda item: item[0], reverse=True
        ):
            params.append(
                {
                    'params': parameters,
                    'lr': self.base_lr * factor,
                    'lr_scale': factor,
                    'is_backbone': is_backbone,
                }
            )

    def _backbone_scale(self, model: nn.Module):
        backbone = getattr(model, 'backbone', None)
        depth = getattr(backbone, 'depth', None)
        # Only a ViT with queries has masked blocks.
        num_blocks = getattr(backbone, 'num_blocks', 0)
        if depth is None:
            raise UserError(
                f'{type(model).__name__}.backbone has no `depth`, which '
                "LayerDecayConstructor needs: use the backbone 'eomt_mm.QueryViT' or "
                "'eomt_mm.PlainViT'"
            )
        decay = self.paramwise_cfg['decay_rate']
        if self.paramwise_cfg['decay_last_blocks']:
            full_rate = ()
        else:
            full_rate = tuple(f'blocks.{i}.' for i in range(depth - num_blocks, depth))

        def scale(name: str) -> float:
            if name.startswith(full_rate):
                return 1.0
            return layer_decay_scale(name, depth, decay)

        return scale
