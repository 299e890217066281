"""One training on one and on two ranks: seconds per training step.

    python benchmarks/ranks.py --config configs/parking/residual_sac.yaml --frames 60_000 120_000

Each rank has one thread. The difference between a run of more frames and one of fewer is free of start-up and of the
final evaluation. Of several rounds, the fastest counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
QUIET = ["--evaluation.every_n_frames=100_000_000", "--evaluation.episodes=2", "--evaluation.figures=false"]
QUIET += ["--video.episodes=0", "--trainer.enable_progress_bar=false"]


def trained(config: str, ranks: int, frames: int, more: list[str]) -> dict[str, float]:
    """Run ``fit``; the run's ``metrics.json``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-m", "rql_lightning.train", "fit", "--config", config, *QUIET, *more]
        command += [f"--data.total_frames={frames}", f"--trainer.default_root_dir={root}"]
        command += [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"] if ranks > 1 else []
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
        if done.returncode != 0:
            sys.exit(f"error: {' '.join(command)}\n{done.stdout}{done.stderr}")
        (path,) = Path(root).rglob("metrics.json")
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/parking/residual_sac.yaml")
    parser.add_argument("--frames", type=int, nargs=2, default=[60_000, 120_000], help="Budgets of the two runs.")
    parser.add_argument("--rounds", type=int, default=2, help="Number of times that all runs are made.")
    given, more = parser.parse_known_args()
    per_update: dict[int, float] = {}
    print("| ranks | frames | updates | seconds | ms per update |\n|---|---|---|---|---|")
    for ranks in (1, 2):
        found = []
        for _ in range(given.rounds):
            few, many = (trained(given.config, ranks, frames, more) for frames in given.frames)
            found.append(tuple(many[name] - few[name] for name in ("train_seconds", "frames", "updates")))
        seconds, frames, updates = min(found)
        per_update[ranks] = seconds / updates
        print(f"| {ranks} | {frames:.0f} | {updates:.0f} | {seconds:.1f} | {1e3 * seconds / updates:.3f} |", flush=True)
    factor = per_update[2] / per_update[1]
    print(f"\nA step of two ranks takes {factor:.2f} times as long as one of a single rank;")
    print(f"the same number of frames takes {factor / 2:.2f} of the time.")


if __name__ == "__main__":
    main()
