"""Inverse soft Q-learning: its loss by hand, and on a finite MDP against the exact expert."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from rql_lightning import functional
from rql_lightning.algorithms import IQLearn, IQLearnSAC
from rql_lightning.errors import ConfigurationError
from rql_lightning.tabular import soft_value_iteration

BOX, DISCRETE = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(4)
STATES, ACTIONS, GAMMA, ALPHA = 5, 3, 0.8, 0.7


# -- the loss --------------------------------------------------------------------------------------------------------


def test_the_loss_by_hand():
    q, value, target = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, -1.0]), torch.tensor([0.2, 0.0, 1.0])
    implied = [0.8, 2.0, 2.0]
    expected = -(0.8 + 2.0) / 2 + (0.3 + 1.0 - 2.0) / 3 + sum(each**2 for each in implied) / 3 / (4 * 0.5)
    assert functional.iq_loss(q, value, target, 2, 0.5).item() == pytest.approx(expected)


def test_on_demonstrations_alone_it_is_the_likelihood_and_a_regulariser():
    torch.manual_seed(0)
    q_values, target = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    action = torch.randint(4, (50,))
    q = q_values.gather(1, action.unsqueeze(1)).squeeze(1)
    value = functional.residual_value(q_values, None, 0.0, ALPHA)
    likelihood = functional.policy_log_prob(q_values, None, 0.0, ALPHA).gather(1, action.unsqueeze(1)).mean()
    expected = -ALPHA * likelihood + (q - target).square().mean() / (4 * 0.3)
    torch.testing.assert_close(functional.iq_loss(q, value, target, 50, 0.3), expected)


def test_gradients_against_finite_differences():
    torch.manual_seed(0)
    inputs = [torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    target = torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, value: functional.iq_loss(q, value, target, 4, 0.5), inputs)


# -- a finite MDP ----------------------------------------------------------------------------------------------------


def finite_mdp() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards [S, A], transitions [S, A, S] and the exact expert [S, A]."""
    random = np.random.default_rng(0)
    reward = random.normal(size=(STATES, ACTIONS))
    transition = random.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))
    return reward, transition, soft_value_iteration(reward, transition, GAMMA, ALPHA)[2]


def population_minimum(chi_squared: float) -> tuple[Tensor, Tensor]:
    """Q [S, A] that minimises the expected loss over the expert's steps at uniform states, and its policy."""
    _, transition, expert = (torch.from_numpy(array) for array in finite_mdp())
    q = torch.zeros(STATES, ACTIONS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([q], max_iter=3000, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.residual_value(q, None, 0.0, ALPHA)
        implied = q - GAMMA * transition @ value
        negated = -(expert * (q - value.unsqueeze(-1))).sum(-1).mean()
        total = negated + (expert * implied.square()).sum(-1).mean() / (4 * chi_squared)
        total.backward()
        return total

    optimizer.step(loss)
    return q.detach(), functional.policy_log_prob(q.detach(), None, 0.0, ALPHA).exp()


def test_the_experts_policy_is_recovered_as_the_regulariser_fades():
    expert = torch.from_numpy(finite_mdp()[2])
    divergences = []
    for chi_squared in (0.5, 5.0, 50.0, 500.0):
        policy = population_minimum(chi_squared)[1]
        divergences.append((expert * (expert / policy).log()).sum(-1).mean().item())
    assert all(later < earlier for earlier, later in pairwise(divergences))
    assert divergences[0] > 1e-4 and divergences[-1] < 1e-6


def test_its_q_function_is_soft_optimal_for_the_reward_that_it_implies():
    """What residual Q-learning assumes of a prior: policy and Q-function belong to one reward, at a known α."""
    _, transition, _ = finite_mdp()
    q, policy = population_minimum(5.0)
    value = functional.residual_value(q, None, 0.0, ALPHA)
    implied = q - GAMMA * torch.from_numpy(transition) @ value
    oracle, _, optimal = soft_value_iteration(implied.numpy(), transition, GAMMA, ALPHA)
    np.testing.assert_allclose(q.numpy(), oracle, atol=1e-8)
    np.testing.assert_allclose(policy.numpy(), optimal, atol=1e-8)


# -- its fixed point with a target network, as the learners have it --------------------------------------------------

ALIVE = 4  # states before the terminal one


def steps(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """State, action and successor of steps [N], with every action of every state, and a terminal state ALIVE."""
    random = torch.Generator().manual_seed(seed)
    every = torch.cartesian_prod(torch.arange(ALIVE), torch.arange(ACTIONS))
    others = torch.stack([torch.randint(size, (count,), generator=random) for size in (ALIVE, ACTIONS)], dim=1)
    state, action = torch.cat([every, others]).unbind(1)
    return state, action, torch.randint(ALIVE + 1, state.shape, generator=random)


def fixed_point(state: Tensor, action: Tensor, successor: Tensor, expert: int, chi_squared: float, gamma: float) -> Any:
    """Q [ALIVE, A] that minimises the loss at targets of its own, and these targets [N]."""
    q, reward = torch.zeros(ALIVE, ACTIONS, dtype=torch.float64), torch.zeros(len(state), dtype=torch.float64)

    def loss(q: Tensor, target: Tensor) -> Tensor:
        value = functional.residual_value(q, None, 0.0, ALPHA)
        return functional.iq_loss(q[state, action], value[state], target, expert, chi_squared)

    for _ in range(40):  # one step of Newton's method for each update of the target network
        v_next = functional.residual_value(q, None, 0.0, ALPHA)[successor.clamp(max=ALIVE - 1)]
        target = functional.residual_target(reward, successor == ALIVE, v_next, gamma)
        gradient, hessian = torch.func.grad(loss)(q, target), torch.func.hessian(loss)(q, target)
        q = q - torch.linalg.solve(hessian.reshape(q.numel(), -1), gradient.flatten()).view_as(q)
    return q, target


@pytest.mark.parametrize(("chi_squared", "gamma"), [(0.5, 0.5), (5.0, 0.3), (500.0, 0.5)])
def test_from_demonstrations_alone_it_is_the_experts_policy_less_certain(chi_squared, gamma):
    """π = π_E (1 − r / (2 α_χ)) with r = α log π + V − γ E[V(s′)], V the sum of −α log π along demonstrations."""
    state, action, successor = steps(40, seed=1)
    q, _ = fixed_point(state, action, successor, len(state), chi_squared, gamma)
    ours = functional.policy_log_prob(q, None, 0.0, ALPHA).numpy()
    counts = np.zeros((ALIVE, ACTIONS, ALIVE + 1))
    np.add.at(counts, (state.numpy(), action.numpy(), successor.numpy()), 1)
    expert, chain = (counts.sum(axis) / counts.sum((1, 2))[:, None] for axis in (2, 1))
    lost = -ALPHA * (expert * ours).sum(1)
    value = np.linalg.solve(np.eye(ALIVE) - gamma * chain[:, :ALIVE], lost)  # and nothing from the terminal state
    following = (counts / counts.sum(2, keepdims=True))[:, :, :ALIVE] @ value
    implied = ALPHA * ours + value[:, None] - gamma * following
    np.testing.assert_allclose(functional.residual_value(q, None, 0.0, ALPHA).numpy(), value, rtol=1e-6)
    np.testing.assert_allclose(np.exp(ours), expert * (1 - implied / (2 * chi_squared)), atol=1e-7)
    divergence = (expert * (np.log(expert) - ours)).sum(1).max()
    assert (divergence < 1e-5) == (chi_squared > 100)


def test_with_collected_steps_implied_rewards_compare_how_often_expert_and_policy_come_there():
    """ρ_both(s, a) r(s, a) = 2 α_χ (ρ_E(s, a) − ρ_both(s) π(a|s)), for the fractions ρ of steps."""
    state, action, successor = (torch.cat(pair) for pair in zip(steps(30, seed=2), steps(60, seed=3), strict=True))
    expert, chi_squared = 30 + ALIVE * ACTIONS, 0.3
    q, target = fixed_point(state, action, successor, expert, chi_squared, 0.5)
    policy = functional.policy_log_prob(q, None, 0.0, ALPHA).exp().numpy()
    demonstrated, rewards, visits = np.zeros((3, ALIVE, ACTIONS))
    place = (state.numpy(), action.numpy())
    np.add.at(demonstrated, tuple(each[:expert] for each in place), 1 / expert)
    np.add.at(rewards, place, (q[state, action] - target).numpy() / len(state))
    np.add.at(visits, place, 1 / len(state))
    expected = 2 * chi_squared * (demonstrated - visits.sum(1, keepdims=True) * policy)
    np.testing.assert_allclose(rewards, expected, atol=1e-8)


# -- the learners ----------------------------------------------------------------------------------------------------


def transitions(actions: gym.Space[Any], updates: int, size: int, collected: bool = False) -> TensorDict:
    """Random transitions [K, B], as demonstrations or as a learner of continuous actions collects them."""
    shape = [updates, size]
    double = {"dtype": torch.float64}
    successor = {"observation": torch.rand(*shape, 3, **double), "terminated": torch.rand(*shape) < 0.3}
    discrete = isinstance(actions, gym.spaces.Discrete)
    action = torch.randint(4, shape) if discrete else torch.rand(*shape, 2, **double) * 2 - 1
    entries = {"observation": torch.rand(*shape, 3, **double), "action": action, "next": TensorDict(successor, shape)}
    if collected and not discrete:
        entries["pre_tanh"] = torch.atanh(action)
    return TensorDict(entries, shape)


@pytest.fixture
def learner(detach: Any) -> Any:
    """``(class, actions, **settings) →`` a small learner without a trainer."""

    def learner(make: type, actions: gym.Space[Any], **settings: Any) -> Any:
        small = {"hidden_sizes": [16], "gamma": GAMMA, "learning_rate": 0.01}
        return detach(make, BOX, actions, **{**small, **settings})

    return learner


CONTINUOUS = gym.spaces.Box(-1, 1, (2,))
BOTH = pytest.mark.parametrize(("make", "actions"), [(IQLearn, DISCRETE), (IQLearnSAC, CONTINUOUS)])


@BOTH
@pytest.mark.parametrize("online", [False, True])
def test_updates_offline_and_online(learner, make, actions, online):
    algorithm = learner(make, actions)
    batch = transitions(actions, 4, 8, collected=online)
    if online:
        batch["demonstrations"] = transitions(actions, 4, 8)
    before = [parameter.clone() for parameter in algorithm.policy.parameters()]
    metrics = algorithm.update(batch)
    assert algorithm.updates == 4 and all(math.isfinite(value) for value in metrics.values())
    assert any(not torch.equal(*pair) for pair in zip(before, algorithm.policy.parameters(), strict=True))


def test_demonstrations_come_first_and_terminal_states_have_no_value(learner):
    algorithm = learner(IQLearn, DISCRETE)
    batch = transitions(DISCRETE, 2, 3, collected=True)
    batch["demonstrations"] = transitions(DISCRETE, 2, 5)[:, :3]
    minibatch = algorithm.minibatches(batch)
    assert torch.equal(minibatch.observation[:, :3], batch["demonstrations", "observation"])
    assert torch.equal(minibatch.observation[:, 3:], batch["observation"]) and bool((minibatch.reward == 0).all())
    v_next = algorithm.next_value(torch.ones(2, 6, 4, dtype=torch.float64), minibatch)
    target = functional.residual_target(minibatch.reward, minibatch.terminated, v_next, GAMMA)
    assert bool((target[minibatch.terminated] == 0).all()) and bool((target[~minibatch.terminated] > 0).all())


def test_the_critics_loss_by_hand(learner):
    algorithm = learner(IQLearnSAC, CONTINUOUS, alpha=0.2, chi_squared=0.3)
    batch = transitions(CONTINUOUS, 1, 6, collected=True)
    batch["demonstrations"] = transitions(CONTINUOUS, 1, 6)
    (minibatch,) = algorithm.minibatches(batch).split()
    noise = torch.randn(2, 12, 2, dtype=torch.float64)
    losses, sample, _ = algorithm.losses(minibatch, *noise)
    following = algorithm.sample(minibatch.next_observation, noise[1])
    v_next = algorithm.target_critic(minibatch.next_observation, following.action).amin(0) - 0.2 * following.log_prob
    target = GAMMA * v_next * ~minibatch.terminated
    taken, own = (algorithm.critic(minibatch.observation, action) for action in (minibatch.action, sample.action))
    expected = 0.0
    for q, value in zip(taken, own - 0.2 * sample.log_prob, strict=True):
        implied = q - target
        expected += -implied[:6].mean() + (value - target).mean() + implied.square().mean() / (4 * 0.3)
    torch.testing.assert_close(losses["critic"], expected)
    actor = list(algorithm.policy.network.parameters())
    assert torch.autograd.grad(losses["critic"], actor, allow_unused=True) == (None,) * len(actor)


@pytest.mark.parametrize(
    ("make", "actions", "low", "high"),
    [(IQLearn, DISCRETE, -1.0, 1.0 + 0.3 * math.log(4)), (IQLearnSAC, CONTINUOUS, -math.inf, 1.0 + 0.6 * math.log(2))],
)
def test_values_in_targets_are_bounded(learner, make, actions, low, high):
    """By ±2 α_χ = ±1, and the entropy of four actions, or that of two numbers in [−1, 1], which may be negative."""
    algorithm = learner(make, actions, alpha=0.3, chi_squared=0.5, bound_values=True)
    algorithm._demonstrated = 2
    q, target = torch.zeros(2), torch.tensor([100.0, -100.0])
    horizon = GAMMA / (1 - GAMMA)
    expected = functional.iq_loss(q, q, target.clamp(horizon * low, horizon * high), 2, 0.5)
    assert algorithm.inverse_loss(q, q, target).item() == pytest.approx(expected.item())


def test_settings_without_a_meaning_are_refused():
    with pytest.raises(ConfigurationError, match=r"model\.gamma: found 1\.0, expected a number below 1"):
        IQLearn(gamma=1.0, bound_values=True)
    with pytest.raises(TypeError, match="huber_delta"):
        IQLearn(huber_delta=1.0)


def test_a_learnt_temperature_is_refused():
    with pytest.raises(ConfigurationError, match=r"model\.alpha: found 'auto', expected a number"):
        IQLearnSAC(alpha="auto")


def test_the_temperature_is_known_to_the_policy(learner):
    assert learner(IQLearn, DISCRETE, alpha=0.3).policy.temperature == 0.3
    assert learner(IQLearnSAC, CONTINUOUS, alpha=0.2).policy.temperature == pytest.approx(0.2)


def test_it_imitates_a_soft_policy(learner):
    """Actions of a Boltzmann policy at random states: after some updates the likelihood is near the best possible."""
    torch.manual_seed(1)
    algorithm = learner(IQLearn, DISCRETE, learning_rate=0.02, chi_squared=5.0)
    observation = torch.rand(60, 64, 3, dtype=torch.float64)
    logits = torch.cat([3 * observation, torch.zeros(60, 64, 1, dtype=torch.float64)], dim=-1)
    action = torch.distributions.Categorical(logits=logits).sample()
    successor = TensorDict({"observation": observation, "terminated": torch.ones(60, 64, dtype=torch.bool)}, [60, 64])
    batch = TensorDict({"observation": observation, "action": action, "next": successor}, [60, 64])
    for _ in range(8):
        algorithm.update(batch)
    theirs = logits.log_softmax(-1)
    ours = algorithm.policy.distribution_parameters(observation)
    assert (theirs.exp() * (theirs - ours)).sum(-1).mean() < 0.03
    assert (theirs.exp() * (theirs - math.log(0.25))).sum(-1).mean() > 0.15
