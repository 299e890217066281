"""Errors that the user can fix; each message names the file or key, what was found and what was expected."""

from __future__ import annotations

import sysconfig
import traceback
from numbers import Integral
from pathlib import Path
from typing import Any

LIBRARIES = (str(Path(__file__).parent), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
"""Folders of code that is not the user's."""


class RqlError(Exception):
    """Base class of all errors that the user can fix; the command line prints the message and exits with code 2."""


class ConfigurationError(RqlError, ValueError):
    """A value in a config, on the command line or in a constructor is invalid."""


class UnsupportedFormatError(ConfigurationError):
    """A format of files cannot hold a policy; the message names those that can."""


class CheckpointError(RqlError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the config."""


class SpaceMismatchError(RqlError, ValueError):
    """The spaces of a policy and an environment differ, or an algorithm does not support a space."""


class EnvironmentContractError(RqlError, ValueError):
    """An environment, add-on reward or prior violates its contract (NaN, wrong shape, unknown id)."""


class DemonstrationError(RqlError, ValueError):
    """Demonstrations are missing, damaged, or do not fit the environment."""


class OutputError(RqlError, OSError):
    """A file or folder cannot be written."""


class DivergenceError(RqlError, RuntimeError):
    """A loss or a weight became infinite or NaN."""


def require(condition: bool, name: str, found: Any, expected: str) -> None:
    """Raise an error that names a setting unless a condition holds.

    Args:
        condition: Condition that must hold.
        name: Name of the setting, as written by the user.
        found: Value of the setting.
        expected: Description of valid values.

    Raises:
        ConfigurationError: If ``condition`` is false.
    """
    if not condition:
        raise ConfigurationError(f"{name}: found {found!r}, expected {expected}")


def described(error: Exception) -> str:
    """Return the class of an error of the user's code, what it says and where it was raised, in one line."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    every = traceback.extract_tb(error.__traceback__)
    frames = [each for each in every if not each.filename.startswith(LIBRARIES)] or every
    return f"{said}, at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else said


def is_integer(value: object, least: int) -> bool:
    """Return whether a value is an integer, of Python or NumPy but no truth value, and at least ``least``."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def are_sizes(value: object) -> bool:
    """Return whether a value is a list or tuple of integers >= 1, such as the widths of layers."""
    return isinstance(value, list | tuple) and all(is_integer(each, 1) for each in value)
