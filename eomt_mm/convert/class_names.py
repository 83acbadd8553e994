"""The class names in a `config.json`, compared with those of a config.

The class head knows numbers alone: with the classes in another order every score of the
converted model would be wrong, without any other symptom.
"""

import re
from pathlib import Path

from eomt_mm.errors import UserError

_PLACEHOLDER = re.compile(r'label \d+')


def label_config(classes: list[str]) -> dict:
    """Return the class names in the format of `config.json`."""
    return dict(
        id2label={str(i): name for i, name in enumerate(classes)},
        label2id={name: i for i, name in enumerate(classes)},
    )


def refuse_other_classes(
    beside: dict, classes: list[str], path: Path, name: str
) -> str | None:
    """Compare the class names beside a file with those of a config, one by one.

    Args:
        beside (dict): The `config.json` beside the file.
        classes (list[str]): Classes of the config, in the order of the file.
        path (Path): The file, for errors.
        name (str): Name of the config, for errors.

    Returns:
        str | None: A note on names that differ in spelling alone, as data sets are
        spelt in several ways; None if there are none.

    Raises:
        UserError: If classes changed places, or the two have no name in common.
    """
    stored = [_plain(label) for label in _labels(beside, len(classes))]
    wanted = [_plain(label) for label in classes]
    if not stored or all(map(_PLACEHOLDER.fullmatch, stored)):
        return None
    differing = [i for i, label in enumerate(stored) if label != wanted[i]]
    if not differing:
        return None
    # A word that two spellings share is not evidence: both have to be elsewhere.
    moved = [i for i in differing if stored[i] in wanted and wanted[i] in stored]
    first = (moved or differing)[0]
    example = (
        f'class {first} is {stored[first]!r} there and {wanted[first]!r} in {name}'
    )
    if moved or len(differing) == len(stored):
        what = 'the classes in another order' if moved else 'other classes'
        raise UserError(
            f'{path.parent / "config.json"} has {what}: {example}. Give a config whose '
            'data set has the classes of the file with --config, or remove id2label '
            'if it is wrong'
        )
    return (
        f'{len(differing)} names differ from those in config.json, taken as another '
        f'spelling: {example}'
    )


def _labels(beside: dict, count: int) -> list[str]:
    """List the names by number; empty if the number of classes differs."""
    table = beside.get('id2label')
    if not isinstance(table, dict) or table.keys() != {str(i) for i in range(count)}:
        return []
    return [str(table[str(i)]) for i in range(count)]


def _plain(label: str) -> str:
    """Remove differences in spelling: case, punctuation and synonyms.

    ADE20K's "road, route" is "road" elsewhere, COCO's "tree-merged" "tree merged".
    """
    first = label.casefold().partition(',')[0]
    return ' '.join(re.findall(r'\w+', first.replace('_', ' ')))
