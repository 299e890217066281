"""Tables of results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

_LABELS = {
    "success_rate": "success rate",
    "basic_return": "basic return",
    "add_on_return": "add-on return",
    "total_return": "total return",
    "episode_length_mean": "episode length",
    "kl_to_prior": "KL to prior (nats)",
}


def results_table(title: str, columns: Mapping[str, Mapping[str, Any]], metric: str | None) -> Table:
    """One column per policy, one row per statistic.

    Args:
        title: Title of the table.
        columns: Summaries by name of the policy, with the keys of ``metrics.json``; missing values are shown as "–".
        metric: Name of the task's metric, or ``None``.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for label, cells in results_rows(list(columns.values()), metric):
        table.add_row(label, *cells)
    return table


def results_rows(summaries: Sequence[Mapping[str, Any]], metric: str | None) -> list[tuple[str, list[str]]]:
    """Labels and cells of :func:`results_table`.

    Args:
        summaries: One per column, with the keys of ``metrics.json``; missing values are shown as "–".
        metric: Name of the task's metric, or ``None``.
    """
    names = ["success_rate", "basic_return", "add_on_return", "total_return"]
    names += [*([metric] if metric else []), "episode_length_mean", "kl_to_prior"]
    rows = [(quantity(name), [cell(name, summary) for summary in summaries]) for name in names]
    return [*rows, ("episodes", [f"{summary.get('episodes', '–')}" for summary in summaries])]


def quantity(name: str) -> str:
    """Return the name of a quantity as people read it.

    Args:
        name: Key of ``metrics.json``, without ``_mean``.
    """
    return _LABELS.get(name, name.replace("_", " "))


def cell(name: str, summary: Mapping[str, Any]) -> str:
    """Return a statistic as people read it, with its standard deviation if there is one.

    Args:
        name: Key of ``metrics.json``, without ``_mean``.
        summary: Values by key; a missing one is shown as "–".
    """
    value = summary.get(name, summary.get(f"{name}_mean"))
    if value is None:
        return "–"
    if name == "success_rate":
        return f"{100 * value:.1f} %"
    deviation = summary.get(f"{name}_std")
    digits = 3 if abs(value) < 1 else 2
    mean = number(value, f".{digits}f")
    return mean if deviation is None else f"{mean} ± {number(deviation, f'.{digits}f')}"


def number(value: float, format_spec: str) -> str:
    """Format a number, with ∞ for infinity.

    Args:
        value: The number.
        format_spec: How to write finite ones.
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:{format_spec}}"
