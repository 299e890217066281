"""Configurations of the compiled ids: in part, of NumPy's arrays, and such as make no sense, in all forms of an id."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import ConfigurationError, RqlError

HIGHWAY, PARKING = "rql_lightning/Highway-v0", "rql_lightning/Parking-v0"
COMPILED = pytest.mark.parametrize("id", [HIGHWAY, PARKING])
FEW = {HIGHWAY: {"vehicles_count": 4}, PARKING: {}}

PARTS = {
    HIGHWAY: [
        {"action": {"type": "DiscreteMetaAction"}},
        {"observation": {"vehicles_count": 7}},
        {"observation": {"see_behind": True}, "action": {"target_speeds": np.array([15.0, 20.0, 25.0])}},
    ],
    PARKING: [
        {"action": {"type": "ContinuousAction"}},
        {"observation": {"type": "KinematicsGoal"}},
        {"observation": {"scales": np.array([100, 100, 5, 5, 1, 1])}, "action": {"clip": True}},
    ],
}


@pytest.mark.parametrize(("id", "part"), [(id, part) for id, parts in PARTS.items() for part in parts])
def test_a_part_of_a_configuration_is_a_part_in_all_forms(id, part, record, sample_actions):
    compiled = gym.make_vec(id, num_envs=1, config=part, **FEW[id])
    reference = gym.make(id, config=part, render_mode="rgb_array", **FEW[id])
    actions = sample_actions(compiled, 3)
    ours, theirs = record(compiled, actions, seed=2), record(reference, actions[:, 0], seed=2)
    np.testing.assert_allclose(ours.next_observation[:, 0], theirs.next_observation, atol=1e-6)
    np.testing.assert_allclose(ours.reward[:, 0], theirs.reward, atol=1e-9)
    # Of Parking but for the front wheels, which the simulator does not keep.
    assert (compiled.render()[0] != reference.render()).mean() < (1e-3 if id == PARKING else 1e-9)
    compiled.close()
    reference.close()


def test_a_section_of_another_type_is_the_whole_section():
    env = gym.make(PARKING, config={"action": {"type": "DiscreteAction"}})
    assert env.unwrapped.config["action"] == {"type": "DiscreteAction"}
    assert isinstance(env.action_space, gym.spaces.Discrete)


NUMPYS = {
    HIGHWAY: {
        "vehicles_count": np.int64(4),
        "duration": np.float32(5),
        "ego_spacing": np.float64(1.5),
        "reward_speed_range": np.array([20, 30]),
        "config": {"centering_position": np.array([0.3, 0.5]), "scaling": np.float64(5.5)},
    },
    PARKING: {
        "reward_weights": np.array([1, 0.3, 0, 0, 0.02, 0.02]),
        "duration": np.int64(4),
        "add_walls": np.False_,
        "policy_frequency": np.int32(5),
    },
}


@COMPILED
def test_configurations_of_numpys_arrays_and_numbers(id, record, sample_actions):
    numpys, plain = NUMPYS[id], FEW[id] | ({"duration": 5} if id == HIGHWAY else {"duration": 4})
    for make_one in (gym.make, lambda id, **kwargs: gym.make_vec(id, num_envs=np.int64(1), **kwargs)):
        env, other = make_one(id, **numpys), make_one(id, **plain)
        actions = sample_actions(env, 4)
        record(env, actions, seed=2).assert_equal(record(other, actions, seed=2))
    env.render()
    env.close()


SENSELESS = [
    ({"duration": np.inf}, "duration"),
    ({"duration": float("nan")}, "duration"),
    ({"duration": "long"}, "duration"),
    ({"duration": None}, "duration"),
    ({"duration": 0}, "duration"),
    ({"policy_frequency": 0}, "policy_frequency"),
    ({"policy_frequency": 2.5}, "policy_frequency"),
    ({"config": {"duration": np.inf}}, "duration"),
]


@COMPILED
@pytest.mark.parametrize(("settings", "key"), SENSELESS)
@pytest.mark.parametrize("form", ["make", "make_vec", "make_vector_env"])
def test_timing_that_makes_no_sense_is_refused_by_name_in_all_forms(id, settings, key, form):
    calls = {
        "make": lambda: gym.make(id, **settings),
        "make_vec": lambda: gym.make_vec(id, num_envs=1, **settings),
        "make_vector_env": lambda: make_vector_env(id, 1, "total", env_kwargs=settings),
    }
    given = "env_kwargs." if form == "make_vector_env" and "config" not in settings else ""
    with pytest.raises(ConfigurationError, match=rf"^{given}{key}: found .*, expected "):
        calls[form]()


WRONG_TYPES = [
    (HIGHWAY, {"reward_speed_range": 5}, "reward_speed_range"),
    (HIGHWAY, {"vehicles_density": "dense"}, "vehicles_density"),
    (HIGHWAY, {"config": {"observation": 3}}, "observation"),
    (PARKING, {"config": {"action": None}}, "action"),
    (HIGHWAY, {"config": ["observation"]}, "config"),
    (HIGHWAY, {"omega": "much"}, "omega"),
    (HIGHWAY, {"config": {"action": {"target_speeds": 3}}}, "action.target_speeds"),
    (PARKING, {"reward_weights": "heavy"}, "reward_weights"),
    (PARKING, {"reward_weights": [1, 1, 1, 1, 1, np.inf]}, "reward_weights"),
    (PARKING, {"success_goal_reward": None}, "success_goal_reward"),
]


@pytest.mark.parametrize(("id", "settings", "key"), WRONG_TYPES)
def test_values_of_the_wrong_type_are_refused_by_name(id, settings, key):
    with pytest.raises(RqlError, match=rf"^{key}: found .*, expected "):
        gym.make_vec(id, num_envs=1, **settings)
    if key in ("observation", "action", "config", "omega"):
        with pytest.raises(RqlError, match=rf"^{key}: found .*, expected "):
            gym.make(id, **settings)


def test_a_base_that_nobody_registered_is_refused_at_once(register):
    with pytest.raises(RqlError, match=r"^base: found 'NoSuch-v0', expected a registered Gymnasium id"):
        register("NoSuch-v0", lambda *_: 0.0)
