"""ω′: how much the prior's actions are worth, and the weight that suits it."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from rql_lightning import tabular
from rql_lightning.customizing.fitted import returns_to_go, spread_of_values, transitions
from rql_lightning.customizing.given import read_prior
from rql_lightning.customizing.task import read_task
from rql_lightning.customizing.weight import Returns, choose_weight, measure
from rql_lightning.errors import ConfigurationError
from rql_lightning.loading import CheckpointPrior
from rql_lightning.policies.families import Categorical, SquashedNormal
from rql_lightning.priors import Prior

HORIZON, GAMMA, STATES = 12, 0.9, 5


def chain() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A deterministic process: prior [S, A], add-on reward [S, A], successors [S, A]."""
    generator = np.random.default_rng(0)
    prior = generator.dirichlet([2.0, 2.0, 2.0], size=STATES)
    return prior, generator.normal(size=(STATES, 3)), generator.integers(STATES, size=(STATES, 3))


def coded(state: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Observations ``[N, STATES + 1]``: the state, and the time that is left."""
    return np.column_stack([np.eye(STATES)[state], 1 - step / HORIZON]).astype(np.float32)


class Chain(Prior):
    """The prior of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.adopt(gym.spaces.Box(0, 1, (STATES + 1,)), gym.spaces.Discrete(3))
        self.family = Categorical(3)

    def distribution_parameters(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(np.log(chain()[0])).float()[observation[..., :STATES].argmax(dim=-1)]


def sampled(episodes: int) -> dict[str, np.ndarray]:
    prior, reward, successor = chain()
    generator = np.random.default_rng(1)
    state, columns = np.arange(episodes) % STATES, []
    for step in range(HORIZON):
        action = np.array([generator.choice(3, p=prior[each]) for each in state])
        following, steps = successor[state, action], np.full(episodes, step)
        observed = coded(state, steps), coded(following, steps + 1)
        rows = np.arange(episodes), steps, *observed, action, reward[state, action], steps == HORIZON - 1
        columns.append(rows)
        state = following
    names = ("episode", "step", "observation", "next_observation", "action", "add_on_reward", "terminated")
    joined = [np.stack(column, axis=1).reshape(-1, *column[0].shape[1:]) for column in zip(*columns, strict=True)]
    return dict(zip(names, joined, strict=True))


def visits() -> np.ndarray:
    """Probabilities of the states at each step, ``[HORIZON, STATES]``."""
    prior, _, successor = chain()
    visited = [np.full(STATES, 1 / STATES)]
    for _ in range(HORIZON - 1):
        visited.append(np.einsum("s,sa,sat->t", visited[-1], prior, np.eye(STATES)[successor]))
    return np.array(visited)


@pytest.fixture(scope="module")
def spread() -> float:
    return spread_of_values(Chain(), sampled(episodes=1000), GAMMA)


def test_the_spread_is_that_of_the_exact_values(spread):
    prior, reward, successor = chain()
    value, variances = np.zeros(STATES), []
    for _ in range(HORIZON):
        q = reward + GAMMA * value[successor]
        value = (prior * q).sum(axis=-1)
        variances.append((prior * (q - value[:, None]) ** 2).sum(axis=-1))
    expected = np.sqrt((visits() * np.array(variances[::-1])).sum(axis=-1).mean())
    assert spread == pytest.approx(expected, rel=0.1)
    steps = sampled(episodes=1000)
    returns = returns_to_go(steps, GAMMA).reshape(1000, HORIZON)
    np.testing.assert_allclose(
        returns[:, :-1] - GAMMA * returns[:, 1:], steps["add_on_reward"].reshape(1000, -1)[:, :-1]
    )


@pytest.mark.parametrize(("divergence", "least", "most"), [(0.001, 0.8, 1.2), (0.05, 0.5, 1.0), (0.5, 0.2, 0.8)])
def test_the_suggested_weight_has_the_stated_divergence(spread, divergence, least, most):
    """The exact policy at ω′ diverges from the prior by so many nats for a large ω′, and by fewer for a smaller one."""
    weight = Returns(0.0, HORIZON, lambda: spread).weight_at(divergence)
    prior, reward, successor = chain()
    *timed, terminal = tabular.with_clock(prior, reward, np.eye(STATES)[successor], HORIZON)
    _, _, policy = tabular.residual_value_iteration(*timed, GAMMA, weight, weight, terminal)
    policy = policy.reshape(HORIZON + 1, STATES, 3)[:HORIZON]
    kl = (policy * np.log(policy / prior)).sum(axis=-1)
    assert least < (visits() * kl).sum(axis=-1).mean() / divergence < most


def test_what_chance_decides_does_not_count():
    """A return that no action changes, with a standard deviation of 5, and an action that is worth 0.1."""
    generator, count = np.random.default_rng(0), 4000
    state, action = generator.integers(STATES, size=count), generator.integers(3, size=count)
    observed = coded(state, np.zeros(count))
    reward = generator.normal(scale=5.0, size=count) + 0.1 * (action == 1)
    steps = {"observation": observed, "next_observation": observed, "action": action, "add_on_reward": reward}
    steps |= {"terminated": np.ones(count, bool), "episode": np.arange(count), "step": np.zeros(count, int)}
    assert spread_of_values(Chain(), steps, GAMMA) < 0.3
    assert spread_of_values(Chain(), {key: column[:64] for key, column in steps.items()}, GAMMA) < 1.5


def test_continuous_actions_are_sampled():
    """In episodes of one step, 3 a varies as much as the prior's actions do, three times over."""
    prior = CheckpointPrior("pretrained:mountain-car-rl")
    space = prior.observation_space
    states = np.random.default_rng(0).uniform(space.low, space.high, size=(4000, 2)).astype(np.float32)
    with torch.no_grad():
        parameters = prior.distribution_parameters(torch.as_tensor(states))
        action = prior.sample(parameters).numpy()
        draws = prior.family.sample(parameters.expand(64, -1, -1))
    steps = {"observation": states, "next_observation": states, "action": action, "add_on_reward": 3.0 * action[:, 0]}
    steps |= {"terminated": np.ones(4000, bool), "episode": np.arange(4000), "step": np.zeros(4000, int)}
    expected = 3.0 * draws.var(dim=0).mean().sqrt().item()
    generator = torch.get_rng_state()
    assert spread_of_values(prior, steps, 0.99) == pytest.approx(expected, rel=0.1)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("reward", [0.0, 0.1, np.nan, np.inf])
def test_a_return_that_never_changes_suggests_nothing(reward):
    """Of episodes of one step, whose standard deviation is not 0 by rounding."""
    rows = sampled(episodes=300)
    steps = {key: column[rows["step"] == 0] for key, column in rows.items()} | {"terminated": np.ones(300, bool)}
    steps["add_on_reward"] = np.full(300, reward)
    returns = Returns(0.0, HORIZON, lambda: spread_of_values(Chain(), steps, GAMMA))
    assert not returns.spread > 0 and "nothing can be suggested" in returns.advice()
    with pytest.raises(ConfigurationError, match=r"^omega_prime: found 'auto', expected a number > 0"):
        choose_weight("auto", read_prior("pretrained:cartpole-il").prior, returns)


RETURNS = Returns(mean=-3.0, longest=20, estimate=lambda: 2.0)


def test_the_weight_is_the_priors_temperature_unless_it_is_given():
    own = CheckpointPrior("pretrained:cartpole-rl")
    assert choose_weight(None, own, RETURNS) == choose_weight(None, own, None) == own.temperature == 1.0
    assert choose_weight(0.3, own, RETURNS) == 0.3 and choose_weight(0, own, None) == 0.0
    assert choose_weight("auto", own, RETURNS) == RETURNS.weight_at(0.5) == 2.0


def test_a_temperature_that_is_too_small_beside_the_wish_is_raised():
    own = CheckpointPrior("pretrained:cartpole-rl")
    large, unknown = (Returns(0.0, 20, lambda spread=spread: spread) for spread in (100.0, np.nan))
    assert choose_weight(None, own, large) == large.weight_at(5.0) == 32
    assert choose_weight(None, own, unknown) == 1.0 and choose_weight(0.3, own, large) == 0.3


def test_a_missing_weight_is_asked_for_with_numbers():
    prior = CheckpointPrior("pretrained:cartpole-il")
    assert prior.temperature is None
    with pytest.raises(ConfigurationError) as error:
        choose_weight(None, prior, RETURNS)
    message = str(error.value)
    assert message.startswith("omega_prime: found None, expected a number > 0 or 'auto'") and "\n" not in message
    assert all(f"{RETURNS.weight_at(nats):g}" in message for nats in (0.05, 0.5, 5.0))


@pytest.mark.parametrize("given", [None, "auto"])
def test_nothing_is_offered_that_a_prior_without_samples_cannot_have(given):
    with pytest.raises(ConfigurationError) as error:
        choose_weight(given, CheckpointPrior("pretrained:cartpole-il"), None)
    message = str(error.value)
    assert "expected a number > 0" in message and "or 'auto'" not in message and "cannot be sampled" in message


@pytest.mark.parametrize("given", [-1, True, "much", float("nan"), [1.0]])
def test_weights_that_are_no_numbers_are_refused(given):
    with pytest.raises(ConfigurationError, match=r"^omega_prime: found "):
        choose_weight(given, CheckpointPrior("pretrained:cartpole-rl"), RETURNS)


def indifferent(observation, action, next_observation, info):
    return 0.0


@pytest.mark.parametrize(("length", "episodes"), [(500, 64), (100, 200), (20, 256)])
def test_short_episodes_are_more(length, episodes, monkeypatch):
    monkeypatch.setattr("rql_lightning.customizing.weight.spread_of_values", lambda prior, steps, gamma: steps)
    task = read_task("CartPole-v1", indifferent, {"max_episode_steps": length})
    prior = CheckpointPrior("pretrained:cartpole-rl")
    prior.attach(task.observation_space, task.action_space)
    returns = measure(prior, task, 0.99)
    steps = returns.spread
    assert steps["episode"][-1] == episodes - 1 and len(np.unique(steps["episode"])) == episodes
    starts = steps["observation"][steps["step"] == 0]
    assert len(np.unique(starts, axis=0)) == episodes and (np.diff(steps["episode"]) >= 0).all()
    assert returns.longest == length and returns.mean == 0


@pytest.mark.parametrize("shape", [(2, 2), (3,)])
def test_actions_of_any_shape(shape):
    """Of which the first number alone is worth something, over bounds that are not those of the unit box."""

    class Wide(Prior):
        def __init__(self) -> None:
            super().__init__()
            self.adopt(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Box(-3, 3, shape))
            self.family = SquashedNormal(int(np.prod(shape)))

        def distribution_parameters(self, observation: torch.Tensor) -> torch.Tensor:
            zero = torch.zeros(*observation.shape[:-1], int(np.prod(shape)))
            return torch.cat([zero, zero - 1.0], dim=-1)

    prior, count = Wide(), 3000
    states = np.random.default_rng(0).uniform(-1, 1, size=(count, 2)).astype(np.float32)
    torch.manual_seed(0)
    action = prior.sample(prior.distribution_parameters(torch.as_tensor(states))).numpy()
    reward = action.reshape(count, -1)[:, 0]
    steps = {"observation": states, "next_observation": states, "action": action, "add_on_reward": reward}
    steps |= {"terminated": np.ones(count, bool), "episode": np.arange(count), "step": np.zeros(count, int)}
    assert spread_of_values(prior, steps, 0.99) == pytest.approx(reward.std(), rel=0.15)


def test_a_prior_is_not_asked_for_everything_at_once(monkeypatch):
    asked = []

    def uniform(self: Prior, observation: torch.Tensor) -> torch.Tensor:
        asked.append(len(observation))
        return torch.zeros(len(observation), 3)

    monkeypatch.setattr(Chain, "distribution_parameters", uniform)
    transitions(Chain(), sampled(episodes=200), GAMMA)
    assert sum(asked) == 2 * 200 * HORIZON and max(asked) <= 1024
