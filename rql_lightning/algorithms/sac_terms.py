"""What the steps of an actor-critic's update hand to each other."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from rql_lightning import functional


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


@dataclass(frozen=True)
class Sample:
    """Actions sampled from the policy, a ~ π̂(·|s).

    Attributes:
        pre_tanh: Pre-tanh actions u = location + scale · noise, ``[B, A]``.
        action: Actions a = tanh(u), ``[B, A]``.
        log_prob: Log-densities log π̂(a|s), ``[B]``.
        noise: Standard normal noise, ``[B, A]``.
        scale: Scales of u, ``[B, A]``.
    """

    pre_tanh: Tensor
    action: Tensor
    log_prob: Tensor
    noise: Tensor
    scale: Tensor

    def __getitem__(self, rows: slice) -> Sample:
        return Sample(*(getattr(self, field.name)[rows] for field in fields(self)))


def sampled(location: Tensor, log_scale: Tensor, noise: Tensor) -> Sample:
    """Return the sample that location and log-scale of u, and noise, determine; ``[B, A]`` each."""
    scale = log_scale.exp()
    pre_tanh = torch.addcmul(location, scale, noise)
    log_prob = functional.reparameterised_log_prob(noise, pre_tanh, log_scale)
    return Sample(pre_tanh, torch.tanh(pre_tanh), log_prob, noise, scale)
