"""The complete config of a customization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rql_lightning.customizing.defaults import EVALUATIONS, Choice, data_settings, model_settings
from rql_lightning.customizing.given import KnownPrior
from rql_lightning.customizing.task import WishedTask

RUN_NAME = "customize"


@dataclass(frozen=True)
class Outputs:
    """What a run shows and leaves.

    Attributes:
        folder: Folder of runs.
        seed: Seed of the run.
        episodes: Number of evaluation episodes.
        video: Whether to film an episode.
        progress: Whether to show a progress bar.
    """

    folder: str
    seed: int
    episodes: int
    video: bool
    progress: bool


def config_of(choice: Choice, known: KnownPrior, task: WishedTask, outputs: Outputs) -> dict[str, Any]:
    """Return the config of ``fit``."""
    data = data_settings(choice, known.prior)
    of_task = {"env": task.env, "add_on_reward": task.add_on_reward, "env_kwargs": task.env_kwargs or None}
    interval = max(1, choice.total_frames // EVALUATIONS)
    return {
        "seed_everything": outputs.seed,
        "run_name": RUN_NAME,
        # One process: several would each run this call again.
        "trainer": {"default_root_dir": outputs.folder, "enable_progress_bar": outputs.progress, "devices": 1},
        "model": {
            "class_path": f"rql_lightning.algorithms.{choice.algorithm}",
            "init_args": {"prior": known.entry, **model_settings(choice, known.prior, task.observation_space)},
        },
        "data": {**of_task, **data},
        "evaluation": {
            "episodes": outputs.episodes,
            "episodes_during_fit": min(outputs.episodes, 50),
            "every_n_frames": interval,
        },
        "checkpoint": {"every_n_frames": interval},
        "video": {"episodes": int(outputs.video)},
    }


def note_of(known: KnownPrior, task: WishedTask) -> str:
    """Return the comments at the top of the config: whether it runs by itself."""
    unnamed = list(task.unnamed)
    if known.prior is known.entry:
        unnamed.append(f"model.init_args.prior, {known.prior.origin().removeprefix('prior ')}")
    if not unnamed:
        return (
            "Chosen by rql_lightning.customize. python -m rql_lightning.train fit --config <this file> runs it again."
        )
    return (
        "Chosen by rql_lightning.customize. It does not run by itself, as these have no import path or file that a "
        f"config can name:\n{chr(10).join(unnamed)}\nA function in a module of its own has one: module.function."
    )
