"""Normal distributions that the environment clips to its bounds, as Stable-Baselines3's PPO and A2C have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributions
from torch.nn import functional as F

from rql_lightning import functional
from rql_lightning.policies.families import LocationScale

EDGE_WIDTH = 0.01
"""Mean distance from a bound, in half widths of the action range, over which the density spreads the bound's mass."""
SHARPNESS = 2.0 / EDGE_WIDTH - 1.0  # c: 2 / (c + 1) is the mean distance of a Beta(c, 1) distribution stretched to 2
AT_BOUND = 1.0 - 1e-6  # conversion from the environment's units rounds a bound to a few float32 steps of ±1


class ClippedNormal(LocationScale):
    r"""Distributions of a = clip(z, −1, 1), z ~ N(location, scale²), with independent dimensions.

    Such a policy takes the bounds themselves with probabilities M₋ = P(z ≤ −1) and M₊ = P(z ≥ 1). A policy that is
    squashed by tanh never does, so the law has no density with respect to which the two can be compared. A density of
    the interior alone would call every action improbable where the prior is saturated, and so turn residual learning
    away from these states. Therefore there are two views of the law:

    - :meth:`log_prob`, :meth:`sample` and :meth:`mode` are those of the law itself: a density within the bounds, a
      probability at a bound.
    - :meth:`pre_tanh_log_prob`, which learners and the KL divergence use, is a density on (−1, 1) that integrates to 1:
      p(a) = N(a; location, scale²) + M₊ k(a) + M₋ k(−a), with k(a) = (c/2) ((1 + a)/2)^(c − 1), the density of a
      Beta(c, 1) variable stretched to (−1, 1). Its mean is ``EDGE_WIDTH`` below the bound. It is smooth, positive and
      finite up to the bounds, equals the law's density away from them, and tends to the law as c grows. Near a bound,
      u of a = tanh(u) has a Gumbel distribution of scale ½, which a squashed normal can follow. :meth:`from_noise`
      samples from this density.

    The parameters are location and log-scale, ``[..., 2 A]``, in the coordinates in which the bounds are ±1.

    Args:
        dimensions: Number of action dimensions A.
    """

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return the law with :meth:`log_prob` and :meth:`sample` as a PyTorch distribution."""
        return _Law(self, parameters)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return Σ of log-densities within the bounds and of log-probabilities at the bounds, ``[...]``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        lower, upper = _log_masses(location, log_scale)
        mass = torch.where(action > 0, upper, lower)
        return torch.where(self.at_bound(action), mass, _log_normal(action, location, log_scale)).sum(dim=-1)

    def at_bound(self, action: Tensor) -> Tensor:
        """Return where actions ``[..., A]`` are on a bound, and so have a probability instead of a density."""
        return action.abs() >= AT_BOUND

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log p(tanh u), ``[...]``, differentiable in u and finite for every finite u."""
        return torch.logsumexp(_log_parts(parameters, pre_tanh, torch.tanh(pre_tanh)), dim=0).sum(dim=-1)

    def pre_tanh_log_prob_and_gradient(
        self, parameters: Tensor, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return log p(tanh u), ``[...]``, and its gradient with respect to u, ``[..., A]``, in closed form."""
        location, log_scale = parameters.chunk(2, dim=-1)
        pre_tanh, action = squashed.pre_tanh, squashed.action
        parts = _log_parts(parameters, pre_tanh, action)
        slope = 4.0 * torch.exp(-2.0 * squashed.log_two_cosh)  # 1 − a²
        within = (location - action) * torch.exp(-2.0 * log_scale) * slope
        lower = -2.0 * (SHARPNESS - 1.0) * torch.sigmoid(2.0 * pre_tanh)
        upper = 2.0 * (SHARPNESS - 1.0) * torch.sigmoid(-2.0 * pre_tanh)
        gradient = (parts.softmax(dim=0) * torch.stack([within, lower, upper])).sum(dim=0)
        return torch.logsumexp(parts, dim=0).sum(dim=-1), gradient

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the clipped location, the deterministic action of Stable-Baselines3, ``[..., A]``."""
        return parameters.chunk(2, dim=-1)[0].clamp(-1.0, 1.0)

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action in [−1, 1], which may be a bound, ``[..., A]``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return (location + log_scale.exp() * self._noise(parameters)).clamp(-1.0, 1.0)

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return a pre-tanh action that is distributed as :meth:`pre_tanh_log_prob` says, ``[..., A]``.

        z = location + scale · noise within the bounds is the action. Beyond a bound, z is uniformly distributed in
        terms of the probability beyond it, which is mapped to the inverse of the distribution function of k.
        """
        location, log_scale = parameters.chunk(2, dim=-1)
        z = location + log_scale.exp() * noise
        limit = 1.0 - torch.finfo(z.dtype).eps
        lower, upper = _log_masses(location, log_scale)
        mass = torch.where(z > 0, upper, lower)
        side = torch.where(z > 0, 1.0, -1.0)
        log_share = (torch.special.log_ndtr(-side * noise) - mass).clamp(max=-torch.finfo(z.dtype).eps)
        log_weight = log_share / SHARPNESS  # log of (1 + a)/2 at the upper bound, (1 − a)/2 at the lower one
        beyond = 0.5 * side * (log_weight - torch.log(-torch.expm1(log_weight)))
        return torch.where(z.abs() < 1.0, torch.atanh(z.clamp(-limit, limit)), beyond)


class _Law(distributions.Distribution):
    """The law of a :class:`ClippedNormal` with given parameters."""

    arg_constraints: dict[str, distributions.constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, family: ClippedNormal, parameters: Tensor) -> None:
        self.family, self.parameters = family, parameters
        shape, event = parameters.shape[:-1], torch.Size([family.dimensions])
        super().__init__(shape, event, validate_args=False)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Sample actions, ``[*sample_shape, ..., A]``."""
        return self.family.sample(self.parameters.expand(*sample_shape, *self.parameters.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probabilities of actions ``[..., A]``, ``[...]``."""
        return self.family.log_prob(self.parameters, value)


def _log_masses(location: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return log P(z ≤ −1) and log P(z ≥ 1), ``[..., A]`` each."""
    scale = log_scale.exp()
    return torch.special.log_ndtr((-1.0 - location) / scale), torch.special.log_ndtr((location - 1.0) / scale)


def _log_parts(parameters: Tensor, pre_tanh: Tensor, action: Tensor) -> Tensor:
    """Return the logarithms of the terms of p at a = tanh(u): normal, lower and upper bound, ``[3, ..., A]``."""
    location, log_scale = parameters.chunk(2, dim=-1)
    lower, upper = _log_masses(location, log_scale)
    within = _log_normal(action, location, log_scale)
    # (1 + a)/2 is σ(2u).
    parts = (within, lower + _log_edge(-2.0 * pre_tanh), upper + _log_edge(2.0 * pre_tanh))
    return torch.stack(torch.broadcast_tensors(*parts))


def _log_normal(value: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Return log N(value; location, scale²), ``[..., A]``."""
    standardised = (value - location) * torch.exp(-log_scale)
    return -0.5 * standardised.square() - log_scale - 0.5 * math.log(2.0 * math.pi)


def _log_edge(logit: Tensor) -> Tensor:
    """Return log k at the action whose distance from the other bound is 2 σ(logit), ``[..., A]``."""
    return math.log(SHARPNESS / 2.0) + (SHARPNESS - 1.0) * F.logsigmoid(logit)
