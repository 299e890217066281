"""What all algorithms share: K manual updates per training step, counters, and a checkpoint's description."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import pytorch_lightning as pl
import torch
from torch import Tensor

from rql_lightning.algorithms.compatibility import adapt_checkpoint
from rql_lightning.algorithms.optimization import VectorOptimizer, denormals_flushed
from rql_lightning.errors import DivergenceError, require
from rql_lightning.policies import Decider, Policy
from rql_lightning.spaces import check_same

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.data import ReplayDataModule


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


class Algorithm(pl.LightningModule):
    """A LightningModule that makes K updates per training step, and whose product is a :class:`Policy`.

    Attributes:
        policy: What acts; set by :meth:`build`.
        frames: Environment frames that training has seen, over all ranks.
        updates: Updates made.
        explored: What :meth:`explore` returns and the replay buffer keeps.
        noise_state: What exploration remembers from step to step, for exact resume.
        needs_checkpoint: Whether ``test``, ``validate`` and ``predict`` need one.
        train_seconds: Wall-clock from the start of training to the last update, evaluations in between included, over
            all parts of a resumed run.
    """

    policy: Policy
    allowed_rewards: tuple[str, ...] = ("basic", "add_on", "total")
    explored: tuple[str, ...] = ("action",)
    noise_state: Tensor | None = None
    needs_checkpoint = True

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.frames, self.updates, self.train_seconds = 0, 0, 0.0

    # -- to be given by an algorithm ---------------------------------------------------------------------------------

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the networks and set ``self.policy``."""
        raise NotImplementedError

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        """How to act for data collection at observations ``[N, *observation_shape]``.

        Returns:
            ``action``, ``[N, *action_shape]`` in the environment's units, and whatever else ``explored`` names.
        """
        raise NotImplementedError

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Make K updates from minibatches ``[K, B]``; returns the means of what is worth logging."""
        raise NotImplementedError

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        """Add to a turn's frames ``[N, T]`` what is computed once per state (the frozen prior's parameters)."""
        return frames

    def reward(self, batch: TensorDictBase, minibatch: Minibatch) -> Tensor:
        """What is to be earned in K minibatches at once, ``[K, B]``: the environment's reward, unless overridden.

        Args:
            batch: As it was sampled, ``[K, B]``.
            minibatch: The same, encoded, ``[K, B]``; its reward is the environment's.
        """
        return minibatch.reward

    # -- Lightning's hooks -------------------------------------------------------------------------------------------

    @property
    def data(self) -> ReplayDataModule:
        """The DataModule of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def decider(self) -> Decider:
        """What is evaluated."""
        return self.policy

    def setup(self, stage: str) -> None:
        """Build the networks for the environment's spaces, once."""
        data = self.data
        if stage == "fit":
            precision, clip = self.trainer.precision, self.trainer.gradient_clip_val
            expected = "32-true or bf16-mixed: gradients are taken without Lightning's loss scaling"
            require(precision in ("32-true", "bf16-mixed"), "trainer.precision", precision, expected)
            require(clip is None, "trainer.gradient_clip_val", clip, "null, and model.max_grad_norm in its place")
            expected = " or ".join(repr(name) for name in self.allowed_rewards)
            require(data.reward in self.allowed_rewards, "data.reward", data.reward, self._why(expected))
        if not hasattr(self, "policy"):
            self.build(data.observation_space, data.action_space, data.env)
        else:  # built before, perhaps for another environment
            where = f"model, built for {self.policy.task}"
            bounds = stage == "fit"
            check_same(f"{where}, observation space", self.policy.observation_space, data.observation_space, bounds)
            check_same(f"{where}, action space", self.policy.action_space, data.action_space, True)

    def _why(self, expected: str) -> str:
        return f"{expected} for {type(self).__name__}"

    def on_train_start(self) -> None:
        """Start the clock; refuse parameters that would silently never be trained."""
        held = {id(parameter) for optimizer in self.trainer.optimizers for parameter in _held(optimizer)}
        forgotten = [name for name, each in self.named_parameters() if each.requires_grad and id(each) not in held]
        expected = "an optimizer for each parameter that requires a gradient"
        require(not forgotten, "model, parameters that no optimizer holds", forgotten[:1], expected)
        self._clock = time.monotonic() - self.train_seconds

    def training_step(self, batch: TensorDictBase, batch_idx: int) -> None:
        """K updates (house rule: the update itself reads like the paper's algorithm)."""
        self.frames = self.data.frames
        before = self.frames - self.data.frames_per_turn  # the last training step still learns
        for optimizer in self.trainer.optimizers:
            if isinstance(optimizer, VectorOptimizer):
                optimizer.follow_schedule(1.0 - before / self.data.total_frames)
        with denormals_flushed():
            metrics = self.update(batch)
        self.train_seconds = time.monotonic() - self._clock
        self._check_finite(metrics)
        if batch_idx % max(1, self.trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self.log_metrics({f"train/{name}": value for name, value in metrics.items()})

    def _check_finite(self, metrics: dict[str, float]) -> None:
        """Losses and weights: the last update's weights show in no loss before they act or are saved."""
        wrong = [f"{name} became {value}" for name, value in metrics.items() if not math.isfinite(value)]
        wrong += [
            f"{name} became infinite or NaN"
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not bool(parameter.isfinite().all())
        ]
        if wrong:
            raise DivergenceError(
                f"{wrong[0]} at frame {self.frames}, update {self.updates}: training diverged. The last checkpoint, "
                "if one was written, is from before; try a smaller model.learning_rate or model.max_grad_norm"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: the evaluation callback runs the episodes."""

    test_step = validation_step
    predict_step = validation_step

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Write scalars to every logger, against environment frames."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.frames)

    # -- what an update needs ----------------------------------------------------------------------------------------

    def minibatches(self, batch: TensorDictBase) -> Minibatch:
        """Sampled transitions ``[K, B]`` as what the networks take, with the reward to be earned."""
        policy: Any = self.policy
        following, encode = batch["next"], lambda observation: policy.encoder(observation.flatten(start_dim=2))
        minibatch = Minibatch(
            encode(batch["observation"]),
            batch["action"],
            following["reward"],
            following["terminated"],
            encode(following["observation"]),
            *(batch.get(key, None) for key in ("pre_tanh", "prior_parameters", ("next", "prior_parameters"))),
        )
        return replace(minibatch, reward=self.reward(batch, minibatch))

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

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the file holds, in plain data."""
        checkpoint["rql_lightning"] = {
            "algorithm": type(self).__name__,
            "task": self.policy.task,
            "policy": self.policy.describe(),
            "frames": self.frames,
            "updates": self.updates,
            "train_seconds": self.train_seconds,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another task or algorithm; take over the counters."""
        fitting = self.trainer.state.fn == "fit"
        adapt_checkpoint(checkpoint, self, f"checkpoint {self.trainer.ckpt_path}", fitting)
        about = checkpoint["rql_lightning"]
        self.frames, self.updates = about["frames"], about["updates"]
        self.train_seconds = about["train_seconds"]


def _held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    if isinstance(optimizer, VectorOptimizer):
        return [parameter for group in optimizer.members for parameter in group]
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
