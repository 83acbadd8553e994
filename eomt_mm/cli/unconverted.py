"""Weights in a layout of others, given where a checkpoint of this package belongs."""

import os
from pathlib import Path

from eomt_mm.errors import UserError

_HUB_FILES = ('*.safetensors', '*.safetensors.index.json', '*.bin')


def refuse_unconverted(path: str) -> None:
    """Raise a UserError if a checkpoint has to be converted first.

    Args:
        path (str): A file or a folder. Pickled weights of the authors are recognised
            by their names, when they reach the model.
    """
    folder = os.path.isdir(path) and any(
        next(Path(path).glob(name), None) for name in _HUB_FILES
    )
    if folder or _is_safetensors(path):
        name = Path(path).resolve().with_suffix('.pth').name
        raise UserError(
            f'{path} has the layout of Hugging Face: convert it with python '
            f'tools/model_converters/eomt2mm.py {path} {name} (weights of a ViT alone '
            'belong into model.backbone.pretrained)'
        )


def _is_safetensors(path: str) -> bool:
    """Whether a file is one of safetensors, or the index of several."""
    if not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        return file.read(9)[8:] == b'{' or path.endswith('.safetensors.index.json')
