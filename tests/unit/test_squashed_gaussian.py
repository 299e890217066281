"""Squashed Gaussians: densities from the pre-tanh action, against quadrature, TorchRL and finite differences."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchrl.modules import TanhNormal

from rql_lightning import functional
from rql_lightning.algorithms import SoftActorCritic
from rql_lightning.errors import EnvironmentContractError, SpaceMismatchError
from rql_lightning.policies import SquashedGaussianPolicy
from rql_lightning.priors import FunctionPrior
from rql_lightning.spaces import ActionBounds

OBSERVATION = gym.spaces.Box(-1.0, 1.0, (3,))
ACTION = gym.spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 4.0], np.float32))
DOUBLE = {"dtype": torch.float64}
some_number = st.floats(-20, 20)


def make_policy(action_space: Any = ACTION, seed: int = 0, prior: Any = None) -> SquashedGaussianPolicy:
    torch.manual_seed(seed)
    return SquashedGaussianPolicy(OBSERVATION, action_space, [16], None, prior, "some/Task-v0").requires_grad_(False)


# -- densities -------------------------------------------------------------------------------------------------------


@given(st.lists(some_number, min_size=1, max_size=3))
def test_log_det_is_that_of_tanh(numbers):
    pre_tanh = torch.tensor(numbers, **DOUBLE)
    # 1 − tanh² u = 4 e^(−2|u|) / (1 + e^(−2|u|))², which rounds nowhere.
    expected = sum(math.log(4) - 2 * abs(u) - 2 * math.log1p(math.exp(-2 * abs(u))) for u in numbers)
    assert functional.squash_log_det(pre_tanh).item() == pytest.approx(expected, rel=1e-12, abs=1e-8)
    assert functional.squash_log_det(pre_tanh.float()).item() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(some_number, some_number, st.floats(-5, 2))
def test_nothing_is_lost_where_tanh_is_saturated(u, location, log_scale):
    """Finite, right and with the gradient of finite differences, up to |u| = 20, where float32 has tanh(u) = ±1."""
    point = [torch.tensor([value], **DOUBLE, requires_grad=True) for value in (u, location, log_scale)]
    assert torch.autograd.gradcheck(functional.squashed_gaussian_log_prob, point, eps=1e-6, atol=1e-4, rtol=1e-5)
    exact = functional.squashed_gaussian_log_prob(*point)
    single = [value.detach().float().requires_grad_() for value in point]
    rounded = functional.squashed_gaussian_log_prob(*single)
    assert rounded.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-3)
    for ours, double in zip(torch.autograd.grad(rounded, single), torch.autograd.grad(exact, point), strict=True):
        assert ours.item() == pytest.approx(double.item(), rel=1e-3, abs=1e-3)


@given(st.floats(-1, 1), st.floats(-2, -0.7))
def test_density_integrates_to_one(location, log_scale):
    action = torch.linspace(-1, 1, 200_003, **DOUBLE)[1:-1]
    parameters = (torch.tensor([value], **DOUBLE) for value in (location, log_scale))
    density = functional.squashed_gaussian_log_prob(torch.atanh(action).unsqueeze(-1), *parameters).exp()
    assert torch.trapezoid(density, action).item() == pytest.approx(1.0, abs=2e-3)


def test_density_is_torchrls():
    torch.manual_seed(0)
    location, log_scale, noise = torch.randn(3, 50, 2, **DOUBLE)
    pre_tanh = location + log_scale.exp() * noise
    ours = functional.squashed_gaussian_log_prob(pre_tanh, location, log_scale)
    theirs = TanhNormal(location, log_scale.exp(), safe_tanh=False).log_prob(torch.tanh(pre_tanh))
    inside = pre_tanh.abs().amax(-1) < 8  # beyond, the way back from the action is not precise
    assert inside.sum() > 30
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        functional.reparameterised_log_prob(noise, log_scale, log_two_cosh=functional.squash(pre_tanh).log_two_cosh),
        ours,
    )


# -- actions in the environment's units ------------------------------------------------------------------------------


def test_bounds_are_converted_there_and_back():
    bounds = ActionBounds(ACTION)
    unit = torch.rand(40, 2) * 2 - 1
    action = bounds.to_environment(unit)
    np.testing.assert_allclose(action.numpy(), (unit * torch.tensor([2.0, 1.5]) + torch.tensor([0.0, 2.5])).numpy())
    torch.testing.assert_close(bounds.from_environment(action), unit)
    edges = bounds.to_environment(torch.tensor([[-1.0, -1.0], [1.0, 1.0]])).numpy()
    np.testing.assert_array_equal(edges, [ACTION.low, ACTION.high])
    matrix = gym.spaces.Box(-3.0, 1.0, (2, 3))
    assert ActionBounds(matrix).to_environment(torch.zeros(5, 6)).shape == (5, 2, 3)
    assert ActionBounds(matrix).from_environment(torch.zeros(5, 2, 3)).shape == (5, 6)


def test_log_prob_is_a_density_over_the_environments_actions():
    policy = make_policy()
    grid = [torch.linspace(low, high, 401)[1:-1] for low, high in zip(ACTION.low, ACTION.high, strict=True)]
    actions = torch.cartesian_prod(*grid).numpy()
    observation = np.repeat(np.array([[0.3, -0.5, 0.9]], np.float32), len(actions), axis=0)
    density = np.exp(policy.log_prob(observation, actions))
    cell = float(grid[0][1] - grid[0][0]) * float(grid[1][1] - grid[1][0])
    assert density.sum() * cell == pytest.approx(1.0, abs=0.01)


def test_samples_and_mode_are_those_of_the_gaussian():
    policy, observation = make_policy(), np.array([0.3, -0.5, 0.9], np.float32)
    location, scale = policy.distribution_parameters(torch.from_numpy(observation)).chunk(2)
    torch.manual_seed(0)
    samples = policy.act(np.tile(observation, (20_000, 1)), deterministic=False)
    assert samples.shape == (20_000, 2) and all(ACTION.contains(action) for action in samples[:100])
    pre_tanh = np.arctanh((samples - [0.0, 2.5]) / [2.0, 1.5])
    np.testing.assert_allclose(pre_tanh.mean(0), location, atol=0.05)
    np.testing.assert_allclose(pre_tanh.std(0), scale.exp(), rtol=0.03)
    expected = np.tanh(location.numpy()) * [2.0, 1.5] + [0.0, 2.5]
    np.testing.assert_allclose(policy.act(observation), expected, rtol=1e-5)
    assert policy.act(torch.from_numpy(observation)).shape == (2,) and policy.act(observation).dtype == np.float32


def test_an_action_on_the_bound_has_a_finite_likelihood():
    policy, observation = make_policy(), np.zeros((3, 3), np.float32)
    log_prob = policy.log_prob(observation, np.array([ACTION.low, ACTION.high, [2.0, 1.0]]))
    assert log_prob.shape == (3,) and np.isfinite(log_prob).all()


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (OBSERVATION, gym.spaces.Box(-np.inf, np.inf, (2,)), "finite bounds"),
        (OBSERVATION, gym.spaces.Box(-3e38, 3e38, (2,)), "finite bounds"),
        (OBSERVATION, gym.spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0])), "low < high"),
        (OBSERVATION, gym.spaces.Box(0, 5, (2,), dtype=np.int64), "Box of floats"),
        (OBSERVATION, gym.spaces.Discrete(3), "SoftQLearning"),
        (gym.spaces.Discrete(3), ACTION, "observation space"),
    ],
)
def test_other_spaces_are_refused(observation, action, message):
    with pytest.raises(SpaceMismatchError, match=message):
        SoftActorCritic().build(observation, action, "some/Task-v0")


# -- divergence ------------------------------------------------------------------------------------------------------


def test_divergence_from_a_gaussian_prior_is_exact():
    prior = make_policy(seed=1)
    policy, observation = make_policy(seed=2, prior=prior), torch.rand(6, 3)
    ours, theirs = policy.distribution_parameters(observation), prior.distribution_parameters(observation)
    noise = torch.randn(200_000, 1, 2)
    location, log_scale = ours.chunk(2, -1)
    pre_tanh = location + log_scale.exp() * noise
    difference = policy.family.pre_tanh_log_prob(ours, pre_tanh) - policy.family.pre_tanh_log_prob(theirs, pre_tanh)
    torch.testing.assert_close(policy.divergence(ours, theirs), difference.mean(0), rtol=0.02, atol=0.01)


def as_function(prior: SquashedGaussianPolicy) -> FunctionPrior:
    """The same prior as a density that knows of environments' units alone."""

    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        location, log_scale = prior.distribution_parameters(observation).chunk(2, -1)
        half, middle = torch.tensor([2.0, 1.5]), torch.tensor([0.0, 2.5])
        return (TanhNormal(location, log_scale.exp()).log_prob((action - middle) / half)) - half.log().sum()

    function = FunctionPrior(log_prob)
    function.attach(OBSERVATION, ACTION)
    return function


def test_a_density_function_says_the_same_as_the_gaussian_that_it_is():
    gaussian, observation = make_policy(seed=1), torch.rand(40, 3)
    function = as_function(gaussian)
    pre_tanh = torch.randn(40, 2, requires_grad=True)
    answers = [
        prior.family.pre_tanh_log_prob(prior.distribution_parameters(observation), pre_tanh)
        for prior in (function, gaussian)
    ]
    torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-3)
    slopes = [torch.autograd.grad(answer.sum(), pre_tanh)[0] for answer in answers]
    torch.testing.assert_close(*slopes, rtol=1e-2, atol=1e-2)
    action = gaussian.bounds.to_environment(torch.tanh(pre_tanh.detach()))
    torch.testing.assert_close(
        function.log_prob(observation, action), gaussian.log_prob(observation, action), rtol=1e-3, atol=1e-3
    )
    policy = make_policy(seed=2, prior=gaussian)
    parameters = policy.distribution_parameters(observation)
    exact = policy.divergence(parameters, gaussian.distribution_parameters(observation))
    policy.prior = function
    estimate = policy.divergence(parameters, function.distribution_parameters(observation))
    torch.testing.assert_close(estimate, exact, rtol=0.05, atol=0.05)
    assert not function.can_act and gaussian.can_act
    with pytest.raises(EnvironmentContractError, match="cannot act"):
        function.act(np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("log_prob", "message"),
    [
        (lambda observation, action: torch.zeros(len(action)), "without a gradient"),
        (lambda observation, action: action, "expected a tensor of shape"),
        (lambda observation, action: action.sum(-1) * math.nan, "a finite log-density"),
        (lambda observation, action: 0.0, "found float"),
    ],
)
def test_a_prior_without_a_density_is_refused(log_prob, message):
    prior = FunctionPrior(log_prob)
    prior.attach(OBSERVATION, ACTION)
    with pytest.raises(EnvironmentContractError, match=message):
        prior.probe(torch.zeros(2, 3))
