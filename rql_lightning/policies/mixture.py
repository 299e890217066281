"""Mixtures of squashed normals, for priors with several modes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, distributions

from rql_lightning import functional
from rql_lightning.policies.families import LOG_SCALE_RANGE, Continuous


class SquashedNormalMixture(Continuous):
    """Distributions of a = tanh(u), where u is a mixture of K normal distributions with diagonal covariances.

    The parameters ``[..., K (1 + 2 A)]`` are the log-weights ``[K]``, the locations ``[K, A]`` and the log-scales
    ``[K, A]``, in this order.

    Args:
        dimensions: Number of action dimensions A.
        components: Number of components K.
    """

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__(dimensions)
        self.components, self.size = components, components * (1 + 2 * dimensions)

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-weights ``[..., K]``, locations and log-scales, ``[..., K, A]`` each."""
        count = self.components * self.dimensions
        weights, locations, log_scales = parameters.split([self.components, count, count], dim=-1)
        shape = (self.components, self.dimensions)
        return weights, locations.unflatten(-1, shape), log_scales.unflatten(-1, shape)

    def _join(self, weights: Tensor, locations: Tensor, log_scales: Tensor) -> Tensor:
        return torch.cat([weights, locations.flatten(-2), log_scales.flatten(-2)], dim=-1)

    def from_network(self, outputs: Tensor) -> Tensor:
        """Return normalised log-weights, locations, and log-scales within ``LOG_SCALE_RANGE``."""
        weights, locations, log_scales = self.split(outputs)
        return self._join(weights.log_softmax(dim=-1), locations, log_scales.clamp(*LOG_SCALE_RANGE))

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return a transformed mixture; near the bounds use :meth:`pre_tanh_log_prob` for log-densities."""
        weights, locations, log_scales = self.split(parameters)
        normal = distributions.Independent(distributions.Normal(locations, log_scales.exp(), validate_args=False), 1)
        choice = distributions.Categorical(logits=weights, validate_args=False)
        mixture = distributions.MixtureSameFamily(choice, normal, validate_args=False)
        return distributions.TransformedDistribution(mixture, [distributions.TanhTransform()], validate_args=False)

    def _density(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the log-density of u, ``[...]``: log Σ_k w_k N(u; location_k, scale_k²)."""
        weights, locations, log_scales = self.split(parameters)
        standardised = (pre_tanh.unsqueeze(-2) - locations) * torch.exp(-log_scales)
        normal = (-0.5 * standardised.square() - log_scales - 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)
        return torch.logsumexp(weights + normal, dim=-1)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s) = log Σ_k w_k N(u; location_k, scale_k²) − log |det ∂a/∂u|, ``[...]``."""
        return self._density(parameters, pre_tanh) - functional.squash_log_det(pre_tanh)

    def mode(self, parameters: Tensor) -> Tensor:
        """Return tanh of the location at which the density of u is highest, ``[..., A]``."""
        _, locations, _ = self.split(parameters)
        best = self._density(parameters.unsqueeze(-2), locations).argmax(dim=-1)
        return torch.tanh(self._component(locations, best))

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return u = location_k + scale_k · noise of a component k drawn at random, ``[..., A]``."""
        weights, locations, log_scales = self.split(parameters)
        chosen = distributions.Categorical(logits=weights, validate_args=False).sample()
        return self._component(locations, chosen) + self._component(log_scales, chosen).exp() * noise

    def _component(self, values: Tensor, index: Tensor) -> Tensor:
        """Select one component per state, ``[..., K, A]`` and ``[...]`` → ``[..., A]``."""
        index = index[..., None, None].expand(*index.shape, 1, self.dimensions)
        return values.gather(-2, index).squeeze(-2)

    def points(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pre-tanh actions of all components for each noise, weighted by the components' weights."""
        weights, locations, log_scales = self.split(parameters)
        pre_tanh = locations.unsqueeze(-2) + log_scales.exp().unsqueeze(-2) * noise.unsqueeze(-3)  # [..., K, n, A]
        each = weights.softmax(dim=-1).unsqueeze(-1).expand(pre_tanh.shape[:-1]) / noise.shape[-2]
        return pre_tanh.flatten(-3, -2), each.flatten(-2)

    def with_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Return the parameters with the components' log-scales bounded from below by ``min_log_scale``."""
        weights, locations, log_scales = self.split(parameters)
        return self._join(weights, locations, log_scales.clamp(min=min_log_scale))

    def at_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Return 1 where the log-scale of a component is at most ``min_log_scale``, else 0, ``[..., K, A]``."""
        return (self.split(parameters)[2] <= min_log_scale).float()
