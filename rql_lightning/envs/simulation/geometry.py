"""Plane geometry of rectangles, in highway-env's arithmetic (``highway_env/utils.py``, ``RoadObject.polygon``)."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit
def wrap_to_pi(angle: float) -> float:
    """Return the angle wrapped to [−π, π)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


@njit
def not_zero(value: float) -> float:
    """The value, at least 0.01 away from 0."""
    if abs(value) > 1e-2:
        return value
    return 1e-2 if value >= 0 else -1e-2


@njit
def clip(value: float, low: float, high: float) -> float:
    """The value, limited to [low, high]."""
    return min(max(value, low), high)


@njit
def rectangle(corners: np.ndarray, x: float, y: float, heading: float, length: float, width: float) -> None:
    """Write the corners of a rectangle around (x, y) into ``corners [4, 2]``, in highway-env's order."""
    c, s = math.cos(heading), math.sin(heading)
    for k in range(4):
        along = length / 2 if k >= 2 else -length / 2
        across = width / 2 if k == 1 or k == 2 else -width / 2
        corners[k, 0] = c * along - s * across + x
        corners[k, 1] = s * along + c * across + y


@njit
def _project(corners: np.ndarray, axis_x: float, axis_y: float) -> tuple[float, float]:
    low = high = corners[0, 0] * axis_x + corners[0, 1] * axis_y
    for k in range(1, 4):
        value = corners[k, 0] * axis_x + corners[k, 1] * axis_y
        low, high = min(low, value), max(high, value)
    return low, high


@njit
def _gap(low_a: float, high_a: float, low_b: float, high_b: float) -> float:
    """Distance of two intervals, negative if they overlap."""
    return low_b - high_a if low_a < low_b else low_a - high_b


@njit
def intersect(a: np.ndarray, b: np.ndarray, motion_x: float, motion_y: float) -> tuple[bool, bool, float, float]:
    """Separating axes of two rectangles ``[4, 2]``, a moving by ``motion`` relative to b.

    As in highway-env's ``are_polygons_intersecting``, an early exit of the loop over a's axes does not skip b's axes.

    Returns:
        Whether they intersect, whether they will, and the translation (x, y) that pushes a out of b if they will.
    """
    center_x = (a[0, 0] + a[1, 0] + a[2, 0] + a[3, 0]) / 4 - (b[0, 0] + b[1, 0] + b[2, 0] + b[3, 0]) / 4
    center_y = (a[0, 1] + a[1, 1] + a[2, 1] + a[3, 1]) / 4 - (b[0, 1] + b[1, 1] + b[2, 1] + b[3, 1]) / 4
    intersecting, will_intersect = True, True
    smallest, push_x, push_y = np.inf, 0.0, 0.0
    for which in range(2):
        polygon = a if which == 0 else b
        for k in range(4):
            following = (k + 1) % 4
            normal_x = -polygon[following, 1] + polygon[k, 1]
            normal_y = polygon[following, 0] - polygon[k, 0]
            norm = math.sqrt(normal_x * normal_x + normal_y * normal_y)
            normal_x, normal_y = normal_x / norm, normal_y / norm
            low_a, high_a = _project(a, normal_x, normal_y)
            low_b, high_b = _project(b, normal_x, normal_y)
            if _gap(low_a, high_a, low_b, high_b) > 0:
                intersecting = False
            motion = normal_x * motion_x + normal_y * motion_y
            if motion < 0:
                low_a += motion
            else:
                high_a += motion
            distance = _gap(low_a, high_a, low_b, high_b)
            if distance > 0:
                will_intersect = False
            if not intersecting and not will_intersect:
                break
            if abs(distance) < smallest:
                smallest = abs(distance)
                outwards = 1.0 if center_x * normal_x + center_y * normal_y > 0 else -1.0
                push_x, push_y = outwards * normal_x, outwards * normal_y
    return intersecting, will_intersect, smallest * push_x, smallest * push_y
