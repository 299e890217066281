"""Configurations that the compiled simulators model; other configurations are refused."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from rql_lightning.envs.reference import check_timing, plain
from rql_lightning.errors import ConfigurationError, EnvironmentContractError

COSMETIC = {
    "screen_width": 600,
    "screen_height": 150,
    "centering_position": [0.3, 0.5],
    "scaling": 5.5,
    "show_trajectories": False,
    "render_agent": True,
    "offscreen_rendering": None,
    "real_time_rendering": False,
}
"""Keys of highway-env that only affect rendering, with their defaults."""


@dataclass(frozen=True)
class Model:
    """The part of a highway-env environment that a simulator models.

    Attributes:
        name: Of the task, for messages.
        reference: Gymnasium id of the environment, as ``module:id``.
        dynamic: Keys that change what happens and may have any value, with highway-env's defaults.
        fixed: Keys that may only have the value given here.
        observation, action: All keys of these two sections, with the defaults.
        free: Keys of these sections that may have any value, as ``section.key``.
        cosmetic: Keys that change pictures alone, with highway-env's defaults.
    """

    name: str
    reference: str
    dynamic: Mapping[str, Any]
    fixed: Mapping[str, Any]
    observation: Mapping[str, Any]
    action: Mapping[str, Any]
    free: frozenset[str] = frozenset()
    cosmetic: Mapping[str, Any] = field(default_factory=lambda: COSMETIC)

    @property
    def defaults(self) -> dict[str, Any]:
        """The whole configuration that others are merged into."""
        sections = {"observation": dict(self.observation), "action": dict(self.action)}
        return {**self.cosmetic, **self.dynamic, **self.fixed, **sections}

    def configure(self, config: Mapping[str, Any] | None) -> dict[str, Any]:
        """A configuration over the defaults.

        Raises:
            ConfigurationError: If highway-env does not have a key, the simulator does not model its value, or a
                frequency or duration is invalid; names the first such key.
        """
        given = plain({} if config is None else config)
        merged = self._merge(self.defaults, {*self.cosmetic, *self.dynamic, "observation", "action"}, given)
        for section, defaults in (("observation", self.observation), ("action", self.action)):
            if not isinstance(merged[section], dict):
                raise ConfigurationError(f"{section}: found {merged[section]!r}, expected a mapping of its keys")
            free = {key for key in defaults if f"{section}.{key}" in self.free}
            merged[section] = self._merge(defaults, free, merged[section], f"{section}.")
        check_timing(merged)
        return merged

    def _merge(
        self, defaults: Mapping[str, Any], free: set[str], config: Mapping[str, Any], prefix: str = ""
    ) -> dict[str, Any]:
        for key, value in config.items():
            if key not in defaults:
                raise ConfigurationError(f"{prefix}{key}: found {value!r}, but {self.name} has no such key")
            if key not in free and value != defaults[key]:
                raise ConfigurationError(
                    f"{prefix}{key}: found {value!r}, but the compiled {self.name} models only {defaults[key]!r}; "
                    "expected that, or gym.make, which creates the reference environment (in make_vec: reference=True)"
                )
        return {**defaults, **config}

    def check_reference(self, env: gym.Env[Any, Any], config: Mapping[str, Any]) -> None:
        """Refuse an environment (unwrapped) of another kind or of another configuration than ``config``.

        Raises:
            EnvironmentContractError: naming the kind, or the first key that differs.
        """
        module, _, name = self.reference.partition(":")
        importlib.import_module(module)  # which registers the id
        kind = gym.envs.registration.load_env_creator(gym.spec(name).entry_point)
        if not isinstance(env, kind):
            raise EnvironmentContractError(
                f"reference environment: found {type(env).__name__}, expected highway-env's {kind.__name__}"
            )
        theirs = plain(env.config)
        _check_same({key: theirs.get(key) for key in (*self.dynamic, *self.fixed)}, config)
        for section, defaults in (("observation", self.observation), ("action", self.action)):
            _check_same({**defaults, **theirs[section]}, config[section], f"{section}.")


def _check_same(found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = "") -> None:
    for key, value in found.items():
        if key not in expected or value != expected[key]:
            raise EnvironmentContractError(
                f"reference environment: found {prefix}{key} = {value!r}, expected {expected.get(key)!r} as in the "
                "compiled one"
            )
