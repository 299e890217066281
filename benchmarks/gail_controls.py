"""Does GAIL imitate, or does the sign of its reward do the work? Controls on CartPole.

GAIL from demonstrations of the expert, of a bad policy (uniformly random actions) and of nothing (random numbers), for
each kind of reward, with and without absorbing states. Only the first should become an expert.

    python benchmarks/gail_controls.py --frames 100000 --seeds 0
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from tensordict import TensorDict

from rql_lightning.reporting.console import console, print_line
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.train import main as train

CONFIG = "configs/cartpole/gail.yaml"
EPISODES = 100


def demonstrations(folder: Path) -> dict[str, Path]:
    """Write demonstrations of the expert, of uniformly random actions, and of random numbers; returns their folders."""
    return {
        "expert": predicted(folder / "expert", epsilon=0.0),
        "random actions": predicted(folder / "random", epsilon=1.0),
        "random numbers": noise(folder / "noise"),
    }


def predicted(root: Path, epsilon: float) -> Path:
    """Write episodes of the shipped prior with a share of random actions."""
    words = ["predict", "--config", "configs/cartpole/demonstrations.yaml", f"--episodes={EPISODES}"]
    quietly([*words, f"--epsilon={epsilon}", f"--trainer.default_root_dir={root}"])
    (path,) = root.rglob("trajectories")
    return path


def noise(folder: Path, steps: int = 200) -> Path:
    """Write episodes of normal random observations and uniformly random actions."""
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn(EPISODES, steps + 1, 4, generator=generator)
    last = torch.zeros(EPISODES, steps, dtype=torch.bool)
    last[:, -1] = True
    successor = {"observation": observation[:, 1:], "terminated": torch.zeros_like(last), "truncated": last}
    episode = torch.arange(EPISODES).unsqueeze(1).expand(-1, steps)
    shape = [EPISODES, steps]
    columns = {
        "observation": observation[:, :-1],
        "action": torch.randint(2, (EPISODES, steps), generator=generator),
        "next": TensorDict(successor, shape),
        "collector": TensorDict({"traj_ids": episode}, shape),
    }
    TensorDict(columns, shape).reshape(-1).contiguous().memmap(str(folder))
    return folder


def quietly(words: list[str]) -> None:
    """Run a command of the project without its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        train([*words, "--trainer.enable_progress_bar=false"])


def imitate(demonstrations: Path, root: Path, kind: str, absorbing: bool, seed: int, frames: int) -> dict[str, Any]:
    """Train the shipped config on other demonstrations; returns its final metrics."""
    words = ["fit", "--config", CONFIG, f"--seed_everything={seed}", f"--trainer.default_root_dir={root}"]
    words += [f"--data.demonstrations={demonstrations}", f"--data.episodes={EPISODES}", f"--data.total_frames={frames}"]
    words += [f"--model.reward_kind={kind}", f"--model.absorbing_states={absorbing}", "--trainer.logger=false"]
    quietly([*words, "--evaluation.every_n_frames=100_000_000", "--evaluation.figures=false"])
    (path,) = root.rglob("metrics.json")
    return read_metrics(path)


def main() -> None:
    """Run all combinations one after the other, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    table = Table(title=f"GAIL on CartPole, {arguments.frames:,} frames, seeds {arguments.seeds}", title_justify="left")
    for name in ("reward", "absorbing states", "demonstrations of", "seed", "success", "basic return", "steps"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        folders = demonstrations(Path(temporary))
        for kind, absorbing in product(("logit", "gail", "negative"), (False, True)):
            for (name, folder), seed in product(folders.items(), arguments.seeds):
                root = Path(temporary, kind, str(absorbing), name, str(seed))
                found = imitate(folder, root, kind, absorbing, seed, arguments.frames)
                row = [f"{100 * found['success_rate']:.0f} %", f"{found['basic_return_mean']:.1f}"]
                row += [f"{found['episode_length_mean']:.0f}"]
                table.add_row(kind, "yes" if absorbing else "no", name, str(seed), *row)
                print_line(f"{kind}, absorbing {absorbing}, {name}, seed {seed}: {', '.join(row)}")
    console(width=110).print(table)


if __name__ == "__main__":
    main()
