"""The evaluation protocol as a callback: during ``fit`` every so many frames, and for the other commands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.errors import require
from rql_lightning.evaluation import Episodes, run_episodes
from rql_lightning.policies import Policy
from rql_lightning.reporting.figures import curves_figure, distribution_figure
from rql_lightning.reporting.tables import results_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rql_lightning.algorithms import Algorithm


class EvaluationCallback(pl.Callback):
    """Run the policy deterministically on fixed seeds, disjoint from the training ones, and tell what came of it.

    Args:
        episodes: Episodes of an evaluation at the end of fit, and of validate, test and predict.
        every_n_frames: Environment frames between two evaluations during fit.
        episodes_during_fit: Episodes of those.
        seed: Seed of the first episode, the next one's is one higher.
        max_envs: Environments stepped together, at the most. Results do not depend on it.
        figures: Whether to draw learning curves and distributions at the end of fit and in test.
    """

    def __init__(
        self,
        episodes: int = 200,
        every_n_frames: int = 25_000,
        episodes_during_fit: int = 50,
        seed: int = EVALUATION_SEEDS,
        max_envs: int = 100,
        figures: bool = True,
    ) -> None:
        counts = {"episodes": episodes, "every_n_frames": every_n_frames, "episodes_during_fit": episodes_during_fit}
        for name, value in {**counts, "max_envs": max_envs}.items():
            require(isinstance(value, int) and value >= 1, f"evaluation.{name}", value, "an integer >= 1")
        expected = f"at least {EVALUATION_SEEDS}: seeds below are for training"
        require(seed >= EVALUATION_SEEDS, "evaluation.seed", seed, expected)
        self.episodes, self.every_n_frames, self.episodes_during_fit = episodes, every_n_frames, episodes_during_fit
        self.seed, self.max_envs, self.figures = seed, max_envs, figures
        self.history: list[dict[str, Any]] = []
        self.prior_summary: dict[str, Any] | None = None
        self._prior_pictured = np.empty(0)

    # -- Lightning's hooks -------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the run's folder: a question that all ranks have to ask together."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        if not self._dry_run:
            self.folder.mkdir(parents=True, exist_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Learning curves go on after a resume."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See :meth:`state_dict`."""
        self.history = list(state_dict["history"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """Evaluate the prior once: the level that the curves start from."""
        self._evaluate_prior(trainer, pl_module)
        if not self.history:
            self._evaluate_during_fit(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Algorithm, *args: Any) -> None:  # type: ignore[override]
        """Evaluate when ``every_n_frames`` have gone by."""
        data = _data(trainer)
        frames, before = data.frames, data.frames - data.frames_per_turn
        if frames // self.every_n_frames > before // self.every_n_frames and frames < data.total_frames:
            self._evaluate_during_fit(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """The whole protocol on the result: table, figures, ``metrics.json``."""
        _, summary = self._report(trainer, pl_module, "after training")
        self.history.append({**summary, "frames": pl_module.frames})
        if self.figures and trainer.is_global_zero and not self._dry_run:
            self._save_figure(trainer, "learning_curves", curves_figure(self.history, self.prior_summary))

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """``validate``: the table, and scalars."""
        if trainer.state.fn == "validate":
            self._evaluate_prior(trainer, pl_module)
            _, summary = self.evaluate(trainer, pl_module.policy, self.episodes)
            self._log(pl_module, summary)
            self._print(trainer, "validation", summary)

    def on_test_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """``test``: table, figures, ``metrics.json``."""
        self._evaluate_prior(trainer, pl_module)
        self._report(trainer, pl_module, "test")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """``predict``: trajectories, which ``TensorDict.load_memmap`` loads again."""
        from rql_lightning.data.trajectories import save_trajectories

        data = _data(trainer)
        episodes = self._run(trainer, pl_module.policy, self.episodes, record=True)
        folder = self.folder / "trajectories"
        path = save_trajectories(episodes, folder if trainer.world_size == 1 else folder / f"rank{trainer.global_rank}")
        Console().print(f"{len(episodes.table)} trajectories of {data.env}: {path}", soft_wrap=True)

    # -- the work ----------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: pl.Trainer, policy: Policy, episodes: int) -> tuple[Episodes, dict[str, Any]]:
        """Run the protocol, shared out over the ranks; every rank gets the whole summary.

        Returns:
            This rank's episodes, and the summary of all ranks' with the keys of ``metrics.json``.
        """
        data = _data(trainer)
        mine = self._run(trainer, policy, episodes)
        table = _gather(trainer, mine.table, episodes)
        everything = Episodes(table[np.argsort(table[:, 0])], mine.pictured)
        return mine, everything.summary(_metric(data), data.omega)

    def _run(self, trainer: pl.Trainer, policy: Policy, episodes: int, record: bool = False) -> Episodes:
        data = _data(trainer)
        seeds = self._seeds(trainer, episodes)
        env = data.make_env(max(1, min(len(seeds), self.max_envs)))
        try:
            return run_episodes(policy, env, seeds, record=record)
        finally:
            env.close()

    def _seeds(self, trainer: pl.Trainer, episodes: int) -> list[int]:
        """This rank's."""
        return list(range(self.seed, self.seed + episodes))[trainer.global_rank :: trainer.world_size]

    def evaluate_on_reference(self, trainer: pl.Trainer, policy: Policy, compiled: Episodes) -> dict[str, Any]:
        """The protocol on the reference environments, on the same seeds.

        Args:
            trainer: Whose data names the task.
            policy: Who acts.
            compiled: This rank's episodes on the compiled environments.

        Returns:
            The summary of all ranks', and ``same_episodes``: in how many of them length, returns, success and metric
            are those of the compiled environment.
        """
        data, seeds = _data(trainer), self._seeds(trainer, self.episodes)
        env = data.make_env(1, reference=True)
        shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, transient=True, disable=not shown) as progress:
            task = progress.add_task("episodes on the reference environment", total=len(seeds))
            try:
                mine = run_episodes(policy, env, seeds, finished=lambda count: progress.update(task, completed=count))
            finally:
                env.close()
        same = np.isclose(mine.table, compiled.table, rtol=0, atol=1e-6, equal_nan=True)[:, :-1].all(axis=1)
        table = _gather(trainer, np.column_stack([mine.table, same]), self.episodes)
        everything = Episodes(table[np.argsort(table[:, 0]), :-1], mine.pictured)
        return {**everything.summary(_metric(data), data.omega), "same_episodes": int(table[:, -1].sum())}

    def _evaluate_prior(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        prior = pl_module.policy.prior
        if prior is not None and prior.can_act and self.prior_summary is None:
            episodes, self.prior_summary = self.evaluate(trainer, prior, self.episodes)
            self._prior_pictured = episodes.pictured

    def _evaluate_during_fit(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        _, summary = self.evaluate(trainer, pl_module.policy, self.episodes_during_fit)
        self.history.append({**summary, "frames": pl_module.frames})
        self._log(pl_module, summary)
        for name, value in summary.items():
            trainer.callback_metrics[f"eval/{name}"] = torch.tensor(float("nan") if value is None else float(value))

    def _report(self, trainer: pl.Trainer, pl_module: Algorithm, title: str) -> tuple[Episodes, dict[str, Any]]:
        mine, summary = self.evaluate(trainer, pl_module.policy, self.episodes)
        self._log(pl_module, summary)
        self._print(trainer, title, summary)
        if trainer.is_global_zero and not self._dry_run:
            self._write(trainer, pl_module, mine, summary)
        if _data(trainer).reference and not self._dry_run:  # takes minutes: the rest is written by then
            reference = self.evaluate_on_reference(trainer, pl_module.policy, mine)
            self._print(trainer, f"{title}, on the reference environment too", summary, reference)
            if trainer.is_global_zero:
                _write_json(reference, self.folder / "reference_metrics.json")
        return mine, summary

    def _write(self, trainer: pl.Trainer, pl_module: Algorithm, mine: Episodes, summary: dict[str, Any]) -> None:
        seconds = round(pl_module.train_seconds, 2)
        counters = {"frames": pl_module.frames, "updates": pl_module.updates, "train_seconds": seconds}
        path = self.folder / "metrics.json"
        _write_json({**summary, **counters}, path)
        if self.prior_summary is not None:
            _write_json(self.prior_summary, self.folder / "prior_metrics.json")
        if self.figures and len(mine.pictured) > 0:
            samples = {"prior": self._prior_pictured} if self.prior_summary is not None else {}
            label = _data(trainer).customization.pictured[0]
            self._save_figure(trainer, "distribution", distribution_figure({**samples, "policy": mine.pictured}, label))
        Console().print(f"metrics: {path}", soft_wrap=True)

    def _log(self, pl_module: Algorithm, summary: dict[str, Any]) -> None:
        pl_module.log_metrics({f"eval/{name}": value for name, value in summary.items() if value is not None})

    def _print(
        self, trainer: pl.Trainer, title: str, summary: dict[str, Any], reference: dict[str, Any] | None = None
    ) -> None:
        if not trainer.is_global_zero:
            return
        data = _data(trainer)
        columns = {"prior": self.prior_summary} if self.prior_summary is not None else {}
        columns |= {"policy": summary}
        columns |= {} if reference is None else {"policy, reference environment": reference}
        Console().print(results_table(f"{data.env}: {title}", columns, _metric(data)))
        if reference is not None:
            same, count = reference["same_episodes"], reference["episodes"]
            Console().print(f"{same} of {count} episodes are the same on the compiled and the reference environment")

    def _save_figure(self, trainer: pl.Trainer, name: str, figure: Figure) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, figure, global_step=_data(trainer).algorithm.frames)
        figure.savefig(self.folder / f"{name}.png", dpi=120)


def _data(trainer: pl.Trainer) -> ReplayDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def _metric(data: ReplayDataModule) -> str | None:
    return None if data.customization.metric is None else data.customization.metric.name


def _gather(trainer: pl.Trainer, table: np.ndarray, episodes: int) -> np.ndarray:
    """The ranks' rows ``[n, C]`` in one table ``[episodes, C]``; ranks may hold one row more or less."""
    if trainer.world_size == 1:
        return table
    rows = -(-episodes // trainer.world_size)
    padded = np.full((rows, table.shape[1]), np.nan)
    padded[: len(table)] = table
    tensor = torch.from_numpy(padded).to(trainer.strategy.root_device)
    gathered = trainer.strategy.all_gather(tensor).reshape(-1, table.shape[1]).cpu().numpy()
    return gathered[np.isfinite(gathered[:, 0])]


def _write_json(content: dict[str, Any], path: Path) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(beside, path)
