"""Refusing a checkpoint that does not fit, before anything is loaded.

MMEngine loads what matches, logs the rest and goes on, so that a model tested with
the wrong checkpoint gives a low score instead of an error.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from eomt_mm.errors import UserError, shorten

# Without any of these parts a ViT is another network.
_VIT_PARTS = ('blocks', 'cls_token', 'reg_token', 'pos_embed', 'patch_embed')


def refuse_misfit(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Refuse a checkpoint of another model, as a state-dict pre-hook.

    Weights that FSDP has split are compared before they are loaded, see
    `engine.strategies`.

    Args:
        module (nn.Module): The model that loads.
        state_dict (dict[str, Tensor]): The weights to load.
        prefix (str): Prefix of the model's keys in `state_dict`.

    Raises:
        UserError: See `compare_states`.
    """
    if not any(isinstance(part, FSDP) for part in module.modules()):
        compare_states(module.state_dict(prefix=prefix), state_dict, prefix)


def compare_states(
    own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], prefix: str = ''
) -> None:
    """Refuse weights that are not those of a model.

    Raise if shapes differ, nothing matches, a module (backbone or head) is incomplete,
    or the backbone has extra blocks or tokens. A whole module may be missing: training
    may start from the weights of the backbone alone.

    Args:
        own (Mapping[str, Tensor]): State dict of the model.
        state_dict (Mapping[str, Tensor]): The weights to load.
        prefix (str): Prefix of the keys in both. Defaults to ''.

    Raises:
        UserError: Names the tensors that do not fit.
    """
    common = own.keys() & state_dict.keys()
    if not common:
        raise UserError(
            'the checkpoint holds no parameter of this model: expected keys such as '
            f'{next(iter(own))!r}, found {next(iter(state_dict), "none")!r}. Give a '
            'checkpoint that this config has trained. Published weights are converted '
            'first, with tools/model_converters/eomt2mm.py'
        )
    misfits = [
        f'{key} is {tuple(state_dict[key].shape)}, the config makes '
        f'{tuple(own[key].shape)}'
        for key in own
        if key in common and state_dict[key].shape != own[key].shape
    ]
    if misfits:
        raise UserError(
            f'the checkpoint does not fit the config: {shorten(misfits, "; ")}. '
            'Use the config it was trained with: class_head shows the number of '
            'classes + 1, queries that of queries, pos_embed that of patches, '
            'patch_embed those of channels (in_channels) and pixels of a patch. A '
            'training that starts from it (load_from) may change these, channels from '
            '3 alone, and no others'
        )
    present = {_module_of(key, prefix) for key in common}
    missing = [
        key for key in own if key not in common and _module_of(key, prefix) in present
    ]
    # Surplus keys are errors only for these parts: a checkpoint may carry a classifier.
    parts = tuple(f'{prefix}backbone.{part}' for part in _VIT_PARTS)
    surplus = [key for key in state_dict if key.startswith(parts) and key not in own]
    if missing or surplus:
        lists = (('lacks', missing), ('has, unlike the config,', surplus))
        found = '; it '.join(f'{verb} {shorten(keys)}' for verb, keys in lists if keys)
        raise UserError(
            f'the checkpoint does not fit the config: it {found}. Use the config it '
            'was trained with: backbone.arch and backbone.timm_args set the blocks and '
            'registers. Weights of a ViT alone belong into backbone.pretrained'
        )


def _module_of(key: str, prefix: str) -> str:
    """Return the name of the top-level module that a key belongs to."""
    return key.removeprefix(prefix).partition('.')[0]
