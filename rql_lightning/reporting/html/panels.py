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


def trade_off_panel(points: Sequence[tuple[str, float, float]], labels: tuple[str, str]) -> Figure:
    """Draw one quantity over another for several weights of the prior, joined in the order of the weights.

    Args:
        points: Weight, horizontal and vertical value of each.
        labels: Names of the horizontal and the vertical quantity.
    """
    figure, axes = panel(5.4, 3.4)
    places = np.array([point[1:] for point in points])
    axes.plot(places[:, 0], places[:, 1], color=POLICY_COLOR, marker="o", markersize=4)
    for weight, x, y in points:
        axes.annotate(f"ω′ = {weight}", (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.margins(0.15)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.grid(color=PRIOR_COLOR, alpha=0.25, linewidth=0.5)
    return figure
