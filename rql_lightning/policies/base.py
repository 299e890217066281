"""What acts: a policy over an environment's spaces."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from rql_lightning.policies.decision import Decision
from rql_lightning.policies.families import Family
from rql_lightning.spaces import ActionBounds, as_elements, space_to_data


class Policy(nn.Module):
    """A stochastic policy: an observation gives the parameters of a law of actions.

    A subclass sets the attributes and gives :meth:`distribution_parameters`; everything else follows from its family.
    The parameters are what a replay buffer keeps of a frozen prior.

    Attributes:
        observation_space: ``Box``.
        action_space: ``Discrete``, or a bounded ``Box``.
        family: The law of actions that the parameters mean.
        bounds: Between the coordinate [−1, 1] and the environment's units; ``None`` for discrete actions.
        task: Gymnasium id of the environment that the policy was made for, or ``None``.
        prior: The prior that the policy customises, or ``None``.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    family: Family
    bounds: ActionBounds | None
    task: str | None
    prior: Policy | None
    needs_state = False

    def __init__(self) -> None:
        super().__init__()
        self.task, self.prior, self.bounds = None, None, None

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Parameters ``[..., P]`` of the law of actions at observations ``[..., *observation_shape]``."""
        raise NotImplementedError

    @property
    def can_act(self) -> bool:
        """Whether :meth:`act` works: not of a prior that is only a density over continuous actions."""
        return self.family.can_act

    def distribution(self, observation: Tensor) -> Distribution:
        """π(·|s) at observations ``[..., *observation_shape]``, of continuous actions in the coordinate [−1, 1]."""
        return self.family.distribution(self.distribution_parameters(observation))

    def mode(self, parameters: Tensor) -> Tensor:
        """The deterministic action, ``[..., *action_shape]``, in the environment's units."""
        return self._to_environment(self.family.mode(parameters))

    def sample(self, parameters: Tensor) -> Tensor:
        """A random action, ``[..., *action_shape]``, in the environment's units."""
        return self._to_environment(self.family.sample(parameters))

    def _to_environment(self, action: Tensor) -> Tensor:
        return action if self.bounds is None else self.bounds.to_environment(action)

    def divergence(self, parameters: Tensor, prior_parameters: Tensor) -> Tensor:
        """KL(policy ‖ prior) in nats, ``[...]``, from the parameters of both."""
        assert self.prior is not None
        return self.family.kl(parameters, self.prior.family, prior_parameters)

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose an action for one observation or for each of a batch.

        Args:
            observation: NumPy array or tensor, ``[*observation_shape]`` or ``[N, *observation_shape]``.
            deterministic: The most probable action (of continuous ones: tanh of the mean), or a sample.

        Returns:
            Actions in the environment's own units, ``[*action_shape]`` or ``[N, *action_shape]``; NumPy for NumPy,
            tensor for tensor.
        """
        parameters = self.distribution_parameters(self.as_input(observation))
        action = self.mode(parameters) if deterministic else self.sample(parameters)
        return action if isinstance(observation, Tensor) else as_elements(self.action_space, action.cpu().numpy())[()]

    @torch.no_grad()
    def decide(self, observation: Any, state: Any = None) -> Decision:
        """The deterministic actions at observations ``[N, *observation_shape]``, and their laws' KL to the prior's.

        Raises:
            EnvironmentContractError: for a prior that is only a density.
        """
        tensor = self.as_input(observation)
        parameters = self.distribution_parameters(tensor)
        action = as_elements(self.action_space, self.mode(parameters).cpu().numpy())
        if self.prior is None:
            return Decision(action)
        divergence = self.divergence(parameters, self.prior.distribution_parameters(tensor))
        return Decision(action, divergence.cpu().numpy())

    @torch.no_grad()
    def log_prob(self, observation: Any, action: Any) -> Any:
        """Log π(a|s) for one pair or a batch of them; shapes and kinds as in :meth:`act`."""
        tensor = self.as_input(observation)
        taken = torch.as_tensor(action, device=tensor.device)
        if tensor.dim() == len(self.observation_space.shape or ()):
            result = self.log_prob_of(tensor.unsqueeze(0), taken.unsqueeze(0)).squeeze(0)
        else:
            result = self.log_prob_of(tensor, taken)
        return result if isinstance(observation, Tensor) else result.cpu().numpy()[()]

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log π(a|s) of batches as tensors on the policy's device; of continuous actions per unit of the environment's.

        Args:
            observation: ``[N, *observation_shape]``.
            action: ``[N, *action_shape]``, in the environment's units.

        Returns:
            ``[N]``.
        """
        parameters = self.distribution_parameters(observation)
        if self.bounds is None:
            return self.family.log_prob(parameters, action)
        unit = self.bounds.from_environment(action.to(torch.float32))
        return self.family.log_prob(parameters, unit) - self.bounds.log_half_widths

    def describe(self) -> dict[str, Any]:
        """What :func:`rql_lightning.load_policy` rebuilds the policy from, as strings, numbers, lists and dicts."""
        return {
            "kind": type(self).__name__,
            "task": self.task,
            "observation_space": space_to_data(self.observation_space),
            "action_space": space_to_data(self.action_space),
        }

    def as_input(self, observation: Any) -> Tensor:
        """Observations ``[..., *observation_shape]`` as float32, on the policy's device."""
        first = next(self.parameters(), None)
        device = observation.device if isinstance(observation, Tensor) and first is None else None
        device = first.device if first is not None else device
        tensor = torch.as_tensor(np.asarray(observation) if not isinstance(observation, Tensor) else observation)
        return tensor.to(device=device, dtype=torch.float32)

    def flatten(self, observation: Tensor) -> Tensor:
        """``[..., *observation_shape]`` → ``[..., D]``."""
        shape = self.observation_space.shape or ()
        batch = observation.shape[: observation.dim() - len(shape)]
        return observation.reshape(*batch, math.prod(shape))
