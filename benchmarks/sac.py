"""Soft actor-critic against Stable-Baselines3's, each whole process on one core, start-up included.

    make bench

The same numbers of steps and updates, and the same batch, networks and environments on both sides, of two sizes:
MountainCarContinuous (one update a step, batch 512, two layers of 64) and Parking (one update for four steps, batch
256, three layers of 256). Ours collects 32 or 64 steps at a time and then makes their updates, on MountainCar in 16
environments at once; Stable-Baselines3 takes one step of one environment, on Parking of four, between its updates.
Parking comes twice: Stable-Baselines3 on our compiled environment, which compares the algorithms alone, and on
highway-env itself, which is what it runs on without this project. Nothing is evaluated. All sides take turns, as many
rounds as asked for; prints the wall-clock of each side's fastest round and the ratio ours / theirs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ["--evaluation.every_n_frames=10_000_000", "--evaluation.episodes=1", "--evaluation.episodes_during_fit=1"]
OURS += ["--evaluation.figures=false", "--evaluation.max_envs=1", "--checkpoint.every_n_frames=10_000_000"]
OURS += ["--trainer.enable_progress_bar=false", "--model.learning_rate_schedule=constant", "--video.episodes=0"]
MOUNTAIN_CAR = ["--model.hidden_sizes=[64,64]", "--model.learning_rate=3e-4", "--model.noise_correlation=0"]
MOUNTAIN_CAR += ["--data.num_envs=16", "--data.frames_per_batch=32", "--data.updates_per_batch=32"]
MOUNTAIN_CAR += ["--data.batch_size=512", "--data.warm_up_frames=32", "--data.replay_size=50_000"]
PARKING = ["--model.hidden_sizes=[256,256,256]", "--model.goal_scales=null", "--model.tau=0.005"]
PARKING += ["--data.num_envs=4", "--data.frames_per_batch=64", "--data.updates_per_batch=16"]
PARKING += ["--data.batch_size=256", "--data.warm_up_frames=64", "--data.replay_size=1_000_000"]
THEIRS = """
import torch
torch.set_num_threads(1)
import gymnasium as gym
from stable_baselines3 import SAC
{environment}
model = SAC("MlpPolicy", env, learning_rate={learning_rate}, batch_size={batch}, buffer_size={buffer}, gamma={gamma},
            tau={tau}, ent_coef={alpha}, train_freq={train_freq}, gradient_steps={gradient_steps},
            learning_starts={learning_starts}, policy_kwargs={{"net_arch": {layers}}}, seed=0)
model.learn({frames})
print("updates", model._n_updates)
"""
COMPILED = """
import rql_lightning
from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv
env = StableBaselinesVecEnv(gym.make_vec("rql_lightning/Parking-v0", num_envs=4, reward="basic"))
"""
REFERENCE = """
import rql_lightning
from stable_baselines3.common.vec_env import DummyVecEnv
env = DummyVecEnv([lambda: gym.make("rql_lightning/Parking-v0", reward="basic")] * 4)
"""


def timed(command: list[str]) -> tuple[float, str]:
    """Run a process on one core; seconds from its start to its end, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    core = {min(os.sched_getaffinity(0))}
    started = time.monotonic()
    process = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )
    if process.returncode != 0:
        sys.exit(f"error: {' '.join(command)}\n{process.stdout}{process.stderr}")
    return time.monotonic() - started, process.stdout


def ours(config: str, arguments: list[str], frames: int) -> tuple[float, int]:
    """Seconds of the command line's ``fit``, and its updates."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rql_lightning.train", "fit", "--config", str(ROOT / "configs" / config)]
        command += [*OURS, *arguments, f"--data.total_frames={frames}", f"--trainer.default_root_dir={folder}"]
        seconds, _ = timed(command)
        (path,) = Path(folder).rglob("metrics.json")
        updates = int(path.read_text(encoding="utf-8").partition('"updates": ')[2].partition(",")[0])
    return seconds, updates


def theirs(environment: str, **settings: object) -> tuple[float, int]:
    """Seconds of Stable-Baselines3, and its updates."""
    seconds, screen = timed([sys.executable, "-c", THEIRS.format(environment=environment, **settings)])
    return seconds, int(screen.split()[-1])


def report(name: str, mine: tuple[float, int], other: tuple[float, int]) -> None:
    """One line a comparison."""
    sides = " / ".join(f"{seconds:.1f} s ({updates} updates)" for seconds, updates in (mine, other))
    print(f"{name}: {sides} = {mine[0] / other[0]:.3f}", flush=True)


def fastest(rounds: int, sides: dict[str, Callable[[], tuple[float, int]]]) -> dict[str, tuple[float, int]]:
    """Each side's fastest round: what else the machine does slows some down, and nothing speeds one up."""
    results = [{name: side() for name, side in sides.items()} for _ in range(rounds)]
    return {name: min(result[name] for result in results) for name in sides}


def main() -> None:
    """Run the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mountain_car_frames", type=int, default=20_000)
    parser.add_argument("--parking_frames", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    frames = arguments.mountain_car_frames
    settings = {"learning_rate": 3e-4, "batch": 512, "buffer": 50_000, "gamma": 0.997, "tau": 0.01, "alpha": 0.1}
    settings |= {"train_freq": 32, "gradient_steps": 32, "learning_starts": 0, "layers": [64, 64], "frames": frames}
    environment = 'env = gym.make("MountainCarContinuous-v0")'
    sides = {
        "ours": partial(ours, "mountain_car/rl_prior.yaml", MOUNTAIN_CAR, frames),
        "theirs": partial(theirs, environment, **settings),
    }
    seconds = fastest(arguments.rounds, sides)
    report("MountainCarContinuous", seconds["ours"], seconds["theirs"])
    frames = arguments.parking_frames
    settings = {"learning_rate": 1e-3, "batch": 256, "buffer": 1_000_000, "gamma": 0.95, "tau": 0.005, "alpha": 0.01}
    settings |= {"train_freq": 1, "gradient_steps": 1, "learning_starts": 64, "layers": [256] * 3, "frames": frames}
    sides = {
        "ours": partial(ours, "parking/rl_prior.yaml", PARKING, frames),
        "compiled": partial(theirs, COMPILED, **settings),
        "reference": partial(theirs, REFERENCE, **settings),
    }
    seconds = fastest(arguments.rounds, sides)
    report("Parking, both on the compiled environment", seconds["ours"], seconds["compiled"])
    report("Parking, Stable-Baselines3 on highway-env", seconds["ours"], seconds["reference"])


if __name__ == "__main__":
    main()
