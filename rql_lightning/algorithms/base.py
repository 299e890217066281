"""What all algorithms share: manual optimization, counters, averaging over ranks, and a checkpoint's description."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import gymnasium as gym
import pytorch_lightning as pl
import torch
from torch import Tensor

from rql_lightning.errors import CheckpointError, DivergenceError, RqlError, require
from rql_lightning.policies import Decider, Policy
from rql_lightning.spaces import check_same, space_from_data

if TYPE_CHECKING:
    from tensordict import TensorDictBase

    from rql_lightning.data import ReplayDataModule

Schedule = Literal["constant", "linear"]


class Algorithm(pl.LightningModule):
    """A LightningModule that makes K updates a training step, and whose product is a :class:`Policy`.

    Attributes:
        policy: What acts; set by :meth:`build`.
        frames: Environment frames that training has seen, over all ranks.
        updates: Updates made.
        needs_checkpoint: Whether ``validate``, ``test`` and ``predict`` make no sense without one.
        explored: What :meth:`explore` returns and the replay buffer keeps.
        noise_state: What exploration remembers from step to step, for exact resume.
        train_seconds: Wall-clock from the start of training to the last update, evaluations in between included, over
            all parts of a resumed run.
    """

    policy: Policy
    needs_checkpoint: bool = True
    allowed_rewards: tuple[str, ...] = ("basic", "add_on", "total")
    explored: tuple[str, ...] = ("action",)
    noise_state: Tensor | None = None
    learning_rate: float
    learning_rate_schedule: Schedule
    max_grad_norm: float | None

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
        """Add to new frames ``[F]`` what is computed once a state (the frozen prior's parameters)."""
        return frames

    # -- Lightning's hooks -------------------------------------------------------------------------------------------

    @property
    def data(self) -> ReplayDataModule:
        """The DataModule of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def decider(self) -> Decider:
        """What evaluation, videos and ``predict`` ask: the policy."""
        return self.policy

    def setup(self, stage: str) -> None:
        """Build the networks for the environment's spaces, once."""
        if stage == "fit":
            precision, clip = self.trainer.precision, self.trainer.gradient_clip_val
            expected = "32-true or bf16-mixed: gradients are taken without Lightning's loss scaling"
            require(precision in ("32-true", "bf16-mixed"), "trainer.precision", precision, expected)
            require(clip is None, "trainer.gradient_clip_val", clip, "null, and model.max_grad_norm in its place")
            expected = " or ".join(repr(name) for name in self.allowed_rewards)
            require(self.data.reward in self.allowed_rewards, "data.reward", self.data.reward, self._why(expected))
        if not hasattr(self, "policy"):
            self.build(self.data.observation_space, self.data.action_space, self.data.env)

    def _why(self, expected: str) -> str:
        return f"{expected} for {type(self).__name__}"

    def training_step(self, batch: TensorDictBase, batch_idx: int) -> None:
        """K updates (house rule: the update itself reads like the paper's algorithm)."""
        self.frames = self.data.frames
        self._schedule_learning_rate()
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

    def on_train_start(self) -> None:
        """Start the clock."""
        self._clock = time.monotonic() - self.train_seconds

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Nothing: the evaluation callback runs the episodes."""

    test_step = validation_step
    predict_step = validation_step

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Write scalars to every logger, against environment frames."""
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.frames)

    # -- optimization ------------------------------------------------------------------------------------------------

    def descend(self, loss: Tensor, parameters: Sequence[Tensor], optimizer: Any) -> None:
        """One optimizer step down ``loss``, its gradient averaged over the ranks and clipped.

        ``torch.autograd.grad`` leaves DistributedDataParallel's hooks alone: they allow one backward pass a training
        step, and this makes K of them.

        Args:
            loss: Scalar.
            parameters: Those that the loss is differentiated by.
            optimizer: PyTorch's or Lightning's, on the vectors that they are views of, in their order
                (:func:`rql_lightning.networks.share_memory`): one message between ranks, one norm a vector, one step.
                Vectors that ``parameters`` do not reach stand still, and Adam does not count the step for them: after
                steps of gradient 0 the first others would be several times the learning rate.
        """
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        if self.trainer.world_size > 1:
            gradient = self.trainer.strategy.reduce(gradient, reduce_op="mean")
        for vector in optimizer.param_groups[0]["params"]:
            part, gradient = gradient[: len(vector)], gradient[len(vector) :]
            vector.grad = part if len(part) else None
            if self.max_grad_norm is not None and len(part):
                part.unsqueeze(0).renorm_(p=2, dim=0, maxnorm=self.max_grad_norm)
        optimizer.step()
        self.updates += 1

    def _schedule_learning_rate(self) -> None:
        before = self.frames - self.data.frames_per_turn  # the last training step still learns
        remaining = 1.0 - before / self.data.total_frames if self.learning_rate_schedule == "linear" else 1.0
        optimizers = self.optimizers()
        for optimizer in optimizers if isinstance(optimizers, list) else [optimizers]:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * max(remaining, 0.0)

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
        about = checkpoint["rql_lightning"]
        path = f"checkpoint {self.trainer.ckpt_path}"
        try:
            self._check_description(about, path)
        except CheckpointError:
            raise
        except RqlError as error:
            raise CheckpointError(str(error)) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: found a file that does not describe its policy ({error!r})") from error
        self.frames, self.updates = about["frames"], about["updates"]
        self.train_seconds = about["train_seconds"]
        # Our own counters say where a run goes on: of Lightning's, only the optimizer steps (its global_step).
        loops = checkpoint.pop("loops", {}).get("fit_loop", {})
        if self.trainer.state.fn == "fit":
            if "optimizer_states" not in checkpoint:
                raise CheckpointError(f"{path}: found an exported policy, expected a run's checkpoint to go on from")
            if "ReplayDataModule" not in checkpoint:
                raise CheckpointError(f"{path}: found no entry 'ReplayDataModule', expected what the data goes on from")
            kept = {key: value for key, value in loops.items() if "optim_step_progress" in key}
            checkpoint["loops"] = {"fit_loop": kept}
        else:  # a policy is enough to look at
            unused = {key: value for key, value in self.state_dict().items() if not key.startswith("policy.")}
            checkpoint["state_dict"] = {**unused, **(checkpoint.get("state_dict") or {})}
        self._check_weights(checkpoint.get("state_dict"), path)

    def _check_description(self, about: dict[str, Any], path: str) -> None:
        """Algorithm, task, spaces and networks are those of the config."""
        if about["algorithm"] != type(self).__name__:
            raise CheckpointError(f"{path}: found {about['algorithm']}, expected {type(self).__name__}")
        if about["task"] != self.policy.task:
            raise CheckpointError(f"{path}: found the task {about['task']}, expected {self.policy.task}")
        found, expected = about["policy"], self.policy.describe()
        for key in ("observation_space", "action_space"):
            space = space_from_data(found[key])
            check_same(f"{path}, {key}", space, getattr(self.policy, key), bounds=key == "action_space")
        for key in expected.keys() - {"observation_space", "action_space", "prior"}:
            if found[key] != expected[key]:
                raise CheckpointError(f"{path}: found {key} {found[key]}, expected the config's {expected[key]}")
        if _without_paths(found.get("prior")) != _without_paths(expected.get("prior")):
            raise CheckpointError(
                f"{path}: found the prior {_named(found.get('prior'))}, expected model.prior to be "
                f"{_named(expected.get('prior'))}"
            )
        for key in ("frames", "updates", "train_seconds"):
            require(isinstance(about[key], int | float), f"{path}, {key}", about[key], "a number")

    def _check_weights(self, found: Any, path: str) -> None:
        """Every weight is there in its shape, and those of the frozen prior are the prior's."""
        if not isinstance(found, dict) or found.keys() - self.state_dict().keys():
            extra = sorted(found.keys() - self.state_dict().keys())[:1] if isinstance(found, dict) else found
            raise CheckpointError(f"{path}: found weights {extra} that the config's networks do not have")
        for name, own in self.state_dict().items():
            prior = name.startswith("policy.prior.")
            if name not in found or found[name].shape != own.shape:
                shape = f"{name} of shape {tuple(found[name].shape)}" if name in found else f"no weights {name}"
                where = " (of model.prior)" if prior else ""
                raise CheckpointError(f"{path}: found {shape}, expected the shape {tuple(own.shape)}{where}")
            if not bool(found[name].isfinite().all()):
                raise CheckpointError(f"{path}: found infinity or NaN in the weights {name}, expected finite numbers")
            if prior and not torch.equal(found[name].to(own.device), own):
                raise CheckpointError(
                    f"{path}: found another prior than model.prior, expected the same ({name} differs)"
                )


def _without_paths(prior: dict[str, Any] | None) -> dict[str, Any] | None:
    """A prior's description but for the files it came from: what counts is what it says."""
    if prior is None:
        return None
    policy = prior.get("policy")
    nested = {} if policy is None else {"policy": {**policy, "prior": _without_paths(policy.get("prior"))}}
    return {**{key: value for key, value in prior.items() if key != "path"}, **nested}


def _named(prior: dict[str, Any] | None) -> str:
    return "none" if prior is None else f"{prior['kind']} {prior.get('log_prob') or prior.get('path')}"


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Denormal results become zero: Adam's moments of dead units decay into them, and they halve its speed."""
    already = float(torch.tensor(1e-40) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def check_hyperparameters(values: dict[str, Any]) -> None:
    """Refuse hyperparameters that make no sense, by name, before anything is allocated.

    Args:
        values: Names and values; unknown names are not looked at.

    Raises:
        ConfigurationError: naming the first that makes no sense.
    """
    for name, value in values.items():
        if name in _RULES:
            accepts, expected = _RULES[name]
            try:
                accepted = accepts(value)
            except TypeError:
                accepted = False
            require(accepted, f"model.{name}", value, expected)


def _positive(value: float) -> bool:
    return 0 < value < math.inf


def _not_negative(value: float) -> bool:
    return 0 <= value < math.inf


def _temperature(value: float | str) -> bool:
    return value == "auto" or _positive(value)  # type: ignore[arg-type]


def _fraction(value: float) -> bool:
    return 0 <= value <= 1


def _widths(value: Iterable[int]) -> bool:
    widths = list(value)
    return bool(widths) and all(isinstance(width, int) and width > 0 for width in widths)


_RULES: dict[str, tuple[Any, str]] = {
    "hidden_sizes": (_widths, "at least one hidden layer, each of at least one unit"),
    "alpha": (_temperature, "a finite number > 0, or 'auto' where the algorithm knows it"),
    "alpha_hat": (_temperature, "a finite number > 0, or 'auto' where the algorithm knows it"),
    "initial_alpha": (_positive, "a finite number > 0"),
    "target_entropy": (lambda value: value is None or math.isfinite(value), "a finite number of nats, or null"),
    "omega_prime": (lambda value: value is None or _not_negative(value), "a finite number >= 0"),
    "goal_scales": (lambda value: value is None or all(map(_positive, value)), "finite numbers > 0, or null"),
    "gamma": (_fraction, "a number in [0, 1]"),
    "learning_rate": (_positive, "a finite number > 0"),
    "learning_rate_schedule": (lambda value: value in ("constant", "linear"), "'constant' or 'linear'"),
    "tau": (lambda value: 0 < value <= 1, "a number in (0, 1]"),
    "target_update_interval": (lambda value: value >= 1, "a number of updates >= 1"),
    "huber_delta": (lambda value: value is None or _positive(value), "a finite number > 0, or null for squares"),
    "max_grad_norm": (lambda value: value is None or _positive(value), "a finite number > 0, or null for none"),
    "noise_correlation": (_not_negative, "a finite number of steps >= 0"),
    "prior_frames": (_not_negative, "a number of frames >= 0"),
    "critic_warm_up_updates": (_not_negative, "a number of updates >= 0"),
    "omega_prime_warm_up_frames": (_not_negative, "a number of frames >= 0"),
    "omega_prime_warm_up_factor": (_not_negative, "a finite number >= 0"),
    "prior_min_scale": (_not_negative, "a finite number >= 0"),
    "prior_log_prob_min": (lambda value: value is None or -math.inf < value < 0, "a finite number < 0, or null"),
    "epsilon_initial": (_fraction, "a probability in [0, 1]"),
    "epsilon_final": (_fraction, "a probability in [0, 1]"),
    "epsilon_fraction": (_fraction, "a fraction of the budget in [0, 1]"),
}
