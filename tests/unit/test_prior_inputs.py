"""Priors that are given something else than they expect: converted, or refused in a line that says what is expected."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rql_lightning.algorithms import ResidualSoftQLearning
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError
from rql_lightning.priors import FunctionPrior, ModulePrior, SamplerPrior, StableBaselines3Prior, TorchRLPrior

OBSERVATIONS, BINARY, BOX = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Discrete(2), gym.spaces.Box(-2, 2, (2,))


# -- samplers ----------------------------------------------------------------------------------------------------------


def sampled(function: Callable[[Tensor], Any], actions: gym.Space = BINARY) -> Tensor:
    """Return the prior's parameters at two states; of each state, the first of four samples is another action."""
    prior = SamplerPrior(function, samples=4)
    prior.attach(OBSERVATIONS, actions)
    return prior.distribution_parameters(torch.zeros(2, 3))


PATTERN = np.array([1, 0, 0, 0] * 2)


@pytest.mark.parametrize(
    "returned",
    [
        PATTERN,
        *(PATTERN.astype(kind) for kind in (bool, "u1", "u2", "u4", "u8", "i1", "i4", ">i4", "f2", "f4", "f8", ">f8")),
        PATTERN.astype(np.longdouble),
        np.repeat(PATTERN, 3)[::3],
        np.array([0, 0, 0, 1] * 2)[::-1],
        torch.as_tensor(PATTERN),
        torch.as_tensor(PATTERN).bool(),
        torch.as_tensor(PATTERN.astype(np.uint16)),
        torch.as_tensor(PATTERN).to(torch.bfloat16),
    ],
    ids=lambda each: f"{type(each).__name__} {each.dtype} {getattr(each, 'strides', '')}",
)
def test_discrete_samples_of_every_type_of_numbers(returned):
    expected = torch.tensor([[0.75, 0.25]] * 2).log()
    torch.testing.assert_close(sampled(lambda rows: returned), expected)


@pytest.mark.parametrize("kind", [bool, "u2", "i8", "f2", ">f8", np.longdouble])
@pytest.mark.parametrize("step", [1, -1])
def test_continuous_samples_of_every_type_of_numbers(kind, step):
    given = (np.arange(16).reshape(8, 2) % 2).astype(kind)[:, ::step]
    expected = torch.from_numpy(given.astype(np.float32).copy() / 2).reshape(2, 8)
    torch.testing.assert_close(sampled(lambda rows: given, BOX), expected)


def test_an_array_that_cannot_be_written_to_gives_no_warning():
    given = np.zeros((8, 2))
    given.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sampled(lambda rows: given, BOX)
    torch.testing.assert_close(found, torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (np.zeros((8, 2), complex), r"numbers of type complex128"),
        (torch.zeros(8, 2, dtype=torch.complex64), r"numbers of type torch.complex64"),
        (np.zeros((8, 2), object), r"numbers of type object"),
        (np.full((8, 2), "a"), r"numbers of type <U1"),
        (np.zeros((8, 2), "datetime64[s]"), r"numbers of type datetime64"),
        (np.zeros((8, 3)), r"shape \(8, 3\)"),
        (np.zeros((2, 2)), r"shape \(2, 2\)"),  # one sample of each state in place of four
        (np.zeros((8, 1, 2)), r"shape \(8, 1, 2\)"),
        (np.zeros(16), r"shape \(16,\)"),
        (np.float64(0.0), "float64"),
        ([[0.0, 0.0]] * 8, "list"),
        (None, "NoneType"),
    ],
)
def test_samples_that_are_no_real_numbers(returned, found):
    numbers = r"a tensor or an array of real numbers, of shape \(8, 2\): one action for each row, 4 rows for each state"
    expected = rf"sample: found {found}.*, expected {numbers}$"
    with pytest.raises(EnvironmentContractError, match=expected):
        sampled(lambda rows: returned, BOX)


# -- modules -----------------------------------------------------------------------------------------------------------


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": 3}, "module: found 3, expected an import path or an nn.Module"),
        ({"module": Agent}, "module: found <class .*, expected an import path or an nn.Module"),
        ({"environment": "env"}, "environment: found 'env', expected null for a module that exists already"),
        ({"init_args": {"size": 3}}, "init_args: found .*, expected null for a module that exists already"),
        ({"output": ""}, "output: found '', expected a name, or null"),
        ({"output": []}, r"output: found \[\], expected a name, or null"),
        *(
            ({"distribution": "boltzmann", "temperature": value}, "temperature: found .*, expected a number > 0")
            for value in ("x", True, np.inf, np.nan, 0.0, -1.0, [1.0], torch.ones(2))
        ),
        ({"temperature": np.inf}, "temperature: found inf, expected a number > 0, or null"),
        *(
            ({"distribution": "normal", "scale": value}, "scale: found .*, expected 'scale' or 'log_scale'")
            for value in ("x", True, np.inf, np.nan, 0.0, [1.0], np.ones(2), None)
        ),
    ],
)
def test_settings_of_a_module_that_are_not_valid(changes, message):
    with pytest.raises(ConfigurationError, match=rf"model.prior.{message}") as caught:
        ModulePrior(**{"module": Agent(), "distribution": "categorical", "output": "actor", **changes})
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    prior = ModulePrior(Agent(), "boltzmann", output="actor", temperature=np.float32(0.5))
    prior.attach(OBSERVATIONS, BINARY)
    other = ModulePrior(prior.module, "categorical", output="actor")
    other.attach(OBSERVATIONS, BINARY)
    at = torch.ones(1, 3)
    difference = [each.distribution_parameters(at).diff().item() for each in (prior, other)]
    assert difference[0] == pytest.approx(2 * difference[1])
    assert type(prior.describe()["temperature"]) is float  # a checkpoint holds no numbers of NumPy


def test_a_prior_acts_only_once_it_has_spaces():
    for prior in (
        ModulePrior(Agent(), "categorical", output="actor"),
        FunctionPrior(lambda observation, action: action),
        SamplerPrior(lambda observation: observation),
    ):
        for use in (prior.act, prior.decide, lambda observation, prior=prior: prior.log_prob(observation, 0)):
            with pytest.raises(ConfigurationError, match=r"^prior .*found no spaces, expected attach\("):
                use(np.zeros((1, 3), np.float32))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda agent: {0: torch.ones(1)}, r"found \['0'\], expected the tensors of a state_dict"),
        (lambda agent: {"actor.0.weight": torch.ones(1), 1: torch.ones(1)}, "expected the tensors of a state_dict"),
        (lambda agent: agent, r"damaged or foreign file.*, expected a state_dict: torch.save\(module.state_dict"),
        (lambda agent: b"text", "found bytes, expected the tensors of a state_dict"),
    ],
)
def test_files_that_hold_no_state_dict(saved, message, tmp_path):
    torch.save(saved(Agent()), tmp_path / "agent.pt")
    with pytest.raises(CheckpointError, match=rf"agent.pt: .*{message}") as caught:
        ModulePrior(Agent(), "categorical", output="actor", weights=str(tmp_path / "agent.pt"))
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("kind", ["module", "torchrl"])
def test_an_algorithm_in_training_leaves_its_prior_in_evaluation_mode(kind):
    """Dropout and batch norm would change the law, and batch norm its statistics."""
    if kind == "torchrl":
        pytest.importorskip("torchrl")
        from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule

        read = TensorDictModule(Agent().actor, ["observation"], ["logits"])
        draw = ProbabilisticTensorDictModule(["logits"], ["action"], distribution_class=torch.distributions.Categorical)
        prior: Any = TorchRLPrior(ProbabilisticTensorDictSequential(read, draw))
    else:
        prior = ModulePrior(Agent(), "categorical", output="actor")
    algorithm = ResidualSoftQLearning(prior=prior, hidden_sizes=[8], alpha_hat=0.5)
    algorithm.build(OBSERVATIONS, BINARY, "a task")
    at = torch.randn(16, 3)
    expected = algorithm.policy.prior.distribution_parameters(at)
    algorithm.train()
    assert algorithm.training and algorithm.policy.training
    for _ in range(2):
        torch.testing.assert_close(algorithm.policy.prior.distribution_parameters(at), expected, rtol=0, atol=0)
    assert not any(each.training for each in prior.modules())


# -- models of Stable-Baselines3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "option"), [("dqn", "temperature"), ("td3", "scale")])
@pytest.mark.parametrize("value", ["x", True, float("inf"), float("nan"), 0, -1.0, [1.0], None])
def test_temperature_and_scale_that_are_no_positive_numbers(kind, option, value, tmp_path):
    path: Path = tmp_path / "model.zip"
    pytest.importorskip("stable_baselines3")
    from sb3_models import make

    make(kind).save(path)
    with pytest.raises(ConfigurationError, match=rf"model.zip, {option}: found .*, expected a number > 0") as caught:
        StableBaselines3Prior(str(path), **{option: value})
    assert "\n" not in str(caught.value)
