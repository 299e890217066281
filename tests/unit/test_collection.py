"""The running parts of the data module with a learner that only acts: the buffer, its file, actions and numbers."""

from __future__ import annotations

import gc
import io
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDictBase
from torch import Tensor

from rql_lightning.algorithms import SoftActorCritic, SoftQLearning
from rql_lightning.data import ReplayDataModule, memory
from rql_lightning.data.buffer import with_observations
from rql_lightning.data.collection import Collection
from rql_lightning.envs.registration import make_vector_env
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError, SpaceMismatchError

IMAGE = gym.spaces.Box(0, 255, (24, 24, 3), np.uint8)
TWO = gym.spaces.Discrete(2)


class Typed(gym.Env):
    """Observes its step count in any space, asserts that it is given elements of its action space, never ends."""

    opened: list[Typed] = []  # noqa: RUF012 (of all instances together)

    def __init__(self, observation_space: gym.Space = IMAGE, action_space: gym.Space = TWO, **late: Any) -> None:
        self.observation_space, self.action_space, self.late = observation_space, action_space, late
        self.closed = False
        self.opened.append(self)

    def observe(self) -> np.ndarray:
        value = self.late.get("late_observation", self.steps) if self.steps >= 3 else self.steps
        return np.full(self.observation_space.shape, value, self.observation_space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is no element of {self.action_space}"
        self.steps += 1
        if self.steps >= 3 and "late_error" in self.late:
            raise self.late["late_error"]
        return self.observe(), self.late.get("late_reward", 1.0) if self.steps >= 3 else 1.0, False, False, {}

    def close(self) -> None:
        self.closed = True


class Extremes:
    """Acts at random, in continuous spaces by their bounds as float32 has them."""

    explored: tuple[str, ...] = ("action",)
    noise_state = None
    device = torch.device("cpu")

    def __init__(self, space: gym.Space) -> None:
        self.space = space
        self.turns: list[TensorDictBase] = []

    def explore(self, observation: Tensor) -> dict[str, Tensor]:
        assert observation.dtype == torch.float32
        if isinstance(self.space, gym.spaces.Discrete):
            return {"action": torch.randint(int(self.space.n), observation.shape[:1])}
        low, high = (torch.from_numpy(bound.astype(np.float32)) for bound in (self.space.low, self.space.high))
        upper = torch.rand(len(observation), *self.space.shape) < 0.5
        return {"action": torch.where(upper, high, low)}

    def annotate(self, frames: TensorDictBase) -> TensorDictBase:
        self.turns.append(frames.clone())
        return frames


Make = Callable[..., Collection]


@pytest.fixture
def typed() -> Iterator[str]:
    gym.register("tests/Typed-v0", entry_point=Typed, disable_env_checker=True)
    Typed.opened.clear()
    yield "tests/Typed-v0"
    gym.registry.pop("tests/Typed-v0")


@pytest.fixture
def collect(typed: str) -> Make:
    """``(observation_space, action_space, …) →`` a collection of 4 environments and turns of 8 frames."""

    def make(
        observation: gym.Space = IMAGE, action: gym.Space = TWO, size: int = 100, restored: Any = None, **late: Any
    ) -> Collection:
        kwargs = {"observation_space": observation, "action_space": action, **late}
        env = make_vector_env(typed, 4, "basic", env_kwargs=kwargs)
        return Collection(env, Extremes(action), 8, size, 6, seed=0, restored=restored, source="replay.pt")

    return make


def numbers(dtype: Any, shape: tuple[int, ...] = (2,)) -> gym.spaces.Box:
    return gym.spaces.Box(0, 100, shape, dtype)


def as_file(state: dict[str, Any]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


# -- what the buffer keeps -------------------------------------------------------------------------------------------

KEPT = {"uint8": torch.uint8, "int8": torch.int8, "int16": torch.int16, "float16": torch.float16}
WIDE = dict.fromkeys(("int32", "int64", "float32", "float64"), torch.float32)


@pytest.mark.parametrize(("kind", "kept"), {**KEPT, **WIDE}.items())
def test_observations_are_kept_in_their_own_type_and_learnt_from_in_float32(collect, kind, kept):
    collection = collect(numbers(kind))
    for _ in range(2):
        collection.turn()
    stored, batch = collection.replay[:], collection.sample(3)
    assert stored["observation"].dtype == stored["next", "observation"].dtype == kept
    assert sorted(stored["observation"][:, 0].tolist()) == sorted([0, 1, 2, 3] * 4)
    for data in (batch, *collection.learner.turns):
        assert data["observation"].dtype == data["next", "observation"].dtype == torch.float32
        assert torch.equal(data["next", "observation"], data["observation"] + 1)


def test_a_learner_annotates_environments_by_time_and_the_buffer_keeps_one_environment_after_the_other(collect):
    collection = collect(numbers("float32"), size=8)
    collection.turn()
    (turn,) = collection.learner.turns
    assert turn.batch_size == torch.Size([4, 2])
    assert turn["observation"][..., 0].tolist() == [[0, 1]] * 4
    for key in ("action", ("next", "reward")):
        assert torch.equal(collection.replay[:][key], turn[key].reshape(-1))


def test_the_buffer_keeps_what_acting_knew(collect):
    """Such as the parameters of a prior, which need not be asked again about the state that was acted in."""
    collection = collect(numbers("float32"))
    learner, act = collection.learner, collection.learner.explore
    collection.close()

    class Knowing(Extremes):
        explored = ("action", "prior_parameters")

        def explore(self, observation: Tensor) -> dict[str, Tensor]:
            return {**act(observation), "prior_parameters": 2 * observation}

        def annotate(self, frames: TensorDictBase) -> TensorDictBase:
            frames["next", "prior_parameters"] = 2 * frames["next", "observation"]
            return frames

    collection = Collection(collection.env, Knowing(learner.space), 8, 100, 6, seed=0)
    collection.turn()
    for data in (collection.replay[:], collection.sample(3)):
        for place in (data, data["next"]):
            assert torch.equal(place["prior_parameters"], 2 * place["observation"])


@pytest.mark.parametrize("shape", [(), (1,), (2, 3)])
def test_observations_of_any_shape(collect, shape):
    collection = collect(numbers("float64", shape))
    collection.turn()
    assert collection.sample(3)["observation"].shape == (3, 2, *shape)


# -- its file --------------------------------------------------------------------------------------------------------


def test_a_file_holds_what_is_in_the_buffer_and_no_more(collect):
    collection = collect(size=5000)
    collection.turn()
    images = 8 * 2 * 24 * 24 * 3
    assert images < len(as_file(collection.state()).getvalue()) < images + 50_000
    assert collection.replay.storage._storage.bytes() < 1.01 * 5000 / 8 * images + 100_000, "as bytes, not as floats"


TURNS = {"in part": 1, "to the last place": 3, "once round": 4, "twice round": 7}


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("full_capacity", [False, True], ids=["as it is written", "as it was written"])
def test_a_restored_buffer_goes_on_bit_for_bit(collect, turns, full_capacity):
    collection = collect(size=24)
    for _ in range(turns):
        collection.turn()
    state = collection.state()
    if full_capacity:  # earlier versions wrote the whole storage, with observations as float32, and no returns
        state["replay"] = collection.replay.state_dict()
        tensors = state["replay"]["_storage"]["_storage"]
        for key in ("observation", "next.observation"):
            assert tensors[key].shape == (24, 24, 24, 3)
            tensors[key] = tensors[key].float()
        del state["returns"]
    resumed = collect(size=24, restored=torch.load(as_file(state), weights_only=True))
    assert len(resumed.replay) == min(24, 8 * turns)

    def continued(collection: Collection) -> list[TensorDictBase]:
        torch.manual_seed(3)
        frames = collection.learner.turns[0].reshape(-1).clone()
        frames["observation"] += 100
        collection.replay.extend(with_observations(frames, torch.uint8))
        return [collection.replay[:].clone(), collection.sample(3)]

    resumed.learner.turns = collection.learner.turns
    for own, other in zip(continued(collection), continued(resumed), strict=True):
        assert set(own.keys(True, True)) == set(other.keys(True, True))
        assert all(torch.equal(own[key], other[key]) for key in own.keys(True, True))
        assert all(own[key].dtype == other[key].dtype for key in own.keys(True, True))
    assert collection.replay.state_dict()["_writer"] == resumed.replay.state_dict()["_writer"]


def test_a_damaged_state_is_refused_and_the_environments_are_closed(collect):
    collection = collect()
    collection.turn()
    state = collection.state()
    del state["replay"]["_writer"]["_cursor"]
    Typed.opened.clear()
    with pytest.raises(CheckpointError, match=r"replay\.pt: found a damaged replay buffer"):
        collect(restored=state)
    assert Typed.opened and all(env.closed for env in Typed.opened)


def test_transitions_of_another_kind_are_not_mixed_into_a_restored_buffer(collect):
    collection = collect(numbers("float32"))
    collection.turn()
    resumed = collect(numbers("float32", (3,)), restored=collection.state())
    expected = r"replay\.pt: found .* 'next\.observation' of shape \(2,\) .*, expected .* of shape \(3,\)"
    with pytest.raises(CheckpointError, match=expected):
        resumed.turn()
    assert len(resumed.replay) == 8


# -- memory ----------------------------------------------------------------------------------------------------------


def test_a_buffer_larger_than_memory_is_refused_and_one_larger_than_what_is_free_warned_of(monkeypatch):
    monkeypatch.setattr(memory, "memory", lambda: (10_000, 4_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory.check_memory(40, 100, 1)
    with pytest.warns(UserWarning, match=r"data\.replay_size: found 41"):
        memory.check_memory(41, 100, 1)
    with pytest.warns(UserWarning, match="in 2 processes"):
        memory.check_memory(50, 100, 2)
    with pytest.raises(ConfigurationError, match=r"data\.replay_size: found 101, expected at most 100: at 100 bytes"):
        memory.check_memory(101, 100, 1)
    with pytest.raises(ConfigurationError, match="at most 50"):
        memory.check_memory(51, 100, 2)


@pytest.mark.parametrize(("content", "limit"), [("1000\n", 1000), ("max\n", None), ("", None)])
def test_the_limit_of_a_container_counts(monkeypatch, tmp_path, content, limit):
    machine, _ = memory.memory() or pytest.skip("the size of the memory is not reported here")
    (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "missing")))
    total, available = memory.memory()
    assert total == limit if limit else total >= machine
    assert 0 < available <= total


def _unknown(name: str) -> int:
    raise ValueError(f"unrecognized configuration name {name}")


@pytest.mark.parametrize("sysconf", [None, _unknown, lambda name: -1], ids=["missing", "unknown name", "no number"])
def test_nothing_is_checked_where_the_memory_cannot_be_determined(monkeypatch, sysconf):
    """On Windows, ``os.sysconf`` does not exist."""
    if sysconf is None:
        monkeypatch.delattr(memory.os, "sysconf")
    else:
        monkeypatch.setattr(memory.os, "sysconf", sysconf)
    assert memory.memory() is None
    memory.check_memory(10**15, 1000, 1)


def test_a_buffer_of_images_is_measured_in_its_own_type(fit, typed, monkeypatch):
    checked = []
    monkeypatch.setattr("rql_lightning.data.replay.check_memory", lambda *numbers: checked.append(numbers))
    settings = {"num_envs": 4, "frames_per_batch": 8, "batch_size": 2, "updates_per_batch": 1, "warm_up_frames": 0}
    data = ReplayDataModule(env=typed, reward="basic", total_frames=8, replay_size=50, **settings)
    fit(SoftQLearning(hidden_sizes=[4]), data)
    ((size, measured, processes),) = checked
    assert (size, processes) == (50, 1) and 2 * 24 * 24 * 3 < measured < 2 * 24 * 24 * 3 + 50


# -- what environments are given and return --------------------------------------------------------------------------

CONTINUOUS = {
    "float64": gym.spaces.Box(np.array([-0.3, 0.0]), np.array([0.1, 1e-3]), dtype=np.float64),
    "float32": gym.spaces.Box(-0.3, 0.1, (2,), np.float32),
    "float16": gym.spaces.Box(-0.3, 0.1, (2,), np.float16),
}
DISCRETE = {kind: gym.spaces.Discrete(3, dtype=np.dtype(kind).type) for kind in ("int8", "int16", "int32", "int64")}


@pytest.mark.parametrize("space", [*CONTINUOUS.values(), *DISCRETE.values()], ids=[*CONTINUOUS, *DISCRETE])
def test_actions_are_elements_of_the_action_space(collect, space):
    collection = collect(numbers("float32"), space)
    for _ in range(3):
        collection.turn()
    kept = collection.replay[:]["action"]
    assert kept.dtype == (torch.int64 if isinstance(space, gym.spaces.Discrete) else torch.float32)
    assert len(kept.unique()) > 1, "the assertion in the environment met more than one action"


@pytest.mark.parametrize("space", [*CONTINUOUS.values(), *DISCRETE.values()], ids=[*CONTINUOUS, *DISCRETE])
def test_an_environment_that_asserts_it_is_trained_on(fit, typed, space):
    algorithm = SoftQLearning if isinstance(space, gym.spaces.Discrete) else SoftActorCritic
    kwargs = {"observation_space": numbers("float32"), "action_space": space}
    settings = {"num_envs": 4, "frames_per_batch": 8, "batch_size": 4, "updates_per_batch": 2, "warm_up_frames": 0}
    learner = algorithm(hidden_sizes=[4])
    fit(learner, ReplayDataModule(env=typed, reward="basic", env_kwargs=kwargs, total_frames=32, **settings))
    assert learner.updates == 8


@pytest.mark.parametrize("place", ["observation", "action"])
def test_a_number_type_that_pytorch_does_not_compute_with(collect, place):
    odd = numbers("uint16") if place == "observation" else gym.spaces.Discrete(3, dtype=np.uint16)
    with pytest.raises(SpaceMismatchError, match=f"{place} space: found .*uint16, expected one of .*float32"):
        collect(**{"observation": numbers("float32"), "action": TWO, place: odd})
    assert Typed.opened and all(env.closed for env in Typed.opened)


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_numbers_that_float32_cannot_hold_are_named(collect, what):
    space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    expected = rf"^{what}: found -1e\+300 in environment 0 at step 3 .*, expected .* float32 can hold"
    with pytest.raises(EnvironmentContractError, match=expected):
        for collection in [collect(space, **{f"late_{what}": -1e300})]:
            for _ in range(2):
                collection.turn()
    collection = collect(space, **{f"late_{what}": -1e38})
    for _ in range(2):
        collection.turn()
    assert bool(collection.replay[:]["next", what].isfinite().all())


def test_a_total_reward_that_float32_cannot_hold_is_named(typed):
    kwargs = {"observation_space": numbers("float32"), "late_reward": -2e38}
    env = make_vector_env(typed, 4, "total", omega=2.0, env_kwargs=kwargs)
    collection = Collection(env, Extremes(TWO), 8, 100, 6, seed=0)
    collection.turn()
    expected = r"^reward: found -4e\+38 in environment 0, expected numbers that float32 can hold, up to 3\.4e\+38"
    with pytest.raises(EnvironmentContractError, match=expected):
        collection.turn()
    collection.close()


# -- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_environments_are_closed_after_an_exception(fit, typed, error):
    settings = {"num_envs": 4, "frames_per_batch": 8, "batch_size": 4, "updates_per_batch": 2, "warm_up_frames": 0}
    kwargs = {"observation_space": numbers("float32"), "late_error": error}
    data = ReplayDataModule(env=typed, reward="basic", env_kwargs=kwargs, total_frames=32, **settings)
    with pytest.raises((EnvironmentContractError, SystemExit)):
        fit(SoftQLearning(hidden_sizes=[4]), data)
    assert len(Typed.opened) == 1 + 4 and all(env.closed for env in Typed.opened)


def test_a_finished_run_holds_no_replay_buffer(fit):
    """Whoever keeps its trainer does not keep the memory."""
    made = []

    class Watched(ReplayDataModule):
        def _collect(self) -> Collection:
            collection = super()._collect()
            made.append(weakref.ref(collection.replay))
            return collection

    settings = {"num_envs": 4, "frames_per_batch": 8, "batch_size": 4, "updates_per_batch": 2, "warm_up_frames": 0}
    trainer = fit(
        SoftQLearning(hidden_sizes=[4]), Watched(env="CartPole-v1", reward="basic", total_frames=32, **settings)
    )
    gc.collect()
    assert trainer.datamodule.frames == 32 and [each() for each in made] == [None]


def test_environments_are_closed_if_their_collector_cannot_be_made(collect, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no collector")

    monkeypatch.setattr("rql_lightning.data.collection.make_collector", fail)
    with pytest.raises(RuntimeError, match="no collector"):
        collect()
    assert len(Typed.opened) == 4 and all(env.closed for env in Typed.opened)
