"""Behaviour cloning: maximum likelihood on demonstrations, with early stopping on held-out episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.algorithms.base import Minibatch
from rql_lightning.algorithms.early_stopping import StopsEarly
from rql_lightning.algorithms.hyperparameters import Schedule, check_hyperparameters
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.policies import Encoder, NetworkPolicy

if TYPE_CHECKING:
    from tensordict import TensorDictBase


class BehaviorCloning(StopsEarly):
    """Fit a policy to demonstrations by maximum likelihood, for discrete or bounded continuous actions.

    The loss is −E[log π(a|s)] − entropy_weight · E[H(π(·|s))] + fallback_weight · E[−log π(a′|s′)], with uniformly
    random actions a′ at states s′ that are unlike the demonstrated ones.

    Args:
        hidden_sizes: Width of each hidden layer of the network.
        family: Family of action distributions: 'categorical' for discrete actions; 'squashed_normal', 'mixture' (of
            squashed normals) or 'flow' (a neural spline flow, which needs the extra flows) for continuous ones. null
            for 'categorical' or 'squashed_normal'.
        components: Number of components of a mixture.
        rows: Number of rows of the observation if all but the first are a set without an order, such as the vehicles of
            Highway: the policy then does not depend on the order. null for a network without this symmetry.
        goal_scales: One scale per number of the goal, for observations that start with the desired and the achieved
            goal, as in Parking; the network also gets asinh(scale * (achieved - desired)). null for no such inputs.
        learning_rate: Initial learning rate of Adam.
        learning_rate_schedule: Learning rate schedule: 'constant', or 'linear' to decrease it to 0 over the budget.
        weight_decay: Decoupled weight decay, relative to the learning rate.
        entropy_weight: Weight of the policy's entropy, in nats, which keeps the policy from becoming too certain.
        fallback_weight: Weight of the likelihood of uniformly random actions at states unlike the demonstrated ones,
            which makes the policy wide there; 0 for no such states.
        fallback_spread: Factor by which each number of an observation is moved away from its mean for such states,
            after the numbers of different observations have been combined at random.
        max_grad_norm: Norm to which the gradient is clipped; null for no clipping.
        validate_every: Number of training steps between two evaluations of the held-out episodes.
        patience: Number of evaluations of the held-out episodes without an improvement after which training stops; null
            to spend the whole budget. The best weights are kept in both cases.
    """

    learns_online = False
    policy: NetworkPolicy

    def __init__(
        self,
        hidden_sizes: list[int] = [256, 256],  # noqa: B006 (shown by --help; never mutated)
        family: str | None = None,
        components: int = 5,
        rows: int | None = None,
        goal_scales: list[float] | None = None,
        learning_rate: float = 1e-3,
        learning_rate_schedule: Schedule = "linear",
        weight_decay: float = 0.0,
        entropy_weight: float = 0.0,
        fallback_weight: float = 0.0,
        fallback_spread: float = 2.0,
        max_grad_norm: float | None = 10.0,
        validate_every: int = 10,
        patience: int | None = 10,
    ) -> None:
        check_hyperparameters(locals())
        super().__init__()
        self.hidden_sizes, self.family, self.components, self.rows = list(hidden_sizes), family, components, rows
        self.goal_scales = goal_scales
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.weight_decay, self.entropy_weight = weight_decay, entropy_weight
        self.fallback_weight, self.fallback_spread = fallback_weight, fallback_spread
        self.max_grad_norm, self.validate_every, self.patience = max_grad_norm, validate_every, patience

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the policy, and the best weights so far."""
        encoder = Encoder.scaled_of(observation_space, self.goal_scales)
        self.policy = NetworkPolicy(
            observation_space,
            action_space,
            self.hidden_sizes,
            self.family,
            components=self.components,
            rows=self.rows,
            encoder=encoder,
            task=task,
        )
        self.remember_best(self.policy.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create an Adam optimizer for the policy's network."""
        settings = (self.learning_rate, self.learning_rate_schedule, self.max_grad_norm, self.weight_decay)
        return VectorOptimizer([self.policy.parameters()], *settings)

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Maximise the likelihood of K minibatches ``[K, B]``; from time to time, evaluate the held-out episodes."""
        optimizer, parameters = self.main_optimizer, list(self.policy.parameters())
        history: list[dict[str, Tensor]] = []
        minibatches = self.demonstrated(batch).split()
        for index, minibatch in enumerate(minibatches, start=1):
            terms = self.losses(minibatch)
            self.descend(torch.stack(list(terms.values())).sum(), parameters, optimizer, index == len(minibatches))
            self.updates += 1
            history.append({name: value.detach() for name, value in terms.items()})
        means = {f"{key}_loss": torch.stack([row[key] for row in history]).mean().item() for key in history[0]}
        self.stop_early(len(minibatches))
        return {**means, "learning_rate": optimizer.param_groups[0]["lr"]}

    def losses(self, minibatch: Minibatch) -> dict[str, Tensor]:
        """Return the terms of the loss in a minibatch ``[B]``, scalars: ``imitation``, ``entropy``, ``fallback``."""
        family, parameters = self.policy.family, self.policy.parameters_of(minibatch.observation)
        losses = {"imitation": -family.log_prob(parameters, minibatch.action).mean()}
        if self.entropy_weight > 0:
            losses["entropy"] = -self.entropy_weight * family.entropy(parameters).mean()
        if self.fallback_weight > 0:
            unlike = self.policy.parameters_of(unlike_states(minibatch.observation, self.fallback_spread))
            random_action = family.uniform(unlike)
            losses["fallback"] = -self.fallback_weight * family.log_prob(unlike, random_action).mean()
        return losses


def unlike_states(code: Tensor, spread: float) -> Tensor:
    """Return states unlike those of a minibatch: numbers of different states combined, and moved away from their mean.

    Args:
        code: Encoded observations, ``[B, D]``.
        spread: Factor of the distance of each number from its mean over the minibatch.

    Returns:
        ``[B, D]``, each column a permutation of that of ``code``, stretched around its mean.
    """
    order = torch.rand_like(code).argsort(dim=0)
    mean = code.mean(dim=0)
    return mean + spread * (code.gather(0, order) - mean)
