"""Checks of hyperparameters: one rule per name, for every algorithm, in configs and in Python.

The restricted types of jsonargparse would check the command line only, with messages of a dozen lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from rql_lightning.errors import is_integer, require
from rql_lightning.planning import Dynamics
from rql_lightning.priors import Prior

Schedule = Literal["constant", "linear"]
Temperature = float | Literal["auto"]


def check_hyperparameters(values: dict[str, Any]) -> None:
    """Refuse invalid hyperparameters before anything is allocated.

    Args:
        values: Hyperparameters by name; unknown names are ignored.

    Raises:
        ConfigurationError: If a value is invalid; names the first such hyperparameter.
    """
    for name, value in values.items():
        if name in _RULES:
            accepts, expected = _RULES[name]
            try:
                accepted = accepts(value)
            except TypeError:
                accepted = False
            require(accepted, f"model.{name}", value, expected)


def check_number(name: str, temperature: Temperature) -> None:
    """Refuse an automatic temperature in an algorithm that does not support it.

    Args:
        name: Name of the hyperparameter.
        temperature: Value of the hyperparameter.

    Raises:
        ConfigurationError: If the value is ``auto``.
    """
    expected = "a number: actor-critics alone have an automatic temperature"
    require(not isinstance(temperature, str), f"model.{name}", temperature, expected)


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _count(value: Any) -> bool:
    return is_integer(value, 1)


def _not_negative(value: float) -> bool:
    return 0 <= value < math.inf


def _temperature(value: float | str) -> bool:
    return value == "auto" or _positive(value)  # type: ignore[arg-type]


def _fraction(value: float) -> bool:
    return 0 <= value <= 1


def _widths(value: Iterable[int]) -> bool:
    widths = list(value)
    return bool(widths) and all(map(_count, widths))


_RULES: dict[str, tuple[Any, str]] = {
    "prior": (
        lambda value: isinstance(value, Prior),
        "a Prior, such as rql_lightning.priors.FunctionPrior of a log-likelihood",
    ),
    "dynamics": (
        lambda value: value is None or isinstance(value, Dynamics),
        "a rql_lightning.planning.Dynamics, such as CopyDynamics(), or null",
    ),
    "add_on_reward": (
        lambda value: value is None or callable(value),
        "a function (observation, action, next_observation, info) -> float, or null",
    ),
    "hidden_sizes": (_widths, "at least one hidden layer, each of at least one unit"),
    "alpha": (_temperature, "a finite number > 0, or 'auto' if the algorithm supports it"),
    "alpha_hat": (_temperature, "a finite number > 0, or 'auto' if the algorithm supports it"),
    "initial_alpha": (_positive, "a finite number > 0"),
    "target_entropy": (lambda value: value is None or math.isfinite(value), "a finite number of nats, or null"),
    "omega_prime": (lambda value: value is None or _not_negative(value), "a finite number >= 0"),
    "goal_scales": (lambda value: value is None or all(map(_positive, value)), "finite numbers > 0, or null"),
    "normalize_observations": (lambda value: isinstance(value, bool), "true or false"),
    "gamma": (_fraction, "a number in [0, 1]"),
    "learning_rate": (_positive, "a finite number > 0"),
    "learning_rate_schedule": (lambda value: value in ("constant", "linear"), "'constant' or 'linear'"),
    "tau": (lambda value: 0 < value <= 1, "a number in (0, 1]"),
    "target_update_interval": (lambda value: value >= 1, "a number of updates >= 1"),
    "huber_delta": (lambda value: value is None or _positive(value), "a finite number > 0, or null for squared errors"),
    "max_grad_norm": (lambda value: value is None or _positive(value), "a finite number > 0, or null for no clipping"),
    "noise_correlation": (_not_negative, "a finite number of steps >= 0"),
    "prior_frames": (_not_negative, "a number of frames >= 0"),
    "critic_warm_up_updates": (_not_negative, "a number of updates >= 0"),
    "omega_prime_warm_up_frames": (_not_negative, "a number of frames >= 0"),
    "omega_prime_warm_up_factor": (_not_negative, "a finite number >= 0"),
    "prior_min_scale": (_not_negative, "a finite number >= 0"),
    "prior_log_prob_min": (lambda value: value is None or -math.inf < value < 0, "a finite number < 0, or null"),
    "chi_squared": (_positive, "a finite number > 0"),
    "reward_kind": (lambda value: value in ("logit", "gail", "negative"), "'logit', 'gail' or 'negative'"),
    "regularization": (
        lambda value: value in ("gradient_penalty", "spectral_norm", "none"),
        "'gradient_penalty', 'spectral_norm' or 'none'",
    ),
    "discriminator_sizes": (_widths, "at least one hidden layer, each of at least one unit"),
    "discriminator_learning_rate": (_positive, "a finite number > 0"),
    "discriminator_learning_rate_schedule": (lambda value: value in ("constant", "linear"), "'constant' or 'linear'"),
    "discriminator_updates": (_count, "an integer >= 1"),
    "discriminator_batch_size": (_count, "an integer >= 1"),
    "gradient_penalty": (_not_negative, "a finite number >= 0"),
    "family": (lambda value: value is None or isinstance(value, str), "the name of a family of distributions, or null"),
    "components": (_count, "an integer >= 1"),
    "rows": (lambda value: value is None or is_integer(value, 2), "an integer >= 2, or null"),
    "weight_decay": (_not_negative, "a finite number >= 0"),
    "entropy_weight": (_not_negative, "a finite number >= 0"),
    "fallback_weight": (_not_negative, "a finite number >= 0"),
    "fallback_spread": (_positive, "a finite number > 0"),
    "validate_every": (_count, "an integer >= 1"),
    "patience": (lambda value: value is None or _count(value), "an integer >= 1, or null for no early stopping"),
    "simulations": (_count, "an integer >= 1"),
    "horizon": (_count, "an integer >= 1"),
    "epsilon": (_not_negative, "a finite number >= 0"),
    "seed": (lambda value: is_integer(value, 0) and value < 2**64, "an integer in [0, 2**64)"),
    "max_successors": (lambda value: is_integer(value, 0), "an integer >= 0"),
    "reuse": (lambda value: value in ("nothing", "states", "tree"), "'nothing', 'states' or 'tree'"),
    "variant": (lambda value: value in ("paper", "authors"), "'paper' or 'authors'"),
    "members": (_count, "an integer >= 1"),
    "sorted_by": (lambda value: value is None or is_integer(value, 0), "an integer >= 0, or null"),
    "termination_weight": (_not_negative, "a finite number >= 0"),
    "open_loop_steps": (_count, "an integer >= 1"),
    "epsilon_initial": (_fraction, "a probability in [0, 1]"),
    "epsilon_final": (_fraction, "a probability in [0, 1]"),
    "epsilon_fraction": (_fraction, "a fraction of the budget in [0, 1]"),
}
