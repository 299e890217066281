"""The base class of policies over an environment's spaces."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rql_lightning.errors import ConfigurationError, RqlError
from rql_lightning.policies.decision import Decision
from rql_lightning.policies.families import Family
from rql_lightning.spaces import ActionBounds, as_elements, space_to_data


class Policy(nn.Module):
    """A stochastic policy that maps observations to the parameters of a distribution over actions.

    Subclasses set the attributes and implement :meth:`distribution_parameters`; the other methods are determined by the
    family of distributions. For a frozen prior, the replay buffer stores the parameters.

    Attributes:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, ``Discrete`` or a bounded ``Box``.
        family: Family of distributions that the parameters belong to.
        bounds: Conversion between actions in [−1, 1] and the environment's units; ``None`` for discrete actions.
        task: Gymnasium id of the environment that the policy was created for, or ``None``.
        prior: Prior that the policy customises, or ``None``.
        temperature: Temperature α at which the policy is soft-optimal for its reward, or ``None`` if it is unknown.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    family: Family
    bounds: ActionBounds | None
    task: str | None
    prior: Policy | None
    temperature: float | None
    needs_state = False

    def __init__(self) -> None:
        super().__init__()
        self.task, self.prior, self.bounds, self.temperature = None, None, None, None

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the distribution parameters ``[..., P]`` at observations ``[..., *observation_shape]``."""
        raise NotImplementedError

    @property
    def can_act(self) -> bool:
        """Whether :meth:`act` is supported; a prior that is only a log-density of continuous actions cannot act."""
        return self.family.can_act

    def distribution(self, observation: Tensor) -> Distribution:
        """Return π(·|s) at observations ``[..., *observation_shape]``, with continuous actions in [−1, 1]."""
        return self.family.distribution(self.distribution_parameters(observation))

    def mode(self, parameters: Tensor) -> Tensor:
        """Return the deterministic action in the environment's units, ``[..., *action_shape]``."""
        return self._to_environment(self.family.mode(parameters))

    def sample(self, parameters: Tensor) -> Tensor:
        """Sample an action in the environment's units, ``[..., *action_shape]``."""
        return self._to_environment(self.family.sample(parameters))

    def uniform(self, parameters: Tensor) -> Tensor:
        """Sample uniformly random actions in the environment's units, one for each of the parameters ``[..., P]``."""
        return self._to_environment(self.family.uniform(parameters))

    def _to_environment(self, action: Tensor) -> Tensor:
        return action if self.bounds is None else self.bounds.to_environment(action)

    def divergence(self, parameters: Tensor, prior_parameters: Tensor) -> Tensor:
        """Return KL(policy ‖ prior) in nats, ``[...]``, from the distribution parameters of both."""
        assert self.prior is not None
        return self.family.kl(parameters, self.prior.family, prior_parameters)

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose an action for one observation or for each observation of a batch.

        Args:
            observation: NumPy array or tensor, ``[*observation_shape]`` or ``[N, *observation_shape]``.
            deterministic: Whether to return the deterministic action (the most probable discrete action, or tanh of the
                mean of u for continuous actions) instead of a sample.

        Returns:
            Actions in the environment's own units, ``[*action_shape]`` or ``[N, *action_shape]``; a tensor if the
            observation is a tensor, otherwise a NumPy array or scalar.

        Raises:
            ConfigurationError: If the observation has another shape, or is not of finite numbers.
        """
        parameters = self.distribution_parameters(self._checked(observation))
        action = self.mode(parameters) if deterministic else self.sample(parameters)
        return action if isinstance(observation, Tensor) else as_elements(self.action_space, action.cpu().numpy())[()]

    @torch.no_grad()
    def decide(self, observation: Any, state: Any = None) -> Decision:
        """Return the deterministic actions at observations ``[N, *observation_shape]``, and the KL to the prior.

        Raises:
            EnvironmentContractError: If the policy cannot act (see :attr:`can_act`).
        """
        with self.own_random():
            parameters, prior_parameters = self.with_prior(self.as_input(observation))
            action = as_elements(self.action_space, self.mode(parameters).cpu().numpy())
        if prior_parameters is None:
            return Decision(action)
        return Decision(action, self.divergence(parameters, prior_parameters).cpu().numpy())

    def with_prior(self, observation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the distribution parameters of the policy and of its prior, if any, ``[..., P]`` each."""
        prior_parameters = None if self.prior is None else self.prior.distribution_parameters(observation)
        return self.distribution_parameters(observation), prior_parameters

    def own_random(self) -> AbstractContextManager[Any]:
        """Return the context of deterministic decisions, in which a policy that needs random numbers has its own."""
        return nullcontext() if self.prior is None else self.prior.own_random()

    @torch.no_grad()
    def log_prob(self, observation: Any, action: Any) -> Any:
        """Return log π(a|s) for one pair or a batch of pairs, with shapes and types as in :meth:`act`.

        Raises:
            ConfigurationError: If a shape is another, or a discrete action is none of the environment's.
        """
        tensor = self._checked(observation)
        taken = self._checked_action(action, tensor)
        if tensor.dim() == len(self.observation_space.shape or ()):
            result = self.log_prob_of(tensor.unsqueeze(0), taken.unsqueeze(0)).squeeze(0)
        else:
            result = self.log_prob_of(tensor, taken)
        return result if isinstance(observation, Tensor) else result.cpu().numpy()[()]

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s) for a batch of tensors on the policy's device.

        Args:
            observation: Observations, ``[N, *observation_shape]``.
            action: Actions in the environment's units, ``[N, *action_shape]``.

        Returns:
            Log-probabilities, or log-densities with respect to the environment's units, ``[N]``.
        """
        parameters = self.distribution_parameters(observation)
        if self.bounds is None:
            return self.family.log_prob(parameters, action)
        unit = self.bounds.from_environment(action.to(torch.float32))
        return self.family.log_prob(parameters, unit) - self.bounds.log_half_widths

    def describe(self) -> dict[str, Any]:
        """Return a description from which :func:`rql_lightning.load_policy` rebuilds the policy, as plain data."""
        return {
            "kind": type(self).__name__,
            "task": self.task,
            "observation_space": space_to_data(self.observation_space),
            "action_space": space_to_data(self.action_space),
        }

    def _checked(self, observation: Any) -> Tensor:
        """Convert observations of a caller, as :meth:`as_input`, and refuse those that the policy cannot have."""
        tensor = _converted("observation", observation, self.as_input)
        shape, found = tuple(self.observation_space.shape or ()), tuple(tensor.shape)
        if found[len(found) - len(shape) :] != shape:
            batch = ", ".join(["N", *map(str, shape)])
            _refuse("observation", f"shape {found}", f"an array of shape {shape}, or of a batch ({batch})")
        if not torch.compiler.is_compiling():
            _require_all(tensor.isfinite(), "observation", tensor, "finite numbers")
        return tensor

    def _checked_action(self, action: Any, observation: Tensor) -> Tensor:
        """Convert actions of a caller, one for each of the observations."""
        taken = _converted("action", action, lambda given: torch.as_tensor(given, device=observation.device))
        batch = observation.shape[: observation.dim() - len(self.observation_space.shape or ())]
        expected = (*batch, *(self.action_space.shape or ()))
        if tuple(taken.shape) != expected:
            _refuse("action", f"shape {tuple(taken.shape)}", f"an array of shape {expected}, one for each observation")
        if torch.compiler.is_compiling():
            return taken
        if self.bounds is not None:
            _require_all(taken.isfinite(), "action", taken, "finite numbers")
            return taken
        size, number = int(self.action_space.n), taken.to(torch.float64)
        valid = (number >= 0) & (number < size) & (number % 1 == 0)
        _require_all(valid, "action", taken, f"an integer in [0, {size - 1}]")
        return taken

    def as_input(self, observation: Any) -> Tensor:
        """Convert observations ``[..., *observation_shape]`` to float32 tensors on the policy's device."""
        first = next(self.parameters(), None)
        device = observation.device if isinstance(observation, Tensor) and first is None else None
        device = first.device if first is not None else device
        tensor = torch.as_tensor(np.asarray(observation) if not isinstance(observation, Tensor) else observation)
        return tensor.to(device=device, dtype=torch.float32)

    def flatten(self, observation: Tensor) -> Tensor:
        """Flatten observations, ``[..., *observation_shape]`` → ``[..., D]``."""
        shape = self.observation_space.shape or ()
        batch = observation.shape[: observation.dim() - len(shape)]
        return observation.reshape(*batch, math.prod(shape))


def _converted(name: str, given: Any, convert: Callable[[Any], Tensor]) -> Tensor:
    """Convert what a caller gives to a tensor."""
    try:
        return convert(given)
    except RqlError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"{name}: found {type(given).__name__} ({reason}), expected an array of numbers"
        ) from error


def _require_all(valid: Tensor, name: str, given: Tensor, expected: str) -> None:
    """Refuse a batch in which a number is not valid; names the first such number."""
    if not bool(valid.all()):
        index = int(valid.reshape(-1).long().argmin())
        _refuse(name, f"{given.reshape(-1)[index].item()}", expected)


def _refuse(name: str, found: str, expected: str) -> NoReturn:
    raise ConfigurationError(f"{name}: found {found}, expected {expected}")
