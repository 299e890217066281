"""Bounds on a continuous prior's scale and log-density, which may diverge far from the prior's training data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.policies.families import Family


class Guard:
    """Lower bounds of a prior's scale and of its log-density.

    Args:
        min_scale: Lower bound of the scale before tanh, for families that have a scale; 0 for no bound.
        log_prob_min: Log-density (< 0) below which log-densities are compressed, so that they stay above
            2 · ``log_prob_min``; ``None`` for no bound.
    """

    def __init__(self, min_scale: float, log_prob_min: float | None) -> None:
        self.min_log_scale = math.log(min_scale) if min_scale > 0 else -math.inf
        self.log_prob_min = log_prob_min

    def floored(self, family: Family, parameters: Tensor) -> Tensor:
        """Return distribution parameters ``[..., P]`` with the lower bound of the scale applied."""
        return family.with_min_scale(parameters, self.min_log_scale)

    def log_prob(self, family: Family, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s), ``[...]``, with the lower bound applied.

        Args:
            family: Family of the prior.
            parameters: Distribution parameters of the prior at s, already floored, ``[..., P]``.
            pre_tanh: Pre-tanh actions u, ``[..., A]``.
        """
        return self.bounded(family.pre_tanh_log_prob(parameters, pre_tanh))

    def log_prob_and_gradient(
        self, family: Family, parameters: Tensor, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return :meth:`log_prob`, ``[...]``, and its gradient with respect to u, ``[..., A]``; both without autograd.

        Below the bound m, the compressed value is m (2 − m / log π). Its derivative with respect to log π is
        (m / log π)².
        """
        log_prob, gradient = family.pre_tanh_log_prob_and_gradient(parameters, squashed)
        if self.log_prob_min is None:
            return log_prob, gradient
        bent, ratio = self._bent(log_prob)
        return torch.where(log_prob < self.log_prob_min, bent, log_prob), ratio.square().unsqueeze(-1) * gradient

    def bounded(self, log_prob: Tensor) -> Tensor:
        """Return log-densities ``[...]``, compressed below ``log_prob_min`` so that they stay above twice that value.

        The compression is strictly increasing, so that an actor far from the prior still gets a gradient towards it; a
        hard bound would give none.
        """
        if self.log_prob_min is None:
            return log_prob
        return torch.where(log_prob < self.log_prob_min, self._bent(log_prob)[0], log_prob)

    def _bent(self, log_prob: Tensor) -> tuple[Tensor, Tensor]:
        """Return compressed log-densities m (2 − m / log π), and the ratio m / log π, which is 1 above the bound m."""
        bound = self.log_prob_min
        assert bound is not None
        ratio = bound / log_prob.clamp(max=bound)
        return torch.rsub(ratio, 2.0).mul_(bound), ratio

    def diagnostics(self, family: Family, parameters: Tensor, pre_tanh: Tensor) -> dict[str, Tensor]:
        """Return the prior's log-density and how often floor and bound take effect, without gradient, of any shape."""
        log_prob = family.pre_tanh_log_prob(parameters, pre_tanh.detach()).detach()
        bound = -math.inf if self.log_prob_min is None else self.log_prob_min
        result = {"prior_log_prob": log_prob, "prior_log_prob_bounded": (log_prob < bound).float()}
        floored = family.at_min_scale(parameters, self.min_log_scale)
        return result if floored is None else {**result, "prior_scale_floored": floored}
