"""The settings of a customization that its user does not choose (docs/customize.md says why they are what they are)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import gymnasium as gym

from rql_lightning.policies import Encoder, Policy, SquashedGaussianPolicy
from rql_lightning.priors import Prior

HIDDEN_SIZES = [128, 128]
LEARNING_RATE = 1e-3
TOTAL_FRAMES, GAMMA = 100_000, 0.99
OF_TASKS: dict[str, dict[str, Any]] = {
    "rql_lightning/MountainCarContinuous-v0": {"gamma": 0.998},
    "rql_lightning/Highway-v0": {"gamma": 0.8, "total_frames": 300_000},
    "rql_lightning/Parking-v0": {"gamma": 0.95, "total_frames": 600_000},
}
"""Discount factors and budgets of this library's tasks, where the general ones do not suit them."""
MOST_ENVS, EPISODES_OF_EACH, ENVS_WITHOUT_LIMIT = 64, 3, 16
FRAMES_PER_UPDATE = 4
LARGEST_REPLAY = 500_000
EVALUATIONS = 4


@dataclass(frozen=True)
class Choice:
    """What determines the settings.

    Attributes:
        algorithm: Name of the algorithm (:func:`algorithm_of`).
        total_frames: Budget in environment frames.
        num_envs: Number of environments.
        gamma: Discount factor γ.
        omega_prime, alpha_hat: ω′ and α̂.
    """

    algorithm: str
    total_frames: int
    num_envs: int
    gamma: float
    omega_prime: float
    alpha_hat: float


def algorithm_of(prior: Policy, action_space: gym.Space[Any]) -> str:
    """Return the name of the algorithm for a prior and an action space."""
    if getattr(prior, "only_samples", False):
        return "SampledResidualQLearning"
    return "ResidualSoftQLearning" if isinstance(action_space, gym.spaces.Discrete) else "ResidualSAC"


def default_of(env: str, setting: str) -> Any:
    """Return the budget (``total_frames``) or discount factor (``gamma``) of an environment."""
    general = {"total_frames": TOTAL_FRAMES, "gamma": GAMMA}
    return OF_TASKS.get(env, {}).get(setting, general[setting])


def default_num_envs(total_frames: int, episode_steps: int | None) -> int:
    """Return the largest power of two, at most 64, with which each environment runs three episodes within the budget.

    Args:
        total_frames: Budget in environment frames.
        episode_steps: Time limit, or length of the longest episode; ``None`` if it is not known.
    """
    if episode_steps is None:
        return ENVS_WITHOUT_LIMIT
    most = max(1, min(MOST_ENVS, total_frames // (EPISODES_OF_EACH * episode_steps)))
    return 1 << (most.bit_length() - 1)


def model_settings(choice: Choice, prior: Prior, observation_space: gym.Space[Any]) -> dict[str, Any]:
    """Return the arguments of the algorithm, except the prior, on an environment with these observations."""
    common: dict[str, Any] = {"omega_prime": choice.omega_prime, "alpha_hat": choice.alpha_hat, "gamma": choice.gamma}
    common |= {"hidden_sizes": HIDDEN_SIZES, "learning_rate": LEARNING_RATE, "learning_rate_schedule": "linear"}
    if choice.algorithm != "ResidualSAC":
        return {**common, "target_update_interval": 64, "epsilon_initial": 0.1}
    settings = {**common, "tau": 0.01, "prior_frames": prior_frames(choice, prior)}
    actor = prior.as_actor()
    if not can_start_at(actor, observation_space):
        return settings
    return {
        **settings,
        "hidden_sizes": actor.hidden_sizes,
        **({"normalize_observations": True} if actor.encoder.running is not None else {}),
        "goal_scales": actor.encoder.goal_scales or None,
        "start_at_prior": True,
        "critic_warm_up_updates": settings["prior_frames"] // 5,
    }


def can_start_at(actor: Policy, observation_space: gym.Space[Any]) -> TypeGuard[SquashedGaussianPolicy]:
    """Return whether an actor of soft actor-critic can start from the weights of a policy.

    Its critics get the same hidden layers, of which there must be some.
    """
    if not isinstance(actor, SquashedGaussianPolicy) or actor.encoder.raw or not actor.hidden_sizes:
        return False
    normalized = actor.encoder.running is not None
    fresh = Encoder.scaled_of(observation_space, actor.encoder.goal_scales, normalized)
    return fresh.fixed == actor.encoder.fixed


def prior_frames(choice: Choice, prior: Policy) -> int:
    """Return the number of frames in which the prior of continuous actions acts: a tenth, at most 10,000."""
    return min(choice.total_frames // 10, 10_000) if prior.family.explorable else 0


def data_settings(choice: Choice, prior: Policy) -> dict[str, Any]:
    """Return the arguments of the data module, except the task."""
    continuous = choice.algorithm == "ResidualSAC"
    frames = choice.num_envs * (8 if continuous else 4)
    frames *= -(-128 // frames)  # at least 128
    batch = min(frames, choice.total_frames // choice.num_envs * choice.num_envs)
    warm_up = min(choice.total_frames // 10, 10_000 if continuous else 1024)
    return {
        "reward": "add_on",
        "total_frames": choice.total_frames,
        "num_envs": choice.num_envs,
        "frames_per_batch": batch,
        "updates_per_batch": max(1, batch // FRAMES_PER_UPDATE),
        "batch_size": 256 if continuous else 128,
        "replay_size": max(min(choice.total_frames, LARGEST_REPLAY), 256),
        "warm_up_frames": warm_up,
    }
