"""Customization from samples of the prior alone: equations against exact sums, the prior, and the algorithm."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from fork_example import (
    ALPHA_HAT,
    GAMMA,
    POINTS,
    UNIFORM,
    Fork,
    add_on_reward,
    divergence,
    exact,
    exact_density,
    resampled_density,
    sample,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Binomial

from rql_lightning import functional, register_task
from rql_lightning.algorithms import ResidualMCTS, ResidualSAC, ResidualSoftQLearning, SampledResidualQLearning
from rql_lightning.data import ReplayDataModule
from rql_lightning.envs import Customization
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError
from rql_lightning.loading import load_policy
from rql_lightning.policies.samples import densest
from rql_lightning.priors import CheckpointPrior, SamplerPrior
from rql_lightning.tabular import residual_value_iteration

OBSERVATIONS = gym.spaces.Box(-1.0, 1.0, (2,))
BOX = gym.spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32))
seeds = st.integers(0, 2**32 - 1)


# -- equations ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(seeds, st.floats(0.1, 3.0))
def test_samples_in_the_priors_proportions_give_the_exact_fixed_point(seed, alpha_hat):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, (5, 3))
    transition, add_on = rng.dirichlet(np.ones(5), (5, 3)), rng.uniform(-1, 1, (5, 3))
    prior = counts / counts.sum(-1, keepdims=True)
    q, v, policy = residual_value_iteration(prior, add_on, transition, 0.9, alpha_hat, alpha_hat)
    for state in range(5):
        samples = torch.from_numpy(np.repeat(np.arange(3), counts[state]))
        q_of_samples = torch.from_numpy(q[state])[samples]
        assert functional.sampled_value(q_of_samples, alpha_hat).item() == pytest.approx(v[state], abs=1e-9)
        weights = functional.resampling_log_weights(q_of_samples, alpha_hat).exp()
        drawn = [weights[samples == action].sum().item() for action in range(3)]
        np.testing.assert_allclose(drawn, policy[state], atol=1e-9)
        expected = (policy[state] * np.log(policy[state] / prior[state])).sum()
        assert functional.sampled_divergence(weights.log()).item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(seeds, st.floats(0.1, 3.0))
def test_frequencies_say_all_that_samples_do(seed, alpha_hat):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(4, (6, 2, 16), generator=generator)
    q = torch.randn(6, 2, 4, generator=generator, dtype=torch.float64)
    frequency = functional.empirical_log_prob(samples, 4).double()
    q_of_samples = q.gather(-1, samples)
    value = functional.residual_value(q, frequency, alpha_hat, alpha_hat)
    torch.testing.assert_close(value, functional.sampled_value(q_of_samples, alpha_hat), rtol=1e-6, atol=1e-6)
    weights = functional.resampling_log_weights(q_of_samples, alpha_hat).exp()
    added = torch.zeros_like(q).scatter_add_(-1, samples, weights)
    policy = functional.policy_log_prob(q, frequency, alpha_hat, alpha_hat).exp()
    torch.testing.assert_close(policy, added, rtol=1e-6, atol=1e-6)


def expectations(samples: int, probability: float, gap: float, alpha_hat: float) -> tuple[float, float]:
    """Exact expectations over K samples of two actions: of the estimated value, and of the weight of action 1."""
    taken = torch.arange(samples + 1)  # how many of the samples are action 1
    q = torch.where(torch.arange(samples) < taken.unsqueeze(-1), gap, 0.0).double()
    chance = Binomial(samples, torch.tensor(probability, dtype=torch.float64)).log_prob(taken.double()).exp()
    weight = functional.resampling_log_weights(q, alpha_hat).exp()
    ones = (weight * (torch.arange(samples) < taken.unsqueeze(-1))).sum(-1)
    return float(chance @ functional.sampled_value(q, alpha_hat)), float(chance @ ones)


@pytest.mark.parametrize(("probability", "gap", "alpha_hat"), [(0.5, 1.0, 1.0), (0.2, 2.0, 0.7), (0.9, -1.5, 1.0)])
def test_the_bias_is_the_stated_one(probability, gap, alpha_hat):
    """−α̂ χ² / (2 K), of the value; and one of the order 1 / K of the law of the action."""
    prior = np.array([1 - probability, probability])
    tilted = prior * np.exp(np.array([0.0, gap]) / alpha_hat)
    value, policy = alpha_hat * math.log(tilted.sum()), tilted / tilted.sum()
    chi_squared = (policy**2 / prior).sum() - 1
    few, many = expectations(200, probability, gap, alpha_hat), expectations(800, probability, gap, alpha_hat)
    assert few[0] < many[0] < value
    assert 800 * (many[0] - value) == pytest.approx(-alpha_hat * chi_squared / 2, rel=0.02)
    assert 800 * (many[1] - policy[1]) == pytest.approx(200 * (few[1] - policy[1]), rel=0.05)


def test_continuous_actions_against_quadrature():
    position = np.array([-0.2, 0.3])
    q, v = exact(position, 0)
    torch.manual_seed(0)
    states = torch.tensor([[x, -1.0] for x in position], dtype=torch.float64).repeat_interleave(100_000, 0)
    drawn = sample(states).reshape(2, 100_000).numpy()
    of_samples = torch.from_numpy(np.stack([np.interp(drawn[row], UNIFORM, q[row]) for row in range(2)]))
    torch.testing.assert_close(functional.sampled_value(of_samples, ALPHA_HAT), torch.from_numpy(v), rtol=0, atol=5e-3)
    mean = (functional.resampling_log_weights(of_samples, ALPHA_HAT).exp().numpy() * drawn).sum(-1)
    expected = (exact_density(position, 0) * UNIFORM).sum(-1) * 2 / POINTS
    np.testing.assert_allclose(mean, expected, atol=5e-3)


def test_the_divergence_is_at_most_the_logarithm_of_the_number_of_samples():
    weights = functional.resampling_log_weights(torch.tensor([[1e4, 0.0, 0.0, 0.0], [3.0] * 4]), 1.0)
    torch.testing.assert_close(functional.sampled_divergence(weights), torch.tensor([math.log(4), 0.0]))


def test_the_deterministic_action_is_in_the_heavier_mode():
    actions = torch.tensor([-0.62, -0.6, -0.58, 0.5, 0.55, 0.6, 0.65, 0.7]).unsqueeze(-1)
    uniform = torch.zeros(8).log_softmax(-1)
    assert densest(actions, uniform) == 5
    heavier = torch.tensor([2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0]).log_softmax(-1)
    assert densest(actions, heavier) == 1
    assert densest(torch.zeros(4, 2), torch.zeros(4).log_softmax(-1)) in range(4)  # all the same


# -- the prior ---------------------------------------------------------------------------------------------------------


def attached(function: Any, action_space: gym.Space[Any] = BOX, samples: int = 8) -> SamplerPrior:
    prior = SamplerPrior(function, samples)
    prior.attach(OBSERVATIONS, action_space)
    return prior


@pytest.mark.parametrize("convert", [lambda tensor: tensor, Tensor.numpy])
def test_each_state_is_repeated_and_its_samples_stay_together(convert):
    def twice(observation: Tensor) -> Any:
        assert observation.shape == (6 * 8, 2)
        return convert(2.0 * observation)

    prior = attached(twice, gym.spaces.Box(-2.0, 2.0, (2,)))
    states = torch.rand(2, 3, 2)
    parameters = prior.distribution_parameters(states)
    torch.testing.assert_close(prior.family.split(parameters)[0], states.unsqueeze(-2).expand(2, 3, 8, 2))
    torch.testing.assert_close(torch.as_tensor(prior.act(states.reshape(6, 2))), 2.0 * states.reshape(6, 2))


def test_frequencies_of_discrete_actions():
    prior = attached(lambda observation: torch.arange(len(observation)) % 4 // 3, gym.spaces.Discrete(3))
    parameters = prior.distribution_parameters(torch.zeros(5, 2))
    expected = torch.tensor([0.75, 0.25, 0.0]).log().expand(5, 3)
    torch.testing.assert_close(parameters, expected)
    assert (prior.act(np.zeros((5, 2))) == 0).all()


@pytest.mark.parametrize(
    ("function", "space", "message"),
    [
        (lambda rows: 1 / 0, BOX, r"sample: found an error .*ZeroDivisionError.*expected actions of shape \(40, 2\)"),
        (lambda rows: rows[:, :1], BOX, r"sample: found shape \(40, 1\), expected .* \(40, 2\)"),
        (lambda rows: rows.tolist(), BOX, "sample: found list"),
        (
            lambda rows: rows + 2.5,
            BOX,
            r"sample: found \[2.5, 2.5\] at observation \[0.0, 0.0\], expected an action in Box",
        ),
        (lambda rows: rows * torch.nan, BOX, r"sample: found \[nan, nan\]"),
        (lambda rows: torch.full((len(rows),), 3), gym.spaces.Discrete(3), r"sample: found 3 .*Discrete\(3\)"),
        (lambda rows: torch.full((len(rows),), 0.5), gym.spaces.Discrete(3), "sample: found 0.5"),
    ],
)
def test_samples_that_are_no_actions_are_refused(function, space, message):
    with pytest.raises(EnvironmentContractError, match=message):
        attached(function, space).probe(torch.zeros(5, 2))


def test_it_has_no_log_likelihood_and_only_one_algorithm_takes_it():
    prior = attached(lambda rows: rows)
    with pytest.raises(EnvironmentContractError, match="log_prob: found a prior that can only be sampled"):
        prior.log_prob(np.zeros(2), np.zeros(2))
    for algorithm in (ResidualSoftQLearning, ResidualSAC, ResidualMCTS):
        with pytest.raises(ConfigurationError, match=r"prior: found 'SamplerPrior', .*SampledResidualQLearning"):
            algorithm(SamplerPrior(lambda rows: rows))
    with pytest.raises(ConfigurationError, match=r"model\.prior: found 'CheckpointPrior', expected a SamplerPrior"):
        SampledResidualQLearning(CheckpointPrior("pretrained:cartpole-rl"))
    with pytest.raises(ConfigurationError, match=r"prior\.samples: found 1, expected an integer >= 2"):
        SamplerPrior(sample, 1)


@pytest.mark.parametrize("omega_prime", [0.0, 0.5, 1.01])
def test_another_weight_than_alpha_hat_is_refused_and_it_says_why(omega_prime):
    with pytest.raises(
        ConfigurationError, match=r"omega_prime: found .*, expected model.alpha_hat = 1.0.*log-likelihood"
    ):
        SampledResidualQLearning(SamplerPrior(sample), omega_prime=omega_prime, alpha_hat=1.0)
    assert SampledResidualQLearning(SamplerPrior(sample), omega_prime=1.0, alpha_hat=1.0).omega_prime == 1.0
    assert SampledResidualQLearning(SamplerPrior(sample), alpha_hat=0.3).omega_prime == 0.3


# -- the algorithm -----------------------------------------------------------------------------------------------------


@pytest.fixture
def fork() -> Any:
    gym.register("unit/Fork-v0", entry_point=Fork)
    register_task("unit/ForkRight-v0", base="unit/Fork-v0", customization=Customization(add_on_reward, vectorized=True))
    yield "unit/ForkRight-v0"
    for name in ("unit/Fork-v0", "unit/ForkRight-v0"):
        gym.registry.pop(name, None)


BUDGET = {"num_envs": 4, "frames_per_batch": 32, "updates_per_batch": 2, "batch_size": 8, "warm_up_frames": 0}


def test_the_sampler_is_asked_once_per_state_and_updates_use_what_the_buffer_holds(fork, fit, tmp_path):
    asked = []

    def counted(observation: Tensor) -> Tensor:
        asked.append(len(observation) // 4)
        return sample(observation)

    algorithm = SampledResidualQLearning(SamplerPrior(counted, 4), alpha_hat=ALPHA_HAT, gamma=GAMMA, hidden_sizes=[8])
    data = ReplayDataModule(env=fork, total_frames=64, **BUDGET)
    trainer = fit(algorithm, data)
    probes = asked[0]
    # Each of the 64 frames, and their successors that begin no other frame: those at the end of the 2-step episodes.
    # Before the first frame, the collector tries the policy in each of the 4 environments.
    assert sum(asked) == probes + 64 + 32 + 4
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    with pytest.raises(CheckpointError, match=r"function .*counted, which a file cannot hold.*SamplerPrior\(\.\.\.\)"):
        load_policy(tmp_path / "policy.ckpt")
    policy = load_policy(tmp_path / "policy.ckpt", prior=SamplerPrior(counted, 4))
    states = torch.rand(16, 2)
    torch.manual_seed(0)
    found = policy.act(states)
    torch.manual_seed(0)
    torch.testing.assert_close(found, algorithm.policy.act(states))
    wider = load_policy(tmp_path / "policy.ckpt", prior=SamplerPrior(counted, 64))
    assert wider.decide(states.numpy()).action.shape == (16, 1) and asked[-1] == 16 * 64 // 4, "any number of samples"
    before = torch.get_rng_state()
    decision = policy.decide(states.numpy())
    assert torch.equal(torch.get_rng_state(), before), "evaluation has random numbers of its own"
    assert decision.action.shape == (16, 1) and (np.abs(decision.action) <= 1).all()
    assert ((decision.kl_to_prior >= 0) & (decision.kl_to_prior <= math.log(4) + 1e-6)).all()


def test_a_target_computed_by_hand(fork, fit):
    """r + γ α̂ log(mean exp(min Q / α̂)) over the samples of the successor, and r alone at the end of an episode."""
    algorithm = SampledResidualQLearning(SamplerPrior(sample, 4), alpha_hat=ALPHA_HAT, gamma=GAMMA, hidden_sizes=[8])
    data = ReplayDataModule(env=fork, total_frames=64, **BUDGET)
    batches: list[Any] = []
    inner = algorithm.update
    algorithm.update = lambda batch: (batches.append(batch.clone()), inner(batch))[1]  # type: ignore[method-assign]
    fit(algorithm, data)
    batch = batches[-1]
    assert "prior_parameters" not in set(batch.keys())
    assert batch["next", "prior_parameters"].shape == (2, 8, 4)
    with torch.no_grad():
        chunk = algorithm.minibatches(batch)
        found = functional.residual_target(
            chunk.reward, chunk.terminated, algorithm.next_value(algorithm.target_q(chunk), chunk), GAMMA
        )
        critic = algorithm.target_network
        for index in np.ndindex(2, 8):
            reward, ended = batch["next", "reward"][index], bool(batch["next", "terminated"][index])
            values = [
                critic(batch["next", "observation"][index][None], action[None, None]).min().item()
                for action in batch["next", "prior_parameters"][index]
            ]
            value = ALPHA_HAT * math.log(np.mean(np.exp(np.array(values) / ALPHA_HAT)))
            expected = float(reward) + (0.0 if ended else GAMMA * value)
            assert found[index].item() == pytest.approx(expected, abs=1e-5)


def test_discrete_actions_learn_from_frequencies(fit):
    shipped = CheckpointPrior("pretrained:cartpole-rl")
    prior = SamplerPrior(lambda observation: shipped.act(observation, deterministic=False), 16)
    algorithm = SampledResidualQLearning(prior, alpha_hat=1.0, hidden_sizes=[8])
    fit(algorithm, ReplayDataModule(total_frames=64, **BUDGET))
    assert algorithm.updates == 4 and algorithm.policy.prior is prior
    observation = torch.zeros(400, 4)
    with torch.no_grad():
        mean = algorithm.policy.distribution_parameters(observation).exp().mean(0)
        combined = algorithm.policy.q_values(observation[:1]) + shipped.distribution_parameters(observation[:1])
    torch.testing.assert_close(mean, combined.softmax(-1)[0], rtol=0, atol=0.05)
    assert np.isfinite(algorithm.policy.decide(observation.numpy()).kl_to_prior).all()


@pytest.mark.slow
def test_the_policy_is_near_the_exact_one(fork, fit):
    algorithm = SampledResidualQLearning(
        SamplerPrior(sample), alpha_hat=ALPHA_HAT, gamma=GAMMA, learning_rate=2e-3, huber_delta=None
    )
    fit(algorithm, ReplayDataModule(env=fork, total_frames=20_000))
    policy, grid = algorithm.policy, torch.from_numpy(UNIFORM).float().unsqueeze(-1)
    for time, reach in ((0, 0.3), (1, 0.6)):
        position = np.linspace(-reach, reach, 7)
        states = torch.tensor([[x, time - 1.0] for x in position], dtype=torch.float32).repeat_interleave(POINTS, 0)
        with torch.no_grad():
            q = policy.q_network(policy.encoder(states), grid.repeat(7, 1)).amin(0).reshape(7, POINTS).double().numpy()
        drawn = resampled_density(q, position, 32, draws=500)
        assert (divergence(drawn, exact_density(position, time)) < 0.05).all()
