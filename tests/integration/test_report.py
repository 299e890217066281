"""The closing report: saved first, written next, printed and filmed last; what fails late loses nothing early."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rql_lightning.callbacks import FrameCheckpoint, evaluation, report, run_report, videos
from rql_lightning.checkpoints import read_checkpoint

PLAIN = str(Path(__file__).parents[2] / "configs/cartpole/rl_prior.yaml")
SHORT = ["--data.total_frames=256", "--evaluation.episodes_during_fit=1", "--evaluation.episodes=2"]
SHORT += ["--data.env_kwargs={max_episode_steps: 30}"]


def assert_all_written(run: Any, but: str = "") -> None:
    expected = {"checkpoints/last.ckpt", "metrics.json", "learning_curves.png", "distribution.png", "report.html"} - {
        but
    }
    assert all((run.folder() / name).is_file() for name in expected)
    assert read_checkpoint(run.checkpoint())["rql_lightning"]["frames"] == 256


def test_the_order_of_the_closing_report(run, monkeypatch):
    stages: list[str] = []

    def watch(owner: Any, name: str, stage: str) -> None:
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            stages.append(stage)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(FrameCheckpoint, "save", "save")
    watch(evaluation.EvaluationCallback, "_report", "evaluate")
    watch(report, "write_metrics", "write")
    watch(report, "curves_figure", "draw")
    watch(report, "results_table", "print")
    watch(videos, "record_frames", "film")
    watch(run_report, "write_run_report", "report")
    run("fit", *SHORT, "--evaluation.figures=true", "--video.episodes=1", "--checkpoint.every_n_frames=1000")
    assert list(dict.fromkeys(stages)) == ["save", "evaluate", "write", "draw", "print", "film", "report"]


def test_the_report_shows_the_run_and_how_it_was_made(run):
    run("fit", *SHORT, "--evaluation.figures=true", "--video.episodes=1")
    page = (run.folder() / "report.html").read_text(encoding="utf-8")
    assert "CartPole-v0: residual_soft_q, version_0" in page and "python -m rql_lightning.train fit " in page
    assert page.count("<svg") == 4 and ("data:video/mp4" in page or "data:image/gif" in page)
    still = run.folder() / "videos" / "before_after-1000000.png"
    assert page.count(base64.b64encode(still.read_bytes()).decode()) == 1
    with Image.open(still) as image:
        assert image.width > 1000
    run("test", *SHORT, "--evaluation.figures=true", f"--ckpt_path={run.checkpoint()}")
    page = (run.folder() / "report.html").read_text(encoding="utf-8")
    assert "python -m rql_lightning.train fit " in page and "python -m rql_lightning.train test " in page


def test_no_report_without_figures(run):
    run("fit", *SHORT, "--evaluation.figures=false")
    assert (run.folder() / "learning_curves.json").is_file() and not (run.folder() / "report.html").exists()


@pytest.mark.parametrize("stop", ["max_steps=2", "max_time=00:00:00:02", "limit_train_batches=2"])
def test_whatever_ends_the_training_the_result_is_saved_before_it_is_evaluated(run, monkeypatch, stop):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the evaluation failed")

    monkeypatch.setattr(evaluation.EvaluationCallback, "_report", fail)
    with pytest.raises(RuntimeError, match="the evaluation failed"):
        run(
            "fit",
            f"--trainer.{stop}",
            *SHORT,
            "--data.total_frames=10_000_000",
            "--checkpoint.every_n_frames=100_000_000",
        )
    assert run.checkpoint().is_file()


def test_an_environment_that_cannot_be_filmed_is_refused_before_it_is_trained_on(refused, run):
    flags = ["--data.env=odd_tasks:odd/Unrenderable-v0", "--video.episodes=1", "--trainer.max_steps=20"]
    message = refused("fit", *flags, config=PLAIN)
    assert "error: video.episodes: odd_tasks:odd/Unrenderable-v0" in message and "set video.episodes to 0" in message
    assert not list(run.root.rglob("*.ckpt")) and not list(run.root.rglob("metrics.json"))


@pytest.mark.parametrize(
    ("owner", "function", "message", "lost"),
    [
        (videos, "record_frames", "video of episode 1000000 failed: no light", ""),
        (report, "curves_figure", "figure learning_curves failed: no light", "learning_curves.png"),
        (report, "distribution_figure", "figure distribution failed: no light", "distribution.png"),
        (run_report, "write_run_report", "report failed: no light", "report.html"),
    ],
)
def test_a_late_failure_loses_nothing_and_shows_in_the_exit_code(
    run, refused, monkeypatch, owner, function, message, lost
):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no light")

    monkeypatch.setattr(owner, function, fail)
    screen = refused("fit", *SHORT, "--evaluation.figures=true", "--video.episodes=1")
    assert f"error: {message}" in screen
    assert_all_written(run, but=lost)
    assert (run.folder() / "videos" / "episode-1000000.gif").exists() == (owner is not videos)


class Unread(io.StringIO):
    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def strict(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")


@pytest.mark.parametrize("stream", [Unread(), strict("ascii"), strict("cp932")], ids=["pipe", "ascii", "cp932"])
def test_whatever_the_screen_the_run_comes_to_its_end(run, monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    run("fit", *SHORT, "--evaluation.figures=true", "--trainer.enable_progress_bar=true")
    assert_all_written(run)
    if isinstance(stream, io.TextIOWrapper):
        assert "basic return" in stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined]


def test_an_environment_that_never_ends_an_episode(refused):
    flags = ["--data.env=odd_tasks:odd/Endless-v0", "--evaluation.max_episode_steps=200"]
    message = refused("fit", *flags, config=PLAIN)
    assert "odd_tasks:odd/Endless-v0, seed 1000000: found an episode that has not ended after 200 steps" in message


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_what_needs_no_checkpoint_is_evaluated_without_one(run, command, capsys):
    run(command, "--model=odd_tasks.Untrained", "--run_name=untrained", "--data.reward=basic", *SHORT, config=PLAIN)
    folder = run.folder(what="untrained")
    screen = capsys.readouterr().out
    assert ("metrics.json" in screen) == (command == "test") == (folder / "metrics.json").is_file()
    assert ("basic return" in screen) == (command != "predict")
    assert (folder / "trajectories").is_dir() == (command == "predict")


@pytest.mark.parametrize("refused_late", ["--data.reward=basic", "--trainer.precision=64-true", "--data.env=No-v0"])
def test_a_run_that_is_refused_before_it_starts_leaves_no_folder(run, refused_late):
    with pytest.raises(SystemExit) as stop:
        run("fit", refused_late)
    assert stop.value.code == 2
    assert list(run.root.rglob("version_*")) == []
