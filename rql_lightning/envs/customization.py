"""What a customised task adds to an environment, as functions of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rql_lightning.envs.maps import Map

RewardName = Literal["basic", "add_on", "total"]
StepFunction = Callable[[Any, Any, Any, dict[str, Any]], Any]
"""``(observation, action, next_observation, info) → float``; the vectorized form maps batches to results ``[N]``."""


@dataclass(frozen=True)
class Metric:
    """A number that measures the add-on objective: ``value`` at every step, reduced over the episode so far.

    Attributes:
        name: Key in ``info`` and in ``metrics.json``.
        value: Step function.
        reduction: ``mean``, ``sum``, ``min`` or ``max`` over the steps of the episode.
    """

    name: str
    value: StepFunction
    reduction: Literal["mean", "sum", "min", "max"] = "mean"


@dataclass(frozen=True)
class Customization:
    """What a task adds to an environment.

    Attributes:
        add_on_reward: r_R, a step function.
        basic_reward: r as a step function, or ``None`` for the environment's own reward.
        metric: The task's metric, or ``None``.
        is_success: Step function of bools, whose ``info`` also holds ``terminated``, ``truncated`` and ``step`` (from
            1); ``None`` takes ``info["is_success"]`` where the environment reports it. ``gym.make`` applies a
            ``max_episode_steps`` that differs from the id's own outside of the wrapper, where ``truncated`` does not
            know of it.
        vectorized: Whether the functions also take batches. The vector wrapper calls those that do not once per
            environment: correct, but slower.
        read_only: Whether all functions are known to write into none of their arguments. Each function is otherwise
            given copies, so that it may do with them what it likes.
        pictured: ``(label, step function)`` of the quantity whose distribution evaluation draws (computed there, not
            at every step), or ``None``.
        action_names: Names of discrete actions for pictures, or ``None`` for their numbers.
        map: Where states are on a map, for pictures of plans, or ``None``.
        observed_add_on_reward: r_R from observations, actions and ``info["terminated"]``, which are all that learned
            models predict; ``None`` if ``add_on_reward`` needs no more.
    """

    add_on_reward: StepFunction
    basic_reward: StepFunction | None = None
    metric: Metric | None = None
    is_success: StepFunction | None = None
    vectorized: bool = False
    read_only: bool = False
    pictured: tuple[str, StepFunction] | None = None
    action_names: tuple[str, ...] | None = None
    map: Map | None = None
    observed_add_on_reward: StepFunction | None = None

    def functions(self) -> dict[str, StepFunction]:
        """Return all step functions by the names used in messages."""
        named = {
            key: getattr(self, key) for key in ("add_on_reward", "basic_reward", "is_success", "observed_add_on_reward")
        }
        named |= {} if self.metric is None else {self.metric.name: self.metric.value}
        named |= {} if self.pictured is None else {self.pictured[0]: self.pictured[1]}
        return {name: function for name, function in named.items() if function is not None}


def as_customization(customization: Customization | StepFunction) -> Customization:
    """A customization as it is; or one of an add-on reward function alone."""
    return customization if isinstance(customization, Customization) else Customization(add_on_reward=customization)
