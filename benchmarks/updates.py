"""Milliseconds of an update of each algorithm against Stable-Baselines3's, at the sizes of the four tasks, on one core.

    python benchmarks/updates.py
    python benchmarks/updates.py --only mountain_car --rounds 30

Every side of a size updates the same networks on minibatches of the same size, and all sides take turns in one process;
printed are medians of thread CPU time, and ratios to Stable-Baselines3. ``by autograd`` is this project's own update
where no gradient is written out, as for a loss that somebody overrides. SBX (JAX) takes part where the extra
``bench-jax`` is installed; it is timed by the wall clock, as JAX has threads of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDict

from rql_lightning.algorithms import ResidualSAC, ResidualSoftQLearning, SoftActorCritic, SoftQLearning
from rql_lightning.priors import CheckpointPrior

Side = Callable[[], float]
"""Makes some updates, and returns the milliseconds of one."""
UPDATES = 32


@dataclass(frozen=True)
class Size:
    """Sizes of a task's networks and minibatches, as its shipped config has them."""

    task: str
    hidden_sizes: list[int]
    batch: int
    goal_scales: list[float] | None = None

    @property
    def prior(self) -> str:
        """The shipped prior."""
        return f"pretrained:{self.task.replace('_', '-')}-rl"


SIZES = {
    "cartpole": Size("cartpole", [128, 128], 64),
    "highway": Size("highway", [256, 256], 128),
    "mountain_car": Size("mountain_car", [64, 64], 256),
    "parking": Size("parking", [128, 128], 256, [100, 100, 5, 5, 1, 1]),
    "large": Size("parking", [256, 256, 256], 1024),
}


class _Wrapper:
    """What Lightning's wrapper of an optimizer is to an algorithm."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.step = optimizer, optimizer.step

    @property
    def param_groups(self) -> Any:
        return self.optimizer.param_groups


def detached(algorithm: type, autograd: bool, prior: CheckpointPrior, *arguments: Any, **settings: Any) -> Any:
    """Return an algorithm that updates without a trainer, for the spaces of a prior."""
    trainer = SimpleNamespace(world_size=1, precision="32-true")
    members: dict[str, Any] = {"trainer": trainer, "device": torch.device("cpu"), "main_optimizer": None}
    members |= {"data": SimpleNamespace(frames=1_000_000, total_frames=1_000_000)}
    learner: Any = type(algorithm.__name__, (algorithm,), members)(*arguments, **settings)
    learner.build(prior.policy.observation_space, prior.policy.action_space, "some/Task-v0")
    type(learner).main_optimizer = _Wrapper(learner.configure_optimizers())
    if autograd:
        type(learner).has_closed_form = False
    return learner


def batch_of(size: Size, prior: CheckpointPrior, continuous: bool) -> TensorDict:
    """Return random transitions with the entries that a replay buffer has, ``[UPDATES, B]``."""
    torch.manual_seed(0)
    shape = (UPDATES, size.batch)
    observation = torch.rand(*shape, *prior.policy.observation_space.shape) - 0.5
    following = observation + 0.01 * torch.randn_like(observation)
    parameters = prior.policy.distribution_parameters(observation).detach()
    then = {"observation": following, "reward": torch.randn(shape), "terminated": torch.rand(shape) < 0.01}
    then["prior_parameters"] = prior.policy.distribution_parameters(following).detach()
    batch: dict[str, Any] = {"observation": observation, "prior_parameters": parameters, "next": then}
    if continuous:
        batch["pre_tanh"] = torch.randn(*shape, *prior.policy.action_space.shape)
        batch["action"] = torch.tanh(batch["pre_tanh"])
    else:
        batch["action"] = torch.randint(int(prior.policy.action_space.n), shape)
    return TensorDict(batch, list(shape))


def ours(algorithm: type, size: Size, autograd: bool = False) -> Side:
    """Return this project's side."""
    prior = CheckpointPrior(size.prior)
    continuous, residual = isinstance(prior.policy.action_space, gym.spaces.Box), algorithm.__name__.startswith("Res")
    settings: dict[str, Any] = {"hidden_sizes": size.hidden_sizes}
    settings |= {"goal_scales": size.goal_scales} if continuous else {}
    settings |= {"omega_prime": 0.1, "alpha_hat": 0.1} if residual else {"alpha": 0.1}
    learner = detached(algorithm, autograd, prior, *([prior] if residual else []), **settings)
    batch = batch_of(size, prior, continuous)

    def update() -> float:
        start = time.thread_time()
        learner.update(batch)
        return 1000 * (time.thread_time() - start) / UPDATES

    return update


class _Spaces(gym.Env):
    """An environment that is never stepped."""

    def __init__(self, observation_space: gym.Space, action_space: gym.Space) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Return an observation of zeros."""
        return np.zeros(self.observation_space.shape, np.float32), {}


def theirs(module: Any, size: Size, clock: Callable[[], float]) -> Side:
    """Return the side of Stable-Baselines3 or SBX: SAC or DQN with a replay buffer of random transitions."""
    prior = CheckpointPrior(size.prior).policy
    space = prior.observation_space
    flat = gym.spaces.Box(-1, 1, (prior.encoder.size,), np.float32) if size.goal_scales else space
    continuous = isinstance(prior.action_space, gym.spaces.Box)
    algorithm = module.SAC if continuous else module.DQN
    settings: dict[str, Any] = {"ent_coef": 0.1} if continuous else {"target_update_interval": 10_000}
    env, layers = _Spaces(flat, prior.action_space), {"net_arch": size.hidden_sizes}
    model = algorithm(
        "MlpPolicy", env, batch_size=size.batch, buffer_size=20_000, policy_kwargs=layers, device="cpu", **settings
    )
    model._setup_learn(1)
    generator = np.random.default_rng(0)
    for _ in range(10_000):
        states = generator.uniform(-1, 1, (2, 1, *flat.shape)).astype(np.float32)
        action = np.array([prior.action_space.sample()])
        model.replay_buffer.add(states[0], states[1], action, np.zeros(1), np.zeros(1), [{}])

    def update() -> float:
        start = clock()
        model.train(gradient_steps=UPDATES, batch_size=size.batch)
        return 1000 * (clock() - start) / UPDATES

    return update


def sides_of(size: Size) -> dict[str, Side]:
    """Return all sides of a size by name; Stable-Baselines3 is the first."""
    import stable_baselines3

    continuous = isinstance(CheckpointPrior(size.prior).policy.action_space, gym.spaces.Box)
    plain, residual = (SoftActorCritic, ResidualSAC) if continuous else (SoftQLearning, ResidualSoftQLearning)
    sides = {"Stable-Baselines3 " + ("SAC" if continuous else "DQN"): theirs(stable_baselines3, size, time.thread_time)}
    try:
        import sbx

        sides["SBX " + ("SAC" if continuous else "DQN")] = theirs(sbx, size, time.perf_counter)
    except ImportError:
        pass
    for algorithm in (plain, residual):
        sides[algorithm.__name__] = ours(algorithm, size)
        sides[f"{algorithm.__name__} by autograd"] = ours(algorithm, size, autograd=True)
    return sides


def main() -> None:
    """Time all sides of all sizes in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help=f"rounds of {UPDATES} updates of each side")
    parser.add_argument("--only", nargs="*", choices=SIZES, default=list(SIZES), help="sizes to time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.only:
        sides = sides_of(SIZES[name])
        for side in sides.values():  # the first update allocates, or compiles
            side()
        taken = [{key: side() for key, side in sides.items()} for _ in range(arguments.rounds)]
        medians = {key: statistics.median(row[key] for row in taken) for key in sides}
        first = next(iter(medians))
        size = SIZES[name]
        print(f"{name}: {size.hidden_sizes}, batch {size.batch}")
        for key, median in medians.items():
            ratio = statistics.median(row[key] / row[first] for row in taken)
            print(f"  {key:<36} {median:7.3f} ms  {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
