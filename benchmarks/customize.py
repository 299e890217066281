"""``rql_lightning.customize`` with untouched defaults on eight tasks: returns before and after.

    python benchmarks/customize.py --out customize --tasks cartpole pendulum --seeds 0 1 2

Trains a prior with Stable-Baselines3 for each of the classic tasks and each seed, unless <out>/priors holds it; Highway
and Parking take the shipped priors. Each customization adds one line to <out>/results.csv; a line that is there is not
made again. ``better``: the add-on return of the policy is higher than the prior's, by more than the 95 % interval of
their difference over the episodes. ``kept``: the policy's basic return as a fraction of the prior's gain over uniformly
random actions, 1 where the prior's is reached.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wishes

import rql_lightning
from rql_lightning.customizing.given import read_prior
from rql_lightning.customizing.task import WishedTask, read_task
from rql_lightning.data import EVALUATION_SEEDS
from rql_lightning.evaluation import run_episodes
from rql_lightning.policies.sampling import SampledPolicy


@dataclass(frozen=True)
class Experiment:
    """One task.

    Attributes:
        env: Gymnasium id.
        wish: Add-on reward; ``None`` for the task's own.
        algorithm: Class of Stable-Baselines3, or the name of a shipped prior.
        frames: Frames of the prior's training.
        num_envs: Environments of the prior's training.
        settings: Arguments of the class.
        options: Arguments of ``customize`` that the prior requires.
    """

    env: str
    wish: Callable[..., float] | None
    algorithm: str
    frames: int = 0
    num_envs: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


AUTO = {"omega_prime": "auto"}
PPO = {"n_steps": 256, "batch_size": 256, "gae_lambda": 0.95, "gamma": 0.99, "n_epochs": 10}
MOUNTAIN_CAR = {"learning_rate": 1e-3, "gamma": 0.998, "tau": 0.01, "ent_coef": 0.1, "use_sde": True, "batch_size": 256}
MOUNTAIN_CAR |= {"train_freq": 32, "gradient_steps": 32, "policy_kwargs": {"net_arch": [64, 64], "log_std_init": -2}}
DQN = {"learning_rate": 4e-3, "gamma": 0.98, "batch_size": 128, "buffer_size": 10_000, "learning_starts": 1_000}
DQN |= {"train_freq": 16, "gradient_steps": 8, "target_update_interval": 600, "policy_kwargs": {"net_arch": [256, 256]}}
DQN |= {"exploration_fraction": 0.2, "exploration_final_eps": 0.07}
EXPERIMENTS = {
    "cartpole": Experiment("CartPole-v1", wishes.centre, "PPO", 60_000, 8, PPO, AUTO),
    "acrobot": Experiment("Acrobot-v1", wishes.coast, "PPO", 200_000, 8, PPO, AUTO),
    "lunar_lander": Experiment("LunarLander-v3", wishes.no_side_engines, "PPO", 1_000_000, 16, PPO, AUTO),
    "pendulum": Experiment(
        "Pendulum-v1", wishes.little_torque, "SAC", 15_000, 1, {"learning_rate": 1e-3, "ent_coef": "auto"}
    ),
    "mountain_car": Experiment("MountainCarContinuous-v0", wishes.no_push_to_the_left, "SAC", 50_000, 1, MOUNTAIN_CAR),
    "mountain_car_discrete": Experiment(
        "MountainCar-v0", wishes.no_acceleration_to_the_left, "DQN", 120_000, 1, DQN, {"temperature": 0.1}
    ),
    "highway": Experiment("rql_lightning/Highway-v0", None, "pretrained:highway-rl"),
    "parking": Experiment("rql_lightning/Parking-v0", None, "pretrained:parking-rl", options=AUTO),
}


def prior_of(experiment: Experiment, path: Path, seed: int) -> str:
    """Return the path of the prior, which is trained if there is none."""
    if experiment.algorithm.startswith("pretrained:"):
        return experiment.algorithm
    if not path.is_file():
        import stable_baselines3
        from stable_baselines3.common.env_util import make_vec_env

        env = make_vec_env(experiment.env, experiment.num_envs, seed=seed)
        algorithm = getattr(stable_baselines3, experiment.algorithm)
        model = algorithm("MlpPolicy", env, device="cpu", seed=seed, **experiment.settings)
        model.learn(experiment.frames)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
    return str(path)


def random_return(prior: str, task: WishedTask, episodes: int, options: dict[str, Any]) -> float:
    """Return the mean basic return of uniformly random actions."""
    known = read_prior(prior, temperature=options.get("temperature")).prior
    known.attach(task.observation_space, task.action_space)
    env = task.make_env(min(episodes, 50))
    seeds = list(range(EVALUATION_SEEDS, EVALUATION_SEEDS + episodes))
    try:
        return float(
            run_episodes(SampledPolicy(known, epsilon=1.0, seed=0), env, seeds).summary(None)["basic_return_mean"]
        )
    finally:
        env.close()


def compared(metrics: dict[str, Any], at_random: float) -> dict[str, Any]:
    """Return the numbers of one line of the table."""
    before, after = metrics["prior"], metrics["policy"]
    names = [f"{kind}_return_{number}" for kind in ("basic", "add_on") for number in ("mean", "std")]
    columns = {f"{who}_{name}": each[name] for who, each in (("prior", before), ("policy", after)) for name in names}
    error = math.hypot(before["add_on_return_std"], after["add_on_return_std"]) / math.sqrt(after["episodes"])
    gained = after["add_on_return_mean"] - before["add_on_return_mean"]
    gain = before["basic_return_mean"] - at_random
    columns |= {"random_basic_return": at_random, "kl_to_prior": after["kl_to_prior"], "frames": after["frames"]}
    columns["better"] = gained > 1.96 * error
    columns["kept"] = (after["basic_return_mean"] - at_random) / gain if gain else math.nan
    return columns


def line_of(name: str, seed: int, out: Path, limits: dict[str, Any]) -> dict[str, Any]:
    """Run one customization."""
    experiment = EXPERIMENTS[name]
    prior = prior_of(experiment, out / "priors" / f"{name}-{seed}.zip", seed)
    start = time.perf_counter()
    result = rql_lightning.customize(
        prior, experiment.env, experiment.wish, seed=seed, folder=out / "runs", **experiment.options, **limits
    )
    seconds = round(time.perf_counter() - start, 1)
    task = read_task(experiment.env, experiment.wish)
    at_random = random_return(prior, task, limits["episodes"], experiment.options)
    numbers = compared(dict(result.metrics), at_random)
    about = {"task": name, "seed": seed, "omega_prime": result.policy.temperature, "seconds": seconds}
    shown = {
        key: round(value, 4) if isinstance(value, float | np.floating) else value for key, value in numbers.items()
    }
    return {**about, **shown, "folder": str(result.folder)}


def add(line: dict[str, Any], path: Path) -> None:
    """Add a line to the table."""
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(line))
        if new:
            writer.writeheader()
        writer.writerow(line)


def done(path: Path) -> set[tuple[str, int]]:
    """Return the tasks and seeds that the table has."""
    if not path.is_file():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["task"], int(row["seed"])) for row in csv.DictReader(file)}


def main() -> None:
    """Run what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("customize"), help="Folder of priors, runs and the table.")
    parser.add_argument("--tasks", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), help="Tasks to run.")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="Seeds of prior and customization.")
    parser.add_argument("--episodes", type=int, default=200, help="Evaluation episodes.")
    parser.add_argument("--frames", type=int, help="Budget in place of the default, for a trial.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / "results.csv"
    limits = {"episodes": given.episodes, "progress": False, "video": False, "total_frames": given.frames}
    for name in given.tasks:
        for seed in given.seeds:
            if (name, seed) not in done(table):
                line = line_of(name, seed, given.out, limits)
                add(line, table)
                print(
                    {key: line[key] for key in ("task", "seed", "better", "kept", "kl_to_prior", "seconds")}, flush=True
                )


if __name__ == "__main__":
    main()
