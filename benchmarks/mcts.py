"""Seconds per decision of residual MCTS on Highway, on one core, and the same search over copies of highway-env.

    python benchmarks/mcts.py

A decision is that of the shipped config, 150 simulations of horizon 6 and γ = 0.8, unless the row says otherwise.
"compiled" is the whole search in compiled code; "arrays" is the search over ``Dynamics.step``, with the compiled
simulator as the model; "copies" is the same search over deep copies of highway-env. Episodes go on with the actions
decided, and roots that have already ended are reset. The first two decisions of each row are not counted, as
they may compile.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import torch

from rql_lightning.algorithms import ResidualMCTS
from rql_lightning.envs import make_vector_env
from rql_lightning.planning import CopyDynamics
from rql_lightning.priors import CheckpointPrior

HIGHWAY = "rql_lightning/Highway-v0"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is measured: the form of the search, and its settings."""

    form: str = "compiled"
    prior: str = "rl"
    roots: int = 1
    simulations: int = 150
    horizon: int = 6
    reuse: str = "states"


def rows() -> list[Row]:
    """All rows of the table."""
    several = [Row(simulations=n) for n in (25, 50, 300, 600)] + [Row(horizon=h) for h in (3, 9, 12)]
    roots = [Row(roots=n) for n in (10, 100)] + [Row(prior="il", roots=100)]
    others = [Row(reuse="nothing"), Row(reuse="tree"), Row(prior="il")]
    return [Row(), *others, *several, *roots, Row("arrays"), Row("arrays", roots=100), Row("copies")]


def measure(row: Row, decisions: int) -> np.ndarray:
    """Return the seconds of each decision, those of several roots divided by their number."""
    prior, dynamics = CheckpointPrior(f"pretrained:highway-{row.prior}"), None
    env: Any = make_vector_env(HIGHWAY, row.roots, "add_on")
    seeds: Any = list(range(row.roots))
    if row.form == "copies":
        env, seeds, dynamics, decisions = gym.make(HIGHWAY), 0, CopyDynamics(), 1
    settings = {"simulations": row.simulations, "horizon": row.horizon, "gamma": 0.8, "reuse": row.reuse}
    planner = ResidualMCTS(prior, dynamics=dynamics, **settings)  # type: ignore[arg-type]
    observation, _ = env.reset(seed=seeds)
    seconds = []
    for _ in range(decisions + 2):
        started = time.perf_counter()
        action = planner.act(observation, env)
        seconds.append((time.perf_counter() - started) / row.roots)
        observation, _, terminated, truncated, _ = env.step(action)
        done = np.atleast_1d(terminated | truncated)
        if done.any():
            observation, _ = env.reset(options={"reset_mask": done} if row.form != "copies" else None)
    return np.array(seconds[2:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=120, help="decisions of one root per row; others make fewer")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("search    prior  roots  simulations  horizon  reuse     seconds: mean     p99   simulations/s")
    means: dict[Row, float] = {}
    for row in rows():
        count = max(5, arguments.decisions // max(1, row.roots // 5))
        arrays = mock.patch("rql_lightning.planning.planner.compiled_search", lambda *_: None)
        with arrays if row.form == "arrays" else contextlib.nullcontext():
            seconds = measure(row, count)
        means[row] = seconds.mean()
        settings = (
            f"{row.form:<9} {row.prior:<5}  {row.roots:>5}  {row.simulations:>11}  {row.horizon:>7}  {row.reuse:<8}"
        )
        rate = row.simulations / seconds.mean()
        print(f"{settings}  {seconds.mean():>14.4f}  {np.quantile(seconds, 0.99):>6.4f}  {rate:>13,.0f}", flush=True)
    print(f"copies / compiled, one root: {means[Row('copies')] / means[Row()]:,.0f}")
    print(f"arrays / compiled, one root: {means[Row('arrays')] / means[Row()]:,.1f}")


if __name__ == "__main__":
    main()
