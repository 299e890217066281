"""A diffusion policy with two modes is customised in several ways: a table and a picture.

    python benchmarks/diffusion.py --seeds 1 --out diffusion.png

A robot passes an obstacle on its left or on its right, and then goes to the goal on that side. A diffusion policy
(schedulers of diffusers, extra diffusion) learns this from demonstrations of both; the wish is a mild preference for
the left. It is customised (a) from K samples per state (SampledResidualQLearning), and (b) by way of a density:
BehaviorCloning on rollouts of the diffusion policy, then residual SAC, with flows and with normal distributions. Each
is compared with the exact policy, which follows from a large number of samples of the diffusion policy.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
import torch
from diffusers import DDPMScheduler
from matplotlib.figure import Figure
from torch import Tensor, nn

from rql_lightning import register_task
from rql_lightning.algorithms import BehaviorCloning, ResidualFlowSAC, ResidualSAC, SampledResidualQLearning
from rql_lightning.data import DemonstrationDataModule, ReplayDataModule
from rql_lightning.data.trajectories import save_trajectories
from rql_lightning.envs import Customization
from rql_lightning.envs.registration import make_vector_env
from rql_lightning.evaluation import run_episodes
from rql_lightning.policies import Policy, SampledPolicy
from rql_lightning.priors import CheckpointPrior, SamplerPrior

BASE, TASK = "example/Obstacle-v0", "example/ObstacleLeft-v0"
OBSTACLE, REACH, GOAL = 0.2, 0.75, 0.6
ALPHA_HAT, GAMMA, PREFERENCE = 0.2, 0.9, 0.1
STARTS = np.linspace(-0.2, 0.2, 5)
BINS = np.linspace(-1.0, 1.0, 41)
COLUMNS = ("left", "obstacle", "KL to exact", "basic", "add-on")
ROWS_AT_ONCE = 8192


def moved(position: Any, action: Any) -> Any:
    """Return the lateral position after a step; either may be an array or a tensor."""
    return (position + REACH * action).clip(-1.0, 1.0)


class Obstacle(gym.Env[np.ndarray, np.ndarray]):
    """Two steps of a robot that moves forward and chooses its lateral position: past the obstacle, and to a goal.

    Observations are the lateral position and the number of steps left − 1; the basic reward is −1 for a collision,
    which ends the episode, and minus the distance from the nearer goal after the second step.
    """

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start near the middle."""
        super().reset(seed=seed)
        self.position, self.left = self.np_random.uniform(STARTS[0], STARTS[-1]), 2
        return self._observation(), {}

    def _observation(self) -> np.ndarray:
        return np.array([self.position, self.left - 1], np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move to the side."""
        self.position, self.left = float(moved(self.position, action[0])), self.left - 1
        collided = self.left == 1 and abs(self.position) < OBSTACLE
        reward = -float(collided) if self.left else -abs(abs(self.position) - GOAL)
        info = {"is_success": not collided} if collided or not self.left else {}
        return self._observation(), reward, collided or not self.left, False, info


def add_on_reward(observation: Any, action: Any, next_observation: Any, info: Any) -> Any:
    """Prefer the left, where positions are negative."""
    return -PREFERENCE * next_observation[..., 0]


def register() -> None:
    """Register the task, once."""
    if TASK not in gym.registry:
        gym.register(BASE, entry_point=Obstacle)
        register_task(TASK, base=BASE, customization=Customization(add_on_reward, vectorized=True))


def demonstrations(count: int) -> tuple[Tensor, Tensor]:
    """Return observations ``[2 count, 2]`` and actions ``[2 count, 1]`` of a demonstrator that passes on both sides."""
    start = torch.empty(count, 1).uniform_(STARTS[0], STARTS[-1])
    side = torch.where(torch.rand(count, 1) < torch.sigmoid(4.0 * start), 1.0, -1.0)
    first = (0.5 * side + 0.1 * torch.randn(count, 1) - start) / REACH
    middle = moved(start, first)
    second = (GOAL * side - middle) / REACH + 0.1 * torch.randn(count, 1)
    states = torch.cat([torch.cat([start, torch.ones(count, 1)], -1), torch.cat([middle, torch.zeros(count, 1)], -1)])
    return states, torch.cat([first, second]).clip(-1.0, 1.0)


class DiffusionPolicy(nn.Module):
    """Denoising diffusion (Ho et al. 2020) of actions: a small network predicts the noise, diffusers has the rest.

    Args:
        steps: Number of denoising steps.
    """

    def __init__(self, steps: int = 10) -> None:
        super().__init__()
        self.scheduler = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2", clip_sample=True)
        self.steps = steps
        layers = [nn.Linear(1 + 2 + 4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)]
        self.network = nn.Sequential(*layers)

    def forward(self, noisy: Tensor, observation: Tensor, step: Tensor) -> Tensor:
        """Predict the noise in actions ``[N, 1]`` at observations ``[N, 2]`` and denoising steps ``[N]``."""
        phase = step.unsqueeze(-1) / self.steps * torch.tensor([0.5, 1.0]) * torch.pi
        return self.network(torch.cat([noisy, observation, phase.sin(), phase.cos()], dim=-1))

    def fit(self, observation: Tensor, action: Tensor, updates: int) -> None:
        """Learn from demonstrated pairs ``[N, 2]`` and ``[N, 1]``."""
        optimizer = torch.optim.Adam(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        for _ in range(updates):
            rows = torch.randint(len(action), (512,))
            noise, step = torch.randn(512, 1), torch.randint(self.steps, (512,))
            noisy = self.scheduler.add_noise(action[rows], noise, step)
            loss = (self(noisy, observation[rows], step) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def sample(self, observation: Tensor) -> Tensor:
        """Return one random action ``[N, 1]`` at each observation ``[N, 2]``."""
        return torch.cat([self._denoised(rows) for rows in observation.split(ROWS_AT_ONCE)])

    def _denoised(self, observation: Tensor) -> Tensor:
        action = torch.randn(len(observation), 1)
        self.scheduler.set_timesteps(self.steps)
        for step in self.scheduler.timesteps:
            noise = self(action, observation, step.expand(len(action)))
            action = self.scheduler.step(noise, step, action).prev_sample
        return action


def trained_policy(updates: int) -> DiffusionPolicy:
    """Return a diffusion policy that has learnt from demonstrations."""
    policy = DiffusionPolicy()
    policy.fit(*demonstrations(20_000), updates)
    return policy.eval().requires_grad_(False)


def states_at(position: np.ndarray, left: int) -> Tensor:
    """Return observations ``[n, 2]``."""
    return torch.from_numpy(np.stack([position, np.full(len(position), left - 1.0)], -1)).float()


def exact_law(sample: Callable[[Tensor], Tensor], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples of the prior at each of ``STARTS``, and weights that make them samples of Eq. 6; ``[5, n]``.

    The values after the first step are averages over samples (Eq. 8 at ω′ = α̂) on a grid of positions.
    """
    grid = np.linspace(-1.0, 1.0, 101)

    def drawn(position: np.ndarray, left: int, count: int) -> np.ndarray:
        return sample(states_at(np.repeat(position, count), left)).reshape(-1, count).double().numpy()

    def reward(position: np.ndarray, action: np.ndarray) -> np.ndarray:
        return -PREFERENCE * moved(position[:, None], action)

    v = ALPHA_HAT * np.log(np.exp(reward(grid, drawn(grid, 1, samples // 20)) / ALPHA_HAT).mean(-1))
    actions = drawn(STARTS, 2, samples)
    after = moved(STARTS[:, None], actions)
    following = np.where(np.abs(after) < OBSTACLE, 0.0, np.interp(after, grid, v))  # a collision ends the episode
    q = reward(STARTS, actions) + GAMMA * following
    weights = np.exp((q - q.max(-1, keepdims=True)) / ALPHA_HAT)
    return actions, weights / weights.sum(-1, keepdims=True)


def exact_actions(sample: Callable[[Tensor], Tensor], samples: int) -> np.ndarray:
    """Return random actions of the exact policy at each of ``STARTS``, ``[5, samples]``, by rejection."""
    actions, weights = exact_law(sample, 10 * samples)  # Q_R is within ±0.19, so exp(−1.9) are accepted at least
    accepted = np.random.default_rng(0).random(weights.shape) < weights / weights.max(-1, keepdims=True)
    return np.stack([row[each][:samples] for row, each in zip(actions, accepted, strict=True)])


def shares(actions: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the share of the actions in each of ``BINS``, ``[5, bins]``, with half an action added to each."""
    count = actions.shape[-1]
    weights = np.full(actions.shape, 1.0 / count) if weights is None else weights
    rows = [count * np.histogram(row, BINS, weights=each)[0] + 0.5 for row, each in zip(actions, weights, strict=True)]
    return np.array(rows) / np.sum(rows, axis=-1, keepdims=True)


def fit(model: pl.LightningModule, data: pl.LightningDataModule, seed: int) -> pl.Trainer:
    """Train without output."""
    pl.seed_everything(seed, verbose=False)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet)
    trainer.fit(model, datamodule=data)
    return trainer


def from_samples(prior: SamplerPrior, seed: int, frames: int) -> Policy:
    """Way (a): customise the sampler itself."""
    model = SampledResidualQLearning(
        prior, alpha_hat=ALPHA_HAT, gamma=GAMMA, learning_rate=2e-3, learning_rate_schedule="linear", huber_delta=None
    )
    fit(model, ReplayDataModule(env=TASK, total_frames=frames), seed)
    return model.policy.eval()


def rollouts(prior: SamplerPrior, seed: int, episodes: int, folder: Path) -> Path:
    """Way (b), first part: episodes of the sampler."""
    env = make_vector_env(TASK, 100, "add_on")
    played = run_episodes(SampledPolicy(prior, 0.0, seed), env, list(range(episodes)), record=True)
    return save_trajectories(played, folder / "rollouts")


def distilled(source: Path, family: str, seed: int, frames: int) -> CheckpointPrior:
    """Way (b), second part: a density that is fitted to them."""
    model = BehaviorCloning(hidden_sizes=[64, 64], family=family, patience=None)
    data = DemonstrationDataModule(env=TASK, reward="add_on", demonstrations=str(source), total_frames=frames)
    path = source.parent / f"{family}.ckpt"
    fit(model, data, seed).save_checkpoint(path)
    return CheckpointPrior(str(path))


def from_density(prior: CheckpointPrior, algorithm: type[ResidualSAC], seed: int, frames: int) -> Policy:
    """Way (b), third part: residual SAC. An actor of the family of the distilled prior starts at its weights."""
    same = (algorithm is ResidualFlowSAC) == (prior.policy.family_name == "flow")
    wish = {"omega_prime": ALPHA_HAT, "alpha_hat": ALPHA_HAT, "gamma": GAMMA}
    learning = {"learning_rate": 1e-3, "learning_rate_schedule": "linear", "tau": 0.01, "hidden_sizes": [64, 64]}
    model = algorithm(prior, start_at_prior=same, critic_warm_up_updates=frames // 50, **wish, **learning)
    data = ReplayDataModule(
        env=TASK, total_frames=frames, num_envs=8, frames_per_batch=64, updates_per_batch=16, batch_size=128
    )
    fit(model, data, seed)
    return model.policy.eval()


@torch.no_grad()
def measured(policy: Policy, exact: np.ndarray, samples: int, episodes: int) -> tuple[dict[str, float], np.ndarray]:
    """Return a row of the table, and the actions at ``STARTS``, ``[5, n]``."""
    torch.manual_seed(0)
    states = states_at(np.repeat(STARTS, samples), 2)
    actions = np.asarray(policy.act(states, deterministic=False)).reshape(len(STARTS), samples)
    row = compared(actions, exact)
    seeds = list(range(1_000_000, 1_000_000 + episodes))
    played = run_episodes(SampledPolicy(policy, 0.0, 0), make_vector_env(TASK, 100, "add_on"), seeds).summary(None)
    return row | {"basic": played["basic_return_mean"], "add-on": played["add_on_return_mean"]}, actions


def compared(actions: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return means over ``STARTS``: the shares of actions that pass on the left and that collide, and KL(law ‖ exact).

    The KL is of histograms, in nats; their noise alone makes it positive (the row of the exact policy).
    """
    after, law = moved(STARTS[:, None], actions), shares(actions)
    left, obstacle = (after <= -OBSTACLE).mean(), (np.abs(after) < OBSTACLE).mean()
    return {"left": left, "obstacle": obstacle, "KL to exact": (law * np.log(law / exact)).sum(-1).mean()}


def picture(laws: dict[str, np.ndarray], path: Path) -> None:
    """Draw the densities of the position after the first step, from the middle, beside that of the exact policy."""
    exact = laws["exact"]
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    middle, width = len(STARTS) // 2, REACH * (BINS[1] - BINS[0])
    edges = STARTS[middle] + REACH * BINS
    others = {name: law for name, law in laws.items() if law is not exact}
    for axes, (name, law) in zip(figure.subplots(2, 3, sharex=True, sharey=True).flat, others.items(), strict=True):
        axes.axvspan(-OBSTACLE, OBSTACLE, color="0.9")
        axes.stairs(law[middle] / width, edges, fill=True, color="#4477aa", alpha=0.6)
        axes.stairs(exact[middle] / width, edges, color="black", linewidth=1.0)
        axes.set_title(name, fontsize=10)
    figure.supxlabel("lateral position when it passes the obstacle (grey)", fontsize=10)
    figure.supylabel("density (line: exact)", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def policies(seed: int, budget: float, folder: Path) -> Iterator[tuple[str, Policy]]:
    """Yield the diffusion policy as a prior, and what becomes of it.

    Args:
        seed: Seed of all training.
        budget: Factor of the budgets of the table.
        folder: Where rollouts and distilled priors are kept.
    """
    register()
    pl.seed_everything(seed, verbose=False)
    sample = trained_policy(int(4_000 * budget)).sample
    prior, single = SamplerPrior(sample, samples=32), SamplerPrior(sample, samples=2)
    for each in (prior, single):
        each.attach(Obstacle.observation_space, Obstacle.action_space)
    yield "diffusion policy", single
    frames = int(6_000 * budget)
    yield "(a) 32 samples", from_samples(prior, seed, frames)
    source = rollouts(single, seed, int(5_000 * budget), folder)
    flow, normal = (distilled(source, family, seed, int(300_000 * budget)) for family in ("flow", "squashed_normal"))
    yield "(b) flow", flow
    yield "(b) flow, flow actor", from_density(flow, ResidualFlowSAC, seed, frames)
    yield "(b) flow, normal actor", from_density(flow, ResidualSAC, seed, frames)
    yield "(b) normal, normal actor", from_density(normal, ResidualSAC, seed, frames)


def table(seed: int, budget: float, samples: int, episodes: int) -> Iterator[tuple[str, dict[str, float], np.ndarray]]:
    """Yield name, measures and law at ``STARTS`` of each of the policies, after those of the exact one."""
    with TemporaryDirectory() as folder:
        exact = None
        for name, policy in policies(seed, budget, Path(folder)):
            if exact is None:
                exact = shares(*exact_law(policy.function, 10 * samples))
                yield "exact", compared(exact_actions(policy.function, samples), exact), exact
            row, actions = measured(policy, exact, samples, episodes)
            yield name, row, shares(actions)


def main() -> None:
    """Print a table for each seed, and draw the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="Number of training seeds.")
    parser.add_argument("--first-seed", type=int, default=0, help="The first of them, which is drawn.")
    parser.add_argument("--budget", type=float, default=1.0, help="Factor of all training budgets.")
    parser.add_argument("--samples", type=int, default=4_000, help="Samples of each policy at each start.")
    parser.add_argument("--out", type=Path, default=Path("diffusion.png"), help="File of the picture.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    print(" | ".join(["seed, policy", *COLUMNS]))
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        laws: dict[str, np.ndarray] = {}
        for name, row, laws[name] in table(seed, given.budget, given.samples, 2_000):
            numbers = [f"{row[column]:.3f}" if column in row else "–" for column in COLUMNS]
            print(" | ".join([f"{seed}, {name}", *numbers]), flush=True)
        if seed == given.first_seed:
            picture(laws, given.out)


if __name__ == "__main__":
    main()
