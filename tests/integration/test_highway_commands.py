"""Highway from the command line: compiled and real evaluation in two columns, and videos."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

WITHOUT_VIDEO = "--video.episodes=0"


def test_fit_records_prior_and_policy_in_the_same_episode(highway, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # as on servers, where highway-env would draw nothing
    highway("fit", "--data.env_kwargs={duration: 4, vehicles_count: 8}")
    folder = highway.folder()
    assert {"lane_index_mean", "kl_to_prior"} <= highway.metrics().keys()
    with Image.open(folder / "videos/episode-1000000.gif") as video:
        assert video.n_frames > 10, "sub-steps are shown, and something moves"
        width, height = video.size
        assert height > 2 * 150 and width == 600, "wide pictures stand above each other"
    events = EventAccumulator(str(folder)).Reload()
    assert "video/episode-1000000" in events.Tags()["images"]
    assert not (folder / "reference_metrics.json").exists()


def test_test_also_runs_on_the_reference_environment(highway, capsys):
    highway("fit", WITHOUT_VIDEO)
    checkpoint = f"--ckpt_path={highway.checkpoint()}"
    short = "--data.env_kwargs={vehicles_count: 5, duration: 12}"
    highway("test", checkpoint, WITHOUT_VIDEO, "--data.reference=true", short, "--evaluation.episodes=3")
    compiled, reference = highway.metrics(), json.loads((highway.folder() / "reference_metrics.json").read_text())
    assert reference.pop("same_episodes") == reference["episodes"] == 3
    assert reference == pytest.approx({key: compiled[key] for key in reference}, abs=1e-6)
    screen = " ".join(capsys.readouterr().out.split())
    assert "3 of 3 episodes are the same on the compiled and the reference environment" in screen


def test_a_reference_is_refused_where_there_is_none(refused):
    message = refused("fit", "--data.reference=true")
    assert "reference" in message and "rql_lightning/CartPole-v0 has no compiled form" in message


def test_what_the_simulator_does_not_model_is_refused_on_the_command_line(refused, highway):
    message = refused("fit", "--data.env_kwargs={config: {manual_control: true}}", config=highway.config)
    assert "manual_control" in message and "gym.make" in message


@pytest.mark.parametrize("wrong", ["--video.episodes=-1", "--video.scale=0", "--video.seed=-3"])
def test_senseless_videos_are_refused(refused, wrong):
    assert wrong.removeprefix("--").partition("=")[0] in refused("fit", wrong)
