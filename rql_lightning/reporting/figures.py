"""Figures of distributions and learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRIOR_COLOR, POLICY_COLOR = "#8a8a8a", "#c0392b"


def distribution_figure(samples: Mapping[str, np.ndarray], label: str) -> Figure:
    """Histograms of a quantity over all steps of the evaluation episodes, one per policy.

    Args:
        samples: Name of each policy and its samples ``[steps]``; the prior comes first.
        label: Name of the quantity, for the horizontal axis.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    span = np.concatenate(list(samples.values()))
    bins = np.histogram_bin_edges(span, bins=80).tolist()
    colors = [PRIOR_COLOR, POLICY_COLOR] if len(samples) > 1 else [POLICY_COLOR]
    for (name, values), color in zip(samples.items(), colors, strict=True):
        axes.hist(values, bins=bins, density=True, alpha=0.6, color=color, label=name)
    axes.set_xlabel(label)
    axes.set_ylabel("density over visited states")
    axes.legend(frameon=False)
    return figure


def curves_figure(history: Sequence[Mapping[str, Any]], prior: Mapping[str, Any] | None) -> Figure:
    """Draw learning curves of basic, add-on and total return, with the prior's returns as dashed lines.

    Args:
        history: Summaries of evaluations in the order of their ``frames``.
        prior: The prior's summary, or ``None``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    frames = np.array([entry["frames"] for entry in history])
    for axes, name in zip(figure.subplots(1, 3), ("basic", "add_on", "total"), strict=True):
        mean = np.array([entry[f"{name}_return_mean"] for entry in history])
        deviation = np.array([entry[f"{name}_return_std"] for entry in history])
        axes.plot(frames, mean, color=POLICY_COLOR, marker="o", markersize=3, label="policy")
        axes.fill_between(frames, mean - deviation, mean + deviation, color=POLICY_COLOR, alpha=0.15, linewidth=0)
        if prior is not None:
            axes.axhline(prior[f"{name}_return_mean"], color=PRIOR_COLOR, linestyle="--", label="prior")
        axes.set_title(f"{name.replace('_', '-')} return", fontsize=10)
        axes.set_xlabel("environment frames")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=5)
    axes.legend(frameon=False)
    return figure


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
