"""The report of a reproduction: ``report.html``, ``tables.md`` and ``results.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.html.embedding import stills, videos
from rql_lightning.reporting.html.page import render, write_page
from rql_lightning.reporting.paper import METRICS, paper_rows
from rql_lightning.reproduce import rows as texts
from rql_lightning.reproduce.markdown import markdown
from rql_lightning.reproduce.pictures import one_per_task, origins, pictures, trade_off
from rql_lightning.reproduce.reasons import Reasons, read_reasons
from rql_lightning.reproduce.results import FILE, Result, write_results_csv
from rql_lightning.reproduce.rows import Row
from rql_lightning.reproduce.verdict import COLUMNS, RULE, Verdict

REFERENCE_HEAD = ("task", "policy", "seed", "success rate", "basic return", "add-on return", "metric", "same episodes")


def write_report(results: Sequence[Result], out: Path, title: str, command: str) -> Path:
    """Write ``report.html``, ``tables.md`` and ``results.csv`` into a folder, over those of an earlier report.

    The rows of Table 1 stand beside the paper's, each cell with mean ± standard deviation over episodes, the
    interquartile mean over seeds with its 95 % interval, and the verdict (:mod:`rql_lightning.reproduce.verdict`).
    Other policies, such as ablations, have a table of their own. Runs of one policy whose metric ``omega_prime``
    differs are a sweep, and become a trade-off curve. Figures and videos come from the runs' folders, and are left out
    where these are gone. Why a cell is worse than the paper's is read from ``reasons.yaml``, if the folder has one.

    Args:
        results: At least one result.
        out: Folder, which is created if it does not exist.
        title: Title of the report.
        command: Exact command that made all of it.

    Returns:
        Path of ``report.html``.

    Raises:
        ConfigurationError: If there are no results, or ``reasons.yaml`` is not what it should be.
        OutputError: If a file cannot be written.
    """
    if not results:
        raise ConfigurationError("results: found none, expected at least one finished run")
    content = _content(results, title, command, read_reasons(out))
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_results_csv(results, out / FILE)
        write_page(markdown(content), out / "tables.md")
        write_page(render("reproduction.html.j2", **content), out / "report.html")
    except OSError as error:
        raise OutputError(f"{error.filename or out}: found {error.strerror!r}, expected a place to write") from error
    return out / "report.html"


def _content(results: Sequence[Result], title: str, command: str, reasons: Reasons) -> dict[str, Any]:
    table, more, swept = texts.rows(results)
    verdicts = texts.count(table)
    every = [*table, *more]
    return {
        "title": title,
        "command": command,
        "rule": RULE,
        "verdicts": verdicts,
        "favourable": verdicts[Verdict.BETTER] + verdicts[Verdict.EQUAL],
        "compared": sum(verdicts.values()),
        "rows_found": len(table),
        "rows_of_paper": len(paper_rows()),
        "tables": [_table(task, [row for row in table if row.task == task]) for task in _tasks(table)],
        "worse": [_worse(row, cell, reasons) for row in table for cell in row.cells if cell.verdict is Verdict.WORSE],
        "over_tasks": texts.over_tasks(table),
        "reference": texts.on_reference(results),
        "reference_head": REFERENCE_HEAD,
        "ablations": [_ablations(task, more, table) for task in _tasks(more)],
        "sweeps": [_sweep(*key, swept[key], f"sweep-{index}") for index, key in enumerate(swept)],
        "pictures": [pictures(row, f"row-{index}") for index, row in enumerate(every)],
        "stills": one_per_task(results, stills),
        "films": one_per_task(results, videos),
        "runs": list(results),
        "total_seconds": sum(result.seconds for result in results),
        "origins": origins(results),
        "seeds": sorted({result.seed for result in results}),
    }


def _tasks(rows: Sequence[Row]) -> list[str]:
    found = {row.task for row in rows}
    return [*(task for task in METRICS if task in found), *sorted(found - set(METRICS))]


def _table(task: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "task": task,
        "headings": [texts.heading(task, column) for column in COLUMNS],
        "rows": [{"policy": row.policy, "seeds": row.seeds, "cells": _cells(row)} for row in rows],
    }


def _cells(row: Row) -> list[dict[str, Any]]:
    return [
        {
            "ours": texts.ours(cell),
            "every": texts.every(cell),
            "interval": texts.interval(cell),
            "paper": texts.paper(cell),
            "verdict": cell.verdict,
        }
        for cell in row.cells
    ]


def _ablations(task: str, more: Sequence[Row], table: Sequence[Row]) -> dict[str, Any]:
    compared = [row for row in [*table, *more] if row.task == task and row.policy in texts.RESIDUAL][:1]
    others = [row for row in more if row.task == task and row not in compared]
    content = _table(task, [*compared, *others])
    if not compared:
        return content
    shown = ["–" for _ in compared] + [texts.improvement(row, compared) for row in others]
    for row, probability in zip(content["rows"], shown, strict=True):
        row["improvement"] = probability
    return content


def _sweep(task: str, policy: str, rows: Sequence[Row], name: str) -> dict[str, Any]:
    commands = [result.command for row in rows for result in row.results]
    return {**_table(task, rows), "policy": policy, "figure": trade_off(rows, name), "commands": commands}


def _worse(row: Row, cell: Any, reasons: Reasons) -> dict[str, str]:
    return {
        "where": f"{row.task}, {row.policy}, {texts.quantity(cell.name)}",
        "numbers": f"{texts.estimate_text(cell.estimate, cell.name)}; {texts.paper(cell)}",
        "reason": reasons.get((row.task, row.policy, cell.name), ""),
    }
