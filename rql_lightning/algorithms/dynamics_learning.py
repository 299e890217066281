"""A model of the environment learned from recorded transitions, to plan with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor
from torch.nn import functional

from rql_lightning.algorithms.dynamics_errors import held_out_errors
from rql_lightning.algorithms.early_stopping import StopsEarly
from rql_lightning.algorithms.hyperparameters import Schedule, check_hyperparameters
from rql_lightning.algorithms.imitation import CHUNK
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.errors import ConfigurationError, require
from rql_lightning.planning.ensemble import DynamicsNetwork

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.data.demonstrations import Demonstrations


class DynamicsEnsemble(StopsEarly):
    """Fit an ensemble of networks to recorded transitions, for planning with LearnedDynamics; it does not act.

    The loss of each member is the mean of H(change − predicted change) / huber_delta over the numbers of an
    observation, in units of the changes' root mean square, plus termination_weight times the cross-entropy of the
    probability that the episode terminates. H is Huber's function: the prediction of what cannot be foreseen, such as a
    vehicle that comes into view, is a likely value instead of a mean of unlike ones. Members differ in their initial
    weights and in the minibatches that they see.

    Args:
        members: Number of networks in the ensemble.
        hidden_sizes: Width of each hidden layer.
        rows: Number of rows of the observation if all but the first are a set, such as the vehicles of Highway; null
            for observations without such rows.
        sorted_by: Number in a row, counted from 0, by whose absolute value the environment sorts the rows after the
            first; null if it does not sort them.
        huber_delta: Error, relative to the root mean square of the changes, beyond which the loss is linear; null for
            squared errors.
        termination_weight: Weight of the loss of the termination.
        open_loop_steps: Number of steps for which the held-out error of repeated predictions is reported.
        learning_rate: Initial learning rate of Adam.
        learning_rate_schedule: Learning rate schedule: 'constant', or 'linear' to decrease it to 0 over the budget.
        weight_decay: Decoupled weight decay, relative to the learning rate.
        max_grad_norm: Norm to which the gradient is clipped; null for no clipping.
        validate_every: Number of training steps between two evaluations of the held-out episodes.
        patience: Number of evaluations of the held-out episodes without an improvement after which training stops; null
            to spend the whole budget. The best weights are kept in both cases.
    """

    learns_online = False
    acts = False
    held_out_metric, maximized = "loss", False
    policy: DynamicsNetwork  # type: ignore[assignment]  # what the file holds in the place of a policy

    def __init__(
        self,
        members: int = 5,
        hidden_sizes: list[int] = [256, 256],  # noqa: B006 (shown by --help; never mutated)
        rows: int | None = None,
        sorted_by: int | None = None,
        huber_delta: float | None = 0.05,
        termination_weight: float = 1.0,
        open_loop_steps: int = 6,
        learning_rate: float = 1e-3,
        learning_rate_schedule: Schedule = "linear",
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 10.0,
        validate_every: int = 10,
        patience: int | None = 20,
    ) -> None:
        check_hyperparameters(locals())
        super().__init__()
        self.members, self.hidden_sizes, self.rows, self.sorted_by = members, list(hidden_sizes), rows, sorted_by
        self.huber_delta, self.termination_weight = huber_delta, termination_weight
        self.open_loop_steps = open_loop_steps
        self.learning_rate, self.learning_rate_schedule = learning_rate, learning_rate_schedule
        self.weight_decay, self.max_grad_norm = weight_decay, max_grad_norm
        self.validate_every, self.patience = validate_every, patience

    def setup(self, stage: str) -> None:
        """Build the networks, and take the constants of normalisation from the training episodes.

        Raises:
            ConfigurationError: If the stage is not ``fit``, minibatches cannot be divided among the members, or there
                are no held-out episodes.
        """
        if stage != "fit":
            raise ConfigurationError(
                f"model: found DynamicsEnsemble, which does not act, for {str(stage)!r}, expected the command fit, or "
                "ResidualMCTS, which plans with it"
            )
        super().setup(stage)
        size = self.data.batch_size  # type: ignore[attr-defined]
        require(size % self.members == 0, "data.batch_size", size, f"a multiple of the {self.members} members")
        self._held_out()  # which is evaluated in the end, too late to say that there is none
        transitions = self.demonstrations.training.transitions
        pair = (transitions["observation"], transitions["next", "observation"])
        self.policy.normalise(*(observation.flatten(1).float() for observation in pair))

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the networks, and the best weights so far."""
        shape = (self.members, self.hidden_sizes, self.rows, self.sorted_by)
        self.policy = DynamicsNetwork(observation_space, action_space, *shape, task)
        self.remember_best(self.policy.parameters())

    @property
    def reported_prior(self) -> None:
        """None: there is nothing to evaluate episodes of."""
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create an Adam optimizer for all members."""
        settings = (self.learning_rate, self.learning_rate_schedule, self.max_grad_norm, self.weight_decay)
        return VectorOptimizer([self.policy.parameters()], *settings)

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Fit each member to its share of K minibatches ``[K, B]``; from time to time, evaluate held-out episodes."""
        optimizer, parameters = self.main_optimizer, list(self.policy.parameters())
        columns = [column.unbind(0) for column in self._columns(batch)]
        history: list[dict[str, Tensor]] = []
        for index, minibatch in enumerate(zip(*columns, strict=True), start=1):
            shares = [column.unflatten(0, (self.members, -1)) for column in minibatch]
            terms = self.losses(*shares)
            total = self.members * torch.stack(list(terms.values())).sum()  # so that members do not share a step size
            self.descend(total, parameters, optimizer, index == len(columns[0]))
            self.updates += 1
            history.append({name: value.detach() for name, value in terms.items()})
        means = {f"{key}_loss": torch.stack([row[key] for row in history]).mean().item() for key in history[0]}
        self.stop_early(len(history))
        return {**means, "learning_rate": optimizer.param_groups[0]["lr"]}

    def _columns(self, batch: TensorDictBase) -> list[Tensor]:
        """Return network inputs, flat observations, flat successors and terminations of transitions ``[...]``."""
        dims = batch.dim()
        observation, following = (batch[key].flatten(dims) for key in ("observation", ("next", "observation")))
        terminated = batch["next", "terminated"].reshape(batch.shape).to(observation.dtype)
        return [self.policy.inputs(observation, batch["action"]), observation, following, terminated]

    def losses(self, inputs: Tensor, observation: Tensor, following: Tensor, terminated: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss, means over members and transitions: ``change``, ``termination``.

        Args:
            inputs: Network inputs, ``[M, B, D + A]``.
            observation: Flat observations, ``[M, B, D]``.
            following: Flat observations of the successors, ``[M, B, D]``.
            terminated: 1 where the episode terminated, else 0, ``[M, B]``.
        """
        outputs, scale = self.policy(inputs), self.policy.change_scale
        start, change = observation / scale, outputs[..., :-1]
        target = self.policy.matched(following / scale, (start + change).detach()) - start
        if self.huber_delta is None:
            distance = 0.5 * (target - change).square().mean()
        else:
            distance = functional.huber_loss(change, target, delta=self.huber_delta) / self.huber_delta
        entropy = functional.binary_cross_entropy_with_logits(outputs[..., -1], terminated)
        return {"change": distance, "termination": self.termination_weight * entropy}

    # -- held-out episodes -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def held_out_score(self) -> float:
        """Return the loss over all transitions of the held-out episodes, each predicted by each member."""
        held_out = self._held_out()
        total = 0.0
        for rows in held_out.transitions.split(CHUNK):
            columns = [column.to(self.device) for column in self._columns(rows)]
            shares = [column.expand(self.members, *column.shape) for column in columns]
            total += len(rows) * torch.stack(list(self.losses(*shares).values())).sum().item()
        return total / len(held_out)

    def _held_out(self) -> Demonstrations:
        held_out = self.demonstrations.held_out
        require(held_out is not None, "data.validation_fraction", 0, "more than 0: the error of a model is to be known")
        assert held_out is not None
        return held_out

    def on_train_end(self) -> None:
        """Log the errors on the held-out episodes."""
        self.log_metrics({f"train/{name}": value for name, value in self.summary().items()})

    def summary(self) -> dict[str, float]:
        """Return the errors on the held-out episodes by name (docs/metrics.md)."""
        return held_out_errors(self.policy, self._held_out(), self.open_loop_steps)
