"""Success, lane and seconds on Highway against simulations and horizon: docs/images/mcts_settings.png and a table.

    python benchmarks/mcts_settings.py --out results/mcts_settings

Each row is one evaluation of residual MCTS (γ = 0.8, ε = 0.1) on the compiled Highway, with the seeds from 2,000,000
on, which neither training nor any other evaluation uses. Rows are written to a file as they are finished, and are not
run again. Seconds are those of a decision of one root among 100, on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from rql_lightning.algorithms import ResidualMCTS
from rql_lightning.envs import make_vector_env
from rql_lightning.envs.highway import careful_add_on_reward
from rql_lightning.evaluation import run_episodes
from rql_lightning.priors import CheckpointPrior

HIGHWAY, FIRST_SEED, ENVS = "rql_lightning/Highway-v0", 2_000_000, 100
BASE: dict[str, Any] = {"simulations": 150, "horizon": 6, "omega_prime": 1.0, "alpha_hat": 1.0}
SIMULATIONS = [{"simulations": n} for n in (25, 50, 100, 150, 300, 600)]
HORIZONS = [{"horizon": n} for n in (3, 4, 6, 8, 10, 12)]
OTHERS: list[dict[str, Any]] = [
    {"variant": "authors"},
    {"reuse": "tree"},
    {"omega_prime": 0.7, "alpha_hat": 0.7},
    {"omega_prime": 0.5, "alpha_hat": 0.5},
    {"careful": True},
    {"careful": True, "omega_prime": 0.7, "alpha_hat": 0.7},
]


def evaluate(changes: dict[str, Any], episodes: int) -> dict[str, Any]:
    """Return the summary of an evaluation with these changes to the settings."""
    settings = {**BASE, **changes}
    wish = careful_add_on_reward if settings.pop("careful", False) else None
    env = make_vector_env(HIGHWAY, min(ENVS, episodes), "add_on")
    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), gamma=0.8, add_on_reward=wish, **settings)
    planner.plan_for(env)
    assert planner.planner is not None
    found = run_episodes(planner.planner, env, list(range(FIRST_SEED, FIRST_SEED + episodes)))
    return {**found.summary("lane_index"), **planner.planner.statistics()}


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw success, lane and seconds against simulations and against the horizon."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    names = {"success_rate": "success rate", "lane_index_mean": "lane index", "decision_seconds_mean": "s per decision"}
    axes = figure.subplots(2, 3)
    for line, (key, changes) in zip(axes, (("simulations", SIMULATIONS), ("horizon", HORIZONS)), strict=True):
        known = [change for change in changes if json.dumps(change) in rows]
        for panel, (name, label) in zip(line, names.items(), strict=True):
            values = [rows[json.dumps(change)][name] for change in known]
            panel.plot([change[key] for change in known], values, marker="o", color="#c0392b")
            panel.set(xlabel=key, ylabel=label)
            panel.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and the figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"episodes-{arguments.episodes}.json"
    rows: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for changes in [*OTHERS, *SIMULATIONS, *HORIZONS]:
        key = json.dumps(changes)
        if key not in rows:
            rows[key] = evaluate(changes, arguments.episodes)
            file.write_text(json.dumps(rows, indent=1))
        row = rows[key]
        figures = f"{100 * row['success_rate']:.1f} %, {row['basic_return_mean']:.2f}, {row['lane_index_mean']:.3f}"
        print(f"{key:<60} {figures}, {row['decision_seconds_mean']:.4f} s", flush=True)
    draw(rows, arguments.out / "mcts_settings.png")


if __name__ == "__main__":
    main()
