"""The report of a reproduction as Markdown, without figures."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rql_lightning.reporting.html.provenance import duration, size


def markdown(content: Mapping[str, Any]) -> str:
    """Return the tables of a report, the commands and where the runs were made.

    Args:
        content: What ``report.html`` is made of.
    """
    parts = [f"# {_text(content['title'])}", _fenced([content["command"]])]
    if content["tables"]:
        favourable, compared = content["favourable"], content["compared"]
        counts = ", ".join(f"{number} {verdict.value}" for verdict, number in content["verdicts"].items())
        rows = f"{content['rows_found']} of the paper's {content['rows_of_paper']} rows"
        parts.append(f"**Better than the paper or equal: {favourable} of {compared} cells** ({counts}), in {rows}.")
        parts.append(_text(content["rule"]))
    for table in content["tables"]:
        parts += [f"## {_text(table['task'])}", _cells_table(table)]
    if content["worse"]:
        lines = [f"- {_text(item['where'])}: {item['numbers']}. {_text(item['reason'])}" for item in content["worse"]]
        parts += ["## Worse than the paper", "\n".join(line.strip() for line in lines)]
    if content["over_tasks"]:
        head = ["policy", "tasks", "add-on return (0: paper's prior, 1: paper's policy)", "P(better than the prior)"]
        parts += ["## Over tasks", _table(head, content["over_tasks"])]
    if content["reference"]:
        parts += ["## On the reference environments", _table(content["reference_head"], content["reference"])]
    for table in content["ablations"]:
        parts += [f"## {'Other policies' if content['tables'] else 'Policies'}: {_text(table['task'])}"]
        parts += [_cells_table(table)]
    for sweep in content["sweeps"]:
        parts += [f"## ω′: {_text(sweep['task'])}, {_text(sweep['policy'])}", _cells_table(sweep)]
    head = ["task", "policy", "seed", "wall-clock", "peak memory"]
    runs = [(r.task, r.policy, r.seed, duration(r.seconds), size(r.peak_memory_bytes)) for r in content["runs"]]
    parts += ["## Runs", _table(head, runs), _fenced(run.command for run in content["runs"])]
    facts = [f"- {name}: {_text(value)}" for name, values in content["origins"].items() for value in values]
    return "\n\n".join([*parts, "## Machine and versions", "\n".join(facts)]) + "\n"


def _cells_table(table: Mapping[str, Any]) -> str:
    probability = ["P(residual has a higher total return)"] if "improvement" in table["rows"][0] else []
    lines = []
    for row in table["rows"]:
        cells = []
        for cell in row["cells"]:
            verdict = "" if cell["verdict"] is None else f"{cell['verdict'].symbol} {cell['verdict'].value}"
            parts = (cell["ours"], cell["every"], cell["interval"], cell["paper"], verdict)
            cells.append("<br>".join(_text(part) for part in parts if part))
        more = [row["improvement"]] if probability else []
        lines.append([_text(row["policy"]), _text(row["seeds"]), *cells, *more])
    return _table(["policy", "seeds", *table["headings"], *probability], lines, escaped=True)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], escaped: bool = False) -> str:
    lines = [head, ["---"] * len(head)]
    lines += [[cell if escaped else _text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(content: Any) -> str:
    """Plain text: no HTML, no further cell of a table, one line."""
    return " ".join(html.escape(str(content), quote=False).replace("|", "\\|").split())


def _fenced(lines: Iterable[str]) -> str:
    """Lines in a block of code, whose fence is longer than any in them."""
    text = "\n".join(lines)
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
