"""All ids under the ecosystem's own checkers, recorders and ways to make environments."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker as stable_baselines_checker
from stable_baselines3.common.vec_env import VecVideoRecorder
from torchrl.envs import GymWrapper
from torchrl.envs.utils import check_env_specs

from rql_lightning.envs import Customization, make_vector_env
from rql_lightning.envs.stable_baselines import StableBaselinesVecEnv
from rql_lightning.errors import ConfigurationError

HIGHWAY, PARKING = "rql_lightning/Highway-v0", "rql_lightning/Parking-v0"
MUJOCO = [f"rql_lightning/{name}-v0" for name in ("HalfCheetah", "Hopper", "Swimmer", "Ant")]
IDS = ["rql_lightning/CartPole-v0", "rql_lightning/MountainCarContinuous-v0", HIGHWAY, PARKING]
ALL = pytest.mark.parametrize("id", [*IDS, *MUJOCO])
DRAWN = pytest.mark.parametrize("id", IDS)  # MuJoCo draws where there is OpenGL
COMPILED = pytest.mark.parametrize("id", [HIGHWAY, PARKING])


def few(id: str) -> dict[str, Any]:
    return {"vehicles_count": 4} if id == HIGHWAY else {}


def make(id: str, **kwargs: Any) -> gym.Env:
    return gym.make(id, **few(id), **kwargs)


def make_vec(id: str, **kwargs: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(id, **{"num_envs": 2, **few(id), **kwargs})


def wrappers(env: gym.Env) -> list[str]:
    return [type(env).__name__] + (wrappers(env.env) if isinstance(env, gym.Wrapper) else [])


# Checkers


@ALL
@pytest.mark.filterwarnings("ignore::UserWarning", "error:.*share an object.*:UserWarning")
def test_gymnasiums_checker(id):
    drawn = id not in MUJOCO
    env = make(id, render_mode="rgb_array" if drawn else None)
    check_env(env, skip_render_check=not drawn)
    env.close()


@ALL
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stable_baselines3s_checker(id, monkeypatch):
    # Whatever has compute_reward beneath all of its wrappers counts as an environment of goals, highway-env's own
    # Parking included; here observations are flat, as they are for all that wrap such an environment.
    goals = stable_baselines_checker._is_goal_env
    monkeypatch.setattr(stable_baselines_checker, "_is_goal_env", lambda env: id != PARKING and goals(env))
    drawn = id not in MUJOCO
    env = make(id, render_mode="rgb_array" if drawn else None)
    stable_baselines_checker.check_env(env, skip_render_check=not drawn)


@ALL
@pytest.mark.parametrize("settings", [{}, {"reference": True}])
def test_torchrls_checker(id, settings):
    check_env_specs(GymWrapper(make_vec(id, **settings), categorical_action_encoding=True))


# Specs


@ALL
def test_a_spec_makes_the_same_again(id, record, sample_actions):
    env = make(id, reward="add_on", max_episode_steps=4)
    spec = env.spec
    actions = sample_actions(env, 6)
    expected = record(env, actions, seed=3)
    for again in (spec, EnvSpec.from_json(spec.to_json())):
        other = gym.make(again)
        assert wrappers(other) == wrappers(env) and other.spec == spec
        record(other, actions, seed=3).assert_equal(expected)


@ALL
def test_a_vectors_spec_makes_the_same_again(id, record, sample_actions):
    env = make_vec(id, reward="add_on", max_episode_steps=4, autoreset_mode="SameStep")
    actions = sample_actions(env, 6)
    expected = [env.reset(seed=3)[0], *(env.step(action)[:4] for action in actions)]
    for again in (env.spec, EnvSpec.from_json(env.spec.to_json())):
        other = gym.make_vec(again)
        found = [other.reset(seed=3)[0], *(other.step(action)[:4] for action in actions)]
        assert other.num_envs == 2 and other.spec == env.spec
        for ours, theirs in zip(found, expected, strict=True):
            for array, wanted in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(array, wanted)


def test_a_users_task_makes_the_same_again(register, record, sample_actions):
    task = register("Acrobot-v1", Customization(lambda *step: 0.5, is_success=lambda *step: step[3]["truncated"]))
    env = gym.make(task, max_episode_steps=5, omega=0.5)
    actions = sample_actions(env, 12)
    expected = record(env, actions, seed=1)
    for other in (gym.make(env.spec), gym.make(gym.make(env.spec).spec)):
        assert wrappers(other) == wrappers(env)
        record(other, actions, seed=1).assert_equal(expected)


# Time limits


class Endless(gym.Env):
    observation_space, action_space = gym.spaces.Box(-1, 1, (1,)), gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture
def endless(register):
    gym.register("tests/Endless-v0", Endless, max_episode_steps=7)
    yield register("tests/Endless-v0", Customization(lambda *_: 0.0, is_success=lambda *step: step[3]["truncated"]))
    gym.registry.pop("tests/Endless-v0")


def length(env: gym.Env | gym.vector.VectorEnv, most: int = 60) -> int:
    env.reset(seed=0)
    for step in range(1, most + 1):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample() * 0)
        if np.any(terminated) or np.any(truncated):
            return step
    return most


@pytest.mark.parametrize(("limit", "expected"), [(None, 7), (3, 3), (20, 20), (-1, 60)])
def test_a_time_limit_takes_the_ids_place_in_all_forms(endless, limit, expected):
    given = {} if limit is None else {"max_episode_steps": limit}
    assert length(gym.make(endless, **given)) == expected
    assert length(gym.make_vec(endless, num_envs=2, **given)) == expected
    assert length(make_vector_env(endless, 2, "total", env_kwargs=given)) == expected
    assert length(make_vector_env("tests/Endless-v0", 2, "total", env_kwargs=given)) == expected
    assert length(gym.make_vec(endless, num_envs=2, vectorization_mode="sync", **given)) == expected


@COMPILED
@pytest.mark.parametrize(("limit", "expected"), [(None, 5), (3, 3), (9, 5), (-1, 5)])
def test_a_time_limit_stands_beside_the_configured_duration(id, limit, expected):
    given = {} if limit is None else {"max_episode_steps": limit}
    given["duration"] = 5 if id == HIGHWAY else 1
    for env in (make(id, **given), make_vec(id, **given), make_vec(id, reference=True, **given)):
        assert length(env) == expected


def test_success_knows_of_the_ids_time_limit_in_both_forms(endless):
    single, vector = gym.make(endless), gym.make_vec(endless, num_envs=1)
    single.reset()
    vector.reset()
    alone = [single.step(0)[4]["is_success"] for _ in range(7)]
    assert alone == [bool(vector.step(np.zeros(1, int))[4]["is_success"][0]) for _ in range(7)] == [False] * 6 + [True]


@ALL
@pytest.mark.parametrize("limit", [0, -3, 2.5, "long"])
def test_limits_that_are_none(id, limit):
    with pytest.raises(ConfigurationError, match=r"^max_episode_steps: found"):
        make_vec(id, max_episode_steps=limit)


# Other ways to make vectors


@pytest.mark.parametrize(
    ("id", "mode"),
    [(id, "sync") for id in IDS]
    + [("rql_lightning/MountainCarContinuous-v0", "async")]
    + [pytest.param(id, "async", marks=pytest.mark.slow) for id in (IDS[0], HIGHWAY, PARKING)],
)
def test_gymnasiums_own_vectors(id, mode):
    env = make_vec(id, vectorization_mode=mode, max_episode_steps=3, vector_kwargs={"autoreset_mode": "SameStep"})
    try:
        env.reset(seed=0)
        for _ in range(3):
            *_, info = env.step(env.action_space.sample() * 0)
        assert info["_final_info"].all() and info["final_info"]["_add_on_reward"].all()
    finally:
        env.close()


# Pictures


@DRAWN
def test_vectors_render(id):
    env = make_vec(id, render_mode="rgb_array")
    env.reset(seed=0)
    pictures = env.render()
    assert env.render_mode == "rgb_array" and len(pictures) == 2 and "rgb_array" in env.metadata["render_modes"]
    assert all(picture.ndim == 3 and picture.dtype == np.uint8 and picture.std() > 5 for picture in pictures)
    env.close()


@COMPILED
def test_other_render_modes_of_compiled_environments_are_refused(id):
    with pytest.raises(ConfigurationError, match=r"^render_mode: found 'human'"):
        make_vec(id, render_mode="human")


class Unrendered(Endless):
    """Takes no ``render_mode``."""

    def __init__(self) -> None:
        pass


def test_constructors_that_take_no_render_mode(register):
    gym.register("tests/Unrendered-v0", Unrendered, max_episode_steps=2)
    try:
        task = register("tests/Unrendered-v0", lambda *_: 1.0)
        envs = [gym.make(task), gym.make_vec(task, num_envs=2), make_vector_env("tests/Unrendered-v0", 2, "total")]
        assert [length(env) for env in envs] == [2, 2, 2]
    finally:
        gym.registry.pop("tests/Unrendered-v0")


@pytest.fixture
def clips(monkeypatch) -> list[int]:
    """Numbers of frames of the clips that were written, by what stands in for MoviePy."""
    written: list[int] = []

    class ImageSequenceClip:
        def __init__(self, frames: list[np.ndarray], fps: float) -> None:
            assert fps > 0 and all(frame.ndim == 3 and frame.std() > 5 for frame in frames)
            written.append(len(frames))

        def write_videofile(self, path: str, **_: Any) -> None:
            pass

    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["moviepy.video.io.ImageSequenceClip"].ImageSequenceClip = ImageSequenceClip
    return written


@DRAWN
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_recorders(id, clips, tmp_path):
    env = gym.wrappers.RecordVideo(make(id, render_mode="rgb_array", max_episode_steps=3), str(tmp_path / "single"))
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    returns = 0.0
    for _ in range(3):
        _, reward, _, _, info = env.step(env.action_space.sample() * 0)
        returns += reward
    env.close()
    assert info["episode"]["l"] == 3 and info["episode"]["r"] == pytest.approx(returns)
    assert len(clips) == 1 and clips[0] >= 4


@DRAWN
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_vector_recorders(id, clips, tmp_path):
    env = make_vec(id, render_mode="rgb_array", max_episode_steps=3, autoreset_mode="SameStep")
    env = gym.wrappers.vector.RecordVideo(env, str(tmp_path), video_aspect_ratio=(1, 1), episode_trigger=lambda _: True)
    env = gym.wrappers.vector.RecordEpisodeStatistics(env)
    env.reset(seed=0)
    returns = np.zeros(2)
    for _ in range(3):
        _, reward, _, _, info = env.step(env.action_space.sample() * 0)
        returns += reward
    env.close()
    assert info["episode"]["l"].tolist() == [3, 3]
    np.testing.assert_allclose(info["episode"]["r"], returns)
    assert clips and min(clips) >= 1


@DRAWN
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_stable_baselines3s_recorder(id, clips, tmp_path):
    env = StableBaselinesVecEnv(make_vec(id, render_mode="rgb_array"))
    assert env.render_mode == "rgb_array" and env.get_attr("render_mode") == ["rgb_array"] * 2
    env.reset()
    assert [picture.ndim for picture in env.get_images()] == [3, 3] and env.render().ndim == 3
    recorder = VecVideoRecorder(env, str(tmp_path), lambda step: step == 0, video_length=3)
    recorder.reset()
    for _ in range(5):
        recorder.step(np.stack([env.action_space.sample() * 0] * 2))
    recorder.close()
    assert clips == [4], "of the reset and three steps"
    assert recorder.frames_per_sec == env.env.metadata["render_fps"]
