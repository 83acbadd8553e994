"""One picture of all scores: every seed a point, their mean and spread beside them."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eomt_mm.files import atomic_path
from eomt_mm.visualization import ACCENT, INK

# One for each score of a table.
COLORS = (ACCENT, '#1f6f8b', '#6b8e23')
SPREAD = 0.34  # of the scores within a row, which is 1 high

# Score -> seed -> percent
Scores = Mapping[str, Mapping[int, float]]


def draw_scores(path: Path, panels: Mapping[str, Mapping[str, Scores]]) -> None:
    """Draw the scores of all tables.

    Args:
        path (Path): PNG to write, all or nothing.
        panels (Mapping): Title of a table -> name of a row -> its scores.
    """
    heights = [1.6 + len(rows) for rows in panels.values()]
    figure = Figure(
        figsize=(9, 0.5 + 0.55 * sum(heights)), dpi=150, layout='constrained'
    )
    axes = figure.subplots(
        len(panels), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
    for ax, (title, rows) in zip(axes, panels.items(), strict=True):
        _draw(ax, title, rows)
    axes[-1].set_xlabel('percent; a point is a seed, a bar mean ± standard deviation')
    with atomic_path(path) as partial:
        figure.savefig(partial, format='png')


def _draw(ax: Axes, title: str, rows: Mapping[str, Scores]) -> None:
    ax.spines[['top', 'right', 'left']].set_visible(False)
    ax.grid(axis='x', color='#e4e4e0', linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis='y', length=0)
    ax.set_title(title, loc='left', fontsize=11, color=INK)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
    for at, scores in enumerate(rows.values()):
        offsets = np.linspace(-SPREAD / 2, SPREAD / 2, len(scores))
        for (name, by_seed), color, offset in zip(
            scores.items(), COLORS, offsets, strict=False
        ):
            if not by_seed:
                continue
            values, height = list(by_seed.values()), at + offset
            ax.plot(
                values,
                [height] * len(values),
                'o',
                color=color,
                markersize=4,
                alpha=0.55,
                markeredgewidth=0,
            )
            mean = statistics.fmean(values)
            spread = statistics.stdev(values) if len(values) > 1 else 0
            ax.errorbar(
                mean,
                height,
                xerr=spread,
                fmt='|',
                color=color,
                markersize=11,
                capsize=3,
                linewidth=1.4,
                label=name,
            )
    ax.legend(
        *_legend(ax),
        loc='lower right',
        bbox_to_anchor=(1, 1),
        ncols=len(COLORS),
        frameon=False,
        fontsize=9,
    )


def _legend(ax: Axes) -> tuple[list, list]:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    return list(handles.values()), list(handles)
