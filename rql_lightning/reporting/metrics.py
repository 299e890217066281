"""Metrics files such as ``metrics.json``, written atomically and as valid JSON for any numbers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SPELLED = ("Infinity", "-Infinity", "NaN")


def write_metrics(content: Mapping[str, Any], path: Path) -> None:
    """Write numbers by name, atomically.

    JSON has no infinity and no NaN: they become the strings "Infinity", "-Infinity" and "NaN", which Python's ``float``
    and JavaScript's ``Number`` accept. ``null`` stands for undefined values, such as the KL to the prior without one.

    Args:
        content: Numbers, strings and ``None`` by name.
        path: Target.
    """
    beside = path.with_name(f".{path.name}.tmp")
    text = json.dumps({key: _spelled(value) for key, value in content.items()}, indent=2, allow_nan=False)
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a file written by :func:`write_metrics`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: float(value) if value in _SPELLED else value for key, value in content.items()}


def _spelled(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
