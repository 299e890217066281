"""What somebody overrides or exchanges is what is trained, also where gradients in closed form exist."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from rql_lightning import functional
from rql_lightning.algorithms import IQLearn, IQLearnSAC, KLRewardSAC, ResidualSAC, SoftActorCritic, SoftQLearning
from rql_lightning.algorithms.optimization import VectorOptimizer
from rql_lightning.networks import Perceptron, mlp
from rql_lightning.policies.families import SquashedNormal
from rql_lightning.priors import FunctionPrior

BOX, MOVES = (gym.spaces.Box(-1, 1, (size,), np.float32) for size in (3, 2))
BUTTONS = gym.spaces.Discrete(3)


def density(observation: Tensor, action: Tensor) -> Tensor:
    return torch.distributions.Normal(0.3 * observation[..., :2], 0.7).log_prob(action).sum(dim=-1)


def batch_for(learner: Any, discrete: bool, updates: int = 4, size: int = 8) -> TensorDict:
    generator = torch.Generator().manual_seed(3)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(updates, size, *shape, generator=generator, dtype=torch.float64)

    observation, following = numbers(3).tanh(), numbers(3).tanh()
    terminated = torch.rand(updates, size, generator=generator) < 0.2
    batch: dict[str, Any] = {"observation": observation}
    batch["next"] = {"observation": following, "reward": numbers(), "terminated": terminated}
    if discrete:
        batch["action"] = torch.randint(3, (updates, size), generator=generator)
    else:
        batch |= {"pre_tanh": (pre_tanh := numbers(2)), "action": torch.tanh(pre_tanh)}
    if getattr(learner, "prior", None) is not None:
        for part, states in ((batch, observation), (batch["next"], following)):
            parameters = learner.prior.distribution_parameters(states.flatten(0, 1)).double()
            part["prior_parameters"] = parameters.unflatten(0, (updates, size))
    return TensorDict(batch, [updates, size])


def learner_of(detach: Any, algorithm: Any, **settings: Any) -> Any:
    arguments = [FunctionPrior(density)] if issubclass(algorithm, ResidualSAC) else []
    actions = BUTTONS if issubclass(algorithm, SoftQLearning) else MOVES
    return detach(algorithm, BOX, actions, *arguments, hidden_sizes=[16, 8], learning_rate=0.01, **settings)


def updated(learner: Any, closed: bool = True) -> tuple[Any, dict[str, float]]:
    if not closed:
        type(learner).has_closed_form = False
    batch = batch_for(learner, isinstance(learner, SoftQLearning))
    torch.manual_seed(1)
    return learner, learner.update(batch)


def same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.allclose(mine, theirs, rtol=0, atol=tolerance) for mine, theirs in pairs)


class Regularized(SoftActorCritic):
    def losses(self, *given: Any) -> Any:
        losses, sample, diagnostics = super().losses(*given)
        losses["regularizer"] = 1e3 * sum(each.square().sum() for each in self.policy.network.parameters())
        return losses, sample, diagnostics


@pytest.mark.parametrize("alpha", [0.2, "auto"])
def test_a_further_loss_is_learnt_from(detach, alpha):
    shrunk, plain = (updated(learner_of(detach, each, alpha=alpha))[0] for each in (Regularized, SoftActorCritic))
    size = [sum(each.square().sum().item() for each in one.policy.network.parameters()) for one in (shrunk, plain)]
    assert size[0] < 0.9 * size[1]


class Weighted(ResidualSAC):
    def weighted_prior(self, parameters: Tensor | None, pre_tanh: Tensor) -> Any:
        return 5.0 * super().weighted_prior(parameters, pre_tanh)


class Clamped(ResidualSAC):
    def prior_log_prob(self, parameters: Tensor | None, pre_tanh: Tensor) -> Tensor:
        return super().prior_log_prob(parameters, pre_tanh).clamp(min=-1.0)


class Doubled(IQLearn):
    def inverse_loss(self, *given: Any) -> Tensor:
        return 2.0 * super().inverse_loss(*given)


CALLS: list[str] = []


class Descending(SoftQLearning):
    def descend(self, *given: Any) -> None:
        CALLS.append("descend")
        super().descend(*given)


@pytest.mark.parametrize(("algorithm", "base"), [(Weighted, ResidualSAC), (Clamped, ResidualSAC)])
def test_helpers_of_losses_count(detach, algorithm, base):
    settings = {"omega_prime": 0.4, "alpha_hat": 0.7}
    assert learner_of(detach, base, **settings).has_closed_form
    own = learner_of(detach, algorithm, **settings)
    assert not own.has_closed_form
    assert not same(updated(own)[0], updated(learner_of(detach, base, **settings))[0], 1e-4)


def test_helpers_of_discrete_losses_count(detach):
    assert learner_of(detach, IQLearn).has_closed_form and not learner_of(detach, Doubled).has_closed_form
    CALLS.clear()
    updated(learner_of(detach, Descending))
    assert CALLS == 4 * ["descend"]


class Wider(SquashedNormal):
    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        return super().pre_tanh_log_prob(parameters, pre_tanh) * 0.5


def test_a_density_that_is_overridden_has_its_own_gradient():
    parameters, pre_tanh = torch.randn(5, 4).double(), torch.randn(5, 2).double().requires_grad_()
    value = Wider(2).pre_tanh_log_prob(parameters, pre_tanh)
    (expected,) = torch.autograd.grad(value.sum(), pre_tanh)
    found, gradient = Wider(2).pre_tanh_log_prob_and_gradient(parameters, functional.squash(pre_tanh.detach()))
    torch.testing.assert_close(found, value.detach())
    torch.testing.assert_close(gradient, expected)


def smooth(network: Any) -> None:
    network[1] = nn.Tanh()


def normalized(network: Any) -> None:
    network.insert(1, nn.LayerNorm(16).double())


def spectral(network: Any) -> None:
    nn.utils.parametrizations.spectral_norm(network[0])


def hooked(network: Any) -> None:
    network[0].register_forward_hook(lambda module, inputs, output: 2.0 * output)


@pytest.mark.parametrize("change", [smooth, normalized, spectral, hooked])
@pytest.mark.parametrize("algorithm", [SoftActorCritic, SoftQLearning])
def test_networks_that_are_changed_are_autograds(detach, algorithm, change):
    results = []
    for closed in (True, False):
        learner = learner_of(detach, algorithm)
        network: Any = learner.policy.network if algorithm is SoftActorCritic else learner.policy.q_network
        assert isinstance(network, Perceptron) and network.prepare()
        change(network)
        assert not network.prepare()
        learner.optimizer = learner.configure_optimizers()
        learner.optimizer.optimizer = learner.optimizer
        torch.manual_seed(5)
        results.append(updated(learner, closed)[0])
    assert same(*results)


def test_frozen_layers_do_not_move(detach):
    learner = learner_of(detach, SoftActorCritic)
    learner.policy.network[0].requires_grad_(False)
    with pytest.raises(RuntimeError, match="does not require grad"):
        updated(learner)


class PerTransition(SoftQLearning):
    """Its loss is written for one minibatch ``[B]``."""

    def loss(self, q_values: Tensor, q_taken: Tensor, q_target: Tensor, minibatch: Any) -> Tensor:
        own = q_values[torch.arange(len(minibatch)), minibatch.action]
        return 0.5 * (own - q_target).square().mean()


def test_a_loss_of_one_minibatch_is_asked_for_one(detach):
    own, metrics = updated(learner_of(detach, PerTransition))
    plain, others = updated(learner_of(detach, SoftQLearning, huber_delta=None))
    assert same(own, plain, 1e-9) and metrics["td_loss"] == pytest.approx(others["td_loss"])


class Counting(VectorOptimizer):
    def step(self, closure: Any = None) -> Any:
        CALLS.append("step")
        return super().step(closure)


class Decaying(SoftQLearning):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return Counting([self.policy.q_network.parameters()], 0.01, weight_decay=0.01)


def test_somebody_elses_optimizer_is_stepped(detach):
    CALLS.clear()
    updated(learner_of(detach, Decaying, target_update_interval=2))
    assert CALLS == 4 * ["step"]


def test_a_further_group_is_autograds(detach):
    learner = learner_of(detach, SoftActorCritic, alpha=0.2)
    extra = mlp(2, [3], 1).double()
    groups = [*learner.optimizer.members, list(extra.parameters())]
    learner.optimizer = VectorOptimizer(groups, 0.01)
    learner.optimizer.optimizer = learner.optimizer
    with pytest.raises(RuntimeError, match="not have been used"):
        updated(learner)


@pytest.mark.parametrize("bound", [-5.0, 2.0])
def test_a_scale_at_its_bound_can_leave_it(detach, bound):
    results = []
    for closed in (True, False):
        learner = learner_of(detach, SoftActorCritic, alpha=0.2)
        with torch.no_grad():
            learner.policy.network[-1].weight[2:] = 0.0
            learner.policy.network[-1].bias[2:] = bound
        results.append(updated(learner, closed)[0])
    assert same(*results, 1e-9)


def test_layers_are_looked_up_anew():
    network = mlp(3, [4], 2)
    network.evaluate(torch.zeros(1, 3))
    network[0] = nn.Linear(3, 4)
    assert network.prepare() and network.layers[0][0] is network[0].weight
    network.load_state_dict({key: value + 1 for key, value in network.state_dict().items()}, assign=True)
    assert network.prepare() and network.layers[0][0] is network[0].weight


@pytest.mark.parametrize("algorithm", [KLRewardSAC, IQLearnSAC])
def test_losses_without_a_closed_gradient_are_autograds(detach, algorithm):
    settings = {"omega_prime": 0.4, "alpha_hat": 0.7} if algorithm is KLRewardSAC else {}
    assert not learner_of(detach, algorithm, **settings).has_closed_form


class Wished(ResidualSAC):
    weight: Any = 0.4

    @property
    def omega_prime_now(self) -> Any:
        return self.weight


@pytest.mark.parametrize("weight", [0.4, torch.tensor(0.4).double(), torch.tensor([0.0, 0.1, 0.2, 0.7] * 2).double()])
@pytest.mark.parametrize("bound", [None, -2.0])
def test_a_squashed_normal_prior_and_a_weight_that_is_a_tensor(detach, weight, bound):
    results = []
    for closed in (True, False):
        settings = {"omega_prime": 0.4, "alpha_hat": 0.7, "prior_log_prob_min": bound, "max_grad_norm": 0.5}
        learner = learner_of(detach, Wished, **settings)
        learner.weight = weight
        learner.prior.family = SquashedNormal(2)
        learner.prior.distribution_parameters = lambda states: torch.cat([states[:, :2], -states[:, 1:].abs()], dim=-1)
        results.append(updated(learner, closed)[0])
    assert same(*results, 1e-9)


@pytest.mark.parametrize("algorithm", [SoftActorCritic, SoftQLearning])
def test_gradients_are_averaged_over_ranks(detach, algorithm):
    """Two ranks, of which the other one has no gradient: half of this one's, before it is clipped."""
    results = []
    for closed in (True, False):
        learner = learner_of(detach, algorithm, max_grad_norm=0.2)
        type(learner).average = property(lambda self: lambda gradient: 0.5 * gradient)
        results.append(updated(learner, closed)[0])
    assert same(*results, 1e-9)
