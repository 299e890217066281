"""MountainCarContinuous solved on a grid: what prior, customised and full policy are worth where nothing is learnt.

    python benchmarks/mountain_car_exact.py --gamma 0.998 --alpha 0.1

Soft value iteration on positions x velocities x actions with bilinear interpolation; policies act by tanh of their mean
pre-tanh action, from 100 random starts. The discount and temperature of configs/mountain_car were chosen with it.
"""

from __future__ import annotations

import argparse

import numpy as np

POSITIONS, VELOCITIES = np.linspace(-1.2, 0.6, 181), np.linspace(-0.07, 0.07, 141)
ACTIONS = np.linspace(-1.0, 1.0, 41)
EPISODES, STEPS, ITERATIONS, TOLERANCE = 100, 999, 700, 1e-4


def step(position: np.ndarray, velocity: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gymnasium's dynamics: positions, velocities and whether the flag is reached."""
    velocity = np.clip(velocity + 0.0015 * action - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    position = np.clip(position + velocity, -1.2, 0.6)
    velocity = np.where((position <= -1.2) & (velocity < 0), 0.0, velocity)
    return position, velocity, (position >= 0.45) & (velocity >= 0)


class Interpolation:
    """Values on the grid ``[X, V]`` at any positions and velocities."""

    def __init__(self, position: np.ndarray, velocity: np.ndarray) -> None:
        x = (position + 1.2) / 1.8 * (len(POSITIONS) - 1)
        v = (velocity + 0.07) / 0.14 * (len(VELOCITIES) - 1)
        column, row = (np.clip(a.astype(int), 0, n - 2) for a, n in ((x, len(POSITIONS)), (v, len(VELOCITIES))))
        self.index = column * len(VELOCITIES) + row
        self.right, self.up = (x - column).astype(np.float32), (v - row).astype(np.float32)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Bilinear; of the positions' and velocities' common shape."""
        flat, width = values.ravel(), len(VELOCITIES)
        below = (1 - self.up) * flat[self.index] + self.up * flat[self.index + 1]
        above = (1 - self.up) * flat[self.index + width] + self.up * flat[self.index + width + 1]
        return (1 - self.right) * below + self.right * above


def solve(reward: np.ndarray, log_weight: np.ndarray | float, gamma: float, alpha: float) -> np.ndarray:
    """The soft-optimal policy's density over actions, ``[X, V, A]``, of a reward with a weighted prior."""
    grid = np.meshgrid(POSITIONS, VELOCITIES, ACTIONS, indexing="ij")
    position, velocity, reached = step(*grid)
    interpolate, v = Interpolation(position, velocity), np.zeros((len(POSITIONS), len(VELOCITIES)), np.float32)
    width = ACTIONS[1] - ACTIONS[0]
    for _ in range(ITERATIONS):
        exponent = (reward + gamma * np.where(reached, 0.0, interpolate(v)) + log_weight) / alpha
        peak = exponent.max(-1, keepdims=True)
        weights = np.exp(exponent - peak)
        previous, v = v, alpha * (peak[..., 0] + np.log(weights.sum(-1) * width))
        if np.abs(v - previous).max() < TOLERANCE:
            break
    return weights / (weights.sum(-1, keepdims=True) * width)


def play(density: np.ndarray) -> str:
    """Success, basic return and negative actions of the deterministic policy."""
    width = ACTIONS[1] - ACTIONS[0]
    mean = np.tanh(density @ np.arctanh(np.clip(ACTIONS, -0.99, 0.99)) * width)
    position, velocity = np.random.default_rng(0).uniform(-0.6, -0.4, EPISODES), np.zeros(EPISODES)
    basic, negative, running = np.zeros(EPISODES), np.zeros(EPISODES), np.ones(EPISODES, bool)
    for _ in range(STEPS):
        action = Interpolation(position, velocity)(mean)
        position, velocity, reached = step(position, velocity, action)
        basic += running * (100.0 * reached - 0.1 * action**2)
        negative += running & (action < 0)
        running &= ~reached
    return f"success {(~running).mean():.0%}, basic {basic.mean():.2f}, negative actions {negative.mean():.1f}"


def main() -> None:
    """Solve for the three policies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gamma", type=float, default=0.998)
    parser.add_argument("--alpha", type=float, default=0.1, help="Of all three; omega_prime = alpha_hat = alpha.")
    arguments = parser.parse_args()
    gamma, alpha = arguments.gamma, arguments.alpha
    grid = np.meshgrid(POSITIONS, VELOCITIES, ACTIONS, indexing="ij")
    basic, add_on = 100.0 * step(*grid)[2] - 0.1 * grid[2] ** 2, -0.1 * (grid[2] < 0)
    prior = solve(basic, 0.0, gamma, alpha)
    print("prior:     ", play(prior), flush=True)
    print("customised:", play(solve(add_on, alpha * np.log(np.maximum(prior, 1e-30)), gamma, alpha)), flush=True)
    print("full:      ", play(solve(basic + add_on, 0.0, gamma, alpha)))


if __name__ == "__main__":
    main()
