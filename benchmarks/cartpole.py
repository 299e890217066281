"""CartPole against Stable-Baselines3's DQN, each whole process on one core, start-up included.

    make bench

(a) The shipped residual_soft_q.yaml (the whole job, evaluation and pictures included) against a plain DQN of 1e5 steps
    and 49,664 updates, which evaluates nothing.
(b) The same work on both sides: 1e5 steps, 49,664 updates of batch 64 on 256 x 256 networks.

Prints wall-clock, peak memory and the ratio ours / theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = str(ROOT / "configs/cartpole/residual_soft_q.yaml")
# 128 updates after every 256 steps, from step 1000 on: 49,664 updates, as in SAME_WORK.
THEIRS = """
import sys, torch
torch.set_num_threads(1)
import gymnasium as gym
from stable_baselines3 import DQN
model = DQN("MlpPolicy", gym.make("CartPole-v1"), learning_rate=2.3e-3, batch_size=64, buffer_size=100_000,
            learning_starts=1000, gamma=0.99, target_update_interval=10, train_freq=256, gradient_steps=128,
            exploration_fraction=0.16, exploration_final_eps=0.04, policy_kwargs={"net_arch": [256, 256]}, seed=0)
model.learn(100_000)
print("updates", model._n_updates)
"""
SAME_WORK = [
    "--model.hidden_sizes=[256,256]",
    "--model.target_update_interval=128",
    "--data.total_frames=100_000",
    "--data.updates_per_batch=128",
    "--data.batch_size=64",
    "--data.warm_up_frames=1000",
    "--evaluation.every_n_frames=1_000_000",
    "--evaluation.episodes=1",
    "--evaluation.episodes_during_fit=1",
    "--evaluation.figures=false",
]


def timed(name: str, command: list[str]) -> tuple[float, str]:
    """Run a process on one core; seconds from its start to its end, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, preexec_fn=_one_core
    )
    screen, _ = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode != 0:
        sys.exit(f"error: {name} failed:\n{screen}")
    return round(seconds, 2), screen


def _one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def ours(name: str, arguments: list[str]) -> tuple[float, dict[str, float]]:
    """The command line's ``fit``, and the ``metrics.json`` that it wrote."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rql_lightning.train", "fit", "--config", CONFIG]
        seconds, _ = timed(name, [*command, f"--trainer.default_root_dir={folder}", *arguments])
        (path,) = Path(folder).rglob("metrics.json")
        return seconds, json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1, help="Take the fastest of so many runs of each.")
    arguments = parser.parse_args()
    sides: dict[str, float] = {}
    for _ in range(arguments.repeat):
        theirs, screen = timed("Stable-Baselines3", [sys.executable, "-c", THEIRS])
        shipped, metrics = ours("shipped", [])
        same, same_metrics = ours("same work", SAME_WORK)
        print(f"Stable-Baselines3: {screen.split()[-1]} updates")
        print(
            f"shipped config: success {100 * metrics['success_rate']:.0f} %, basic {metrics['basic_return_mean']:.2f}, "
            f"mean abs position {metrics['mean_abs_position_mean']:.4f}, {metrics['frames']} frames, "
            f"{metrics['updates']} updates"
        )
        print(f"same work: {same_metrics['frames']} frames, {same_metrics['updates']} updates")
        for name, seconds in (("theirs", theirs), ("shipped", shipped), ("same", same)):
            sides[name] = min(seconds, sides.get(name, float("inf")))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"(a) shipped config {sides['shipped']} s / DQN {sides['theirs']} s = {sides['shipped'] / sides['theirs']:.3f}"
    )
    print(f"(b) same work      {sides['same']} s / DQN {sides['theirs']} s = {sides['same'] / sides['theirs']:.3f}")
    print(f"peak memory of any of these processes: {peak:.0f} MB")


if __name__ == "__main__":
    main()
