"""Gradients in closed form: the same numbers as autograd's, of every loss, network and algorithm."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rql_lightning import functional
from rql_lightning.algorithms import (
    GreedyCustomization,
    GreedySoftQLearning,
    IQLearn,
    PriorLikelihoodSAC,
    ResidualSAC,
    ResidualSoftQLearning,
    SoftActorCritic,
    SoftQLearning,
)
from rql_lightning.networks import TwinCritic, mlp
from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.policies.families import SquashedNormal
from rql_lightning.policies.mixture import SquashedNormalMixture
from rql_lightning.priors import FunctionPrior, Guard

SEEDS = st.integers(0, 2**31)
BOX, MOVES = (gym.spaces.Box(-1, 1, (size,), np.float32) for size in (3, 2))
BUTTONS = gym.spaces.Discrete(3)
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def normals(seed: int, *shapes: tuple[int, ...], spread: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def differentiated(value: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(value, inputs)


# -- the equations ---------------------------------------------------------------------------------------------------


@given(SEEDS, st.sampled_from([None, 0.3, 1.0]))
def test_of_the_td_loss(seed, delta):
    taken, target = normals(seed, (2, 5), (2, 5))
    taken.requires_grad_()
    (expected,) = differentiated(functional.td_loss(taken, target, delta), taken)
    torch.testing.assert_close(functional.td_slope(taken.detach(), target, delta) / 10, expected, **EXACT)


@given(SEEDS, st.floats(0, 3), st.floats(0.05, 3))
def test_of_the_value(seed, omega_prime, alpha_hat):
    q, log_prior = normals(seed, (4, 3), (4, 3), spread=5.0)
    q.requires_grad_()
    (expected,) = differentiated(functional.residual_value(q, log_prior, omega_prime, alpha_hat).sum(), q)
    found = functional.residual_value_gradient(q.detach(), log_prior, omega_prime, alpha_hat)
    torch.testing.assert_close(found, expected, **EXACT)


@given(SEEDS, st.sampled_from([0.1, 1.0, 10.0, 30.0]))
def test_of_the_squashed_normal_with_saturated_actions(seed, spread):
    pre_tanh, location, log_scale = normals(seed, (4, 2), (4, 2), (4, 2))
    pre_tanh = (spread * pre_tanh).requires_grad_()
    family, parameters = SquashedNormal(2), torch.cat([location, log_scale], dim=-1)
    value = family.pre_tanh_log_prob(parameters, pre_tanh)
    (expected,) = differentiated(value.sum(), pre_tanh)
    log_prob, gradient = family.pre_tanh_log_prob_and_gradient(parameters, functional.squash(pre_tanh.detach()))
    torch.testing.assert_close(log_prob, value.detach(), **EXACT)
    torch.testing.assert_close(gradient, expected, **EXACT)


@given(SEEDS, st.sampled_from([None, -1.0, -5.0, -100.0]))
def test_of_the_bounded_prior(seed, bound):
    pre_tanh, location, log_scale = normals(seed, (6, 2), (6, 2), (6, 2), spread=2.0)
    guard, family, parameters = Guard(0.0, bound), SquashedNormal(2), torch.cat([location, log_scale], dim=-1)
    pre_tanh.requires_grad_()
    value = guard.log_prob(family, parameters, pre_tanh)
    (expected,) = differentiated(value.sum(), pre_tanh)
    log_prob, gradient = guard.log_prob_and_gradient(family, parameters, functional.squash(pre_tanh.detach()))
    torch.testing.assert_close(log_prob, value.detach(), **EXACT)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-10)


def test_of_families_without_a_closed_form_autograd_computes_it():
    family = SquashedNormalMixture(2, 3)
    (outputs, pre_tanh) = normals(0, (5, family.size), (5, 2))
    parameters = family.from_network(outputs)
    log_prob, gradient = family.pre_tanh_log_prob_and_gradient(parameters, functional.squash(pre_tanh))
    shift = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    numeric = family.pre_tanh_log_prob(parameters, pre_tanh + shift) - log_prob
    torch.testing.assert_close(gradient[:, 0], numeric / 1e-6, rtol=1e-4, atol=1e-5)
    assert not log_prob.requires_grad and not gradient.requires_grad


@given(SEEDS, st.floats(0.01, 2), st.sampled_from(["none", "number", "tensor"]), st.sampled_from([0.3, 3.0, 20.0]))
def test_of_the_actor(seed, alpha, weight, spread):
    location, log_scale, noise, slope, prior_location = normals(seed, *[(5, 2)] * 5)
    location = (spread * location).requires_grad_()
    log_scale.requires_grad_()
    omega_prime = {"none": 0.0, "number": 0.7, "tensor": torch.tensor([0.0, 0.5, 1.0, 2.0, 0.1]).double()}[weight]
    alpha_hat = torch.tensor(alpha, dtype=torch.float64)
    pre_tanh = location + log_scale.exp() * noise
    squashed = functional.squash(pre_tanh)
    action, log_prob = (
        squashed.action,
        functional.reparameterised_log_prob(noise, log_scale, log_two_cosh=squashed.log_two_cosh),
    )
    prior = functional.squashed_gaussian_log_prob(pre_tanh, prior_location, torch.zeros(5, 2).double())
    weighted = functional.weighted_log_prob(prior, omega_prime)
    loss = functional.actor_loss(log_prob, (slope * action).sum(dim=-1), alpha_hat, weighted)
    expected = differentiated(loss, location, log_scale)
    with torch.no_grad():
        _, prior_gradient = functional.squashed_gaussian_log_prob_and_gradient(
            squashed, prior_location, torch.zeros(5, 2).double()
        )
        scale = log_scale.exp()
        found = functional.actor_gradient(noise, action, scale, -slope / 5, alpha_hat, prior_gradient, omega_prime)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@given(SEEDS)
def test_of_the_smaller_twin_and_of_the_temperature(seed):
    q, log_prob = normals(seed, (2, 5), (7,))
    q[1, 0] = q[0, 0]  # a tie
    q.requires_grad_()
    smaller = q.amin(dim=0)
    (expected,) = differentiated(-smaller.mean(), q)
    torch.testing.assert_close(functional.minimum_gradient(q.detach(), smaller.detach()), expected, **EXACT)
    log_alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (expected,) = differentiated(functional.temperature_loss(log_alpha, log_prob, -2.0), log_alpha)
    torch.testing.assert_close(functional.temperature_gradient(log_prob, -2.0), expected, **EXACT)


@pytest.mark.parametrize("bound_values", [False, True])
@pytest.mark.parametrize("expert", [2, 6])
def test_of_inverse_soft_q_learning(detach, expert, bound_values):
    learner = detach(IQLearn, BOX, BUTTONS, bound_values=bound_values, gamma=0.9, chi_squared=0.3)
    learner._demonstrated = expert
    q_values, q_target = normals(0, (6, 3), (6,), spread=10.0)
    minibatch = SimpleNamespace(action=torch.tensor([0, 1, 2, 2, 1, 0]))
    q_values.requires_grad_()
    q_taken = q_values.gather(-1, minibatch.action.unsqueeze(-1)).squeeze(-1)
    (expected,) = differentiated(learner.loss(q_values, q_taken, q_target, minibatch), q_values)
    taken = torch.nn.functional.one_hot(minibatch.action, 3).double()
    found = learner.loss_gradient(q_values.detach(), q_target.unsqueeze(-1), taken, minibatch)
    torch.testing.assert_close(found, expected, **EXACT)
    assert learner.has_closed_form


# -- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_sizes", [[8], [8, 6, 4]])
def test_of_a_perceptron(hidden_sizes):
    torch.manual_seed(0)
    network = mlp(3, hidden_sizes, 2).double()
    inputs, gradient = normals(1, (5, 3), (5, 2))
    outputs = network(inputs)
    expected = torch.autograd.grad(outputs, list(network.parameters()), gradient)
    into = [torch.full_like(parameter, math.nan) for parameter in network.parameters()]
    with torch.no_grad():
        found, hidden = network.evaluate(inputs)
        network.backward(hidden, gradient, into)
    torch.testing.assert_close(found, outputs.detach(), **EXACT)
    for mine, theirs in zip(into, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_of_twin_critics(layer_norm):
    torch.manual_seed(0)
    critic = TwinCritic(5, [8, 6], layer_norm).double()
    observation, action, gradient = normals(1, (4, 3), (4, 2), (2, 4))
    action.requires_grad_()

    def by_autograd() -> Tensor:
        hidden = torch.cat([observation, action], dim=-1).expand(2, -1, -1)
        for index, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
            hidden = hidden @ weight + bias
            if index < 2:
                normalized = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:]) if layer_norm else hidden
                hidden = normalized.relu()
        return hidden.squeeze(-1)

    q = by_autograd()
    parameters = list(critic.parameters())
    *expected, of_action = torch.autograd.grad(q, [*parameters, action], gradient)
    into = [torch.full_like(parameter, math.nan) for parameter in parameters]
    with torch.no_grad():
        found, trace = critic.evaluate(torch.cat([observation, action], dim=-1))
        critic.backward(trace, gradient, into)
        of_actions = critic.action_gradient(trace, gradient, 2)
    torch.testing.assert_close(found, q.detach(), **EXACT)
    torch.testing.assert_close(of_actions, of_action, **EXACT)
    for mine, theirs in zip(into, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


# -- algorithms: both paths ------------------------------------------------------------------------------------------


def normal_density(observation: Tensor, action: Tensor) -> Tensor:
    return torch.distributions.Normal(0.3 * observation[..., :2], 0.7).log_prob(action).sum(dim=-1)


def uneven(observation: Tensor, action: Tensor) -> Tensor:
    logits = torch.stack([observation[..., 0], observation[..., 1], 0 * observation[..., 0]], dim=-1)
    return torch.distributions.Categorical(logits=logits).log_prob(action)


def transitions(learner: Any, action_space: gym.Space[Any], count: int = 6, size: int = 8) -> TensorDict:
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(count, size, *shape, generator=generator, dtype=torch.float64)

    observation, following = numbers(3).tanh(), numbers(3).tanh()
    batch = {"observation": observation, "next": {"observation": following, "reward": numbers()}}
    batch["next"]["terminated"] = torch.rand(count, size, generator=generator) < 0.2
    if isinstance(action_space, gym.spaces.Discrete):
        batch["action"] = torch.randint(int(action_space.n), (count, size), generator=generator)
    else:
        batch |= {"pre_tanh": (pre_tanh := numbers(2)), "action": torch.tanh(pre_tanh)}
    if getattr(learner, "prior", None) is not None:
        for part, states in ((batch, observation), (batch["next"], following)):
            parameters = learner.prior.distribution_parameters(states.flatten(0, 1)).double()
            part["prior_parameters"] = parameters.unflatten(0, (count, size))
    return TensorDict(batch, [count, size])


CASES: list[tuple[Any, Any, dict[str, Any]]] = [
    (SoftQLearning, BUTTONS, {"huber_delta": 0.5, "target_update_interval": 4}),
    (SoftQLearning, BUTTONS, {"huber_delta": None, "tau": 0.3, "target_update_interval": 1}),
    (ResidualSoftQLearning, BUTTONS, {"omega_prime": 0.4, "max_grad_norm": 0.1}),
    (GreedySoftQLearning, BUTTONS, {"omega_prime": 0.4, "alpha_hat": 0.7}),
    (SoftActorCritic, MOVES, {"alpha": "auto"}),
    (SoftActorCritic, MOVES, {"alpha": 0.2, "layer_norm": True, "critic_warm_up_updates": 2}),
    (ResidualSAC, MOVES, {"omega_prime": 0.4, "alpha_hat": 0.7, "max_grad_norm": 0.1}),
    (ResidualSAC, MOVES, {"omega_prime": 0.0, "alpha_hat": "auto"}),
    (ResidualSAC, MOVES, {"omega_prime": 0.4, "prior_log_prob_min": -2.0}),
    (GreedyCustomization, MOVES, {"omega_prime": 0.4, "alpha_hat": 0.7}),
    (PriorLikelihoodSAC, MOVES, {"omega_prime": 0.4, "alpha_hat": 0.7}),
]


def trained(detach: Any, algorithm: Any, action_space: gym.Space[Any], settings: dict[str, Any], closed: bool) -> Any:
    arguments: list[Any] = []
    if issubclass(algorithm, ResidualSAC):
        arguments = [FunctionPrior(normal_density)]
    elif issubclass(algorithm, ResidualSoftQLearning):
        arguments = [FunctionPrior(uneven)]
    torch.manual_seed(0)
    learner = detach(algorithm, BOX, action_space, *arguments, hidden_sizes=[16, 8], learning_rate=0.01, **settings)
    if not closed:
        type(learner).has_closed_form = False
    batch = transitions(learner, action_space)
    torch.manual_seed(1)
    metrics = [learner.update(batch) for _ in range(2)]
    return learner, metrics


@pytest.mark.parametrize(("algorithm", "actions", "settings"), CASES)
def test_both_paths_learn_the_same(detach, algorithm, actions, settings):
    (learner, metrics), (other, others) = (
        trained(detach, algorithm, actions, settings, closed) for closed in (True, False)
    )
    for (name, mine), theirs in zip(learner.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7, msg=name)
    assert learner.has_closed_form and not other.has_closed_form
    assert metrics[-1] == pytest.approx(others[-1], rel=1e-6, abs=1e-9)


def test_the_closed_form_is_taken_where_there_is_one(detach, monkeypatch):
    """Whoever overrides a loss gets its own gradient, by autograd."""
    differentiated_by_autograd = []
    original = torch.autograd.grad

    def counted(*given: Any, **settings: Any) -> Any:
        differentiated_by_autograd.append(1)
        return original(*given, **settings)

    monkeypatch.setattr(torch.autograd, "grad", counted)

    class Steeper(SoftQLearning):
        def loss(self, q_values: Tensor, q_taken: Tensor, q_target: Tensor, minibatch: Any) -> Tensor:
            return 2.0 * super().loss(q_values, q_taken, q_target, minibatch)

    class Cautious(SoftActorCritic):
        def actor_loss(self, minibatch: Any, q: Tensor, sample: Any, alpha_hat: Tensor) -> Tensor:
            return super().actor_loss(minibatch, q - 1.0, sample, alpha_hat)

    for algorithm, actions, expected in (
        (SoftQLearning, BUTTONS, 0),
        (Steeper, BUTTONS, 12),
        (GreedySoftQLearning, BUTTONS, 0),
        (SoftActorCritic, MOVES, 0),
        (Cautious, MOVES, 12),
    ):
        differentiated_by_autograd.clear()
        trained(detach, algorithm, actions, {}, closed=True)
        assert len(differentiated_by_autograd) == expected


def test_a_method_replaced_on_the_instance_counts_too(detach):
    learner = detach(SoftQLearning, BOX, BUTTONS)
    assert learner.has_closed_form
    learner.loss = lambda *given: functional.td_loss(*given[1:3])
    assert not learner.has_closed_form


class Narrow(SquashedGaussianPolicy):
    """An actor whose scale does not depend on the state."""

    def location_and_log_scale(self, code: Tensor) -> tuple[Tensor, Tensor]:
        location, log_scale = super().location_and_log_scale(code)
        return location, torch.zeros_like(log_scale) - 1.0


class NarrowSAC(SoftActorCritic):
    def make_policy(self, observation_space: Any, action_space: Any, task: str) -> SquashedGaussianPolicy:
        return Narrow(observation_space, action_space, self.hidden_sizes, task=task)


class Deeper(torch.nn.Module):
    """A network of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))

    def forward(self, code: Tensor) -> Tensor:
        return self.layers(code)


class DeeperQ(SoftQLearning):
    def make_policy(self, observation_space: Any, action_space: Any, task: str) -> Any:
        policy = super().make_policy(observation_space, action_space, task)
        policy.q_network = Deeper()
        return policy


@pytest.mark.parametrize(("algorithm", "actions"), [(NarrowSAC, MOVES), (DeeperQ, BUTTONS)])
def test_networks_and_actors_of_somebody_elses_are_autograds(detach, algorithm, actions):
    (learner, _), (other, _) = (trained(detach, algorithm, actions, {}, closed) for closed in (True, False))
    for mine, theirs in zip(learner.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_mixed_precision_is_autograds(detach):
    learner = detach(SoftQLearning, BOX, BUTTONS)
    learner.trainer = SimpleNamespace(world_size=1, precision="bf16-mixed")
    assert not learner.has_closed_form


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors, for each of which a GPU would have to finish its work."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("algorithm", "actions", "settings"), CASES)
def test_no_number_is_read_between_updates(detach, algorithm, actions, settings):
    counts = []
    for updates in (2, 6):
        learner, _ = trained(detach, algorithm, actions, settings, closed=True)
        batch = transitions(learner, actions, updates)
        learner.updates = 0
        if isinstance(learner, ResidualSAC):  # a function of somebody else's may read what it likes
            learner.prior.family = SquashedNormal(2)
            for part in (batch, batch["next"]):
                part["prior_parameters"] = torch.zeros(updates, 8, 4, dtype=torch.float64)
        with Reads() as reads:
            learner.update(batch)
        counts.append(reads.count)
    assert counts[0] == counts[1] > 0
