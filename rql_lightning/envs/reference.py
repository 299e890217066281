"""highway-env's environments as references: whole configurations in plain Python, and pictures without a screen."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator

from rql_lightning.envs.maps import Camera
from rql_lightning.errors import require

SECTIONS = ("observation", "action")


def plain(value: Any) -> Any:
    """A copy of a configuration in which NumPy's arrays and numbers, and tuples, are lists and plain numbers."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return plain(value.tolist()) if isinstance(value, np.ndarray | np.generic) else value


def is_number(value: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def check_timing(config: Mapping[str, Any]) -> None:
    """Refuse invalid frequencies and durations.

    Raises:
        ConfigurationError: naming the first.
    """
    for key in ("policy_frequency", "simulation_frequency"):
        require(isinstance(config[key], int) and config[key] >= 1, key, config[key], "an integer >= 1")
    expected = f"at least policy_frequency = {config['policy_frequency']}"
    frequency = config["simulation_frequency"]
    require(frequency >= config["policy_frequency"], "simulation_frequency", frequency, expected)
    duration = config["duration"]
    require(is_number(duration) and duration > 0, "duration", duration, "a finite number > 0")


def configured(settings: Mapping[str, Any], config: Mapping[str, Any] | None) -> dict[str, Any]:
    """A task's settings and other keys of highway-env as one configuration in plain Python.

    Raises:
        ConfigurationError: for a section that is no mapping, and a frequency or duration that makes no sense, by name.
    """
    require(config is None or isinstance(config, Mapping), "config", config, "a mapping of highway-env's keys")
    merged = plain({**settings, **(config or {})})
    for section in SECTIONS:
        given = merged.get(section, {})
        require(isinstance(given, dict), section, given, "a mapping of its keys")
    check_timing(merged)
    return merged


def episode_steps(config: Mapping[str, Any]) -> int:
    """Policy steps of ``duration`` seconds (highway-env's sum of fractions of a second may make one more)."""
    return math.ceil(config["duration"] * config["policy_frequency"])


def follow_camera(config: Mapping[str, Any], scaling: float, centering: Sequence[float]) -> Camera | None:
    """Return how highway-env's pictures, which follow the ego vehicle, show the map.

    Args:
        config: In highway-env's keys.
        scaling: Pixels per metre where the configuration does not say.
        centering: Place of the ego vehicle in the picture where the configuration does not say.

    Returns:
        The camera, or ``None`` if the configuration's values are no numbers, which is for highway-env to refuse.
    """
    scaling, centering = config.get("scaling", scaling), config.get("centering_position", centering)
    known = is_number(scaling) and isinstance(centering, list | tuple) and len(centering) == 2
    return Camera(scaling, (centering[0], centering[1])) if known and all(map(is_number, centering)) else None


def make_highway_env(id: str, config: Mapping[str, Any], render_mode: str | None) -> gym.Env[Any, Any]:
    """One of highway-env's environments.

    Args:
        id: As ``highway_env:<id>``.
        config: In highway-env's keys. A part of ``observation`` or ``action`` is completed with highway-env's default
            of the same type; highway-env itself takes a part for the whole.
        render_mode: Or ``None``.
    """
    module, _, name = id.partition(":")
    importlib.import_module(module)  # which registers the id
    defaults = load_env_creator(gym.spec(name).entry_point).default_config()
    completed = dict(config)
    for section in SECTIONS:
        given, default = config.get(section, {}), defaults[section]
        if isinstance(given, Mapping) and given.get("type", default["type"]) == default["type"]:
            completed[section] = {**default, **given}
    return OffscreenRendering(gym.make(id, config=completed, render_mode=render_mode, disable_env_checker=True))


class OffscreenRendering(gym.Wrapper[Any, Any, Any, Any]):
    """Render ``rgb_array`` pictures for any value of ``SDL_VIDEODRIVER``.

    If the variable is ``dummy``, as on servers, highway-env draws nothing and returns black pictures, although
    off-screen rendering requires no driver.
    """

    def render(self) -> Any:
        """See :class:`gymnasium.Env`."""
        env: Any = self.unwrapped
        if env.render_mode == "rgb_array":
            from highway_env.envs.common.graphics import EnvViewer

            if env.viewer is None:
                env.viewer = EnvViewer(env)
            env.viewer.enabled = True
        return self.env.render()
