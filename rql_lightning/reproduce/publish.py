"""Published results: a report with the small files that it is made of, to which later runs add."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.html.embedding import stills, videos
from rql_lightning.reporting.html.run import ORIGIN
from rql_lightning.reproduce.pictures import one_per_task
from rql_lightning.reproduce.report import write_report
from rql_lightning.reproduce.results import FILE, Result, read_results_csv
from rql_lightning.reproduce.rows import SWEPT

COMMANDS = "commands.json"
RUNS = "runs"
EVIDENCE = ("metrics.json", "reference_metrics.json", "prior_metrics.json", "learning_curves.json", "distribution.json")
"""Files of a run's folder that a report is made of, besides ``run.json`` and pictures."""


def publish(results: Sequence[Result], folder: Path, title: str, command: str) -> Path:
    """Write a report into a folder that needs nothing outside it.

    Results that the folder has already are kept where ``results`` has none of the same task, policy, training seed and
    ω′, so that a table can be made in several commands and on several machines.

    Args:
        results: At least one result.
        folder: Folder, which is created if it does not exist. ``runs`` in it holds the small files of each run, and a
            video and a still picture per task.
        title: Title of the report.
        command: Exact command that made the results.

    Returns:
        Path of ``report.html``.

    Raises:
        ConfigurationError: If the folder has results or commands that cannot be read.
        OutputError: If a file cannot be written.
    """
    earlier = read_results_csv(folder / FILE) if (folder / FILE).is_file() else []
    commands = [*(each for each in _commands(folder) if each != command), command]
    pictures = [path for find in (stills, _films) for _, path in one_per_task(results, find)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        published = {_key(result): _copied(result, folder, pictures) for result in results}
        (folder / COMMANDS).write_text(json.dumps(commands, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: found {error.strerror!r}, expected a place to write") from error
    every = {**{_key(result): result for result in earlier}, **published}
    return write_report(sorted(every.values(), key=_order(every.values())), folder, title, "\n".join(commands))


def _key(result: Result) -> tuple[Any, ...]:
    return result.task, result.policy, result.seed, result.metrics.get(SWEPT)


def _order(results: Iterable[Result]) -> Any:
    """Seed by seed; tasks and policies in the order of their first occurrence."""
    tasks = list(dict.fromkeys(result.task for result in results))
    policies = list(dict.fromkeys(result.policy for result in results))
    return lambda result: (result.seed, tasks.index(result.task), policies.index(result.policy))


def _films(folder: Path) -> list[Path]:
    """The videos of a run as GIF, without which an MP4 is not looked for."""
    return [video.with_suffix(".gif") for video in videos(folder)]


def _copied(result: Result, folder: Path, pictures: Iterable[Path]) -> Result:
    """The result, with a folder in which its small files are."""
    weight = result.metrics.get(SWEPT)
    policy = result.policy if weight is None else f"{result.policy} {weight:g}"
    target = folder / RUNS / result.task / re.sub(r"[^a-z0-9.]+", "-", policy.lower()).strip("-") / str(result.seed)
    if result.folder is None or result.folder.resolve() == target.resolve():
        return result
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (*EVIDENCE, ORIGIN):
        if (result.folder / name).is_file():
            shutil.copyfile(result.folder / name, target / name)
    for path in (each for each in pictures if each.is_relative_to(result.folder)):
        (target / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.parent.name / path.name)
    return replace(result, folder=target)


def _commands(folder: Path) -> list[str]:
    path = folder / COMMANDS
    if not path.is_file():
        return []
    try:
        commands = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(f"{path}: found {error}, expected a list of commands") from error
    if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
        raise ConfigurationError(f"{path}: found {commands!r}, expected a list of commands")
    return commands
