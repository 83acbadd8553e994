"""Accuracy against speed, in the manner of the paper's Fig. 1.

Lines join the models of one family, whose labels differ only after the last hyphen,
such as EoMT-S, EoMT-B and EoMT-L.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from eomt_mm.visualization import ACCENT, INK, RATE_COLORS

from .model import Model, Score

COLORS = (ACCENT, *RATE_COLORS, '#5b8c5a', '#6c757d')
# Speeds that differ by more are drawn on a logarithmic axis.
WIDE = 12


class Panel(NamedTuple):
    """Models with scores of one kind."""

    title: str
    points: list[tuple[Model, Score]]


def panels_of(models: Sequence[Model]) -> list[Panel]:
    """Group comparable scores; measured and quoted ones are never together."""
    groups: dict[str, Panel] = {}
    for kind in ('measured', 'quoted'):
        for model in models:
            score = getattr(model, kind)
            if score is None or not model.images_per_second:
                continue
            title = f'{score.metric} on {score.dataset}, {kind}'
            groups.setdefault(title, Panel(title, [])).points.append((model, score))
    return list(groups.values())


def draw(models: Sequence[Model]) -> Figure | None:
    """Draw all panels; None if no model has a score and a speed."""
    panels = panels_of(models)
    if not panels:
        return None
    figure = Figure(figsize=(8.5, 4.6 * len(panels)), dpi=150, layout='constrained')
    labels = [model.label for model in models]
    for ax, panel in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        _draw(ax, panel, families(labels))
    return figure


def as_svg(figure: Figure) -> str:
    """Return the figure as an element of an HTML page."""
    buffer = io.StringIO()
    with rc_context({'svg.fonttype': 'none'}):
        figure.savefig(buffer, format='svg')
    text = buffer.getvalue()
    return text[text.index('<svg') :]


def families(labels: Sequence[str]) -> dict[str, list[str]]:
    """Group labels by family; a single model is a family of its own."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(label.rpartition('-')[0] or label, []).append(label)
    return {
        name if len(group) > 1 else group[0]: group for name, group in groups.items()
    }


def _draw(ax: Axes, panel: Panel, groups: dict[str, list[str]]) -> None:
    ax.spines[['top', 'right']].set_visible(False)
    ax.grid(color='#e4e4e0', linewidth=0.8)
    ax.set_axisbelow(True)
    points = {
        model.label: (model.images_per_second, score.value)
        for model, score in panel.points
    }
    speeds = [speed for speed, _ in points.values()]
    is_wide = max(speeds) > WIDE * min(speeds)
    middle = (
        (max(speeds) * min(speeds)) ** 0.5 if is_wide else sum(speeds) / len(speeds)
    )
    for i, (family, labels) in enumerate(groups.items()):
        color = COLORS[i % len(COLORS)]
        mine = sorted((points[label], label) for label in labels if label in points)
        if not mine:
            continue
        ax.plot(
            *zip(*(point for point, _ in mine), strict=True),
            'o-',
            color=color,
            markersize=7,
            linewidth=1.6,
            label=family if len(mine) > 1 else None,
        )
        for point, label in mine:
            # Names stay inside: they point to the middle.
            on_the_right = point[0] > middle
            ax.annotate(
                label.removeprefix(f'{family}-') if len(mine) > 1 else label,
                point,
                xytext=(-7 if on_the_right else 7, 5),
                textcoords='offset points',
                ha='right' if on_the_right else 'left',
                color=color,
                fontsize=9,
            )
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=9)
    if is_wide:
        ax.set_xscale('log')
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter('{x:g}')
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.12, y=0.12)
    ax.set_title(panel.title, loc='left', fontsize=11, color=INK)
    ax.set_xlabel('images/s, measured')
    ax.set_ylabel(panel.title.partition(' on ')[0])
