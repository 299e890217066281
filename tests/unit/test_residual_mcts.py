"""ResidualMCTS in Python: live environments, continuous actions, compiled search, bad input."""

from __future__ import annotations

import copy
import json
import random

import gymnasium as gym
import numpy as np
import pytest
import torch
from test_planning_dynamics import Noisy, rightwards

from rql_lightning.algorithms import FrozenPolicy, ResidualMCTS, ResidualSAC, ResidualSoftQLearning
from rql_lightning.envs import make_vector_env
from rql_lightning.envs.highway import careful_add_on_reward
from rql_lightning.errors import ConfigurationError, EnvironmentContractError, SpaceMismatchError
from rql_lightning.planning import CopyDynamics, SimulatorDynamics, has_simulator
from rql_lightning.priors import CheckpointPrior, FunctionPrior

HIGHWAY = "rql_lightning/Highway-v0"


def uniform(observation, action):
    return torch.full((len(action),), float(np.log(0.5)))


def test_a_live_environment_is_decided_for_and_not_changed():
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(FunctionPrior(uniform), simulations=40, horizon=8, alpha_hat=0.05, add_on_reward=rightwards)
    before = env.unwrapped.np_random.bit_generator.state
    action = planner.act(observation, env)
    assert env.action_space.contains(action) and env.unwrapped.np_random.bit_generator.state == before
    assert tuple(env.unwrapped.state) == pytest.approx(observation)
    assert planner.act(observation, env) == action  # the same state, the same decision
    assert planner.plan().visits.sum() == 40


def test_global_random_numbers_are_left_alone():
    env = Noisy()
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(FunctionPrior(uniform), simulations=5, horizon=2, add_on_reward=rightwards)
    states = [(random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())]
    planner.act(observation, env)
    states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
    assert states[0] == states[1]


def test_one_simulation_decides_for_what_it_tried():
    # All rewards are negative, and Q_R of the action without visits is 0.
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(FunctionPrior(uniform), simulations=1, horizon=2, add_on_reward=lambda *_: -1.0)
    for _ in range(2):
        action = planner.act(observation, env)
        assert planner.plan().visits[action] == 1
        observation, *_ = env.step(action)


@pytest.mark.parametrize("reuse", ["nothing", "states", "tree"])
def test_a_decision_that_failed_changes_no_later_one(reuse):
    failing = False

    def prior(observation, action):
        if failing:
            raise RuntimeError("the prior is gone")
        return uniform(observation, action)

    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    settings = {"simulations": 20, "horizon": 3, "add_on_reward": rightwards, "reuse": reuse}
    planner = ResidualMCTS(FunctionPrior(prior), **settings)
    observation, *_ = env.step(planner.act(observation, env))
    failing = True
    with pytest.raises(EnvironmentContractError, match="the prior is gone"):
        planner.act(observation, env)
    with pytest.raises(EnvironmentContractError, match="found no decision"):
        planner.plan()
    failing = False
    planner.act(observation, env)
    fresh = ResidualMCTS(FunctionPrior(prior), **settings)
    fresh.act(observation, env)
    assert planner.plan().q_residual.tolist() == fresh.plan().q_residual.tolist()


def test_stochastic_copies_do_not_foresee():
    # The reward is the next random number, whatever the action: foreseeing copies believe in one, seeds in the mean.
    env, values = Noisy(), {}
    observation, _ = env.reset(seed=0)
    for stochastic in (False, True):
        model = CopyDynamics(stochastic=stochastic)
        planner = ResidualMCTS(
            FunctionPrior(uniform), 400, horizon=1, dynamics=model, add_on_reward=rightwards, max_successors=0
        )
        planner.act(observation, env)
        values[stochastic] = planner.plan().q_residual
    foreseen = env.step(0)[0][0]
    assert values[False] == pytest.approx([foreseen, foreseen])
    assert np.abs(values[True]).max() < 0.3 and abs(foreseen) > 0.1


def test_several_environments_at_once_are_decided_as_alone():
    env = make_vector_env(HIGHWAY, 3, "add_on")
    observation, _ = env.reset(seed=[1, 2, 3])
    prior = CheckpointPrior("pretrained:highway-rl")
    actions = ResidualMCTS(prior, gamma=0.8).act(observation, env)
    for row, seed in enumerate((1, 2, 3)):
        single = make_vector_env(HIGHWAY, 1, "add_on")
        observation, _ = single.reset(seed=[seed])
        assert ResidualMCTS(prior, gamma=0.8).act(observation, single)[0] == actions[row]


@pytest.mark.parametrize("name", ["rl", "il"])
@pytest.mark.parametrize(("variant", "wish"), [("paper", None), ("authors", None), ("paper", careful_add_on_reward)])
def test_the_compiled_search_is_the_other_bit_for_bit(name, variant, wish, monkeypatch):
    env = make_vector_env(HIGHWAY, 3, "add_on")
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("rql_lightning.planning.planner.compiled_search", lambda *_: None)
        planner = ResidualMCTS(
            CheckpointPrior(f"pretrained:highway-{name}"), 60, gamma=0.8, variant=variant, add_on_reward=wish
        )
        observation, _ = env.reset(seed=[11, 12, 13])
        for _ in range(4):
            action = planner.act(observation, env)
            observation, *_ = env.step(action)
        assert (planner.planner._compiled is not None) == compiled
        plans = [planner.plan(row) for row in range(3)]
        numbers = [(plan.q_residual.tolist(), plan.value.tolist(), plan.visited.tolist()) for plan in plans]
        vehicles = [plan.state["vehicles"].tolist() for plan in plans]
        found.append((action.tolist(), numbers, vehicles))
    assert found[0] == found[1]


def test_another_add_on_reward_is_searched_with_the_model_of_the_task():
    env = make_vector_env(HIGHWAY, 1, "add_on")
    observation, _ = env.reset(seed=[1])

    def leftmost(observation, action, next_observation, info):
        return -10.0 * float(info["rewards"]["right_lane_reward"])

    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), gamma=0.8, add_on_reward=leftmost)
    for _ in range(4):
        observation, *_, info = env.step(planner.act(observation, env))
    assert planner.planner._compiled is None and info["rewards"]["right_lane_reward"][0] == 0.0


def gaussian(observation, action):
    return torch.distributions.Normal(0.5, 0.3).log_prob(action).sum(-1)


class Line(gym.Env):
    """The state moves by the action."""

    observation_space, action_space = gym.spaces.Box(-9, 9, (1,)), gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.x = self.x + action
        return self.x.astype(np.float32), 0.0, False, False, {}


def test_continuous_actions_on_a_grid():
    env = Line()
    observation, _ = env.reset(seed=0)
    settings = {"horizon": 2, "simulations": 400, "add_on_reward": rightwards, "grid": 5}
    # Without the prior, the rightmost cell is best; with a heavy one, that with the highest density, 0.4.
    free = ResidualMCTS(FunctionPrior(gaussian), omega_prime=0.0, alpha_hat=0.05, **settings)
    assert free.act(observation, env) == pytest.approx([0.8])
    bound = ResidualMCTS(FunctionPrior(gaussian), omega_prime=100.0, alpha_hat=100.0, **settings)
    assert bound.act(observation, env) == pytest.approx([0.4])
    assert bound.plan().actions.ravel() == pytest.approx([-0.8, -0.4, 0.0, 0.4, 0.8])
    density = np.exp(-0.5 * ((bound.plan().actions.ravel() - 0.5) / 0.3) ** 2)
    assert bound.plan().prior == pytest.approx(density / density.sum(), abs=1e-6)


def test_continuous_actions_sampled_from_the_prior():
    prior = CheckpointPrior("pretrained:mountain-car-rl")
    env = gym.make("rql_lightning/MountainCarContinuous-v0")
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(prior, 30, horizon=3, omega_prime=0.1, alpha_hat=0.1, samples=8)
    action = planner.act(observation, env)
    plan = planner.plan()
    assert env.action_space.contains(action) and action in plan.actions and len(plan.actions) == 8
    assert plan.prior == pytest.approx(np.full(8, 1 / 8)) and len(np.unique(plan.actions)) == 8
    assert (planner.act(observation, env) == action).all()
    # ω′ ≠ α̂ leaves (ω′ − α̂) log π in the exponent.
    other = ResidualMCTS(prior, 30, horizon=3, omega_prime=0.3, alpha_hat=0.1, samples=8)
    other.act(observation, env)
    tree = other.planner._tree
    root = tree.roots.root[0]
    log_prob = prior.log_prob(np.repeat(observation[np.newaxis], 8, axis=0), other.plan().actions)
    excess = tree.nodes.weighted_log_prior[root] - 0.1 * np.log(1 / 8)
    assert excess == pytest.approx(0.2 * log_prob, abs=1e-3)  # actions in [−1, 1] are the environment's units here


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"simulations": 0}, "model.simulations: found 0, expected an integer >= 1"),
        ({"horizon": 0}, "model.horizon: found 0"),
        ({"horizon": 2.5}, "model.horizon: found 2.5"),
        ({"epsilon": -0.1}, "model.epsilon: found -0.1"),
        ({"gamma": 1.5}, "model.gamma: found 1.5"),
        ({"alpha_hat": 0.0}, "model.alpha_hat: found 0.0"),
        ({"omega_prime": -1.0}, "model.omega_prime: found -1.0"),
        ({"reuse": "all"}, "model.reuse: found 'all'"),
        ({"variant": "theirs"}, "model.variant: found 'theirs'"),
        ({"max_successors": -1}, "model.max_successors: found -1"),
        ({"seed": -1}, "model.seed: found -1"),
        ({"alpha_hat": "auto"}, "model.alpha_hat: found 'auto'"),
        ({"simulations": True}, "model.simulations: found True"),
        ({"seed": 2**64}, "model.seed: found 18446744073709551616"),
        ({"dynamics": "copy"}, "model.dynamics: found 'copy', expected a rql_lightning.planning.Dynamics"),
        ({"add_on_reward": 3}, "model.add_on_reward: found 3, expected a function"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ResidualMCTS(FunctionPrior(uniform), **settings)


@pytest.mark.parametrize("algorithm", [ResidualMCTS, ResidualSAC, ResidualSoftQLearning, FrozenPolicy])
def test_a_function_is_no_prior(algorithm):
    with pytest.raises(ConfigurationError, match=r"model.prior: found .*, expected a Prior, such as .*FunctionPrior"):
        algorithm(uniform)


def test_integers_of_numpy_are_integers():
    env = gym.make("CartPole-v1")
    settings = {"simulations": np.int64(5), "horizon": np.int32(2), "seed": np.uint64(3)}
    planner = ResidualMCTS(FunctionPrior(uniform), **settings, add_on_reward=rightwards)
    planner.act(env.reset(seed=0)[0], env)
    assert json.loads(json.dumps(planner.planner.statistics()))["simulations"] == 5
    with pytest.raises(ConfigurationError, match="row: found 1, expected an index below 1"):
        planner.plan(1)


def test_bad_combinations():
    discrete, line = gym.make("CartPole-v1"), Line()
    seen = {"add_on_reward": rightwards}
    with pytest.raises(ConfigurationError, match=r"model.grid: found 3, expected null.*discrete"):
        ResidualMCTS(FunctionPrior(uniform), grid=3, **seen).act(discrete.reset()[0], discrete)
    for settings in ({}, {"grid": 3, "samples": 3}):
        with pytest.raises(ConfigurationError, match=r"model.grid, model.samples: found .*, expected exactly one"):
            ResidualMCTS(FunctionPrior(gaussian), **settings, **seen).act(line.reset()[0], line)
    for settings, message in (
        ({"grid": 1}, "model.grid: found 1, expected an integer >= 2"),
        ({"grid": 5000}, "model.grid: found 5000, expected at most 1024 actions"),
        ({"samples": 1}, "model.samples: found 1, expected an integer in"),
        ({"samples": 4}, "model.samples: found 4, expected null for a prior that cannot be sampled"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            ResidualMCTS(FunctionPrior(gaussian), **settings, **seen).act(line.reset()[0], line)
    with pytest.raises(SpaceMismatchError, match=r"pretrained:highway-rl, observation space: found"):
        ResidualMCTS(CheckpointPrior("pretrained:highway-rl")).act(discrete.reset()[0], discrete)


def test_as_many_observations_as_environments():
    env = make_vector_env(HIGHWAY, 2, "add_on")
    observation, _ = env.reset(seed=[1, 2])
    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), 2, gamma=0.8)
    with pytest.raises(EnvironmentContractError, match=r"state: found 2 rows of .*, expected 3, one per observation"):
        planner.act(np.concatenate([observation, observation[:1]]), env)


def test_a_plan_before_a_decision():
    with pytest.raises(EnvironmentContractError, match="found no decision"):
        ResidualMCTS(FunctionPrior(uniform)).plan()


def test_the_default_model_is_the_simulator_where_there_is_one():
    env = gym.make(HIGHWAY)
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), 5, gamma=0.8)
    planner.act(observation, env)
    assert isinstance(planner.planner.dynamics, SimulatorDynamics)


def test_wrappers_that_a_model_does_not_know_of():
    scalar = gym.wrappers.TransformObservation(gym.make(HIGHWAY), lambda observation: 0 * observation, None)
    assert not has_simulator(scalar)
    with pytest.raises(EnvironmentContractError, match=r"found the wrapper TransformObservation.*CopyDynamics plans"):
        SimulatorDynamics().attach(scalar)
    for name, model in ((HIGHWAY, SimulatorDynamics), ("rql_lightning/CartPole-v0", CopyDynamics)):
        several = make_vector_env(name, 2, "add_on")
        wrapped = gym.wrappers.vector.TransformObservation(several, lambda observation: 0 * observation)
        with pytest.raises(EnvironmentContractError, match="found the wrapper TransformObservation"):
            model().attach(wrapped, rightwards)


def test_environments_that_reset_themselves_a_step_late():
    env = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    with pytest.raises(EnvironmentContractError, match=r"NEXT_STEP.*expected DISABLED or SAME_STEP"):
        CopyDynamics().attach(env, rightwards)


def test_an_action_that_was_never_tried_is_not_taken():
    env = Line()
    observation, _ = env.reset(seed=0)
    planner = ResidualMCTS(
        FunctionPrior(gaussian), 20, horizon=1, omega_prime=0.01, grid=101, add_on_reward=lambda *_: -1.0
    )
    planner.act(observation, env)
    plan = planner.plan()
    assert plan.visits[plan.chosen] > 0 and (plan.visits == 0).any()


class Hidden(Noisy):
    """Always observes the same; the reward depends on a counter of the actions."""

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return super().reset(seed=seed)

    def step(self, action):
        self.count += int(action)
        return np.zeros(1, np.float32), 0.0, False, False, {"count": self.count}


@pytest.mark.parametrize("reuse", ["states", "tree"])
def test_states_that_look_alike_are_not_reused(reuse):
    def count(observation, action, next_observation, info):
        return float(info["count"])

    values = []
    for kept in ("nothing", reuse):
        env = Hidden()
        observation, _ = env.reset(seed=0)
        planner = ResidualMCTS(FunctionPrior(uniform), 30, horizon=3, add_on_reward=count, reuse=kept)
        action = planner.act(observation, env)
        env.step(1 - action)  # somebody else's action
        planner.act(observation, env)
        values.append(planner.plan().q_residual.tolist())
    assert values[0] == values[1]


def test_errors_of_an_environment_in_the_search():
    class Failing(Line):
        def step(self, action):
            raise RuntimeError("out of road")

    env = Failing()
    planner = ResidualMCTS(FunctionPrior(gaussian), 5, grid=3, add_on_reward=rightwards)
    with pytest.raises(
        EnvironmentContractError, match=r"error of a copy of Failing at action .* in the search.*out of"
    ):
        planner.act(env.reset()[0], env)


def test_observations_of_another_shape():
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    planner = ResidualMCTS(FunctionPrior(uniform), 5, add_on_reward=rightwards)
    with pytest.raises(ConfigurationError, match=r"observation: found \(1, 4\), expected the shape \[4\]"):
        planner.act(np.zeros((1, 4)), env)


# -- sharing, windows and random numbers -----------------------------------------------------------------------------


def leftwards(observation, action, next_observation, info):
    return -rightwards(observation, action, next_observation, info)


def test_planners_that_share_a_model_keep_their_own_wishes():
    env, model = gym.make("CartPole-v1"), CopyDynamics()
    observation, _ = env.reset(seed=0)
    planners = [
        ResidualMCTS(FunctionPrior(uniform), simulations=20, horizon=3, dynamics=model, add_on_reward=wish)
        for wish in (rightwards, leftwards)
    ]
    found = []
    for planner in (*planners, planners[0]):
        planner.act(observation, env)
        found.append(planner.plan().q_residual)
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])


def test_an_environment_with_a_window_is_copied():
    env = gym.make("MountainCarContinuous-v0", render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    env.render()
    planner = ResidualMCTS(FunctionPrior(gaussian), simulations=5, horizon=2, grid=3, add_on_reward=rightwards)
    planner.act(observation, env)
    assert env.render().shape == (400, 600, 3)


class Diced(gym.Env):
    """Returns the next of its own random numbers, which no seed of the environment's reaches."""

    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.dice, self.old_dice = np.random.default_rng(0), np.random.RandomState(0)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.array([self.dice.random() * self.old_dice.rand()], np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("stochastic", [False, True])
def test_any_generator_of_numpy_is_drawn_anew_on_request(stochastic):
    env = Diced()
    observation, _ = env.reset()

    def wish(observation, action, next_observation, info):
        return next_observation[0]

    model = CopyDynamics(stochastic=stochastic)
    planner = ResidualMCTS(FunctionPrior(uniform), simulations=400, horizon=1, dynamics=model, add_on_reward=wish)
    planner.act(observation, env)
    foreseen = copy.deepcopy(env).step(0)[0][0]
    error = np.abs(planner.plan().q_residual - foreseen)
    assert (error < 1e-6).all() if not stochastic else (error > 1e-3).all()


def no_wish_at_all(observation, action, next_observation, info):
    return 0.0


def test_without_a_wish_the_sample_closest_to_the_priors_mode_is_taken():
    env = gym.make("MountainCarContinuous-v0")
    observation, _ = env.reset(seed=0)
    prior = CheckpointPrior("pretrained:mountain-car-rl")
    settings = {"samples": 8, "simulations": 60, "horizon": 2, "omega_prime": 0.1, "alpha_hat": 0.1}
    planner = ResidualMCTS(prior, **settings, add_on_reward=no_wish_at_all)
    for _ in range(5):
        action = planner.act(observation, env)
        plan, mode = planner.plan(), prior.decide(observation[np.newaxis]).action[0]
        visited = plan.actions[plan.visits > 0]
        pre_tanh = np.arctanh(np.clip(np.concatenate([visited, mode[np.newaxis]]), -1 + 1e-7, 1 - 1e-7))
        nearest = visited[np.abs(pre_tanh[:-1] - pre_tanh[-1]).sum(axis=1).argmin()]
        assert action == pytest.approx(nearest)
        observation, *_ = env.step(action)


def test_a_vector_of_reference_environments_is_planned_for_by_the_simulator():
    import rql_lightning  # noqa: F401  (registers the ids)

    env = gym.make_vec(HIGHWAY, num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "Disabled"})
    observation, _ = env.reset(seed=[3, 4])
    planner = ResidualMCTS(CheckpointPrior("pretrained:highway-rl"), simulations=10, horizon=2, gamma=0.8)
    actions = planner.act(observation, env)
    assert isinstance(planner.planner.dynamics, SimulatorDynamics)
    compiled = make_vector_env(HIGHWAY, 2, "add_on")
    observation, _ = compiled.reset(seed=[3, 4])
    assert np.array_equal(actions, planner.act(observation, compiled))


def test_copies_of_a_fully_observed_environment_are_simulated_once(monkeypatch):
    """It saves steps and changes no decision."""
    simulated = []
    step = CopyDynamics.step
    monkeypatch.setattr(
        CopyDynamics, "step", lambda self, *given: simulated.append(len(given[1])) or step(self, *given)
    )
    taken, steps = [], []
    for known in (False, True):
        env, model = gym.make("CartPole-v1"), CopyDynamics(fully_observed=known)
        observation, _ = env.reset(seed=1)
        planner = ResidualMCTS(
            FunctionPrior(uniform), simulations=30, horizon=6, alpha_hat=0.1, dynamics=model, add_on_reward=rightwards
        )
        simulated.clear()
        actions = []
        for _ in range(8):
            actions.append(int(planner.act(observation, env)))
            observation, *_ = env.step(actions[-1])
        taken.append(actions)
        steps.append(sum(simulated))
    assert taken[0] == taken[1]
    assert steps[1] < 0.8 * steps[0]
