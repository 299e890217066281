"""What networks see is the policy's own: the same in every environment that the policy is loaded into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rql_lightning import load_policy
from rql_lightning.algorithms import SoftActorCritic, SoftQLearning
from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import ConfigurationError, SpaceMismatchError
from rql_lightning.loading import build_policy, with_encoders
from rql_lightning.policies import Encoder

BOUNDED = gym.spaces.Box(np.array([-2.0, 0.0, -np.inf]), np.array([4.0, 1.0, 1.0]), dtype=np.float32)
SMALL: dict[str, Any] = {"num_envs": 2, "total_frames": 32, "frames_per_batch": 16, "updates_per_batch": 1}
SMALL |= {"batch_size": 4, "warm_up_frames": 0}


class Valley(gym.Env[Any, Any]):
    """Its bounds are an argument, its observations are not."""

    def __init__(self, scale: float = 1.0, force: float = 1.0, actions: int = 0) -> None:
        self.observation_space = gym.spaces.Box(-scale, scale, (2,))
        self.action_space = gym.spaces.Discrete(actions) if actions else gym.spaces.Box(-force, force, (1,))

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return np.array([0.5, -0.25], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return np.array([0.5, -0.25], np.float32), 1.0, False, self.time >= 5, {}


@pytest.fixture(autouse=True)
def valley() -> Any:
    gym.register("tests/Valley-v0", entry_point=Valley)
    yield
    gym.registry.pop("tests/Valley-v0", None)


def data(**env_kwargs: Any) -> ReplayDataModule:
    return ReplayDataModule(env="tests/Valley-v0", reward="basic", env_kwargs=env_kwargs, **SMALL)


def quiet(**settings: Any) -> pl.Trainer:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", max_epochs=1, enable_model_summary=False, **off, **settings)


def test_finite_bounds_become_the_unit_interval_and_goals_are_appended():
    encoder = Encoder.scaled_of(BOUNDED, [10.0])
    observation = torch.tensor([[4.0, 0.5, -7.0]])
    expected = torch.tensor([[1.0, 0.0, -7.0, float(np.arcsinh(10.0 * (0.5 - 4.0)))]])
    torch.testing.assert_close(encoder(observation), expected)
    assert encoder.size == 4
    raw = Encoder.raw_of(BOUNDED)
    assert raw.size == 3 and torch.equal(raw(observation), observation)
    for each in (encoder, raw):
        again = Encoder.from_description(each.describe())
        assert again.describe() == each.describe() and torch.equal(again(observation), each(observation))
    with pytest.raises(ConfigurationError, match=r"model\.goal_scales.*at most half"):
        Encoder.scaled_of(BOUNDED, [1.0, 1.0])


@pytest.mark.parametrize("name", ["cartpole-rl", "highway-rl", "parking-rl"])
def test_a_file_of_version_0_1_0_has_its_encoder_in_its_observation_space(name):
    checkpoint = read_checkpoint(resolve(f"pretrained:{name}"))
    description = checkpoint["rql_lightning"]["policy"]
    assert "encoder" not in description
    policy = build_policy(description)
    space = policy.observation_space
    scaled = name == "parking-rl"
    expected = Encoder.scaled_of(space, description.get("goal_scales")) if scaled else Encoder.raw_of(space)
    assert policy.encoder.describe() == expected.describe()
    weights = with_encoders(checkpoint["state_dict"], description)
    assert weights.keys() == {f"policy.{key}" for key in policy.state_dict()}


def test_a_policy_means_the_same_where_bounds_are_others(tmp_path: Path):
    """Its action used to be computed from the bounds of the environment at hand."""
    algorithm, trainer = SoftActorCritic(hidden_sizes=[8], learning_rate=0.01), quiet()
    trainer.fit(algorithm, datamodule=data(scale=1.0))
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    observation = np.array([0.5, -0.25], np.float32)
    expected = algorithm.policy.act(observation)
    other = SoftActorCritic(hidden_sizes=[8])
    quiet().test(other, datamodule=data(scale=10.0), ckpt_path=path, verbose=False)
    np.testing.assert_array_equal(other.policy.act(observation), expected)
    np.testing.assert_array_equal(load_policy(path).act(observation), expected)
    numbers = other.policy.describe()["encoder"]
    assert numbers["half_width"] == [1.0, 1.0] and other.policy.observation_space.high[0] == 10.0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"force": 1.0}, {"force": 3.0}, r"model, built for tests/Valley-v0, action space: found Box\(-1.*Box\(-3"),
        ({"scale": 1.0}, {"scale": 2.0}, r"observation space: found Box\(-1.*Box\(-2"),
        ({"actions": 2}, {"actions": 3}, r"action space: found Discrete\(2\).*Discrete\(3\)"),
    ],
)
def test_a_model_built_for_one_environment_is_not_fitted_on_another(first, second, message):
    algorithm = SoftQLearning(hidden_sizes=[8]) if "actions" in first else SoftActorCritic(hidden_sizes=[8])
    quiet().fit(algorithm, datamodule=data(**first))
    updates = algorithm.updates
    with pytest.raises(SpaceMismatchError, match=message):
        quiet().fit(algorithm, datamodule=data(**second))
    assert algorithm.updates == updates
    quiet().fit(algorithm, datamodule=data(**first))
    assert algorithm.updates == updates, "another run"


def test_a_model_fitted_on_another_task_with_the_same_spaces_is_of_that_task():
    gym.register("tests/SameValley-v0", entry_point=Valley)
    try:
        algorithm = SoftActorCritic(hidden_sizes=[8])
        quiet().fit(algorithm, datamodule=data())
        other = ReplayDataModule(env="tests/SameValley-v0", reward="basic", **SMALL)
        quiet().fit(algorithm, datamodule=other)
        assert algorithm.policy.task == "tests/SameValley-v0"
        assert (algorithm.frames, algorithm.updates) == (32, 2)
    finally:
        gym.registry.pop("tests/SameValley-v0")
