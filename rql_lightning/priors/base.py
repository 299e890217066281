"""The protocol of a frozen prior."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.errors import ConfigurationError, EnvironmentContractError
from rql_lightning.policies.base import Policy
from rql_lightning.spaces import ActionBounds, check_continuous, check_discrete, check_same

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing from Python 3.11


class Prior(Policy):
    """A frozen policy whose reward is unknown; residual learning requires only its log-likelihood.

    Updates do not evaluate the prior: the replay buffer stores its ``distribution_parameters``, which its family
    interprets. :meth:`log_prob`, :meth:`act` and :meth:`distribution` work as for every policy.

    Attributes:
        only_samples: Whether the prior can only be sampled: its log-likelihood is unknown.
    """

    only_samples = False

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever the mode of the algorithm: dropout and batch norm would change the law."""
        return super().train(False)

    def as_input(self, observation: Any) -> Tensor:
        """Convert observations ``[..., *observation_shape]`` to float32 tensors on the prior's device.

        Raises:
            ConfigurationError: If the prior has no spaces yet.
        """
        if not hasattr(self, "observation_space"):
            raise ConfigurationError(
                f"{self.origin()}: found no spaces, expected attach(observation_space, action_space) to be called first"
            )
        return super().as_input(observation)

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Check that the prior's observation and action spaces fit those of the environment.

        Raises:
            SpaceMismatchError: If the spaces differ; names both.
        """
        check_same(f"{self.origin()}, observation space", self.observation_space, observation_space, False)
        check_same(f"{self.origin()}, action space", self.action_space, action_space, True)

    def adopt(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Take the environment's spaces, for priors without spaces of their own.

        Raises:
            SpaceMismatchError: If no algorithm supports the spaces.
        """
        self.observation_space, self.action_space = observation_space, action_space
        if isinstance(action_space, gym.spaces.Discrete):
            check_discrete(observation_space, action_space)
            return
        check_continuous(observation_space, action_space)
        self.bounds = ActionBounds(action_space)

    def wrong(self, what: str, found: str, expected: str) -> EnvironmentContractError:
        """Create the error for an output that is not as it should be; names the prior and the output."""
        return EnvironmentContractError(f"{self.origin()}, {what}: found {found}, expected {expected}")

    def require_finite(self, what: str, values: Tensor) -> None:
        """Refuse outputs ``[..., P]`` with NaN or infinity; not while PyTorch traces a graph, which holds no errors.

        Raises:
            EnvironmentContractError: If a number is not finite; names the first such row.
        """
        if torch.compiler.is_compiling():
            return
        finite = values.isfinite().reshape(-1, values.shape[-1]).all(dim=-1)
        if not bool(finite.all()):
            row = values.reshape(-1, values.shape[-1])[int(finite.long().argmin())]
            raise self.wrong(what, f"{row.tolist()}", "finite numbers")

    def probe(self, observation: Tensor) -> None:
        """Check the attached prior's outputs before anything is trained; by default nothing is checked.

        Args:
            observation: Observations returned by the environment, ``[n, *observation_shape]``.

        Raises:
            EnvironmentContractError: If an output is not a distribution over actions.
        """

    def as_actor(self) -> Policy:
        """Return the policy with the law of this prior whose weights an actor can start with; else the prior itself."""
        return self

    def origin(self) -> str:
        """Return the source of the prior, for messages."""
        raise NotImplementedError


def is_positive(value: object) -> bool:
    """Return whether a value is a finite number > 0, of Python or NumPy but no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def as_float(value: Any) -> float | None:
    """Return a number of Python or NumPy as one of Python, which a checkpoint can hold; ``None`` stays ``None``."""
    return None if value is None else float(value)
