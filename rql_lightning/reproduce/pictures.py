"""Figures and videos of a reproduction, from the folders of its runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rql_lightning.reporting.histograms import read_histograms
from rql_lightning.reporting.html.embedding import svg
from rql_lightning.reporting.html.panels import curves_panel, distribution_panel, trade_off_panel
from rql_lightning.reporting.html.provenance import commit, machine, versions
from rql_lightning.reporting.html.run import ORIGIN
from rql_lightning.reporting.metrics import read_history, read_metrics
from rql_lightning.reproduce.results import Result
from rql_lightning.reproduce.rows import CUSTOMIZED, Row, swept_points


@dataclass(frozen=True)
class Pictures:
    """What the folders of a row's runs show.

    Args:
        row: The row.
        figures: Inline SVG: learning curves over seeds, and the distribution of the first seed.
        commands: Exact commands of the runs.
    """

    row: Row
    figures: list[Any]
    commands: list[str]


def pictures(row: Row, name: str) -> Pictures:
    """Draw learning curves over seeds and the distribution of the first seed, as far as the runs left them.

    Args:
        row: The runs.
        name: Unique in the page.
    """
    folders = [result.folder for result in row.results if result.folder is not None]
    histories = [read_history(path) for path in _existing(folders, "learning_curves.json")]
    histories = [history for history in histories if len(history) > 1]
    prior = next((read_metrics(path) for path in _existing(folders, "prior_metrics.json")), None)
    figures = []
    if histories:
        for which, title in (("basic", "basic return"), ("add_on", "add-on return")):
            figures.append(svg(curves_panel(histories, prior, which, title), f"{name}-{which}"))
    seeds = {result.folder: result.seed for result in row.results}
    for path in _existing(folders, "distribution.json")[:1]:
        title = f"seed {seeds[path.parent]}" if len(row.results) > 1 else ""
        figures.append(svg(distribution_panel(read_histograms(path), 4.0, title), f"{name}-distribution"))
    return Pictures(row, figures, [result.command for result in row.results])


def _existing(folders: Sequence[Path], name: str) -> list[Path]:
    return [folder / name for folder in folders if (folder / name).is_file()]


def one_per_task(results: Sequence[Result], find: Callable[[Path], list[Path]]) -> list[tuple[Result, Path]]:
    """Return one picture or video per task, of the customised policy where there is one.

    Args:
        results: All results.
        find: Returns the pictures or videos of a run's folder.
    """
    found: dict[str, tuple[Result, Path]] = {}
    for result in sorted(results, key=lambda result: result.policy != CUSTOMIZED):
        if result.folder is not None and result.task not in found:
            for path in find(result.folder)[:1]:
                found[result.task] = result, path
    return list(found.values())


def trade_off(rows: Sequence[Row], name: str) -> Any:
    """Draw the add-on return over the basic return for the values of ω′, as inline SVG.

    Args:
        rows: One per value of ω′.
        name: Unique in the page.
    """
    figure = trade_off_panel([swept_points(row) for row in rows], ("basic return", "add-on return"))
    return svg(figure, name)


def origins(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the different versions, machines and commits of the runs, or those of this process if no run tells.

    Args:
        results: All results.
    """
    found: dict[str, dict[str, None]] = {"versions": {}, "machine": {}, "commit": {}}
    for result in results:
        path = None if result.folder is None else result.folder / ORIGIN
        if path is not None and path.is_file():
            for facts in json.loads(path.read_text(encoding="utf-8"))["stages"].values():
                _add(found, facts)
    if not found["versions"]:
        _add(found, {"versions": versions(), "machine": machine(), "commit": commit()})
    return {name: list(values) for name, values in found.items() if values}


def _add(found: dict[str, dict[str, None]], facts: dict[str, Any]) -> None:
    text = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    for name, value in (("versions", text), ("machine", facts["machine"]), ("commit", facts["commit"])):
        if value is not None:
            found[name][value] = None
