"""Packages that only experiments need."""

from __future__ import annotations

import importlib
from typing import Any

from rql_lightning.errors import ConfigurationError


def required(module: str, extra: str) -> Any:
    """Import a package of one of this project's extras.

    Args:
        module: Module to import.
        extra: Extra that installs it.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        expected = f"expected it to be: pip install 'rql-lightning[{extra}]'"
        raise ConfigurationError(f"{package}: found it not installed, {expected}") from error
