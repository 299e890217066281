"""Table 1 of the paper as data."""

from __future__ import annotations

import csv
from pathlib import Path

TABLE = Path(__file__).with_name("paper_table1.csv")


def paper_row(environment: str, policy: str) -> dict[str, float]:
    """One row of Table 1 under the names of ``metrics.json``.

    Args:
        environment: As in the paper, e.g. ``CartPole``.
        policy: As in the paper, e.g. ``RL Customized``.

    Raises:
        KeyError: if the table has no such row.
    """
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["environment"] == environment and row["policy"] == policy:
                names = {
                    "basic_return_mean": "basic_return_mean",
                    "basic_return_std": "basic_return_std",
                    "add_on_return_mean": "add_on_return_mean",
                    "add_on_return_std": "add_on_return_std",
                    f"{row['metric']}_mean": "metric_mean",
                    f"{row['metric']}_std": "metric_std",
                }
                values = {name: float(row[column]) for name, column in names.items() if row[column]}
                return {"success_rate": float(row["success_rate_percent"]) / 100, **values}
    raise KeyError(f"{environment}, {policy}")
