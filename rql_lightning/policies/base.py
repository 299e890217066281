"""What acts: a policy over an environment's spaces."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from rql_lightning.policies.decision import Decision
from rql_lightning.spaces import as_elements, space_to_data


class Policy(nn.Module):
    """A stochastic policy.

    A subclass gives :meth:`distribution_parameters`, :meth:`make_distribution`, :meth:`mode` and :meth:`sample`;
    everything else follows from them. The parameters are what a replay buffer keeps of a frozen prior: the
    log-probabilities of discrete actions, location and log-scale of continuous ones.

    Attributes:
        observation_space: ``Box``.
        action_space: ``Discrete``, or a bounded ``Box``.
        task: Gymnasium id of the environment that the policy was made for, or ``None``.
        prior: The prior that the policy customises, or ``None``.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    task: str | None
    prior: Policy | None

    @property
    def can_act(self) -> bool:
        """Whether :meth:`act` works: not of a prior that is only a density over continuous actions."""
        return True

    def __init__(self) -> None:
        super().__init__()
        self.task = None
        self.prior = None

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Parameters ``[..., P]`` of the distribution at observations ``[..., *observation_shape]``."""
        raise NotImplementedError

    def make_distribution(self, parameters: Tensor) -> Distribution:
        """The distribution with these parameters, e.g. those that a replay buffer kept.

        Continuous actions are in their own coordinate, [−1, 1], whatever the environment's bounds are.
        """
        raise NotImplementedError

    def distribution(self, observation: Tensor) -> Distribution:
        """π(·|s) at observations ``[..., *observation_shape]``."""
        return self.make_distribution(self.distribution_parameters(observation))

    def mode(self, parameters: Tensor) -> Tensor:
        """The deterministic action, in the environment's units."""
        raise NotImplementedError

    def sample(self, parameters: Tensor) -> Tensor:
        """A random action, in the environment's units."""
        raise NotImplementedError

    def divergence(self, parameters: Tensor, prior_parameters: Tensor) -> Tensor:
        """KL(policy ‖ prior) in nats, ``[...]``, from the parameters of both."""
        assert self.prior is not None
        return kl_divergence(self.make_distribution(parameters), self.prior.make_distribution(prior_parameters))

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose an action for one observation or one for each of a batch.

        Args:
            observation: NumPy array or tensor, ``[*observation_shape]`` or ``[N, *observation_shape]``.
            deterministic: The most probable action (of continuous ones: tanh of the mean), or a sample.

        Returns:
            Actions in the environment's own units, ``[*action_shape]`` or ``[N, *action_shape]``; NumPy for NumPy,
            tensor for tensor.
        """
        tensor = self.as_input(observation)
        parameters = self.distribution_parameters(tensor)
        action = self.mode(parameters) if deterministic else self.sample(parameters)
        return action if isinstance(observation, Tensor) else action.cpu().numpy()[()]

    @torch.no_grad()
    def log_prob(self, observation: Any, action: Any) -> Any:
        """Log π(a|s) for one pair or a batch of them; shapes and kinds as in :meth:`act`."""
        tensor = self.as_input(observation)
        taken = torch.as_tensor(action, device=tensor.device)
        result = self.log_prob_of(tensor, taken)
        return result if isinstance(observation, Tensor) else result.cpu().numpy()[()]

    needs_state = False

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

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log π(a|s) of actions in the environment's units, as tensors on the policy's device."""
        return self.distribution(observation).log_prob(action)

    def describe(self) -> dict[str, Any]:
        """What :func:`load_policy` rebuilds the policy from, as strings, numbers, lists and dicts."""
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
        return observation.flatten(start_dim=observation.dim() - len(self.observation_space.shape or ()))
