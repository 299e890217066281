"""Policies of every kind that is exported: shipped ones, and small ones with random weights."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch
from sb3_models import Task
from torch import nn

from rql_lightning.loading import CheckpointPrior, load_policy
from rql_lightning.policies import Encoder, NetworkPolicy, Policy, SoftQPolicy, SquashedGaussianPolicy
from rql_lightning.priors import ModulePrior, Prior

CARTPOLE, PARKING = "pretrained:cartpole-rl", "pretrained:parking-rl"
NO_BOUNDS, BOUNDS = Task(discrete=True), Task(discrete=False)
BOUNDED = gym.spaces.Box(np.array([-3.0, 1.0, -np.inf]), np.array([5.0, 2.0, np.inf]), dtype=np.float32)


def randomised(policy: Policy, seed: int = 0) -> Policy:
    """Give the trainable weights of a policy values that are not those of its initialisation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in policy.named_parameters():
            if not name.startswith("prior."):
                each.copy_((0.6 if each.dim() == 2 else 0.3) * torch.randn(each.shape, generator=generator))
    return policy.eval().requires_grad_(False)


def soft_q(prior: Prior | None, hidden: list[int], seed: int = 0) -> Policy:
    """A policy at α̂ = 0.4, which customises a prior at ω′ = 0.7 if there is one."""
    spaces = (BOUNDED, gym.spaces.Discrete(3))
    if prior is not None:
        spaces = (prior.observation_space, prior.action_space)
    omega_prime = 0.0 if prior is None else 0.7
    return randomised(SoftQPolicy(*spaces, hidden, 0.4, prior, omega_prime, None, Encoder.scaled_of(spaces[0])), seed)


def wrapped(policy: Policy) -> Prior:
    """A policy as the prior that a checkpoint would make of it."""
    prior = CheckpointPrior.__new__(CheckpointPrior)
    Prior.__init__(prior)
    prior._wrap(policy, "a.ckpt")
    return prior


def nested() -> Policy:
    """Customised twice, by networks of different depths."""
    return soft_q(wrapped(soft_q(wrapped(soft_q(None, [7], 1)), [], 2)), [6, 5, 4], 3)


def actor(prior: Prior | None = None, hidden: tuple[int, ...] = (12, 9), log_scale: float = 0.0) -> Policy:
    """An actor for bounds that are not symmetric, whose log-scales are around a number."""
    policy = randomised(
        SquashedGaussianPolicy(BOUNDED, BOUNDS.action_space, list(hidden), prior=prior, temperature=0.25)
    )
    policy.network[-1].bias[2:] += log_scale
    return policy


def running_actor() -> Policy:
    """An actor that normalises a number far from 0 by what was observed."""
    encoder = Encoder.scaled_of(BOUNDED, normalize=True)
    encoder.observe(torch.tensor([[1.0, 1.5, 497.0], [1.0, 1.5, 503.0]]))
    return randomised(SquashedGaussianPolicy(BOUNDED, BOUNDS.action_space, [12, 9], encoder))


def parking() -> Policy:
    """A customised actor that sees differences to a goal."""
    shipped = load_policy(PARKING)
    spaces, prior = (shipped.observation_space, shipped.action_space), CheckpointPrior(PARKING)
    return randomised(SquashedGaussianPolicy(*spaces, [12], shipped.encoder, prior, temperature=0.1))


def module_prior(activation: type[nn.Module] = nn.Tanh) -> Prior:
    """Somebody's network over three actions."""
    torch.manual_seed(0)
    prior = ModulePrior(nn.Sequential(nn.Linear(3, 5), activation(), nn.Linear(5, 3)), "boltzmann", temperature=0.3)
    prior.attach(BOUNDED, gym.spaces.Discrete(3))
    return prior


def fitted(family: str, prior: Prior | None = None) -> Policy:
    """A policy of a family of continuous actions, with its initial weights."""
    torch.manual_seed(0)
    return NetworkPolicy(BOUNDED, BOUNDS.action_space, [8], family, prior=prior).eval().requires_grad_(False)


POLICIES: dict[str, Callable[[], Policy]] = {
    "soft_q": lambda: soft_q(None, [8, 8]),
    "residual_soft_q": lambda: soft_q(CheckpointPrior(CARTPOLE), [16]),
    "nested": nested,
    "module_prior": lambda: soft_q(module_prior(), [8]),
    "actor": actor,
    "residual_actor": lambda: actor(wrapped(actor())),
    "running_actor": running_actor,
    "parking": parking,
    "rows": lambda: load_policy("pretrained:highway-il"),
    "mixture": lambda: fitted("mixture"),
    "shipped": lambda: load_policy("pretrained:mountain-car-rl"),
}


def observations(policy: Policy, rows: int = 50) -> np.ndarray:
    """Observations on both sides of the space's bounds, and around what was observed."""
    numbers = np.random.default_rng(1).normal(size=(rows, *policy.observation_space.shape)).astype(np.float32)
    encoder = getattr(policy, "encoder", None)
    if encoder is None or encoder.running is None:
        return numbers
    return encoder.middle.numpy() + encoder.half_width.numpy() * numbers
