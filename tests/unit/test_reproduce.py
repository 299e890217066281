"""Statistics over seeds, the paper's table, tables on the screen and pictures of recordings."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rql_lightning import load_policy
from rql_lightning.reporting.paper import paper_row
from rql_lightning.reporting.tables import results_table
from rql_lightning.reporting.videos import SideBySide, multiple_exposure, record_frames, save_gif, save_mp4
from rql_lightning.reproduce.statistics import bootstrap_interval, interquartile_mean
from rql_lightning.reproduce.sweep import results_over_seeds


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([5.0], 5.0), ([1.0, 3.0], 2.0), ([9.0, 1.0, 2.0], 4.0), ([1e9, 4.0, 2.0, -1e9], 3.0), (range(8), 3.5)],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert interquartile_mean(np.array(scores, dtype=float)) == pytest.approx(expected)
    assert bootstrap_interval(list(scores))[0] == pytest.approx(expected)


def test_bootstrap_interval_of_a_large_sample_is_the_normal_one():
    """The interquartile mean of uniform scores has variance about that of a 25 % trimmed mean: 1/(12 n) · 3/2."""
    scores = np.random.default_rng(1).uniform(size=400)
    estimate, low, high = bootstrap_interval(list(scores), resamples=4000)
    assert low < estimate < high and abs(estimate - 0.5) < 0.05
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(1.5 / 12 / 400), rel=0.15)
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)
    assert bootstrap_interval(list(scores), resamples=100) == bootstrap_interval(list(scores), resamples=100)


def test_rows_of_the_paper():
    prior, customised = paper_row("CartPole", "RL Prior Policy"), paper_row("CartPole", "RL Customized")
    assert (prior["success_rate"], prior["basic_return_mean"], prior["mean_abs_position_mean"]) == (1.0, 427.21, 0.15)
    assert (customised["basic_return_mean"], customised["mean_abs_position_mean"]) == (425.73, 0.05)
    assert customised["add_on_return_mean"] == -11.18
    with pytest.raises(KeyError, match="CartPole, nobody"):
        paper_row("CartPole", "nobody")


def screen(table: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_table_shows_what_is_there_and_dashes_for_what_is_not():
    ours = {"episodes": 4, "success_rate": 0.975, "basic_return_mean": 425.734, "basic_return_std": 2.5}
    text = screen(results_table("title", {"prior": ours, "paper": {}}, "mean_abs_position"))
    assert "97.5 %" in text and "425.73 ± 2.50" in text and "mean abs position" in text
    (row,) = (line for line in text.splitlines() if "success rate" in line)
    assert "–" in row and "97.5 %" in row


def test_a_table_over_seeds_has_a_row_a_run_and_the_interquartile_mean():
    def run(add_on: float, kl: float | None) -> dict[str, object]:
        means = {"basic_return_mean": 400.0, "add_on_return_mean": add_on, "total_return_mean": 1.0}
        return {"success_rate": 1.0, **means, "kl_to_prior": kl, "train_seconds": 9.0, "depth_mean": 0.25}

    results = {("3", seed): run(value, None) for seed, value in enumerate((-10.0, -20.0, -30.0))}
    results |= {("10", 0): run(-5.5, 0.125)}
    lines = screen(results_over_seeds("config", "model.omega_prime", results)).splitlines()
    (heading,) = (line for line in lines if "seed" in line)
    assert "model.omega_prime" in heading and "depth" in heading
    aggregate = [line for line in lines if "IQM" in line]
    assert len(aggregate) == 1 and "-20.00 [-30.00, -10.00]" in aggregate[0] and "–" in aggregate[0]
    assert sum("-5.50" in line and "0.125" in line for line in lines) == 1


def test_recordings(tmp_path):
    policy = load_policy("pretrained:cartpole-rl")
    frames, rate = record_frames(policy, "rql_lightning/CartPole-v0", seed=3, steps=12)
    again, _ = record_frames(policy, "rql_lightning/CartPole-v0", seed=3, steps=12)
    assert rate == gym.make("CartPole-v1").metadata["render_fps"]
    assert len(frames) == 13 and frames[0].ndim == 3 and frames[0].dtype == np.uint8
    assert all(np.array_equal(*pair) for pair in zip(frames, again, strict=True))
    assert not np.array_equal(frames[0], frames[12])
    exposure = multiple_exposure(frames, every=6)
    np.testing.assert_array_equal(exposure, np.minimum(np.minimum(frames[0], frames[6]), frames[12]))
    pictures = SideBySide({"long": frames, "short": frames[:3]}, every=4)
    height, width = frames[0].shape[:2]
    assert len(pictures) == 4 and pictures[0].width == 2 * (width // 2) and pictures[0].height > height // 2
    right = [np.asarray(picture)[:, width // 2 :] for picture in pictures]
    assert not np.array_equal(right[0], right[1]) and np.array_equal(right[1], right[3])  # stands still at its end
    save_gif(pictures, tmp_path / "moving.gif", milliseconds=40)
    with Image.open(tmp_path / "moving.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (4, pictures[0].size, 40)


def test_a_video_has_all_pictures_and_their_colours(tmp_path):
    av = pytest.importorskip("av")
    pictures = [Image.new("RGB", (65, 33), (8 * step, 120, 255 - 8 * step)) for step in range(20)]
    assert save_mp4(pictures, tmp_path / "moving.mp4", milliseconds=40)
    with av.open(str(tmp_path / "moving.mp4")) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(frames) == 20 and frames[0].size == (64, 32)
    for frame, picture in zip(frames, pictures, strict=True):
        assert frame.getpixel((30, 15)) == pytest.approx(picture.getpixel((30, 15)), abs=8)


def test_a_gif_keeps_a_colour_of_its_last_picture(tmp_path):
    pictures = [Image.new("RGB", (40, 20), "grey") for _ in range(100)]
    pictures[-1].paste((255, 0, 0), (5, 5, 15, 15))
    save_gif(pictures, tmp_path / "moving.gif", milliseconds=40)
    with Image.open(tmp_path / "moving.gif") as image:
        image.seek(image.n_frames - 1)
        assert image.convert("RGB").getpixel((10, 10)) == pytest.approx((255, 0, 0), abs=8)


def test_without_an_encoder_there_is_no_video(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not save_mp4([Image.new("RGB", (4, 4))], tmp_path / "moving.mp4", milliseconds=40)
    assert not (tmp_path / "moving.mp4").exists()
