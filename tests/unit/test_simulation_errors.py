"""What the compiled simulators refuse, and what they say."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from rql_lightning.envs import make_vector_env
from rql_lightning.envs.simulation import HighwayVectorEnv, ParkingVectorEnv
from rql_lightning.errors import ConfigurationError, EnvironmentContractError, RqlError

NOT_MODELLED = [
    (HighwayVectorEnv, {"observation": {"type": "OccupancyGrid"}}, "observation.type"),
    (HighwayVectorEnv, {"observation": {"type": "Kinematics", "order": "shuffled"}}, "observation.order"),
    (HighwayVectorEnv, {"observation": {"type": "Kinematics", "features": ["x", "y"]}}, "observation.features"),
    (HighwayVectorEnv, {"observation": {"type": "Kinematics", "absolute": True}}, "observation.absolute"),
    (HighwayVectorEnv, {"action": {"type": "ContinuousAction"}}, "action.type"),
    (HighwayVectorEnv, {"action": {"type": "DiscreteMetaAction", "lateral": False}}, "action.lateral"),
    (HighwayVectorEnv, {"other_vehicles_type": "highway_env.vehicle.behavior.LinearVehicle"}, "other_vehicles_type"),
    (HighwayVectorEnv, {"controlled_vehicles": 2}, "controlled_vehicles"),
    (HighwayVectorEnv, {"manual_control": True}, "manual_control"),
    (ParkingVectorEnv, {"add_walls": True}, "add_walls"),
    (ParkingVectorEnv, {"vehicles_count": 3}, "vehicles_count"),
    (ParkingVectorEnv, {"action": {"type": "ContinuousAction", "dynamical": True}}, "action.dynamical"),
]
SENSELESS = [
    (HighwayVectorEnv, {"lane_count": 3}, "lane_count"),
    (HighwayVectorEnv, {"lanes_count": 0}, "lanes_count"),
    (HighwayVectorEnv, {"vehicles_count": -1}, "vehicles_count"),
    (HighwayVectorEnv, {"vehicles_density": 0}, "vehicles_density"),
    (HighwayVectorEnv, {"ego_spacing": float("nan")}, "ego_spacing"),
    (HighwayVectorEnv, {"policy_frequency": 0}, "policy_frequency"),
    (HighwayVectorEnv, {"simulation_frequency": 1, "policy_frequency": 5}, "simulation_frequency"),
    (HighwayVectorEnv, {"duration": -1}, "duration"),
    (HighwayVectorEnv, {"initial_lane_id": 4}, "initial_lane_id"),
    (HighwayVectorEnv, {"reward_speed_range": [30, 20]}, "reward_speed_range"),
    (HighwayVectorEnv, {"observation": {"type": "Kinematics", "vehicles_count": 1}}, "observation.vehicles_count"),
    (HighwayVectorEnv, {"action": {"type": "DiscreteMetaAction", "target_speeds": [30, 20]}}, "action.target_speeds"),
    (ParkingVectorEnv, {"reward_weights": [1, 2]}, "reward_weights"),
    (ParkingVectorEnv, {"success_goal_reward": 0}, "success_goal_reward"),
    (ParkingVectorEnv, {"simulation_frequency": 0}, "simulation_frequency"),
]


@pytest.mark.parametrize(("kind", "config", "key"), NOT_MODELLED)
def test_what_is_not_modelled_is_refused_by_name(kind, config, key):
    with pytest.raises(ConfigurationError, match=rf"^{key}: found .*gym\.make"):
        kind(1, config)


@pytest.mark.parametrize(("kind", "config", "key"), SENSELESS)
def test_what_makes_no_sense_is_refused_by_name(kind, config, key):
    with pytest.raises(ConfigurationError, match=rf"^{key}: found"):
        kind(1, config)


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_threads(threads):
    with pytest.raises(ConfigurationError, match="threads"):
        ParkingVectorEnv(1, threads=threads)


@pytest.mark.parametrize(
    ("kind", "actions", "said"),
    [
        (HighwayVectorEnv, np.array([0, 5]), "found 5 for environment 1"),
        (HighwayVectorEnv, np.array([-1, 0]), "found -1 for environment 0"),
        (HighwayVectorEnv, np.array([0.0, 1.0]), "float64"),
        (HighwayVectorEnv, np.array([0]), r"shape \(1,\)"),
        (ParkingVectorEnv, np.array([[0.0, 0.0], [np.nan, 0.0]]), "nan.*environment 1"),
        (ParkingVectorEnv, np.zeros(2), r"shape \(2,\)"),
        (ParkingVectorEnv, np.zeros((2, 2), dtype=int), "int64"),
    ],
)
def test_actions_outside_the_space(kind, actions, said):
    env = kind(2)
    with pytest.raises(EnvironmentContractError, match="reset"):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    with pytest.raises(EnvironmentContractError, match=f"actions: .*{said}"):
        env.step(actions)


def test_states_that_do_not_fit():
    env, other = HighwayVectorEnv(3, {"vehicles_count": 4}), HighwayVectorEnv(2, {"vehicles_count": 5})
    env.reset(seed=0)
    other.reset(seed=0)
    state = env.get_state()
    for indices in ([3], [-1], [0.0], [True], 0):
        for call in (env.get_state, lambda where: env.set_state(state, where)):
            with pytest.raises(EnvironmentContractError, match="indices"):
                call(indices)
    with pytest.raises(EnvironmentContractError, match=r"'vehicles' of shape \(2, 6, 13\), expected \(2, 5, 13\)"):
        env.set_state(other.get_state(), [0, 1])
    with pytest.raises(EnvironmentContractError, match="'times'"):
        env.set_state({key: value for key, value in state.items() if key != "times"})
    with pytest.raises(EnvironmentContractError, match="seed"):
        env.reset(seed=[1, 2])
    for mask in ([True, False], np.array([True]), np.ones(3)):
        with pytest.raises(EnvironmentContractError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})


def test_references_that_do_not_fit():
    env = HighwayVectorEnv(1, {"vehicles_count": 4})
    env.reset(seed=0)
    plain = "highway_env:highway-v0"
    for reference, said in (
        (gym.make("rql_lightning/Parking-v0"), "ParkingEnv"),
        (gym.make("rql_lightning/CartPole-v0"), "CartPoleEnv"),
        (gym.make(plain, config={"vehicles_count": 4, "lanes_count": 3}), "lanes_count"),
        (gym.make(plain, config={"vehicles_count": 5}), "vehicles_count"),
    ):
        reference.reset(seed=0)
        for call in (env.load_reference, env.to_reference):
            with pytest.raises(EnvironmentContractError, match=said):
                call(0, reference)
    reference = gym.make(plain, config={"vehicles_count": 4})
    reference.reset(seed=0)
    reference.unwrapped.road.vehicles.pop()
    with pytest.raises(EnvironmentContractError, match="4 vehicles"):
        env.load_reference(0, reference)
    with pytest.raises(EnvironmentContractError, match="indices"):
        env.load_reference(1, reference)


def test_the_same_through_the_ids():
    with pytest.raises(ConfigurationError, match="manual_control"):
        make_vector_env("rql_lightning/Highway-v0", 2, "basic", env_kwargs={"config": {"manual_control": True}})
    with pytest.raises(RqlError, match="lane_count"):
        make_vector_env("rql_lightning/Highway-v0", 2, "basic", env_kwargs={"lane_count": 3})
    with pytest.raises(ConfigurationError, match="autoreset_mode"):
        gym.make_vec("rql_lightning/Highway-v0", num_envs=1, autoreset_mode="NextStep")
    with pytest.raises(ConfigurationError, match="no compiled form"):
        make_vector_env("rql_lightning/CartPole-v0", 2, "basic", reference=True)
    gym.make("rql_lightning/Highway-v0", threads=2).close()  # one environment needs none
    assert gym.make("rql_lightning/Parking-v0", add_walls=True).unwrapped.config["add_walls"], "highway-env has them"
