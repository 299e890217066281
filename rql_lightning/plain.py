"""Plain data: what a config file can hold."""

from __future__ import annotations

from typing import Any

import numpy as np

ATOMS = (type(None), bool, int, float, str)


def plain_of(value: Any) -> Any:
    """Return a value with scalars of NumPy as those of Python, and arrays and tuples as lists, at any depth."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain_of(value.tolist())
    if type(value) is dict:
        return {plain_of(key): plain_of(each) for key, each in value.items()}
    return [plain_of(each) for each in value] if type(value) in (list, tuple) else value


def is_plain(value: Any) -> bool:
    """Return whether a value is ``None``, a truth value, a number or a text, or consists of such by key or in order.

    Objects of subclasses, such as members of an enumeration, are not plain: a file would give back something else.
    """
    if type(value) is dict:
        return all(is_plain(each) for pair in value.items() for each in pair)
    return all(map(is_plain, value)) if type(value) in (list, tuple) else type(value) in ATOMS
