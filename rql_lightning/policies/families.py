"""Families of action distributions, which give a policy's distribution parameters their meaning.

A policy *has* a family. Algorithms use the family for densities, samples and divergences, and never check the class of
a policy. Discrete actions are integers from 0. Continuous actions are in [−1, 1]^A for any bounds of the environment,
and densities are evaluated at the *pre-tanh* action u of a = tanh(u), which preserves precision near the bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributions

from rql_lightning import functional
from rql_lightning.errors import EnvironmentContractError

DIVERGENCE_SAMPLES = 64
LOG_SCALE_RANGE = (-5.0, 2.0)
"""Range of the log-scales that networks return."""
EDGE = 1.0 - 2.0**-24
"""The largest float32 below 1, used in place of the bound for given actions that lie on it."""


class Family:
    """A family of distributions over actions with parameters ``[..., P]``.

    Attributes:
        size: Number of parameters P.
        can_act: Whether :meth:`mode` and :meth:`sample` are supported; a log-density function alone does not.
        explorable: Whether :meth:`from_noise` is supported, which exploration with correlated noise requires.
    """

    size: int
    can_act = True
    explorable = False

    def from_network(self, outputs: Tensor) -> Tensor:
        """Return the parameters ``[..., P]`` that the unconstrained outputs ``[..., P]`` of a network stand for."""
        return outputs

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return the distribution as a PyTorch distribution."""
        raise NotImplementedError

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-probability or log-density of actions, ``[...]``."""
        raise NotImplementedError

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the deterministic action of the evaluation protocol."""
        raise NotImplementedError

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action."""
        raise NotImplementedError

    def uniform(self, parameters: Tensor) -> Tensor:
        """Sample uniformly random actions, one for each of the parameters ``[..., P]``."""
        raise NotImplementedError

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the entropy in nats, ``[...]``, differentiable: exact for discrete actions, else an estimate."""
        raise NotImplementedError

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Return KL(this ‖ other) in nats, ``[...]``; infinite if this takes actions to which the other gives 0."""
        raise NotImplementedError

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s) of continuous actions in [−1, 1], ``[...]``, differentiable in u.

        Args:
            parameters: Distribution parameters, ``[..., P]``.
            pre_tanh: Pre-tanh actions u, ``[..., A]``; finite numbers of any magnitude.

        Raises:
            EnvironmentContractError: If the family has no density.
        """
        raise EnvironmentContractError(
            f"prior of family {type(self).__name__}: found no density, expected one over continuous actions"
        )

    def pre_tanh_log_prob_and_gradient(
        self, parameters: Tensor, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return log π(tanh u|s), ``[...]``, and its gradient with respect to u, ``[..., A]``; both without autograd.

        By default autograd computes the gradient.

        Args:
            parameters: Distribution parameters, ``[..., P]``.
            squashed: Actions tanh u, ``[..., A]`` (:func:`functional.squash`).
        """
        with torch.enable_grad():
            point = squashed.pre_tanh.detach().requires_grad_()
            log_prob = self.pre_tanh_log_prob(parameters, point)
            if not log_prob.requires_grad:  # a density that does not depend on the action
                return log_prob, torch.zeros_like(point)
            (gradient,) = torch.autograd.grad(log_prob.sum(), point, allow_unused=True, materialize_grads=True)
        return log_prob.detach(), gradient

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return the pre-tanh action determined by standard normal noise ``[..., A]``."""
        raise NotImplementedError

    def with_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Return the parameters with the scale bounded from below; unchanged if the family has no scale."""
        return parameters

    def at_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor | None:
        """Return 1 where the scale is at its minimum, else 0, of any shape; ``None`` if the family has no scale."""
        return None


class Categorical(Family):
    """Distributions over discrete actions; the parameters are the log-probabilities ``[..., A]``.

    Args:
        actions: Number of actions A.
    """

    def __init__(self, actions: int) -> None:
        self.size = actions

    def from_network(self, outputs: Tensor) -> Tensor:
        """Return normalised log-probabilities."""
        return outputs.log_softmax(dim=-1)

    def distribution(self, parameters: Tensor) -> distributions.Categorical:
        """Return a ``torch.distributions.Categorical``."""
        return distributions.Categorical(logits=parameters, validate_args=False)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-probability of integer actions ``[...]``."""
        return self.distribution(parameters).log_prob(action)

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the most probable action, ``[...]``."""
        return parameters.argmax(dim=-1)

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action, ``[...]``."""
        return self.distribution(parameters).sample()

    def uniform(self, parameters: Tensor) -> Tensor:
        """Sample uniformly random actions, ``[...]``."""
        return torch.randint(self.size, parameters.shape[:-1], device=parameters.device)

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return the exact entropy, ``[...]``."""
        return self.distribution(parameters).entropy()

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Return the KL divergence in closed form."""
        return distributions.kl_divergence(self.distribution(parameters), other.distribution(other_parameters))


class Continuous(Family):
    """Base class of distributions of a = tanh(u) that can be evaluated and sampled at the pre-tanh action u.

    Subclasses implement :meth:`pre_tanh_log_prob`, :meth:`from_noise` and :meth:`mode`.

    Args:
        dimensions: Number of action dimensions A.
    """

    explorable = True

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Return the log-density of actions ``[..., A]``, moving actions on a bound to the nearest float32 inside."""
        return self.pre_tanh_log_prob(parameters, torch.atanh(action.clamp(-EDGE, EDGE)))

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action in [−1, 1], ``[..., A]``."""
        return torch.tanh(self.from_noise(parameters, self._noise(parameters)))

    def _noise(self, parameters: Tensor) -> Tensor:
        return torch.randn_like(self._like_actions(parameters))

    def _like_actions(self, parameters: Tensor) -> Tensor:
        """Return an uninitialised tensor of the shape and type of actions, ``[..., A]``."""
        return parameters.new_empty((*parameters.shape[:-1], self.dimensions))

    def uniform(self, parameters: Tensor) -> Tensor:
        """Sample uniformly random actions in [−1, 1], ``[..., A]``."""
        return torch.rand_like(self._like_actions(parameters)).mul(2.0).sub(1.0).clamp(-EDGE, EDGE)

    def points(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return weighted pre-tanh actions whose weighted means are expectations over standard normal noise.

        Args:
            parameters: Distribution parameters, ``[..., P]``.
            noise: Standard normal noise, ``[n, A]`` or ``[..., n, A]``.

        Returns:
            Pre-tanh actions ``[..., m, A]``, differentiable in the parameters, and weights ``[..., m]`` that sum to 1.
        """
        pre_tanh = self.from_noise(parameters.unsqueeze(-2), noise)
        return pre_tanh, torch.full_like(pre_tanh[..., 0], 1.0 / noise.shape[-2])

    def entropy(self, parameters: Tensor) -> Tensor:
        """Return an unbiased, differentiable estimate of the entropy from one random :meth:`points`, ``[...]``."""
        pre_tanh, weights = self.points(parameters, self._noise(parameters).unsqueeze(-2))
        return -(weights * self.pre_tanh_log_prob(parameters.unsqueeze(-2), pre_tanh)).sum(dim=-1)

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Estimate KL(this ‖ other) by the weighted mean of log π̂(u) − log π(u) over fixed noise, the same everywhere.

        The estimate is reproducible. Each dimension of the noise has the first three moments of a standard
        normal distribution, which makes the estimate exact for diagonal normal distributions of u.
        """
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(DIVERGENCE_SAMPLES // 2, self.dimensions, generator=generator).to(parameters.device)
        half = half / half.square().mean(dim=0).sqrt()
        pre_tanh, weights = self.points(parameters, torch.cat([half, -half]))
        theirs = other_parameters.unsqueeze(-2).expand(*pre_tanh.shape[:-1], -1)
        ours = self.pre_tanh_log_prob(parameters.unsqueeze(-2), pre_tanh)
        return (weights * (ours - other.pre_tanh_log_prob(theirs, pre_tanh))).sum(dim=-1)


class LocationScale(Continuous):
    """Base class of families whose parameters are location and log-scale, ``[..., 2 A]``.

    Args:
        dimensions: Number of action dimensions A.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions)
        self.size = 2 * dimensions

    def from_network(self, outputs: Tensor) -> Tensor:
        """Return the location, and the log-scale within ``LOG_SCALE_RANGE``."""
        location, log_scale = outputs.chunk(2, dim=-1)
        return torch.cat([location, log_scale.clamp(*LOG_SCALE_RANGE)], dim=-1)

    def with_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Return the parameters with the log-scale bounded from below by ``min_log_scale``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return torch.cat([location, log_scale.clamp(min=min_log_scale)], dim=-1)

    def at_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Return 1 where the log-scale is at most ``min_log_scale``, else 0, ``[..., A]``."""
        return (parameters.chunk(2, dim=-1)[1] <= min_log_scale).float()


class SquashedNormal(LocationScale):
    """Distributions of a = tanh(u), u ~ N(location, scale²); the parameters are location and log-scale, ``[..., 2 A]``.

    Args:
        dimensions: Number of action dimensions A.
    """

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """Return a transformed normal distribution; near the bounds use :meth:`pre_tanh_log_prob` for log-densities."""
        location, log_scale = parameters.chunk(2, dim=-1)
        normal = distributions.Independent(distributions.Normal(location, log_scale.exp(), validate_args=False), 1)
        return distributions.TransformedDistribution(normal, [distributions.TanhTransform()], validate_args=False)

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return log π(tanh u|s), ``[...]``, as a squashed Gaussian's."""
        return functional.squashed_gaussian_log_prob(pre_tanh, *parameters.chunk(2, dim=-1))

    def pre_tanh_log_prob_and_gradient(
        self, parameters: Tensor, squashed: functional.Squashed
    ) -> tuple[Tensor, Tensor]:
        """Return log π(tanh u|s) and its gradient with respect to u; in closed form, unless a subclass has its own."""
        if type(self).pre_tanh_log_prob is not SquashedNormal.pre_tanh_log_prob:
            return super().pre_tanh_log_prob_and_gradient(parameters, squashed)
        return functional.squashed_gaussian_log_prob_and_gradient(squashed, *parameters.chunk(2, dim=-1))

    def mode(self, parameters: Tensor) -> Tensor:
        """Return tanh of the location, ``[..., A]``."""
        return torch.tanh(parameters.chunk(2, dim=-1)[0])

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """Return u = location + scale · noise, ``[..., A]``."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return location + log_scale.exp() * noise

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Return KL(this ‖ other): exact for another squashed normal (tanh preserves the KL), otherwise an estimate."""
        if isinstance(other, SquashedNormal):
            return distributions.kl_divergence(self.distribution(parameters), other.distribution(other_parameters))
        return super().kl(parameters, other, other_parameters)


class Density(Family):
    """A log-density function over continuous actions, which can be evaluated but not sampled.

    Args:
        size: Number of parameters P: the size of the flat observation at which the density is evaluated.
        function: Function ``(parameters [..., P], pre-tanh actions [..., A]) →`` log-density ``[...]`` of actions in
            [−1, 1].
        origin: Name of the prior, for messages.
    """

    can_act = False

    def __init__(self, size: int, function: Callable[[Tensor, Tensor], Tensor], origin: str) -> None:
        self.size, self.function, self.origin = size, function, origin

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the function's log-density, ``[...]``."""
        return self.function(parameters, pre_tanh)

    def mode(self, parameters: Tensor) -> Any:
        """Refuse to act.

        Raises:
            EnvironmentContractError: Always.
        """
        raise EnvironmentContractError(
            f"{self.origin}: found a log-density over continuous actions, which cannot act; expected a prior that can, "
            "such as one from a checkpoint"
        )

    sample = mode
    distribution = mode
