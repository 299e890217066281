"""The example of a diffusion policy: what is learnt, and which of its modes customization keeps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rql_lightning.envs.registration import make_vector_env
from rql_lightning.priors import SamplerPrior

pytest.importorskip("diffusers", reason="the example needs the extra diffusion")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def example() -> Iterator[Any]:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("diffusion", ROOT / "benchmarks/diffusion.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register()
    yield module
    for name in (module.BASE, module.TASK):
        gym.registry.pop(name, None)


def test_the_task_is_what_the_exact_policy_computes_with(example):
    env = make_vector_env(example.TASK, 64, "add_on")
    observation, _ = env.reset(seed=0)
    action = np.linspace(-1.0, 1.0, 64, dtype=np.float32)[:, None]
    following, reward, terminated, _, _ = env.step(action)
    expected = example.moved(observation[:, 0], action[:, 0])
    np.testing.assert_allclose(following[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(reward, -example.PREFERENCE * expected, rtol=1e-5)
    np.testing.assert_array_equal(terminated, np.abs(expected) < example.OBSTACLE)
    assert 5 < terminated.sum() < 40


def exact_share_of_the_left(example: Any, size: float) -> np.ndarray:
    """For a prior that chooses −size or size, at each of the starts."""
    alpha, gamma, like = example.ALPHA_HAT, example.GAMMA, example.PREFERENCE
    choices = np.array([-size, size])
    positions = example.moved(example.STARTS[:, None], choices)
    after = -like * example.moved(positions[..., None], choices)
    value = alpha * np.log(np.exp(after / alpha).mean(-1))
    q = -like * positions + gamma * np.where(np.abs(positions) < example.OBSTACLE, 0.0, value)
    return 1.0 / (1.0 + np.exp((q[:, 1] - q[:, 0]) / alpha))


@pytest.mark.parametrize("size", [0.8, 0.268], ids=["beside the obstacle", "along its edge"])
def test_the_exact_policy_of_a_prior_with_a_density(example, size):
    """Its law is known where the prior chooses one of two actions. From the middle, 0.268 leads 0.001 past the edge."""

    def sample(observation: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand(len(observation), 1) < 0.5, size, -size)

    torch.manual_seed(0)
    expected = exact_share_of_the_left(example, size)
    actions, weights = example.exact_law(sample, 80_000)
    np.testing.assert_allclose((weights * (actions < 0)).sum(-1), expected, atol=0.01)
    drawn = example.exact_actions(sample, 8_000)
    assert drawn.shape == (5, 8_000)
    np.testing.assert_allclose((drawn < 0).mean(-1), expected, atol=0.025)


def test_collisions_are_those_of_the_actions_and_not_of_their_bins(example):
    edge = (example.OBSTACLE - example.STARTS[:, None]) / example.REACH
    exact = np.full((5, 40), 1 / 40)
    for distance, expected in ((-0.001, 1.0), (0.001, 0.0)):
        row = example.compared(edge + np.full((5, 100), distance), exact)
        assert (row["left"], row["obstacle"]) == (0.0, expected)


def test_a_diffusion_policy_learns_both_modes_and_is_a_prior(example):
    torch.manual_seed(0)
    prior = SamplerPrior(example.trained_policy(3_000).sample, samples=32)
    prior.attach(example.Obstacle.observation_space, example.Obstacle.action_space)
    middle = torch.tensor([[0.0, 1.0]]).expand(2_000, 2)
    after = example.moved(0.0, prior.act(middle[:64], deterministic=False))
    assert after.shape == (64, 1)
    after = example.moved(0.0, prior.function(middle))
    left, right = ((sign * after > example.OBSTACLE).float().mean().item() for sign in (-1, 1))
    assert left == pytest.approx(0.5, abs=0.15) and right == pytest.approx(0.5, abs=0.15) and left + right > 0.85


@pytest.mark.slow
def test_samples_and_a_flow_keep_both_modes_and_a_normal_distribution_does_not(example):
    rows = {name: row for name, row, _ in example.table(seed=0, budget=1.0, samples=2_000, episodes=500)}
    exact = rows["exact"]["left"]
    assert 0.6 < exact < 0.8
    assert rows["(a) 32 samples"]["KL to exact"] < 0.05
    for name in ("(a) 32 samples", "(b) flow, flow actor"):
        assert rows[name]["left"] == pytest.approx(exact, abs=0.1) and rows[name]["obstacle"] < 0.15, name
    for name in ("(b) flow, normal actor", "(b) normal, normal actor"):
        assert rows[name]["KL to exact"] > 0.2, name
