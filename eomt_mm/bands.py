"""Images of any number of bands, in one line of a config.

Loader, augmentation, normalisation and patch embedding depend on the number of bands,
in several places of a text config. `set_bands` changes all of them.
"""

from collections.abc import Iterator, Sequence

from mmengine.utils import is_seq_of

from eomt_mm.errors import UserError

# With or without the prefix of a framework.
_LOADERS = ('LoadImageFromFile', 'LoadMultiBandImage')
_OF_COLOURS = 'eomt_mm.ColorJitter'


def set_bands(
    config: dict,
    mean: Sequence[float],
    std: Sequence[float],
    bands: Sequence[int] | None = None,
    picture: Sequence[int] | None = None,
) -> None:
    """Make a config take images of other bands than red, green and blue.

    A text config calls it after `_base_`:

        from eomt_mm.bands import set_bands

        set_bands(_base_, mean=[420, 400, 310, 2100], std=[230, 180, 160, 900])

    Images are loaded by `LoadMultiBandImage`, colours are not jittered, and
    `in_channels` of the backbone, `mean` and `std` follow.

    Args:
        config (dict): `_base_`, or a whole config; changed in place.
        mean (Sequence[float]): Mean of each band, in the units of the files.
        std (Sequence[float]): Standard deviation of each band.
        bands (Sequence[int], optional): Bands of the file to take, from 0, in this
            order. Defaults to all.
        picture (Sequence[int], optional): Bands of the file that are red, green and
            blue in pictures. Defaults to the first three that are taken.

    Raises:
        UserError: If means or deviations are not numbers, if their number and that of
            bands differ, if the backbone takes RGB alone, or if nothing in the config
            loads images from files.
    """
    for name, values in (('mean', mean), ('std', std)):
        if not is_seq_of(values, (int, float)):
            raise UserError(
                f'set_bands: {name} is {values!r}, expected one number for each band, '
                f'such as {name}=[420, 400]'
            )
    check_numbers('set_bands', bands=bands, picture=picture)
    counts = dict(mean=len(mean), std=len(std))
    if bands is not None:
        counts['bands'] = len(bands)
    if len(set(counts.values())) > 1 or not len(mean):
        found = ', '.join(f'{name} has {count}' for name, count in counts.items())
        raise UserError(
            f'set_bands: {found} values; give a mean and a deviation for each band'
        )
    model = config.get('model')
    if model and str(model['backbone'].get('type')).endswith('ViTAdapter'):
        raise UserError(
            'set_bands: the ViT-Adapter of configs/ladder takes red, green and blue '
            'alone: take a config with a plain ViT, such as those of configs/eomt'
        )
    loaders = list(_loaders(config))
    if not loaders:
        raise UserError(
            'set_bands: no pipeline of the config has a LoadImageFromFile to replace; '
            'put eomt_mm.LoadMultiBandImage in its place, and set '
            'model.backbone.in_channels, mean and std'
        )
    for steps in _pipelines(config):
        steps[:] = [step for step in steps if step.get('type') != _OF_COLOURS]
    for loader in loaders:
        kept = {k: loader[k] for k in ('backend_args',) if k in loader}
        loader.clear()
        loader.update(kept, type='eomt_mm.LoadMultiBandImage')
        if bands is not None:
            loader['bands'] = list(bands)
        if picture is not None:
            loader['picture'] = list(picture)
    if model:
        model['backbone']['in_channels'] = len(mean)
        model['data_preprocessor'].update(
            mean=list(mean), std=list(std), bgr_to_rgb=False
        )


def check_numbers(where: str, **options: Sequence[int] | None) -> None:
    """Check lists of numbers of bands.

    Args:
        where (str): What has the options, for the message.
        **options (Sequence[int], optional): The lists by name; None is allowed.

    Raises:
        UserError: If one is not a list, is empty, or holds other than whole numbers
            from 0.
    """
    for name, numbers in options.items():
        if numbers is None:
            continue
        if not (is_seq_of(numbers, int) and numbers and min(numbers) >= 0):
            raise UserError(
                f'{where}: {name}={numbers!r}; give the numbers of bands, from 0, '
                f'such as {name}=[0, 1, 2]'
            )


def _nodes(node: object) -> Iterator[dict | list]:
    """Return all dicts and lists of a config."""
    if isinstance(node, (list, tuple)):
        children = node
    elif isinstance(node, dict):
        children = node.values()
    else:
        return
    yield node
    for child in list(children):
        yield from _nodes(child)


def _pipelines(config: dict) -> Iterator[list[dict]]:
    for node in _nodes(config):
        if isinstance(node, list) and node and all(isinstance(n, dict) for n in node):
            yield node


def _loaders(config: dict) -> Iterator[dict]:
    for node in _nodes(config):
        if isinstance(node, dict) and isinstance(node.get('type'), str):
            if node['type'].rpartition('.')[2] in _LOADERS:
                yield node
