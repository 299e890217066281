"""What several unit tests share."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch


class Detached:
    """Mixed into an algorithm: without a trainer, on a data module that is only two numbers, in float64."""

    trainer = SimpleNamespace(world_size=1, precision="32-true")
    device = torch.device("cpu")
    data: Any = None

    def start(self, observation_space: Any, action_space: Any, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        self.data = SimpleNamespace(frames=0, total_frames=1000)
        self.build(observation_space, action_space, "some/Task-v0")
        self.double()
        self.optimizer = self.configure_optimizers()
        self.optimizer.optimizer = self.optimizer  # as Lightning's wrapper has it
        return self

    def optimizers(self) -> Any:
        return self.optimizer


@pytest.fixture(scope="session")
def detach() -> Callable[..., Any]:
    """``(algorithm, observation_space, action_space, *arguments, **settings) →`` one that updates without a trainer."""

    def detach(algorithm: type, observation: gym.Space, action: gym.Space, *arguments: Any, **settings: Any) -> Any:
        return type(algorithm.__name__, (Detached, algorithm), {})(*arguments, **settings).start(observation, action)

    return detach
