"""Soft actor-critic, its residual form and the ablations: losses against TorchRL's and equations written out here."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium as gym
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torch import Tensor, nn
from torchrl.modules import TanhNormal
from torchrl.objectives import SACLoss

from rql_lightning.algorithms import (
    GreedyCustomization,
    KLRewardSAC,
    PriorLikelihoodSAC,
    ResidualSAC,
    SoftActorCritic,
)
from rql_lightning.algorithms.base import Minibatch
from rql_lightning.errors import ConfigurationError, EnvironmentContractError
from rql_lightning.exploration import CorrelatedNoise
from rql_lightning.networks import TwinCritic
from rql_lightning.policies import Family, SquashedGaussianPolicy
from rql_lightning.priors import CheckpointPrior, FunctionPrior, Guard, Prior

BOX, ACTION = gym.spaces.Box(-3.0, 5.0, (3,)), gym.spaces.Box(-2.0, 2.0, (2,))
K, B, GAMMA = 4, 24, 0.9
SETTINGS: dict[str, Any] = {"hidden_sizes": [16, 8], "gamma": GAMMA, "learning_rate": 0.01, "tau": 0.1}


@pytest.fixture
def detached(detach: Any) -> Any:
    """``(algorithm, *arguments, **settings) →`` one on the spaces and settings above."""
    return lambda algorithm, *arguments, **settings: detach(
        algorithm, BOX, ACTION, *arguments, **{**SETTINGS, **settings}
    )


class GaussianPrior(CheckpointPrior):
    """As if it were out of a file."""

    def __init__(self, seed: int = 7, hidden_sizes: Any = (16, 8)) -> None:
        super(CheckpointPrior, self).__init__()
        torch.manual_seed(seed)
        self._wrap(SquashedGaussianPolicy(BOX, ACTION, list(hidden_sizes)).double(), "memory")


def make_batch(prior: Any = None, count: int = K, seed: int = 1) -> TensorDict:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, B, *shape, generator=generator, dtype=torch.float64)

    pre_tanh = 1.5 * normal(2)
    following = {"observation": normal(3), "reward": 3 * normal(), "terminated": normal() > 0.4}
    own = {"observation": normal(3), "action": torch.tanh(pre_tanh), "pre_tanh": pre_tanh}
    if prior is not None:
        for place in (own, following):
            place["prior_parameters"] = prior.distribution_parameters(place["observation"])
    return TensorDict({**own, "next": TensorDict(following, [count, B])}, [count, B])


def minibatches(algorithm: Any, batch: TensorDict) -> list[Minibatch]:
    return algorithm.minibatches(batch).split()


def noise(seed: int = 5) -> tuple[Tensor, Tensor]:
    own, following = torch.randn(2, B, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return own, following


# -- networks --------------------------------------------------------------------------------------------------------


def separate(critic: TwinCritic) -> list[nn.Sequential]:
    """The same two networks, of PyTorch's layers."""
    twins = []
    for index in range(2):
        layers: list[nn.Module] = []
        for weight, bias in zip(critic.weights, critic.biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[2], dtype=weight.dtype)
            layer.weight.data, layer.bias.data = weight.data[index].T.clone(), bias.data[index, 0].clone()
            norm = [nn.LayerNorm(weight.shape[2], elementwise_affine=False)] if critic.layer_norm else []
            layers += [layer, *norm, nn.ReLU()]
        twins.append(nn.Sequential(*layers[: -2 - critic.layer_norm], layer))
    return twins


@pytest.mark.parametrize("layer_norm", [False, True])
def test_twin_critics_are_two_networks_with_their_gradients(layer_norm):
    torch.manual_seed(0)
    critic = TwinCritic(5, [16, 8], layer_norm).double()
    observation, action = torch.randn(B, 3).double(), torch.randn(B, 2).double().requires_grad_()
    twins, inputs = separate(critic), torch.cat([observation, action], -1)
    expected, found = torch.stack([twin(inputs).squeeze(-1) for twin in twins]), critic(observation, action)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(2, B).double()
    theirs = torch.autograd.grad((weights * expected).sum(), [action, *twins[0].parameters(), *twins[1].parameters()])
    ours = torch.autograd.grad((weights * found).sum(), [action, *critic.parameters()])
    torch.testing.assert_close(ours[0], theirs[0])
    mine = [*ours[1:4], *ours[4:]]
    for layer in range(3):
        for index in range(2):
            torch.testing.assert_close(mine[layer][index].T, theirs[1 + 6 * index + 2 * layer])
            torch.testing.assert_close(mine[3 + layer][index, 0], theirs[2 + 6 * index + 2 * layer])
    frozen = critic(observation, action, frozen=True)
    torch.testing.assert_close(torch.autograd.grad((weights * frozen).sum(), action)[0], theirs[0])
    assert not critic(observation, action.detach(), frozen=True).requires_grad


@pytest.mark.parametrize("layer_norm", [False, True])
def test_twin_critics_run_in_bfloat16(layer_norm):
    torch.manual_seed(0)
    critic = TwinCritic(5, [32, 32], layer_norm)
    observation, action = torch.randn(B, 3), torch.randn(B, 2, requires_grad=True)

    def gradient() -> Tensor:
        inputs = [action, *critic.parameters()]
        return torch.cat([part.flatten() for part in torch.autograd.grad(critic(observation, action).sum(), inputs)])

    expected = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient()
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99


# -- losses ----------------------------------------------------------------------------------------------------------


def torchrl_losses(algorithm: SoftActorCritic, batch: TensorDict, alpha: Any) -> TensorDict:
    """TorchRL's SACLoss on copies of the same networks; it draws a′ first, then a."""

    class Actor(nn.Module):
        def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
            location, log_scale = policy.distribution_parameters(observation).chunk(2, -1)
            return location, log_scale.exp()

        def __init__(self) -> None:
            super().__init__()
            self.policy = policy

    policy = copy.deepcopy(algorithm.policy)
    policy.prior = None
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(Actor(), in_keys=["observation"], out_keys=["loc", "scale"]),
        ProbabilisticTensorDictModule(
            in_keys=["loc", "scale"],
            out_keys=["action"],
            distribution_class=TanhNormal,
            distribution_kwargs={"safe_tanh": False},
            return_log_prob=True,
        ),
    )

    class Value(nn.Module):
        def __init__(self, twin: nn.Sequential) -> None:
            super().__init__()
            self.twin = twin

        def forward(self, observation: Tensor, action: Tensor) -> Tensor:
            return self.twin(torch.cat([(observation - 1.0) / 4.0, action], -1))

    values = [
        TensorDictModule(Value(twin), in_keys=["observation", "action"], out_keys=["state_action_value"])
        for twin in separate(algorithm.critic)
    ]
    loss = SACLoss(
        actor,
        values,
        num_qvalue_nets=2,
        loss_function="l2",
        action_spec=None,
        target_entropy=-2.0,
        alpha_init=math.exp(algorithm.log_alpha.item()),
        fixed_alpha=alpha != "auto",
        delay_qvalue=False,
    )
    loss.make_value_estimator(gamma=GAMMA)
    data = batch.clone()
    for key in ("reward", "terminated"):
        data["next", key] = data["next", key].unsqueeze(-1)
    data["next", "done"] = data["next", "terminated"].clone()
    torch.manual_seed(5)
    return loss(data)


@pytest.mark.parametrize("alpha", [0.3, "auto"])
@pytest.mark.parametrize("residual", [False, True])
def test_losses_without_a_prior_are_torchrls(detached, alpha, residual):
    """Residual SAC at ω′ = 0 too. TorchRL's l2 is the square, of which Eq. 7 takes the half."""
    if residual:
        algorithm = detached(ResidualSAC, GaussianPrior(), 0.0, alpha)
    else:
        algorithm = detached(SoftActorCritic, alpha=alpha)
    algorithm.log_alpha.data += 0.2
    batch = make_batch(GaussianPrior())[0]
    theirs = torchrl_losses(algorithm, batch, alpha)
    torch.manual_seed(5)
    following, own = (torch.normal(torch.zeros(B, 2).double(), torch.ones(B, 2).double()) for _ in range(2))
    losses, _, _ = algorithm.losses(minibatches(algorithm, batch.unsqueeze(0))[0], own, following)
    torch.testing.assert_close(2 * losses["critic"], theirs["loss_qvalue"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses["actor"], theirs["loss_actor"], rtol=1e-6, atol=1e-6)
    assert len(losses) == (3 if alpha == "auto" else 2)
    if alpha == "auto":
        torch.testing.assert_close(losses["alpha"], theirs["loss_alpha"].squeeze(), rtol=1e-6, atol=1e-6)


def by_hand(algorithm: Any, name: str, weight: float, alpha: float) -> tuple[Tensor, Tensor]:
    """Critics' and actor's loss of every algorithm, from Eq. 7, 9, 10 and 15 to 18, with TorchRL's densities."""
    prior, batch = algorithm.prior, make_batch(algorithm.prior)[0]
    own, following = noise()

    def density(policy: Any, observation: Tensor, pre_tanh: Tensor) -> Tensor:
        location, log_scale = policy.distribution_parameters(observation).chunk(2, -1)
        return TanhNormal(location, log_scale.exp(), safe_tanh=False).log_prob(torch.tanh(pre_tanh))

    def choose(observation: Tensor, noise: Tensor) -> Tensor:
        location, log_scale = algorithm.policy.distribution_parameters(observation).chunk(2, -1)
        return location + log_scale.exp() * noise

    def q(critic: TwinCritic, observation: Tensor, pre_tanh: Tensor) -> Tensor:
        inputs = torch.cat([(observation - 1.0) / 4.0, torch.tanh(pre_tanh)], -1)
        return torch.stack([twin(inputs).squeeze(-1) for twin in separate(critic)])

    s, s_next, r = batch["observation"], batch["next", "observation"], batch["next", "reward"]
    u, u_next, taken = choose(s, own), choose(s_next, following), batch["pre_tanh"]
    ours, theirs = density(algorithm.policy, s, u), density(prior, s, u)
    ours_next, theirs_next = density(algorithm.policy, s_next, u_next), density(prior, s_next, u_next)
    v = q(algorithm.target_critic, s_next, u_next).min(0).values - alpha * ours_next
    temperature, wish = alpha, r
    if name == "ResidualSAC":
        v = v + weight * theirs_next
    if name == "GreedyCustomization":
        temperature = alpha + weight
    if name in ("PriorLikelihoodSAC", "KLRewardSAC"):
        wish, theirs = r + weight * density(prior, s, taken), 0.0
    if name == "KLRewardSAC":
        wish = wish - weight * density(algorithm.policy, s, taken)
    target = wish + GAMMA * v * (~batch["next", "terminated"])
    critic_loss = sum(0.5 * ((target - q_taken) ** 2).mean() for q_taken in q(algorithm.critic, s, taken))
    loss = temperature * ours - q(algorithm.critic, s, u).min(0).values - weight * theirs
    return critic_loss, loss.mean()


@pytest.mark.parametrize("algorithm", [ResidualSAC, GreedyCustomization, KLRewardSAC, PriorLikelihoodSAC])
def test_losses_are_the_equations(detached, algorithm):
    prior = GaussianPrior()
    learner = detached(algorithm, prior, 0.4, 0.7)
    learner.target_critic.biases[-1].data += 0.3
    minibatch = minibatches(learner, make_batch(prior))[0]
    losses, sample, _ = learner.losses(minibatch, *noise())
    critic_loss, actor_loss = by_hand(learner, algorithm.__name__, 0.4, 0.7)
    torch.testing.assert_close(losses["critic"], critic_loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(losses["actor"], actor_loss, rtol=1e-6, atol=1e-6)
    others = [by_hand(learner, other, 0.4, 0.7) for other in ("ResidualSAC", "GreedyCustomization", "KLRewardSAC")]
    same = [torch.isclose(losses["critic"], c) & torch.isclose(losses["actor"], a) for c, a in others]
    assert sum(map(bool, same)) == (algorithm is not PriorLikelihoodSAC), "the equations tell them apart"
    diagnostics = learner.diagnostics(minibatch, sample)
    assert {"prior_log_prob", "prior_scale_floored", "prior_log_prob_bounded"} == diagnostics.keys()


def test_each_loss_has_gradients_for_its_own_parameters_alone(detached):
    learner = detached(ResidualSAC, GaussianPrior(), 0.4, "auto")
    losses, _, _ = learner.losses(minibatches(learner, make_batch(learner.prior))[0], *noise())
    parts = [list(learner.critic.parameters()), list(learner.policy.network.parameters()), [learner.log_alpha]]
    for mine, loss in enumerate(losses.values()):
        for other, part in enumerate(parts):
            gradients = torch.autograd.grad(loss, part, retain_graph=True, allow_unused=True)
            assert all((gradient is not None) == (mine == other) for gradient in gradients)


# -- updates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_grad_norm", [None, 0.3])
def test_updates_are_adams_on_each_part(detached, max_grad_norm):
    """Against separate optimizers for separate networks, each stepping from the parameters before the update."""
    learner = detached(ResidualSAC, GaussianPrior(), 0.4, "auto", max_grad_norm=max_grad_norm)
    other = copy.deepcopy(learner)
    parts = [list(other.critic.parameters()), list(other.policy.network.parameters()), [other.log_alpha]]
    optimizers = [torch.optim.Adam(part, lr=0.01) for part in parts]
    batch = make_batch(learner.prior)
    torch.manual_seed(3)
    metrics = learner.update(batch)
    torch.manual_seed(3)
    draws = torch.randn(2, K, B, 2, dtype=torch.float64 if torch.get_default_dtype() == torch.float64 else None)
    for index, minibatch in enumerate(minibatches(other, batch)):
        losses, _, _ = other.losses(minibatch, draws[0, index], draws[1, index])
        for loss, part in zip(losses.values(), parts, strict=True):
            for parameter, gradient in zip(part, torch.autograd.grad(loss, part, retain_graph=True), strict=True):
                parameter.grad = gradient
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(part, max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
        for slow, fast in zip(other.target_critic.parameters(), other.critic.parameters(), strict=True):
            slow.data = 0.9 * slow.data + 0.1 * fast.data
    assert learner.updates == K and metrics["alpha"] > 0
    for (name, ours), theirs in zip(learner.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_the_temperature_follows_the_entropy(detached):
    rising, falling = (detached(SoftActorCritic, alpha="auto", target_entropy=goal) for goal in (1.3, -50.0))
    for learner in (rising, falling):
        learner.update(make_batch())
    assert rising.log_alpha > 0 > falling.log_alpha
    assert detached(SoftActorCritic, alpha="auto").entropy_goal == -2.0


def test_the_actor_stands_still_while_critics_warm_up(detached):
    learner = detached(ResidualSAC, GaussianPrior(), 0.4, 0.7, critic_warm_up_updates=K)
    before = [parameter.clone() for parameter in learner.policy.network.parameters()]
    learner.update(make_batch(learner.prior))
    assert all(map(torch.equal, before, learner.policy.network.parameters()))
    learner.critic_warm_up_updates = K + 1  # one more, and three of the actor
    learner.update(make_batch(learner.prior))
    assert not any(map(torch.equal, before, learner.policy.network.parameters()))


def test_the_actors_first_step_after_the_warm_up_is_adams_first(detached):
    """Had Adam counted the steps of the warm-up for the actor, it would be several times the learning rate."""
    learner = detached(ResidualSAC, GaussianPrior(), 0.4, "auto", critic_warm_up_updates=50)
    learner.update(make_batch(learner.prior, count=50))
    before = [parameter.clone() for parameter in learner.policy.network.parameters()]
    learner.update(make_batch(learner.prior, count=1))
    steps = [(new - old).abs().max() for new, old in zip(learner.policy.network.parameters(), before, strict=True)]
    assert 0.0099 < max(steps) < 0.0101
    assert abs(abs(learner.log_alpha.item()) - 0.01) < 1e-4


def test_a_temperature_that_is_a_number_is_the_configs(detached):
    other = detached(ResidualSAC, GaussianPrior(), 0.4, 0.3)
    learner = detached(ResidualSAC, GaussianPrior(), 0.4, 0.7)
    learner.load_state_dict(other.state_dict())
    assert learner.log_alpha.exp().item() == pytest.approx(0.7)


def test_starting_at_the_prior_is_starting_at_the_solution_for_no_wish(detached):
    """At ω′ = α̂ and r_R = 0: π̂ = π, Q_R = 0, no loss."""
    prior = GaussianPrior()
    learner = detached(ResidualSAC, prior, 0.7, 0.7, start_at_prior=True)
    observation = torch.randn(9, 3, dtype=torch.float64)
    ours, theirs = learner.policy.distribution_parameters(observation), prior.distribution_parameters(observation)
    torch.testing.assert_close(ours, theirs)
    batch = make_batch(prior)
    batch["next", "reward"] = torch.zeros(K, B, dtype=torch.float64)
    losses, _, _ = learner.losses(minibatches(learner, batch)[0], *noise())
    assert losses["critic"].abs() < 1e-12 and losses["actor"].abs() < 1e-7


# -- the prior's floor and bound -------------------------------------------------------------------------------------


def test_bound_is_smooth_keeps_a_slope_and_holds():
    log_prob = torch.linspace(-1e4, 5.0, 20_001, dtype=torch.float64, requires_grad=True)
    bent = Guard(0.0, -50.0).bounded(log_prob)
    (slope,) = torch.autograd.grad(bent.sum(), log_prob)
    assert torch.equal(bent[log_prob >= -50], log_prob[log_prob >= -50])
    assert (bent > -100).all() and (slope > 0).all() and (slope.diff() > -1e-12).all() and (slope.diff() < 0.1).all()


def test_floor_and_bound_step_in_and_say_so(detached):
    prior = GaussianPrior()
    prior.policy.network[-1].bias.data[2:] = -4.0  # scales of some exp(−4)
    settings = {"prior_min_scale": 0.1, "prior_log_prob_min": -20.0}
    learner = detached(ResidualSAC, prior, 0.4, 0.7, **settings)
    frames = make_batch()
    annotated = learner.annotate(frames)
    for place in (annotated, annotated["next"]):
        log_scale = place["prior_parameters"].chunk(2, -1)[1]
        assert (log_scale >= math.log(0.1) - 1e-12).all() and (log_scale == math.log(0.1)).double().mean() > 0.9
    minibatch = minibatches(learner, annotated.reshape(K, B))[0]
    _, sample, _ = learner.losses(minibatch, *noise())
    diagnostics = learner.diagnostics(minibatch, sample)
    assert diagnostics["prior_scale_floored"].mean() > 0.9 and diagnostics["prior_log_prob_bounded"].mean() > 0.3
    far = torch.full((B, 2), 20.0, dtype=torch.float64)
    assert (learner.prior_log_prob(minibatch.prior_parameters, far) > -40).all()
    free = detached(ResidualSAC, prior, 0.4, 0.7, prior_min_scale=0.0, prior_log_prob_min=None)
    assert (free.prior_log_prob(minibatch.prior_parameters, far) < -1000).all()


# -- exploration and options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0.0, 5.0])
def test_noise_is_standard_normal_at_any_time_and_correlated_over_it(steps):
    torch.manual_seed(0)
    noise = CorrelatedNoise(steps)
    series = torch.stack([noise.sample(torch.Size([20_000, 1]), torch.device("cpu")) for _ in range(8)])
    torch.testing.assert_close(series.mean((1, 2)), torch.zeros(8), rtol=0, atol=0.03)
    torch.testing.assert_close(series.std((1, 2)), torch.ones(8), rtol=0, atol=0.03)
    for lag in (1, 3, 7):
        expected = math.exp(-lag / steps) if steps > 0 else 0.0
        assert (series[0] * series[lag]).mean().item() == pytest.approx(expected, abs=0.03)


def test_the_first_frames_are_the_priors(detached):
    prior = GaussianPrior()
    prior.policy.network[-1].bias.data[:2] = 4.0
    learner = detached(ResidualSAC, prior, 0.4, 0.7, prior_frames=100)
    observation = torch.zeros(200, 3, dtype=torch.float64)
    for frames, near in ((0, True), (99, True), (100, False)):
        learner.data.frames = frames
        explored = learner.explore(observation)
        assert explored["action"].shape == explored["pre_tanh"].shape == (200, 2)
        assert (explored["action"].mean() > 1.8) == near
        torch.testing.assert_close(explored["action"], 2 * torch.tanh(explored["pre_tanh"]))


def test_omega_prime_is_scaled_at_first(detached):
    learner = detached(
        ResidualSAC, GaussianPrior(), 0.4, 0.7, omega_prime_warm_up_frames=50, omega_prime_warm_up_factor=10.0
    )
    weights = []
    for learner.data.frames in (0, 49, 50, 999):
        weights.append(learner.omega_prime_now)
    assert weights == pytest.approx([4.0, 4.0, 0.4, 0.4])


def test_omega_prime_unset_is_alpha_hat_or_an_error():
    assert ResidualSAC(GaussianPrior(), alpha_hat=0.3).omega_prime == 0.3
    with pytest.raises(ConfigurationError, match=r"model\.omega_prime: found None.*auto"):
        ResidualSAC(GaussianPrior(), alpha_hat="auto")


def normal_density(observation: Tensor, action: Tensor) -> Tensor:
    return (-0.5 * action.square()).sum(-1)


class OtherScales(GaussianPrior):
    """Trained where observations had other bounds: its weights mean something else here."""

    def __init__(self) -> None:
        super().__init__()
        self.policy.encoder.half_width += 1.0


class Mixture(Family):
    """Two Gaussians, at ±1: can act, but its parameters are no location and log-scale."""

    size = 2

    def pre_tanh_log_prob(self, parameters: Tensor, pre_tanh: Tensor) -> Tensor:
        left, right = (-0.5 * (pre_tanh - at).square().sum(-1) for at in (-1.0, 1.0))
        weight = torch.sigmoid(parameters[..., 0])
        return (weight * left.exp() + (1 - weight) * right.exp()).log() + math.log(0.5 / math.pi)


class MixturePrior(Prior):
    observation_space, action_space = BOX, ACTION

    def __init__(self, family: Family | None = None) -> None:
        super().__init__()
        self.family = family or Mixture()

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        return torch.stack([observation.sum(-1).tanh(), -9.0 + 0.0 * observation.sum(-1)], -1)

    def origin(self) -> str:
        return "prior mixture"


def test_a_prior_that_is_no_gaussian_keeps_its_parameters(detached):
    learner = detached(ResidualSAC, MixturePrior(), 0.4, 0.7)
    observation = torch.zeros(5, 1, 3)
    frames = TensorDict(
        {"observation": observation, "pre_tanh": torch.zeros(5, 1, 2), "next": {"observation": observation}}, [5, 1]
    )
    assert (learner.annotate(frames)["prior_parameters"][..., 1] == -9.0).all()
    assert "prior_scale_floored" not in learner.update(make_batch(learner.prior))


def test_a_prior_without_a_density_is_refused_before_training(detached):
    class SamplesOnly(Family):
        size = 2

    learner = detached(ResidualSAC, MixturePrior(SamplesOnly()), 0.4, 0.7)
    with pytest.raises(EnvironmentContractError, match=r"prior.*SamplesOnly: found no density"):
        learner.probe(torch.zeros(2, 3))


def test_divergence_is_not_blamed_on_the_priors_function(detached):
    """Validating distributions would raise at NaN, before anybody can say which loss it was."""

    def log_prob(observation: Tensor, action: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0, validate_args=True).log_prob(action).sum(-1)

    learner = detached(ResidualSAC, FunctionPrior(log_prob), 0.4, 0.7)
    batch = make_batch(learner.prior)
    next(learner.policy.network.parameters()).data.fill_(math.nan)
    assert math.isnan(learner.update(batch)["actor_loss"])


@pytest.mark.parametrize(
    ("settings", "prior", "message"),
    [
        ({"start_at_prior": True}, GaussianPrior(hidden_sizes=(4,)), r"model\.start_at_prior.*\[4\]"),
        ({"start_at_prior": True}, FunctionPrior(normal_density), r"model\.start_at_prior"),
        ({"prior_frames": 5}, FunctionPrior(normal_density), r"model\.prior_frames.*noise"),
        ({"start_at_prior": True}, OtherScales(), r"model\.start_at_prior.*half_width"),
        ({"target_entropy": 1.4}, GaussianPrior(), r"model\.target_entropy: found 1\.4.*1\.386"),
    ],
)
def test_options_that_a_prior_cannot_serve(settings, prior, message):
    with pytest.raises(ConfigurationError, match=message):
        ResidualSAC(prior, 0.4, 0.7, **SETTINGS, **settings).build(BOX, ACTION, "some/Task-v0")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha_hat", "automatic"),
        ("alpha_hat", 0.0),
        ("omega_prime", -1.0),
        ("prior_log_prob_min", 3.0),
        ("prior_min_scale", -0.1),
        ("initial_alpha", 0.0),
        ("tau", 0.0),
        ("target_entropy", math.inf),
        ("noise_correlation", -1.0),
        ("omega_prime_warm_up_factor", math.nan),
        ("prior_frames", -1),
    ],
)
def test_settings_that_make_no_sense_are_named(name, value):
    with pytest.raises(ConfigurationError, match=rf"model\.{name}: found"):
        ResidualSAC(GaussianPrior(), **{"omega_prime": 0.1, name: value})
