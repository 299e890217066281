"""Success, lane and seconds on Highway against simulations and horizon: docs/images/mcts_settings.png and a table.

    python benchmarks/mcts_settings.py --out results/mcts_settings

Each row is one evaluation of residual MCTS (ε = 0.1) on the compiled Highway, with the seeds from 2,000,000 on, which
neither training nor any other evaluation uses. Each row is a file of the folder, written when it is finished, and not
run again. Seconds are those of a decision of one root among 100, on one core; bars are standard errors.
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
BASE: dict[str, Any] = {"simulations": 150, "horizon": 6, "gamma": 0.8, "omega_prime": 1.0, "alpha_hat": 1.0}
SIMULATIONS = [{"simulations": n} for n in (25, 50, 100, 150, 300, 600)]
HORIZONS = [{"horizon": n} for n in (3, 4, 6, 8, 10, 12)]
OTHERS: list[dict[str, Any]] = [
    {"variant": "authors"},
    {"reuse": "tree"},
    {"omega_prime": 0.7, "alpha_hat": 0.7},
    {"careful": True},
    {"gamma": 0.95},
    {"gamma": 0.95, "horizon": 10},
]


def name_of(changes: dict[str, Any]) -> str:
    """Return the name of a row, which is that of its file."""
    settings = {**BASE, **changes}
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def evaluate(changes: dict[str, Any], episodes: int) -> dict[str, Any]:
    """Return the summary of an evaluation with these changes to the settings."""
    settings = {**BASE, **changes}
    wish = careful_add_on_reward if settings.pop("careful", False) else None
    env = make_vector_env(HIGHWAY, min(ENVS, episodes), "add_on")
    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), add_on_reward=wish, **settings)
    planner.plan_for(env)
    assert planner.planner is not None
    found = run_episodes(planner.planner, env, list(range(FIRST_SEED, FIRST_SEED + episodes)))
    return {**found.summary("lane_index"), **planner.planner.statistics()}


def standard_error(row: dict[str, Any], name: str) -> float:
    """Return the standard error of a mean over episodes; 0 for seconds."""
    rate = row["success_rate"]
    spread = {"success_rate": (rate * (1 - rate)) ** 0.5, "lane_index_mean": row["lane_index_std"]}
    return spread.get(name, 0.0) / row["episodes"] ** 0.5


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw success, lane and seconds against simulations and against the horizon."""
    figure = Figure(figsize=(10, 5), layout="constrained")
    names = {"success_rate": "success rate", "lane_index_mean": "lane index", "decision_seconds_mean": "s per decision"}
    axes = figure.subplots(2, 3)
    for line, (key, changes) in zip(axes, (("simulations", SIMULATIONS), ("horizon", HORIZONS)), strict=True):
        known = [change for change in changes if name_of(change) in rows]
        for panel, (name, label) in zip(line, names.items(), strict=True):
            values = [rows[name_of(change)][name] for change in known]
            errors = [standard_error(rows[name_of(change)], name) for change in known]
            panel.errorbar([change[key] for change in known], values, errors, marker="o", color="#c0392b", capsize=2)
            panel.set(xlabel=key, ylabel=label)
            panel.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results and the figure")
    kinds = {"others": OTHERS, "simulations": SIMULATIONS, "horizons": HORIZONS}
    parser.add_argument("--rows", nargs="*", choices=kinds, default=list(kinds), help="which rows")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.out / f"episodes-{arguments.episodes}"
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for changes in (row for kind in arguments.rows for row in kinds[kind]):
        name, file = name_of(changes), folder / f"{name_of(changes)}.json"
        if not file.exists():
            file.write_text(json.dumps(evaluate(changes, arguments.episodes), indent=1))
        rows[name] = row = json.loads(file.read_text())
        figures = f"{100 * row['success_rate']:.1f} %, {row['basic_return_mean']:.2f}, {row['lane_index_mean']:.3f}"
        print(f"{name:<90} {figures}, {row['decision_seconds_mean']:.4f} s", flush=True)
    draw(rows, arguments.out / "mcts_settings.png")


if __name__ == "__main__":
    main()
