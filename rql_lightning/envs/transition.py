"""What a step function is given: copies that are its own, and one environment's part of what a vector returns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate

Transition = tuple[Any, Any, Any, dict[str, Any]]
"""``(observation, action, next_observation, info)``: the four arguments of a step function."""


def copied(value: Any) -> Any:
    """The same observation, action or info in arrays of its own.

    Dictionaries, tuples and lists are rebuilt, arrays and tensors are copied; any other object is handed on as it is.
    """
    if isinstance(value, np.ndarray):
        if not value.dtype.hasobject:
            return value.copy()
        result = np.empty_like(value)
        for index in np.ndindex(value.shape):
            result[index] = copied(value[index])
        return result
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [copied(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value.clone() if isinstance(value, torch.Tensor) else value


def unshared(env: VectorEnv, result: Any) -> Any:
    """Return the result of a reset or step in arrays that the environment does not go on to write into.

    An environment whose class sets ``returns_new_arrays = True`` promises that; the results of all others are copied.
    """
    # The class is asked because a VectorWrapper forwards the attributes of the environment that it wraps.
    return result if getattr(type(env), "returns_new_arrays", False) else copied(result)


def numbers(value: Any) -> Iterator[np.ndarray]:
    """All arrays and numbers of an observation, whatever its space."""
    if isinstance(value, dict | tuple | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, np.ndarray | np.generic | float):
        yield np.asarray(value)


def rows(transition: Transition, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> Iterator[Any]:
    """Each environment's transition out of a vector environment's, whose batched spaces these are."""
    observation, action, next_observation, info = transition
    columns = (
        iterate(observation_space, observation),
        iterate(action_space, action),
        iterate(observation_space, next_observation),
    )
    for index, row in enumerate(zip(*columns, strict=True)):
        yield (*row, row_of_info(info, index))


def row_of_info(info: dict[str, Any], index: int) -> dict[str, Any]:
    """Return one environment's info from a vector environment's, where ``_key`` masks environments with a ``key``."""
    row = {}
    for key, value in info.items():
        if not key.startswith("_") and (f"_{key}" not in info or info[f"_{key}"][index]):
            row[key] = row_of_info(value, index) if isinstance(value, dict) else value[index]
    return row
