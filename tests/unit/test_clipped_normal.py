"""The law of a normal that is clipped to the bounds, against SciPy, integration and its own samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from rql_lightning import functional
from rql_lightning.policies import ClippedNormal, SquashedNormal
from rql_lightning.policies.clipped import EDGE_WIDTH, SHARPNESS

DOUBLE = {"dtype": torch.float64}
LAWS = [(0.2, 0.3), (0.9, 0.5), (-1.5, 0.4), (3.0, 0.5), (0.0, 2.0)]


def parameters(location: float, scale: float) -> torch.Tensor:
    return torch.tensor([[location, math.log(scale)]], **DOUBLE)


@pytest.mark.parametrize(("location", "scale"), LAWS)
def test_the_law_is_a_density_within_the_bounds_and_a_probability_at_them(location, scale):
    family, normal = ClippedNormal(1), stats.norm(location, scale)
    action = torch.tensor([[-1.0], [-0.7], [0.3], [0.999], [1.0]], **DOUBLE)
    expected = [normal.logcdf(-1), *normal.logpdf([-0.7, 0.3, 0.999]), normal.logsf(1)]
    found = family.log_prob(parameters(location, scale).expand(5, 2), action)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    grid = torch.linspace(-1, 1, 20_001, **DOUBLE)[1:-1].unsqueeze(-1)
    inner = torch.trapezoid(family.log_prob(parameters(location, scale).expand(len(grid), 2), grid).exp(), grid[:, 0])
    total = inner.item() + math.exp(expected[0]) + math.exp(expected[-1])
    assert total == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("location", "scale"), LAWS)
def test_what_learners_see_is_a_density_that_has_the_mass_at_the_edges(location, scale):
    """Integrated over u, of the density of u: p(tanh u) (1 − tanh² u)."""
    family, normal = ClippedNormal(1), stats.norm(location, scale)
    u = torch.linspace(-14, 14, 200_001, **DOUBLE).unsqueeze(-1)
    log_density = family.pre_tanh_log_prob(parameters(location, scale).expand(len(u), 2), u)
    density = (log_density + functional.squash_log_det(u)).exp()
    assert torch.trapezoid(density, u[:, 0]).item() == pytest.approx(1.0, abs=1e-4)
    upper = torch.tanh(u[:, 0]) > 1 - 5 * EDGE_WIDTH
    within = normal.cdf(1) - normal.cdf(1 - 5 * EDGE_WIDTH)
    share = torch.trapezoid(density[upper], u[upper, 0]).item()
    assert share == pytest.approx(normal.sf(1) * (1 - (1 - 2.5 * EDGE_WIDTH) ** SHARPNESS) + within, abs=2e-3)


def test_away_from_the_bounds_both_views_agree():
    family, action = ClippedNormal(2), torch.linspace(-0.8, 0.8, 9, **DOUBLE).unsqueeze(-1).expand(9, 2)
    for location, scale in LAWS[:2]:
        numbers = torch.tensor([location, -location, math.log(scale), math.log(2 * scale)], **DOUBLE).expand(9, 4)
        law, density = family.log_prob(numbers, action), family.pre_tanh_log_prob(numbers, torch.atanh(action))
        torch.testing.assert_close(density[1:-1], law[1:-1], rtol=0, atol=1e-5)


def test_density_and_gradient_are_finite_everywhere_and_lead_a_squashed_policy_to_the_mass():
    """Also in float32, far beyond the place where tanh rounds to ±1, and for scales at the usual floor."""
    family = ClippedNormal(1)
    u = torch.tensor([-1e4, -40.0, -9.0, -3.0, 0.0, 3.0, 9.0, 40.0, 1e4]).unsqueeze(-1)
    for location, scale in [*LAWS, (30.0, 0.01), (-30.0, 0.01), (0.0, 0.01)]:
        numbers = parameters(location, scale).float().expand(len(u), 2)
        value, gradient = family.pre_tanh_log_prob_and_gradient(numbers, functional.squash(u))
        assert value.isfinite().all() and gradient.isfinite().all()
    saturated = parameters(3.0, 0.5).float().expand(len(u), 2)
    value, gradient = family.pre_tanh_log_prob_and_gradient(saturated, functional.squash(u))
    assert (gradient[4:6] > 0).all() and value[6] > math.log(10) > 0 > value[4]


@pytest.mark.parametrize(("location", "scale"), LAWS)
def test_the_gradient_is_that_of_finite_differences(location, scale):
    family, u = ClippedNormal(1), torch.linspace(-5, 5, 41, **DOUBLE).unsqueeze(-1)
    numbers = parameters(location, scale).expand(len(u), 2)
    _, gradient = family.pre_tanh_log_prob_and_gradient(numbers, functional.squash(u))
    step = 1e-6
    ahead, back = (family.pre_tanh_log_prob(numbers, u + sign * step) for sign in (1, -1))
    torch.testing.assert_close(gradient[:, 0], (ahead - back) / (2 * step), rtol=1e-5, atol=1e-5)
    point = u.clone().requires_grad_()
    value = family.pre_tanh_log_prob(numbers, point)
    (expected,) = torch.autograd.grad(value.sum(), point)
    found, _ = family.pre_tanh_log_prob_and_gradient(numbers, functional.squash(u))
    torch.testing.assert_close(found, value.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_samples_are_clipped_and_the_mode_is_the_clipped_location():
    torch.manual_seed(0)
    family, numbers = ClippedNormal(1), parameters(0.9, 0.5)
    samples = family.sample(numbers.expand(40_000, 2))
    assert samples.abs().max() == 1.0
    normal = stats.norm(0.9, 0.5)
    assert (samples == 1).double().mean().item() == pytest.approx(normal.sf(1), abs=0.01)
    assert (samples == -1).double().mean().item() == pytest.approx(normal.cdf(-1), abs=0.01)
    assert samples[samples.abs() < 1].mean().item() == pytest.approx(
        stats.truncnorm.mean(-3.8, 0.2, loc=0.9, scale=0.5), abs=0.01
    )
    assert family.mode(parameters(3.0, 1.0)).item() == 1.0 and family.mode(numbers).item() == pytest.approx(0.9)
    law = family.distribution(numbers.expand(3, 2))
    assert law.sample((5,)).shape == (5, 3, 1) and law.batch_shape == (3,) and law.event_shape == (1,)
    torch.testing.assert_close(law.log_prob(samples[:3]), family.log_prob(numbers.expand(3, 2), samples[:3]))


@pytest.mark.parametrize(("location", "scale"), LAWS)
def test_noise_is_distributed_as_the_density_says(location, scale):
    """The distribution function of u at samples is uniform (Kolmogorov and Smirnov, on quantiles of the noise)."""
    family = ClippedNormal(1)
    noise = torch.tensor(stats.norm.ppf((np.arange(4000) + 0.5) / 4000)).unsqueeze(-1)
    samples = family.from_noise(parameters(location, scale).expand(4000, 2), noise)[:, 0].sort().values
    u = torch.linspace(-14, 14, 100_001, **DOUBLE).unsqueeze(-1)
    density = family.pre_tanh_log_prob(parameters(location, scale).expand(len(u), 2), u)
    cumulative = torch.cumulative_trapezoid((density + functional.squash_log_det(u)).exp(), u[:, 0])
    found = np.interp(samples.numpy(), u[1:, 0].numpy(), cumulative.numpy())
    assert np.abs(found - (np.arange(4000) + 0.5) / 4000).max() < 0.005
    single = family.from_noise(parameters(location, scale).float().expand(4000, 2), noise.float())
    assert single.isfinite().all()


def test_divergences_are_finite_and_zero_from_itself():
    family, numbers = ClippedNormal(2), torch.tensor([[0.2, 3.0, -1.0, -0.5]], **DOUBLE)
    assert family.kl(numbers, family, numbers).item() == pytest.approx(0.0, abs=1e-9)
    # u beyond a bound has a Gumbel distribution of location ½ log c and scale ½, which a normal comes close to
    near = torch.tensor([[0.2, 0.5 * math.log(SHARPNESS) + 0.29, -1.0, math.log(0.64)]], **DOUBLE)
    far = torch.tensor([[0.2, -2.0, -1.0, math.log(0.64)]], **DOUBLE)
    squashed = SquashedNormal(2)
    close, distant = (squashed.kl(each, family, numbers).item() for each in (near, far))
    assert 0 < close < 0.3 and 5 < distant < 1e4


def test_the_scale_has_a_floor():
    family, numbers = ClippedNormal(1), parameters(0.3, 0.001)
    floored = family.with_min_scale(numbers, math.log(0.01))
    assert floored[0].tolist() == pytest.approx([0.3, math.log(0.01)])
    assert family.at_min_scale(floored, math.log(0.01)).item() == 1.0
