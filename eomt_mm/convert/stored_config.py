"""The config inside a checkpoint, read without running foreign code.

MMEngine stores it as Python code and would run it, and its registries accept any dotted
name as `type`, even `os.system`. A checkpoint may come from anywhere: the code is read
as literals here, and models are built from this package's own classes only.
"""

from mmengine.config import Config

from eomt_mm.checkpoints import NotLiteral, read_literals
from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

WAY_OUT = 'give the config with --config'
# timm would read a file that one of its arguments names: numbers and flags only.
PLAIN = (bool, int, float, type(None))
# Blocks are built one by one: those of a hostile text would take for ever.
MAX_DEPTH = 1000


def stored_config(text: str) -> Config:
    """Read the model out of the config that a checkpoint carries.

    Args:
        text (str): `meta['cfg']` of a checkpoint.

    Returns:
        Config: Its `default_scope` and `model`.

    Raises:
        UserError: If it holds more than literals, or names a class of another package.
    """
    try:
        values = read_literals(text)
    except NotLiteral as error:
        raise UserError(
            f'the config in the checkpoint is more than literals ({error}), and it is '
            f'not run: {WAY_OUT}'
        ) from error
    scope, model = values.get('default_scope'), values.get('model')
    if scope not in ('mmseg', 'mmdet') or not isinstance(model, dict):
        raise UserError(
            f'the config in the checkpoint has no model of MMSegmentation or '
            f'MMDetection: {WAY_OUT}'
        )
    MODELS.import_from_location()
    known = {f'eomt_mm.{name}' for name in MODELS.module_dict}
    foreign = [name for name in _types(model) if name not in known]
    timm_args = (model.get('backbone') or {}).get('timm_args') or {}
    foreign += [k for k, v in timm_args.items() if not isinstance(v, PLAIN)]
    depth = timm_args.get('depth')
    if not foreign and depth is not None and not 0 < depth <= MAX_DEPTH:
        raise UserError(
            f'the config in the checkpoint has depth={depth}, expected 1 to '
            f'{MAX_DEPTH} blocks: {WAY_OUT}'
        )
    if foreign:
        raise UserError(
            f'the config in the checkpoint names {foreign[0]!r}, which is not of this '
            f'package, and a checkpoint is not trusted that far: {WAY_OUT}'
        )
    return Config(dict(default_scope=scope, model=model))


def _types(node: object) -> list:
    """Yield every `type` below a node."""
    if isinstance(node, dict):
        own = [node['type']] if 'type' in node else []
        return own + [name for child in node.values() for name in _types(child)]
    if isinstance(node, (list, tuple)):
        return [name for child in node for name in _types(child)]
    return []
