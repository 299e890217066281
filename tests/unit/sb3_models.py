"""Models of Stable-Baselines3 with random weights, and the zips and pickles that tests make of them."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

SMALL = {"net_arch": [16, 12]}


class Task(gym.Env):
    """Nothing but spaces; those of continuous actions have bounds that differ and are not symmetric."""

    def __init__(self, discrete: bool, observation: gym.Space | None = None) -> None:
        self.observation_space = observation or gym.spaces.Box(-np.inf, np.inf, (3, 2), np.float32)
        low, high = np.array([-2.0, 0.5], np.float32), np.array([2.0, 3.1], np.float32)
        self.action_space = gym.spaces.Discrete(3) if discrete else gym.spaces.Box(low, high)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), float(np.sum(action)), False, self.np_random.random() < 0.1, {}


def contrib(name: str) -> type[BaseAlgorithm]:
    import pytest

    return getattr(pytest.importorskip("sb3_contrib"), name)


def make(kind: str, env: gym.Env | None = None, seed: int = 0, **policy: Any) -> BaseAlgorithm:
    """Create an untrained model all of whose weights are random, also those that start at 0."""
    algorithms: dict[str, tuple[Callable[[], Any], bool, dict[str, Any]]] = {
        "dqn": (lambda: DQN, True, {}),
        "qrdqn": (lambda: contrib("QRDQN"), True, {}),
        "ppo": (lambda: PPO, True, {}),
        "a2c": (lambda: A2C, True, {}),
        "ppo_box": (lambda: PPO, False, {}),
        "a2c_box": (lambda: A2C, False, {}),
        "ppo_gsde": (lambda: PPO, False, {"use_sde": True}),
        "sac": (lambda: SAC, False, {}),
        "sac_gsde": (lambda: SAC, False, {"use_sde": True}),
        "tqc": (lambda: contrib("TQC"), False, {"ent_coef": 0.3}),
        "td3": (lambda: TD3, False, {}),
        "ddpg": (lambda: DDPG, False, {}),
    }
    algorithm, discrete, options = algorithms[kind]
    settings = {**SMALL, **({"n_quantiles": 7} if kind == "qrdqn" else {}), **policy}
    model = algorithm()("MlpPolicy", env or Task(discrete), policy_kwargs=settings, device="cpu", **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.policy.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "log_std" in name and parameter.shape[-1:] != (12,):  # not the layer of that name
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_((0.35 if parameter.dim() == 2 else 0.1) * noise)
    return model


def rewrite(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Write a zip with entries that a function has changed."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, blob in entries.items():
            archive.writestr(name, blob)
    return target


def change_fields(entries: dict[str, bytes], **fields: Any) -> None:
    """Change fields of ``data``; a function of the old value gives the new one."""
    data = json.loads(entries["data"])
    for key, value in fields.items():
        data[key] = value(data[key]) if callable(value) else value
    entries["data"] = json.dumps(data).encode()


def change_weights(entries: dict[str, bytes], change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the dictionary of weights in place, or return another object to save."""
    weights = torch.load(io.BytesIO(entries["policy.pth"]), weights_only=True)
    result, buffer = change(weights), io.BytesIO()
    torch.save(weights if result is None else result, buffer)
    entries["policy.pth"] = buffer.getvalue()


class Hostile:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


def hostile_pickle(canary: Path) -> bytes:
    return pickle.dumps(Hostile(canary), protocol=2)  # as PyTorch writes


def hostile_base64(canary: Path) -> str:
    return base64.b64encode(hostile_pickle(canary)).decode()
