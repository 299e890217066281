"""Loggers: where they write, when, and what."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from rql_lightning.callbacks import EvaluationCallback

SHORT = ["--data.total_frames=512", "--data.env_kwargs={max_episode_steps: 30}", "--trainer.log_every_n_steps=1"]


def test_a_logger_without_a_folder_of_its_own(run):
    logger = ["--trainer.logger=odd_tasks.SharedFolderLogger", f"--trainer.logger.save_dir={run.root}"]
    run("fit", *SHORT, *logger)
    run("fit", *SHORT, *logger, "--seed_everything=1")
    run("fit", *SHORT, *logger, f"--ckpt_path={run.checkpoint(1)}", "--data.total_frames=640")
    assert [run.metrics(version)["frames"] for version in (0, 1, 2)] == [512, 512, 640]
    for version in (0, 1, 2):
        assert {path.name for path in run.folder(version).iterdir()} >= {"config.yaml", "metrics.json", "checkpoints"}
        assert len(list((run.folder(version) / "checkpoints").iterdir())) == 2
    run("test", *SHORT, *logger, f"--ckpt_path={run.checkpoint(1)}")
    assert not run.folder(3).exists()


def test_csv_is_written_during_the_run(run, monkeypatch):
    rows: list[dict[str, str]] = []
    original = EvaluationCallback.on_train_end

    def look(self: EvaluationCallback, trainer: Any, pl_module: Any) -> None:
        with open(f"{trainer.loggers[0].log_dir}/metrics.csv", newline="") as file:
            rows.extend(csv.DictReader(file))
        original(self, trainer, pl_module)

    monkeypatch.setattr(EvaluationCallback, "on_train_end", look)
    run("fit", *SHORT, "--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={run.root}")
    assert {int(row["step"]) for row in rows} == {0, *range(128, 513, 64)}
    assert all(row["eval/basic_return_mean"] for row in rows if row["step"] == "0")
    assert run.metrics()["frames"] == 512


def test_speed_and_wall_clock_are_logged(run):
    trainer = run("fit", *SHORT).trainer
    events = EventAccumulator(str(run.folder())).Reload()
    rates = {name: events.Scalars(f"train/{name}") for name in ("frames_per_second", "updates_per_second", "seconds")}
    for scalars in rates.values():
        assert [event.step for event in scalars] == list(range(128, 513, 64))
        assert all(event.value > 0 for event in scalars)
    assert rates["seconds"][-1].value == pytest.approx(trainer.lightning_module.train_seconds, rel=1e-5)


def test_hyperparameters_reach_tensorboard_with_the_final_metrics(run):
    run("fit", *SHORT)
    content = EventAccumulator(str(run.folder())).Reload().summary_metadata
    events = EventAccumulator(str(run.folder())).Reload()
    session = plugin_data_pb2.HParamsPluginData.FromString(
        content["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info
    assert session.hparams["model/omega_prime"].number_value == 0.9
    assert session.hparams["data/total_frames"].number_value == 512
    assert session.hparams["model/class"].string_value == "ResidualSoftQLearning"
    experiment = plugin_data_pb2.HParamsPluginData.FromString(
        content["_hparams_/experiment"].plugin_data.content
    ).experiment
    names = {info.name.tag for info in experiment.metric_infos}
    assert {"final/basic_return_mean", "final/kl_to_prior"} <= names
    (final,) = events.Scalars("final/basic_return_mean")
    assert final.step == 512 and final.value == pytest.approx(run.metrics()["basic_return_mean"], rel=1e-5)
    assert "model/omega_prime: 0.9" in (run.folder() / "hparams.yaml").read_text()
