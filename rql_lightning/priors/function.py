"""A prior of which only a log-density function is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.priors.base import Prior

# A log-density that is off by more than this is a mistake, not rounding: V_R would be off by ω′ times as much.
NORMALISATION_TOLERANCE = 1e-3


class FunctionPrior(Prior):
    """Any policy that can tell its log-likelihood, e.g. somebody else's network.

    Args:
        log_prob: ``log_prob(observation, action)``: tensors ``[N, *observation_shape]`` and ``[N]`` (int64), both on
            the CPU wherever training runs, to log π of shape ``[N]``; on the command line its import path, such as
            ``my_module.my_log_prob``. It must be normalised over the actions.
    """

    def __init__(self, log_prob: Callable[..., Any]) -> None:
        super().__init__()
        self.function = log_prob
        self.name = (
            f"{getattr(log_prob, '__module__', '?')}.{getattr(log_prob, '__qualname__', type(log_prob).__name__)}"
        )

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Take the environment's spaces and try the function once.

        Raises:
            EnvironmentContractError: if it returns the wrong shape, NaN, or a density that is not normalised.
        """
        self.observation_space, self.action_space = observation_space, action_space
        self.distribution_parameters(torch.zeros(2, *observation_space.shape))

    @torch.no_grad()
    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """The function at every action, ``[..., A]``; checked at every call."""
        batch = observation.shape[: observation.dim() - len(self.observation_space.shape)]
        rows = observation.reshape(-1, *self.observation_space.shape).cpu()
        actions = int(self.action_space.n)
        every_action = torch.arange(actions).repeat(len(rows))
        result = self.function(rows.repeat_interleave(actions, dim=0), every_action)
        if not isinstance(result, Tensor) or result.shape != every_action.shape:
            found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise EnvironmentContractError(
                f"{self.origin()}: found {found} for a batch of {len(every_action)}, expected a tensor of shape "
                f"({len(every_action)},)"
            )
        log_prob = result.to(torch.float32).reshape(len(rows), actions)
        error = torch.logsumexp(log_prob, dim=-1).abs()
        if not bool((error <= NORMALISATION_TOLERANCE).all()):  # also refuses NaN
            raise EnvironmentContractError(
                f"{self.origin()}: found log-probabilities {log_prob[int(error.nan_to_num(1e9).argmax())].tolist()}, "
                "expected the logarithms of probabilities that sum to 1 over the actions"
            )
        return log_prob.reshape(*batch, actions).to(observation.device)

    def origin(self) -> str:
        """Names the function."""
        return f"prior {self.name}"

    def describe(self) -> dict[str, Any]:
        """Only its name: a file cannot hold a function, and loading one never imports."""
        return {"kind": "FunctionPrior", "log_prob": self.name}
