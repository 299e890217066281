"""What acts: a policy over an environment's spaces, and its way in and out of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from rql_lightning import functional
from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.envs.spaces import check_supported, space_from_data, space_to_data
from rql_lightning.errors import CheckpointError, RqlError
from rql_lightning.networks import mlp

if TYPE_CHECKING:
    from rql_lightning.priors import Prior


class Policy(nn.Module):
    """A stochastic policy over discrete actions.

    A subclass gives :meth:`distribution_parameters`; everything else follows from it. The parameters are the
    log-probabilities of the ``A`` actions: what a replay buffer keeps of a frozen prior.

    Attributes:
        observation_space: ``Box``.
        action_space: ``Discrete``.
        task: Gymnasium id of the environment that the policy was made for, or ``None``.
        prior: The prior that the policy customises, or ``None``.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    task: str | None
    prior: Policy | None

    def __init__(self) -> None:
        super().__init__()
        self.task = None
        self.prior = None

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Log-probabilities ``[..., A]`` at observations ``[..., *observation_shape]``."""
        raise NotImplementedError

    def make_distribution(self, parameters: Tensor) -> Distribution:
        """The distribution with these parameters, e.g. those that a replay buffer kept."""
        return Categorical(logits=parameters, validate_args=False)

    def distribution(self, observation: Tensor) -> Distribution:
        """π(·|s) at observations ``[..., *observation_shape]``."""
        return self.make_distribution(self.distribution_parameters(observation))

    def mode(self, parameters: Tensor) -> Tensor:
        """The deterministic action: the most probable one."""
        return parameters.argmax(dim=-1)

    @torch.no_grad()
    def act(self, observation: Any, deterministic: bool = True) -> Any:
        """Choose an action for one observation or one for each of a batch.

        Args:
            observation: NumPy array or tensor, ``[*observation_shape]`` or ``[N, *observation_shape]``.
            deterministic: The most probable action, or a sample.

        Returns:
            Actions in the environment's own units, ``[]`` or ``[N]``; NumPy for NumPy, tensor for tensor.
        """
        tensor = self.as_input(observation)
        parameters = self.distribution_parameters(tensor)
        action = self.mode(parameters) if deterministic else self.make_distribution(parameters).sample()
        return action if isinstance(observation, Tensor) else action.cpu().numpy()[()]

    @torch.no_grad()
    def log_prob(self, observation: Any, action: Any) -> Any:
        """Log π(a|s) for one pair or a batch of them; shapes and kinds as in :meth:`act`."""
        tensor = self.as_input(observation)
        taken = torch.as_tensor(action, device=tensor.device)
        result = self.distribution(tensor).log_prob(taken)
        return result if isinstance(observation, Tensor) else result.cpu().numpy()[()]

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


class SoftQPolicy(Policy):
    """Eq. 6 over a Q-network; without a prior, the soft-optimal policy of Eq. 1.

    Args:
        observation_space: ``Box``.
        action_space: ``Discrete``.
        hidden_sizes: Hidden layers of the Q-network.
        alpha_hat: Temperature.
        prior: Frozen prior, or ``None``.
        omega_prime: ω′, the weight of the prior's log-likelihood.
        task: Gymnasium id.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden_sizes: list[int],
        alpha_hat: float,
        prior: Policy | None = None,
        omega_prime: float = 0.0,
        task: str | None = None,
    ) -> None:
        super().__init__()
        check_supported(observation_space, action_space)
        self.observation_space, self.action_space, self.task = observation_space, action_space, task
        self.hidden_sizes, self.alpha_hat, self.omega_prime = list(hidden_sizes), alpha_hat, omega_prime
        self.q_network = mlp(int(np.prod(observation_space.shape)), self.hidden_sizes, int(action_space.n))
        self.prior = prior

    def q_values(self, observation: Tensor) -> Tensor:
        """Q (or Q_R) of all actions, ``[..., A]``."""
        return self.q_network(observation.flatten(start_dim=observation.dim() - len(self.observation_space.shape)))

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Eq. 6, ``[..., A]``."""
        prior_log_prob = None if self.prior is None else self.prior.distribution_parameters(observation)
        return functional.policy_log_prob(self.q_values(observation), prior_log_prob, self.omega_prime, self.alpha_hat)

    def describe(self) -> dict[str, Any]:
        """See :meth:`Policy.describe`."""
        own = {key: getattr(self, key) for key in ("hidden_sizes", "alpha_hat", "omega_prime")}
        return {**super().describe(), **own, "prior": None if self.prior is None else self.prior.describe()}


def build_policy(description: dict[str, Any], prior: Prior | None = None) -> Policy:
    """The untrained policy that :meth:`Policy.describe` described.

    Args:
        description: Plain data.
        prior: Takes the place of the described prior.

    Raises:
        KeyError, TypeError, ValueError: if the description is not one.
        CheckpointError: if its prior is a function, which a file cannot hold, and none was given.
    """
    from rql_lightning.priors import prior_from_description  # here: priors are policies, and import this module

    spaces = (space_from_data(description["observation_space"]), space_from_data(description["action_space"]))
    if description["kind"] != "SoftQPolicy":
        raise ValueError(f"a policy of kind {description['kind']!r}")
    if description["prior"] is not None:
        prior = prior or prior_from_description(description["prior"])
        prior.attach(*spaces)
    settings = {key: description[key] for key in ("hidden_sizes", "alpha_hat", "omega_prime", "task")}
    return SoftQPolicy(*spaces, prior=prior, **settings)


def load_policy(path_or_name: str | Path, prior: Prior | None = None) -> Policy:
    """Load the policy of any checkpoint of this project, ready to act.

    Nothing in the file is executed: it is read with ``weights_only=True``.

    Args:
        path_or_name: A checkpoint file, or a shipped policy such as ``pretrained:cartpole-rl``.
        prior: The prior, for a policy that customises a :class:`~rql_lightning.priors.FunctionPrior`.

    Returns:
        The policy in evaluation mode on the CPU, its parameters frozen.

    Raises:
        CheckpointError: if the file is missing, damaged or no checkpoint of this project.
    """
    path = resolve(path_or_name)
    checkpoint = read_checkpoint(path)
    try:
        policy = build_policy(checkpoint["rql_lightning"]["policy"], prior)
        prefix = "policy."
        weights = {
            key[len(prefix) :]: value for key, value in checkpoint["state_dict"].items() if key.startswith(prefix)
        }
        policy.load_state_dict(weights)
    except RqlError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: found a file that holds no policy of this project ({error!r})") from error
    return policy.eval().requires_grad_(False)
