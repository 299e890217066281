"""Demonstrations written by ``predict``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from rql_lightning.callbacks.run_folder import run_folder, writing
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.data.task import EVALUATION_SEEDS
from rql_lightning.errors import require
from rql_lightning.evaluation import MAX_STEPS, Episodes, run_episodes
from rql_lightning.policies import SampledPolicy
from rql_lightning.priors import Prior
from rql_lightning.reporting.console import print_line
from rql_lightning.spaces import space_to_data

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm
    from rql_lightning.data import TaskDataModule

DEMONSTRATION_SEEDS = 10 * EVALUATION_SEEDS
"""Default seed of the first demonstrated episode, beyond the seeds of training and of any usual evaluation."""


class DemonstrationWriter(pl.Callback):
    """Write episodes of the policy in ``predict``, as demonstrations for imitation.

    Args:
        episodes: Number of episodes.
        deterministic: Whether the policy acts deterministically, as in evaluation, instead of being sampled.
        epsilon: Probability of a uniformly random action in place of the policy's.
        seed: Seed of the first episode; the seed of each further episode is one higher.
        max_envs: Largest number of environments stepped together; stochastic actions depend on it.
        max_episode_steps: Largest number of steps per episode; a longer episode is an error.
    """

    def __init__(
        self,
        episodes: int = 200,
        deterministic: bool = False,
        epsilon: float = 0.0,
        seed: int = DEMONSTRATION_SEEDS,
        max_envs: int = 100,
        max_episode_steps: int = MAX_STEPS,
    ) -> None:
        require(isinstance(episodes, int) and episodes >= 1, "episodes", episodes, "an integer >= 1")
        accepted = isinstance(epsilon, int | float) and 0 <= epsilon <= 1
        require(accepted, "epsilon", epsilon, "a probability in [0, 1]")
        require(epsilon == 0 or not deterministic, "epsilon", epsilon, "0 where deterministic is true")
        require(seed >= EVALUATION_SEEDS, "seed", seed, f"at least {EVALUATION_SEEDS}: seeds below are for training")
        self.episodes, self.deterministic, self.epsilon, self.seed = episodes, deterministic, epsilon, seed
        self.max_envs, self.max_episode_steps = max_envs, max_episode_steps

    def on_predict_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Run the episodes and write them into ``trajectories`` in the run's folder, which is replaced as a whole."""
        with prompt_signals():
            episodes = self._run(trainer, pl_module)
            folder = run_folder(trainer) / "trajectories"
            with writing(folder):
                self._write(trainer, folder, episodes, self._about(trainer, pl_module, episodes))
        if trainer.is_global_zero:
            env = trainer.datamodule.env  # type: ignore[attr-defined]
            print_line(f"{self.episodes} episodes of {env}: {folder}")

    def _run(self, trainer: pl.Trainer, algorithm: Algorithm) -> Episodes:
        """Run this rank's episodes."""
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        seeds = list(range(self.seed, self.seed + self.episodes))[trainer.global_rank :: trainer.world_size]
        expected = f"at least {trainer.world_size}, one for each rank"
        require(self.episodes >= trainer.world_size, "episodes", self.episodes, expected)
        decider: Any = algorithm.decider
        if not self.deterministic:
            decider = SampledPolicy(decider, self.epsilon, self.seed + trainer.global_rank)
        env = data.make_env(min(len(seeds), self.max_envs))
        try:
            return run_episodes(decider, env, seeds, record=True, max_steps=self.max_episode_steps, name=data.env)
        finally:
            env.close()

    def _write(self, trainer: pl.Trainer, folder: Path, episodes: Episodes, about: dict[str, Any]) -> None:
        """Write the episodes; those of several ranks into a folder for each, all of which replace the former ones."""
        from rql_lightning.data.trajectories import replace_folder, save_trajectories

        if trainer.world_size == 1:
            save_trajectories(episodes, folder, about)
            return
        together = folder.with_name(f".{folder.name}.ranks")
        if trainer.is_global_zero:
            shutil.rmtree(together, ignore_errors=True)
        trainer.strategy.barrier()
        save_trajectories(episodes, together / f"rank{trainer.global_rank}", about)
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            replace_folder(together, folder)
        trainer.strategy.barrier()

    def _about(self, trainer: pl.Trainer, algorithm: Algorithm, episodes: Episodes) -> dict[str, Any]:
        """Return the description of the demonstrations, as plain data."""
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        settings = {name: getattr(self, name) for name in ("deterministic", "epsilon", "seed", "max_envs")}
        return {
            "task": data.env,
            "env_kwargs": data.env_kwargs,
            "policy": _origin(trainer, algorithm),
            "observation_space": space_to_data(data.observation_space),
            "action_space": space_to_data(data.action_space),
            **settings,
            "episodes": len(episodes.table),
            "steps": len(episodes.steps["step"]),
        }


def _origin(trainer: pl.Trainer, algorithm: Algorithm) -> str:
    """Return where the policy comes from: its checkpoint, or the file or function of a frozen prior."""
    if trainer.ckpt_path:
        return str(trainer.ckpt_path)
    return algorithm.policy.origin() if isinstance(algorithm.policy, Prior) else type(algorithm).__name__
