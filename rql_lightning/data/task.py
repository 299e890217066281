"""The task of a run: environment, rewards, spaces, seeds and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
from gymnasium.vector import VectorEnv

from rql_lightning.envs.customization import RewardName
from rql_lightning.envs.registration import make_vector_env, no_wish
from rql_lightning.errors import CheckpointError, ConfigurationError, require

EVALUATION_SEEDS = 1_000_000
"""Seeds from here on are for evaluation; those of training environments stay below."""

STATE = "rql_lightning_data"
"""Key of the data module's state in a checkpoint, for any class of data module."""

_FORMER_STATE = "ReplayDataModule"  # key in checkpoints of earlier versions


def training_seed(run_seed: int, num_envs: int, rank: int, frames: int) -> int:
    """Return the seed of a rank's first training environment; the seed of each further one is one higher.

    Args:
        run_seed: Seed of the run, the same on every rank.
        num_envs: Number of environments on each rank.
        rank: Rank of this process.
        frames: Number of frames that the run collected before these environments start.
    """
    return (run_seed * 10_007 + rank * num_envs + frames * 7_919) % (EVALUATION_SEEDS - num_envs)


def require_counts(**counts: int) -> None:
    """Refuse settings that are not integers of at least 1.

    Raises:
        ConfigurationError: If a setting is not such an integer; names the first one.
    """
    for name, value in counts.items():
        require(isinstance(value, int) and value >= 1, f"data.{name}", value, "an integer >= 1")


class TaskDataModule(pl.LightningDataModule):
    """The task of a run, sufficient to evaluate a policy; base class of data modules that provide training batches.

    Args:
        env: Gymnasium id, such as rql_lightning/CartPole-v0; module:id imports the module first.
        reward: Reward to learn from: 'basic', 'add_on' or 'total' (omega times basic, plus add-on).
        omega: Weight of the basic reward in the total reward.
        add_on_reward: Import path of a function (observation, action, next_observation, info) -> float, for an
            environment without an add-on reward of its own.
        env_kwargs: Further keyword arguments of the environment.
        reference: Whether the last evaluation also runs on the reference environments of a task with a compiled form
            (such as highway-env itself), on the same seeds.
        total_frames: Training budget in environment frames, over all ranks.

    Attributes:
        observation_space, action_space: Spaces of one environment; available after :meth:`setup`.
        customization: Add-on reward and metric of the task; available after :meth:`setup`.
        frames: Number of environment frames collected so far, over all ranks.
        run_seed: Seed of the run where training batches reseed PyTorch's generator; ``None`` where they do not.
    """

    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]

    def __init__(
        self,
        env: str = "rql_lightning/CartPole-v0",
        reward: RewardName = "add_on",
        omega: float = 1.0,
        add_on_reward: str | None = None,
        env_kwargs: dict[str, Any] | None = None,
        reference: bool = False,
        total_frames: int = 100_000,
    ) -> None:
        super().__init__()
        require_counts(total_frames=total_frames)
        finite = isinstance(omega, int | float) and bool(np.isfinite(omega))
        require(finite, "data.omega", omega, "a finite number")
        accepted = env_kwargs is None or isinstance(env_kwargs, dict)
        require(accepted, "data.env_kwargs", env_kwargs, "a dictionary of arguments, or null")
        self.env, self.reward, self.omega, self.add_on_reward = env, reward, omega, add_on_reward
        self.env_kwargs, self.reference, self.total_frames = dict(env_kwargs or {}), reference, total_frames
        self.frames = 0
        self.run_seed: int | None = None

    @property
    def algorithm(self) -> Any:
        """The LightningModule of the running trainer."""
        return self.trainer.lightning_module  # type: ignore[union-attr]

    @property
    def fitting(self) -> bool:
        """Whether a trainer is running ``fit``."""
        return self.trainer is not None and self.trainer.state.fn == "fit"

    def make_env(self, num_envs: int, reference: bool = False, processes: int = 0) -> VectorEnv:
        """Create a vector environment of the task, with this module's reward.

        Args:
            num_envs: Number of environments.
            reference: Whether to create the reference environments of a task that has a compiled form.
            processes: How many environments step at a time, each in a process of its own; 0 for one after another.
        """
        task = (self.env, num_envs, self.reward, self.omega, self.add_on_reward, self.env_kwargs)
        return make_vector_env(*task, reference=reference, processes=processes)

    def setup(self, stage: str) -> None:
        """Read the environment's spaces, so that an unknown id is refused before anything is allocated."""
        if self.reference:
            self.make_env(1, reference=True).close()
        env = self.make_env(1)
        try:
            self.observation_space = env.single_observation_space
            self.action_space = env.single_action_space
            self.customization = env.customization
        finally:
            env.close()
        has_wish = self.customization.add_on_reward is not no_wish
        expected = f"the import path of a function: {self.env} has no add-on reward for data.reward {self.reward!r}"
        require(has_wish or self.reward == "basic", "data.add_on_reward", self.add_on_reward, expected)
        self.frames = 0

    def example_observations(self) -> Any:
        """Return two observations from a reset of the environment, ``[2, *observation_shape]``."""
        env = self.make_env(2)
        try:
            return env.reset(seed=0)[0]
        finally:
            env.close()

    def val_dataloader(self) -> range:
        """Return one empty batch for ``validate`` and none for ``fit``; the evaluation callback runs the episodes."""
        return range(0 if self.fitting else 1)

    def test_dataloader(self) -> range:
        """Return one empty batch; the evaluation callback runs the episodes."""
        return range(1)

    predict_dataloader = test_dataloader

    # -- the budget --------------------------------------------------------------------------------------------------

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def turns_left(self) -> int:
        """Number of training batches until the budget is spent."""
        return max(0, -(-(self.total_frames - self.frames) // self.frames_per_turn))

    def require_budget(self) -> None:
        """Refuse to train once the budget is spent.

        Raises:
            ConfigurationError: If no frames are left.
        """
        if self.frames >= self.total_frames:
            raise ConfigurationError(
                f"data.total_frames: found {self.total_frames}, which this run has already spent ({self.frames} "
                "frames); expected a larger number to resume training"
            )

    def spend_turn(self) -> None:
        """Count the frames of one training batch; after the last one, training stops whatever max_epochs says."""
        self.frames += self.frames_per_turn
        if self.frames >= self.total_frames and self.trainer is not None:
            self.trainer.should_stop = True

    # -- what a data module for training overrides -------------------------------------------------------------------

    @property
    def frames_per_turn(self) -> int:
        """Environment frames that one training batch adds to ``frames``, over all ranks; 0 if it collects none."""
        return 0

    def pop_finished_episodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return returns and lengths of the training episodes that ended since the last call; none here."""
        return np.empty(0), np.empty(0, dtype=np.int64)

    def save_beside(self, folder: Path, rank: int) -> None:
        """Write what is too large for a checkpoint into files beside it; nothing here.

        Args:
            folder: Folder of the checkpoint, which is written next and may refer to the files in its state.
            rank: Rank of this process.
        """

    def forget_beside(self, folder: Path, rank: int) -> None:
        """Remove files of earlier checkpoints; nothing here.

        Args:
            folder: Folder of the checkpoint, which has been written.
            rank: Rank of this process.
        """

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state to store in a checkpoint."""
        return {"frames": self.frames}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.frames = state_dict["frames"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Move the state that Lightning stored under the name of the class to a name that subclasses share."""
        checkpoint[STATE] = checkpoint.pop(type(self).__qualname__, {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Move the state back to where Lightning looks for it, under the name of the class.

        Called by the LightningModule's hook of the same name, which runs before Lightning restores the data module.

        Raises:
            CheckpointError: If ``fit`` resumes a checkpoint without such a state.
        """
        path = "" if self.trainer is None else f"checkpoint {self.trainer.ckpt_path}: "
        names = (STATE, type(self).__qualname__, _FORMER_STATE)
        state = next((checkpoint[name] for name in names if name in checkpoint), None)
        if state is None and not self.fitting:  # evaluation requires a policy only
            return
        if state is None:
            raise CheckpointError(f"{path}found no entry {STATE!r}, expected the state of the data module")
        if not isinstance(state, dict) or not isinstance(state.get("frames"), int):
            raise CheckpointError(f"{path}found an entry {STATE!r} without a number of frames, expected one with it")
        checkpoint[type(self).__qualname__] = state
