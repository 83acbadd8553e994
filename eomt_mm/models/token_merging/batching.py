"""Policies by which the images of a batch agree on a number of tokens.

Each image of a batch could be merged to a length of its own, but the images of one
tensor have one length. A policy divides the batch into groups; within a group every
image keeps as many tokens as the one that needs most.

`min`    one group. The rule of the paper (arXiv 2503.19108, Sec. A.3): one busy image
         holds all others back.
`group`  a few groups of images that need about as many tokens, chosen such that the
         fewest tokens are processed in all.
`image`  every image alone: the fewest tokens, and no batching after the first merge.
"""

import itertools
from collections.abc import Sequence

POLICIES = ('min', 'group', 'image')

# Least share of the tokens that one more group has to save: each group runs the rest
# of the network by itself, and small batches use a device less well.
MIN_GAIN = 0.02


def partition(lengths: Sequence[int], policy: str, max_groups: int) -> list[list[int]]:
    """Divide a batch into groups.

    Args:
        lengths (Sequence[int]): Tokens that each image needs.
        policy (str): 'min', 'group' or 'image'.
        max_groups (int): Most groups of the policy 'group'.

    Returns:
        list[list[int]]: Indices of the images of each group, ascending.
    """
    if policy == 'image':
        return [[i] for i in range(len(lengths))]
    if policy == 'min':
        return [list(range(len(lengths)))]
    return group_by_length(lengths, max_groups)


def group_by_length(lengths: Sequence[int], max_groups: int) -> list[list[int]]:
    """Divide a batch so that groups padded to their longest image are smallest.

    Exact, by dynamic programming: sorted by length, the groups of a best division are
    runs of neighbours. A division into more groups is taken only if each of them saves
    `MIN_GAIN` of the tokens.

    Args:
        lengths (Sequence[int]): Tokens that each image needs.
        max_groups (int): Most groups.

    Returns:
        list[list[int]]: Indices of the images of each group, ascending.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    ranked = [lengths[i] for i in order]
    ends = range(1, len(order) + 1)

    # best[end]: tokens of the `end` longest images, and where their groups start.
    best = [(0, []), *((end * ranked[0], [0]) for end in ends)]
    chosen = best[-1]
    for _ in range(1, max_groups):
        best = [
            (0, []),
            *(
                min(
                    (
                        best[start][0] + (end - start) * ranked[start],
                        [*best[start][1], start],
                    )
                    for start in range(end)
                )
                for end in ends
            ),
        ]
        more_groups = len(best[-1][1]) - len(chosen[1])
        saved = chosen[0] - best[-1][0]
        if more_groups and saved >= MIN_GAIN * more_groups * chosen[0]:
            chosen = best[-1]
    bounds = [*chosen[1], len(order)]
    return [sorted(order[a:b]) for a, b in itertools.pairwise(bounds)]
