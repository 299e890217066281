"""Laws of actions against PyTorch's distributions and numerical integration; what a policy has, and not what it is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, distributions

from rql_lightning.errors import EnvironmentContractError
from rql_lightning.policies import Categorical, Density, Family, SquashedNormal

DOUBLE = {"dtype": torch.float64}


def parameters_of(family: Family, *shape: int, seed: int = 0) -> Tensor:
    numbers = torch.randn(*shape, family.size, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return numbers.log_softmax(-1) if isinstance(family, Categorical) else 0.5 * numbers


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3)])
@pytest.mark.parametrize("family", [Categorical(4), SquashedNormal(2)])
def test_batches_keep_their_shape(family, shape):
    parameters, other = parameters_of(family, *shape), parameters_of(family, *shape, seed=1)
    action = () if isinstance(family, Categorical) else (2,)
    assert family.mode(parameters).shape == family.sample(parameters).shape == (*shape, *action)
    assert family.log_prob(parameters, family.sample(parameters)).shape == shape
    assert family.kl(parameters, family, other).shape == shape
    torch.testing.assert_close(family.kl(parameters, family, parameters), torch.zeros(shape, **DOUBLE))


@pytest.mark.parametrize("family", [Categorical(4), SquashedNormal(1)])
def test_densities_are_normalised(family):
    parameters = parameters_of(family, 1)
    if isinstance(family, Categorical):
        total = family.log_prob(parameters.expand(4, -1), torch.arange(4)).exp().sum()
    else:
        grid = torch.linspace(-1, 1, 400_001, **DOUBLE)[1:-1].unsqueeze(-1)
        total = torch.trapezoid(family.log_prob(parameters.expand(len(grid), -1), grid).exp(), grid.squeeze(-1))
    assert total.item() == pytest.approx(1.0, abs=1e-3)


def test_categorical_divergence_is_the_sum_and_infinite_off_the_others_support():
    family = Categorical(3)
    ours, theirs = torch.tensor([0.5, 0.5, 0.0], **DOUBLE), torch.tensor([0.25, 0.25, 0.5], **DOUBLE)
    assert family.kl(ours.log(), family, theirs.log()).item() == pytest.approx(math.log(2))
    assert family.kl(theirs.log(), family, ours.log()).item() == math.inf


def test_a_squashed_normals_noise_chooses_what_the_normal_would():
    family, noise = SquashedNormal(2), torch.tensor([[0.3, -1.2]], **DOUBLE)
    parameters = torch.tensor([[0.5, -0.5, math.log(0.2), math.log(2.0)]], **DOUBLE)
    chosen = family.from_noise(parameters, noise)
    torch.testing.assert_close(chosen, torch.tensor([[0.5 + 0.2 * 0.3, -0.5 - 2.0 * 1.2]], **DOUBLE))
    normal = distributions.Normal(parameters[:, :2], parameters[:, 2:].exp())
    expected = (normal.log_prob(chosen) - torch.log(1 - torch.tanh(chosen) ** 2)).sum(-1)
    torch.testing.assert_close(family.pre_tanh_log_prob(parameters, chosen), expected)
    torch.testing.assert_close(family.log_prob(parameters, torch.tanh(chosen)), expected)


def test_the_floor_of_a_scale():
    family, parameters = SquashedNormal(1), torch.tensor([[0.3, -5.0], [0.3, 1.0]])
    floored = family.with_min_scale(parameters, -2.0)
    torch.testing.assert_close(floored, torch.tensor([[0.3, -2.0], [0.3, 1.0]]))
    assert family.at_min_scale(floored, -2.0).tolist() == [[1.0], [0.0]]
    discrete = Categorical(2)
    assert torch.equal(discrete.with_min_scale(parameters, 0.5), parameters)
    assert discrete.at_min_scale(parameters, 0.5) is None


def test_divergence_from_a_density_is_estimated_and_exact_for_gaussians():
    family = SquashedNormal(2)
    ours, theirs = parameters_of(family, 6), parameters_of(family, 6, seed=3)
    density = Density(4, family.pre_tanh_log_prob, "prior mine")
    torch.testing.assert_close(family.kl(ours, density, theirs), family.kl(ours, family, theirs), rtol=1e-6, atol=1e-6)


def test_a_density_cannot_act_and_a_family_without_one_says_so():
    density = Density(4, lambda parameters, pre_tanh: pre_tanh.sum(-1), "prior mine")
    assert not density.can_act and not density.explorable
    for ask in (density.mode, density.sample):
        with pytest.raises(EnvironmentContractError, match=r"prior mine: found a log-density.*cannot act"):
            ask(torch.zeros(1, 4))
    with pytest.raises(EnvironmentContractError, match="Categorical: found no density"):
        Categorical(3).pre_tanh_log_prob(torch.zeros(1, 3), torch.zeros(1, 1))
