"""Pictures of how a planner decides: one decision as a figure, and plans drawn into videos."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytorch_lightning as pl

from rql_lightning.callbacks.report import save_figure
from rql_lightning.callbacks.signals import prompt_signals
from rql_lightning.data import TaskDataModule
from rql_lightning.data.replay import EVALUATION_SEEDS
from rql_lightning.errors import require
from rql_lightning.evaluation import readable_state
from rql_lightning.planning import Planner
from rql_lightning.policies import Decider
from rql_lightning.reporting.plan_videos import PlanDrawing
from rql_lightning.reporting.plans import action_labels, plan_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rql_lightning.algorithms import Algorithm


class PlanCallback(pl.Callback):
    """Draw one decision of a planner in test: search tree, prior and posterior, rollouts; other algorithms have none.

    Args:
        seed: Seed of the episode whose decision is drawn.
        step: Number of the decision that is drawn, counted from 1, or the last one of a shorter episode; 0 draws none.
    """

    def __init__(self, seed: int = EVALUATION_SEEDS, step: int = 5) -> None:
        require(isinstance(seed, int) and 0 <= seed < 2**32, "plan.seed", seed, "an integer in [0, 2**32)")
        require(isinstance(step, int) and step >= 0, "plan.step", step, "an integer >= 0")
        self.seed, self.step = seed, step

    def on_test_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Write ``plan.png`` and log it to TensorBoard; an error is reported and does not end the run."""
        planner = pl_module.decider
        if self.step == 0 or not isinstance(planner, Planner) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data: TaskDataModule = trainer.datamodule  # type: ignore[attr-defined]
        with prompt_signals():
            save_figure(trainer, "plan", lambda: self._draw(planner, data))

    def _draw(self, planner: Planner, data: TaskDataModule) -> Figure:
        step = decide_until(planner, data, self.seed, self.step)
        plan, task = planner.plan(), data.customization
        labels = action_labels(plan.actions, task.action_names)
        drawn_anew = planner.candidates.fixed is None  # in every state
        below = [f"sample {index}" for index in range(1, len(labels) + 1)] if drawn_anew else labels
        title = f"{data.env}, seed {self.seed}: decision {step}"
        return plan_figure(plan, labels, task.map, below, title)


def decide_until(planner: Planner, data: TaskDataModule, seed: int, step: int) -> int:
    """Let a planner run an episode up to a decision, or to the last one of a shorter episode; return its number.

    Args:
        planner: Planner, whose ``plan()`` then returns that decision.
        data: Data module of the task.
        seed: Seed of the episode.
        step: Number of the decision, counted from 1.
    """
    env = data.make_env(1)
    try:
        observation, _ = env.reset(seed=[seed])
        for count in range(1, step + 1):
            decision = planner.decide(observation, readable_state(planner, env, observation, data.env))
            if count == step:
                break
            observation, _, terminated, truncated, _ = env.step(decision.action)
            if terminated[0] or truncated[0]:
                break
        return count
    finally:
        env.close()


def plan_drawing(
    decider: Decider, data: TaskDataModule, scale: float
) -> Callable[[np.ndarray, bool], np.ndarray] | None:
    """Return what draws a planner's decisions into the frames of its video, or ``None`` for other deciders.

    Args:
        decider: Decider that is recorded.
        data: Data module of the task.
        scale: Factor by which frames are enlarged.
    """
    if not isinstance(decider, Planner):
        return None
    drawing = PlanDrawing(data.customization.action_names, data.customization.map, scale)
    return lambda picture, decided: drawing(picture, decider.plan() if decided else None)
