"""Pre-trained timm weights, by name or from a file, resized as the paper does.

timm resizes them while it loads: the patch embedding by pseudo-inverse (FlexiViT,
arXiv 2212.08013), the position codes by antialiased bicubic interpolation, both in
fp32 (arXiv 2503.19108, Sec. 4.1).

For images of other than three channels the patch embedding follows timm's rule: one
channel takes the sum of the weights of red, green and blue; more repeat these in turn
and scale them by 3 / channels. Thus the embedding keeps its scale (exactly, where all
channels hold one grey picture and their number is 1 or a multiple of 3), and each
channel counts from the start, whatever it shows.
"""

import difflib
import os
import re

import safetensors.torch
import timm
from mmengine.logging import print_log
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor

from eomt_mm import checkpoints
from eomt_mm.errors import UserError

# timm does not validate shapes; a malformed tensor fails in many ways.
MISFITS = (
    RuntimeError,
    LookupError,
    AttributeError,
    ValueError,
    AssertionError,
    ArithmeticError,
)
BLOCK_NUMBER = re.compile(r'(?:^|\.)blocks\.(\d+)\.')


# Sides of patches that are resized: the work grows with their fourth power or more.
LARGEST_PATCH = 64
RGB = 3


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Make the weight of a patch embedding from that for RGB.

    Args:
        weight (Tensor): Shape (C, 3, P, P).
        channels (int): Channels of the images.

    Returns:
        Tensor: Shape (C, channels, P, P).
    """
    return adapt_input_conv(channels, weight, RGB)


def channel_rule(channels: int) -> str:
    """Say what `fit_channels` does."""
    if channels == 1:
        return 'the weights of red, green and blue are summed for one channel'
    return (
        f'the weights of red, green and blue are repeated over {channels} channels and '
        f'scaled by 3 / {channels}'
    )


def can_embed(loaded: Tensor, initial: Tensor) -> bool:
    """Whether `fit_patch_embed` can: of the same width, for RGB or as many channels."""
    if loaded.ndim != 4 or len(loaded) != len(initial) or 0 in loaded.shape:
        return False
    if max(loaded.shape[2:]) > LARGEST_PATCH:
        return False
    return loaded.shape[1] in (RGB, initial.shape[1])


def fit_patch_embed(
    weight: Tensor, initial: Tensor
) -> tuple[Tensor, list[tuple[str, str]]]:
    """Fit a patch embedding to other patches, as pre-trained ones are, and channels.

    Args:
        weight (Tensor): That of a checkpoint, shape (C, channels, P, P).
        initial (Tensor): That of the model, shape (C, other channels, Q, Q).

    Returns:
        tuple[Tensor, list[tuple[str, str]]]: The weight, the very one where nothing
        differs; what was done and how.
    """
    done, size, channels = [], list(initial.shape[2:]), initial.shape[1]
    if list(weight.shape[2:]) != size:
        done.append(('resized', f'patches of {weight.shape[2]} -> {size[0]} pixels'))
        weight = resample_patch_embed(weight.float(), size)
    if weight.shape[1] != channels:
        done.append(('new channels', channel_rule(channels)))
        weight = fit_channels(weight, channels)
    return weight, done


def check_arch(arch: str) -> None:
    """Raise a UserError with the nearest names if timm does not know a model.

    Args:
        arch (str): Name of a timm model, with or without a pretrained tag.
    """
    if timm.is_model(arch):
        name, _, tag = arch.partition('.')
        if tag and not timm.is_model_pretrained(arch):
            raise UserError(
                f'timm {timm.__version__} has no weights {tag!r} of {name}, it has '
                f'{", ".join(timm.list_pretrained(f"{name}.*")) or "none"}'
            )
        return
    near = difflib.get_close_matches(arch, timm.list_models('*vit*'), n=3)
    hint = f': did you mean {" or ".join(near)}?' if near else ''
    raise UserError(
        f'timm {timm.__version__} has no model {arch!r}{hint} '
        '(timm.list_models() lists all)'
    )


def load_timm_weights(
    arch: str, source: bool | str, timm_args: dict
) -> dict[str, Tensor]:
    """Read pre-trained weights in timm's names, resized to the model's grid.

    Args:
        arch (str): Name of a timm model.
        source (bool | str): True for timm's own weights of that name, else the path
            of a `.safetensors` or `.pth` file (timm's or the original authors'
            layout).
        timm_args (dict): Arguments of the timm model: `img_size`, `patch_size`, ...

    Returns:
        dict[str, Tensor]: timm's state dict without the classifier.

    Raises:
        UserError: If the weights cannot be downloaded, read, or do not fit.
    """
    if source is True:
        return _download(arch, timm_args)
    content = _read_file(source)
    weights = checkpoints.weights_of(content, source)
    _refuse_channels(weights, timm_args.get('in_chans', RGB), source)
    names = list(weights)  # timm empties what it reads
    overlay = dict(state_dict=content)
    try:
        vit = timm.create_model(
            arch,
            pretrained=True,
            num_classes=0,
            pretrained_cfg_overlay=overlay,
            **timm_args,
        )
    except MISFITS as error:
        raise UserError(
            f'{source} does not hold weights of {arch}: {_reason(error)}. '
            'Set backbone.arch to the model the file was made for'
        ) from error
    # timm loads without a word what lacks whole blocks, if it also drops a classifier.
    found = {number for key in names for number in BLOCK_NUMBER.findall(key)}
    if found and len(found) < len(vit.blocks):
        raise UserError(
            f'{source} does not hold weights of {arch}: it has {len(found)} blocks, '
            f'expected {len(vit.blocks)}. Set backbone.arch to the model the file was '
            'made for'
        )
    return _norm_of_tokens(vit.state_dict())


def _refuse_channels(weights: dict[str, Tensor], channels: int, source: str) -> None:
    """Refuse a patch embedding of channels that none can be made of."""
    weight = weights.get('patch_embed.proj.weight')
    if weight is None or weight.ndim != 4 or weight.shape[1] in (RGB, channels):
        return
    raise UserError(
        f'{source} holds weights of a ViT for {weight.shape[1]} channels, and '
        f'backbone.in_channels is {channels}: only weights for {RGB} fit other numbers '
        '(docs/own_data.md)'
    )


def _reason(error: Exception) -> str:
    """Return the first two lines of an error; PyTorch lists every tensor after them."""
    return ' '.join(str(error).strip().splitlines()[:2])


def _norm_of_tokens(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the norm after timm's pooling to the norm of the tokens.

    EVA-02 was pre-trained with its last norm on the tokens; timm moves it after the
    pooling (`fc_norm`), where its classifiers expect it.
    """
    if 'norm.weight' in weights:
        return weights
    return {key.replace('fc_norm.', 'norm.'): value for key, value in weights.items()}


def _download(arch: str, timm_args: dict) -> dict[str, Tensor]:
    cfg = timm.get_pretrained_cfg(arch)
    hub_id = cfg.hf_hub_id if cfg else None
    if not hub_id:
        raise UserError(
            f'timm has no pre-trained weights for {arch!r}: set '
            'model.backbone.pretrained=False or to the path of a local file'
        )
    print_log(
        f'getting pre-trained weights: https://huggingface.co/{hub_id} '
        '(downloaded once; without a connection this gives up after two minutes)',
        logger='current',
    )
    try:
        vit = timm.create_model(arch, pretrained=True, num_classes=0, **timm_args)
    except Exception as error:
        # The client's "not found" is a ValueError, but an OSError too.
        if isinstance(error, MISFITS) and not isinstance(error, OSError):
            raise UserError(
                f'the pre-trained weights of {arch!r} do not fit the backbone: '
                f'{_reason(error)}. Remove from backbone.timm_args what changes '
                'shapes, or set backbone.pretrained=False'
            ) from error
        raise UserError(
            f'cannot get the pre-trained weights of {arch!r} from the hub '
            f'({type(error).__name__}). Offline, put the file model.safetensors of '
            f'https://huggingface.co/{hub_id} on this machine and pass '
            '--cfg-options model.backbone.pretrained=PATH (or =False for a random '
            'start, or when a checkpoint is loaded anyway)'
        ) from error
    return _norm_of_tokens(vit.state_dict())


def _read_file(path: str) -> dict:
    """Read a state dict without unpickling anything but tensors."""
    if not os.path.isfile(path):
        raise UserError(
            f'no pre-trained weights at {path!r}: model.backbone.pretrained must be '
            'True, False or an existing .safetensors or .pth file'
        )
    try:
        if path.endswith('.safetensors'):
            return safetensors.torch.load_file(path)
        content = checkpoints.read(path)
        checkpoints.weights_of(content, path)
        return content
    except UserError:
        raise
    # A broken file can fail anywhere inside the reader.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'{path} is not a readable .safetensors or weights-only .pth file '
            f'({reason}): download it again'
        ) from error
