"""The networks of the policies of Stable-Baselines3, rebuilt from plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        nn.ReLU,
        nn.Tanh,
        nn.ELU,
        nn.GELU,
        nn.LeakyReLU,
        nn.Mish,
        nn.SELU,
        nn.SiLU,
        nn.Sigmoid,
        nn.Softplus,
        nn.Identity,
    )
}
LOG_SCALE_RANGE = (-20.0, 2.0)  # of SAC and TQC
VARIANCE_EPSILON = 1e-6  # added to the variance and to the logarithm's argument of gSDE


@dataclass(frozen=True)
class Architecture:
    """What determines a network and its law of actions, as plain data.

    Attributes:
        algorithm: Class of the model, for messages.
        sizes: Widths of the layers from the inputs to the head's outputs.
        activation: Name of the activation function in ``torch.nn``.
        quantiles: Number of quantiles per action whose mean is the Q-value, 1 if there are no quantiles.
        scale: Where the scale of continuous actions comes from: a ``network``, a ``parameter``, ``gsde`` (generalised
            state-dependent exploration) or the user (``stated``); ``None`` for discrete actions.
        squashed: Whether continuous actions are tanh(u) of a normal u, instead of a normal that is clipped.
        mean_limit: Bound of the mean's absolute value with gSDE, ``None`` for no bound.
        expln: Whether gSDE keeps its scales positive by ``expln`` instead of exp.
        gsde_columns: Number of columns of gSDE's log-scales: one per action, or a single one.
    """

    algorithm: str
    sizes: Sequence[int]
    activation: str
    quantiles: int = 1
    scale: Literal["network", "parameter", "gsde", "stated"] | None = None
    squashed: bool = False
    mean_limit: float | None = None
    expln: bool = False
    gsde_columns: int = 0


class Trunk(nn.Module):
    """Hidden layers with activation functions, and a head.

    Args:
        architecture: Widths and activation function.

    Raises:
        KeyError: If the activation function is unknown.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        *hidden, outputs = architecture.sizes
        activation = ACTIVATIONS[architecture.activation]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(hidden):
            layers += [nn.Linear(width, next_width), activation()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], outputs)


class DiscreteNetwork(Trunk):
    """Log-probabilities from logits, or from Q-values divided by a temperature."""

    def __init__(self, architecture: Architecture, temperature: float | None) -> None:
        super().__init__(architecture)
        self.quantiles, self.temperature = architecture.quantiles, temperature or 1.0

    def forward(self, code: Tensor) -> Tensor:
        """Map ``[..., D]`` to log-probabilities ``[..., A]``."""
        outputs = self.head(self.hidden(code)).unflatten(-1, (self.quantiles, -1))
        return (outputs.mean(dim=-2) / self.temperature).log_softmax(dim=-1)


class ContinuousNetwork(Trunk):
    """Location and log-scale of a normal distribution.

    Args:
        architecture: Widths, and where the scale comes from.
        scale: Scale that the user states, or ``None``.
    """

    def __init__(self, architecture: Architecture, scale: float | None) -> None:
        super().__init__(architecture)
        self.architecture = architecture
        latent, actions = architecture.sizes[-2:]
        self.stated = None if scale is None else math.log(scale)
        if architecture.scale == "network":
            self.log_scale: nn.Linear | nn.Parameter = nn.Linear(latent, actions)
        elif architecture.scale == "parameter":
            self.log_scale = nn.Parameter(torch.zeros(actions))
        elif architecture.scale == "gsde":
            self.log_scale = nn.Parameter(torch.zeros(latent, architecture.gsde_columns))

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[..., D]`` to location and log-scale, ``[..., A]`` each."""
        latent = self.hidden(code)
        location = self.head(latent)
        limit = self.architecture.mean_limit
        if limit is not None:
            location = location.clamp(-limit, limit)
        if self.stated is not None:  # a deterministic actor, which ends in tanh, with noise that is added to its action
            return torch.tanh(location), torch.full_like(location, self.stated)
        return location, self._log_scale(latent).expand_as(location)

    def _log_scale(self, latent: Tensor) -> Tensor:
        if isinstance(self.log_scale, nn.Linear):
            return self.log_scale(latent).clamp(*LOG_SCALE_RANGE)
        if self.architecture.scale == "parameter":
            return self.log_scale
        return 0.5 * torch.log(latent.square() @ self._gsde_scale().square() + VARIANCE_EPSILON)

    def _gsde_scale(self) -> Tensor:
        """Return the scale of each weight of gSDE's noise, ``[latent, A or 1]``."""
        assert isinstance(self.log_scale, nn.Parameter)
        if not self.architecture.expln:
            return self.log_scale.exp()
        above = torch.log1p(self.log_scale.clamp(min=0.0) + VARIANCE_EPSILON) + 1.0
        return torch.where(self.log_scale > 0, above, self.log_scale.clamp(max=0.0).exp())
