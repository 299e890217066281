"""``python -m rql_lightning.demonstrations``: what a folder of demonstrations contains.

python -m rql_lightning.demonstrations runs/cartpole/demonstrations/version_0/trajectories
python -m rql_lightning.demonstrations minari:my/data-set-v0
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from rql_lightning.data.demonstrations import Demonstrations, load_demonstrations
from rql_lightning.reporting.console import command, console

BAR = 30
BINS = 10
MOST_ACTIONS = 100
"""Number of discrete actions from which those that never occur are left out."""


def summary_table(demonstrations: Demonstrations) -> Table:
    """Return a table of the size, the ends and the returns of demonstrations, and a histogram of their actions."""
    table = Table(title=demonstrations.source, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _facts(demonstrations):
        table.add_row(name, value)
    table.add_section()
    for name, share in histogram(demonstrations.transitions["action"]):
        table.add_row(name, f"{'█' * round(BAR * share)} {100 * share:.1f} %")
    return table


def _facts(demonstrations: Demonstrations) -> list[tuple[str, str]]:
    about, following = demonstrations.about, demonstrations.transitions["next"]
    lengths = demonstrations.lengths
    facts = [("task", demonstrations.task or "unknown")]
    if about:
        kind = "deterministic" if about.get("deterministic") else "stochastic"
        epsilon = about.get("epsilon", 0)
        kind += f", {100 * epsilon:g} % random actions" if epsilon else ""
        facts.append(("policy", f"{about.get('policy')} ({kind})"))
    facts += [
        ("episodes", f"{demonstrations.episodes:,}"),
        ("steps", f"{len(demonstrations):,}"),
        ("steps per episode", f"{int(lengths.min())} to {int(lengths.max())}, mean {lengths.double().mean():.1f}"),
        ("episodes terminated", f"{int(following['terminated'].sum()):,}"),
        ("episodes truncated", f"{int((following['truncated'] & ~following['terminated']).sum()):,}"),
    ]
    for name, value in demonstrations.returns.items():
        deviation = value.std(correction=0)
        facts.append((f"{name.replace('_', '-')} return", f"{value.mean():.2f} ± {deviation:.2f}"))
    return facts


def histogram(action: Tensor) -> list[tuple[str, float]]:
    """Return the shares of actions: one per discrete action, or one per interval and dimension.

    Args:
        action: Actions, integers ``[F]`` or real numbers ``[F, ...]``.

    Returns:
        Names and shares in [0, 1].
    """
    if not action.is_floating_point() and action.dim() == 1:
        seen, counts = (values.tolist() for values in action.unique(return_counts=True))
        found = dict(zip(seen, counts, strict=True))
        shown = range(max(seen) + 1) if max(seen) < MOST_ACTIONS else seen
        return [(f"action {index}", found.get(index, 0) / len(action)) for index in shown]
    rows: list[tuple[str, float]] = []
    columns = action.double().reshape(len(action), -1)
    for index, column in enumerate(columns.unbind(1)):
        low, high = column.min().item(), column.max().item()
        edges = torch.linspace(low, high if high > low else low + 1.0, BINS + 1, dtype=torch.float64)
        counts = torch.histc(column, BINS, edges[0].item(), edges[-1].item())
        for start, stop, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append((f"action[{index}] in [{start:.2f}, {stop:.2f}]", float(count) / len(action)))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Print the summary of the demonstrations that the command line names.

    Args:
        arguments: Arguments to use in place of those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m rql_lightning.demonstrations",
        description="Print what a folder of demonstrations contains, after checking it.",
    )
    text = "Folder of demonstrations, or minari: followed by the id of a local Minari data set."
    parser.add_argument("demonstrations", help=text)
    parsed: Any = parser.parse_args(arguments)
    with command():
        console().print(summary_table(load_demonstrations(parsed.demonstrations)))


if __name__ == "__main__":
    main()
