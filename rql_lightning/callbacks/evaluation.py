"""The evaluation protocol as a callback, for periodic evaluation during ``fit``, and for ``test`` and ``validate``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from gymnasium.vector import VectorEnv
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rql_lightning.callbacks.checkpoint import FrameCheckpoint
from rql_lightning.callbacks.hyperparameters import log_final
from rql_lightning.callbacks.quiet import quieten
from rql_lightning.callbacks.report import (
    draw_curves,
    draw_distribution,
    log_summary,
    print_summaries,
    report_model,
    write_curves,
    write_summary,
)
from rql_lightning.callbacks.run_folder import run_folder
from rql_lightning.callbacks.signals import Stopped, prompt_signals
from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.errors import require
from rql_lightning.evaluation import MAX_STEPS, EndlessEpisodeError, EpisodeRun, Episodes
from rql_lightning.policies import Decider
from rql_lightning.reporting.console import console, print_line

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm


class EvaluationCallback(pl.Callback):
    """Evaluate with deterministic actions on fixed seeds, which differ from the seeds of training.

    Args:
        episodes: Number of episodes of the evaluation at the end of fit and in validate and test.
        every_n_frames: Number of environment frames between two evaluations during fit.
        episodes_during_fit: Number of episodes per evaluation during fit.
        seed: Seed of the first episode; the seed of each further episode is one higher.
        max_envs: Largest number of environments stepped together; results do not depend on it.
        figures: Whether to draw learning curves and distributions at the end of fit and in test.
        max_episode_steps: Largest number of steps per episode; a longer episode is an error.
        reference_episodes: Number of episodes on the reference environments with data.reference, the first of the
            evaluation; null for all.
    """

    def __init__(
        self,
        episodes: int = 200,
        every_n_frames: int = 25_000,
        episodes_during_fit: int = 50,
        seed: int = EVALUATION_SEEDS,
        max_envs: int = 100,
        figures: bool = True,
        max_episode_steps: int = MAX_STEPS,
        reference_episodes: int | None = None,
    ) -> None:
        counts = {"episodes": episodes, "every_n_frames": every_n_frames, "episodes_during_fit": episodes_during_fit}
        counts |= {"max_envs": max_envs, "max_episode_steps": max_episode_steps}
        for name, value in counts.items():
            require(isinstance(value, int) and value >= 1, f"evaluation.{name}", value, "an integer >= 1")
        accepted = reference_episodes is None or (isinstance(reference_episodes, int) and reference_episodes >= 1)
        require(accepted, "evaluation.reference_episodes", reference_episodes, "an integer >= 1, or null for all")
        expected = f"at least {EVALUATION_SEEDS}: seeds below are for training"
        require(seed >= EVALUATION_SEEDS, "evaluation.seed", seed, expected)
        self.episodes, self.every_n_frames, self.episodes_during_fit = episodes, every_n_frames, episodes_during_fit
        self.seed, self.max_envs, self.figures = seed, max_envs, figures
        self.max_episode_steps, self.reference_episodes = max_episode_steps, reference_episodes
        quieten()  # here, because Lightning speaks when the trainer is created
        self.history: list[dict[str, Any]] = []
        self._running: EpisodeRun | None = None
        self._forget_prior()

    def _forget_prior(self) -> None:
        self.prior_summary: dict[str, Any] | None = None
        self._prior_pictured = np.empty(0)

    # -- Lightning's hooks -------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Determine the run's folder, together on all ranks, and forget earlier runs with this callback.

        A resumed run loads its learning curves later (:meth:`load_state_dict`).
        """
        quieten()
        self._forget_prior()
        if stage == "fit":
            self.history = []
        run_folder(trainer)
        self._dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Return the learning curves, which a resumed run continues."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the learning curves."""
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Evaluate the prior, and the policy unless a resumed run has been evaluated since the last due frame."""
        if not pl_module.acts:
            return
        due = _data(trainer).frames // self.every_n_frames * self.every_n_frames
        with prompt_signals():
            self._evaluate_prior(trainer, pl_module)
            if not self.history or self.history[-1]["frames"] < due:
                self._evaluate_during_fit(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Algorithm, *args: Any) -> None:  # type: ignore[override]
        """Evaluate every ``every_n_frames`` frames."""
        if not pl_module.acts:
            return
        data = _data(trainer)
        frames, before = data.frames, data.frames - data.frames_per_turn
        if frames // self.every_n_frames > before // self.every_n_frames and frames < data.total_frames:
            self._evaluate_unless_stopped(trainer, pl_module)

    def _evaluate_unless_stopped(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        """Evaluate unless a signal was received; a resumed run starts with the evaluation that was skipped."""
        checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, FrameCheckpoint)), None)
        if checkpoint is not None and checkpoint.stop_requested(trainer):
            return
        if trainer.world_size > 1:  # stopping on one rank would block the others, so a signal takes effect afterwards
            self._evaluate_during_fit(trainer, pl_module)
            return
        try:
            with prompt_signals():
                self._evaluate_during_fit(trainer, pl_module)
        except Stopped as stopped:
            if checkpoint is None:
                raise
            checkpoint.request.received = stopped.signal

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Evaluate and report the result, which :class:`FrameCheckpoint` has already saved."""
        if not pl_module.acts:
            report_model(trainer, pl_module)
            return
        with prompt_signals():
            self._report(trainer, pl_module, "after training", fitted=True)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Evaluate, log scalars and print the table in ``validate``."""
        if trainer.state.fn == "validate":
            with prompt_signals():
                self._evaluate_prior(trainer, pl_module)
                _, summary = self.evaluate(trainer, pl_module.decider, self.episodes)
                log_summary(pl_module, summary)
                print_summaries(trainer, "validation", {"prior": self.prior_summary, "policy": summary})

    def on_test_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Evaluate, write ``metrics.json`` and figures, and print the table in ``test``."""
        with prompt_signals():
            self._evaluate_prior(trainer, pl_module)
            self._running = None
            try:
                self._report(trainer, pl_module, "test", fitted=False)
            except Stopped:
                self._report_stopped(trainer, pl_module)
                raise

    # -- the work ----------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: pl.Trainer, decider: Decider, episodes: int) -> tuple[Episodes, dict[str, Any]]:
        """Run the evaluation protocol, distributed over the ranks; every rank gets the complete summary.

        Args:
            trainer: Trainer whose data module defines the task.
            decider: Decider to evaluate.
            episodes: Number of episodes, over all ranks.

        Returns:
            The episodes of this rank, and the summary over all ranks with the keys of ``metrics.json``.

        Raises:
            EnvironmentContractError: If an episode does not end within ``max_episode_steps``.
        """
        data = _data(trainer)
        mine = self._run(trainer, decider, episodes)
        table = _gather(trainer, mine.table, episodes)
        everything = replace(mine, table=table[np.argsort(table[:, 0])])
        return mine, {**everything.summary(_metric(data), data.omega), **statistics(decider)}

    def _run(self, trainer: pl.Trainer, decider: Decider, episodes: int) -> Episodes:
        data = _data(trainer)
        seeds = self._seeds(trainer, episodes)
        env = data.make_env(max(1, min(len(seeds), self.max_envs)))
        shown = "episodes" if decider.needs_state else None  # planning takes a while
        return self._episodes(trainer, decider, env, seeds, data.env, shown)

    def _episodes(
        self, trainer: pl.Trainer, decider: Decider, env: VectorEnv, seeds: list[int], name: str, shown: str | None
    ) -> Episodes:
        """Run episodes and close the environments; ``shown`` is what a progress bar calls them, if there is one."""
        hidden = shown is None or not trainer.is_global_zero or trainer.progress_bar_callback is None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(), transient=True, disable=hidden) as progress:
            task = progress.add_task(shown or "", total=len(seeds))
            self._running = EpisodeRun(
                decider,
                env,
                seeds,
                finished=lambda count: progress.update(task, completed=count),
                max_steps=self.max_episode_steps,
                name=name,
            )
            try:
                return self._running.episodes()
            except EndlessEpisodeError as error:
                note = ", evaluation.max_episode_steps is this bound"
                raise EndlessEpisodeError(*error.about, note) from error
            finally:
                env.close()

    def _seeds(self, trainer: pl.Trainer, episodes: int) -> list[int]:
        """Return the seeds of this rank's episodes."""
        return list(range(self.seed, self.seed + episodes))[trainer.global_rank :: trainer.world_size]

    def evaluate_on_reference(self, trainer: pl.Trainer, decider: Decider, compiled: Episodes) -> dict[str, Any]:
        """Run the evaluation protocol on the reference environments, on the same seeds.

        Args:
            trainer: Trainer whose data module defines the task.
            decider: Decider to evaluate.
            compiled: Episodes of this rank on the compiled environments.

        Returns:
            The summary over all ranks, and ``same_episodes``, the number of episodes whose length, returns, success and
            metric are those of the compiled environment.
        """
        data, count = _data(trainer), min(self.episodes, self.reference_episodes or self.episodes)
        self._running = None
        seeds = self._seeds(trainer, count)
        env = data.make_env(1, reference=True)
        shown = "episodes on the reference environment"
        mine = self._episodes(trainer, decider, env, seeds, f"{data.env} (reference)", shown)
        return self._compared(trainer, decider, mine, compiled, count)

    def _compared(
        self, trainer: pl.Trainer, decider: Decider, mine: Episodes, compiled: Episodes, count: int
    ) -> dict[str, Any]:
        """Return the summary over all ranks of episodes on the reference environments, ``count`` over all ranks."""
        data = _data(trainer)
        known = compiled.table[np.isin(compiled.table[:, 0], mine.table[:, 0])]
        same = np.isclose(mine.table, known, rtol=0, atol=1e-6, equal_nan=True)[:, :-1].all(axis=1)
        table = _gather(trainer, np.column_stack([mine.table, same]), count)
        everything = replace(mine, table=table[np.argsort(table[:, 0]), :-1])
        summary = {**everything.summary(_metric(data), data.omega), **statistics(decider)}
        return {**summary, "same_episodes": int(table[:, -1].sum())}

    def _evaluate_prior(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        prior = pl_module.reported_prior
        if prior is not None and prior.can_act and self.prior_summary is None:
            episodes, self.prior_summary = self.evaluate(trainer, prior, self.episodes)
            self._prior_pictured = episodes.pictured

    def _evaluate_during_fit(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        _, summary = self.evaluate(trainer, pl_module.decider, self.episodes_during_fit)
        self.history.append({**summary, "frames": pl_module.frames})
        log_summary(pl_module, summary)
        for name, value in summary.items():
            trainer.callback_metrics[f"eval/{name}"] = torch.tensor(float("nan") if value is None else float(value))

    def _report(self, trainer: pl.Trainer, pl_module: Algorithm, title: str, fitted: bool) -> None:
        """Write files first, then log and draw, then print, and finally run the slow evaluation on the reference."""
        mine, summary = self.evaluate(trainer, pl_module.decider, self.episodes)
        columns = {"prior": self.prior_summary, "policy": summary}
        if self._dry_run:
            print_summaries(trainer, title, columns)
            return
        seconds = round(pl_module.train_seconds, 2)
        counters = {"frames": pl_module.frames, "updates": pl_module.updates, "train_seconds": seconds}
        path = write_summary(trainer, "metrics.json", {**summary, **counters})
        self._write_prior(trainer)
        log_summary(pl_module, summary)
        if self.figures:
            draw_distribution(trainer, self._prior_pictured, mine.pictured)
        if fitted:
            self.history.append({**summary, "frames": pl_module.frames})
            write_curves(trainer, self.history)
            log_final(trainer, summary)
            if self.figures:
                draw_curves(trainer, self.history, self.prior_summary)
        print_summaries(trainer, title, columns, path)
        if _data(trainer).reference:
            self._report_on_reference(trainer, pl_module, f"{title}, on the reference environment too", mine, columns)

    def _write_prior(self, trainer: pl.Trainer) -> None:
        if self.prior_summary is not None:
            write_summary(trainer, "prior_metrics.json", self.prior_summary)

    def _report_stopped(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        """Keep what had ended when a signal stopped a test: the prior's episodes, and the shortest of the policy's."""
        if self._dry_run or trainer.world_size > 1 or (run_folder(trainer) / "metrics.json").exists():
            return
        self._write_prior(trainer)
        if self._running is None:
            return
        episodes, data = self._running.so_far(), _data(trainer)
        if len(episodes.table) == 0:
            return
        summary = {**episodes.summary(_metric(data), data.omega), **statistics(pl_module.decider)}
        path = write_summary(trainer, "metrics.json", {**summary, "episodes_asked_for": len(self._running.seeds)})
        title = f"test, stopped after {len(episodes.table)} of {len(self._running.seeds)} episodes"
        print_summaries(trainer, title, {"prior": self.prior_summary, "policy": summary}, path)

    def _report_on_reference(
        self, trainer: pl.Trainer, pl_module: Algorithm, title: str, mine: Episodes, columns: dict[str, Any]
    ) -> None:
        try:
            reference = self.evaluate_on_reference(trainer, pl_module.decider, mine)
        except Stopped:
            self._report_reference_stopped(trainer, pl_module, mine, columns)
            raise
        path = write_summary(trainer, "reference_metrics.json", reference)
        print_summaries(trainer, title, {**columns, "policy, reference environment": reference}, path)
        if trainer.is_global_zero:
            same, count = reference["same_episodes"], reference["episodes"]
            print_line(f"{same} of {count} episodes are the same on the compiled and the reference environment")

    def _report_reference_stopped(
        self, trainer: pl.Trainer, pl_module: Algorithm, mine: Episodes, columns: dict[str, Any]
    ) -> None:
        """Keep the episodes on the reference environments that had ended when a signal stopped the evaluation there."""
        if self._running is None or trainer.world_size > 1:
            return
        episodes, asked_for = self._running.so_far(), len(self._running.seeds)
        if len(episodes.table) == 0:
            return
        reference = self._compared(trainer, pl_module.decider, episodes, mine, asked_for)
        path = write_summary(trainer, "reference_metrics.json", {**reference, "episodes_asked_for": asked_for})
        title = f"stopped after {len(episodes.table)} of {asked_for} episodes on the reference environment"
        print_summaries(trainer, title, {**columns, "policy, reference environment": reference}, path)


def statistics(decider: Decider) -> dict[str, Any]:
    """Return what a decider tells of the decisions since it was last asked, such as their seconds, for metrics."""
    return decider.statistics() if hasattr(decider, "statistics") else {}


def _data(trainer: pl.Trainer) -> ReplayDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def _metric(data: ReplayDataModule) -> str | None:
    return None if data.customization.metric is None else data.customization.metric.name


def _gather(trainer: pl.Trainer, table: np.ndarray, episodes: int) -> np.ndarray:
    """Gather the rows ``[n, C]`` of all ranks in one table ``[episodes, C]``; n may differ by one between ranks."""
    if trainer.world_size == 1:
        return table
    rows = -(-episodes // trainer.world_size)
    padded = np.full((rows, table.shape[1]), np.nan)
    padded[: len(table)] = table
    tensor = torch.from_numpy(padded).to(trainer.strategy.root_device)
    gathered = trainer.strategy.all_gather(tensor).reshape(-1, table.shape[1]).cpu().numpy()
    return gathered[np.isfinite(gathered[:, 0])]
