"""What all algorithms share: what data they ask for, the minibatches that they see, and steps down a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rql_lightning.algorithms.lifecycle import Lifecycle

if TYPE_CHECKING:
    from tensordict import TensorDictBase


@dataclass(frozen=True)
class Minibatch:
    """What learning sees, of discrete and continuous actions alike: ``...`` is ``[K, B]``, ``[k, B]`` or ``[B]``.

    Attributes:
        observation, next_observation: As the policy's encoder gives them, ``[..., D]``.
        action: Integers ``[...]``, or in the coordinate [−1, 1], ``[..., A]``.
        reward: ``[...]``.
        terminated: bool ``[...]``.
        pre_tanh: The u of a continuous ``action`` = tanh(u), ``[..., A]``; otherwise ``None``.
        prior_parameters, next_prior_parameters: Of the frozen prior at both observations, ``[..., P]``; or ``None``.
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
        """``[K, B]`` into K; one row of a tensor costs a hundredth of one of a TensorDict."""
        columns = [getattr(self, field.name) for field in fields(self)]
        rows = [[None] * len(self) if column is None else column.unbind(0) for column in columns]
        return [Minibatch(*row) for row in zip(*rows, strict=True)]


class Algorithm(Lifecycle):
    """A LightningModule that makes K updates per training step, and whose product is a policy.

    A subclass gives :meth:`build`, :meth:`explore`, :meth:`update` and ``configure_optimizers``.

    Attributes:
        explored: What :meth:`explore` returns and the replay buffer keeps.
        noise_state: What exploration remembers from step to step, for exact resume.
    """

    explored: tuple[str, ...] = ("action",)
    noise_state: Tensor | None = None

    # -- what a collector asks for -----------------------------------------------------------------------------------

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """How to act for data collection at observations ``[N, *observation_shape]``.

        Returns:
            ``action``, ``[N, *action_shape]`` in the environment's units, and whatever else ``explored`` names.
        """
        raise NotImplementedError

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add to a turn's frames ``[N, T]`` what is computed once per state (the frozen prior's parameters)."""
        return frames

    # -- what an update needs ----------------------------------------------------------------------------------------

    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """What is to be earned in K minibatches at once, ``[K, B]``: the environment's reward, unless overridden.

        Args:
            batch: As it was sampled, ``[K, B]``.
            minibatch: The same, encoded, ``[K, B]``; its reward is the environment's.
        """
        return minibatch.reward

    def minibatches(self, batch: TensorDictBase) -> Minibatch:
        """Sampled transitions ``[K, B]`` as what the networks take, with the reward to be earned."""
        policy: Any = self.policy
        following, encode = batch["next"], lambda observation: policy.encoder(policy.flatten(observation))
        minibatch = Minibatch(
            encode(batch["observation"]),
            batch["action"],
            following["reward"],
            following["terminated"],
            encode(following["observation"]),
            *(batch.get(key, None) for key in ("pre_tanh", "prior_parameters", ("next", "prior_parameters"))),
        )
        return replace(minibatch, reward=self.reward(batch, minibatch))

    @property
    def main_optimizer(self) -> Any:
        """Lightning's wrapper of the first of the optimizers."""
        optimizers = self.optimizers()
        return optimizers[0] if isinstance(optimizers, list) else optimizers

    def descend(self, loss: Tensor, parameters: Sequence[Tensor], optimizer: Any, last: bool) -> None:
        """One step down ``loss``, its gradient averaged over the ranks and clipped.

        Args:
            loss: Scalar.
            parameters: What to differentiate by (:meth:`VectorOptimizer.differentiate`).
            optimizer: Lightning's wrapper of a :class:`VectorOptimizer`.
            last: Whether it is the last one of the training step, which goes through the wrapper: its dozen hooks take
                as long as the step itself.
        """
        optimizer.optimizer.differentiate(loss, parameters, self._average if self.trainer.world_size > 1 else None)
        (optimizer if last else optimizer.optimizer).step()

    def _average(self, gradient: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(gradient, reduce_op="mean")
