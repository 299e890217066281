"""Environments that cannot be filmed are found before anything is trained, and say why in one line."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import EnvironmentContractError
from rql_lightning.evaluation import run_episodes
from rql_lightning.policies import Decision
from rql_lightning.reporting.videos import check_renders, record_frames

ID = "tests/Filmed-v0"
PICTURE = np.zeros((4, 6, 3), np.uint8)
closed: list[str] = []


class Filmed(gym.Env):
    """Renders what it is told to; its actions are looked up in a dictionary."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012
    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(2, dtype=np.int32)

    def __init__(self, rendered: Any = PICTURE, render_mode: str | None = None, resets: bool = True) -> None:
        self.rendered, self.render_mode, self.resets = rendered, render_mode, resets

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if not self.resets:
            raise OSError("no such file\non this disk")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action) and {0: "left", 1: "right"}[action] == "right"
        return np.zeros(2, np.float32), 0.0, False, False, {}

    def render(self):
        if isinstance(self.rendered, Exception):
            raise self.rendered
        if isinstance(self.rendered, np.ndarray):
            self.rendered.flat[0] = (int(self.rendered.flat[0]) + 1) % 256  # into the same array every time
        return self.rendered

    def close(self):
        closed.append("closed")


class Unfilmed(Filmed):
    """Takes no ``render_mode``."""

    def __init__(self, rendered: Any = None) -> None:
        super().__init__(rendered)


class Right:
    """Decides for 1, as a float64."""

    needs_state = False

    def decide(self, observation: Any, state: Any = None) -> Decision:
        assert observation.shape == (1, 2)
        return Decision(np.ones(1))


@pytest.fixture(autouse=True)
def ids():
    closed.clear()
    gym.register(ID, Filmed)
    gym.register("tests/Unfilmed-v0", Unfilmed)
    yield
    for id in (ID, "tests/Unfilmed-v0"):
        gym.registry.pop(id, None)


def one_line(call: Any) -> str:
    with pytest.raises(EnvironmentContractError) as raised:
        call()
    message = str(raised.value)
    assert message.startswith("video.episodes: ") and "rgb_array" in message and "\n" not in message
    return message


BAD = [
    ({"rendered": None}, "NoneType"),
    ({"rendered": "a picture"}, "a str"),
    ({"rendered": [PICTURE]}, "a list"),
    ({"rendered": np.zeros((4, 6), np.uint8)}, r"shape (4, 6)"),
    ({"rendered": np.zeros((4, 6, 3))}, "type float64"),
    ({"rendered": RuntimeError("no display\nat all")}, "RuntimeError: no display,"),
    ({"rendered": NotImplementedError()}, "NotImplementedError"),
    ({"resets": False}, "OSError: no such file,"),
    ({"gravity": 3}, "gravity"),
]


@pytest.mark.parametrize(("kwargs", "said"), BAD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_does_not_render_is_refused_in_one_line(kwargs, said):
    message = one_line(lambda: check_renders(ID, kwargs))
    assert said in message and ID in message
    assert closed == ([] if "gravity" in kwargs else ["closed"])
    if "resets" not in kwargs:
        assert said in one_line(lambda: record_frames(Right(), ID, seed=0, steps=3, env_kwargs=kwargs))


def test_constructors_that_take_no_render_mode():
    for call in (check_renders, lambda id: record_frames(Right(), id, seed=0)):
        assert "render_mode" in one_line(lambda call=call: call("tests/Unfilmed-v0"))


@pytest.mark.parametrize("id", ["CartPole-v1", "rql_lightning/Parking-v0", "rql_lightning/MountainCarContinuous-v0"])
def test_what_renders_is_accepted(id):
    assert check_renders(id) is None


class Planner:
    """Needs the environment's state to decide."""

    needs_state = True

    def __init__(self, action: Any) -> None:
        self.action = action

    def decide(self, observation: Any, state: Any = None) -> Decision:
        assert (state["observation"] == observation).all() and len(observation) == 1
        return Decision(self.action(observation))


class Twin(Planner):
    """Decides the same without the state."""

    needs_state = False

    def decide(self, observation: Any, state: Any = None) -> Decision:
        return Decision(self.action(observation))


UPRIGHT = lambda observation: (observation[:, 2] > 0).astype(np.int64)  # noqa: E731
FILMED = [
    ("CartPole-v1", {}, UPRIGHT, 1),
    ("rql_lightning/CartPole-v0", {"max_episode_steps": 3}, UPRIGHT, 1),
    ("rql_lightning/Highway-v0", {}, lambda _: np.ones(1, np.int64), 5),
    ("rql_lightning/Parking-v0", {}, lambda _: np.full((1, 2), 0.3, np.float32), 3),
]


@pytest.mark.parametrize(("id", "kwargs", "action", "per_step"), FILMED)
def test_what_needs_the_state_is_filmed_with_one_picture_per_step(id, kwargs, action, per_step):
    frames, rate = record_frames(Planner(action), id, seed=3, steps=4, env_kwargs=kwargs)
    others, other_rate = record_frames(Twin(action), id, seed=3, steps=4, env_kwargs=kwargs)
    assert len(frames) == 1 + kwargs.get("max_episode_steps", 4) and other_rate == per_step * rate
    assert len(others) == 1 + per_step * (len(frames) - 1)
    for frame, other in zip(frames, others[::per_step], strict=True):
        assert (frame != other).any(axis=2).mean() < (1e-9 if per_step == 1 else 1e-3), "but for a few pixels' rounding"
    again, _ = record_frames(Twin(action), id, seed=3, steps=4, env_kwargs=kwargs, every_step=True)
    np.testing.assert_array_equal(again, frames)


def test_a_state_that_cannot_be_read_is_one_line():
    for call in (
        lambda: record_frames(Planner(lambda _: None), ID, seed=0, env_kwargs={"rendered": PICTURE.copy()}),
        lambda: run_episodes(Planner(lambda _: None), make_vector_env(ID, 2, "basic"), [0], name=ID),
    ):
        with pytest.raises(EnvironmentContractError) as raised:
            call()
        message = str(raised.value)
        assert message.startswith(f"{ID}: found an environment whose state cannot be read (the state of Filmed")
        assert "\n" not in message and "expected one with get_state, which Planner needs" in message


@pytest.mark.parametrize(("steps", "length"), [(0, 1), (5, 6), (None, 2_001)])
def test_an_episode_that_never_ends_is_filmed_for_so_many_steps(steps, length):
    picture = PICTURE.copy()
    frames, rate = record_frames(Right(), ID, seed=0, steps=steps, env_kwargs={"rendered": picture})
    assert len(frames) == length and rate == 7.0 and closed == ["closed"]
    assert [int(frame.flat[0]) for frame in frames[:6]] == list(range(1, min(length, 6) + 1)), "pictures of their own"
