"""What of a configuration the compiled simulators model, and how the rest is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rql_lightning.errors import ConfigurationError, EnvironmentContractError, require

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
"""highway-env's keys that change pictures alone, with its defaults."""


def merge(
    name: str, defaults: Mapping[str, Any], modelled: set[str], config: Mapping[str, Any] | None, prefix: str = ""
) -> dict[str, Any]:
    """A configuration over defaults, if a simulator models it.

    Args:
        name: Of the task, for the message.
        defaults: The reference's, all of its keys.
        modelled: Keys that may have any value.
        config: What differs from the defaults.
        prefix: Of the keys' names in the message.

    Raises:
        ConfigurationError: naming the first key that the reference does not know or the simulator does not model.
    """
    for key, value in (config or {}).items():
        if key not in defaults:
            raise ConfigurationError(f"{prefix}{key}: found {value!r}, but {name} has no such key")
        if key not in modelled and not _same(value, defaults[key]):
            raise ConfigurationError(
                f"{prefix}{key}: found {value!r}, but the compiled {name} models {defaults[key]!r} alone; "
                "expected that, or gym.make, which gives the reference environment (in make_vec: reference=True)"
            )
    return {**defaults, **(config or {})}


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return found is not None and list(found) == expected
    return bool(found == expected)


def check_timing(config: Mapping[str, Any]) -> None:
    """Refuse frequencies and a duration that make no sense, by name.

    Raises:
        ConfigurationError: naming the first.
    """
    for key in ("policy_frequency", "simulation_frequency"):
        require(isinstance(config[key], int) and config[key] >= 1, key, config[key], "an integer >= 1")
    expected = f"at least policy_frequency = {config['policy_frequency']}"
    frequency = config["simulation_frequency"]
    require(frequency >= config["policy_frequency"], "simulation_frequency", frequency, expected)
    require(0 < config["duration"] < math.inf, "duration", config["duration"], "a number > 0")


def check_same(found: Mapping[str, Any], expected: Mapping[str, Any], keys: set[str]) -> None:
    """Refuse a reference environment of another configuration.

    Raises:
        EnvironmentContractError: naming the first key that differs.
    """
    for key in sorted(keys):
        if key in expected and not _same(found.get(key), expected[key]):
            raise EnvironmentContractError(
                f"reference environment: found {key} = {found.get(key)!r}, expected {expected[key]!r} as in the "
                "compiled one"
            )
