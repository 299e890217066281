"""The report of one run, from what the run left in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rql_lightning.reporting.figures import RETURNS
from rql_lightning.reporting.histograms import read_histograms
from rql_lightning.reporting.html.embedding import stills, svg, videos
from rql_lightning.reporting.html.page import render, write_page
from rql_lightning.reporting.html.panels import curve_panel, distribution_panel
from rql_lightning.reporting.html.provenance import duration, size
from rql_lightning.reporting.metrics import read_history, read_metrics
from rql_lightning.reporting.paper import ENVIRONMENTS, paper_row
from rql_lightning.reporting.tables import results_rows

ORIGIN = "run.json"
"""File of a run's folder that tells how it was made (:func:`write_origin`)."""


def write_origin(folder: Path, about: Mapping[str, Any], stage: str, facts: Mapping[str, Any]) -> None:
    """Add how a command was run to what the folder knows of its run; the same command replaces its earlier facts.

    Args:
        folder: Folder of the run.
        about: ``title``, ``metric`` (name of the task's metric, or ``None``) and ``paper`` (task and policy of the
            paper's row, or ``None``).
        stage: ``fit`` or ``test``.
        facts: ``command`` (``None`` where the run was started in Python), ``seed``, ``seconds``,
            ``peak_memory_bytes``, ``versions``, ``machine`` and ``commit``.
    """
    path = folder / ORIGIN
    stages = json.loads(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else {}
    write_page(json.dumps({**about, "stages": {**stages, stage: dict(facts)}}, indent=2) + "\n", path)


def write_run_report(folder: Path) -> Path:
    """Write ``report.html``: table, learning curves, distribution, plan, moments and videos, and how the run was made.

    Args:
        folder: Folder of the run, with ``metrics.json`` and ``run.json``; what else is missing is left out.

    Returns:
        Path of the report.

    Raises:
        OSError: If a file cannot be read or written.
    """
    about = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    history = read_history(folder / "learning_curves.json") if (folder / "learning_curves.json").is_file() else []
    pictured = folder / "distribution.json"
    known = summaries(folder)
    prior = known.get("prior")
    if about["paper"] is not None:
        task, row = about["paper"]
        known["paper"] = paper_row(ENVIRONMENTS[task], row)
    rows = results_rows(list(known.values()), about["metric"])
    text = render(
        "run.html.j2",
        title=about["title"],
        columns=list(known),
        rows=[(label, [cell.replace("-", "−") for cell in cells]) for label, cells in rows],
        paper=None if about["paper"] is None else about["paper"][1],
        prior=prior is not None,
        curves=[svg(curve_panel(history, prior, name), f"curve-{name}") for name in RETURNS if len(history) > 1],
        distribution=svg(distribution_panel(read_histograms(pictured)), "distribution") if pictured.is_file() else None,
        plan=folder / "plan.png" if (folder / "plan.png").is_file() else None,
        stills=stills(folder),
        videos=videos(folder),
        stages=[_stage(name, facts) for name, facts in about["stages"].items()],
    )
    path = folder / "report.html"
    write_page(text, path)
    return path


def summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the last evaluations of a run by name of what was evaluated, those that there are.

    Args:
        folder: Folder of the run.

    Raises:
        ConfigurationError: If a file cannot be read.
    """
    files = {
        "prior": folder / "prior_metrics.json",
        "policy": folder / "metrics.json",
        "policy, reference environment": folder / "reference_metrics.json",
    }
    return {name: read_metrics(path) for name, path in files.items() if path.is_file()}


def _stage(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        "seed": facts["seed"],
        "wall-clock": duration(facts["seconds"]),
        "peak memory": size(facts["peak_memory_bytes"]),
        "machine": facts["machine"],
        "versions": ", ".join(f"{package} {version}" for package, version in facts["versions"].items()),
        "commit": facts["commit"],
    }
    return {"name": name, "command": facts["command"], "facts": {k: v for k, v in shown.items() if v is not None}}
