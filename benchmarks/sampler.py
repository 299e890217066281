"""A prior that can only be sampled against its density, on CartPole: ``python benchmarks/sampler.py``.

The shipped prior of CartPole is customised at ω′ = α̂ = 1 twice, with its density (ResidualSoftQLearning) and from K
samples per state (SampledResidualQLearning). It prints the evaluation of the prior, by its density and by K samples,
and for each training seed that of both customised policies and of a third one, which has the Q_R of the second and the
density of the prior; by deterministic actions and, marked "sampled", by samples of the policies. Then follow
divergences between the policies on the states that the first one visits. The law of a resampled action is computed
exactly, as a sum over the numbers of samples that are action 1.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from rql_lightning.algorithms import ResidualSoftQLearning, SampledResidualQLearning
from rql_lightning.data import ReplayDataModule
from rql_lightning.envs.registration import make_vector_env
from rql_lightning.evaluation import Episodes, run_episodes
from rql_lightning.loading import load_policy
from rql_lightning.policies import SampledPolicy, SoftQPolicy
from rql_lightning.priors import CheckpointPrior, SamplerPrior

TASK, SHIPPED = "rql_lightning/CartPole-v0", "pretrained:cartpole-rl"
SHOWN = ("episode_length_mean", "basic_return_mean", "add_on_return_mean", "mean_abs_position_mean", "kl_to_prior")


def customised(model: ResidualSoftQLearning, seed: int, frames: int) -> tuple[SoftQPolicy, float]:
    """Train a model; return its policy and the seconds it took."""
    pl.seed_everything(seed, verbose=False)
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet = dict.fromkeys(names, False)
    start = time.perf_counter()
    data = ReplayDataModule(env=TASK, total_frames=frames)
    pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, **quiet).fit(model, datamodule=data)
    return model.policy.eval(), time.perf_counter() - start


def with_density(policy: SoftQPolicy) -> SoftQPolicy:
    """Return a policy with the same Q_R, in which the density of the prior takes the place of its samples."""
    prior = CheckpointPrior(SHIPPED)
    prior.attach(policy.observation_space, policy.action_space)
    spaces = (policy.observation_space, policy.action_space)
    result = SoftQPolicy(*spaces, policy.hidden_sizes, policy.alpha_hat, prior, policy.omega_prime)
    result.q_network.load_state_dict(policy.q_network.state_dict())
    return result.eval()


def law(q: Tensor, prior: Tensor, samples: int) -> Tensor:
    """Return the log-probabilities of an action drawn from K samples with weights exp(Q), ``[n, 2]``."""
    count = torch.arange(samples + 1.0, dtype=q.dtype)
    probabilities = torch.distributions.Binomial(samples, prior[:, 1:].exp()).log_prob(count).exp()
    one = count / (count + (samples - count) * (q[:, :1] - q[:, 1:]).exp())
    chosen = (probabilities * one).sum(dim=-1).clamp(1e-12, 1.0)
    return torch.stack([(1 - chosen).clamp(min=1e-12), chosen], dim=-1).log()


def divergence(first: Tensor, second: Tensor) -> float:
    """Return the mean of KL(first ‖ second) over states, in nats."""
    return float((first.exp() * (first - second)).sum(dim=-1).mean())


def report(seed: int | str, name: str, episodes: Episodes) -> None:
    """Print means over episodes."""
    summary = episodes.summary("mean_abs_position")
    print(seed, name, {key: round(summary[key], 3) for key in SHOWN if summary[key] is not None}, flush=True)


def main() -> None:
    """Train, evaluate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="Number of training seeds; 0 for the prior alone.")
    parser.add_argument("--first-seed", type=int, default=0, help="The first of the training seeds.")
    parser.add_argument("--frames", type=int, default=30_000, help="Frames of each training.")
    parser.add_argument("--samples", type=int, default=32, help="Samples of the prior at each state, K.")
    parser.add_argument("--episodes", type=int, default=200, help="Evaluation episodes.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    shipped = load_policy(SHIPPED)
    env = make_vector_env(TASK, 50, "add_on")
    evaluation_seeds = list(range(1_000_000, 1_000_000 + given.episodes))
    visited = np.empty(0)

    def sampler() -> SamplerPrior:
        prior = SamplerPrior(lambda observation: shipped.act(observation, deterministic=False), given.samples)
        prior.attach(shipped.observation_space, shipped.action_space)
        return prior

    for name, policy in (("density", shipped), (f"K = {given.samples}", sampler())):
        report("prior", name, run_episodes(policy, env, evaluation_seeds))
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        exact, exact_seconds = customised(
            ResidualSoftQLearning(CheckpointPrior(SHIPPED), omega_prime=1.0, alpha_hat=1.0), seed, given.frames
        )
        sampled, seconds = customised(SampledResidualQLearning(sampler(), alpha_hat=1.0), seed, given.frames)
        name = f"K = {given.samples}"
        rows = {"density": exact, name: sampled, f"Q of {name}, density": with_density(sampled)}
        print(seed, f"trained in {exact_seconds:.0f} s (density) and {seconds:.0f} s ({name})", flush=True)
        for name, policy in rows.items():
            episodes = run_episodes(policy, env, evaluation_seeds, record=policy is exact)
            visited = episodes.steps.get("observation", visited)
            report(seed, name, episodes)
            report(seed, f"{name}, sampled", run_episodes(SampledPolicy(policy, 0.0, 0), env, evaluation_seeds))
        with torch.no_grad():
            states = torch.from_numpy(visited[:: max(1, len(visited) // 5000)]).float()
            density = shipped.distribution_parameters(states)
            of_exact = exact.distribution_parameters(states).double()
            q_sampled, q_exact = sampled.q_values(states).double(), exact.q_values(states).double()
            drawn = law(q_sampled, density.double(), given.samples)
            same_q = law(q_exact, density.double(), given.samples)
            tilted = (q_sampled + density.double()).log_softmax(dim=-1)
        print(f"{seed} KL(sampled ‖ exact) {divergence(drawn, of_exact):.1e}, by K alone", end=" ")
        print(f"{divergence(same_q, of_exact):.1e}, by Q alone {divergence(tilted, of_exact):.1e}", end=" ")
        print(f"KL(exact ‖ prior) {divergence(of_exact, density.double()):.1e}", flush=True)


if __name__ == "__main__":
    main()
