"""The decisions of highway-env's vehicles: IDM, MOBIL, and the steering and speed controllers.

``IDMVehicle`` is the traffic; ``MDPVehicle`` is the ego vehicle, with meta-actions. Sources: Treiber et al., *Congested
traffic states in empirical observations and microscopic simulations*, 2000 (intelligent driver model); Kesting et al.,
*General lane-changing model MOBIL for car-following models*, 2007; constants are highway-env's.

Within a sub-step, vehicles decide one after the other and take into account the decisions of the vehicles before them.
Positions, headings and speeds do not change meanwhile, so vehicles are sorted by x once per sub-step
(:func:`sort_by_position`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from rql_lightning.envs.simulation.geometry import clip, not_zero, wrap_to_pi
from rql_lightning.envs.simulation.vehicles import LENGTH, Road, is_on_lane, is_reachable, lateral

NOBODY = -1
LANE_LEFT, IDLE, LANE_RIGHT, FASTER, SLOWER = range(5)

_KP_SPEED, _KP_HEADING, _KP_LATERAL = 1 / 0.6, 1 / 0.2, 1 / 0.6  # 1/s
_MAX_STEERING = math.pi / 3
_MAX_ACCELERATION, _COMFORT_ACCELERATION, _COMFORT_BRAKING = 6.0, 3.0, -5.0  # m/s²
_WANTED_DISTANCE, _WANTED_TIME = 5.0 + LENGTH, 1.5  # m, s
_LEAST_GAIN, _MOST_BRAKING_IMPOSED, _LANE_CHANGE_DELAY = 0.2, 2.0, 1.0  # m/s², m/s², s


@njit
def sort_by_position(vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray) -> None:
    """Sort vehicle indices by x, equals by index, into ``order``; ``rank`` is its inverse. Fast if nearly sorted."""
    for k in range(1, len(order)):
        moved = order[k]
        x = vehicles[moved].x
        place = k
        while place > 0:
            before = order[place - 1]
            if vehicles[before].x < x or (vehicles[before].x == x and before < moved):
                break
            order[place] = before
            place -= 1
        order[place] = moved
    for k in range(len(order)):
        rank[order[k]] = k


@njit
def vehicle_ahead(vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray, own: int, lane: float) -> int:
    """Return the vehicle ahead (``Road.neighbour_vehicles``) or ``NOBODY``; equal x is ahead, and the last wins."""
    start = rank[own]
    while start > 0 and vehicles[order[start - 1]].x == vehicles[own].x:
        start -= 1
    ahead = NOBODY
    for k in range(start, len(order)):
        other = order[k]
        if ahead != NOBODY and vehicles[other].x > vehicles[ahead].x:
            break
        if other != own and is_on_lane(vehicles[other].x, vehicles[other].y, lane, 1.0):
            ahead = other
    return ahead


@njit
def vehicle_behind(vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray, own: int, lane: float) -> int:
    """Return the vehicle behind (``Road.neighbour_vehicles``) or ``NOBODY``; among equal x the first wins."""
    behind = NOBODY
    for k in range(rank[own] - 1, -1, -1):
        other = order[k]
        if behind != NOBODY and vehicles[other].x < vehicles[behind].x:
            break
        if vehicles[other].x < vehicles[own].x and is_on_lane(vehicles[other].x, vehicles[other].y, lane, 1.0):
            behind = other
    return behind


@njit
def desired_gap(vehicle: np.record, front: np.record) -> float:
    """``IDMVehicle.desired_gap``, metres; the difference of velocities projected on the own direction."""
    if vehicle.heading == 0 and front.heading == 0:
        approach = vehicle.speed - front.speed
    else:
        c, s = math.cos(vehicle.heading), math.sin(vehicle.heading)
        across = vehicle.speed * s - front.speed * math.sin(front.heading)
        approach = (vehicle.speed * c - front.speed * math.cos(front.heading)) * c + across * s
    braking = 2 * math.sqrt(-_COMFORT_ACCELERATION * _COMFORT_BRAKING)
    return _WANTED_DISTANCE + vehicle.speed * _WANTED_TIME + vehicle.speed * approach / braking


@njit
def free_acceleration(vehicle: np.record, exponent: float, road: Road) -> float:
    """The part of ``IDMVehicle.acceleration`` without a vehicle in front, m/s²; exponent: of the vehicle that asks."""
    target = abs(not_zero(clip(vehicle.target_speed, 0.0, road.speed_limit)))
    return _COMFORT_ACCELERATION * (1 - (max(vehicle.speed, 0.0) / target) ** exponent)


@njit
def following_acceleration(vehicles: np.ndarray, who: int, front: int, free: float) -> float:
    """``IDMVehicle.acceleration`` of ``who`` behind ``front``, m/s², given its free acceleration."""
    if front == NOBODY:
        return free
    vehicle, other = vehicles[who], vehicles[front]
    ratio = desired_gap(vehicle, other) / not_zero(other.x - vehicle.x)
    return free - _COMFORT_ACCELERATION * (ratio * ratio)


@njit
def mobil(
    vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray, own: int, lane: float, free: float, road: Road
) -> bool:
    """``IDMVehicle.mobil``: whether the lane is worth changing to (politeness 0, no planned route)."""
    new_behind = vehicle_behind(vehicles, order, rank, own, lane)
    if new_behind != NOBODY:
        its_free = free_acceleration(vehicles[new_behind], vehicles[own].exponent, road)
        if following_acceleration(vehicles, new_behind, own, its_free) < -_MOST_BRAKING_IMPOSED:
            return False
    new_ahead = vehicle_ahead(vehicles, order, rank, own, lane)
    old_ahead = vehicle_ahead(vehicles, order, rank, own, vehicles[own].lane)
    after = following_acceleration(vehicles, own, new_ahead, free)
    return not after - following_acceleration(vehicles, own, old_ahead, free) < _LEAST_GAIN


@njit
def choose_lane(vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray, own: int, free: float, road: Road) -> None:
    """``IDMVehicle.change_lane_policy``: continue a lane change, abort it, or consider a new one every second."""
    vehicle = vehicles[own]
    if vehicle.lane != vehicle.target_lane:
        for other in range(len(vehicles)):
            rival = vehicles[other]
            if other == own or rival.lane == vehicle.target_lane or rival.target_lane != vehicle.target_lane:
                continue
            if 0 < rival.x - vehicle.x < desired_gap(vehicle, rival):
                vehicle.target_lane = vehicle.lane
                break
        return
    if vehicle.timer <= _LANE_CHANGE_DELAY:
        return
    vehicle.timer = 0.0
    for side in (-1.0, 1.0):
        lane = vehicle.lane + side
        if not (0 <= lane < road.lanes and is_reachable(vehicle.x, vehicle.y, lane)) or abs(vehicle.speed) < 1:
            continue
        if mobil(vehicles, order, rank, own, lane, free, road):
            vehicle.target_lane = lane


@njit
def steer(vehicle: np.record) -> float:
    """``ControlledVehicle.steering_control`` to the target lane, radians."""
    offset = lateral(vehicle.y, vehicle.target_lane)
    if offset == 0 and vehicle.heading == 0:
        return 0.0
    speed = not_zero(vehicle.speed)
    heading = math.asin(clip(-_KP_LATERAL * offset / speed, -1.0, 1.0))
    turn = _KP_HEADING * wrap_to_pi(clip(heading, -math.pi / 4, math.pi / 4) - vehicle.heading)
    slip = math.asin(clip(LENGTH / 2 / speed * turn, -1.0, 1.0))
    return clip(math.atan(2 * math.tan(slip)), -_MAX_STEERING, _MAX_STEERING)


@njit
def drive(vehicles: np.ndarray, order: np.ndarray, rank: np.ndarray, own: int, road: Road) -> tuple[float, float]:
    """``IDMVehicle.act`` of one vehicle of the traffic: steering and acceleration."""
    vehicle = vehicles[own]
    if vehicle.crashed != 0:
        return 0.0, 0.0
    free = free_acceleration(vehicle, vehicle.exponent, road)
    choose_lane(vehicles, order, rank, own, free, road)
    ahead = vehicle_ahead(vehicles, order, rank, own, vehicle.lane)
    acceleration = following_acceleration(vehicles, own, ahead, free)
    if vehicle.lane != vehicle.target_lane:
        ahead = vehicle_ahead(vehicles, order, rank, own, vehicle.target_lane)
        acceleration = min(acceleration, following_acceleration(vehicles, own, ahead, free))
    return steer(vehicle), clip(acceleration, -_MAX_ACCELERATION, _MAX_ACCELERATION)


@njit
def speed_index(speed: float, target_speeds: np.ndarray) -> int:
    """``MDPVehicle.speed_to_index``: the closest of evenly spaced target speeds."""
    last = len(target_speeds) - 1
    part = (speed - target_speeds[0]) / (target_speeds[last] - target_speeds[0])
    return int(clip(np.rint(part * last), 0, last))


@njit
def obey(ego: np.record, action: int, target_speeds: np.ndarray, lanes: int) -> None:
    """``MDPVehicle.act`` of a meta-action: change the target speed or the target lane."""
    if action in (FASTER, SLOWER):
        index = speed_index(ego.speed, target_speeds) + (1 if action == FASTER else -1)
        ego.target_speed = target_speeds[min(max(index, 0), len(target_speeds) - 1)]
    elif action in (LANE_LEFT, LANE_RIGHT):
        lane = clip(ego.target_lane + (1.0 if action == LANE_RIGHT else -1.0), 0.0, lanes - 1.0)
        if is_reachable(ego.x, ego.y, lane):
            ego.target_lane = lane


@njit
def control(ego: np.record) -> tuple[float, float]:
    """``ControlledVehicle.act`` without an action: steering and acceleration of the ego vehicle."""
    return steer(ego), _KP_SPEED * (ego.target_speed - ego.speed)
