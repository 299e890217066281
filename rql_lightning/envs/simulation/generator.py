"""NumPy's ``Generator(PCG64(seed))``, draw for draw, in compiled code.

Gymnasium gives every environment such a generator. With the same draws in the same order a compiled environment starts,
from a seed, exactly the episodes that the reference starts from it.

A generator is a row of six ``uint64``: the 128 bits of the state (high, low), those of the increment, and the half of a
draw that the last 32-bit draw left over (whether there is one; its value). Source of the algorithm: O'Neill, *PCG: A
Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number Generation*, 2014 (XSL RR 128/64);
of the bounded integers: Lemire, *Fast Random Integer Generation in an Interval*, 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

WORDS = 6
_LOW_HALF = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MULTIPLIER_HIGH, _MULTIPLIER_LOW = np.uint64(2549297995355413924), np.uint64(4865540595714422341)


def seed_generator(seed: int | None) -> np.ndarray:
    """The generator that Gymnasium makes from a seed (``None``: from the system's entropy), ``uint64 [6]``."""
    return generator_from_state(np.random.PCG64(np.random.SeedSequence(seed)).state)


def generator_from_state(state: Any) -> np.ndarray:
    """``Generator.bit_generator.state`` as ``uint64 [6]``."""
    words = [state["state"]["state"] >> 64, state["state"]["state"], state["state"]["inc"] >> 64, state["state"]["inc"]]
    mask = (1 << 64) - 1
    return np.array([word & mask for word in words] + [state["has_uint32"], state["uinteger"]], dtype=np.uint64)


def generator_to_state(words: np.ndarray) -> dict[str, Any]:
    """The inverse of :func:`generator_from_state`."""
    number = [int(word) for word in words]
    state = {"state": number[0] << 64 | number[1], "inc": number[2] << 64 | number[3]}
    return {"bit_generator": "PCG64", "state": state, "has_uint32": number[4], "uinteger": number[5]}


@njit
def _high_product(a: np.uint64, b: np.uint64) -> np.uint64:
    """The upper 64 of the 128 bits of a product."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> _32, b & _LOW_HALF, b >> _32
    middle = a_high * b_low + (a_low * b_low >> _32)
    return a_high * b_high + (middle >> _32) + (a_low * b_high + (middle & _LOW_HALF) >> _32)


@njit
def _next_64(generator: np.ndarray) -> np.uint64:
    high, low = generator[0], generator[1]
    product = low * _MULTIPLIER_LOW
    carried = _high_product(low, _MULTIPLIER_LOW) + high * _MULTIPLIER_LOW + low * _MULTIPLIER_HIGH
    new_low = product + generator[3]
    carry = np.uint64(1) if new_low < product else np.uint64(0)
    new_high = carried + generator[2] + carry
    generator[0], generator[1] = new_high, new_low
    value, turn = new_high ^ new_low, new_high >> np.uint64(58)
    return (value >> turn) | (value << ((np.uint64(64) - turn) & np.uint64(63)))


@njit
def _next_32(generator: np.ndarray) -> np.uint64:
    if generator[4] != 0:
        generator[4] = 0
        return generator[5]
    value = _next_64(generator)
    generator[4], generator[5] = np.uint64(1), value >> _32
    return value & _LOW_HALF


@njit
def draw_uniform(generator: np.ndarray, low: float, high: float) -> float:
    """``Generator.uniform(low, high)``."""
    return low + (high - low) * (float(_next_64(generator) >> np.uint64(11)) / 9007199254740992.0)


@njit
def draw_choice(generator: np.ndarray, count: int) -> int:
    """``Generator.choice(count)`` = ``Generator.integers(count)``: one of 0 … count − 1; of one, nothing is drawn."""
    if count == 1:
        return 0
    bound = np.uint64(count)
    product = _next_32(generator) * bound
    if (product & _LOW_HALF) < bound:
        threshold = (_LOW_HALF - (bound - np.uint64(1))) % bound
        while (product & _LOW_HALF) < threshold:
            product = _next_32(generator) * bound
    return int(product >> _32)
