"""Priors that are given as a function for their log-likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rql_lightning.errors import EnvironmentContractError, RqlError, described
from rql_lightning.policies.families import Categorical, Density, Family
from rql_lightning.policies.normal import WITHIN
from rql_lightning.priors.base import Prior

# Larger errors of log Σ π are not due to rounding; V_R would be wrong by ω′ times the error.
NORMALISATION_TOLERANCE = 1e-3


class FunctionPrior(Prior):
    """A prior given by a function for its log-likelihood, such as a network of another library.

    Args:
        log_prob: Function (observation, action) -> log π of shape [N], or its import path on the command line, such as
            my_module.my_log_prob. Observations are CPU tensors [N, *observation_shape]. Discrete actions are int64 CPU
            tensors [N], and the probabilities must sum to 1 over the actions. Continuous actions are CPU tensors
            [N, *action_shape] in the environment's units, strictly within its bounds, and the function must return a
            log-density with respect to these units that autograd can differentiate with respect to the action.
    """

    def __init__(self, log_prob: Callable[..., Any]) -> None:
        super().__init__()
        self.function = log_prob
        self.name = (
            f"{getattr(log_prob, '__module__', '?')}.{getattr(log_prob, '__qualname__', type(log_prob).__name__)}"
        )

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Adopt the environment's observation and action spaces.

        Raises:
            SpaceMismatchError: If no algorithm supports the spaces.
        """
        self.adopt(observation_space, action_space)
        if isinstance(action_space, gym.spaces.Discrete):
            self.family: Family = Categorical(int(action_space.n))
            return
        self.family = Density(math.prod(observation_space.shape or ()), self.density, self.origin())

    def probe(self, observation: Tensor) -> None:
        """Check the function's results.

        Raises:
            EnvironmentContractError: If the function raises, or returns a wrong shape, NaN, probabilities that do not
                sum to 1, or a density that is not differentiable with respect to the action.
        """
        parameters = self.distribution_parameters(observation)
        if self.bounds is None:
            return
        pre_tanh = torch.full((len(observation), self.bounds.size), 0.1, requires_grad=True)
        with torch.enable_grad():
            if not self.density(parameters, pre_tanh).requires_grad:
                raise EnvironmentContractError(
                    f"{self.origin()}: found a result without a gradient, expected a density that PyTorch can "
                    "differentiate with respect to the action"
                )

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the function's log-probabilities of all discrete actions, ``[..., A]``, checked in every call.

        For a density over continuous actions, return the flat observation at which to evaluate it, ``[..., D]``.
        """
        batch = observation.shape[: observation.dim() - len(self.observation_space.shape)]
        if self.bounds is not None:
            return observation.reshape(*batch, -1)
        rows = observation.reshape(-1, *self.observation_space.shape).cpu()
        actions = int(self.action_space.n)
        every_action = torch.arange(actions).repeat(len(rows))
        with torch.no_grad():
            result = self._ask(rows.repeat_interleave(actions, dim=0), every_action)
        log_prob = result.reshape(len(rows), actions)
        error = torch.logsumexp(log_prob, dim=-1).abs()
        if not bool((error <= NORMALISATION_TOLERANCE).all()):  # also refuses NaN
            raise EnvironmentContractError(
                f"{self.origin()}: found log-probabilities {log_prob[int(error.nan_to_num(1e9).argmax())].tolist()}, "
                "expected log-probabilities whose probabilities sum to 1 over the actions"
            )
        return log_prob.reshape(*batch, actions).to(observation.device)

    def density(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        """Return the log-density of actions in [−1, 1] at observations ``[..., D]`` and pre-tanh actions ``[..., A]``.

        Raises:
            EnvironmentContractError: If a log-density is not finite.
        """
        assert self.bounds is not None
        if not bool(pre_tanh.isfinite().all()):  # training has diverged; this is not an error of the function
            return torch.full(pre_tanh.shape[:-1], torch.nan, device=pre_tanh.device)
        rows = parameters.reshape(-1, *self.observation_space.shape).cpu()
        # float32 rounds tanh to the bound itself, where a density need not be finite.
        unit = torch.tanh(pre_tanh).clamp(-WITHIN, WITHIN).reshape(len(rows), -1).cpu()
        result = self._ask(rows, self.bounds.to_environment(unit))
        if not bool(result.isfinite().all()):
            row = int(result.isfinite().long().argmin())
            raise EnvironmentContractError(
                f"{self.origin()}: found {float(result[row].detach())} at action "
                f"{self.bounds.to_environment(unit)[row].tolist()}, expected a finite log-density"
            )
        return (result + self.bounds.log_half_widths).reshape(pre_tanh.shape[:-1]).to(pre_tanh.device)

    def _ask(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the function's result in float32, ``[N]``.

        Raises:
            EnvironmentContractError: If the function raises anything but an error for the user, or the shape is wrong.
        """
        try:
            result = self.function(observation, action)
        except RqlError:  # says what is wrong already
            raise
        except Exception as error:
            reason = described(error)
            raise EnvironmentContractError(
                f"{self.origin()}: found an error for {_described(observation, action)} ({reason}), expected a tensor "
                f"of shape ({len(observation)},)"
            ) from error
        if not isinstance(result, Tensor) or result.shape != observation.shape[:1]:
            found = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise EnvironmentContractError(
                f"{self.origin()}: found {found} for a batch of {len(observation)}, expected a tensor of shape "
                f"({len(observation)},)"
            )
        return result.to(torch.float32)

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s), ``[N]``; for continuous actions this is the function's result itself."""
        if self.bounds is None:
            return super().log_prob_of(observation, action)
        return self._ask(observation.cpu(), action.cpu()).to(observation.device)

    def origin(self) -> str:
        """Return the name of the function, for messages."""
        return f"prior {self.name}"

    def describe(self) -> dict[str, Any]:
        """Return the function's name only: a file cannot hold a function, and loading a file never imports code."""
        return {"kind": "FunctionPrior", "log_prob": self.name}


def _described(observation: Tensor, action: Tensor) -> str:
    """Return the arguments of a call for messages: their shapes, and the first state."""
    first = np.array2string(observation[0].detach().double().numpy(), precision=4, threshold=32)
    return (
        f"observations of shape {tuple(observation.shape)}, the first of them {' '.join(first.split())}, and actions "
        f"of shape {tuple(action.shape)}"
    )
