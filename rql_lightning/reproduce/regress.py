"""``python -m rql_lightning.reproduce.regress``: whether this code still gives the committed results.

    python -m rql_lightning.reproduce.regress docs/results/table1/results.csv --out runs/regress

Trains the priors of two cheap tasks and customises them, with three seeds each, and compares success, returns and
metric with the committed ones. It takes some ten minutes on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from rql_lightning.callbacks.run_folder import reserve
from rql_lightning.errors import RqlError, require
from rql_lightning.reporting.console import command, console
from rql_lightning.reporting.paper import METRICS
from rql_lightning.reproduce.collection import collected
from rql_lightning.reproduce.engines import LocalEngine
from rql_lightning.reproduce.execution import execute, failures
from rql_lightning.reproduce.experiments import table1
from rql_lightning.reproduce.results import Result, read_results_csv

CHEAP = ("cartpole", "mountain_car")
POLICIES = ("RL Prior Policy", "RL Customized")
NAMES = ("success_rate", "basic_return_mean", "add_on_return_mean")


@dataclass(frozen=True)
class Comparison:
    """One number of both codes.

    Attributes:
        row: Task and policy.
        name: Name of the metric.
        found: Mean over this code's seeds.
        committed: Mean over the committed seeds.
        tolerance: Largest difference that chance explains.
    """

    row: tuple[str, str]
    name: str
    found: float
    committed: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.found - self.committed) <= self.tolerance


def compare(found: Sequence[Result], committed: Sequence[Result]) -> list[Comparison]:
    """Compare results of the same rows.

    The tolerance is four standard errors of the difference between the means over seeds, of which each code has a few:
    the spread over the seeds of both together, but at least 1 % of the committed value, as seeds may agree by chance.

    Args:
        found: This code's results.
        committed: Committed results.

    Raises:
        ConfigurationError: If the committed results lack a row of ``found``.
    """
    comparisons = []
    for row in dict.fromkeys((result.task, result.policy) for result in found):
        chosen = [[run for run in runs if (run.task, run.policy) == row] for runs in (found, committed)]
        require(bool(chosen[1]), "committed results", "no " + ", ".join(row), "results of that row")
        for name in (*NAMES, f"{METRICS[row[0]]}_mean"):
            mine, theirs = ([run.metrics[name] for run in runs] for runs in chosen)
            spread = np.std([*(np.subtract(mine, np.mean(mine))), *(np.subtract(theirs, np.mean(theirs)))])
            error = float(spread) * np.sqrt(1 / len(mine) + 1 / len(theirs))
            expected = float(np.mean(theirs))
            tolerance = max(4.0 * error, 0.01 * abs(expected))
            comparisons.append(Comparison(row, name, float(np.mean(mine)), expected, tolerance))
    return comparisons


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Return a table with one row per comparison."""
    table = Table(title="This code against the committed results", title_justify="left")
    for label in ("task", "policy", "metric", "this code", "committed", "tolerance", ""):
        table.add_column(label, justify="right" if label in ("this code", "committed", "tolerance") else "left")
    for each in comparisons:
        numbers = (f"{value:.4g}" for value in (each.found, each.committed, each.tolerance))
        table.add_row(*each.row, each.name, *numbers, "holds" if each.holds else "DIFFERS")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, compare, print.

    Args:
        arguments: Arguments to use in place of those of the process.

    Raises:
        SystemExit: With code 2 if a number differs or a run failed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("committed", type=Path, help="The committed results.csv.")
    parser.add_argument("--out", type=Path, default=Path("runs/regress"), help="Parent folder of results.")
    parser.add_argument("--seeds", type=int, default=3, help="Number of training seeds. Default: 3.")
    parser.add_argument("--jobs", type=int, default=2, help="Jobs at a time. Default: 2.")
    with command():
        given = parser.parse_args(arguments)
        committed = read_results_csv(given.committed)
        plan, out = table1(CHEAP, POLICIES, range(given.seeds), False, "regress"), reserve(given.out)
        outcome = execute(plan, out, LocalEngine(given.jobs))
        if outcome.failed or outcome.stopped:
            raise RqlError(failures(outcome, out))
        comparisons = compare(collected(plan, out), committed)
        console(width=120).print(comparison_table(comparisons))
        different = [each for each in comparisons if not each.holds]
        if different:
            raise RqlError(f"{len(different)} of {len(comparisons)} numbers differ by more than chance explains")


if __name__ == "__main__":
    main()
