"""Results of finished runs, and their table on disk."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rql_lightning.errors import ConfigurationError

FILE = "results.csv"
FIELDS = ("task", "policy", "seed", "seconds", "peak_memory_bytes", "command", "folder")
"""Columns of ``results.csv`` before those of the metrics."""


@dataclass(frozen=True)
class Result:
    """What one finished run of a reproduction measured.

    Args:
        task: ``cartpole``, ``mountain_car``, ``highway`` or ``parking``; another task has no row in the paper.
        policy: Row of Table 1 as in ``paper_table1.csv``, such as ``RL Customized``, or the name of an ablation.
        seed: Training seed.
        metrics: Content of ``metrics.json``.
        folder: The run's folder, or ``None`` where it is gone.
        command: Exact command line of the run.
        seconds: Wall-clock seconds of the whole command.
        peak_memory_bytes: Peak resident memory of the process in bytes, or ``None`` where it is unknown.
    """

    task: str
    policy: str
    seed: int
    metrics: dict[str, Any]
    folder: Path | None
    command: str
    seconds: float
    peak_memory_bytes: int | None


def write_results_csv(results: Sequence[Result], path: Path) -> None:
    """Write one row per result, with a column for each of their metrics.

    ``null`` stands for ``None``, an empty cell for a metric that the result does not have. Folders are relative to the
    file's.

    Args:
        results: Results, in the order of the rows.
        path: Target.
    """
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*FIELDS, *names])
        for result in results:
            folder = None if result.folder is None else Path(os.path.relpath(result.folder, path.parent)).as_posix()
            own = [result.task, result.policy, result.seed, result.seconds, result.peak_memory_bytes, result.command]
            cells = [_cell(result.metrics[name]) if name in result.metrics else "" for name in names]
            writer.writerow([*(_cell(value) for value in [*own, folder]), *cells])


def read_results_csv(path: Path) -> list[Result]:
    """Read a file written by :func:`write_results_csv`.

    Args:
        path: The file.

    Raises:
        ConfigurationError: If there is no such file, or it is not one of these.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ())[: len(FIELDS)] != FIELDS:
                raise ValueError(f"columns {reader.fieldnames}")
            return [_result(row, path.parent) for row in reader]
    except OSError as error:
        raise ConfigurationError(f"{path}: found {error.strerror!r}, expected a results.csv") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ConfigurationError(f"{path}: found {error!r}, expected the rows of a results.csv") from error


def _result(row: dict[str, str], beside: Path) -> Result:
    own = {name: row[name] for name in FIELDS}
    metrics = {name: _value(cell) for name, cell in row.items() if name not in FIELDS and cell != ""}
    if texts := [name for name, value in metrics.items() if isinstance(value, str)]:
        raise ValueError(f"{texts[0]} = {metrics[texts[0]]!r}")
    peak, folder = _value(own["peak_memory_bytes"]), own["folder"]
    return Result(
        task=own["task"],
        policy=own["policy"],
        seed=int(own["seed"]),
        metrics=metrics,
        folder=None if folder == "null" else beside / folder,
        command=own["command"],
        seconds=float(own["seconds"]),
        peak_memory_bytes=None if peak is None else int(peak),
    )


def _cell(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, float) else str(value)


def _value(cell: str) -> Any:
    if cell == "null":
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
