"""Why cells are worse than the paper's: ``reasons.yaml`` beside a report, written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from rql_lightning.errors import ConfigurationError

FILE = "reasons.yaml"
FIELDS = {"task", "policy", "quantity", "reason"}

Reasons = Mapping[tuple[str, str, str], str]
"""Sentences by task, policy and name of the quantity, such as ``lane_index``."""


def read_reasons(folder: Path) -> Reasons:
    """Read ``reasons.yaml`` of a report's folder.

    The file is a list of ``{task, policy, quantity, reason}``.

    Args:
        folder: Folder of the report.

    Returns:
        The sentences; none if there is no such file.

    Raises:
        ConfigurationError: If the file is not such a list.
    """
    path = folder / FILE
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path}: found {error}, expected a YAML file that can be read") from error
    expected = f"expected a list of {{{', '.join(sorted(FIELDS))}}}"
    if not isinstance(entries, list):
        raise ConfigurationError(f"{path}: found {type(entries).__name__}, {expected}")
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != FIELDS or not all(isinstance(e, str) for e in entry.values()):
            raise ConfigurationError(f"{path}: found {entry!r}, {expected}, all of them text")
    return {(entry["task"], entry["policy"], entry["quantity"]): entry["reason"] for entry in entries}
