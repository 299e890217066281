"""What the steps of an actor-critic's update hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Minibatch


class Coefficients(NamedTuple):
    """What the targets and the actor's loss consist of beside Q, for their gradients in closed form.

    Attributes:
        entropy: Weight of log π̂ in the actor's loss.
        target_prior: Weight of log π in V(s′).
        actor_prior: Weight of log π in the actor's loss.
    """

    entropy: Tensor
    target_prior: functional.Weight
    actor_prior: functional.Weight

    @property
    def without_prior(self) -> bool:
        """Whether both weights of log π are the number 0."""
        return all(not isinstance(weight, Tensor) and weight == 0 for weight in self[1:])


class Inputs(NamedTuple):
    """What an update in closed form reads.

    Attributes:
        minibatch: Transitions, ``[B]``.
        states: Encoded states s, followed by s′, ``[2 B, D]``.
        taken: Encoded states s with the actions taken, ``[B, D + A]``.
        noise: Standard normal noise that determines a ~ π̂(·|s), followed by that of a′ ~ π̂(·|s′), ``[2 B, A]``.
        prior_parameters: Distribution parameters of the prior at s, followed by those at s′, ``[2 B, P]``, or ``None``.
    """

    minibatch: Minibatch
    states: Tensor
    taken: Tensor
    noise: Tensor
    prior_parameters: Tensor | None


def prepared(minibatches: Minibatch, noise: Tensor) -> list[Inputs]:
    """Join what K updates in closed form read, in one operation each rather than K.

    Args:
        minibatches: Transitions, ``[K, B]``.
        noise: Noise of s and of s′, ``[K, 2, B, A]``.
    """
    following, prior, rows = minibatches.next_prior_parameters, minibatches.prior_parameters, [None] * len(minibatches)
    columns: list[Any] = [
        minibatches.split(),
        torch.cat([minibatches.observation, minibatches.next_observation], dim=1).unbind(),
        torch.cat([minibatches.observation, minibatches.action], dim=-1).unbind(),
        noise.flatten(1, 2).unbind(),
        rows if prior is None or following is None else torch.cat([prior, following], dim=1).unbind(),
    ]
    return [Inputs(*row) for row in zip(*columns, strict=True)]


@dataclass
class Sample:
    """Actions sampled from the policy, a ~ π̂(·|s).

    Attributes:
        squashed: Actions a = tanh(u), with their u, ``[B, A]``.
        log_prob: Log-densities log π̂(a|s), ``[B]``.
    """

    squashed: functional.Squashed
    log_prob: Tensor

    @property
    def pre_tanh(self) -> Tensor:
        """Pre-tanh actions u, ``[B, A]``."""
        return self.squashed.pre_tanh

    @property
    def action(self) -> Tensor:
        """Actions a, ``[B, A]``."""
        return self.squashed.action

    def __getitem__(self, rows: slice) -> Sample:
        squashed = functional.Squashed(*(each[rows] for each in self.squashed))
        return Sample(squashed, self.log_prob[rows])


def sampled(location: Tensor, log_scale: Tensor, noise: Tensor) -> tuple[Sample, Tensor]:
    """Return the sample determined by location, log-scale and noise, and the scale; ``[B, A]`` each."""
    scale = log_scale.exp()
    squashed = functional.squash(torch.addcmul(location, scale, noise))
    log_prob = functional.reparameterised_log_prob(noise, log_scale, log_two_cosh=squashed.log_two_cosh)
    return Sample(squashed, log_prob), scale
