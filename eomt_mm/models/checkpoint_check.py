"""Refusing a checkpoint that does not fit, before anything is loaded.

MMEngine loads what matches, logs the rest and goes on, so that a model tested with
the wrong checkpoint gives a low score instead of an error.
"""

from torch import Tensor, nn

from eomt_mm.errors import UserError

# Parts of a ViT without which it is another network.
_VIT_PARTS = ('blocks', 'cls_token', 'reg_token', 'pos_embed', 'patch_embed')


def refuse_misfit(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """State-dict pre-hook that raises where a checkpoint is another model's.

    That is, where shapes differ, nothing matches, only part of a top-level module
    (backbone or head) is there, or the backbone has blocks, registers or other tokens
    too many. A module may be missing as a whole: weights of the backbone alone are a
    start of training.

    Args:
        module (nn.Module): The model that is about to load.
        state_dict (dict[str, Tensor]): What it is about to load.
        prefix (str): Prefix of the model's keys in `state_dict`.

    Raises:
        UserError: Names the tensors that do not fit.
    """
    own = {prefix + key: value for key, value in module.state_dict().items()}
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
            f'the checkpoint does not fit the config: {few(misfits, "; ")}. '
            'Use the config it was trained with: class_head shows the number of '
            'classes + 1, queries that of queries, pos_embed that of patches. A '
            'training that starts from it (load_from) may change these, and no others'
        )
    present = {_module_of(key, prefix) for key in common}
    missing = [
        key for key in own if key not in common and _module_of(key, prefix) in present
    ]
    # Known by their name alone: a checkpoint may hold more than a model, such as
    # the classifier of a backbone, but a block left out changes all that follow, and
    # so do registers.
    parts = tuple(f'{prefix}backbone.{part}' for part in _VIT_PARTS)
    surplus = [key for key in state_dict if key.startswith(parts) and key not in own]
    if missing or surplus:
        lists = (('lacks', missing), ('has, unlike the config,', surplus))
        found = '; it '.join(f'{verb} {few(keys)}' for verb, keys in lists if keys)
        raise UserError(
            f'the checkpoint does not fit the config: it {found}. Use the config it '
            'was trained with: backbone.arch and backbone.timm_args set the blocks and '
            'registers. Weights of a ViT alone belong into backbone.pretrained'
        )


def _module_of(key: str, prefix: str) -> str:
    """Name of the top-level module that a key belongs to."""
    return key.removeprefix(prefix).partition('.')[0]


def few(items: list[str], separator: str = ', ') -> str:
    """Three items, and how many more there are."""
    more = f' and {len(items) - 3} more' if len(items) > 3 else ''
    return separator.join(items[:3]) + more
