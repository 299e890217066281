"""Demonstrations written by ``predict``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from rql_lightning.callbacks.run_folder import run_folder, writing
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.data.task import EVALUATION_SEEDS
from rql_lightning.errors import require
from rql_lightning.evaluation import MAX_STEPS, run_episodes
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
        """Run the episodes and write them into ``trajectories`` in the run's folder."""
        from rql_lightning.data.trajectories import save_trajectories

        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        seeds = list(range(self.seed, self.seed + self.episodes))[trainer.global_rank :: trainer.world_size]
        decider: Any = pl_module.decider
        if not self.deterministic:
            decider = SampledPolicy(decider, self.epsilon, self.seed + trainer.global_rank)
        with prompt_signals():
            env = data.make_env(max(1, min(len(seeds), self.max_envs)))
            try:
                bound = self.max_episode_steps
                episodes = run_episodes(decider, env, seeds, record=True, max_steps=bound, name=data.env)
            finally:
                env.close()
            folder = run_folder(trainer) / "trajectories"
            folder = folder if trainer.world_size == 1 else folder / f"rank{trainer.global_rank}"
            with writing(folder):
                path = save_trajectories(episodes, folder, self._about(trainer, pl_module))
        print_line(f"{len(episodes.table)} episodes of {data.env}: {path}")

    def _about(self, trainer: pl.Trainer, algorithm: Algorithm) -> dict[str, Any]:
        """Return the description of the demonstrations, as plain data."""
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        settings = {name: getattr(self, name) for name in ("deterministic", "epsilon", "seed", "max_envs")}
        return {
            "task": data.env,
            "policy": _origin(trainer, algorithm),
            "observation_space": space_to_data(data.observation_space),
            "action_space": space_to_data(data.action_space),
            **settings,
        }


def _origin(trainer: pl.Trainer, algorithm: Algorithm) -> str:
    """Return where the policy comes from: its checkpoint, or the file or function of a frozen prior."""
    if trainer.ckpt_path:
        return str(trainer.ckpt_path)
    return algorithm.policy.origin() if isinstance(algorithm.policy, Prior) else type(algorithm).__name__
