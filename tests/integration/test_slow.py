"""What takes minutes: the shipped configs at their full budgets, and an installation from nothing."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rql_lightning import load_policy
from rql_lightning.data import EVALUATION_SEEDS
from rql_lightning.envs import make_vector_env
from rql_lightning.evaluation import run_episodes
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.reproduce.jobs import product, run_job
from rql_lightning.reproduce.plan import Job, Plan

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def config(name: str, task: str = "cartpole") -> str:
    return str(ROOT / f"configs/{task}/{name}.yaml")


def run_one(config: str, out: Path, seed: int, settings: dict[str, str]) -> dict[str, Any]:
    """Run ``fit`` for one seed, as a plan does; return its ``metrics.json``."""
    Plan("one", "", (Job("run", "fit", config, seed, settings),)).write(out)
    run_job(str(out), "run")
    return read_metrics(product(out, "run") / "metrics.json")


@pytest.mark.parametrize("seed", range(10))
def test_no_seed_of_the_customization_collapses(seed, tmp_path):
    metrics = run_one(config("residual_soft_q"), tmp_path, seed, {})
    assert metrics["episodes"] == 200 and metrics["success_rate"] == 1.0
    assert metrics["basic_return_mean"] >= 424.5 and metrics["mean_abs_position_mean"] <= 0.06


@pytest.mark.parametrize("seed", range(3))
def test_prior_from_scratch(seed, tmp_path):
    metrics = run_one(config("rl_prior"), tmp_path, seed, {})
    assert metrics["episodes"] == 200 and metrics["success_rate"] == 1.0
    assert metrics["basic_return_mean"] >= 425.5


@pytest.mark.parametrize("seed", range(3))
def test_full_policy(seed, tmp_path):
    metrics = run_one(config("full"), tmp_path, seed, {})
    assert metrics["episodes"] == 200 and metrics["success_rate"] == 1.0
    assert metrics["basic_return_mean"] >= 424.5 and metrics["mean_abs_position_mean"] <= 0.07


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "basic", "lanes"),
    [("rl_prior", 43.5, (0.0, 0.75)), ("residual_soft_q", 41.5, (0.95, 1.0)), ("full", 41.5, (0.95, 1.0))],
)
def test_highway(name, basic, lanes, seed, tmp_path):
    metrics = run_one(config(name, "highway"), tmp_path, seed, {"video.episodes": "0"})
    assert metrics["success_rate"] >= 0.95 and metrics["basic_return_mean"] >= basic
    assert lanes[0] <= metrics["lane_index_mean"] <= lanes[1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("name", "basic", "negative"), [("rl_prior", 95.0, 999), ("residual_sac", 95.0, 37.5), ("full", 94.5, 32.0)]
)
def test_mountain_car(name, basic, negative, seed, tmp_path):
    metrics = run_one(config(name, "mountain_car"), tmp_path, seed, {"video.episodes": "0"})
    assert metrics["success_rate"] == 1.0 and metrics["basic_return_mean"] >= basic
    assert metrics["negative_actions_mean"] <= negative


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "basic", "clear"), [("rl_prior", -7.6, 0.0), ("residual_sac", -8.0, 0.95), ("full", -8.0, 0.0)]
)
def test_parking(name, basic, clear, seed, tmp_path):
    metrics = run_one(config(name, "parking"), tmp_path, seed, {"video.episodes": "0"})
    assert metrics["success_rate"] >= 0.97 and metrics["basic_return_mean"] >= basic
    assert metrics["no_violation_mean"] >= clear


@pytest.mark.parametrize(("task", "name"), [("Highway", "highway-rl"), ("Parking", "parking-rl")])
def test_the_shipped_prior_scores_the_same_on_highway_env(task, name):
    summaries = {}
    for reference in (False, True):
        env = make_vector_env(f"rql_lightning/{task}-v0", 4, "basic", reference=reference)
        episodes = run_episodes(load_policy(f"pretrained:{name}"), env, list(range(EVALUATION_SEEDS, 1_000_020)))
        summaries[reference] = episodes.summary(env.customization.metric.name)
    assert summaries[True] == pytest.approx(summaries[False], abs=1e-6, nan_ok=True)


def test_omega_prime_trades_the_wish_for_the_prior(tmp_path):
    runs = {}
    for value in ("0.3", "1", "10", "100"):
        both = {"model.omega_prime": value, "model.alpha_hat": value}
        runs[value] = run_one(config("residual_soft_q"), tmp_path / value, 0, both)
    for smaller, larger in pairwise(runs.values()):
        assert smaller["kl_to_prior"] > larger["kl_to_prior"]
        assert smaller["mean_abs_position_mean"] < larger["mean_abs_position_mean"]
    assert runs["100"]["kl_to_prior"] < 1e-4
    alone = run_one(config("residual_soft_q"), tmp_path / "0", 0, {"model.omega_prime": "0"})
    assert alone["kl_to_prior"] > 10 * runs["0.3"]["kl_to_prior"]


def test_an_installed_package_brings_its_policies(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    code = (
        "import rql_lightning, rql_lightning.reporting.paper as paper; from pathlib import Path;"
        "assert Path(rql_lightning.__file__).is_relative_to(Path.cwd());"
        "print(rql_lightning.load_policy('pretrained:cartpole-rl').act([0.0, 0.0, 0.1, 0.0]));"
        "print(paper.paper_row('CartPole', 'RL Customized')['basic_return_mean'])"
    )
    screen = subprocess.run([sys.executable, "-c", code], cwd=unpacked, capture_output=True, text=True, check=True)
    assert screen.stdout.split() == ["1", "425.73"]
