"""Models for planning: exact, and apart from the live environment."""

from __future__ import annotations

import copy
import pickle
import random

import gymnasium as gym
import numpy as np
import pytest
import torch

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import ConfigurationError, EnvironmentContractError
from rql_lightning.planning import CopyDynamics, SimulatorDynamics, TabularDynamics, has_simulator

HIGHWAY, PARKING = "rql_lightning/Highway-v0", "rql_lightning/Parking-v0"


def rightwards(observation, action, next_observation, info):
    return float(next_observation[0])


def actions_of(env, random):
    if isinstance(env.single_action_space, gym.spaces.Discrete):
        return random.integers(env.single_action_space.n, size=env.num_envs)
    return random.uniform(-1, 1, env.action_space.shape).astype(np.float32)


@pytest.mark.parametrize("name", [HIGHWAY, PARKING])
def test_the_simulator_is_the_environment_bit_for_bit_and_leaves_it_alone(name):
    env, random = make_vector_env(name, 3, "add_on"), np.random.default_rng(0)
    model = SimulatorDynamics()
    model.attach(env)
    observation, _ = env.reset(seed=[3, 4, 5])
    for _ in range(8):
        before = env.get_state()
        state, action = model.read(env, observation), actions_of(env, random)
        transition = model.step(state, action)
        after = env.get_state()
        assert all((before[key] == after[key]).all() for key in before)
        observation, reward, terminated, _, _ = env.step(action)
        assert (transition.observation == observation).all()
        assert transition.add_on_reward.tolist() == reward.tolist()
        assert transition.terminated.tolist() == terminated.tolist()
        live = env.get_state()
        assert all((transition.state[key] == live[key]).all() for key in transition.state)


def test_rows_of_the_simulator_do_not_depend_on_each_other():
    env, random = make_vector_env(HIGHWAY, 4, "add_on"), np.random.default_rng(0)
    model = SimulatorDynamics()
    model.attach(env)
    state = model.read(env, env.reset(seed=[3, 4, 5, 6])[0])
    action = actions_of(env, random)
    together = model.step(state, action)
    alone = model.step({key: rows[2:3] for key, rows in state.items()}, action[2:3])
    assert (together.observation[2] == alone.observation[0]).all()


def test_the_simulator_reads_highway_env_itself():
    reference = gym.make(HIGHWAY, reward="add_on")
    observation, _ = reference.reset(seed=7)
    model = SimulatorDynamics()
    model.attach(reference)
    for action in (1, 3, 2, 0):
        transition = model.step(model.read(reference, observation[np.newaxis]), np.array([action]))
        observation, reward, *_ = reference.step(action)
        assert transition.observation[0] == pytest.approx(observation, abs=1e-6)
        assert transition.add_on_reward[0] == pytest.approx(reward)


def test_copies_are_exact_and_leave_the_environment_alone():
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    model = CopyDynamics()
    model.attach(env, rightwards)
    before = pickle.dumps((env.unwrapped.state, env.unwrapped.np_random.bit_generator.state))
    state = model.read(env, observation[np.newaxis])
    first = model.step(state, np.array([1]))
    second = model.step(first.state, np.array([0]))
    again = model.step(state, np.array([1]))
    assert pickle.dumps((env.unwrapped.state, env.unwrapped.np_random.bit_generator.state)) == before
    assert (first.observation == again.observation).all()
    for action, transition in ((1, first), (0, second)):
        observation, *_ = env.step(action)
        assert (transition.observation[0] == observation).all()
        assert transition.add_on_reward[0] == pytest.approx(float(observation[0]))


def test_copies_use_the_add_on_reward_of_a_task():
    for env in (gym.make("rql_lightning/CartPole-v0"), make_vector_env("rql_lightning/CartPole-v0", 1, "basic")):
        observation, _ = env.reset(seed=0)
        model = CopyDynamics()
        model.attach(env)
        batch = np.atleast_2d(observation)
        transition = model.step(model.read(env, batch), np.array([1]))
        assert transition.add_on_reward == pytest.approx(-np.abs(transition.observation[:, 0]) / 2.4)


class Noisy(gym.Env):
    """Observes a random number; draws from the global generators as well."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        drawn = self.np_random.normal() + 0 * (random.random() + np.random.rand() + torch.rand(()).item())
        return np.array([drawn], np.float32), 0.0, False, False, {}


def test_stochastic_copies_draw_by_seeds_and_others_foresee():
    env = Noisy()
    observation, _ = env.reset(seed=0)
    foreseeing, stochastic = CopyDynamics(), CopyDynamics(stochastic=True)
    for model in (foreseeing, stochastic):
        model.attach(env, rightwards)
    assert foreseeing.deterministic and not stochastic.deterministic
    state = stochastic.read(env, observation[np.newaxis])
    draws = [
        stochastic.step(stochastic.reseed(state, np.array([seed], np.uint64)), np.array([0])).observation.item()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]
    foreseen = foreseeing.step(foreseeing.read(env, observation[np.newaxis]), np.array([0])).observation
    assert foreseen[0] == env.step(0)[0]


class Uncopied(Noisy):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle 'Surface' object")


def test_environments_that_no_model_fits():
    with pytest.raises(EnvironmentContractError, match=r"found Uncopied, which cannot be copied.*Surface.*render_mode"):
        CopyDynamics().attach(Uncopied(), rightwards)
    with pytest.raises(EnvironmentContractError, match="add_on_reward: found none for Noisy"):
        CopyDynamics().attach(Noisy())
    with pytest.raises(EnvironmentContractError, match="add_on_reward: found none for StatefulSyncVectorEnv"):
        CopyDynamics().attach(make_vector_env("CartPole-v1", 1, "basic"))
    with pytest.raises(EnvironmentContractError, match=r"SimulatorDynamics for CartPole-v1.*CopyDynamics plans"):
        SimulatorDynamics().attach(gym.make("CartPole-v1"))
    with pytest.raises(
        EnvironmentContractError, match=r"dynamics: found Noisy without a spec, expected one of gym.make"
    ):
        SimulatorDynamics().attach(Noisy())
    with pytest.raises(EnvironmentContractError, match=r"found HighwayVectorEnv.*SimulatorDynamics plans"):
        CopyDynamics().attach(make_vector_env(HIGHWAY, 1, "basic"))


def test_which_environments_have_a_simulator():
    assert has_simulator(gym.make(HIGHWAY)) and has_simulator(make_vector_env(PARKING, 1, "basic"))
    assert not has_simulator(gym.make("CartPole-v1")) and not has_simulator(Noisy())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda *_: np.nan, r"found nan in the search at observation \[.*\], action \d"),
        (lambda *_: [1, 2], "found a result of shape"),
        (lambda *_: None, "found nan"),
        (lambda *_: 1 / 0, "found an error in the search.*ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("model", [SimulatorDynamics, CopyDynamics])
def test_add_on_rewards_that_fail_in_the_search(function, message, model):
    env = gym.make(HIGHWAY) if model is SimulatorDynamics else gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    dynamics = model()
    dynamics.attach(env, function)
    with pytest.raises(EnvironmentContractError, match=message) as error:
        dynamics.step(dynamics.read(env, observation[np.newaxis]), np.array([1]))
    assert "test_planning_dynamics" in str(error.value)


def test_an_add_on_reward_may_change_its_arguments():
    def careless(observation, action, next_observation, info):
        observation[:] = 99.0
        next_observation[:] = 99.0
        return 1.0

    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    kept = copy.deepcopy(observation)
    dynamics = CopyDynamics()
    dynamics.attach(env, careless)
    transition = dynamics.step(dynamics.read(env, observation[np.newaxis]), np.array([1]))
    assert (observation == kept).all() and (transition.observation < 10).all()


@pytest.mark.parametrize(
    ("reward", "transition", "terminal", "message"),
    [
        (np.zeros(3), np.zeros((3, 2, 3)), None, "add_on_reward: found"),
        (np.zeros((3, 2)), np.zeros((3, 2, 2)), None, "transition: found"),
        (np.zeros((3, 2)), np.zeros((3, 2, 3)), None, "no distributions"),
        (np.zeros((1, 1)), np.ones((1, 1, 1)), [True, False], "terminal: found"),
    ],
)
def test_tables_that_are_no_mdp(reward, transition, terminal, message):
    with pytest.raises(ConfigurationError, match=message):
        TabularDynamics(reward, transition, terminal)
