"""Behaviour cloning on CartPole against the library `imitation`, which builds on Stable-Baselines3.

Same demonstrations, one process after the other, start-up included: wall-clock, and mean log-likelihood of held-out
actions. The current release of `imitation` (1.0.1) requires Gymnasium 0.29 and Stable-Baselines3 2.2, so it needs an
environment of its own: `python -m venv peer && peer/bin/pip install imitation==1.0.1`.

    python benchmarks/imitation.py --peer peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rql_lightning.data.demonstrations import Demonstrations, load_demonstrations
from rql_lightning.loading import load_policy
from rql_lightning.reporting.console import print_line

EPISODES = 100
EPOCHS = 10

PEER = """
import json, sys
import gymnasium as gym, numpy as np, torch
from imitation.algorithms import bc
from imitation.data.types import Transitions
torch.set_num_threads(1)
data, epochs = np.load(sys.argv[1]), int(sys.argv[2])
env = gym.make("CartPole-v1")
count = len(data["action"])
transitions = Transitions(
    obs=data["observation"], acts=data["action"], infos=np.array([{}] * count), next_obs=data["observation"],
    dones=np.zeros(count, dtype=bool),
)
random = np.random.default_rng(0)
trainer = bc.BC(
    observation_space=env.observation_space, action_space=env.action_space, demonstrations=transitions, rng=random
)
trainer.train(n_epochs=epochs, progress_bar=False, log_interval=10**9)
with torch.no_grad():
    _, log_prob, _ = trainer.policy.evaluate_actions(
        torch.as_tensor(data["held_out_observation"]), torch.as_tensor(data["held_out_action"])
    )
print(json.dumps({"log_prob": float(log_prob.mean())}))
"""


def demonstrations(folder: Path, episodes: int, seed: int) -> Path:
    """Write stochastic episodes of the shipped prior; returns their folder."""
    words = ["predict", "--config", "configs/cartpole/demonstrations.yaml", f"--episodes={episodes}", f"--seed={seed}"]
    subprocess.run(
        [sys.executable, "-m", "rql_lightning.train", *words, f"--trainer.default_root_dir={folder}"],
        check=True,
        capture_output=True,
    )
    (path,) = folder.rglob("trajectories")
    return path


def ours(folder: Path, root: Path, held_out: Demonstrations) -> tuple[float, float]:
    """Return seconds and held-out log-likelihood of the shipped config, without evaluations of its returns."""
    words = ["fit", "--config", "configs/cartpole/behavior_cloning.yaml", f"--data.demonstrations={folder}"]
    words += ["--evaluation.every_n_frames=1_000_000_000", "--evaluation.episodes=1", "--evaluation.figures=false"]
    words += ["--evaluation.episodes_during_fit=1", f"--trainer.default_root_dir={root}"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "rql_lightning.train", *words], check=True, capture_output=True)
    seconds = time.monotonic() - started
    (path,) = root.rglob("last.ckpt")
    transitions = held_out.transitions
    log_prob = load_policy(path).log_prob_of(transitions["observation"], transitions["action"])
    return seconds, log_prob.mean().item()


def theirs(peer: str, folder: Path, training: Demonstrations, held_out: Demonstrations) -> tuple[float, float]:
    """Return seconds and held-out log-likelihood of the peer's behaviour cloning with its default settings."""
    columns = {"observation": training.transitions["observation"], "action": training.transitions["action"]}
    columns |= {f"held_out_{name}": held_out.transitions[name] for name in ("observation", "action")}
    np.savez(folder / "demonstrations.npz", **{name: value.numpy() for name, value in columns.items()})
    started = time.monotonic()
    words = [peer, "-c", PEER, str(folder / "demonstrations.npz"), str(EPOCHS)]
    result = subprocess.run(words, check=True, capture_output=True, text=True)
    return time.monotonic() - started, json.loads(result.stdout.splitlines()[-1])["log_prob"]


def main() -> None:
    """Run both sides and print seconds, log-likelihoods and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="Python interpreter with the library imitation.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = demonstrations(root / "demonstrations", EPISODES, 10_000_000)
        training, _ = load_demonstrations(folder).split(0.1, seed=0)  # ours stops early by the others
        held_out = load_demonstrations(demonstrations(root / "held_out", 20, 20_000_000))
        expert = load_policy("pretrained:cartpole-rl")
        rows = held_out.transitions
        with torch.no_grad():
            best = expert.log_prob_of(rows["observation"], rows["action"]).mean().item()
        own_seconds, own = ours(folder, root / "ours", held_out)
        peer_seconds, peer = theirs(arguments.peer, root, training, held_out)
    print_line(
        f"{training.episodes} episodes to learn from, {held_out.episodes} held out; the expert itself: {best:.4f}"
    )
    print_line(f"rql_lightning: {own_seconds:.1f} s, held-out log-likelihood {own:.4f}")
    print_line(f"imitation, {EPOCHS} epochs: {peer_seconds:.1f} s, held-out log-likelihood {peer:.4f}")
    print_line(f"time: {own_seconds / peer_seconds:.2f} of the peer's")


if __name__ == "__main__":
    main()
