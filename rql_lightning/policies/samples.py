"""Families of policies that are known by samples of their actions alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.policies.families import Continuous, Family

SMALLEST_BANDWIDTH = 1e-6


class Samples(Continuous):
    """Distributions over continuous actions that are known by K samples; the parameters are these, ``[..., K A]``.

    Args:
        dimensions: Number of action dimensions A.
        samples: Number of samples K.
    """

    explorable = False

    def __init__(self, dimensions: int, samples: int) -> None:
        super().__init__(dimensions)
        self.samples, self.size = samples, samples * dimensions

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples in [−1, 1], ``[..., K, A]``, and their normalised log-weights, ``[..., K]``."""
        actions = parameters.unflatten(-1, (self.samples, self.dimensions))
        uniform = torch.zeros_like(actions[..., 0]).log_softmax(dim=-1)
        return actions, uniform

    def sample(self, parameters: Tensor) -> Tensor:
        """Draw one of the samples by their weights, ``[..., A]``."""
        actions, log_weights = self.split(parameters)
        return _chosen(actions, torch.distributions.Categorical(logits=log_weights, validate_args=False).sample())

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the sample where the samples are densest, by a normal kernel of Scott's bandwidth, ``[..., A]``."""
        actions, log_weights = self.split(parameters)
        return _chosen(actions, densest(actions, log_weights))

    def distribution(self, parameters: Tensor) -> Any:
        """Refuse: there is no density.

        Raises:
            EnvironmentContractError: Always.
        """
        raise EnvironmentContractError("policy: found samples of continuous actions, expected one with a density")

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Refuse, as :meth:`distribution`."""
        return self.distribution(parameters)


class Resampled(Samples):
    """K samples of a prior with weights of their own; the parameters are samples and log-weights, ``[..., K (A + 1)]``.

    Args:
        dimensions: Number of action dimensions A.
        samples: Number of samples K.
    """

    def __init__(self, dimensions: int, samples: int) -> None:
        super().__init__(dimensions, samples)
        self.size = samples * (dimensions + 1)

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the samples in [−1, 1], ``[..., K, A]``, and their normalised log-weights, ``[..., K]``."""
        actions, log_weights = parameters.split([self.samples * self.dimensions, self.samples], dim=-1)
        return actions.unflatten(-1, (self.samples, self.dimensions)), log_weights

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Return an estimate of KL(this ‖ prior) from the weights of the prior's samples, ``[...]``, at most log K."""
        return functional.sampled_divergence(self.split(parameters)[1])


def densest(actions: Tensor, log_weights: Tensor) -> Tensor:
    """Return the index of the sample at which a kernel estimate of the weighted density is highest.

    The bandwidth is σ n^(−1 / (A + 4)) in each dimension (Scott 1992), with the samples' standard deviation σ and their
    effective number n = 1 / Σ w².

    Args:
        actions: Samples, ``[..., K, A]``.
        log_weights: Normalised log-weights, ``[..., K]``.

    Returns:
        ``[...]``.
    """
    weights = log_weights.exp().unsqueeze(-1)
    mean = (weights * actions).sum(dim=-2, keepdim=True)
    variance = (weights * (actions - mean).square()).sum(dim=-2, keepdim=True)
    effective = 1.0 / weights.square().sum(dim=-2, keepdim=True)
    bandwidth = variance.sqrt() * effective ** (-1.0 / (actions.shape[-1] + 4))
    scaled = actions / bandwidth.clamp(min=SMALLEST_BANDWIDTH)
    squares = (scaled.unsqueeze(-2) - scaled.unsqueeze(-3)).square().sum(dim=-1)
    return torch.logsumexp(log_weights.unsqueeze(-2) - 0.5 * squares, dim=-1).argmax(dim=-1)


def _chosen(actions: Tensor, index: Tensor) -> Tensor:
    """Select one of the samples ``[..., K, A]`` per state, ``[...]`` → ``[..., A]``."""
    index = index[..., None, None].expand(*index.shape, 1, actions.shape[-1])
    return actions.gather(-2, index).squeeze(-2)
