"""The deep algorithms, on a finite MDP with one-hot observations, against the exact tabular solution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rql_lightning.algorithms import GreedySoftQLearning, ResidualSoftQLearning, SoftQLearning
from rql_lightning.data import ReplayDataModule
from rql_lightning.envs import Customization
from rql_lightning.priors import FunctionPrior
from rql_lightning.tabular import greedy_value_iteration, residual_value_iteration, soft_value_iteration

STATES, ACTIONS, GAMMA, TIME_LIMIT = 5, 3, 0.9, 6
ALPHA, OMEGA, ALPHA_HAT = 0.8, 0.7, 0.5
OMEGA_PRIME = OMEGA * ALPHA
BOUND = 0.03  # on total variation, in every state; runs of other seeds gave 0.008 to 0.028


@dataclass(frozen=True)
class Mdp:
    """Random, its last state terminal; ``prior`` is soft-optimal for ``basic`` at temperature ALPHA."""

    seed: int
    terminal = np.arange(STATES) == STATES - 1

    @cached_property
    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(self.seed)
        transition = rng.dirichlet(np.full(STATES, 0.5), size=(STATES, ACTIONS))
        basic, add_on = rng.uniform(-1, 2, size=(2, STATES, ACTIONS))
        return transition, basic, add_on

    @property
    def transition(self) -> np.ndarray:
        return self.tables[0]

    @property
    def basic(self) -> np.ndarray:
        return self.tables[1]

    @property
    def add_on(self) -> np.ndarray:
        return self.tables[2]

    @cached_property
    def prior(self) -> np.ndarray:
        return self.soft(self.basic, ALPHA)

    def soft(self, reward: np.ndarray, alpha: float, gamma: float = GAMMA) -> np.ndarray:
        return soft_value_iteration(reward, self.transition, gamma, alpha, self.terminal)[2]

    def residual(self, omega_prime: float, alpha_hat: float, gamma: float = GAMMA, terminal: Any = "own") -> np.ndarray:
        mask = self.terminal if isinstance(terminal, str) else terminal
        return residual_value_iteration(
            self.prior, self.add_on, self.transition, gamma, omega_prime, alpha_hat, terminal=mask
        )[2]

    def greedy(self, kl_weight: float, alpha_hat: float, gamma: float = GAMMA, terminal: Any = "own") -> np.ndarray:
        mask = self.terminal if isinstance(terminal, str) else terminal
        return greedy_value_iteration(self.prior, self.add_on, self.transition, gamma, kl_weight, alpha_hat, mask)[2]


class MdpEnv(gym.Env):
    observation_space = gym.spaces.Box(0.0, 1.0, (STATES,))
    action_space = gym.spaces.Discrete(ACTIONS)

    def __init__(self, seed: int) -> None:
        mdp = Mdp(seed)
        self.cumulative, self.terminal, self.state = mdp.transition.cumsum(-1), mdp.terminal, 0

    def _observe(self) -> np.ndarray:
        return np.eye(STATES, dtype=np.float32)[self.state]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(STATES - 1))
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        row = self.cumulative[self.state, int(action)]
        self.state = min(int(np.searchsorted(row, self.np_random.random())), STATES - 1)
        return self._observe(), 0.0, bool(self.terminal[self.state]), False, {}


@pytest.fixture
def task(register: Any) -> Iterator[Any]:
    """``Mdp →`` the id of its environment, with a time limit that the solution must see through."""

    def make(mdp: Mdp) -> str:
        def reward(table: np.ndarray) -> Any:
            return lambda observation, action, next_observation, info: table[observation.argmax(-1), action]

        id = f"tests/Mdp{mdp.seed}-v0"
        gym.register(id, entry_point=MdpEnv, kwargs={"seed": mdp.seed}, max_episode_steps=TIME_LIMIT)
        return register(id, Customization(reward(mdp.add_on), reward(mdp.basic), vectorized=True))

    yield make
    for id in [id for id in gym.registry if id.startswith("tests/Mdp")]:
        gym.registry.pop(id)


def learn(fit: Any, algorithm: Any, env: str, reward: str) -> np.ndarray:
    """The policy that uniform exploration and some thousands of updates lead to, ``[S, A]``."""
    settings: dict[str, Any] = {"total_frames": 32_768, "frames_per_batch": 2048, "num_envs": 64, "omega": OMEGA}
    settings |= {"updates_per_batch": 250, "batch_size": 256, "warm_up_frames": 8192}
    fit(algorithm, ReplayDataModule(env=env, reward=reward, **settings))
    return algorithm.policy.distribution_parameters(torch.eye(STATES)).exp().detach().double().numpy()


LEARNER: dict[str, Any] = {"hidden_sizes": [64], "gamma": GAMMA, "learning_rate": 0.005, "huber_delta": None}
LEARNER |= {"target_update_interval": 25, "max_grad_norm": None, "epsilon_initial": 1.0, "epsilon_final": 1.0}


def function_prior(mdp: Mdp) -> FunctionPrior:
    table = torch.from_numpy(mdp.prior).float().log()
    return FunctionPrior(lambda observation, action: table[observation.argmax(-1), action])


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest total variation between two policies over the states where anything is decided."""
    return float(0.5 * np.abs(first - second).sum(-1)[:-1].max())


@pytest.mark.parametrize("seed", [0, 1])
def test_deep_residual_soft_q_learning_finds_the_exact_policy(fit, task, seed):
    mdp = Mdp(seed)
    algorithm = ResidualSoftQLearning(function_prior(mdp), OMEGA_PRIME, ALPHA_HAT, **LEARNER)
    learnt = learn(fit, algorithm, task(mdp), "add_on")
    assert distance(learnt, mdp.residual(OMEGA_PRIME, ALPHA_HAT)) < BOUND
    # The theorem: the same as the soft-optimal policy of a reward that it has never seen.
    assert distance(learnt, mdp.soft(OMEGA * mdp.basic + mdp.add_on, ALPHA_HAT)) < BOUND


class Remembering(SoftQLearning):
    """Keeps hold of the replay buffer that it learnt from."""

    def update(self, batch: Any) -> dict[str, float]:
        self.replay = self.data._collection.replay
        return super().update(batch)


def observed_transition(replay: Any) -> np.ndarray:
    """The frequencies of successors in a replay buffer, ``[S, A, S]``: what its updates take for the truth."""
    frames, counts = replay[:], np.zeros((STATES, ACTIONS, STATES))
    places = frames["observation"].argmax(-1), frames["action"], frames["next", "observation"].argmax(-1)
    np.add.at(counts, tuple(index.numpy() for index in places), 1)
    counts[-1] = 1  # nobody acts at the terminal state
    return counts / counts.sum(-1, keepdims=True)


TOTAL_BOUND = 0.06  # Q of the total is some 10 at every action, 0 at the end: two or three times as noisy as Q_R


@pytest.mark.parametrize("seed", [6, 7])
def test_deep_soft_q_learning_finds_the_exact_policy(fit, task, seed):
    """Of the transitions that it saw, as V is 0 at the terminal state and some 10 elsewhere, where chance matters."""
    mdp = Mdp(seed)
    algorithm = Remembering(alpha=ALPHA_HAT, **LEARNER)
    learnt = learn(fit, algorithm, task(mdp), "total")
    seen = observed_transition(algorithm.replay)
    assert np.abs(seen - mdp.transition)[:-1].max() < 0.05
    reward = OMEGA * mdp.basic + mdp.add_on
    exact = soft_value_iteration(reward, seen, GAMMA, ALPHA_HAT, mdp.terminal)[2]
    assert distance(learnt, exact) < TOTAL_BOUND
    wrong = {
        "the wish alone": mdp.soft(mdp.add_on, ALPHA_HAT),
        "the basic reward alone": mdp.prior,
        "without the weight of the basic reward": mdp.soft(mdp.basic + mdp.add_on, ALPHA_HAT),
        "another temperature": mdp.soft(reward, ALPHA),
        "bootstrapping at the terminal state": soft_value_iteration(reward, mdp.transition, GAMMA, ALPHA_HAT)[2],
        "no bootstrapping at the time limit": mdp.soft(reward, ALPHA_HAT, GAMMA * (1 - 1 / TIME_LIMIT)),
    }
    for name, policy in wrong.items():
        assert distance(policy, exact) > 1.9 * TOTAL_BOUND, name


@pytest.mark.parametrize("seed", [0, 1])
def test_every_likely_mistake_is_twice_the_bound_away(seed):
    mdp = Mdp(seed)
    exact = mdp.residual(OMEGA_PRIME, ALPHA_HAT)
    q_of_wish, _, _ = soft_value_iteration(mdp.add_on, mdp.transition, GAMMA, ALPHA_HAT, mdp.terminal)
    greedy = np.exp((q_of_wish + OMEGA_PRIME * np.log(mdp.prior)) / ALPHA_HAT)
    wrong = {
        "the prior": mdp.prior,
        "the wish alone": mdp.soft(mdp.add_on, ALPHA_HAT),
        "greedy: the prior in the policy but not in the target": greedy / greedy.sum(-1, keepdims=True),
        "alpha in place of alpha_hat": mdp.residual(OMEGA_PRIME, ALPHA),
        "alpha in place of omega_prime": mdp.residual(ALPHA, ALPHA_HAT),
        "bootstrapping at the terminal state": mdp.residual(OMEGA_PRIME, ALPHA_HAT, terminal=None),
        "no bootstrapping at the time limit": mdp.residual(OMEGA_PRIME, ALPHA_HAT, GAMMA * (1 - 1 / TIME_LIMIT)),
    }
    for name, policy in wrong.items():
        assert distance(policy, exact) > 2 * BOUND, name


# -- greedy customization --------------------------------------------------------------------------------------------


# Of 150 random MDPs, one where likely mistakes are far away; the learnt policies of five seeds were within 0.02.
GREEDY_MDP, KL_WEIGHT, GREEDY_ALPHA_HAT = Mdp(113), 0.6, 0.3


def test_deep_greedy_soft_q_learning_finds_the_exact_greedy_policy(fit, task):
    algorithm = GreedySoftQLearning(function_prior(GREEDY_MDP), KL_WEIGHT, GREEDY_ALPHA_HAT, **LEARNER)
    learnt = learn(fit, algorithm, task(GREEDY_MDP), "add_on")
    assert distance(learnt, GREEDY_MDP.greedy(KL_WEIGHT, GREEDY_ALPHA_HAT)) < BOUND
    assert distance(learnt, GREEDY_MDP.residual(KL_WEIGHT, GREEDY_ALPHA_HAT)) > 10 * BOUND


def test_every_likely_mistake_of_greedy_customization_is_twice_the_bound_away():
    mdp, kl_weight, alpha_hat = GREEDY_MDP, KL_WEIGHT, GREEDY_ALPHA_HAT
    temperature, log_prior, exact = alpha_hat + kl_weight, np.log(mdp.prior), mdp.greedy(kl_weight, alpha_hat)

    def policy_of(q: np.ndarray) -> np.ndarray:
        weights = np.exp((q + kl_weight * log_prior) / temperature)
        return weights / weights.sum(-1, keepdims=True)

    def with_value(value: Any) -> np.ndarray:
        v = np.zeros(STATES)
        for _ in range(300):
            q = mdp.add_on + GAMMA * mdp.transition @ v
            v = np.where(mdp.terminal, 0.0, value(q, policy_of(q)))
        return policy_of(q)

    def value(q: np.ndarray, policy: np.ndarray) -> np.ndarray:
        return (policy * (q - alpha_hat * np.log(policy))).sum(-1)

    np.testing.assert_allclose(with_value(value), exact, rtol=0, atol=1e-9)
    wrong = {
        "the prior": mdp.prior,
        "the wish alone": mdp.soft(mdp.add_on, alpha_hat),
        "residual": mdp.residual(kl_weight, alpha_hat),
        "the divergence in the value: residual at the temperature of Eq. 17": mdp.residual(kl_weight, temperature),
        "Σ exp of Q in place of the expectation": with_value(
            lambda q, policy: alpha_hat * np.log(np.exp(q / alpha_hat).sum(-1))
        ),
        "the entropy weighed by the temperature of Eq. 17": with_value(
            lambda q, policy: (policy * (q - temperature * np.log(policy))).sum(-1)
        ),
        "no bonus for entropy": with_value(lambda q, policy: (policy * q).sum(-1)),
        "another temperature": mdp.greedy(kl_weight, alpha_hat + 0.3),
        "bootstrapping at the terminal state": mdp.greedy(kl_weight, alpha_hat, terminal=None),
        "no bootstrapping at the time limit": mdp.greedy(kl_weight, alpha_hat, GAMMA * (1 - 1 / TIME_LIMIT)),
    }
    for name, policy in wrong.items():
        assert distance(policy, exact) > 2 * BOUND, name


# -- what omega_prime does -------------------------------------------------------------------------------------------


def discounted(mdp: Mdp, policy: np.ndarray, per_state: np.ndarray) -> float:
    """Σ_t γ^t E[per_state(s_t)] under the policy, from a uniformly random state."""
    alive = ~mdp.terminal
    chain = np.einsum("sa,sat->st", policy, mdp.transition) * alive[:, None] * alive[None, :]
    return float(np.linalg.solve(np.eye(STATES) - GAMMA * chain, per_state * alive)[alive].mean())


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_kl_to_the_prior_falls_as_its_weight_grows(seed):
    """At ω′ = α̂: KL-regularised learning, whose KL falls with its weight, to 0."""
    mdp, weights = Mdp(seed), np.geomspace(0.05, 500, 12)
    policies = [mdp.residual(weight, weight) for weight in weights]
    divergences = [discounted(mdp, policy, (policy * np.log(policy / mdp.prior)).sum(-1)) for policy in policies]
    assert (np.diff(divergences) < 1e-12).all() and divergences[-1] < 1e-4 < divergences[0]


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 2.0))
def test_the_priors_likelihood_grows_with_its_weight(seed, alpha_hat):
    """At any α̂, from the optimum of the wish alone on."""
    mdp, weights = Mdp(seed), [0.0, *np.geomspace(0.05, 20, 10)]
    policies = [mdp.residual(weight, alpha_hat) for weight in weights]
    np.testing.assert_allclose(policies[0], mdp.soft(mdp.add_on, alpha_hat), rtol=0, atol=1e-12)
    likelihoods = [discounted(mdp, policy, (policy * np.log(mdp.prior)).sum(-1)) for policy in policies]
    assert (np.diff(likelihoods) > -1e-12).all() and likelihoods[-1] > likelihoods[0]
