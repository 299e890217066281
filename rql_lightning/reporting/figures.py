"""Figures of distributions and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rql_lightning.reporting.histograms import Histograms

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRIOR_COLOR, POLICY_COLOR = "#8a8a8a", "#c0392b"
RETURNS = ("basic", "add_on", "total")


def distribution_figure(content: Histograms) -> Figure:
    """Draw histograms of a quantity over all steps of the evaluation episodes, one per policy.

    Args:
        content: Densities by name of the policy; the prior comes first.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    draw_distribution(axes, content)
    axes.legend(frameon=False)
    return figure


def draw_distribution(axes: Axes, content: Histograms) -> None:
    """Draw histograms, the prior's in grey.

    Args:
        axes: Where to draw.
        content: Densities by name of the policy; the prior comes first.
    """
    colors = [PRIOR_COLOR, POLICY_COLOR] if len(content.densities) > 1 else [POLICY_COLOR]
    for (name, density), color in zip(content.densities.items(), colors, strict=True):
        axes.stairs(density, content.edges, fill=True, alpha=0.6, color=color, label=name)
    axes.set_xlabel(content.label)
    axes.set_ylabel("density over visited states")


def curves_figure(history: Sequence[Mapping[str, Any]], prior: Mapping[str, Any] | None) -> Figure:
    """Draw learning curves of basic, add-on and total return, with the prior's returns as dashed lines.

    Args:
        history: Summaries of evaluations in the order of their ``frames``.
        prior: The prior's summary, or ``None``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), RETURNS, strict=True):
        draw_curve(axes, history, name, POLICY_COLOR, "policy")
        draw_level(axes, prior, name)
        finish_curves(axes, f"{name.replace('_', '-')} return")
    axes.legend(frameon=False)
    return figure


def draw_curve(
    axes: Axes, history: Sequence[Mapping[str, Any]], name: str, color: str, label: str | None, band: bool = True
) -> None:
    """Draw a mean return over frames.

    Args:
        axes: Where to draw.
        history: Summaries of evaluations in the order of their ``frames``.
        name: ``basic``, ``add_on`` or ``total``.
        color: Colour of the line.
        label: Name in the legend, or ``None``.
        band: Whether to shade one standard deviation over episodes on both sides.
    """
    frames = np.array([entry["frames"] for entry in history])
    mean = np.array([entry[f"{name}_return_mean"] for entry in history])
    axes.plot(frames, mean, color=color, marker="o", markersize=3, label=label)
    if band:
        deviation = np.array([entry[f"{name}_return_std"] for entry in history])
        axes.fill_between(frames, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)


def draw_level(axes: Axes, prior: Mapping[str, Any] | None, name: str) -> None:
    """Draw the prior's mean return as a dashed line.

    Args:
        axes: Where to draw.
        prior: The prior's summary; without one, nothing is drawn.
        name: ``basic``, ``add_on`` or ``total``.
    """
    if prior is not None:
        axes.axhline(prior[f"{name}_return_mean"], color=PRIOR_COLOR, linestyle="--", label="prior")


def finish_curves(axes: Axes, title: str) -> None:
    """Title a panel of learning curves and label its horizontal axis.

    Args:
        axes: The panel.
        title: Its title.
    """
    from matplotlib.ticker import EngFormatter

    axes.set_title(title, fontsize=10)
    axes.set_xlabel("frames")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=5)


def coverage_figure(results: Mapping[int, Mapping[str, Any]], expert_return: float, title: str) -> Figure:
    """Draw KL(expert ‖ prior) and the basic return of priors over their numbers of demonstrated episodes.

    Args:
        results: Results by number of episodes, with ``kl_demonstrated``, ``kl_customised`` and ``basic_return_mean``.
        expert_return: Basic return of the expert, a dashed line.
        title: Title of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    divergences, returns = figure.subplots(1, 2)
    counts = sorted(results)
    for key, label, color in (
        ("kl_demonstrated", "expert's states", PRIOR_COLOR),
        ("kl_customised", "customised policy's states", POLICY_COLOR),
    ):
        divergences.plot(counts, [results[n][key] for n in counts], marker="o", markersize=4, color=color, label=label)
    divergences.set_yscale("log")
    divergences.set_title("KL(expert ‖ prior), nats", fontsize=10)
    divergences.legend(frameon=False)
    returns.plot(
        counts, [results[n]["basic_return_mean"] for n in counts], marker="o", markersize=4, color=POLICY_COLOR
    )
    returns.axhline(expert_return, color=PRIOR_COLOR, linestyle="--", label="expert")
    returns.set_title("basic return", fontsize=10)
    returns.legend(frameon=False)
    for axes in (divergences, returns):
        axes.set_xscale("log")
        axes.set_xlabel("demonstrated episodes")
    figure.suptitle(title, fontsize=10)
    return figure
