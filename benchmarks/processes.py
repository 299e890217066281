"""Steps per second of environments in processes (``data.processes``) beside the same ones in a single process.

Both sides step the same actions from the same seeds, one after the other in turns, and must return the same rewards.

    python benchmarks/processes.py --env rql_lightning/HalfCheetah-v0 --num_envs 8 --processes 2
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import closing

import numpy as np

from rql_lightning.envs import make_vector_env


def stepped(env: str, num_envs: int, processes: int, steps: int, reference: bool) -> tuple[float, np.ndarray]:
    """Return environment steps per second, and the rewards ``[steps, num_envs]``."""
    vector = make_vector_env(env, num_envs, "total", reference=reference, processes=processes)
    with closing(vector):
        vector.reset(seed=0)
        vector.action_space.seed(0)
        actions, rewards = [vector.action_space.sample() for _ in range(steps)], []
        vector.step(actions[0])
        start = time.perf_counter()
        for action in actions:
            _, reward, terminated, truncated, _ = vector.step(action)
            rewards.append(reward)
            done = terminated | truncated
            if done.any():
                vector.reset(options={"reset_mask": done})
        return steps * num_envs / (time.perf_counter() - start), np.array(rewards)


def positive(text: str) -> int:
    """Return a count given on the command line.

    Raises:
        argparse.ArgumentTypeError: If it is not an integer of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected an integer >= 1")
    return int(text)


def main() -> None:
    """Measure both sides in turns and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="rql_lightning/HalfCheetah-v0", help="Gymnasium id.")
    parser.add_argument("--num_envs", type=positive, default=8, help="Number of environments on each side.")
    parser.add_argument("--processes", type=positive, default=2, help="Number of environments that step at a time.")
    parser.add_argument("--steps", type=positive, default=200, help="Steps of all environments per turn.")
    parser.add_argument("--turns", type=positive, default=3, help="Turns of each side.")
    parser.add_argument("--reference", action="store_true", help="Reference environments of a compiled task.")
    given = parser.parse_args()
    rates: dict[int, list[float]] = {0: [], given.processes: []}
    expected = None
    for _ in range(given.turns):
        for processes, found in rates.items():
            rate, rewards = stepped(given.env, given.num_envs, processes, given.steps, given.reference)
            expected = rewards if expected is None else expected
            assert np.array_equal(rewards, expected), "other episodes"
            found.append(rate)
    one, many = (float(np.median(found)) for found in rates.values())
    print(f"{given.env}, {given.num_envs} environments, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"one process:  {one:10.1f} steps/s")
    print(f"processes {given.processes}: {many:10.1f} steps/s, ratio {many / one:.2f}")


if __name__ == "__main__":
    main()
