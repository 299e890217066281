"""Soft Q-learning (Haarnoja et al. 2017), for RL priors and for policies of the total reward."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms.base import Algorithm, Minibatch
from rql_lightning.algorithms.hyperparameters import Schedule, check_hyperparameters, check_number
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.networks import Perceptron
from rql_lightning.policies import SoftQPolicy

if TYPE_CHECKING:
    from tensordict import TensorDictBase


ROWS_IN_CACHE = 1024
"""Number of rows that the target network evaluates at a time, so that the layers' outputs stay in the cache."""


class SoftQLearning(Algorithm):
    """Learn the soft Q-function of the environment's reward and act with its Boltzmann policy (Eq. 1 and 2).

    Args:
        hidden_sizes: Width of each hidden layer of the Q-network.
        alpha: Temperature, the reward equivalent of one nat of entropy.
        gamma: Discount factor, in [0, 1].
        learning_rate: Initial learning rate of Adam.
        learning_rate_schedule: Learning rate schedule: 'constant', or 'linear' to decrease it to 0 over the budget.
        tau: Interpolation factor of the target network towards the Q-network when it is updated; 1 copies the weights.
        target_update_interval: Number of gradient updates between two updates of the target network.
        huber_delta: Error at which the loss changes from quadratic to linear; null for a quadratic loss.
        max_grad_norm: Norm to which the gradient is clipped; null for no clipping.
        epsilon_initial: Probability of a uniformly random action at the start of training; otherwise the policy is
            sampled.
        epsilon_final: Probability of a uniformly random action after the fraction epsilon_fraction of the budget.
        epsilon_fraction: Fraction of the budget over which the probability of a random action decreases linearly.
    """

    policy: SoftQPolicy
    closed_form: tuple[tuple[str, ...], ...] = (("loss_gradient", "loss", "descend"),)

    def __init__(
        self,
        hidden_sizes: list[int] = [64, 64],  # noqa: B006 (shown by --help; never mutated)
        alpha: float = 1.0,
        gamma: float = 0.99,
        learning_rate: float = 2.3e-3,
        learning_rate_schedule: Schedule = "linear",
        tau: float = 1.0,
        target_update_interval: int = 64,
        huber_delta: float | None = 1.0,
        max_grad_norm: float | None = 10.0,
        epsilon_initial: float = 1.0,
        epsilon_final: float = 0.04,
        epsilon_fraction: float = 0.16,
    ) -> None:
        check_hyperparameters(locals())
        check_number("alpha", alpha)
        super().__init__()
        self.hidden_sizes, self.alpha_hat, self.gamma = list(hidden_sizes), alpha, gamma
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.tau, self.target_update_interval = tau, target_update_interval
        self.huber_delta, self.max_grad_norm = huber_delta, max_grad_norm
        self.epsilon_initial, self.epsilon_final, self.epsilon_fraction = (
            epsilon_initial,
            epsilon_final,
            epsilon_fraction,
        )

    # -- overridden by other algorithms: the policy, the target and the loss -------------------------------------------

    def make_policy(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> SoftQPolicy:
        """Build the Boltzmann policy of the soft Q-function (Eq. 1)."""
        return SoftQPolicy(observation_space, action_space, self.hidden_sizes, self.alpha_hat, task=task)

    def next_value(self, next_q: Tensor, minibatch: Minibatch) -> Tensor:
        """Return V(s′) = α log Σ exp(Q(s′, a′) / α) (Eq. 2); ``[..., A]`` → ``[...]``."""
        return functional.residual_value(next_q, None, 0.0, self.alpha_hat)

    def loss(self, q_values: Tensor, q_taken: Tensor, q_target: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the loss of Eq. 7, scalar.

        Args:
            q_values: Q of all actions, ``[B, A]``.
            q_taken: Q of the actions taken, ``[B]``.
            q_target: Targets of Eq. 8, ``[B]``, without gradient.
            minibatch: The transitions, ``[B]``.
        """
        return functional.td_loss(q_taken, q_target, self.huber_delta)

    def loss_gradient(self, q_values: Tensor, q_target: Tensor, taken: Tensor, minibatch: Minibatch) -> Tensor:
        """Return the gradient of :meth:`loss` with respect to the Q-values of all actions, ``[B, A]``.

        A class that defines it has a :meth:`loss` that also takes k minibatches ``[k, B]`` and returns their mean.

        Args:
            q_values: Q of all actions, ``[B, A]``.
            q_target: Targets of Eq. 8, ``[B, 1]``.
            taken: 1 for the action taken, and 0 for the others, ``[B, A]``.
            minibatch: The transitions, ``[B]``.
        """
        return functional.td_slope(q_values, q_target, self.huber_delta).mul_(taken).div_(len(minibatch))

    def ask_prior(self, observation: Tensor) -> dict[str, Tensor]:
        """Evaluate the prior for acting at observations ``[N, *observation_shape]``; empty without a prior."""
        return {}

    # ----------------------------------------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the Q-network and its target network."""
        self.policy = self.make_policy(observation_space, action_space, task)
        self.target_network = copy.deepcopy(self.policy.q_network).requires_grad_(False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create an Adam optimizer for the Q-network."""
        groups = [self.policy.q_network.parameters()]
        return VectorOptimizer(groups, self.learning_rate, self.learning_rate_schedule, self.max_grad_norm)

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Minimise Eq. 7 on K minibatches ``[K, B]``.

        The target network does not change between two of its updates, so the targets (Eq. 8) of all minibatches up to
        its next update are computed in one pass.
        """
        final = self.updates + len(batch)
        network: Any = self.policy.q_network
        closed = self.has_closed_form and type(network) is Perceptron and network.prepare()
        learn = self.learn_in_closed_form if closed else self.learn_by_autograd
        losses: list[Tensor] = []
        values: list[Tensor] = []
        for chunk in self._until_target_updates(self.minibatches(batch)):
            with torch.no_grad():
                v_next = self.next_value(self.target_q(chunk), chunk)
                q_target = functional.residual_target(chunk.reward, chunk.terminated, v_next, self.gamma)
            q_taken, loss = learn(chunk, q_target, final)
            if self.updates % self.target_update_interval == 0:
                self._update_target()
            values.append(q_taken)
            losses.append(loss)
        return {
            "td_loss": torch.stack(losses).sum().item() / len(batch),
            "q_mean": torch.cat(values).mean().item(),
            "epsilon": self.epsilon,
            "learning_rate": float(self.main_optimizer.param_groups[0]["lr"]),
        }

    def learn_by_autograd(self, chunk: Minibatch, q_target: Tensor, final: int) -> tuple[Tensor, Tensor]:
        """Make gradient steps on :meth:`loss`, one per minibatch.

        Args:
            chunk: k minibatches, ``[k, B]``.
            q_target: Targets of Eq. 8, ``[k, B]``.
            final: Number of updates after the last one of the training step.

        Returns:
            Q of the actions taken, before each step, ``[k, B]``, and the sum of the losses, scalar, without gradient.
        """
        parameters = list(self.policy.q_network.parameters())
        values, losses = [], []
        for minibatch, target in zip(chunk.split(), q_target, strict=True):
            q_values, q_taken = self.evaluate(minibatch)
            loss = self.loss(q_values, q_taken, target.expand_as(q_taken), minibatch)
            self.updates += 1
            self.descend(loss, parameters, self.main_optimizer, self.updates == final)
            values.append(q_taken.detach())
            losses.append(loss.detach())
        return torch.stack(values), torch.stack(losses).sum()

    @torch.no_grad()
    def learn_in_closed_form(self, chunk: Minibatch, q_target: Tensor, final: int) -> tuple[Tensor, Tensor]:
        """Make the same steps with the gradient in closed form; arguments and results as there."""
        network: Any = self.policy.q_network
        optimizer, results = self.main_optimizer, []
        written = optimizer.optimizer.gradients(0)
        actions = torch.arange(self.policy.family.size, device=q_target.device)
        taken = (chunk.action.unsqueeze(-1) == actions).to(q_target.dtype)
        rows = zip(chunk.split(), q_target.unsqueeze(-1), taken, strict=True)
        for minibatch, target, of_action in rows:
            q_values, hidden = network.evaluate(minibatch.observation)
            network.backward(hidden, self.loss_gradient(q_values, target, of_action, minibatch), written)
            optimizer.optimizer.adopt(1, self.average)
            self.updates += 1
            self.take_step(optimizer, self.updates == final)
            results.append(q_values)
        together = torch.stack(results)
        q_taken = _taken(together, chunk.action)
        return q_taken, len(chunk) * self.loss(together, q_taken, q_target, chunk)

    def evaluate(self, minibatch: Minibatch) -> tuple[Tensor, Tensor]:
        """Return Q of all actions, ``[B, A]``, and of those taken, ``[B]``, for the gradient by autograd.

        A class that overrides it has another network than a :class:`Perceptron`, whose gradient is in closed form.
        """
        q_values = self.policy.q_network(minibatch.observation)
        return q_values, _taken(q_values, minibatch.action)

    def target_q(self, chunk: Minibatch) -> Tensor:
        """Return the target network's Q-values of all next actions in k minibatches, ``[k, B, A]``."""
        observation = chunk.next_observation
        some = observation.split(max(1, ROWS_IN_CACHE // observation.shape[1]))
        return torch.cat([self.target_network(each) for each in some])

    def _until_target_updates(self, minibatch: Minibatch) -> Iterator[Minibatch]:
        """Split minibatches ``[K, B]`` at the updates of the target network."""
        start = 0
        while start < len(minibatch):
            stop = min(start + self.target_update_interval - self.updates % self.target_update_interval, len(minibatch))
            yield minibatch[start:stop]
            start = stop

    @torch.no_grad()
    def _update_target(self) -> None:
        pairs = zip(self.target_network.parameters(), self.policy.q_network.parameters(), strict=True)
        for target, parameter in pairs:
            target.lerp_(parameter, self.tau)

    @property
    def epsilon(self) -> float:
        """Probability of a uniformly random action, which depends on the number of frames collected so far."""
        span = self.epsilon_fraction * self.data.total_frames
        progress = min(1.0, self.data.frames / span) if span > 0 else 1.0
        return self.epsilon_initial + progress * (self.epsilon_final - self.epsilon_initial)

    @torch.no_grad()
    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Choose a uniformly random action with probability ε, otherwise sample the policy; ``[N, *action_shape]``."""
        asked = self.ask_prior(observation)
        parameters = self.policy.from_prior(observation, asked.get("prior_parameters"))
        action, random_action = self.policy.sample(parameters), self.policy.uniform(parameters)
        at_random = torch.rand(len(action), device=action.device) < self.epsilon
        at_random = at_random.reshape(-1, *[1] * (action.dim() - 1))
        return {"action": torch.where(at_random, random_action, action), **asked}


def _taken(q_values: Tensor, action: Tensor) -> Tensor:
    """Return the Q-values ``[..., A]`` of the actions taken, ``[...]``."""
    return q_values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
