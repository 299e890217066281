"""What ``test`` of a planner leaves in the run's folder, and that a picture that fails ends nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rql_lightning.callbacks import plans
from rql_lightning.train import main

CONFIGS = Path(__file__).parents[2] / "configs/highway"
SHORT = ["--evaluation.episodes=1", "--evaluation.figures=false", "--video.max_steps=2"]
SHORT += ["--trainer.enable_progress_bar=false", "--data.env_kwargs={max_episode_steps: 6}"]
SMALL = [*SHORT, "--model.simulations=8", "--model.horizon=3"]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train"])  # Lightning warns of arguments beside those that are given


def run_test(tmp_path: Path, *arguments: str, config: str = "mcts_from_rl.yaml") -> Path:
    main(["test", f"--config={CONFIGS / config}", f"--trainer.default_root_dir={tmp_path}", *arguments])
    return folder(tmp_path)


def folder(tmp_path: Path) -> Path:
    (found,) = tmp_path.glob("highway/*/version_0")
    return found


def test_a_planner_leaves_a_figure_and_a_video_in_the_folder_and_in_tensorboard(tmp_path):
    run = run_test(tmp_path, *SMALL)
    with Image.open(run / "plan.png") as figure, Image.open(run / "videos/episode-1000000.gif") as video:
        assert figure.width > 1000
        assert video.n_frames == 3 and video.height > 2 * (150 + 24)  # prior, policy, and the strip below it
    events = EventAccumulator(str(run)).Reload()
    assert {"plan", "video/episode-1000000"} <= set(events.Tags()["images"])


def test_the_decision_is_that_of_the_seed_and_step(tmp_path, monkeypatch):
    titles: list[str] = []
    original = plans.plan_figure

    def watched(*arguments: Any) -> Any:
        titles.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(plans, "plan_figure", watched)
    for index, step in enumerate((2, 100)):
        run_test(tmp_path / str(index), *SMALL, "--video.episodes=0", f"--plan.step={step}", "--plan.seed=1000003")
    shown = [title.removeprefix("rql_lightning/Highway-v0, ") for title in titles]
    assert shown == ["seed 1000003: decision 2", "seed 1000003: decision 6"]  # the last one of the episode


def test_none_is_drawn_if_none_is_asked_for(tmp_path):
    run = run_test(tmp_path, *SMALL, "--video.episodes=0", "--plan.step=0")
    assert (run / "metrics.json").is_file() and not (run / "plan.png").exists()


def test_other_algorithms_have_no_plan(tmp_path):
    frozen = ["--model=FrozenPolicy", "--model.prior=CheckpointPrior", "--model.prior.path=pretrained:highway-rl"]
    data = "--data.env=rql_lightning/Highway-v0"
    main(["test", *frozen, data, f"--trainer.default_root_dir={tmp_path}", *SHORT])
    assert not (folder(tmp_path) / "plan.png").exists()


def test_a_picture_that_fails_is_reported_and_ends_nothing(tmp_path, monkeypatch, capsys):
    def fail(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("no light")

    monkeypatch.setattr(plans, "plan_figure", fail)
    monkeypatch.setattr(plans.PlanDrawing, "__call__", fail)
    with pytest.raises(SystemExit) as stopped:
        run_test(tmp_path, *SMALL)
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert "figure plan failed: no light" in errors and "video of episode 1000000 failed: no light" in errors
    assert (folder(tmp_path) / "metrics.json").is_file()


@pytest.mark.parametrize(("setting", "message"), [("step=-1", "plan.step"), ("seed=-1", "plan.seed")])
def test_settings_that_make_no_sense_are_refused(tmp_path, capsys, setting, message):
    with pytest.raises(SystemExit):
        run_test(tmp_path, *SMALL, f"--plan.{setting}")
    assert message in capsys.readouterr().err
