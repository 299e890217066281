"""What the compiled road keeps of a vehicle, and the motions that all share (highway-env: ``Vehicle.step``)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

VEHICLE = np.dtype(
    [
        (name, np.float64)
        for name in (
            "x",  # metres along the road
            "y",  # metres across it, 0 on the centre of the leftmost lane, growing to the right
            "heading",  # radians, 0 along the road, growing to the right
            "speed",  # metres a second
            "lane",  # index of the closest lane, 0 the leftmost
            "target_lane",  # index of the lane that is steered to
            "target_speed",  # metres a second
            "exponent",  # of the speed term in the intelligent driver model (traffic only)
            "timer",  # seconds since the last thought of a lane change (traffic only)
            "crashed",  # 0 or 1
            "has_impact",  # 0 or 1: whether a collision will move the vehicle in the next sub-step,
            "impact_x",  # by so many metres
            "impact_y",
        )
    ]
)
"""One vehicle. All fields are float64, so that an array of vehicles is a plain array too."""

LANE_WIDTH = 4.0
LANE_LENGTH = 10_000.0
LENGTH, WIDTH = 5.0, 2.0
DIAGONAL = math.sqrt(LENGTH**2 + WIDTH**2)
MAX_SPEED = 40.0


class Road(NamedTuple):
    """What the laws of motion need to know; compiled code takes it as an argument.

    Attributes:
        lanes: Number of lanes.
        speed_limit: Metres a second.
        dt: Seconds of a sub-step.
    """

    lanes: int
    speed_limit: float
    dt: float


@njit
def lateral(y: float, lane: float) -> float:
    """Metres to the right of a lane's centre."""
    return y - LANE_WIDTH * lane


@njit
def is_on_lane(x: float, y: float, lane: float, margin: float) -> bool:
    """``AbstractLane.on_lane``."""
    return abs(lateral(y, lane)) <= LANE_WIDTH / 2 + margin and -LENGTH <= x < LANE_LENGTH + LENGTH


@njit
def is_reachable(x: float, y: float, lane: float) -> bool:
    """``AbstractLane.is_reachable_from``."""
    return abs(lateral(y, lane)) <= 2 * LANE_WIDTH and 0 <= x < LANE_LENGTH + LENGTH


@njit
def closest_lane(x: float, y: float, heading: float, lanes: int) -> float:
    """``RoadNetwork.get_closest_lane_index``: by position and heading, the first of equals."""
    angle = abs((heading + math.pi) % (2 * math.pi) - math.pi)
    best, least = 0, np.inf
    for lane in range(lanes):
        distance = abs(lateral(y, lane)) + max(x - LANE_LENGTH, 0.0) + max(0.0 - x, 0.0) + angle
        if distance < least:
            best, least = lane, distance
    return float(best)


@njit
def limit_speed(speed: float, acceleration: float) -> float:
    """``Vehicle.clip_actions``: beyond the limits of speed, accelerate no further."""
    if speed > MAX_SPEED:
        return min(acceleration, MAX_SPEED - speed)
    if speed < -MAX_SPEED:
        return max(acceleration, -MAX_SPEED - speed)
    return acceleration


@njit
def integrate(vehicle: np.record, steering: float, dt: float) -> None:
    """The kinematic bicycle (``Vehicle.step``): where a vehicle is and heads to after ``dt`` at its speed."""
    if steering == 0 and vehicle.heading == 0:  # most of the traffic, most of the time: the same without trigonometry
        vehicle.x += vehicle.speed * dt
        return
    slip = math.atan(0.5 * math.tan(steering))
    vehicle.x += vehicle.speed * math.cos(vehicle.heading + slip) * dt
    vehicle.y += vehicle.speed * math.sin(vehicle.heading + slip) * dt
    vehicle.heading += vehicle.speed * math.sin(slip) / (LENGTH / 2) * dt


@njit
def move(vehicle: np.record, steering: float, acceleration: float, road: Road) -> None:
    """One sub-step on the road, with the consequences of earlier collisions."""
    if vehicle.crashed != 0:
        steering, acceleration = 0.0, -1.0 * vehicle.speed
    acceleration = limit_speed(vehicle.speed, acceleration)
    integrate(vehicle, steering, road.dt)
    if vehicle.has_impact != 0:
        vehicle.x += vehicle.impact_x
        vehicle.y += vehicle.impact_y
        vehicle.crashed, vehicle.has_impact = 1.0, 0.0
        vehicle.impact_x, vehicle.impact_y = 0.0, 0.0
    vehicle.speed += acceleration * road.dt
    vehicle.lane = closest_lane(vehicle.x, vehicle.y, vehicle.heading, road.lanes)
