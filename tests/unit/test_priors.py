"""Frozen priors: out of a checkpoint, and out of a function."""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from rql_lightning.algorithms import ResidualSoftQLearning
from rql_lightning.checkpoints import resolve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import EnvironmentContractError, SpaceMismatchError
from rql_lightning.loading import load_policy
from rql_lightning.priors import CheckpointPrior, FunctionPrior, Prior

SHIPPED = "pretrained:cartpole-rl"
CARTPOLE = gym.make("CartPole-v1")
SPACES = (CARTPOLE.observation_space, CARTPOLE.action_space)


def leaning(observation: Tensor, action: Tensor) -> Tensor:
    """Push (action 1) with probability σ(x + 2 θ)."""
    push = torch.nn.functional.logsigmoid(observation[:, 0] + 2 * observation[:, 2])
    rest = torch.nn.functional.logsigmoid(-observation[:, 0] - 2 * observation[:, 2])
    return torch.where(action == 1, push, rest)


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, shape)


def constant(log_probabilities: list[float]) -> FunctionPrior:
    """A prior that says the same everywhere, over as many actions."""
    return FunctionPrior(lambda observation, action: torch.tensor(log_probabilities)[action])


def observations(count: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) * 0.2


# -- out of a checkpoint ---------------------------------------------------------------------------------------------


def test_by_name_and_by_path(tmp_path):
    path = tmp_path / "copy.ckpt"
    path.write_bytes(resolve(SHIPPED).read_bytes())
    by_name, by_path = CheckpointPrior(SHIPPED), CheckpointPrior(str(path))
    reference = load_policy(SHIPPED).distribution_parameters(observations())
    assert reference.shape == (64, 2) and reference.std() > 0.1
    for prior in (by_name, by_path):
        torch.testing.assert_close(prior.distribution_parameters(observations()), reference, rtol=0, atol=0)
    assert str(path) in by_path.origin() and SHIPPED in by_name.origin()
    assert by_name.task == "rql_lightning/CartPole-v0"


def test_frozen_and_unchanged_by_training(fit):
    prior = CheckpointPrior(SHIPPED)
    before = {key: value.clone() for key, value in prior.state_dict().items()}
    algorithm = ResidualSoftQLearning(prior, hidden_sizes=[16], learning_rate=0.1)
    algorithm.build(*SPACES, "rql_lightning/CartPole-v0")
    untrained = copy.deepcopy(algorithm.policy.q_network)
    data = ReplayDataModule(num_envs=4, total_frames=96, frames_per_batch=32, batch_size=8, warm_up_frames=0)
    trainer = fit(algorithm, data)
    assert algorithm.updates > 0 and algorithm.policy.prior is prior
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert not prior.policy.training
    for key, value in prior.state_dict().items():
        assert torch.equal(value, before[key]), key
    learnt = zip(algorithm.policy.q_network.parameters(), untrained.parameters(), strict=True)
    assert all(not torch.equal(*pair) for pair in learnt)
    (vector,) = trainer.optimizers[0].param_groups[0]["params"]
    torch.testing.assert_close(vector, parameters_to_vector(algorithm.policy.q_network.parameters()), rtol=0, atol=0)


def test_its_weights_are_in_the_algorithm_once():
    algorithm = ResidualSoftQLearning(CheckpointPrior(SHIPPED), hidden_sizes=[16])
    algorithm.build(*SPACES, "task")
    keys = [key for key in algorithm.state_dict() if "prior" in key]
    assert len(keys) == 9 and all(key.startswith("policy.prior.policy.") for key in keys)
    assert len([key for key in keys if ".q_network." in key]) == 6


@pytest.mark.parametrize(
    ("environment", "found", "expected"),
    [
        ((box(2), SPACES[1]), "(4,), float32)", "(2,), float32)"),
        ((gym.spaces.Discrete(16), SPACES[1]), "(4,), float32)", "Discrete(16)"),
        ((SPACES[0], gym.spaces.Discrete(3)), "Discrete(2)", "Discrete(3)"),
        ((SPACES[0], gym.spaces.Discrete(2, start=1)), "Discrete(2)", "Discrete(2, start=1)"),
        ((SPACES[0], box(1)), "Discrete(2)", "Box(-1.0, 1.0, (1,), float32)"),
    ],
)
def test_other_spaces_are_refused_with_both_in_the_message(environment, found, expected):
    with pytest.raises(SpaceMismatchError) as error:
        CheckpointPrior(SHIPPED).attach(*environment)
    message = str(error.value)
    assert SHIPPED in message and message.index(found) < message.index("expected the environment's")
    assert expected in message[message.index("expected the environment's") :]


def test_other_bounds_of_actions_are_refused():
    """An action of 0.5 in [−1, 1] would be another push than the prior means."""
    prior = CheckpointPrior("pretrained:mountain-car-rl")
    with pytest.raises(SpaceMismatchError, match=r"action space: found Box\(-1.0.*expected.*Box\(-3.0"):
        prior.attach(prior.observation_space, gym.spaces.Box(-3.0, 3.0, (1,)))
    prior.attach(prior.observation_space, prior.action_space)


def test_other_bounds_of_observations_are_not_refused():
    prior, endless = CheckpointPrior(SHIPPED), gym.spaces.Box(-np.inf, np.inf, (4,))
    prior.attach(endless, SPACES[1])
    assert prior.distribution_parameters(observations()).shape == (64, 2)


@pytest.mark.parametrize("pre_tanh", [-20.0, -9.0, 7.0, 20.0])
def test_a_function_has_finite_densities_and_gradients_at_saturated_actions(pre_tanh):
    prior = FunctionPrior(
        lambda observation, action: torch.distributions.Beta(2.0, 2.0).log_prob((1 + action) / 2)[:, 0]
    )
    prior.attach(box(4), box(1))
    inputs = torch.full((3, 1), pre_tanh, requires_grad=True)
    log_prob = prior.family.pre_tanh_log_prob(torch.zeros(3, 4), inputs)
    assert log_prob.isfinite().all() and torch.autograd.grad(log_prob.sum(), inputs)[0].isfinite().all()


# -- out of a function -----------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 4), st.sampled_from([(), (1,), (6,), (2, 3)]), st.sampled_from([(1,), (2, 3)]))
def test_a_function_is_asked_about_every_action(states, actions, batch, shape):
    table = torch.from_numpy(np.random.default_rng(states * 7 + actions).dirichlet(np.ones(actions), states)).log()

    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        assert observation.shape == (len(action), *shape) and action.dtype == torch.int64
        return table[observation.flatten(1)[:, 0].long(), action]

    prior = FunctionPrior(log_prob)
    prior.attach(box(*shape), gym.spaces.Discrete(actions))
    state = torch.randint(states, batch)
    observation = state.float().reshape(*batch, *[1] * len(shape)).expand(*batch, *shape)
    parameters = prior.distribution_parameters(observation)
    torch.testing.assert_close(parameters, table[state].float())
    action = torch.randint(actions, batch)
    expected = table[state].float().gather(-1, action.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(prior.log_prob(observation, action), expected)
    torch.testing.assert_close(torch.as_tensor(prior.act(observation)), parameters.argmax(-1))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda observation, action: torch.zeros(len(action)), "[0.0, 0.0]"),
        (lambda observation, action: torch.full((len(action),), -math.log(3)), "[-1.09"),
        (lambda observation, action: torch.full((len(action),), math.nan), "nan"),
        (lambda observation, action: torch.full((len(action),), -math.inf), "-inf"),
        (lambda observation, action: torch.full((len(action), 1), -math.log(2)), "shape (4, 1)"),
        (lambda observation, action: torch.tensor(-math.log(2)), "shape ()"),
        (lambda observation, action: np.full(len(action), -math.log(2)), "ndarray"),
        (lambda observation, action: -math.log(2), "float"),
    ],
)
def test_a_function_that_is_no_log_density_is_refused_at_once(function, found):
    prior = FunctionPrior(function)
    prior.attach(*SPACES)
    with pytest.raises(EnvironmentContractError) as error:
        prior.probe(torch.zeros(2, 4))
    message = str(error.value)
    assert "test_priors" in message and found in message.partition(", expected ")[0].partition(": found ")[2]


def scalar_only(observation: Tensor, action: Tensor) -> Tensor:
    if len(action) > 1:
        raise ValueError("expected one action,\nnot a batch")
    return torch.zeros(1)


@pytest.mark.parametrize("action_space", [gym.spaces.Discrete(2), box(1)])
def test_a_function_that_raises_is_named_with_the_state_in_one_line(action_space):
    prior = FunctionPrior(scalar_only)
    prior.attach(CARTPOLE.observation_space, action_space)
    with pytest.raises(EnvironmentContractError) as error:
        prior.probe(torch.tensor([[0.5, 0.25, 0.0, 0.0], [1.0] * 4]))
    message = str(error.value)
    assert message.startswith(f"prior {__name__}.scalar_only: found an error for observations of shape")
    assert "the first of them [0.5 0.25 0. 0. ]" in message and "\n" not in message
    assert "(ValueError: expected one action, not a batch, at test_priors.py:" in message
    assert "), expected a tensor of shape" in message
    assert isinstance(error.value.__cause__, ValueError)


def test_an_error_for_the_user_that_a_function_raises_stays_what_it_is():
    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        raise SpaceMismatchError("my task: found that, expected this")

    prior = FunctionPrior(log_prob)
    prior.attach(*SPACES)
    with pytest.raises(SpaceMismatchError, match=r"^my task: found that, expected this$"):
        prior.probe(torch.zeros(2, 4))


def test_and_later_when_it_goes_wrong_later():
    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        return torch.where(observation[:, 0] > 1, math.nan, -math.log(2))

    prior = FunctionPrior(log_prob)
    prior.attach(*SPACES)
    prior.distribution_parameters(torch.zeros(3, 4))
    with pytest.raises(EnvironmentContractError, match="nan"):
        prior.distribution_parameters(torch.tensor([[0.0] * 4, [2.0] * 4]))


@pytest.mark.parametrize(("excess", "refused"), [(5e-4, False), (-5e-4, False), (5e-3, True), (-5e-3, True)])
def test_rounding_is_no_mistake(excess, refused):
    prior = constant([math.log(0.3 * (1 + excess)), math.log(0.7 * (1 + excess))])
    prior.attach(*SPACES)
    if refused:
        with pytest.raises(EnvironmentContractError, match="sum to 1"):
            prior.probe(torch.zeros(2, 4))
    else:
        prior.probe(torch.zeros(2, 4))


def test_actions_that_it_never_takes_are_allowed():
    prior = constant([0.0, -math.inf])
    prior.attach(*SPACES)
    assert prior.log_prob(np.zeros(4), 1) == -math.inf
    assert (prior.act(np.zeros((50, 4)), deterministic=False) == 0).all()


def test_a_function_gets_no_gradient_and_has_no_weights():
    network = torch.nn.Linear(4, 2)
    prior = FunctionPrior(lambda o, a: torch.log_softmax(network(o), -1).gather(-1, a.unsqueeze(-1)).squeeze(-1))
    prior.attach(*SPACES)
    assert not prior.distribution_parameters(observations()).requires_grad
    assert list(prior.parameters()) == []


MODULE = """
import torch
from torch import Tensor

def annotated(observation: Tensor, action: Tensor) -> Tensor:
    return torch.full(action.shape, 0.5).log()

def plain(observation, action):
    return torch.full(action.shape, 0.5).log()
"""


@pytest.mark.parametrize("function", ["annotated", "plain"])
def test_a_function_by_its_import_path(tmp_path: Path, monkeypatch: Any, function: str):
    (tmp_path / "somebodys_policy.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebodys_policy", raising=False)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Prior, "prior")
    init_args = {"log_prob": f"somebodys_policy.{function}"}
    config = {"prior": {"class_path": "rql_lightning.priors.FunctionPrior", "init_args": init_args}}
    prior = parser.instantiate_classes(parser.parse_object(config)).prior
    prior.attach(*SPACES)
    assert prior.log_prob(np.zeros(4), 0) == pytest.approx(math.log(0.5))
    assert prior.describe() == {"kind": "FunctionPrior", "log_prob": f"somebodys_policy.{function}"}


def test_training_uses_the_function(fit):
    algorithm = ResidualSoftQLearning(FunctionPrior(leaning), hidden_sizes=[16])
    data = ReplayDataModule(num_envs=4, total_frames=96, frames_per_batch=32, batch_size=8, warm_up_frames=0)
    fit(algorithm, data)
    observation = observations()
    pushes = leaning(observation, torch.ones(64, dtype=torch.int64))
    combined = algorithm.policy.q_values(observation)[:, 1] + pushes
    combined = combined - algorithm.policy.q_values(observation)[:, 0] - torch.log1p(-pushes.exp())
    expected = torch.nn.functional.logsigmoid(combined)
    torch.testing.assert_close(algorithm.policy.log_prob(observation, torch.ones(64, dtype=torch.int64)), expected)


def test_a_function_is_tried_where_its_environment_really_is(fit):
    """Not at observation 0, which CartPole never shows and where this one divides by 0."""

    def by_direction(observation: Tensor, action: Tensor) -> Tensor:
        direction = observation[:, 2] / observation.norm(dim=-1)
        return torch.nn.functional.logsigmoid((2.0 * action - 1) * direction)

    budget = {"total_frames": 64, "frames_per_batch": 32, "updates_per_batch": 1, "batch_size": 4, "warm_up_frames": 0}
    algorithm = ResidualSoftQLearning(FunctionPrior(by_direction), hidden_sizes=[8])
    fit(algorithm, ReplayDataModule(num_envs=4, **budget))
    assert algorithm.updates == 2

    def wrong_there(observation: Tensor, action: Tensor) -> Tensor:
        return torch.where(observation.norm(dim=-1) > 0, math.nan, math.log(0.5))

    algorithm = ResidualSoftQLearning(FunctionPrior(wrong_there), hidden_sizes=[8])
    with pytest.raises(EnvironmentContractError, match="wrong_there: found log-probabilities"):
        fit(algorithm, ReplayDataModule(num_envs=4, **budget))
    assert algorithm.updates == 0


def test_one_pair_or_a_batch_of_a_density():
    prior = FunctionPrior(lambda observation, action: (action * observation[:, :1] - action.square()).sum(-1))
    prior.attach(box(2), box(3))
    observation, action = np.array([[0.5, 1.0], [2.0, 0.0]]), np.array([[0.1, 0.2, 0.3], [0.4, -0.5, 0.6]])
    expected = (action * observation[:, :1] - action**2).sum(-1)
    np.testing.assert_allclose(prior.log_prob(observation, action), expected, rtol=1e-6)
    one = prior.log_prob(observation[1], action[1])
    assert np.shape(one) == () and one == pytest.approx(expected[1])


def test_a_function_gets_tensors_on_the_cpu_wherever_training_runs():
    class Elsewhere(Tensor):
        """Stands for a tensor on a GPU: it is a plain one once it was moved."""

        def cpu(self) -> Tensor:
            return self.as_subclass(Tensor)

    kinds = set()

    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        kinds.update({type(observation), type(action)})
        return torch.full(action.shape, 0.5).log()

    prior = FunctionPrior(log_prob)
    prior.attach(*SPACES)
    kinds.clear()
    assert prior.distribution_parameters(observations().as_subclass(Elsewhere)).shape == (64, 2)
    assert kinds == {Tensor}
