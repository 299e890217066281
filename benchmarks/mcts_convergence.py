"""The error of residual MCTS against exact values, as simulations grow: a table and a figure.

    python benchmarks/mcts_convergence.py --out mcts_convergence.png

Random MDPs with 4 states, 3 actions and a horizon of 3 steps; γ = 0.9, ε = 0.5. The error is the largest one of
Q_R(s, ·) at the root over all states, relative to residual value iteration with as many steps to go; the mean over
seeds, with the smallest and the largest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from rql_lightning.planning import Planner, Settings, TabularActions, TabularDynamics
from rql_lightning.tabular import residual_value_iteration, with_clock

STATES, ACTIONS, HORIZON, GAMMA = 4, 3, 3, 0.9
WEIGHTS = ((1.0, 1.0), (0.3, 1.0), (2.0, 0.5))
SIMULATIONS = (10, 30, 100, 300, 1000, 3000)


def error(seed: int, stochastic: bool, omega_prime: float, alpha_hat: float, simulations: int) -> float:
    """Return the error of one search, with this seed for the MDP and for the search."""
    random = np.random.default_rng(seed)
    transition = np.eye(STATES)[random.integers(STATES, size=(STATES, ACTIONS))]
    if stochastic:
        transition = random.dirichlet(np.ones(STATES), (STATES, ACTIONS))
    reward, prior = random.normal(size=(STATES, ACTIONS)), random.dirichlet(np.ones(ACTIONS), STATES)
    clocked = with_clock(prior, reward, transition, HORIZON)
    exact, _, _ = residual_value_iteration(*clocked[:3], GAMMA, omega_prime, alpha_hat, clocked[3])
    dynamics = TabularDynamics(reward, transition)
    settings = Settings(simulations, HORIZON, GAMMA, alpha_hat, epsilon=0.5, max_successors=0, seed=seed)
    planner = Planner(dynamics, TabularActions(prior, omega_prime), settings)
    states = dynamics.states(range(STATES))
    planner.decide(states["observation"], states)
    found = [planner.plan(row).q_residual for row in range(STATES)]
    return float(np.abs(np.array(found) - exact[:STATES]).max())


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("mcts_convergence.png"), help="File of the figure.")
    arguments = parser.parse_args()
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    for axes, stochastic in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        name = "stochastic" if stochastic else "deterministic"
        for weights in WEIGHTS:
            errors = []
            for simulations in SIMULATIONS:
                each = [error(seed, stochastic, *weights, simulations) for seed in range(arguments.seeds)]
                errors.append((np.mean(each), min(each), max(each)))
                mean, low, high = errors[-1]
                print(
                    f"{name:<13}  ω′ {weights[0]}, α̂ {weights[1]}  {simulations:>6}  {mean:.2g} [{low:.2g}, {high:.2g}]"
                )
            mean, low, high = np.maximum(np.array(errors).T, 1e-17)
            axes.loglog(SIMULATIONS, mean, marker="o", label=f"ω′ = {weights[0]}, α̂ = {weights[1]}")
            axes.fill_between(SIMULATIONS, low, high, alpha=0.15)
        axes.set(title=f"{name} MDPs", xlabel="simulations", ylim=(1e-17, 10))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("largest error of Q_R at the root")
    figure.axes[0].legend()
    figure.savefig(arguments.out, dpi=120)


if __name__ == "__main__":
    main()
