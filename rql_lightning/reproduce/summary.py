"""``python -m rql_lightning.reproduce.summary``: committed results as the table of the README.

    python -m rql_lightning.reproduce.summary docs/results/table1/results.csv --readme README.md

Replaces what stands between the README's marks for results, or prints the table without --readme.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.console import command, print_line
from rql_lightning.reproduce.results import Result, read_results_csv
from rql_lightning.reproduce.rows import estimate_text, heading, rows, value
from rql_lightning.reproduce.verdict import Cell

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def summary(results: Sequence[Result]) -> str:
    """Return a Markdown table with one row per row of Table 1, each cell beside the paper's.

    Args:
        results: Results of Table 1.
    """
    lines = ["| task | policy | seeds | success | basic return | wish |", "|---|---|---|---|---|---|"]
    for row in rows(results)[0]:
        success, basic, _, wish = row.cells
        cells = [_text(success), _text(basic), f"{heading(row.task, 'metric')} {_text(wish)}"]
        lines.append(f"| {row.task.replace('_', ' ')} | {row.policy} | {row.seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(cell: Cell) -> str:
    ours = value(cell.name, cell.mean) if cell.estimate is None else estimate_text(cell.estimate, cell.name)
    symbol = "" if cell.verdict is None else f" {cell.verdict.symbol}"
    return f"{ours} ({value(cell.name, cell.paper)}){symbol}"


def replaced(text: str, table: str) -> str:
    """Return a text with the table between the marks.

    Raises:
        ConfigurationError: If the marks are not there, once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ConfigurationError(f"--readme: found no text between {BEGIN} and {END}, expected both marks once")
    return f"{text[: text.index(BEGIN)]}{BEGIN}\n{table}\n{text[text.index(END) :]}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, and write or print.

    Args:
        arguments: Arguments to use in place of those of the process.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="A results.csv.")
    parser.add_argument("--readme", type=Path, help="File with marks, between which the table is written.")
    with command():
        given = parser.parse_args(arguments)
        table = summary(read_results_csv(given.results))
        if given.readme is None:
            print_line(table)
            return
        try:
            given.readme.write_text(replaced(given.readme.read_text(encoding="utf-8"), table), encoding="utf-8")
        except OSError as error:
            found = f"{given.readme}: found {error.strerror!r}"
            raise OutputError(f"{found}, expected a file that can be read and written") from error


if __name__ == "__main__":
    main()
