"""Published results: a report with the small files that it is made of, to which later runs add."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.html.embedding import stills, videos
from rql_lightning.reporting.html.run import ORIGIN
from rql_lightning.reproduce.jobs import locked
from rql_lightning.reproduce.pictures import one_per_task
from rql_lightning.reproduce.reasons import read_reasons
from rql_lightning.reproduce.report import write_report
from rql_lightning.reproduce.results import FILE, Result, read_results_csv
from rql_lightning.reproduce.rows import SWEPT

COMMANDS = "commands.json"
RUNS = "runs"
CONFIG = "config.yaml"
EVIDENCE = ("metrics.json", "reference_metrics.json", "prior_metrics.json", "learning_curves.json", "distribution.json")
"""Files of a run's folder that a report is made of, besides ``run.json``, its config and pictures."""


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
        ConfigurationError: If the folder has results, commands or reasons that cannot be read, or another seed's result
            of the same row with other settings.
        OutputError: If a file cannot be written.
    """
    with locked(folder / ".lock", wait=True):  # of another command that adds to the same folder
        return _publish(results, folder, title, command)


def _publish(results: Sequence[Result], folder: Path, title: str, command: str) -> Path:
    earlier, commands = check_published(folder)
    made = {_key(result) for result in results}
    kept = [result for result in earlier if _key(result) not in made]
    _check_settings(results, kept, folder)
    pictures = [path for find in (stills, _films) for _, path in one_per_task(results, find)]
    mine = sorted(_text(key) for key in made)
    left = {each: [key for key in keys if key not in mine] for each, keys in commands.items() if each != command}
    commands = {**{each: keys for each, keys in left.items() if keys}, command: mine}
    try:
        published = [_copied(result, folder, pictures) for result in results]
        (folder / COMMANDS).write_text(json.dumps(commands, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{error.filename or folder}: found {error.strerror!r}, expected a place to write") from error
    every = [*kept, *published]
    return write_report(sorted(every, key=_order(every)), folder, title, "\n".join(commands))


def check_published(folder: Path) -> tuple[list[Result], dict[str, list[str]]]:
    """Return the results of a published folder, and the commands that made them with the keys of theirs.

    Args:
        folder: Folder, which may not exist.

    Raises:
        ConfigurationError: If its results, commands or reasons cannot be read.
    """
    read_reasons(folder)
    path = folder / COMMANDS
    results = read_results_csv(folder / FILE) if (folder / FILE).is_file() else []
    if not path.is_file():
        return results, {}
    expected = "expected commands, each with a list of results"
    try:
        commands = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: found {error}, {expected}") from error
    if not isinstance(commands, dict) or not all(isinstance(keys, list) for keys in commands.values()):
        raise ConfigurationError(f"{path}: found {type(commands).__name__}, {expected}")
    return results, commands


def _check_settings(results: Sequence[Result], kept: Sequence[Result], folder: Path) -> None:
    """Refuse to pool runs of different settings in one row."""
    rows = {_key(result)[:2] + _key(result)[3:]: _settings(result) for result in results}
    for result in kept:
        row = _key(result)[:2] + _key(result)[3:]
        if row in rows and _settings(result) != rows[row]:
            found = f"seed {result.seed} of {result.task}, {result.policy}, with other or unknown settings"
            raise ConfigurationError(
                f"{folder}: found {found}, expected those of the new seeds; publish all seeds anew"
            )


def _settings(result: Result) -> Any:
    """Model and data of a run's config, without the paths of other runs' products; ``None`` if they are not known."""
    path = None if result.folder is None else result.folder / CONFIG
    if path is None or not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        told = json.dumps([config.get("model"), config.get("data")], default=str)
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: found {type(error).__name__}, expected the config of a run") from error
    return re.sub(r'"[^"]*/jobs/[^"]*"', '"product"', told)


def _key(result: Result) -> tuple[Any, ...]:
    return result.task, result.policy, result.seed, result.metrics.get(SWEPT)


def _text(key: tuple[Any, ...]) -> str:
    return ", ".join(str(part) for part in key if part is not None)


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
    for name in (*EVIDENCE, ORIGIN, CONFIG):
        if (result.folder / name).is_file():
            shutil.copyfile(result.folder / name, target / name)
    for path in (each for each in pictures if each.is_relative_to(result.folder)):
        (target / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, target / path.parent.name / path.name)
    return replace(result, folder=target)
