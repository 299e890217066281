"""Environments, loggers and algorithms that are allowed and awkward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv
from pytorch_lightning.loggers.logger import Logger

from rql_lightning.algorithms import SoftQLearning


class Unrenderable(CartPoleEnv):
    """Takes no ``render_mode``."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()


class Failing(CartPoleEnv):
    """Raises an error of several lines at the fifth step of an episode."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.left = 5
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("the simulator\ncrashed")
        return super().step(action)


class Watched(CartPoleEnv):
    """Writes a file at the first step of an episode whose seed is 1,000,001: in an evaluation of several episodes."""

    def __init__(self, stepped: str) -> None:
        super().__init__()
        self.stepped, self.watched = stepped, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.watched = seed == 1_000_001
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        if self.watched:
            Path(self.stepped).touch()
        return super().step(action)


class Endless(gym.Env[Any, Any]):
    """Never ends an episode; its first step writes a file, if it is given one."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, stepped: str | None = None) -> None:
        self.stepped = stepped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        if self.stepped is not None:
            Path(self.stepped).touch()
            self.stepped = None
        return np.zeros(4, np.float32), 0.0, False, False, {}


class SharedFolderLogger(Logger):
    """As W&B's and MLflow's: all runs have one ``save_dir``."""

    name, version = "shared", "1"

    def __init__(self, save_dir: str) -> None:
        self.folder = save_dir

    @property
    def save_dir(self) -> str:
        return self.folder

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Untrained(SoftQLearning):
    """Makes sense without a checkpoint."""

    needs_checkpoint = False


gym.register("odd/Unrenderable-v0", Unrenderable, max_episode_steps=50)
gym.register("odd/Watched-v0", Watched, max_episode_steps=500)
gym.register("odd/Endless-v0", Endless)
gym.register("odd/Failing-v0", Failing, max_episode_steps=50)
