"""Parking in compiled code: one car, fourteen slots on either side, and a goal in one of them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from rql_lightning.compilation import entry_point
from rql_lightning.envs.simulation.generator import draw_choice, draw_uniform
from rql_lightning.envs.simulation.geometry import intersect, rectangle, wrap_to_pi
from rql_lightning.envs.simulation.vehicles import LENGTH, WIDTH, integrate, limit_speed

CAR = np.dtype(
    [
        (name, np.float64)
        for name in (
            "x",
            "y",
            "heading",
            "speed",
            "goal_x",
            "goal_y",
            "goal_heading",
        )  # metres, radians, metres a second
    ]
)
"""The car and its goal. All fields are float64, so that an array of cars is a plain array too."""

SLOTS = 14  # on each side
SLOT_WIDTH, SLOT_LENGTH, AISLE = 4.0, 8.0, 10.0  # metres; the slots begin an aisle's breadth from y = 0
LINE_WIDTH = 0.1  # metres
SCALES = (100.0, 100.0, 5.0, 5.0, 1.0, 1.0)  # of x, y, vx, vy, cos ψ, sin ψ in observations
FEATURES = len(SCALES)


@njit
def _slot(index: int) -> tuple[float, float]:
    """Where a slot's centre line is (x), and which way it leads from the aisle (1: y grows, −1)."""
    column = index % SLOTS
    return (column + 1 - SLOTS // 2) * SLOT_WIDTH - SLOT_WIDTH / 2, 1.0 if index < SLOTS else -1.0


@njit
def _closest_slot(x: float, y: float, heading: float) -> int:
    """``RoadNetwork.get_closest_lane_index``: by position and heading, the first of equals."""
    best, least = 0, np.inf
    for index in range(2 * SLOTS):
        center, way = _slot(index)
        along = (y - way * AISLE) * way
        angle = abs(wrap_to_pi(heading - way * math.pi / 2))
        distance = abs(x - center) + max(along - SLOT_LENGTH, 0.0) + max(0.0 - along, 0.0) + angle
        if distance < least:
            best, least = index, distance
    return best


@njit
def _reset_one(car: np.record, generator: np.ndarray) -> None:
    """``ParkingEnv._create_vehicles`` with its draws: any heading, any slot but the closest as goal."""
    car.x, car.y, car.speed = 0.0, 0.0, 0.0
    car.heading = 2.0 * math.pi * draw_uniform(generator, 0.0, 1.0)
    goal = draw_choice(generator, 2 * SLOTS - 1)
    if goal >= _closest_slot(car.x, car.y, car.heading):
        goal += 1
    center, way = _slot(goal)
    car.goal_x, car.goal_y, car.goal_heading = center, way * (AISLE + SLOT_LENGTH / 2), way * math.pi / 2


@njit
def _step_one(car: np.record, acceleration: float, steering: float, sub_steps: int, dt: float) -> None:
    for _ in range(sub_steps):
        acceleration = limit_speed(car.speed, acceleration)
        integrate(car, steering, dt)
        car.speed += acceleration * dt


@njit
def touches_line(car: np.record, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the car touches one of the two side lines of its goal; ``a``, ``b`` are scratch space ``[4, 2]``."""
    rectangle(a, car.x, car.y, car.heading, LENGTH, WIDTH)
    for side in (-1.0, 1.0):
        rectangle(b, car.goal_x + side * SLOT_WIDTH / 2, car.goal_y, car.goal_heading, SLOT_LENGTH, LINE_WIDTH)
        if intersect(a, b, 0.0, 0.0)[0]:
            return True
    return False


@njit
def _observe_one(car: np.record, weights: np.ndarray, observation: np.ndarray, outcome: np.ndarray) -> None:
    """The goal and the car ``[12]``; outcome: −(w · abs(achieved − desired))^½, and whether a line is touched."""
    c, s = math.cos(car.heading), math.sin(car.heading)
    achieved = (car.x, car.y, car.speed * c, car.speed * s, c, s)
    desired = (car.goal_x, car.goal_y, 0.0, 0.0, math.cos(car.goal_heading), math.sin(car.goal_heading))
    distance = 0.0
    for k in range(FEATURES):
        observation[k], observation[FEATURES + k] = desired[k] / SCALES[k], achieved[k] / SCALES[k]
        distance += weights[k] * abs(achieved[k] / SCALES[k] - desired[k] / SCALES[k])
    outcome[0] = -math.sqrt(distance)
    outcome[1] = 1.0 if touches_line(car, np.empty((4, 2)), np.empty((4, 2))) else 0.0


def _reset(
    cars: np.ndarray,
    generators: np.ndarray,
    times: np.ndarray,
    mask: np.ndarray,
    weights: np.ndarray,
    observations: np.ndarray,
    outcomes: np.ndarray,
) -> None:
    for index in range(len(cars)):
        if mask[index]:
            _reset_one(cars[index], generators[index])
            times[index] = 0.0
            _observe_one(cars[index], weights, observations[index], outcomes[index])


def _step(
    cars: np.ndarray,
    times: np.ndarray,
    accelerations: np.ndarray,
    steerings: np.ndarray,
    sub_steps: int,
    dt: float,
    step_seconds: float,
    weights: np.ndarray,
    observations: np.ndarray,
    outcomes: np.ndarray,
) -> None:
    for index in prange(len(cars)):
        _step_one(cars[index], accelerations[index], steerings[index], sub_steps, dt)
        times[index] += step_seconds
        _observe_one(cars[index], weights, observations[index], outcomes[index])


def _observe(cars: np.ndarray, weights: np.ndarray, observations: np.ndarray, outcomes: np.ndarray) -> None:
    for index in range(len(cars)):
        _observe_one(cars[index], weights, observations[index], outcomes[index])


reset = entry_point(_reset)
"""``(cars [N], generators [N, 6], times [N], mask [N], weights [6], observations [N, 12], outcomes [N, 2])``: new
episodes where ``mask``."""
observe = entry_point(_observe)
"""``(cars, weights, observations, outcomes)``: write both, of all environments."""
step = entry_point(_step)
"""``(cars, times, accelerations [N], steerings [N], sub_steps, dt, step_seconds, weights, observations, outcomes)``."""
step_parallel = entry_point(_step, parallel=True)
