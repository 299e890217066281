"""The errors that a user can mend: each message names the file or key, what was found and what was expected."""

from __future__ import annotations

from typing import Any


class RqlError(Exception):
    """Base of the errors below; the command line prints its message alone and exits with code 2."""


class ConfigurationError(RqlError, ValueError):
    """A value in a config, on the command line or in a constructor makes no sense."""


class CheckpointError(RqlError, ValueError):
    """A checkpoint is missing, damaged, or belongs to something else."""


class SpaceMismatchError(RqlError, ValueError):
    """A policy and an environment disagree about observations or actions."""


class EnvironmentContractError(RqlError, ValueError):
    """An environment or an add-on reward broke its contract (NaN, wrong shape, unknown id)."""


class OutputError(RqlError, OSError):
    """A file or folder cannot be written."""


class DivergenceError(RqlError, RuntimeError):
    """A loss stopped being finite."""


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """Refuse a hyperparameter by name.

    Args:
        condition: What must hold.
        name: The hyperparameter, as the user typed it.
        found: Its value.
        expected: What it should have been, in words.

    Raises:
        ConfigurationError: if ``condition`` is false.
    """
    if not condition:
        raise ConfigurationError(f"{name}: found {found!r}, expected {expected}")
