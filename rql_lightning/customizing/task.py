"""The environment and the wish, checked before anything is trained."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from rql_lightning.customizing.arguments import environment_arguments
from rql_lightning.customizing.paths import import_path
from rql_lightning.envs import Customization, register_task
from rql_lightning.envs.registration import UNNAMED_IDS, make_vector_env, no_wish
from rql_lightning.errors import ConfigurationError, RqlError, require
from rql_lightning.plain import is_plain
from rql_lightning.reporting.console import tell
from rql_lightning.reporting.videos import ADVICE, KEY, check_renders

Wish = str | Callable[..., Any] | Customization
FUNCTION = "a function (observation, action, next_observation, info) -> float"
STEPS = 3
"""Steps of random actions with which a wish is tried."""


@dataclass(frozen=True)
class WishedTask:
    """An environment with an add-on reward.

    Attributes:
        env: Gymnasium id; one of the call's own for an add-on reward without an import path.
        title: What the user calls the task: the id that was given, and the name of the add-on reward.
        base: Gymnasium id that was given.
        add_on_reward: Import path of the add-on reward; ``None`` if the id has one of its own.
        env_kwargs: Further arguments of the environment.
        observation_space, action_space: Spaces of one environment.
        metric: Name of the task's metric, or ``None``.
        unnamed: What of the task a config cannot name.
    """

    env: str
    base: str
    title: str
    add_on_reward: str | None
    env_kwargs: dict[str, Any]
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    metric: str | None
    unnamed: tuple[str, ...] = ()

    def make_env(self, num_envs: int) -> VectorEnv:
        """Create a vector environment that returns the add-on reward."""
        return _make(self.env, self.add_on_reward, self.env_kwargs, num_envs)

    @property
    def max_episode_steps(self) -> int | None:
        """Time limit, or ``None`` if it is the environment's own affair."""
        own = gym.spec(self.env.rpartition(":")[2]).max_episode_steps
        limit = self.env_kwargs.get("max_episode_steps", own)
        return None if limit == -1 else limit

    def can_be_filmed(self) -> bool:
        """Return whether the environment renders pictures; tell the user if it does not."""
        try:
            check_renders(self.env, self.env_kwargs)
        except RqlError as error:
            reason = str(error).removeprefix(f"{KEY}: ").removesuffix(ADVICE)  # customize has no such key
            tell(f"warning: no video: {reason}; video=False (--video=false) makes none")
            return False
        return True


def read_task(env: str, wish: Wish | None, env_kwargs: dict[str, Any] | None = None) -> WishedTask:
    """Find environment and wish, and try the wish for a few steps.

    Args:
        env: Gymnasium id; ``module:id`` imports ``module`` first.
        wish: Add-on reward as a function, as its import path or as a customization; ``None`` for an id with its own.
        env_kwargs: Further arguments of the environment.

    Raises:
        ConfigurationError: If there is no add-on reward, or it is neither a function nor the path of one; or if the
            arguments are not a dictionary, or cannot be given.
        EnvironmentContractError: If the id is unknown, or the add-on reward raises or returns anything but a number.
    """
    kwargs = environment_arguments(env_kwargs)
    require(isinstance(env, str), "env", env, "a Gymnasium id, such as Pendulum-v1")
    base, title = env, env if wish is None else f"{env} with {_described(wish)}"
    accepted = wish is None or isinstance(wish, str | Customization) or callable(wish)
    require(accepted, "add_on_reward", wish, FUNCTION)
    path = wish if isinstance(wish, str) or wish is None else import_path(wish)
    unnamed = [f"data.env_kwargs.{name}" for name, value in kwargs.items() if not is_plain(value)]
    if wish is not None and not isinstance(wish, str) and path is None:
        env = _registered(env, wish, kwargs)
        unnamed.append(f"data.env: its add-on reward, {_described(wish)}")
    with closing(_make(env, path, kwargs, 2)) as vector:
        if vector.customization.add_on_reward is no_wish:
            raise ConfigurationError(f"add_on_reward: found None, expected {FUNCTION}: {env} has none of its own")
        _try(vector)
        spaces = (vector.single_observation_space, vector.single_action_space)
        metric = vector.customization.metric
    return WishedTask(env, base, title, path, kwargs, *spaces, None if metric is None else metric.name, tuple(unnamed))


def _make(env: str, add_on_reward: str | None, env_kwargs: dict[str, Any], num_envs: int) -> VectorEnv:
    return make_vector_env(env, num_envs, "add_on", 1.0, add_on_reward, env_kwargs)


def _registered(env: str, wish: Callable[..., Any] | Customization, env_kwargs: dict[str, Any]) -> str:
    """Register a task whose wish has no import path, under a new id, and return it.

    Raises:
        ConfigurationError: If the environment has an add-on reward of its own.
    """
    with closing(_make(env, None, env_kwargs, 1)) as vector:  # says what is wrong with the id
        if vector.customization.add_on_reward is not no_wish:
            raise ConfigurationError(
                f"add_on_reward: found a function, but {env} has its own add-on reward; expected None, or the id of "
                "the environment without customization as env"
            )
    name = env.rpartition(":")[2]
    ids = (f"{UNNAMED_IDS}{number}/{name.rpartition('/')[2]}" for number in itertools.count())
    new = next(each for each in ids if each not in gym.registry)
    register_task(new, base=name, customization=wish)
    return new


def _described(wish: Any) -> str:
    if isinstance(wish, str):
        return wish
    named = wish.add_on_reward if isinstance(wish, Customization) else wish
    return f"{getattr(named, '__module__', '?')}.{getattr(named, '__qualname__', type(named).__name__)}"


def _try(vector: VectorEnv) -> None:
    """Step with random actions, so that a wish that fails is refused before anything is trained."""
    vector.action_space.seed(0)
    vector.reset(seed=0)
    for _ in range(STEPS):
        _, _, terminated, truncated, _ = vector.step(vector.action_space.sample())
        done = terminated | truncated
        if done.any():
            vector.reset(options={"reset_mask": done})
