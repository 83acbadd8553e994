"""Names of results of which each photo has one."""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import PurePath


def result_names(
    photos: Iterable[str], reserved: Collection[str] = ()
) -> dict[str, str]:
    """Name the result of each photo, with the folders that tell photos apart.

    The folders below the one that all photos share are kept, so that photos of one
    name in two folders have two results.

    Args:
        photos (Iterable[str]): Paths.
        reserved (Collection[str]): Names that are taken.

    Returns:
        dict[str, str]: By photo a relative path with `/`. It has the photo's suffix
        only where a name would occur twice without, in one folder or with `reserved`.
    """
    paths = {photo: PurePath(os.path.abspath(photo)) for photo in photos}
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths.values()])
    places = {photo: path.relative_to(root) for photo, path in paths.items()}
    names = {photo: place.with_suffix('').as_posix() for photo, place in places.items()}
    taken = set(names.values())
    if len(taken) == len(set(places.values())) and taken.isdisjoint(reserved):
        return names
    return {photo: place.as_posix() for photo, place in places.items()}


def flat_names(names: Collection[str]) -> dict[str, str]:
    """Write names with folders without them, each still its own.

    Args:
        names (Collection[str]): Of :func:`result_names`.

    Returns:
        dict[str, str]: Flat by given name: `/` is `__`, or longer where that would
        make two names one.
    """
    joint, number = '__', 1
    while len({name.replace('/', joint) for name in names}) < len({*names}):
        number += 1
        joint = f'__{number}__'
    return {name: name.replace('/', joint) for name in names}


def part_joint(names: Collection[str]) -> str:
    """Choose what stands between a name and the number of a part of its photo.

    Args:
        names (Collection[str]): Of :func:`result_names`.

    Returns:
        str: One `_`, or more where a photo has the name of a part of another one.
    """
    known, joint = {*names}, '_'
    while any(
        found and found[1] in known
        for found in (re.fullmatch(rf'(.+?){joint}\d+', name) for name in known)
    ):
        joint += '_'
    return joint
