"""DINOv3 files of the authors: differences to the pre-trained ViT.

The pre-trained weights are gated, so the authors publish the backbone as a difference
to them and all other tensors as values. The names are those of a whole model: used as
one, such a file computes NaN or nonsense (https://github.com/tue-mps/eomt/issues/47).
"""

import re
from pathlib import Path

from torch import Tensor

from eomt_mm.errors import UserError, shorten

from .layouts import DINOV3_VIT
from .reading import read_checkpoint, tensors_of

_NORM_WEIGHT = re.compile(r'backbone\.(blocks\.\d+\.norm[12]|norm)\.weight')
# Halfway between what norms of a trained ViT have, nearly 1, and 0.
LEAST_COHERENCE = 0.5


def sign_coherence(network: dict[str, Tensor]) -> float:
    """Measure how uniformly positive the weights of the ViT's norms are, from -1 to 1.

    Norm weights start at 1, and hardly any crosses zero in training: the result is
    about 1. Their changes in a fine-tuning have both signs, or are all negative due to
    weight decay: the result is about 0, or below.

    Args:
        network (dict[str, Tensor]): Tensors under this package's names.

    Returns:
        float: mean(w) / mean(|w|), averaged over all norms so that each counts alike.
    """
    norms = [w.double() for key, w in network.items() if _NORM_WEIGHT.fullmatch(key)]
    shares = [float(w.mean() / w.abs().mean().clamp(min=1e-30)) for w in norms]
    return sum(shares) / max(1, len(shares))


def is_delta(network: dict[str, Tensor]) -> bool:
    """Whether the backbone is a difference to the pre-trained one.

    Args:
        network (dict[str, Tensor]): Tensors under this package's names.
    """
    return sign_coherence(network) < LEAST_COHERENCE


def read_base(path: Path) -> dict[str, Tensor]:
    """Read the pre-trained DINOv3 of Hugging Face, in this package's names.

    Args:
        path (Path): The file `model.safetensors` of `facebook/dinov3-*`.

    Returns:
        dict[str, Tensor]: `backbone.*`, without queries.

    Raises:
        UserError: If it is something else.
    """
    tensors = tensors_of(read_checkpoint(path), path)
    # Newer versions of transformers write `model.layer`, older ones `layer`.
    tensors = {key.removeprefix('model.'): value for key, value in tensors.items()}
    if not DINOV3_VIT.marks_are_in(list(tensors)):
        raise UserError(
            f'--base {path} is not a DINOv3 as Hugging Face has it: {len(tensors)} '
            f'tensors such as {shorten(list(tensors))}. Take model.safetensors of '
            'https://huggingface.co/facebook/dinov3-vitl16-pretrain-lvd1689m, or of '
            'the S or B of it'
        )
    return DINOV3_VIT.to_package_names(tensors)[0]


def add_base(
    delta: dict[str, Tensor], base: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Add the pre-trained backbone, in fp32.

    Args:
        delta (dict[str, Tensor]): A network whose backbone is a difference.
        base (dict[str, Tensor]): Result of `read_base`.
        path (Path): File of the base, for errors.

    Returns:
        dict[str, Tensor]: The whole network; queries and head as they were.

    Raises:
        UserError: If the two are not of one architecture.
    """
    added = [k for k in delta if k.startswith('backbone.') and k != 'backbone.queries']
    shapes = [
        {key: tuple(network[key].shape) for key in keys}
        for network, keys in ((delta, added), (base, base))
    ]
    differing = sorted(key for key, _ in shapes[0].items() ^ shapes[1].items())
    if differing:
        key = differing[0]
        has, wants = (shape.get(key, 'missing') for shape in reversed(shapes))
        raise UserError(
            f'--base {path} is a DINOv3 of another size than the file was made from: '
            f'{key} is {has}, wanted is {wants}'
        )
    return delta | {key: base[key].float() + delta[key].float() for key in added}
