"""The names of the classes in a `config.json`, and whether they are a config's.

The class head knows numbers alone: with the classes in another order every score of
the converted model would be wrong, and nothing else would tell.
"""

import re
from pathlib import Path

from eomt_mm.errors import UserError

_PLACEHOLDER = re.compile(r'label \d+')


def label_config(classes: list[str]) -> dict:
    """The names of the classes as `config.json` has them."""
    return dict(
        id2label={str(i): name for i, name in enumerate(classes)},
        label2id={name: i for i, name in enumerate(classes)},
    )


def refuse_other_classes(
    beside: dict, classes: list[str], path: Path, name: str
) -> str | None:
    """Compare the class names beside a file with those of a config, place by place.

    Args:
        beside (dict): The `config.json` beside the file.
        classes (list[str]): Of the config, in the order of the file.
        path (Path): The file, for errors.
        name (str): Name of the config, for errors.

    Returns:
        str | None: What to tell where some names differ and none is in another place:
        data sets are spelt in more than one way. None where there is nothing to tell.

    Raises:
        UserError: If classes changed places, or the two have not a name in common.
    """
    theirs = [_plain(label) for label in _labels(beside, len(classes))]
    ours = [_plain(label) for label in classes]
    if not theirs or all(map(_PLACEHOLDER.fullmatch, theirs)):
        return None
    differing = [i for i, label in enumerate(theirs) if label != ours[i]]
    if not differing:
        return None
    # A word that two spellings share is no evidence: both have to be elsewhere.
    moved = [i for i in differing if theirs[i] in ours and ours[i] in theirs]
    first = (moved or differing)[0]
    example = f'class {first} is {theirs[first]!r} there and {ours[first]!r} in {name}'
    if moved or len(differing) == len(theirs):
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
    """The names by number; none if they are not for so many classes."""
    table = beside.get('id2label')
    if not isinstance(table, dict) or table.keys() != {str(i) for i in range(count)}:
        return []
    return [str(table[str(i)]) for i in range(count)]


def _plain(label: str) -> str:
    """Without what spellings differ in: case, punctuation, and synonyms.

    ADE20K's "road, route" is "road" elsewhere, COCO's "tree-merged" "tree merged".
    """
    first = label.casefold().partition(',')[0]
    return ' '.join(re.findall(r'\w+', first.replace('_', ' ')))
