"""One picture of all scores: every seed a point, their mean and spread beside them."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eomt_mm.files import atomic_path
from eomt_mm.visualization import ACCENT, INK

COLORS = {'PQ': ACCENT, 'mIoU': '#1f6f8b'}
# Heights within a row, which is 1 high.
OFFSETS = {'PQ': 0.17, 'mIoU': -0.17}

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
    axes[0].legend(
        *_legend(axes[0]),
        loc='lower right',
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=9,
    )
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
        for name, by_seed in scores.items():
            if not by_seed:
                continue
            values, color = list(by_seed.values()), COLORS[name]
            height = at - OFFSETS[name]
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


def _legend(ax: Axes) -> tuple[list, list]:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    return list(handles.values()), list(handles)
