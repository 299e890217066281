"""Tables of results."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    names = ["success_rate", "basic_return", "add_on_return", "total_return"]
    for name in [*names, *([metric] if metric else []), "episode_length_mean", "kl_to_prior"]:
        label = _LABELS.get(name, name.replace("_", " "))
        table.add_row(label, *(_cell(name, summary) for summary in columns.values()))
    table.add_row("episodes", *(f"{summary.get('episodes', '–')}" for summary in columns.values()))
    return table


def _cell(name: str, summary: Mapping[str, Any]) -> str:
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
