"""What a prior over continuous actions must not do: collapse, and fall without bound, away from its data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rql_lightning.policies.families import Family


class Guard:
    """A floor under the scale of a prior's law, and a bound under its log-density.

    Args:
        min_scale: Floor of the scale before tanh, of families that have one; 0 for no floor.
        log_prob_min: Log-density (< 0) below which the prior's is bent to stay above twice as much; ``None`` for no
            bound.
    """

    def __init__(self, min_scale: float, log_prob_min: float | None) -> None:
        self.min_log_scale = math.log(min_scale) if min_scale > 0 else -math.inf
        self.log_prob_min = log_prob_min

    def floored(self, family: Family, parameters: Tensor) -> Tensor:
        """The law's parameters ``[..., P]``, its scale with the floor."""
        return family.with_min_scale(parameters, self.min_log_scale)

    def log_prob(self, family: Family, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s), ``[...]``, with the bound.

        Args:
            family: Of the prior.
            parameters: Its law at s, floored already, ``[..., P]``.
            pre_tanh: u, ``[..., A]``.
        """
        return self.bounded(family.pre_tanh_log_prob(parameters, pre_tanh))

    def bounded(self, log_prob: Tensor) -> Tensor:
        """Log-densities ``[...]`` that stay above 2 · ``log_prob_min``: themselves down to it, then ever flatter.

        A hard bound would leave an actor that has strayed without a gradient to come back by.
        """
        if self.log_prob_min is None:
            return log_prob
        excess = (self.log_prob_min - log_prob).clamp(min=0.0)
        bent = self.log_prob_min * (1.0 + excess / (excess - self.log_prob_min))
        return torch.where(log_prob < self.log_prob_min, bent, log_prob)

    def diagnostics(self, family: Family, parameters: Tensor, pre_tanh: Tensor) -> dict[str, Tensor]:
        """What the prior thinks of actions, and how often floor and bound step in; without gradient, of any shape."""
        log_prob = family.pre_tanh_log_prob(parameters, pre_tanh.detach()).detach()
        bound = -math.inf if self.log_prob_min is None else self.log_prob_min
        result = {"prior_log_prob": log_prob, "prior_log_prob_bounded": (log_prob < bound).float()}
        floored = family.at_min_scale(parameters, self.min_log_scale)
        return result if floored is None else {**result, "prior_scale_floored": floored}
