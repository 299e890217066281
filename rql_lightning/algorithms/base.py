"""The base class of all algorithms: the data they request, the minibatches they learn from, and gradient steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rql_lightning.algorithms.lifecycle import Lifecycle
from rql_lightning.algorithms.optimization import Average, VectorOptimizer

if TYPE_CHECKING:
    from tensordict import TensorDictBase


@dataclass(frozen=True)
class Minibatch:
    """A minibatch of transitions with discrete or continuous actions; ``...`` is ``[K, B]``, ``[k, B]`` or ``[B]``.

    Attributes:
        observation, next_observation: Observations after the policy's encoder, ``[..., D]``.
        action: Discrete actions as integers ``[...]``, or continuous actions in [−1, 1], ``[..., A]``.
        reward: Rewards to be earned, ``[...]``; 0 where the transitions carry none, as demonstrations do.
        terminated: Whether the episode terminated, bool ``[...]``.
        pre_tanh: The u of a continuous ``action`` = tanh(u), ``[..., A]``; ``None`` for discrete actions.
        prior_parameters, next_prior_parameters: Distribution parameters of the frozen prior at both observations,
            ``[..., P]``; ``None`` without a prior.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    next_observation: Tensor
    pre_tanh: Tensor | None = None
    prior_parameters: Tensor | None = None
    next_prior_parameters: Tensor | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, rows: slice) -> Minibatch:
        columns = [getattr(self, field.name) for field in fields(self)]
        sliced: list[Any] = [None if column is None else column[rows] for column in columns]
        return Minibatch(*sliced)

    def split(self) -> list[Minibatch]:
        """Split a minibatch ``[K, B]`` into K of ``[B]``; indexing a TensorDict would take a hundred times as long."""
        columns = [getattr(self, field.name) for field in fields(self)]
        rows = [[None] * len(self) if column is None else column.unbind(0) for column in columns]
        return [Minibatch(*row) for row in zip(*rows, strict=True)]


class Algorithm(Lifecycle):
    """A LightningModule that makes K updates per training step and produces a policy.

    Subclasses implement :meth:`build`, :meth:`explore`, :meth:`update` and ``configure_optimizers``.

    Attributes:
        annotation: Settings that decide what :meth:`annotate` adds; a replay buffer is not resumed with others.
        explored: Names of the entries that :meth:`explore` returns and the replay buffer keeps.
        noise_state: State of the exploration noise between steps, stored for exact resume.
        closed_form: Names of the methods that compute a gradient in closed form, each followed by those that it
            differentiates. A subclass that overrides one of these alone is differentiated by autograd.
    """

    closed_form: tuple[tuple[str, ...], ...] = ()

    explored: tuple[str, ...] = ("action",)
    annotation: Mapping[str, Any] = MappingProxyType({})
    noise_state: Tensor | None = None

    # -- what a collector asks for -----------------------------------------------------------------------------------

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """Choose actions for data collection at observations ``[N, *observation_shape]``.

        Returns:
            ``action``, ``[N, *action_shape]`` in the environment's units, and every other entry named in ``explored``.
        """
        raise NotImplementedError

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add entries that are computed once per state, such as the prior's parameters, to frames ``[N, T]``."""
        return frames

    # -- what an update needs ----------------------------------------------------------------------------------------

    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """Return the reward to learn from in K minibatches, ``[K, B]``; by default the environment's.

        Args:
            batch: Transitions as sampled from the replay buffer, ``[K, B]``.
            minibatch: The same transitions with encoded observations and the environment's reward, ``[K, B]``.
        """
        return minibatch.reward

    def minibatches(self, batch: TensorDictBase) -> Minibatch:
        """Convert sampled transitions ``[K, B]`` to network inputs, with the reward to learn from."""
        policy: Any = self.policy
        following, encode = batch["next"], lambda observation: policy.encoder(policy.flatten(observation))
        terminated = following["terminated"]
        reward = following.get("reward", None)
        minibatch = Minibatch(
            encode(batch["observation"]),
            batch["action"],
            torch.zeros(terminated.shape, device=terminated.device) if reward is None else reward,
            terminated,
            encode(following["observation"]),
            *(batch.get(key, None) for key in ("pre_tanh", "prior_parameters", ("next", "prior_parameters"))),
        )
        return replace(minibatch, reward=self.reward(batch, minibatch))

    @property
    def main_optimizer(self) -> Any:
        """Lightning's wrapper of the first optimizer."""
        optimizers = self.optimizers()
        return optimizers[0] if isinstance(optimizers, list) else optimizers

    def descend(self, loss: Tensor, parameters: Sequence[Tensor], optimizer: Any, last: bool) -> None:
        """Make one gradient step on ``loss``, with the gradient averaged over the ranks and clipped.

        Args:
            loss: Loss to minimise, scalar.
            parameters: Parameters to differentiate with respect to (:meth:`VectorOptimizer.differentiate`).
            optimizer: Lightning's wrapper of a :class:`VectorOptimizer`.
            last: Whether this is the last step of the training step. Only the last one goes through the wrapper, whose
                hooks take as long as the step itself.
        """
        optimizer.optimizer.differentiate(loss, parameters, self.average)
        self.take_step(optimizer, last)

    @staticmethod
    def take_step(optimizer: Any, last: bool) -> None:
        """Make one step on the gradients assigned to a :class:`VectorOptimizer`; arguments as for :meth:`descend`."""
        inner = optimizer.optimizer
        if last:
            optimizer.step()
        elif type(inner).step is VectorOptimizer.step:
            inner.take_step()
        else:  # somebody's own
            inner.step()

    @property
    def average(self) -> Average | None:
        """Function that averages a gradient over the ranks; ``None`` for one rank."""
        return self._average if self.trainer.world_size > 1 else None

    @property
    def has_closed_form(self) -> bool:
        """Whether the gradients in closed form are those of the losses, so that autograd is not needed."""
        return self.trainer.precision == "32-true" and all(self._belong(*names) for names in self.closed_form)

    def _belong(self, gradient: str, *methods: str) -> bool:
        """Return whether none of the methods is overridden below the class that defines their gradient."""
        lineage = type(self).__mro__
        depth = next(index for index, each in enumerate(lineage) if gradient in vars(each))
        return not any(name in vars(each) for each in (*lineage[:depth], self) for name in methods)

    def _average(self, gradient: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(gradient, reduce_op="mean")
