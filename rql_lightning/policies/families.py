"""Laws of actions: what a policy's distribution parameters mean.

A policy *has* a family. Algorithms ask the family for densities, samples and divergences, and never what class a
policy is. Discrete actions are integers from 0; continuous ones are in the coordinate [−1, 1]^A, whatever the
environment's bounds are, and densities are asked for at the *pre-tanh* action u of a = tanh(u), so that nothing is lost
at the bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributions

from rql_lightning import functional
from rql_lightning.errors import EnvironmentContractError

DIVERGENCE_SAMPLES = 64
EDGE = 1.0 - 2.0**-24
"""The largest float32 below 1: an action given from outside that lies on the bound is taken to be this close to it."""


class Family:
    """A law of actions, given by parameters ``[..., P]``.

    Attributes:
        size: P, the number of parameters.
        can_act: Whether :meth:`mode` and :meth:`sample` work: a density alone names no action.
        explorable: Whether :meth:`from_noise` works, as exploration with correlated noise needs.
    """

    size: int
    can_act = True
    explorable = False

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """The law as a PyTorch distribution."""
        raise NotImplementedError

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Log-probability or log-density of actions, ``[...]``."""
        raise NotImplementedError

    def mode(self, parameters: Tensor) -> Tensor:
        """The deterministic action of the evaluation protocol."""
        raise NotImplementedError

    def sample(self, parameters: Tensor) -> Tensor:
        """A random action."""
        raise NotImplementedError

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """KL(this ‖ other) in nats, ``[...]``; infinite where this takes actions that the other never does."""
        raise NotImplementedError

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Log π(tanh u|s) in the coordinate [−1, 1], ``[...]``, differentiable in u; of continuous actions only.

        Args:
            parameters: ``[..., P]``.
            pre_tanh: u, ``[..., A]``; finite numbers of any size.

        Raises:
            EnvironmentContractError: if the family has no density.
        """
        raise EnvironmentContractError(
            f"prior of family {type(self).__name__}: found no density, expected one over continuous actions"
        )

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """The pre-tanh action that standard normal noise ``[..., A]`` chooses."""
        raise NotImplementedError

    def with_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """Parameters of the same law no narrower than this; the same parameters where the law has no scale."""
        return parameters

    def at_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor | None:
        """1 where the scale is at its minimum, else 0, of any shape; ``None`` where the law has no scale."""
        return None


class Categorical(Family):
    """Discrete actions: the parameters are their log-probabilities ``[..., A]``.

    Args:
        actions: A.
    """

    def __init__(self, actions: int) -> None:
        self.size = actions

    def distribution(self, parameters: Tensor) -> distributions.Categorical:
        """See :meth:`Family.distribution`."""
        return distributions.Categorical(logits=parameters, validate_args=False)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """See :meth:`Family.log_prob`; actions are integers ``[...]``."""
        return self.distribution(parameters).log_prob(action)

    def mode(self, parameters: Tensor) -> Tensor:
        """The most probable action, ``[...]``."""
        return parameters.argmax(dim=-1)

    def sample(self, parameters: Tensor) -> Tensor:
        """See :meth:`Family.sample`; ``[...]``."""
        return self.distribution(parameters).sample()

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """In closed form."""
        return distributions.kl_divergence(self.distribution(parameters), other.distribution(other_parameters))


class SquashedNormal(Family):
    """a = tanh(u), u ~ N(location, scale²): the parameters are location and log-scale of u, ``[..., 2 A]``.

    Args:
        dimensions: A.
    """

    explorable = True

    def __init__(self, dimensions: int) -> None:
        self.dimensions, self.size = dimensions, 2 * dimensions

    def distribution(self, parameters: Tensor) -> distributions.Distribution:
        """See :meth:`Family.distribution`; for log-densities near the bounds use :meth:`pre_tanh_log_prob`."""
        location, log_scale = parameters.chunk(2, dim=-1)
        normal = distributions.Independent(distributions.Normal(location, log_scale.exp(), validate_args=False), 1)
        return distributions.TransformedDistribution(normal, [distributions.TanhTransform()], validate_args=False)

    def log_prob(self, parameters: Tensor, action: Tensor) -> Tensor:
        """Density at actions ``[..., A]``; one on a bound, where it is 0 or infinite, counts as the next float32."""
        return self.pre_tanh_log_prob(parameters, torch.atanh(action.clamp(-EDGE, EDGE)))

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """See :meth:`Family.pre_tanh_log_prob`."""
        return functional.squashed_gaussian_log_prob(pre_tanh, *parameters.chunk(2, dim=-1))

    def mode(self, parameters: Tensor) -> Tensor:
        """Tanh of the mean, ``[..., A]``."""
        return torch.tanh(parameters.chunk(2, dim=-1)[0])

    def sample(self, parameters: Tensor) -> Tensor:
        """See :meth:`Family.sample`; ``[..., A]``."""
        noise = torch.randn_like(parameters[..., : self.dimensions])
        return torch.tanh(self.from_noise(parameters, noise))

    def from_noise(self, parameters: Tensor, noise: Tensor) -> Tensor:
        """See :meth:`Family.from_noise`."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return location + log_scale.exp() * noise

    def with_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """See :meth:`Family.with_min_scale`."""
        location, log_scale = parameters.chunk(2, dim=-1)
        return torch.cat([location, log_scale.clamp(min=min_log_scale)], dim=-1)

    def at_min_scale(self, parameters: Tensor, min_log_scale: float) -> Tensor:
        """See :meth:`Family.at_min_scale`; ``[..., A]``."""
        return (parameters.chunk(2, dim=-1)[1] <= min_log_scale).float()

    def kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """In closed form to another squashed normal (tanh changes no KL), otherwise estimated."""
        if isinstance(other, SquashedNormal):
            return distributions.kl_divergence(self.distribution(parameters), other.distribution(other_parameters))
        return self._estimated_kl(parameters, other, other_parameters)

    def _estimated_kl(self, parameters: Tensor, other: Family, other_parameters: Tensor) -> Tensor:
        """Mean of log π̂(u) − log π(u) over the same samples of u for every state, so that it repeats.

        Their first three moments are those of a Gaussian, which makes it exact for Gaussian priors.
        """
        generator = torch.Generator().manual_seed(0)
        half = torch.randn(DIVERGENCE_SAMPLES // 2, self.dimensions, generator=generator).to(parameters.device)
        half = half / half.square().mean(dim=0).sqrt()
        pre_tanh = self.from_noise(parameters.unsqueeze(-2), torch.cat([half, -half]))
        theirs = other_parameters.unsqueeze(-2).expand(*pre_tanh.shape[:-1], -1)
        ours = self.pre_tanh_log_prob(parameters.unsqueeze(-2), pre_tanh)
        return (ours - other.pre_tanh_log_prob(theirs, pre_tanh)).mean(dim=-1)


class Density(Family):
    """A density over continuous actions that can be asked for, and nothing else.

    Args:
        size: P, the numbers that say where to ask: a flat observation.
        function: ``(parameters [..., P], pre-tanh actions [..., A]) →`` log-density ``[...]`` in the coordinate
            [−1, 1].
        origin: Whose density it is, for messages.
    """

    can_act = False

    def __init__(self, size: int, function: Callable[[Tensor, Tensor], Tensor], origin: str) -> None:
        self.size, self.function, self.origin = size, function, origin

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """The function itself."""
        return self.function(parameters, pre_tanh)

    def mode(self, parameters: Tensor) -> Any:
        """Refused.

        Raises:
            EnvironmentContractError: always.
        """
        raise EnvironmentContractError(
            f"{self.origin}: found a log-density over continuous actions, which cannot act; expected a prior that can, "
            "such as one from a checkpoint"
        )

    sample = mode
    distribution = mode
