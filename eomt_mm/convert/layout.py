"""Renaming of tensors by a table of patterns that is read in both directions.

In a pattern `{i}` is a number, `{leaf}` is `weight` or `bias` and `{rest}` is anything.
Each pair holds a pattern of this package and one of the file. If the file's is a tuple,
its tensors are the rows of this package's tensor, in that order.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eomt_mm.errors import UserError, shorten

Pair = tuple[str, str | tuple[str, ...]]

FIELDS = {'i': r'\d+', 'leaf': 'weight|bias', 'rest': '.+'}


@dataclass(frozen=True)
class Layout:
    """Names of one kind of file.

    Attributes:
        name (str): Name for the user and for the metadata of converted checkpoints.
        marks (tuple[str, ...]): Patterns all of which occur in such a file only.
        pairs (tuple): Patterns of the network; the first match counts.
        unused (tuple): Patterns of tensors outside the network.
        unbatched (tuple[str, ...]): Tensors of this package that lack their first axis,
            of length 1, in the file.
    """

    name: str
    marks: tuple[str, ...]
    pairs: tuple[Pair, ...]
    unused: tuple[Pair, ...] = ()
    unbatched: tuple[str, ...] = ()

    def marks_are_in(self, keys: list[str]) -> bool:
        """Whether every mark is among the names of some tensors."""
        patterns = map(_compile, self.marks)
        return all(any(p.fullmatch(key) for key in keys) for p in patterns)

    def to_package_names(
        self, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rename the tensors of a file, and join those that it splits.

        Args:
            tensors (dict[str, Tensor]): Tensors under the names of the file.

        Returns:
            tuple[dict, dict]: The network and the tensors outside it, under this
            package's names.

        Raises:
            UserError: If a tensor is unknown, or some rows of one are missing.
        """
        network, unused, unknown, parts = {}, {}, [], {}
        for key, value in tensors.items():
            found = self._find_in_file(key)
            if found is None:
                unknown.append(key)
                continue
            package, names, is_used = found
            if not is_used:
                unused[package] = value
            elif len(names) == 1:
                network[package] = value[None] if package in self.unbatched else value
            else:
                parts.setdefault(package, (names, {}))[1][key] = value
        if unknown:
            raise UserError(
                f'the layout is {self.name!r}, but EoMT has no tensors such as '
                f'{shorten(unknown)}'
            )
        for package, (names, rows) in parts.items():
            missing = [name for name in names if name not in rows]
            if missing:
                raise UserError(f'the file lacks {shorten(missing)}: download it again')
            if len({value.shape for value in rows.values()}) > 1:
                raise UserError(f'the shapes of {shorten(list(rows))} differ')
            network[package] = torch.cat([rows[name] for name in names])
        return network, unused

    def to_file_names(
        self, network: dict[str, Tensor], unused: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Reverse `to_package_names`, without tensors that this layout does not keep.

        Args:
            network (dict[str, Tensor]): Tensors under this package's names.
            unused (dict[str, Tensor]): Tensors outside the network.

        Returns:
            dict[str, Tensor]: Tensors under the names of the file.

        Raises:
            UserError: If a tensor of the network has no place in this layout.
        """
        kept = dict(self.unused)
        tensors = {kept[key]: value for key, value in unused.items() if key in kept}
        unknown = []
        for key, value in network.items():
            names = self._find_in_package(key)
            if names is None:
                unknown.append(key)
            elif len(names) == 1:
                tensors[names[0]] = value[0] if key in self.unbatched else value
            else:
                rows = value.chunk(len(names))
                tensors |= dict(zip(names, rows, strict=True))
        if unknown:
            raise UserError(f'the layout {self.name!r} has no {shorten(unknown)}')
        return tensors

    @cached_property
    def _file_patterns(self) -> list[tuple[re.Pattern, Pair, bool]]:
        """List each pattern of the file, its pair, and whether the network uses it."""
        table = [(pair, True) for pair in self.pairs]
        table += [(pair, False) for pair in self.unused]
        return [
            (_compile(name), pair, is_used)
            for pair, is_used in table
            for name in _as_tuple(pair[1])
        ]

    @cached_property
    def _package_patterns(self) -> list[tuple[re.Pattern, tuple[str, ...]]]:
        return [(_compile(package), _as_tuple(file)) for package, file in self.pairs]

    def _find_in_file(self, key: str) -> tuple[str, tuple[str, ...], bool] | None:
        """Find a tensor's name in this package, its parts in the file, and its use."""
        for pattern, (package, file), is_used in self._file_patterns:
            match = pattern.fullmatch(key)
            if match:
                fields = match.groupdict()
                names = tuple(name.format(**fields) for name in _as_tuple(file))
                return package.format(**fields), names, is_used
        return None

    def _find_in_package(self, key: str) -> tuple[str, ...] | None:
        """Find the names in the file of a tensor of this package."""
        for pattern, file in self._package_patterns:
            match = pattern.fullmatch(key)
            if match:
                return tuple(name.format(**match.groupdict()) for name in file)
        return None


def _compile(pattern: str) -> re.Pattern:
    """Turn `blocks.{i}.x` into a regular expression with a group `i`."""
    parts = re.split(r'{(\w+)}', pattern)
    return re.compile(
        ''.join(
            f'(?P<{part}>{FIELDS[part]})' if i % 2 else re.escape(part)
            for i, part in enumerate(parts)
        )
    )


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def below(package: str, file: str, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Put a prefix before both sides of each pair."""
    return tuple(
        (
            package + package_name,
            file + names
            if isinstance(names, str)
            else tuple(file + name for name in names),
        )
        for package_name, names in pairs
    )
