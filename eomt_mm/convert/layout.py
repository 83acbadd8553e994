"""Renaming tensors by a table of patterns that is read in both ways.

In a pattern `{i}` is a number, `{leaf}` is `weight` or `bias` and `{rest}` is anything.
Where theirs is a tuple, its tensors are the rows of ours, in that order.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eomt_mm.errors import UserError

from .reading import few

Pair = tuple[str, str | tuple[str, ...]]

FIELDS = {'i': r'\d+', 'leaf': 'weight|bias', 'rest': '.+'}


@dataclass(frozen=True)
class Layout:
    """Names of one kind of file.

    Attributes:
        name (str): For the user, and for a converted checkpoint to remember.
        marks (tuple[str, ...]): Patterns all of which occur in such a file only.
        pairs (tuple): Patterns of the network, ours and theirs; the first fits.
        unused (tuple): The same for what the network does not use.
        unbatched (tuple[str, ...]): Tensors of ours that lack the first axis, of
            length 1, in theirs.
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

    def to_ours(
        self, tensors: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rename, and join what is apart in theirs.

        Args:
            tensors (dict[str, Tensor]): Under their names.

        Returns:
            tuple[dict, dict]: The network and what it does not use, in our names.

        Raises:
            UserError: If a tensor is unknown, or only some rows of one are there.
        """
        network, unused, unknown, parts = {}, {}, [], {}
        for key, value in tensors.items():
            found = self._find_theirs(key)
            if found is None:
                unknown.append(key)
                continue
            ours, names, is_used = found
            if not is_used:
                unused[ours] = value
            elif len(names) == 1:
                network[ours] = value[None] if ours in self.unbatched else value
            else:
                parts.setdefault(ours, (names, {}))[1][key] = value
        if unknown:
            raise UserError(
                f'the layout is {self.name!r}, but EoMT has no tensors such as '
                f'{few(unknown)}'
            )
        for ours, (names, rows) in parts.items():
            missing = [name for name in names if name not in rows]
            if missing:
                raise UserError(f'the file lacks {few(missing)}: download it again')
            if len({value.shape for value in rows.values()}) > 1:
                raise UserError(f'the shapes of {few(list(rows))} differ')
            network[ours] = torch.cat([rows[name] for name in names])
        return network, unused

    def from_ours(
        self, network: dict[str, Tensor], unused: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The reverse of `to_ours`; what this layout does not keep is left out.

        Args:
            network (dict[str, Tensor]): In our names.
            unused (dict[str, Tensor]): The same.

        Returns:
            dict[str, Tensor]: Under their names.

        Raises:
            UserError: If a tensor of the network has no place in this layout.
        """
        kept = dict(self.unused)
        tensors = {kept[key]: value for key, value in unused.items() if key in kept}
        unknown = []
        for key, value in network.items():
            names = self._find_ours(key)
            if names is None:
                unknown.append(key)
            elif len(names) == 1:
                tensors[names[0]] = value[0] if key in self.unbatched else value
            else:
                rows = value.chunk(len(names))
                tensors |= dict(zip(names, rows, strict=True))
        if unknown:
            raise UserError(f'the layout {self.name!r} has no {few(unknown)}')
        return tensors

    @cached_property
    def _theirs(self) -> list[tuple[re.Pattern, Pair, bool]]:
        """Each of their patterns, its pair, and whether the network uses it."""
        table = [(pair, True) for pair in self.pairs]
        table += [(pair, False) for pair in self.unused]
        return [
            (_compile(name), pair, is_used)
            for pair, is_used in table
            for name in _as_tuple(pair[1])
        ]

    @cached_property
    def _ours(self) -> list[tuple[re.Pattern, tuple[str, ...]]]:
        return [(_compile(ours), _as_tuple(theirs)) for ours, theirs in self.pairs]

    def _find_theirs(self, key: str) -> tuple[str, tuple[str, ...], bool] | None:
        """Our name of a tensor of theirs, all names it is made of, and its use."""
        for pattern, (ours, theirs), is_used in self._theirs:
            match = pattern.fullmatch(key)
            if match:
                fields = match.groupdict()
                names = tuple(name.format(**fields) for name in _as_tuple(theirs))
                return ours.format(**fields), names, is_used
        return None

    def _find_ours(self, key: str) -> tuple[str, ...] | None:
        """Their names of a tensor of ours."""
        for pattern, theirs in self._ours:
            match = pattern.fullmatch(key)
            if match:
                return tuple(name.format(**match.groupdict()) for name in theirs)
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


def below(ours: str, theirs: str, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """The same pairs behind a prefix on either side."""
    return tuple(
        (
            ours + ours_name,
            theirs + names
            if isinstance(names, str)
            else tuple(theirs + name for name in names),
        )
        for ours_name, names in pairs
    )
