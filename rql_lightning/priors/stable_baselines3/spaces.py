"""The spaces of a model of Stable-Baselines3, from the readable fields of its file."""

from __future__ import annotations

import math
import re
from typing import Any

import gymnasium as gym
import numpy as np

from rql_lightning.errors import CheckpointError, SpaceMismatchError

FLATTENED = ("Discrete", "MultiDiscrete", "MultiBinary")  # one-hot, as in gymnasium.wrappers.FlattenObservation
FLOATS = {"float16": np.float16, "float32": np.float32, "float64": np.float64}


def check_observations(field: Any, where: str) -> None:
    """Refuse observations of a kind that is not supported.

    Args:
        field: The field ``observation_space`` of ``data``.
        where: File and field, for messages.

    Raises:
        SpaceMismatchError: If the observations are images, dictionaries or of another type that is not supported.
        CheckpointError: If the field is not readable.
    """
    kind = _kind(field, where)
    if kind != "Box" and kind not in FLATTENED:
        raise SpaceMismatchError(f"{where}: found {kind}, expected a Box or one of {', '.join(FLATTENED)}")
    if kind == "Box" and len(_shape(field, where)) == 3 and field.get("dtype") == "uint8":
        shape = _shape(field, where)
        raise SpaceMismatchError(f"{where}: found images of shape {shape}, expected vectors of numbers")


def read_observation_space(field: Any, inputs: int, where: str) -> gym.spaces.Box:
    """Return the space of the observations that the prior takes.

    Discrete observations are one-hot vectors, as ``gymnasium.wrappers.FlattenObservation`` returns them. Bounds that
    cannot be read are infinite, as no observation is scaled by them.

    Args:
        field: The field ``observation_space`` of ``data``, of a kind that is supported.
        inputs: Number of inputs of the network.
        where: File and field, for messages.

    Raises:
        CheckpointError: If the field is not readable or does not fit the network.
    """
    if _kind(field, where) in FLATTENED:
        return gym.spaces.Box(0.0, 1.0, (inputs,))
    shape = _shape(field, where)
    if math.prod(shape) != inputs:
        raise CheckpointError(f"{where}: found {math.prod(shape)} numbers, expected {inputs}, the network's inputs")
    low, high = (_numbers(field.get(key), inputs) for key in ("low", "high"))
    if low is None or high is None:
        low, high = np.full(inputs, -np.inf), np.full(inputs, np.inf)
    return _box(low.reshape(shape), high.reshape(shape), np.float32, where)


def read_action_space(field: Any, where: str) -> gym.Space[Any]:
    """Return the space of actions, ``Discrete`` or a ``Box`` with the bounds of the file.

    Args:
        field: The field ``action_space`` of ``data``.
        where: File and field, for messages.

    Raises:
        SpaceMismatchError: If the actions are of another type.
        CheckpointError: If the field is not readable.
    """
    kind = _kind(field, where)
    if kind == "Discrete":
        number, start = (re.fullmatch(r"\d{1,6}", str(field.get(key, default))) for key, default in _DISCRETE)
        if number is None or int(number[0]) < 1 or start is None:
            raise CheckpointError(f"{where}: found n {field.get('n')!r}, expected the number of actions")
        return gym.spaces.Discrete(int(number[0]), start=int(start[0]))
    if kind != "Box":
        raise SpaceMismatchError(f"{where}: found {kind}, expected Discrete or Box")
    shape, dtype = _shape(field, where), FLOATS.get(str(field.get("dtype")))
    size = math.prod(shape)
    low, high = (_numbers(field.get(key), size) for key in ("low", "high"))
    if low is None or high is None or dtype is None:
        raise CheckpointError(f"{where}: found bounds that are not readable, expected {size} floating-point numbers")
    return _box(low.reshape(shape), high.reshape(shape), dtype, where)


def _box(low: np.ndarray[Any, Any], high: np.ndarray[Any, Any], dtype: Any, where: str) -> gym.spaces.Box:
    """Create a space of given bounds, ``[*shape]``.

    Raises:
        CheckpointError: If a lower bound is NaN or not below its upper bound, or Gymnasium refuses the bounds.
    """
    wrong = ~(low <= high).ravel()
    if wrong.any():
        found = f"{low.ravel()[wrong][0]} and {high.ravel()[wrong][0]}"
        raise CheckpointError(f"{where}: found the bounds {found}, expected low <= high")
    try:
        with np.errstate(over="ignore"):
            return gym.spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)
    except (AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{where}: found bounds that are invalid ({reason}), expected low <= high") from error


_DISCRETE = (("n", ""), ("start", "0"))


def _kind(field: Any, where: str) -> str:
    """Return the name of the class of a space of Gymnasium or Gym."""
    text = str(field.get(":type:")) if isinstance(field, dict) else repr(field)
    match = re.fullmatch(r"<class '(?:gym|gymnasium)\.spaces\.\w+\.(\w+)'>", text)
    if match is None:
        raise CheckpointError(f"{where}: found {text[:80]}, expected a space of Gymnasium or Gym")
    return match[1]


def _shape(field: dict[str, Any], where: str) -> tuple[int, ...]:
    shape = field.get("_shape", field.get("shape"))
    if not isinstance(shape, list) or not all(type(size) is int and 0 < size < 2**31 for size in shape) or not shape:
        raise CheckpointError(f"{where}: found the shape {shape!r}, expected at least one positive integer")
    return tuple(shape)


def _numbers(text: Any, count: int) -> np.ndarray[Any, Any] | None:
    """Return the numbers of a printed array, ``[count]``, or ``None`` where it is abridged or something else."""
    words = re.sub(r"[\[\],]", " ", text).split() if isinstance(text, str) else []
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        return None
    return values if len(values) == count else None
