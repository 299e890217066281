"""The lifecycle of an algorithm: checks before training, K updates per training step, checkpoints."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import pytorch_lightning as pl
import torch
from torch import Tensor

from rql_lightning.algorithms.compatibility import adapt_checkpoint
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.errors import DivergenceError, require
from rql_lightning.policies import Decider, Policy
from rql_lightning.spaces import check_same

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.data import TaskDataModule


class Lifecycle(pl.LightningModule):
    """The part of an algorithm that does not depend on what it learns.

    Attributes:
        policy: Policy that acts; set by :meth:`build`.
        frames: Environment frames used for training so far, over all ranks.
        updates: Updates made so far.
        allowed_rewards: Values of ``data.reward`` that the algorithm may learn from.
        needs_checkpoint: Whether ``test``, ``validate`` and ``predict`` require a checkpoint.
        acts: Whether there is a policy to run episodes with; the evaluation of a model that does not act is
            :meth:`summary`.
        arguments: Arguments of the constructors of the class and its parents by name, for loggers; where several take
            the same name, the value that the most derived one got.
        train_seconds: Wall-clock seconds from the start of training to the last update, including the evaluations in
            between, added up over all parts of a resumed run.
    """

    policy: Policy
    allowed_rewards: tuple[str, ...] = ("basic", "add_on", "total")
    needs_checkpoint = True
    acts = True

    def __init__(self) -> None:
        self.arguments = _constructor_arguments(self)
        super().__init__()
        self.automatic_optimization = False
        self.frames, self.updates, self.train_seconds = 0, 0, 0.0

    def build(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str) -> None:
        """Allocate the networks and set ``self.policy``."""
        raise NotImplementedError

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        """Make K updates from minibatches ``[K, B]``; returns the means of the metrics to log."""
        raise NotImplementedError

    @property
    def data(self) -> TaskDataModule:
        """The DataModule of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def decider(self) -> Decider:
        """The decider that evaluation runs; by default the policy."""
        return self.policy

    @property
    def reported_prior(self) -> Policy | None:
        """The prior that reports and videos show beside the policy, or ``None``."""
        return self.policy.prior

    def summary(self) -> dict[str, float]:
        """Return the results of training of a model that does not act, for ``metrics.json``."""
        raise NotImplementedError

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
            if stage == "fit":  # another run, perhaps on another task with the same spaces
                self.policy.task = data.env
                self.frames, self.updates, self.train_seconds = 0, 0, 0.0

    def _why(self, expected: str) -> str:
        return f"{expected} for {type(self).__name__}"

    def on_train_start(self) -> None:
        """Start the clock, and refuse trainable parameters that no optimizer holds."""
        held = {id(parameter) for optimizer in self.trainer.optimizers for parameter in _held(optimizer)}
        forgotten = [name for name, each in self.named_parameters() if each.requires_grad and id(each) not in held]
        expected = "an optimizer for each parameter that requires a gradient"
        require(not forgotten, "model, parameters that no optimizer holds", forgotten[:1], expected)
        self._clock = time.monotonic() - self.train_seconds

    def training_step(self, batch: TensorDictBase, batch_idx: int) -> None:
        """Make K updates and log their metrics."""
        self.frames = self.data.frames
        before = self.frames - self.data.frames_per_turn  # so that the last training step has a positive learning rate
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
        """Refuse losses and weights that are not finite; the last update's weights do not affect any loss yet."""
        wrong = [f"{name} became {value}" for name, value in metrics.items() if not math.isfinite(value)]
        wrong += [
            f"{name} became infinite or NaN"
            for name, parameter in self.named_parameters()
            if parameter.requires_grad and not bool(parameter.isfinite().all())
        ]
        if wrong:
            raise DivergenceError(
                f"{wrong[0]} at frame {self.frames}, update {self.updates}: training diverged. The last checkpoint, "
                "if any, precedes the divergence; try a smaller model.learning_rate or model.max_grad_norm"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Do nothing: the evaluation callback runs the episodes."""

    test_step = validation_step
    predict_step = validation_step

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Write scalars to every logger, with the number of environment frames as the step."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.frames)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add a description of the run in plain data."""
        checkpoint["rql_lightning"] = {
            "algorithm": type(self).__name__,
            "task": self.policy.task,
            "policy": self.policy.describe(),
            "frames": self.frames,
            "updates": self.updates,
            "train_seconds": self.train_seconds,
        }
        self.data.on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another task or algorithm, and restore the counters."""
        fitting = self.trainer.state.fn == "fit"
        adapt_checkpoint(checkpoint, self, f"checkpoint {self.trainer.ckpt_path}", fitting)
        about = checkpoint["rql_lightning"]
        self.frames, self.updates = about["frames"], about["updates"]
        self.train_seconds = about["train_seconds"]
        self.data.on_load_checkpoint(checkpoint)


def _constructor_arguments(instance: Any) -> dict[str, Any]:
    """Return the arguments of the running constructors of an instance, each of which calls the next one's."""
    arguments: dict[str, Any] = {}
    frame = inspect.currentframe()
    while (frame := frame.f_back if frame else None) is not None and frame.f_code.co_name == "__init__":
        code = frame.f_code
        first, *names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] or ("",)
        if frame.f_locals.get(first) is not instance:
            break
        arguments |= {name: frame.f_locals[name] for name in names}
    return arguments


def _held(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    if isinstance(optimizer, VectorOptimizer):
        return [parameter for group in optimizer.members for parameter in group]
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero within this context; Adam's moments of dead units decay to them, which is slow."""
    already = float(torch.tensor(1e-40) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)
