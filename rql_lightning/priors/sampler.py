"""Priors that can be sampled, and whose log-likelihood is unknown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.errors import RqlError, described, is_integer, require
from rql_lightning.policies.families import Categorical
from rql_lightning.policies.randomness import OwnRandom
from rql_lightning.policies.samples import Samples
from rql_lightning.priors.base import Prior

ROUNDING = 1e-4
"""Largest distance from the bounds, relative to half their distance, by which rounding may move an action."""


class SamplerPrior(Prior):
    """A prior that can only be sampled, such as a diffusion policy, a flow or a server that answers with an action.

    It is customised by SampledResidualQLearning alone, at omega_prime = alpha_hat.

    Args:
        sample: Function observation -> action, or its import path on the command line, such as my_module.my_sample. It
            gets observations as a CPU tensor [N, *observation_shape], in which each state is repeated once per sample,
            and returns one random action for each, a tensor or an array [N, *action_shape] in the environment's units.
        samples: Number of samples of a state, K. The error of values and policies shrinks with 1 / K.
    """

    only_samples = True

    def __init__(self, sample: Callable[..., Any], samples: int = 32) -> None:
        super().__init__()
        require(callable(sample), "model.prior.sample", sample, "a function observation -> action")
        require(is_integer(samples, 2), "model.prior.samples", samples, "an integer >= 2")
        self.function, self.samples = sample, samples
        self.name = f"{getattr(sample, '__module__', '?')}.{getattr(sample, '__qualname__', type(sample).__name__)}"
        self._random = OwnRandom(seed=0)

    def own_random(self) -> AbstractContextManager[Any]:
        """Return a context with random numbers of the prior's own, so that evaluation does not affect training."""
        return self._random

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Adopt the environment's spaces.

        Raises:
            SpaceMismatchError: If no algorithm supports the spaces.
        """
        self.adopt(observation_space, action_space)
        if isinstance(action_space, gym.spaces.Discrete):
            self.family: Categorical | Samples = Categorical(int(action_space.n))
            return
        assert self.bounds is not None
        self.family = Samples(self.bounds.size, self.samples)

    def probe(self, observation: Tensor) -> None:
        """Check the function's samples.

        Raises:
            EnvironmentContractError: If the function raises, or returns a wrong shape, numbers that are not finite, or
                an action outside of the action space.
        """
        self.distribution_parameters(observation)

    @torch.no_grad()
    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Sample K actions at each state; checked in every call.

        Returns:
            For discrete actions the logarithms of their frequencies, ``[..., A]``, −∞ for actions that were not
            sampled; for continuous actions the samples in [−1, 1], ``[..., K A]``.
        """
        shape = self.observation_space.shape or ()
        batch = observation.shape[: observation.dim() - len(shape)]
        rows = observation.reshape(-1, *shape).cpu().repeat_interleave(self.samples, dim=0)
        action = self._ask(rows)
        if self.bounds is None:
            counted = functional.empirical_log_prob(self._discrete(action, rows).reshape(*batch, -1), self.family.size)
            return counted.to(observation.device)
        return self._continuous(action, rows).reshape(*batch, -1).to(observation)

    def _discrete(self, action: Tensor, rows: Tensor) -> Tensor:
        """Return integer actions, ``[N]``."""
        valid = (action >= 0) & (action < self.family.size) & (action == action.round())
        self._require_inside(valid, action, rows)
        return action

    def _continuous(self, action: Tensor, rows: Tensor) -> Tensor:
        """Return actions in [−1, 1], ``[N, A]``."""
        assert self.bounds is not None
        unit = self.bounds.from_environment(action.float())
        self._require_inside((unit.abs() <= 1.0 + ROUNDING).all(dim=-1), action, rows)
        return unit.clamp(-1.0, 1.0)

    def _require_inside(self, valid: Tensor, action: Tensor, rows: Tensor) -> None:
        if not bool(valid.all()):
            row = int(valid.long().argmin())
            found = f"{action[row].tolist()} at observation {rows[row].tolist()}"
            raise self.wrong("sample", found, f"an action in {self.action_space} (clip or scale it in the function)")

    def _ask(self, rows: Tensor) -> Tensor:
        """Return the function's actions, ``[N, *action_shape]``."""
        wanted = (len(rows), *(self.action_space.shape or ()))
        try:
            given = self.function(rows)
            result = _as_tensor(given)
        except RqlError:  # says what is wrong already
            raise
        except Exception as error:
            reason = described(error)
            found = f"an error for observations of shape {tuple(rows.shape)} ({reason})"
            raise self.wrong("sample", found, f"actions of shape {wanted}") from error
        if result is None or tuple(result.shape) != wanted:
            if result is not None:
                found = f"shape {tuple(result.shape)}"
            else:
                found = (
                    f"numbers of type {given.dtype}" if isinstance(given, np.ndarray | Tensor) else type(given).__name__
                )
            expected = f"a tensor or an array of real numbers, of shape {wanted}: one action for each row, "
            raise self.wrong("sample", found, f"{expected}{self.samples} rows for each state")
        return result

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Refuse: the log-likelihood is unknown.

        Raises:
            EnvironmentContractError: Always.
        """
        raise self.wrong("log_prob", "a prior that can only be sampled", "one whose log-likelihood is known")

    def origin(self) -> str:
        """Return the name of the function, for messages."""
        return f"prior {self.name}"

    def describe(self) -> dict[str, Any]:
        """Return the function's name and the number of samples; loading a file never imports code."""
        return {"kind": "SamplerPrior", "name": self.name, "samples": self.samples}


def _as_tensor(actions: Any) -> Tensor | None:
    """Convert actions to a CPU tensor of int64 or of floating-point numbers; ``None`` if they are no real numbers."""
    if isinstance(actions, np.ndarray) and actions.dtype.kind in "biuf":
        dtype = np.float64 if actions.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(actions, dtype=dtype, order="C"))  # strides and byte order as PyTorch has them
    if isinstance(actions, Tensor) and not actions.is_complex():
        actions = actions.detach().cpu()
        return actions if actions.is_floating_point() else actions.to(torch.int64)
    return None
