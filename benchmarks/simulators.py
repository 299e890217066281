"""The compiled Highway and Parking against highway-env, policy steps a second, in one run.

    python benchmarks/simulators.py

Both sides play the same tasks with the same random actions, resets included: highway-env alone and in two processes,
ours with N environments and one or two threads (several rounds in turn; the median of each). "Task" is what
``gym.make_vec`` returns, with both rewards, infos and metric; "simulator" is the environment beneath, which has the
reward of highway-env. Ends with a profile of what is left of a Highway step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym

import rql_lightning  # noqa: F401 (registers the tasks)
from rql_lightning.envs.simulation import HighwayVectorEnv, ParkingVectorEnv

TASKS = {"Highway": "rql_lightning/Highway-v0", "Parking": "rql_lightning/Parking-v0"}
NAMES = {"Highway": "highway_env:highway-v0", "Parking": "highway_env:parking-v0"}
SIMULATORS = {"Highway": HighwayVectorEnv, "Parking": ParkingVectorEnv}


def config_of(task: str) -> dict[str, Any]:
    """The paper's configuration in highway-env's keys."""
    env = gym.make(TASKS[task])
    config = dict(env.unwrapped.config)
    env.close()
    return config


def rate(env: gym.vector.VectorEnv, seconds: float) -> float:
    """Policy steps a second over all environments, those that end reset in time."""
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    env.reset(seed=0)
    env.step(actions[0])
    steps, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        _, _, terminated, truncated, _ = env.step(actions[steps % 64])
        steps += 1
        if (done := terminated | truncated).any():
            env.reset(options={"reset_mask": done})
    return steps * env.num_envs / passed


def sides(task: str, seconds: float) -> dict[str, tuple[int, Callable[[], float]]]:
    """Name of each side → cores that it uses, and what measures it."""
    config = config_of(task)
    plain = partial(gym.make, NAMES[task], config=config, disable_env_checker=True)
    disabled = gym.vector.AutoresetMode.DISABLED
    measured: dict[str, tuple[int, Callable[[], float]]] = {}

    def add(name: str, cores: int, make: Callable[[], gym.vector.VectorEnv], length: float = seconds) -> None:
        def run() -> float:
            pin(cores)
            env = make()
            try:
                return rate(env, length)
            finally:
                env.close()

        measured[name] = (cores, run)

    add("highway-env", 1, lambda: gym.vector.SyncVectorEnv([plain], autoreset_mode=disabled), 2 * seconds)
    two = [plain, plain]
    add("highway-env, 2 processes", 2, lambda: gym.vector.AsyncVectorEnv(two, autoreset_mode=disabled), 2 * seconds)
    for threads in (1, 2):
        for number in (1, 16, 64, 256):
            name = f"N = {number}, {threads} thread{'s' * (threads - 1)}"
            add(f"simulator, {name}", threads, partial(SIMULATORS[task], number, config, threads=threads))
            make_task = partial(gym.make_vec, TASKS[task], num_envs=number, threads=threads)
            add(f"task, {name}", threads, make_task)
    return measured


def pin(cores: int) -> None:
    """Let this process use so many cores of those that it began with."""
    os.sched_setaffinity(0, set(sorted(CORES)[:cores]))


CORES = os.sched_getaffinity(0)


def compare(task: str, seconds: float, rounds: int) -> None:
    """Print steps a second of every side, and the ratio to highway-env on as many cores."""
    measured = sides(task, seconds)
    results: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, (cores, run) in measured.items():
            if cores <= len(CORES):
                results[name].append(run())
    rates = {name: statistics.median(values) for name, values in results.items() if values}
    base = {1: rates["highway-env"], 2: rates.get("highway-env, 2 processes", float("nan"))}
    print(f"\n{task}: {'policy steps a second':>39} {'µs a step':>10} {'ratio':>7}")
    for name, value in rates.items():
        cores = measured[name][0]
        print(f"  {name:<32}{value:>14,.0f} {1e6 / value:>10.2f} {value / base[cores]:>6.0f}x")
    print("  (ratio: to highway-env on as many cores)")


def profile(seconds: float) -> None:
    """Where a Highway step of 64 environments goes, on one core."""
    pin(1)
    env = gym.make_vec(TASKS["Highway"], num_envs=64)
    simulator = env.unwrapped
    rate(env, 0.1)
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                spent[name] = spent.get(name, 0.0) + time.perf_counter() - started

        return call

    simulator._advance = timed("traffic, collisions, observation (compiled)", simulator._advance)
    simulator._reset = timed("new episodes (compiled)", simulator._reset)
    simulator._outcome = timed("rewards and infos", simulator._outcome)
    env._bookkeeping.step = timed("both rewards, metric, checks", env._bookkeeping.step)
    started = time.perf_counter()
    rate(env, seconds)
    total = time.perf_counter() - started
    print("\nWhat is left of a Highway step, N = 64, 1 thread:")
    for name, value in sorted({**spent, "the rest": total - sum(spent.values())}.items(), key=lambda item: -item[1]):
        print(f"  {100 * value / total:5.1f} %  {name}")


def main() -> None:
    """Measure both tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="Of each measurement.")
    parser.add_argument("--rounds", type=int, default=3, help="All sides in turn, so often; the median counts.")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    arguments = parser.parse_args()
    for task in arguments.tasks:
        compare(task, arguments.seconds, arguments.rounds)
    if "Highway" in arguments.tasks:
        profile(2 * arguments.seconds)


if __name__ == "__main__":
    main()
