"""A figure of a training: loss and score, learning rates, mask probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eomt_mm.files import atomic_path

# (iterations, values)
Curve = tuple[Sequence[float], Sequence[float]]

INK = '#33373d'
ACCENT = '#c8553d'
RATE_COLORS = ('#1f6f8b', '#e39e3b', '#7fb7be', '#8d6a9f')
# The warm-up gets a magnified inset when it is shorter than this part of the run.
SHORT_WARMUP = 0.15


def plot_training(
    path: str | Path,
    learning_rates: Mapping[str, Curve],
    mask_probabilities: Mapping[str, Curve],
    loss: Curve | None = None,
    score: tuple[str, Curve] | None = None,
    title: str = '',
) -> None:
    """Draw a training, planned or finished, as a PNG.

    Args:
        path: File to write, all or nothing.
        learning_rates: Label -> curve; first the backbone's, then the head's.
        mask_probabilities: Label -> curve of each masked block, first block first;
            the panel is left out when empty.
        loss: Training loss; the panel is left out when None.
        score: (name, curve) of the validation score in percent, drawn over the loss.
        title: Line above the figure.
    """
    heights = {'loss': 1.2, 'rate': 1.2, 'mask': 0.8}
    if loss is None:
        del heights['loss']
    if not mask_probabilities:
        del heights['mask']
    figure = Figure(
        figsize=(9, 1.0 + 2.3 * sum(heights.values())), dpi=150, layout='constrained'
    )
    axes = dict(
        zip(
            heights,
            figure.subplots(
                len(heights),
                sharex=True,
                squeeze=False,
                height_ratios=list(heights.values()),
            )[:, 0],
            strict=True,
        )
    )
    for ax in axes.values():
        ax.spines[['top', 'right']].set_visible(False)
        ax.grid(axis='y', color='#e4e4e0', linewidth=0.8)
        ax.set_axisbelow(True)
    if loss is not None:
        _draw_loss(axes['loss'], loss, score)
    _draw_rates(axes['rate'], learning_rates)
    if mask_probabilities:
        _draw_masks(axes['mask'], mask_probabilities)
    last = list(axes.values())[-1]
    last.set_xlabel('iteration')
    last.set_xlim(0, max(steps[-1] for steps, _ in learning_rates.values()))
    figure.suptitle(title, x=0.01, ha='left', fontsize=11, color=INK)
    with atomic_path(path) as partial:
        figure.savefig(partial, format='png')


def _draw_loss(ax: Axes, loss: Curve, score: tuple[str, Curve] | None) -> None:
    steps, values = np.asarray(loss[0]), np.asarray(loss[1], dtype=float)
    ax.plot(steps, values, color='#c9ccd1', linewidth=0.8)
    width = max(1, len(values) // 40)
    smooth = np.convolve(values, np.ones(width) / width, mode='valid')
    ax.plot(steps[width - 1 :], smooth, color=INK, linewidth=1.6)
    ax.set_ylabel('loss')
    # A spike of the first iterations must not flatten the rest.
    ax.set_ylim(0, 1.1 * np.nanquantile(values, 0.99))
    if score is not None:
        name, (steps, values) = score
        twin = ax.twinx()
        twin.spines[['top', 'left']].set_visible(False)
        twin.plot(
            steps,
            values,
            color=ACCENT,
            marker='o',
            markersize=4,
            linewidth=1.2,
            clip_on=False,
        )
        twin.annotate(
            f'{values[-1]:.1f}',
            (steps[-1], values[-1]),
            xytext=(-4, 7),
            textcoords='offset points',
            ha='right',
            color=ACCENT,
        )
        twin.set_ylim(0, 105)
        twin.set_ylabel(name, color=ACCENT)
        twin.tick_params(axis='y', colors=ACCENT)


def _draw_rates(ax: Axes, rates: Mapping[str, Curve]) -> None:
    def draw(target: Axes) -> None:
        for color, (label, (steps, values)) in zip(
            RATE_COLORS, rates.items(), strict=False
        ):
            target.plot(steps, values, color=color, label=label, linewidth=1.6)

    draw(ax)
    ax.set_ylabel('learning rate')
    ax.set_ylim(bottom=0)
    ax.ticklabel_format(axis='y', style='sci', scilimits=(0, 0))

    # The backbone's rate peaks where the second stage of the warm-up ends.
    steps, values = next(iter(rates.values()))
    peak = steps[int(np.argmax(values))]
    inset = 0 < peak < SHORT_WARMUP * steps[-1]
    ax.legend(
        loc='upper right',
        bbox_to_anchor=(0.58 if inset else 1.0, 1.0),
        frameon=False,
        fontsize=8.5,
    )
    if inset:
        zoom = ax.inset_axes([0.65, 0.54, 0.34, 0.42])
        draw(zoom)
        zoom.set_xlim(0, 1.4 * peak)
        zoom.set_ylim(bottom=0)
        zoom.set_yticks([])
        zoom.tick_params(axis='x', labelsize=7.5)
        zoom.set_facecolor('#faf9f6')
        zoom.set_title('warm-up', fontsize=8.5, color=INK, pad=3)
        for spine in zoom.spines.values():
            spine.set_color('#c9ccd1')


def _draw_masks(ax: Axes, probabilities: Mapping[str, Curve]) -> None:
    shades = colormaps['viridis'](np.linspace(0.1, 0.85, len(probabilities)))
    for shade, (label, (steps, values)) in zip(
        shades, probabilities.items(), strict=True
    ):
        ax.plot(steps, values, color=shade, linewidth=1.8, label=label)
        ax.fill_between(steps, values, color=shade, alpha=0.07, linewidth=0)
    ax.set_ylabel('mask probability')
    ax.set_ylim(0, 1.06)
    # The last part of a training is unmasked: its corner is free.
    ax.legend(loc='upper right', frameon=False, fontsize=8.5)
