"""Mixtures, flows, and policies of any family: exact densities, modes, divergences, files, and customization."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, distributions

from rql_lightning.algorithms import ResidualSAC
from rql_lightning.checkpoints import write_atomically
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import ConfigurationError
from rql_lightning.functional import squash_log_det
from rql_lightning.loading import CheckpointPrior, load_policy
from rql_lightning.networks import RowNetwork
from rql_lightning.policies import Encoder, Flow, NetworkPolicy, Policy, SquashedNormal, SquashedNormalMixture
from rql_lightning.policies.families import EDGE

DOUBLE = {"dtype": torch.float64}
OBSERVATIONS, ACTIONS = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(np.float32([-2, 0]), np.float32([2, 4]))
MOUNTAIN_CAR = "rql_lightning/MountainCarContinuous-v0"


def seeded(make: Any) -> Any:
    torch.manual_seed(0)
    return make()


def flow(dimensions: int, context: int = 4) -> Flow:
    family = seeded(lambda: Flow(dimensions, context, bins=6, transforms=2, hidden_sizes=(16,)))
    family.module.double()
    return family


def families(dimensions: int) -> list[Any]:
    return [SquashedNormal(dimensions), SquashedNormalMixture(dimensions, 3), flow(dimensions)]


def parameters_of(family: Any, *shape: int, seed: int = 0) -> Tensor:
    numbers = torch.randn(*shape, family.size, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return family.from_network(0.5 * numbers)


EACH = pytest.mark.parametrize("index", range(3), ids=["squashed normal", "mixture", "flow"])


# -- densities -------------------------------------------------------------------------------------------------------


@EACH
def test_densities_of_actions_integrate_to_one(index):
    """The substitution a = tanh(u) turns the integral over [−1, 1] into one over u, which a grid covers evenly."""
    family = families(1)[index]
    grid = torch.linspace(-18, 18, 20_001, **DOUBLE).unsqueeze(-1)
    for seed in range(3):
        parameters = parameters_of(family, 1, seed=seed)
        log_prob = family.pre_tanh_log_prob(parameters.expand(len(grid), -1), grid)
        total = torch.trapezoid((log_prob + squash_log_det(grid)).exp(), grid.squeeze(-1))
        assert total.item() == pytest.approx(1.0, abs=1e-4)
        inside = torch.linspace(-1, 1, 100_001, **DOUBLE)[1:-1].unsqueeze(-1)
        direct = torch.trapezoid(family.log_prob(parameters.expand(len(inside), -1), inside).exp(), inside.squeeze(-1))
        assert direct.item() == pytest.approx(1.0, abs=0.02), "up to the ends, where densities may grow"


@EACH
def test_densities_in_two_dimensions_integrate_to_one(index):
    family = families(2)[index]
    axis = torch.linspace(-20, 20, 401, **DOUBLE)
    grid = torch.cartesian_prod(axis, axis)
    parameters = parameters_of(family, 1, seed=4)
    log_prob = family.pre_tanh_log_prob(parameters.expand(len(grid), -1), grid) + squash_log_det(grid)
    surface = log_prob.exp().reshape(401, 401)
    total = torch.trapezoid(torch.trapezoid(surface, axis, dim=1), axis)
    assert total.item() == pytest.approx(1.0, abs=2e-3)


def test_a_mixture_against_pytorchs():
    family = SquashedNormalMixture(2, 3)
    parameters, action = parameters_of(family, 7), torch.rand(7, 2, **DOUBLE) * 1.8 - 0.9
    weights, locations, log_scales = parameters[:, :3], parameters[:, 3:9], parameters[:, 9:]
    normal = distributions.Normal(locations.reshape(7, 3, 2), log_scales.reshape(7, 3, 2).exp())
    components = distributions.Independent(normal, 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(logits=weights), components)
    expected = mixture.log_prob(torch.atanh(action)) - torch.log(1 - action**2).sum(-1)
    torch.testing.assert_close(family.log_prob(parameters, action), expected, rtol=1e-8, atol=1e-8)


@EACH
def test_as_a_distribution_of_pytorch(index):
    family = families(2)[index]
    parameters, action = parameters_of(family, 7), torch.rand(7, 2, **DOUBLE) * 1.8 - 0.9
    law = family.distribution(parameters)
    torch.testing.assert_close(law.log_prob(action), family.log_prob(parameters, action), rtol=1e-8, atol=1e-8)
    assert law.sample().shape == (7, 2) and law.sample((1000,)).abs().max() < 1, "actions, not pre-tanh actions"


def test_one_component_is_a_squashed_normal():
    mixture, normal = SquashedNormalMixture(2, 1), SquashedNormal(2)
    parameters, u = parameters_of(normal, 5), torch.randn(5, 2, **DOUBLE)
    same = torch.cat([torch.zeros(5, 1, **DOUBLE), parameters], dim=-1)
    torch.testing.assert_close(mixture.pre_tanh_log_prob(same, u), normal.pre_tanh_log_prob(parameters, u))
    torch.testing.assert_close(mixture.mode(same), normal.mode(parameters))
    other = parameters_of(normal, 5, seed=1)
    torch.testing.assert_close(
        mixture.kl(same, normal, other), normal.kl(parameters, normal, other), rtol=1e-6, atol=1e-6
    )
    floored = mixture.with_min_scale(same, 0.1)
    torch.testing.assert_close(floored[:, 1:], normal.with_min_scale(parameters, 0.1))
    torch.testing.assert_close(mixture.at_min_scale(floored, 0.1).squeeze(-2), normal.at_min_scale(floored[:, 1:], 0.1))


@EACH
def test_gradients_in_u_against_finite_differences(index):
    family = families(2)[index]
    parameters = parameters_of(family, 4)
    u = torch.randn(4, 2, generator=torch.Generator().manual_seed(2), **DOUBLE).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: family.pre_tanh_log_prob(parameters, u), u, eps=1e-6, atol=1e-5)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_densities_far_away_and_at_the_bounds_are_finite(index, dtype):
    """With finite gradients in the action, in the parameters and in a flow's weights."""
    family = families(2)[index]
    weights = list(family.module.to(dtype).parameters()) if isinstance(family, Flow) else []
    parameters = parameters_of(family, 4).to(dtype).requires_grad_()
    u = torch.tensor([[15.0, -15.0], [9.0, 0.0], [0.0, 0.0], [10.0, -10.0]], dtype=dtype, requires_grad=True)
    edges = torch.tensor([[1, -1], [1, 0.5], [-1, -1], [EDGE, 0]], dtype=dtype, requires_grad=True)
    total = family.pre_tanh_log_prob(parameters, u).sum() + family.log_prob(parameters, edges).sum()
    gradients = torch.autograd.grad(total, [parameters, u, edges, *weights])
    assert total.isfinite() and all(gradient.isfinite().all() for gradient in gradients)


def test_a_flow_learns_the_density_of_actions_at_the_bounds():
    """Demonstrations of clipped actions lie there; splines are the identity outside of their range."""
    family, edges = flow(1), torch.tensor([[-1.0], [1.0]])
    parameters = parameters_of(family, 2).requires_grad_()
    log_prob = family.log_prob(parameters, edges)
    (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
    assert (gradient.abs().sum(-1) > 0).all()


# -- samples, modes, divergences -------------------------------------------------------------------------------------


@EACH
def test_samples_follow_the_density(index):
    family = families(1)[index]
    parameters = parameters_of(family, 1, seed=5)
    torch.manual_seed(3)
    samples = family.sample(parameters.expand(20_000, -1)).squeeze(-1).sort().values
    grid = torch.linspace(-18, 18, 20_001, **DOUBLE)
    density = family.pre_tanh_log_prob(parameters.expand(len(grid), -1), grid.unsqueeze(-1))
    cumulative = torch.cumulative_trapezoid((density + squash_log_det(grid.unsqueeze(-1))).exp(), grid)
    position = torch.searchsorted(torch.tanh(grid[1:]).contiguous(), samples.double()).clamp(max=len(cumulative) - 1)
    distance = (cumulative[position] - torch.linspace(0, 1, len(samples), **DOUBLE)).abs().max()
    assert distance < 1.95 / math.sqrt(len(samples)), "Kolmogorov and Smirnov at 0.1 %"


def test_the_mode_of_a_mixture_is_its_densest_centre():
    family = SquashedNormalMixture(1, 3)
    weights, locations, log_scales = [0.5, 0.3, 0.2], [-1.0, 0.4, 1.0], [0.0, -2.0, 0.0]
    parameters = torch.tensor([*map(math.log, weights), *locations, *log_scales], **DOUBLE)
    assert family.mode(parameters).item() == pytest.approx(math.tanh(0.4)), "heaviest: −1; densest: 0.4"


def test_the_mode_of_a_flow_is_dense_and_reproducible():
    family = flow(2)
    parameters = parameters_of(family, 20)
    mode = family.mode(parameters)
    assert torch.equal(mode, family.mode(parameters))
    others = seeded(lambda: family.from_noise(parameters, torch.randn(200, 20, 2)))
    points = torch.cat([torch.atanh(mode)[None], others])
    density = family.pre_tanh_log_prob(parameters, points) + squash_log_det(points)
    assert (density[1:] <= density[0]).double().mean() > 0.97


@EACH
@pytest.mark.parametrize("other", range(3), ids=["to squashed normal", "to mixture", "to flow"])
def test_divergences_against_quadrature(index, other):
    family, theirs = families(1)[index], families(1)[other]
    own, their = parameters_of(family, 1, seed=6), parameters_of(theirs, 1, seed=7)
    grid = torch.linspace(-16, 16, 20_001, **DOUBLE).unsqueeze(-1)
    density = family.pre_tanh_log_prob(own.expand(len(grid), -1), grid)
    difference = density - theirs.pre_tanh_log_prob(their.expand(len(grid), -1), grid)
    exact = torch.trapezoid((density + squash_log_det(grid)).exp() * difference, grid.squeeze(-1))
    found = family.kl(own, theirs, their)
    assert found.item() == pytest.approx(exact.item(), abs=0.15 * (1 + exact.item()))
    assert torch.equal(found, family.kl(own, theirs, their)), "the same every time"


@EACH
def test_entropies_are_estimated_without_bias(index):
    family = families(1)[index]
    parameters = parameters_of(family, 1, seed=8)
    grid = torch.linspace(-16, 16, 20_001, **DOUBLE).unsqueeze(-1)
    density = family.pre_tanh_log_prob(parameters.expand(len(grid), -1), grid)
    exact = -torch.trapezoid((density + squash_log_det(grid)).exp() * density, grid.squeeze(-1))
    torch.manual_seed(0)
    estimates = family.entropy(parameters.expand(20_000, -1))
    assert estimates.mean().item() == pytest.approx(exact.item(), abs=5 * estimates.std().item() / math.sqrt(20_000))


# -- policies --------------------------------------------------------------------------------------------------------


def policy_of(family: str | None, actions: gym.Space[Any] = ACTIONS, **settings: Any) -> NetworkPolicy:
    return seeded(lambda: NetworkPolicy(OBSERVATIONS, actions, [8, 8], family, **settings))


def saved(policy: Policy, path: Path, task: str | None = None) -> Path:
    about = {"algorithm": "BehaviorCloning", "task": task, "policy": policy.describe()}
    weights = {f"policy.{name}": value for name, value in policy.state_dict().items()}
    write_atomically({"state_dict": weights, "rql_lightning": about}, path)
    return path


@pytest.mark.parametrize(
    ("family", "actions"),
    [("squashed_normal", ACTIONS), ("mixture", ACTIONS), ("flow", ACTIONS), ("categorical", gym.spaces.Discrete(3))],
)
def test_a_policy_comes_back_from_its_file(tmp_path, family, actions):
    policy = policy_of(family, actions, components=2, context=6)
    loaded = load_policy(saved(policy, tmp_path / "policy.ckpt"))
    observation = OBSERVATIONS.sample()[None].repeat(5, axis=0)
    action = policy.act(observation)
    assert actions.contains(action[0]) and np.array_equal(loaded.act(observation), action)
    assert np.array_equal(loaded.log_prob(observation, action), policy.log_prob(observation, action))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.temperature is None


def test_a_policy_comes_back_with_the_prior_that_it_is_compared_with(tmp_path):
    prior = CheckpointPrior(str(saved(policy_of("mixture"), tmp_path / "prior.ckpt")))
    policy = policy_of("squashed_normal", prior=prior)
    loaded = load_policy(saved(policy, tmp_path / "policy.ckpt"))
    observation = np.zeros((2, 3), dtype=np.float32)
    assert np.array_equal(loaded.decide(observation).kl_to_prior, policy.decide(observation).kl_to_prior)


def test_families_that_do_not_fit_and_unknown_ones():
    with pytest.raises(ConfigurationError, match=r"model\.family: found 'categorical', expected 'squashed_normal'"):
        policy_of("categorical")
    with pytest.raises(ConfigurationError, match=r"model\.family: found 'flow', expected 'categorical' for Discrete"):
        policy_of("flow", gym.spaces.Discrete(3))
    with pytest.raises(ConfigurationError, match=r"model\.family: found 'normal'"):
        policy_of("normal")


def test_without_zuko(monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko.flows", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'rql-lightning\[flows\]'"):
        policy_of("flow")


def test_rows_after_the_first_have_no_order():
    torch.manual_seed(0)
    network, code = RowNetwork(20, 5, [16, 16], 3), torch.randn(6, 20)
    rows = code.reshape(6, 5, 4)
    shuffled = rows[:, [0, 3, 1, 4, 2]].reshape(6, 20)
    torch.testing.assert_close(network(shuffled), network(code))
    assert not torch.allclose(network(rows[:, [1, 0, 2, 3, 4]].reshape(6, 20)), network(code)), "the first is not one"
    with pytest.raises(ConfigurationError, match=r"model\.rows: found 3, expected at least 2 and a divisor of the 20"):
        RowNetwork(20, 3, [16], 3)


# -- as priors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["squashed_normal", "mixture", "flow"])
def test_priors_of_every_family_are_customised(tmp_path, family):
    env = gym.make(MOUNTAIN_CAR)
    spaces, task = (env.observation_space, env.action_space), MOUNTAIN_CAR
    prior = NetworkPolicy(*spaces, [8], family, components=2, context=4, task=task)
    path = saved(prior, tmp_path / "prior.ckpt", task)
    same = family == "squashed_normal"
    algorithm = ResidualSAC(
        CheckpointPrior(str(path)), 0.1, 0.1, hidden_sizes=[8], start_at_prior=same, prior_frames=16
    )
    small = {"num_envs": 4, "total_frames": 96, "frames_per_batch": 16, "updates_per_batch": 2, "batch_size": 8}
    data = ReplayDataModule(env=task, warm_up_frames=0, **small)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=1, enable_checkpointing=False, **quiet).fit(algorithm, datamodule=data)
    assert algorithm.updates == 12
    divergence = algorithm.policy.decide(np.zeros((3, 2), dtype=np.float32)).kl_to_prior
    assert divergence.shape == (3,) and np.isfinite(divergence).all()
    loaded = load_policy(saved(algorithm.policy, tmp_path / "customised.ckpt", task))
    assert np.array_equal(loaded.decide(np.zeros((3, 2), dtype=np.float32)).kl_to_prior, divergence)


def test_an_actor_starts_at_a_policy_with_the_same_network_only():
    encoder = Encoder.scaled_of(OBSERVATIONS)
    from rql_lightning.policies import SquashedGaussianPolicy

    actor = SquashedGaussianPolicy(OBSERVATIONS, ACTIONS, [8, 8], encoder)
    same = policy_of("squashed_normal")
    actor.start_at(same, "model.start_at: found x")
    observation = torch.rand(4, 3)
    torch.testing.assert_close(actor.distribution_parameters(observation), same.distribution_parameters(observation))
    for other in (policy_of("mixture"), policy_of("squashed_normal", rows=3)):
        with pytest.raises(
            ConfigurationError, match=r"model\.start_at: found x, expected a policy of .*SquashedNormal.*, not "
        ):
            actor.start_at(other, "model.start_at: found x")
