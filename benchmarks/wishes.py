"""The wishes of ``benchmarks/customize.py``, in a module of their own so that configs can name them."""

from typing import Any


def centre(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """CartPole: stay at the centre of the track."""
    return -abs(float(next_observation[0]))


def coast(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """Acrobot: apply no torque where none is needed."""
    return -float(action != 1)


def no_side_engines(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """LunarLander: fire the side engines rarely."""
    return -float(action in (1, 3))


def little_torque(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """Pendulum: apply little torque."""
    return -abs(float(action[0]))


def no_push_to_the_left(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """MountainCarContinuous: do not push to the left."""
    return -0.1 * float(action[0] < 0)


def no_acceleration_to_the_left(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """MountainCar with discrete actions: accelerate to the left as rarely as possible."""
    return -0.1 * float(action == 0)
