"""Priors that are networks of anybody's, held to PyTorch's distributions of their outputs."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, distributions, nn

from rql_lightning.algorithms import ResidualSoftQLearning
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError, SpaceMismatchError
from rql_lightning.loading import load_policy
from rql_lightning.priors import ModulePrior, Prior

CARTPOLE = gym.make("CartPole-v1")
SPACES = (CARTPOLE.observation_space, CARTPOLE.action_space)
BOX = gym.spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32))
OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (4,))


class Outputs(nn.Module):
    """A module with every kind of output."""

    def __init__(self, actions: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.actor = nn.Linear(4, actions)
        self.spread = nn.Linear(4, actions)
        self.log_std = nn.Parameter(torch.tensor([[-0.5, 0.3]]))
        self.heads = nn.ModuleDict({"q": nn.Linear(4, 3)})

    def pair(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(observation), self.spread(observation).clamp(-1, 1)

    def three(self, observation: Tensor) -> tuple[Tensor, str, Tensor]:
        return self.pair(observation)[1], "between", self.actor(observation)

    def dictionary(self, observation: Tensor) -> dict[str, Any]:
        return {"mu": self.actor(observation), "sigma": self.pair(observation)[1].exp(), "info": None}

    def forward(self, observation: Tensor) -> Tensor:
        return torch.cat(self.pair(observation), dim=-1)


MODULE = Outputs()


def states(count: int = 32) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(1))


def attached(action_space: gym.Space[Any] = BOX, module: Any = MODULE, **settings: Any) -> ModulePrior:
    prior = ModulePrior(module, **settings)
    prior.attach(OBSERVATIONS, action_space)
    return prior


# -- against PyTorch's distributions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "temperature"), [("categorical", None), ("categorical", 0.3), ("boltzmann", 0.3)]
)
def test_discrete_actions(distribution, temperature):
    prior = attached(gym.spaces.Discrete(3), distribution=distribution, output="heads.q", temperature=temperature)
    logits = MODULE.heads["q"](states()) / (temperature if distribution == "boltzmann" else 1.0)
    reference = distributions.Categorical(logits=logits.detach())
    prior.probe(states())
    for action in range(3):
        chosen = torch.full((32,), action)
        torch.testing.assert_close(prior.log_prob(states(), chosen), reference.log_prob(chosen))
    assert torch.equal(prior.act(states()), logits.argmax(-1))
    assert prior.temperature == temperature
    batch = states().reshape(4, 8, 4)
    torch.testing.assert_close(prior.distribution_parameters(batch).reshape(32, 3), reference.logits)


WAYS = [
    ({"output": "pair", "scale": "log_scale"}, "log_scale"),
    ({"output": "three", "parts": [2, 0], "scale": "log_scale"}, "log_scale"),
    ({"output": "dictionary", "parts": ["mu", "sigma"], "scale": "scale"}, "log_scale"),
    ({"scale": "log_scale"}, "log_scale"),
    ({"output": ["actor", "log_std"], "scale": "log_scale"}, "parameter"),
    ({"output": "actor", "scale": 0.2}, "fixed"),
    ({"output": "dictionary", "parts": ["mu"], "scale": 0.2}, "fixed"),
]


@pytest.mark.parametrize("distribution", ["normal", "squashed_normal"])
@pytest.mark.parametrize(("settings", "expected"), WAYS)
def test_continuous_actions(distribution, settings, expected):
    prior = attached(distribution=distribution, **settings)
    prior.probe(states())
    location, log_scale = (each.detach() for each in MODULE.pair(states()))
    log_scale = {"log_scale": log_scale, "parameter": MODULE.log_std.detach(), "fixed": torch.tensor(0.2).log()}[
        expected
    ]
    reference: Any = distributions.Normal(location, log_scale.exp())
    best = location
    if distribution == "squashed_normal":
        scaled = distributions.AffineTransform(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 2.0]))
        reference = distributions.TransformedDistribution(reference, [distributions.TanhTransform(), scaled])
        best = scaled(location.tanh())
    low, high = torch.from_numpy(BOX.low), torch.from_numpy(BOX.high)
    torch.manual_seed(0)
    action = torch.max(torch.min(reference.sample(), high - 0.05), low + 0.05)
    found = prior.log_prob(states(), action)
    torch.testing.assert_close(found, reference.log_prob(action).sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.act(states()), torch.max(torch.min(best, high), low))
    ours = prior.act(states()[:1].expand(20_000, 4), deterministic=False)
    theirs = torch.max(torch.min(reference.sample((20_000,))[:, 0], high), low)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * (2 * ours.var(0) / 20_000).sqrt()).all()


# -- by import path and file -----------------------------------------------------------------------------------------

CODE = """
import numpy as np
import torch
from torch import nn

class Agent(nn.Module):
    def __init__(self, envs, width=16):
        super().__init__()
        size = int(np.prod(envs.single_observation_space.shape))
        self.critic = nn.Linear(size, 1)
        self.actor = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, int(envs.single_action_space.n)))

    def get_action_and_value(self, observation):
        choice = torch.distributions.Categorical(logits=self.actor(observation))
        action = choice.sample()
        return action, choice.log_prob(action), choice.entropy(), self.critic(observation)

class Plain(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)

def nothing():
    return 3

def raises(size):
    raise KeyError(size)
"""


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: Any) -> Any:
    """The module of somebody's agents, in a folder with files of weights."""
    (tmp_path / "somebodys_agents.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebodys_agents", raising=False)
    monkeypatch.chdir(tmp_path)
    import somebodys_agents

    spaces = type("Spaces", (), {"single_observation_space": SPACES[0], "single_action_space": SPACES[1]})
    agent = somebodys_agents.Agent(spaces, width=8)
    torch.save(agent.state_dict(), "agent.pt")
    torch.save({"model": {"agent": agent.state_dict()}, "step": 3}, "run.pt")
    torch.save(nn.Linear(4, 2).state_dict(), "plain.pt")
    yield agent
    del sys.modules["somebodys_agents"]


AGENT = {
    "module": "somebodys_agents.Agent",
    "environment": "envs",
    "init_args": {"width": 8},
    "output": "actor",
    "distribution": "categorical",
}


@pytest.mark.parametrize("file", [{"weights": "agent.pt"}, {"weights": "run.pt", "entry": "model.agent"}])
def test_an_agent_from_a_config(agents, file):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Prior, "prior")
    config = {"prior": {"class_path": "rql_lightning.priors.ModulePrior", "init_args": {**AGENT, **file}}}
    prior = parser.instantiate_classes(parser.parse_object(config)).prior
    prior.attach(*SPACES)
    expected = agents.actor(states()).detach().log_softmax(-1)
    torch.testing.assert_close(prior.distribution_parameters(states()), expected)
    assert "somebodys_agents.Agent" in prior.origin() and file["weights"] in prior.origin()


def test_training_and_the_file_of_a_customised_policy(agents, fit, tmp_path):
    algorithm = ResidualSoftQLearning(ModulePrior(**AGENT, weights="agent.pt"), hidden_sizes=[8])
    budget = {"total_frames": 64, "frames_per_batch": 32, "updates_per_batch": 1, "batch_size": 4, "warm_up_frames": 0}
    trainer = fit(algorithm, ReplayDataModule(num_envs=4, **budget))
    trainer.save_checkpoint(tmp_path / "policy.ckpt")
    with pytest.raises(CheckpointError, match=r"module somebodys_agents.Agent, .*prior=ModulePrior\(\.\.\.\)"):
        load_policy(tmp_path / "policy.ckpt")
    torch.save({key: value + 1 for key, value in agents.state_dict().items()}, "agent.pt")
    policy = load_policy(tmp_path / "policy.ckpt", prior=ModulePrior(**AGENT, weights="agent.pt"))
    found, expected = (each.distribution_parameters(states()) for each in (policy, algorithm.policy))
    torch.testing.assert_close(found, expected)


def test_a_module_in_python_is_copied_and_its_weights_may_come_from_a_file(agents):
    module = nn.Linear(4, 2)
    prior = attached(SPACES[1], module, distribution="categorical", weights="plain.pt")
    weights = torch.load("plain.pt", weights_only=True)
    assert torch.equal(prior.module.weight, weights["weight"]) and not torch.equal(module.weight, weights["weight"])
    assert module.weight.requires_grad and not prior.module.weight.requires_grad


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "gaussian"}, "distribution: found 'gaussian', expected one of 'categorical', 'boltzmann'"),
        ({"distribution": "boltzmann"}, "temperature: found None, expected a number > 0"),
        ({"distribution": "boltzmann", "temperature": 0.0}, "temperature: found 0.0"),
        ({"distribution": "normal"}, "scale: found None, expected 'scale' or 'log_scale'"),
        ({"distribution": "normal", "scale": -1.0}, "scale: found -1.0"),
        ({"distribution": "categorical", "scale": 1.0}, "scale: found 1.0, expected null"),
    ],
)
def test_settings_are_checked_at_once(settings, message):
    with pytest.raises(ConfigurationError, match=rf"^model\.prior\.{message}"):
        ModulePrior(MODULE, **settings)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"module": "somebodys_agents.Actor"},
            ConfigurationError,
            "model.prior.module: found 'somebodys_agents.Actor'",
        ),
        ({"module": "no_such_module.Agent"}, ConfigurationError, "model.prior.module: found 'no_such_module.Agent'"),
        ({"weights": None}, ConfigurationError, "model.prior.weights: found None"),
        ({"weights": "none.pt"}, CheckpointError, "model.prior.weights: found 'none.pt', which is no file"),
        ({"weights": "somebodys_agents.py"}, CheckpointError, "found a damaged or foreign file"),
        ({"weights": "run.pt"}, CheckpointError, r"run.pt: found \['model', 'step'\], expected the tensors.*entry"),
        (
            {"weights": "run.pt", "entry": "agent"},
            CheckpointError,
            r"found \['model', 'step'\], expected the entry 'agent'",
        ),
        ({"init_args": {"width": 9}}, CheckpointError, "agent.pt: found weights that do not fit Agent .*size mismatch"),
        ({"init_args": {"depth": 9}}, ConfigurationError, "init_args: found {'depth': 9}.*TypeError.*environment"),
        (
            {"module": "somebodys_agents.raises", "environment": "size", "init_args": {}},
            ConfigurationError,
            "raises.*KeyError",
        ),
        ({"output": "actors"}, ConfigurationError, "output: found 'actors', expected .* of Agent.*'critic', 'actor'"),
        (
            {"output": "get_action_and_value"},
            EnvironmentContractError,
            "found a tuple of 4, expected.*'parts' says which",
        ),
        ({"output": "critic"}, EnvironmentContractError, r"output: found shape \(5, 1\), expected \(5, 2\)"),
        ({"output": None}, EnvironmentContractError, r"output: found an error for observations of shape \(5, 4\)"),
        (
            {"distribution": "normal", "scale": 1.0},
            SpaceMismatchError,
            "'normal', expected 'categorical' or 'boltzmann'",
        ),
    ],
)
def test_an_agent_that_does_not_fit_is_refused(agents, changes, error, message):
    with pytest.raises(error, match=message) as caught:
        prior = ModulePrior(**{**AGENT, "weights": "agent.pt", **changes})
        prior.attach(*SPACES)
        prior.probe(states(5))
    assert "\n" not in str(caught.value)


def test_a_function_that_returns_no_module_is_refused(agents):
    with pytest.raises(ConfigurationError, match=r"nothing, which returns int, expected a class of nn\.Module"):
        ModulePrior("somebodys_agents.nothing", "categorical", weights="plain.pt")
    prior = ModulePrior("somebodys_agents.Plain", "categorical", weights="plain.pt")
    prior.attach(*SPACES)
    assert prior.act(np.zeros(4)) in (0, 1)


def test_a_file_with_code_in_it_is_not_run(agents, tmp_path):
    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "hostile.pt").write_bytes(pickle.dumps({"weight": Hostile()}))
    with pytest.raises(CheckpointError, match=r"hostile\.pt: found a damaged or foreign file"):
        ModulePrior("somebodys_agents.Plain", "categorical", weights="hostile.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (
            lambda rows: torch.zeros(len(rows), 3),
            {"scale": "scale"},
            "tensor of shape .5, 3., expected a tensor of location",
        ),
        (
            lambda rows: torch.zeros(len(rows), 6),
            {"scale": "scale"},
            r"location: found shape \(5, 3\), expected \(5, 2\)",
        ),
        (lambda rows: torch.zeros(len(rows), 4), {"scale": "scale"}, "location and log-scale: found .*-inf"),
        (lambda rows: torch.full((len(rows), 2), torch.nan), {"scale": 1.0}, "location and log-scale: found .*nan"),
        (lambda rows: (rows[:, :2], None), {"scale": "scale"}, "output: found NoneType, expected tensors"),
        (lambda rows: (rows[:, :2], rows[:, :3].exp()), {"scale": "scale"}, r"output, scale: found shape \(5, 3\)"),
        (
            lambda rows: {"mu": rows},
            {"scale": "scale"},
            r"output: found a dictionary of \['mu'\].*'parts' says which 2",
        ),
        (lambda rows: {"mu": rows}, {"scale": "scale", "parts": ["mu"]}, r"parts: found \['mu'\], expected 2 entries"),
        (lambda rows: {"mu": rows}, {"scale": 1.0, "parts": ["loc"]}, r"parts: found \['loc'\] for a dictionary of"),
        (lambda rows: 1 / 0, {"scale": 1.0}, "ZeroDivisionError"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(module, settings, message):
    class Module(nn.Module):
        def forward(self, rows: Tensor) -> Any:
            return module(rows)

    prior = attached(BOX, Module(), distribution="normal", **settings)
    with pytest.raises(EnvironmentContractError, match=message):
        prior.probe(states(5))
