"""What several test files share: one thread, headless drawing, rollouts recorded as arrays, throw-away task ids."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from gymnasium.vector import VectorEnv
from hypothesis import settings

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@dataclass(frozen=True)
class Trajectory:
    """``[T, ...]`` arrays of a scalar environment's steps, ``[T, N, ...]`` of a vector environment's."""

    observation: np.ndarray
    action: np.ndarray
    next_observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray]

    @property
    def done(self) -> np.ndarray:
        return self.terminated | self.truncated

    def environment(self, index: int) -> Trajectory:
        """What happened in one environment of a vector."""
        arrays = {field.name: getattr(self, field.name)[:, index] for field in fields(self) if field.name != "info"}
        return Trajectory(**arrays, info={key: value[:, index] for key, value in self.info.items()})

    def running(self, values: np.ndarray, reduce: Callable[[np.ndarray], Any]) -> np.ndarray:
        """Values ``[T]`` of one environment's steps, reduced at every step over its episode so far."""
        starts = np.flatnonzero(np.concatenate([[True], self.done[:-1]]))
        return np.array([reduce(values[starts[starts <= step][-1] : step + 1]) for step in range(len(values))])

    def assert_equal(self, other: Trajectory) -> None:
        """Bit for bit."""
        for field in fields(self):
            if field.name != "info":
                np.testing.assert_array_equal(getattr(self, field.name), getattr(other, field.name), field.name)
        assert self.info.keys() == other.info.keys()
        for key, value in self.info.items():
            np.testing.assert_array_equal(value, other.info[key], key)


def record(env: gym.Env[Any, Any] | VectorEnv, actions: Iterable[Any], seed: int | None = None, start: Any = None):
    """Play the actions, resetting what ends, from a reset or on from the observation ``start``."""
    observation = env.reset(seed=seed)[0] if start is None else start
    rows = []
    for action in actions:
        next_observation, reward, terminated, truncated, info = env.step(action)
        rows.append((observation, action, next_observation, reward, terminated, truncated, info))
        observation, done = next_observation, np.logical_or(terminated, truncated)
        if done.any():
            options = {"reset_mask": done} if isinstance(env, VectorEnv) else None
            observation, _ = env.reset(options=options)
    *columns, infos = zip(*rows, strict=True)
    keys = [key for key in infos[0] if not key.startswith("_") and all(key in info for info in infos)]
    keys = [key for key in keys if not isinstance(infos[0][key], dict)]
    return Trajectory(*map(np.array, columns), info={key: np.array([info[key] for info in infos]) for key in keys})


@pytest.fixture(name="record", scope="session")
def _record() -> Callable[..., Trajectory]:
    return record


@pytest.fixture(scope="session")
def sample_actions() -> Callable[..., np.ndarray]:
    """``(env, steps, seed) →`` actions ``[T, ...]`` drawn from the environment's action space."""

    def sample(env: gym.Env[Any, Any] | VectorEnv, steps: int, seed: int = 0) -> np.ndarray:
        env.action_space.seed(seed)
        return np.array([env.action_space.sample() for _ in range(steps)])

    return sample


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """``(base, customization) →`` the id of a task that is gone after the test."""
    from rql_lightning.envs import register_task

    ids: list[str] = []

    def register_temporarily(base: str, customization: Any) -> str:
        ids.append(f"tests/Task{len(ids)}-v0")
        register_task(ids[-1], base, customization)
        return ids[-1]

    yield register_temporarily
    for id in ids:
        gym.registry.pop(id, None)


@pytest.fixture(scope="session")
def movement() -> Callable[..., Any]:
    """A step function of both observations, for rows and batches: how far the first coordinate moved."""

    def movement(observation, action, next_observation, info):
        return next_observation[..., 0] - observation[..., 0]

    return movement


@pytest.fixture(scope="session")
def fit() -> Callable[..., pl.Trainer]:
    """``(algorithm, data) →`` the trainer that trained it: nothing is evaluated, printed or written."""

    def fit(algorithm: pl.LightningModule, data: pl.LightningDataModule, seed: int = 0) -> pl.Trainer:
        torch.manual_seed(seed)
        logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(accelerator="cpu", devices=1, max_epochs=1, enable_model_summary=False, **quiet)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ranks is zero.*|Found .* in eval mode.*")
            trainer.fit(algorithm, datamodule=data)
        return trainer

    return fit
