"""Highway in compiled code: resetting, stepping and observing one environment or all of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from rql_lightning.compilation import entry_point
from rql_lightning.envs.simulation.generator import draw_choice, draw_uniform
from rql_lightning.envs.simulation.geometry import clip, intersect, rectangle
from rql_lightning.envs.simulation.traffic import control, drive, obey, sort_by_position, speed_index
from rql_lightning.envs.simulation.vehicles import (
    DIAGONAL,
    LANE_WIDTH,
    LENGTH,
    MAX_SPEED,
    WIDTH,
    Road,
    closest_lane,
    is_on_lane,
    move,
)

PERCEPTION_DISTANCE = 5.0 * MAX_SPEED  # metres
FEATURES = 5  # presence, x, y, vx, vy
REWARDS = ("collision_reward", "right_lane_reward", "high_speed_reward", "on_road_reward")
"""The terms of highway-env's ``_rewards``, the columns of the ``rewards`` of :func:`step`."""


class Scene(NamedTuple):
    """A configuration as compiled code takes it.

    Attributes:
        lanes, speed_limit, dt: Of the road and a sub-step (:class:`Road`; ``prange`` takes no nested tuples).
        sub_steps: Of a policy step.
        step_seconds: Of a policy step.
        ego_lane: In which the ego vehicle starts; −1 for any.
        ego_spacing: Relative gap in front of the ego vehicle at the start.
        traffic_spacing: That of the traffic, 1 / density.
        least_speed, most_speed: Where the reward of speed is 0 and 1, m/s.
    """

    lanes: int
    speed_limit: float
    dt: float
    sub_steps: int
    step_seconds: float
    ego_lane: int
    ego_spacing: float
    traffic_spacing: float
    least_speed: float
    most_speed: float


@njit
def _place(
    vehicles: np.ndarray, index: int, lane: int, speed: float, spacing: float, scene: Scene, generator: np.ndarray
) -> None:
    """``Vehicle.create_random``: on a lane, ahead of all others, at a random distance."""
    offset = spacing * (12 + 1.0 * speed) * math.exp(-5 / 40 * scene.lanes)
    x = 3 * offset
    for other in range(index):
        x = vehicles[other].x if other == 0 else max(x, vehicles[other].x)
    vehicle = vehicles[index]
    vehicle.x = x + offset * draw_uniform(generator, 0.9, 1.1)
    vehicle.y = LANE_WIDTH * lane
    vehicle.heading, vehicle.speed = 0.0, speed
    vehicle.lane = closest_lane(vehicle.x, vehicle.y, 0.0, scene.lanes)
    vehicle.target_lane, vehicle.target_speed = vehicle.lane, speed
    vehicle.exponent, vehicle.timer = 0.0, 0.0
    vehicle.crashed, vehicle.has_impact, vehicle.impact_x, vehicle.impact_y = 0.0, 0.0, 0.0, 0.0


@njit
def _reset_one(vehicles: np.ndarray, scene: Scene, target_speeds: np.ndarray, generator: np.ndarray) -> None:
    """``HighwayEnv._create_vehicles`` with its draws in their order; the ego vehicle is the first."""
    lanes = scene.lanes
    lane = draw_choice(generator, lanes) if scene.ego_lane < 0 else scene.ego_lane
    _place(vehicles, 0, lane, 25.0, scene.ego_spacing, scene, generator)
    vehicles[0].target_speed = target_speeds[speed_index(25.0, target_speeds)]
    limit = scene.speed_limit
    for index in range(1, len(vehicles)):
        lane = draw_choice(generator, lanes)
        speed = draw_uniform(generator, 0.7 * limit, 0.8 * limit)
        _place(vehicles, index, lane, speed, scene.traffic_spacing, scene, generator)
        vehicles[index].timer = (vehicles[index].x + vehicles[index].y) * math.pi % 1.0
        vehicles[index].exponent = draw_uniform(generator, 3.5, 4.5)


@njit
def _collide(vehicles: np.ndarray, dt: float, a: np.ndarray, b: np.ndarray) -> None:
    """``RoadObject.handle_collisions`` of all pairs: who is crashed, and who is pushed where in the next sub-step."""
    for i in range(len(vehicles)):
        vehicle = vehicles[i]
        reach = DIAGONAL + vehicle.speed * dt
        for j in range(i + 1, len(vehicles)):
            other = vehicles[j]
            dx = other.x - vehicle.x
            if abs(dx) > reach:
                continue
            dy = other.y - vehicle.y
            if math.sqrt(dx * dx + dy * dy) > reach:
                continue
            rectangle(a, vehicle.x, vehicle.y, vehicle.heading, LENGTH, WIDTH)
            rectangle(b, other.x, other.y, other.heading, LENGTH, WIDTH)
            motion_x = vehicle.speed * math.cos(vehicle.heading) * dt - other.speed * math.cos(other.heading) * dt
            motion_y = vehicle.speed * math.sin(vehicle.heading) * dt - other.speed * math.sin(other.heading) * dt
            intersecting, will_intersect, push_x, push_y = intersect(a, b, motion_x, motion_y)
            if will_intersect:
                vehicle.has_impact, vehicle.impact_x, vehicle.impact_y = 1.0, push_x / 2, push_y / 2
                other.has_impact, other.impact_x, other.impact_y = 1.0, -push_x / 2, -push_y / 2
            if intersecting:
                vehicle.crashed, other.crashed = 1.0, 1.0


@entry_point
def step_one(vehicles: np.ndarray, action: int, scene: Scene, target_speeds: np.ndarray) -> None:
    """One policy step: the meta-action, then sub-steps in which vehicles decide in turn and move together."""
    count, road = len(vehicles), Road(scene.lanes, scene.speed_limit, scene.dt)
    order, rank = np.arange(count), np.empty(count, dtype=np.int64)
    steering, acceleration = np.empty(count), np.empty(count)
    a, b = np.empty((4, 2)), np.empty((4, 2))
    for sub_step in range(scene.sub_steps):
        if sub_step == 0:
            obey(vehicles[0], action, target_speeds, scene.lanes)
        sort_by_position(vehicles, order, rank)
        steering[0], acceleration[0] = control(vehicles[0])
        for index in range(1, count):
            steering[index], acceleration[index] = drive(vehicles, order, rank, index, road)
            vehicles[index].timer += scene.dt
        for index in range(count):
            move(vehicles[index], steering[index], acceleration[index], road)
        _collide(vehicles, scene.dt, a, b)


@njit
def _observe_one(vehicles: np.ndarray, lanes: int, see_behind: bool, observation: np.ndarray) -> None:
    """``KinematicObservation``: the ego vehicle, then the closest others along the road, ``[rows · 5]``."""
    ego = vehicles[0]
    rows = len(observation) // FEATURES
    count = len(vehicles)
    distance, chosen = np.full(count, np.inf), np.zeros(rows, dtype=np.int64)
    for index in range(1, count):
        dx, dy = vehicles[index].x - ego.x, vehicles[index].y - ego.y
        if math.sqrt(dx * dx + dy * dy) < PERCEPTION_DISTANCE and (see_behind or dx > -2 * LENGTH):
            distance[index] = abs(dx)
    observation[:] = 0.0
    ranges = (PERCEPTION_DISTANCE, LANE_WIDTH * lanes, 2 * MAX_SPEED, 2 * MAX_SPEED)
    for row in range(rows):
        if row > 0:
            nearest = 0
            for index in range(1, count):
                if distance[index] < distance[nearest]:
                    nearest = index
            if nearest == 0:
                break
            chosen[row], distance[nearest] = nearest, np.inf
        seen = vehicles[chosen[row]]
        c, s = math.cos(seen.heading), math.sin(seen.heading)
        values = (seen.x, seen.y, seen.speed * c, seen.speed * s)
        if row > 0:
            c, s = math.cos(ego.heading), math.sin(ego.heading)
            values = (values[0] - ego.x, values[1] - ego.y, values[2] - ego.speed * c, values[3] - ego.speed * s)
        observation[row * FEATURES] = 1.0
        for k in range(4):
            scaled = -1 + (values[k] + ranges[k]) * 2 / (2 * ranges[k])
            observation[row * FEATURES + 1 + k] = clip(scaled, -1.0, 1.0)


@njit
def _reward_one(ego: np.record, scene: Scene, rewards: np.ndarray) -> None:
    """``HighwayEnv._rewards``, ``[4]`` as in :data:`REWARDS`."""
    forward = ego.speed * math.cos(ego.heading)
    rewards[0] = ego.crashed
    rewards[1] = ego.target_lane / max(scene.lanes - 1, 1)
    rewards[2] = clip((forward - scene.least_speed) / (scene.most_speed - scene.least_speed), 0.0, 1.0)
    rewards[3] = 1.0 if is_on_lane(ego.x, ego.y, ego.lane, 0.0) else 0.0


@entry_point
def report_one(
    vehicles: np.ndarray, scene: Scene, see_behind: bool, observation: np.ndarray, rewards: np.ndarray
) -> None:
    """Write the observation and the terms of the reward of one environment."""
    _observe_one(vehicles, scene.lanes, see_behind, observation)
    _reward_one(vehicles[0], scene, rewards)


def _reset(
    vehicles: np.ndarray,
    generators: np.ndarray,
    times: np.ndarray,
    mask: np.ndarray,
    scene: Scene,
    target_speeds: np.ndarray,
    see_behind: bool,
    observations: np.ndarray,
    rewards: np.ndarray,
) -> None:
    for index in range(len(vehicles)):
        if mask[index]:
            _reset_one(vehicles[index], scene, target_speeds, generators[index])
            times[index] = 0.0
            report_one(vehicles[index], scene, see_behind, observations[index], rewards[index])


def _step(
    vehicles: np.ndarray,
    times: np.ndarray,
    actions: np.ndarray,
    scene: Scene,
    target_speeds: np.ndarray,
    see_behind: bool,
    observations: np.ndarray,
    rewards: np.ndarray,
) -> None:
    for index in prange(len(vehicles)):
        step_one(vehicles[index], actions[index], scene, target_speeds)
        times[index] += scene.step_seconds
        report_one(vehicles[index], scene, see_behind, observations[index], rewards[index])


def _observe(
    vehicles: np.ndarray, scene: Scene, see_behind: bool, observations: np.ndarray, rewards: np.ndarray
) -> None:
    for index in range(len(vehicles)):
        report_one(vehicles[index], scene, see_behind, observations[index], rewards[index])


reset = entry_point(_reset)
"""``(vehicles [N, V], generators [N, 6], times [N], mask [N], scene, target_speeds, see_behind, observations [N, D],
rewards [N, 4])``: new episodes where ``mask``."""
step = entry_point(_step)
"""``(vehicles, times, actions [N], scene, target_speeds, see_behind, observations, rewards)``."""
step_parallel = entry_point(_step, parallel=True)
observe = entry_point(_observe)
"""``(vehicles, scene, see_behind, observations, rewards)``: write both, of all environments."""
