"""Small figures, one quantity each, that a narrow page shows below and a wide one beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rql_lightning.reporting.figures import (
    POLICY_COLOR,
    PRIOR_COLOR,
    draw_curve,
    draw_distribution,
    draw_level,
    finish_curves,
)
from rql_lightning.reporting.histograms import Histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]


def panel(width: float = 3.6, height: float = 2.7) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes at a fixed place, as a computed layout takes three times as long.

    Args:
        width: Width in inches.
        height: Height in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    left, right, bottom, top = 0.62, 0.1, 0.5, 0.3  # inches
    place = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    axes = figure.add_axes(place)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def curve_panel(history: History, prior: Mapping[str, Any] | None, name: str) -> Figure:
    """Draw the learning curve of one return.

    Args:
        history: Summaries of evaluations in the order of their ``frames``.
        prior: The prior's summary, or ``None``.
        name: ``basic``, ``add_on`` or ``total``.
    """
    figure, axes = panel()
    draw_curve(axes, history, name, POLICY_COLOR, "policy")
    draw_level(axes, prior, name)
    finish_curves(axes, f"{name.replace('_', '-')} return")
    axes.legend(frameon=False, fontsize=9)
    return figure


def curves_panel(histories: Sequence[History], prior: Mapping[str, Any] | None, name: str, title: str) -> Figure:
    """Draw the learning curves of one return over training seeds, one line each.

    Args:
        histories: Summaries of each seed's evaluations in the order of their ``frames``.
        prior: The prior's summary, or ``None``.
        name: ``basic``, ``add_on`` or ``total``.
        title: Title of the panel.
    """
    figure, axes = panel()
    for index, history in enumerate(histories):
        label = f"policy, {len(histories)} seeds" if index == 0 and len(histories) > 1 else "policy"
        draw_curve(axes, history, name, POLICY_COLOR, label if index == 0 else None, band=len(histories) == 1)
    draw_level(axes, prior, name)
    finish_curves(axes, title)
    axes.legend(frameon=False, fontsize=9)
    return figure


def distribution_panel(content: Histograms, width: float = 5.4, title: str = "") -> Figure:
    """Draw the distributions of one run.

    Args:
        content: Densities by name of the policy; the prior comes first.
        width: Width in inches.
        title: Title of the panel.
    """
    figure, axes = panel(width, 3.0)
    draw_distribution(axes, content)
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    return figure


def trade_off_panel(points: Sequence[tuple[str, Sequence[float], Sequence[float]]], labels: tuple[str, str]) -> Figure:
    """Draw one quantity over another for several weights of the prior, joined in the order of the weights.

    Args:
        points: Weight, and horizontal and vertical values of each, one per seed. Means are large, single seeds small.
        labels: Names of the horizontal and the vertical quantity.
    """
    from matplotlib import colormaps

    figure, axes = panel(6.4, 3.4)
    bottom, height = axes.get_position().y0, axes.get_position().height
    axes.set_position((0.12, bottom, 0.66, height))  # the legend stands beside it
    means = np.array([(np.mean(x), np.mean(y)) for _, x, y in points])
    axes.plot(means[:, 0], means[:, 1], color=PRIOR_COLOR, linewidth=1, zorder=1)
    shades = colormaps["viridis"](np.linspace(0.2, 0.9, len(points)))
    for (weight, x, y), mean, shade in zip(points, means, shades, strict=True):
        axes.scatter(mean[0], mean[1], color=shade, s=36, zorder=3, label=f"ω′ = {weight}")
        if len(x) > 1:
            axes.scatter(x, y, color=shade, s=8, alpha=0.6, zorder=2)
    axes.margins(0.1)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(color=PRIOR_COLOR, alpha=0.25, linewidth=0.5)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
