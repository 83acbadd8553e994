"""One crop size for pipelines, preprocessor and backbone.

A text config copies `crop_size` into each of them when it is read, so that a leaf that
changed the variable alone would change nothing. `set_crop_size` changes all of them.
"""

from collections.abc import Iterator

from eomt_mm.errors import UserError

_PAIRS = ('eomt_mm.ScaleJitter', 'eomt_mm.PadAndCrop', 'eomt_mm.FitInside')
_SIDE = 'eomt_mm.ResizeShortSide'
_WAY_OUT = (
    'call set_crop_size(_base_, (H, W)) of eomt_mm.crop_size in the config, or pass '
    '--cfg-options crop_size="(H,W)" to the tools of eomt_mm'
)


def set_crop_size(config: dict, size: int | tuple[int, int]) -> None:
    """Change the crop size of a config wherever it occurs.

    A text config calls it after `_base_`:

        from eomt_mm.crop_size import set_crop_size

        set_crop_size(_base_, (896, 896))

    Args:
        config (dict): `_base_`, or a whole config; changed in place.
        size (int | tuple[int, int]): The side, or height and width, in pixels.

    Raises:
        UserError: If `size` is not a size, or if sizes in the config contradict its
            `crop_size`.
    """
    new = _as_size(size)
    if 'crop_size' not in config:
        raise UserError(
            f'crop_size={new}: the config has no crop_size to replace; set '
            'model.backbone.img_size, model.data_preprocessor.size and the sizes of '
            'its transforms'
        )
    old = _as_size(config['crop_size'])
    places = [*_model_sizes(config), *_transform_sizes(config, '')]
    for name, place, key in places:
        expected = old[0] if place.get('type') == _SIDE else old
        found = place[key] if place.get('type') == _SIDE else _as_size(place[key])
        if found != expected:
            raise UserError(
                f'{name} is {place[key]}, but crop_size is {old}: leave the explicit '
                'value out, so that it follows crop_size, or set it after crop_size'
            )
    for _, place, key in places:
        place[key] = new[0] if place.get('type') == _SIDE else new
    config['crop_size'] = new


def check_crop_size(config: dict) -> None:
    """Check that the network and its training crops have the config's `crop_size`.

    A config without `crop_size` passes. Test-time resizing is free.

    Args:
        config (dict): A whole config.

    Raises:
        UserError: If one of them has another size.
    """
    if config.get('crop_size') is None:
        return
    size = _as_size(config['crop_size'])
    crops = (
        found
        for found in _transform_sizes(config.get('train_dataloader'), 'train')
        if found[1]['type'] == 'eomt_mm.PadAndCrop'
    )
    for name, place, key in (*_model_sizes(config), *crops):
        if _as_size(place[key]) != size:
            raise UserError(
                f'crop_size is {size}, but {name} is {place[key]}: they must agree; '
                f'{_WAY_OUT}'
            )


def _model_sizes(config: dict) -> Iterator[tuple[str, dict, str]]:
    model = config.get('model') or {}
    model = model.get('module', model)  # test-time augmentation wraps it
    for part, key in (('data_preprocessor', 'size'), ('backbone', 'img_size')):
        place = model.get(part) or {}
        if place.get(key) is not None:
            yield f'model.{part}.{key}', place, key


def _transform_sizes(node: object, name: str) -> Iterator[tuple[str, dict, str]]:
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from _transform_sizes(child, name)
    elif node is not None and hasattr(node, 'items'):
        if node.get('type') in (*_PAIRS, _SIDE) and 'size' in node:
            yield f'size of {node["type"]} in {name}', node, 'size'
        for key, child in node.items():
            yield from _transform_sizes(child, name or key)


def _as_size(size: object) -> tuple[int, int]:
    sides = [size, size] if isinstance(size, int) else size
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or not all(isinstance(side, int) and side > 0 for side in sides)
    ):
        raise UserError(
            f'crop_size is {size!r}; give one side or (height, width), in pixels'
        )
    return tuple(sides)
