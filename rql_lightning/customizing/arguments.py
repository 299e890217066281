"""The arguments of a customization, checked one by one before anything is done with them."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser

from rql_lightning.errors import ConfigurationError, is_integer, require
from rql_lightning.plain import is_plain, plain_of
from rql_lightning.priors.base import is_positive


def integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an integer of Python or NumPy as one of Python.

    Raises:
        ConfigurationError: If it is something else, or less than ``least`` or more than ``most``.
    """
    accepted = is_integer(value, least) and (most is None or value <= most)
    require(accepted, name, value, f"an integer >= {least}" if most is None else f"an integer in [{least}, {most}]")
    return int(value)


def positive(name: str, value: Any) -> float | None:
    """Return a number of Python or NumPy as one of Python; ``None`` stays ``None``.

    Raises:
        ConfigurationError: If it is not a finite number > 0.
    """
    require(value is None or is_positive(value), name, value, "a number > 0")
    return None if value is None else float(value)


def discount(value: Any) -> float | None:
    """Return γ as a number of Python; ``None`` stays ``None``.

    Raises:
        ConfigurationError: If it is not a number in [0, 1].
    """
    require(value is None or (_is_number(value) and 0 <= value <= 1), "gamma", value, "a number in [0, 1]")
    return None if value is None else float(value)


def weight_of(value: Any) -> Any:
    """Return ω′ as a number of Python; ``None`` and ``"auto"`` stay what they are.

    Raises:
        ConfigurationError: If it is anything else, or not finite. Which numbers are too small is said later, together
            with what would suit the task.
    """
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    require(_is_number(value) and math.isfinite(value), "omega_prime", value, "a number >= 0 or 'auto'")
    return float(value)


def switch(name: str, value: Any) -> bool:
    """Return a truth value of Python or NumPy as one of Python.

    Raises:
        ConfigurationError: If it is something else.
    """
    require(isinstance(value, bool | np.bool_), name, value, "True or False")
    return bool(value)


def path_of(name: str, value: Any) -> str:
    """Return a path as text.

    Raises:
        ConfigurationError: If it is none.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    require(isinstance(text, str), name, value, "a path")
    return str(text)


def file_options(temperature: Any, scale: Any, activation: Any, vec_normalize: Any) -> dict[str, Any]:
    """Return what a file of Stable-Baselines3 may lack, as arguments of its prior; ``None`` for what is not given.

    Raises:
        ConfigurationError: If a number is not > 0, or the others are no name and no path.
    """
    expected = "the name of a class of torch.nn, such as Tanh"
    require(activation is None or isinstance(activation, str), "activation", activation, expected)
    return {
        "temperature": positive("temperature", temperature),
        "scale": positive("scale", scale),
        "activation": activation,
        "vec_normalize": None if vec_normalize is None else path_of("vec_normalize", vec_normalize),
    }


def environment_arguments(given: Any) -> dict[str, Any]:
    """Return the arguments of the environment: NumPy's numbers and arrays, and tuples, as numbers and lists of Python.

    Objects that are no plain data stay as they are; no config can hold them.

    Raises:
        ConfigurationError: If they are no dictionary, name a render mode, or have a text that a config reads as
            something else.
    """
    accepted = given is None or (isinstance(given, Mapping) and all(isinstance(name, str) for name in given))
    require(accepted, "env_kwargs", given, "a dictionary of arguments by name")
    kwargs = {name: plain_of(value) for name, value in (given or {}).items()}
    if "render_mode" in kwargs:
        raise ConfigurationError(
            f"env_kwargs.render_mode: found {kwargs['render_mode']!r}, expected no render mode: it is chosen by what "
            "makes pictures; video says whether a video is made"
        )
    for name, value in kwargs.items():
        expected = "a value that a config gives back: it reads a text such as '3', 'on' or '1e3' as something else"
        require(not is_plain(value) or _is_given_back(value), f"env_kwargs.{name}", value, expected)
    return kwargs


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_given_back(value: Any) -> bool:
    """Return whether plain data is the same after it has been written into a config and read."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--arguments", type=dict[str, Any])
    written = parser.dump(parser.parse_object({"arguments": {"value": copy.deepcopy(value)}}))
    return repr(parser.parse_string(written).arguments) == repr({"value": value})
