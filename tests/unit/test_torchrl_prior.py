"""Priors that are modules of TorchRL, held to TorchRL itself."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import (
    CompositeDistribution,
    InteractionType,
    NormalParamExtractor,
    ProbabilisticTensorDictModule,
    TensorDictModule,
    set_interaction_type,
)
from torch import Tensor, distributions, nn
from torchrl.modules import (
    IndependentNormal,
    OneHotCategorical,
    ProbabilisticActor,
    QValueActor,
    TanhNormal,
    TruncatedNormal,
)

from rql_lightning.algorithms import ResidualSAC
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError, SpaceMismatchError
from rql_lightning.loading import load_policy
from rql_lightning.policies import Normal, SquashedNormal
from rql_lightning.priors import TorchRLPrior

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (3,))
LOW, HIGH = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
BOX = gym.spaces.Box(LOW.numpy(), HIGH.numpy())
CONTINUOUS = [
    (TanhNormal, {"low": LOW, "high": HIGH}, SquashedNormal),
    (TanhNormal, {"low": LOW, "high": HIGH, "tanh_loc": True, "upscale": 2.0}, SquashedNormal),
    (IndependentNormal, {}, Normal),
    (distributions.Normal, {}, Normal),
    (TruncatedNormal, {"low": LOW, "high": HIGH}, None),
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def gaussian_actor(kind: Any, settings: dict[str, Any], keys: tuple[Any, Any] = ("observation", "action")) -> Any:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4), NormalParamExtractor())
    module = TensorDictModule(network, in_keys=[keys[0]], out_keys=["loc", "scale"])
    names = {"in_keys": ["loc", "scale"], "out_keys": [keys[1]]}
    return ProbabilisticActor(
        module, **names, distribution_class=kind, distribution_kwargs=settings, return_log_prob=True
    )


def discrete_actor(kind: Any, actions: int = 4) -> Any:
    torch.manual_seed(2)
    module = TensorDictModule(nn.Linear(3, actions), in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=kind, return_log_prob=True)


def attached(actor: Any, action_space: gym.Space[Any] = BOX, **keys: Any) -> TorchRLPrior:
    prior = TorchRLPrior(actor, **keys)
    prior.attach(OBSERVATIONS, action_space)
    return prior


def states(count: int = 64) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0))


def theirs(actor: Any, observation: Tensor, kind: InteractionType) -> Any:
    """What TorchRL does at these states."""
    torch.manual_seed(0)
    with torch.no_grad(), set_interaction_type(kind):
        return actor(TensorDict({"observation": observation}, batch_size=len(observation)))


# -- against TorchRL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [distributions.Categorical, OneHotCategorical, distributions.OneHotCategorical])
def test_discrete_actions(kind):
    actor, observation = discrete_actor(kind), states()
    prior = attached(actor, gym.spaces.Discrete(4), log_prob="action_log_prob")
    prior.probe(observation)
    entries = theirs(actor, observation, InteractionType.RANDOM)
    one_hot = kind is not distributions.Categorical
    action = entries["action"].argmax(-1) if one_hot else entries["action"]
    torch.testing.assert_close(prior.log_prob(observation, action), entries["action_log_prob"], rtol=0, atol=1e-5)
    best = theirs(actor, observation, InteractionType.DETERMINISTIC)["action"]
    assert torch.equal(prior.act(observation), best.argmax(-1) if one_hot else best)
    torch.manual_seed(0)
    sampled = prior.act(observation[:1].expand(20_000, 3), deterministic=False)
    frequency = torch.bincount(sampled, minlength=4) / 20_000
    expected = prior.log_prob(observation[:1].expand(4, 3), torch.arange(4)).exp()
    assert (frequency - expected).abs().max() < 5 * 0.5 / 20_000**0.5  # five standard errors


@pytest.mark.parametrize(("kind", "settings", "family"), CONTINUOUS)
def test_continuous_actions(kind, settings, family):
    actor, observation = gaussian_actor(kind, settings), states(256)
    prior = attached(actor, log_prob="action_log_prob")
    prior.probe(observation)
    assert family is None or type(prior.family) is family
    entries = theirs(actor, observation, InteractionType.RANDOM)
    action, log_prob = entries["action"], entries["action_log_prob"].reshape(256, -1).sum(-1)
    inside = ((action > LOW + 1e-2) & (action < HIGH - 1e-2)).all(-1)
    assert inside.sum() > 100
    ours = prior.log_prob(observation[inside], action[inside])
    torch.testing.assert_close(ours, log_prob[inside], rtol=1e-5, atol=1e-5)
    best = theirs(actor, observation, InteractionType.DETERMINISTIC)["action"].clamp(LOW, HIGH)
    torch.testing.assert_close(prior.act(observation), best, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "settings", "family"), CONTINUOUS)
def test_samples_of_continuous_actions(kind, settings, family):
    actor, many = gaussian_actor(kind, settings), states(1).expand(20_000, 3)
    reference = theirs(actor, many, InteractionType.RANDOM)["action"].clamp(LOW, HIGH)
    torch.manual_seed(1)
    ours = attached(actor).act(many, deterministic=False)
    assert ((ours >= LOW) & (ours <= HIGH)).all()
    for moment in (1, 2):
        found, expected = ours**moment, reference**moment
        error = ((found.var(0) + expected.var(0)) / 20_000).sqrt()
        assert ((found.mean(0) - expected.mean(0)).abs() < 5 * error).all()


@pytest.mark.parametrize(("kind", "settings", "family"), CONTINUOUS)
def test_gradients_with_respect_to_the_pre_tanh_action(kind, settings, family):
    prior = attached(gaussian_actor(kind, settings))
    parameters = prior.distribution_parameters(states(4)).double()
    pre_tanh = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: prior.family.pre_tanh_log_prob(parameters, u), (pre_tanh,))
    wide = torch.tensor([[30.0, -30.0]] * 4, dtype=torch.float64, requires_grad=True)
    log_prob = prior.family.pre_tanh_log_prob(parameters, wide)
    assert log_prob.isfinite().all() and torch.autograd.grad(log_prob.sum(), wide)[0].isfinite().all()


def test_keys_may_be_nested_and_one_part_of_a_composite_distribution_be_chosen():
    keys = (("agent", "seen"), ("agent", "push"))
    actor = gaussian_actor(TanhNormal, {"low": LOW, "high": HIGH}, keys)
    prior = attached(actor, observation=keys[0], action=keys[1])
    dist = actor.get_dist(TensorDict({keys[0]: states()}, batch_size=64))
    action = torch.zeros(64, 2)
    torch.testing.assert_close(prior.log_prob(states(), action), dist.log_prob(action))

    def both(observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return observation[:, :2], 1 + observation[:, :2].abs(), observation

    parts = {"push": IndependentNormal, "choice": distributions.Categorical}
    module = TensorDictModule(
        both,
        in_keys=["observation"],
        out_keys=[("params", "push", "loc"), ("params", "push", "scale"), ("params", "choice", "logits")],
    )
    composite = ProbabilisticActor(
        module,
        in_keys=["params"],
        out_keys=["push", "choice"],
        distribution_class=CompositeDistribution,
        distribution_kwargs={"distribution_map": parts},
    )
    observation = states()
    first = attached(composite, action="push").log_prob(observation, action)
    expected = distributions.Normal(observation[:, :2], 1 + observation[:, :2].abs()).log_prob(action).sum(-1)
    torch.testing.assert_close(first, expected)
    second = attached(composite, gym.spaces.Discrete(3), action="choice")
    torch.testing.assert_close(second.distribution_parameters(observation), observation.log_softmax(-1))


def test_a_single_module_whose_parameters_are_the_observation():
    single = ProbabilisticTensorDictModule(
        in_keys={"logits": "observation"}, out_keys=["action"], distribution_class=distributions.Categorical
    )
    prior = attached(single, gym.spaces.Discrete(3))
    torch.testing.assert_close(prior.distribution_parameters(states()), states().log_softmax(-1))


# -- as a prior --------------------------------------------------------------------------------------------------------


def test_it_is_a_frozen_copy():
    actor = gaussian_actor(TanhNormal, {"low": LOW, "high": HIGH}).train()
    prior, action = attached(actor), torch.zeros(64, 2)
    before = prior.log_prob(states(), action)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(1.0)
    assert torch.equal(prior.log_prob(states(), action), before)
    assert actor.training and all(each.requires_grad for each in actor.parameters())
    assert not prior.module.training and not any(each.requires_grad for each in prior.parameters())


@pytest.mark.parametrize(
    ("kind", "settings"), [(TanhNormal, {"low": -1.0, "high": 1.0}), (TruncatedNormal, {"low": -1.0, "high": 1.0})]
)
def test_training_and_the_file_of_a_customised_policy(kind, settings, fit, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 2), NormalParamExtractor())
    module = TensorDictModule(network, in_keys=["observation"], out_keys=["loc", "scale"])
    actor = ProbabilisticActor(module, in_keys=["loc", "scale"], distribution_class=kind, distribution_kwargs=settings)
    data = ReplayDataModule(
        env="rql_lightning/MountainCarContinuous-v0",
        num_envs=2,
        total_frames=64,
        frames_per_batch=32,
        updates_per_batch=2,
        batch_size=8,
        warm_up_frames=0,
    )
    algorithm = ResidualSAC(TorchRLPrior(actor), omega_prime=0.1, alpha_hat=0.1, hidden_sizes=[8])
    trainer = fit(algorithm, data)
    path = tmp_path / "policy.ckpt"
    trainer.save_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"module .*ProbabilisticActor.*TorchRLPrior\(\.\.\.\)"):
        load_policy(path)
    other = TorchRLPrior(actor)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)  # the file's weights replace those that are given
    policy = load_policy(path, prior=other)
    observation, action = np.zeros((4, 2), np.float32), np.full((4, 1), 0.5, np.float32)
    np.testing.assert_allclose(policy.act(observation), algorithm.policy.act(observation))
    assert policy.prior is not None
    np.testing.assert_allclose(
        policy.prior.log_prob(observation, action), algorithm.prior.log_prob(observation, action)
    )


# -- what is refused ---------------------------------------------------------------------------------------------------

TANH = gaussian_actor(TanhNormal, {"low": LOW, "high": HIGH})


@pytest.mark.parametrize(
    ("module", "keys", "message"),
    [
        (nn.Linear(3, 2), {}, "module: found Linear, expected a module of TorchRL with a distribution"),
        (
            QValueActor(nn.Linear(3, 2), in_keys=["observation"], action_space="categorical"),
            {},
            "module: found QValueActor.*ModulePrior",
        ),
        (
            TANH,
            {"action": "move"},
            "action: found 'move', expected one of the entries that the module writes.*'action'",
        ),
        (TANH, {"log_prob": "lp"}, "log_prob: found 'lp'.*action_log_prob.*return_log_prob=True"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_at_once(module, keys, message):
    with pytest.raises(ConfigurationError, match=f"^model.prior.{message}"):
        TorchRLPrior(module, **keys)


@pytest.mark.parametrize(
    ("actor", "space", "message"),
    [
        (discrete_actor(OneHotCategorical), gym.spaces.Discrete(3), "found 4 actions, expected .* 3 actions"),
        (TANH, gym.spaces.Discrete(3), "found TanhNormal, expected a categorical distribution over 3 actions"),
        (discrete_actor(OneHotCategorical), BOX, "found OneHotCategorical, expected .* continuous"),
        (TANH, gym.spaces.Box(-1.0, 1.0, (3,)), r"found actions of shape \(2,\), expected actions of shape \(3,\)"),
        (TANH, gym.spaces.Box(-1.0, 1.0, (2,)), r"found TanhNormal with low=\[-2.0, -1.0\], expected \[-1.0, -1.0\]"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(actor, space, message):
    with pytest.raises(SpaceMismatchError, match=message):
        attached(actor, space)


def test_observations_that_do_not_fit_are_refused():
    for actor, keys in ((TANH, {}), (gaussian_actor(TanhNormal, {}, ("seen", "action")), {})):
        prior = TorchRLPrior(actor, **keys)
        with pytest.raises(
            EnvironmentContractError, match=r"module: found an error for observations of shape \(1, 5\)"
        ):
            prior.attach(gym.spaces.Box(-1.0, 1.0, (5,)), BOX)


def test_outputs_that_are_not_finite_are_refused():
    discrete, continuous = attached(discrete_actor(distributions.Categorical), gym.spaces.Discrete(4)), attached(TANH)
    for prior, what in ((discrete, "found"), (continuous, "found")):
        with torch.no_grad():
            prior.probe(states())
            next(prior.parameters()).fill_(torch.nan)
        with pytest.raises(EnvironmentContractError, match=what):
            prior.probe(states())


def test_a_log_likelihood_that_is_not_the_distributions_is_refused():
    actor = discrete_actor(distributions.Categorical)

    class Doubled(type(actor)):
        def forward(self, *arguments: Any, **settings: Any) -> Any:
            entries = super().forward(*arguments, **settings)
            return entries.set("action_log_prob", 2.0 * entries["action_log_prob"])

    actor.__class__ = Doubled
    prior = attached(actor, gym.spaces.Discrete(4), log_prob="action_log_prob")
    with pytest.raises(
        EnvironmentContractError, match=r"log_prob: found log-likelihoods .*expected those of the module"
    ):
        prior.probe(states(4))
