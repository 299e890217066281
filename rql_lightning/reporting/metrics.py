"""Metrics files such as ``metrics.json``, written atomically and as valid JSON for any numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rql_lightning.errors import ConfigurationError

_SPELLED = ("Infinity", "-Infinity", "NaN")


def write_metrics(content: Mapping[str, Any], path: Path) -> None:
    """Write numbers by name, atomically.

    JSON has no infinity and no NaN: they become the strings "Infinity", "-Infinity" and "NaN", which Python's ``float``
    and JavaScript's ``Number`` accept. ``null`` stands for undefined values, such as the KL to the prior without one.

    Args:
        content: Numbers, strings and ``None`` by name.
        path: Target.
    """
    _write({key: _spelled(value) for key, value in content.items()}, path)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a file written by :func:`write_metrics`.

    Raises:
        ConfigurationError: If the file cannot be read, or is another's.
    """
    return _parsed(_read(path), path)


def write_history(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the summaries of a run's evaluations, atomically, with numbers spelled as in :func:`write_metrics`.

    Args:
        history: Summaries in the order of their ``frames``.
        path: Target.
    """
    _write([{key: _spelled(value) for key, value in entry.items()} for entry in history], path)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read a file written by :func:`write_history`.

    Raises:
        ConfigurationError: If the file cannot be read, or is another's.
    """
    history = _read(path)
    if not isinstance(history, list):
        raise ConfigurationError(f"{path}: found {type(history).__name__}, expected a list of numbers by name")
    return [_parsed(entry, path) for entry in history]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: found {error}, expected the metrics of a run") from error


def _write(content: Any, path: Path) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    text = json.dumps(content, indent=2, allow_nan=False)
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _parsed(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: found {type(content).__name__}, expected numbers by name")
    return {key: float(value) if value in _SPELLED else value for key, value in content.items()}


def _spelled(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
