"""What the learner gets to see: turns of the collector, the replay buffer, and minibatches ``[K, B]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from rql_lightning.algorithms import ResidualSoftQLearning, SoftQLearning
from rql_lightning.callbacks import EvaluationCallback
from rql_lightning.data import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.envs import Customization
from rql_lightning.errors import ConfigurationError, EnvironmentContractError
from rql_lightning.priors import CheckpointPrior, FunctionPrior

TRANSITION = {"observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated")}
CACHED = {"prior_parameters", ("next", "prior_parameters")}


class Counter(gym.Env):
    """Observes (episode, step): even episodes terminate after 5 steps, odd ones run into the time limit of 7."""

    seeds: list[int] = []  # noqa: RUF012 (of all instances together)
    observation_space = gym.spaces.Box(0.0, np.inf, (2,))
    action_space = gym.spaces.Discrete(3)

    def __init__(self) -> None:
        self.episode, self.count = -1, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.seeds.append(seed)
            self.episode = -1
        self.episode, self.count = self.episode + 1, 0
        return np.array([self.episode, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        observation = np.array([self.episode, self.count], np.float32)
        return observation, 100.0 + self.count, self.episode % 2 == 0 and self.count == 5, False, {}


def add_on(observation: Any, action: Any, next_observation: Any, info: Any) -> float:
    return float(action) + 0.01 * float(next_observation[1])


@pytest.fixture
def counter(register: Any) -> Iterator[str]:
    gym.register("tests/Counter-v0", entry_point=Counter, max_episode_steps=7)
    Counter.seeds.clear()
    yield register("tests/Counter-v0", Customization(add_on))
    gym.registry.pop("tests/Counter-v0")


class Recorder:
    """Mixed into an algorithm: keeps what its updates are given, and the replay buffer of that moment."""

    def update(self, batch: TensorDictBase) -> dict[str, float]:
        if not hasattr(self, "batches"):
            self.batches, self.replays, self.frames_seen = [], [], []
        self.batches.append(batch.clone())
        self.replays.append(self.data._collection.replay[:].clone())
        self.frames_seen.append(self.frames)
        return super().update(batch)


class RecordingSoftQ(Recorder, SoftQLearning):
    pass


class RecordingResidual(Recorder, ResidualSoftQLearning):
    pass


SMALL: dict[str, Any] = {"num_envs": 4, "total_frames": 96, "frames_per_batch": 32, "updates_per_batch": 3}
SMALL |= {"batch_size": 5, "warm_up_frames": 0}


def collect(fit: Any, algorithm: Any, **settings: Any) -> Any:
    fit(algorithm, ReplayDataModule(**{**SMALL, **settings}))
    return algorithm


def leaves(data: TensorDictBase) -> set[Any]:
    return set(data.keys(include_nested=True, leaves_only=True)) - {"index"}


def columns(data: TensorDictBase) -> dict[Any, Tensor]:
    """Every number of every transition, by where it stands: ``[...]`` each."""
    return {
        (key, index): column
        for key in leaves(data)
        for index, column in enumerate(data[key].reshape(*data.batch_size, -1).double().unbind(-1))
    }


# -- the basic reward ------------------------------------------------------------------------------------------------


def cartpole_basic(data: TensorDictBase) -> Tensor:
    return 1.0 - 10.0 * data["next", "observation"][..., 2].double().abs() / 0.2095


def where(data: TensorDictBase, values: Tensor) -> set[Any]:
    """The columns that hold these values somewhere."""
    return {key for key, column in columns(data).items() if bool((column - values).abs().lt(1e-5).any())}


@pytest.mark.parametrize("what", ["batches", "replays"])
def test_a_residual_learner_never_sees_the_basic_reward(fit, what):
    algorithm = collect(fit, RecordingResidual(CheckpointPrior("pretrained:cartpole-rl"), hidden_sizes=[8]))
    assert len(getattr(algorithm, what)) == 3
    for data in getattr(algorithm, what):
        assert leaves(data) == TRANSITION | CACHED
        assert where(data, cartpole_basic(data)) == set()
        wish = -data["next", "observation"][..., 0].double().abs() / 2.4
        assert where(data, wish) == {(("next", "reward"), 0)}


@pytest.mark.parametrize("what", ["batches", "replays"])
def test_the_search_for_it_can_succeed(fit, what):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), reward="basic")
    for data in getattr(algorithm, what):
        assert leaves(data) == TRANSITION
        assert where(data, cartpole_basic(data)) == {(("next", "reward"), 0)}


@pytest.mark.parametrize("reward", ["basic", "total"])
def test_a_residual_learner_refuses_it(fit, reward):
    algorithm = ResidualSoftQLearning(CheckpointPrior("pretrained:cartpole-rl"), hidden_sizes=[8])
    with pytest.raises(ConfigurationError, match=f"data.reward: found '{reward}', expected 'add_on'"):
        collect(fit, algorithm, reward=reward)
    assert algorithm.frames == 0


@pytest.mark.parametrize(("reward", "weights"), [("basic", (1, 0)), ("add_on", (0, 1)), ("total", (0.5, 1))])
def test_plain_soft_q_learning_gets_the_reward_it_asks_for(fit, counter, reward, weights):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), env=counter, reward=reward, omega=0.5)
    for batch in algorithm.batches:
        step = batch["next", "observation"][..., 1]
        expected = weights[0] * (100 + step) + weights[1] * (batch["action"] + 0.01 * step)
        torch.testing.assert_close(batch["next", "reward"], expected)


# -- minibatches, and the prior in them ------------------------------------------------------------------------------


def test_batches_have_shape_updates_by_transitions(fit):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]))
    assert [batch.batch_size for batch in algorithm.batches] == [torch.Size([3, 5])] * 3
    batch = algorithm.batches[0]
    assert batch["observation"].shape == (3, 5, 4) and batch["observation"].dtype == torch.float32
    assert batch["action"].shape == (3, 5) and batch["action"].dtype == torch.int64
    assert batch["next", "reward"].shape == batch["next", "terminated"].shape == (3, 5)
    assert batch["next", "terminated"].dtype == torch.bool and batch["next", "reward"].dtype == torch.float32


def test_every_stored_transition_is_sampled_and_no_other(fit, counter):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), env=counter, batch_size=400)
    for batch, replay in zip(algorithm.batches, algorithm.replays, strict=True):
        for data in (batch, replay):
            data["row"] = torch.cat([data["observation"], data["action"].unsqueeze(-1)], dim=-1)
        stored = {tuple(row.tolist()) for row in replay["row"]}
        assert {tuple(row.tolist()) for row in batch["row"].flatten(0, 1)} == stored
        assert not torch.equal(batch["row"][0], batch["row"][1])


@pytest.mark.parametrize("what", ["batches", "replays"])
def test_the_kept_parameters_are_what_the_prior_says(fit, what):
    prior = CheckpointPrior("pretrained:cartpole-rl")
    algorithm = collect(fit, RecordingResidual(prior, hidden_sizes=[8]))
    for data in getattr(algorithm, what):
        for place in (data, data["next"]):
            asked = prior.distribution_parameters(place["observation"])
            # Q is about 85: its rounding in products of another size is some 1e-5 times that
            torch.testing.assert_close(place["prior_parameters"], asked, rtol=0, atol=2e-4)
        assert not torch.allclose(data["prior_parameters"], data["next", "prior_parameters"])


def test_the_prior_is_asked_once_per_state_and_not_by_the_updates(fit):
    """Acting asks about 4 states, 8 times per turn; annotating about the turn's last states and ends of episodes."""
    prior, asked = FunctionPrior(lambda o, a: torch.full(a.shape, 0.5).log()), []
    original = prior.distribution_parameters

    def counting(observation: Tensor) -> Tensor:
        asked.append(len(observation))
        return original(observation)

    class Watched(ResidualSoftQLearning):
        def annotate(self, frames: TensorDictBase) -> TensorDictBase:
            assert asked in ([4] * 8, [4] * 9)  # TorchRL tries the policy once
            asked.clear()
            annotated = super().annotate(frames)
            ends = (frames["next", "observation"][:, :-1] != frames["observation"][:, 1:]).any(-1).sum()
            assert asked == [4 + ends]
            return annotated

        def update(self, batch: TensorDictBase) -> dict[str, float]:
            asked.clear()
            metrics = super().update(batch)
            assert asked == []
            return metrics

        def setup(self, stage: str) -> None:
            super().setup(stage)
            asked.clear()

    prior.distribution_parameters = counting
    algorithm = collect(fit, Watched(prior, hidden_sizes=[8]))
    assert algorithm.updates == 9 and asked == []


# -- frames ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total_frames", "warm_up_frames", "learnt_at"),
    [
        (96, 0, [32, 64, 96]),
        (97, 0, [32, 64, 96, 128]),
        (1, 0, [32]),
        (96, 32, [32, 64, 96]),
        (96, 33, [64, 96]),
        (96, 64, [64, 96]),
        (96, 65, [96]),
        (96, 95, [96]),
        (90, 89, [96]),
    ],
)
def test_frames_are_counted_in_whole_turns(fit, total_frames, warm_up_frames, learnt_at):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), total_frames=total_frames, warm_up_frames=warm_up_frames)
    assert algorithm.frames_seen == learnt_at
    assert [len(replay) for replay in algorithm.replays] == learnt_at
    assert algorithm.frames == learnt_at[-1] and algorithm.updates == 3 * len(learnt_at)


def history(frames: int) -> list[tuple[float, float]]:
    """(episode, step) of one environment's transitions; from episode 1: TorchRL resets once more after seeding."""
    endless = ((episode, step) for episode in range(1, frames + 1) for step in range(7 if episode % 2 else 5))
    return [next(endless) for _ in range(frames)]


def test_transitions_end_where_the_episode_ended(fit, counter):
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), env=counter)
    replay = algorithm.replays[-1]
    observation, following = replay["observation"], replay["next", "observation"]
    assert sorted(map(tuple, observation.tolist())) == sorted(history(24) * 4)
    # The successor is of the same episode even where the environment was reset afterwards, ...
    torch.testing.assert_close(following, observation + torch.tensor([0.0, 1.0]))
    # ... and only what terminated says so: an odd episode's last step was truncated.
    terminated = (observation[:, 0] % 2 == 0) & (observation[:, 1] == 4)
    assert torch.equal(replay["next", "terminated"], terminated)
    truncated = (observation[:, 0] % 2 == 1) & (observation[:, 1] == 6)
    assert terminated.sum() == 8 and truncated.sum() == 8


@pytest.mark.parametrize("replay_size", [48, 32, 20])
def test_the_replay_buffer_forgets_the_oldest(fit, counter, replay_size):
    settings = {"num_envs": 1, "total_frames": 128, "replay_size": replay_size}
    algorithm = collect(fit, RecordingSoftQ(hidden_sizes=[8]), env=counter, **settings)
    for frames, replay in zip((32, 64, 96, 128), algorithm.replays, strict=True):
        kept = sorted(map(tuple, replay["observation"].tolist()))
        assert kept == sorted(history(frames)[-replay_size:])


# -- seeds and environments ------------------------------------------------------------------------------------------


def test_training_seeds_are_disjoint_from_evaluation_seeds(fit, counter):
    first = []
    for seed in (0, 1, 99, 100, 12_345, 2**31 - 1, 2**32 - 1):
        Counter.seeds.clear()
        fit(SoftQLearning(hidden_sizes=[8]), ReplayDataModule(env=counter, **SMALL), seed=seed)
        assert len(set(Counter.seeds)) == 4
        assert all(0 <= used < EVALUATION_SEEDS for used in Counter.seeds)
        first.append(min(Counter.seeds))
    assert len(set(first)) >= len(first) - 1  # seeds that differ by 2³¹ may share
    assert EvaluationCallback().seed >= EVALUATION_SEEDS


def test_the_environment_is_looked_up_before_anything_is_allocated():
    data = ReplayDataModule(env="Nope-v0")
    with pytest.raises(EnvironmentContractError, match="Nope-v0"):
        data.setup("fit")


def test_spaces_are_known_after_setup(counter):
    data = ReplayDataModule(env=counter)
    data.setup("fit")
    assert data.observation_space == Counter.observation_space and data.action_space == Counter.action_space


@pytest.mark.parametrize("kind", [np.float64, np.uint8])
def test_observations_of_any_number_are_learnt_from_as_float32(fit, register, kind):
    class Typed(Counter):
        observation_space = gym.spaces.Box(0, 100, (2,), kind)

        def reset(self, **kwargs: Any) -> Any:
            return super().reset(**kwargs)[0].astype(kind), {}

        def step(self, action: Any) -> Any:
            observation, *others = super().step(action)
            return (observation.astype(kind), *others)

    gym.register("tests/Typed-v0", entry_point=Typed, max_episode_steps=7)
    try:
        algorithm = collect(
            fit, RecordingSoftQ(hidden_sizes=[8]), env=register("tests/Typed-v0", Customization(add_on))
        )
    finally:
        gym.registry.pop("tests/Typed-v0")
    batch = algorithm.batches[0]
    assert batch["observation"].dtype == batch["next", "observation"].dtype == batch["next", "reward"].dtype
    assert batch["observation"].dtype == torch.float32 and batch["observation"].max() > 1
