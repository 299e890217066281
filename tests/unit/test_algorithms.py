"""The updates, against straightforward ones written here, and the schedules."""

from __future__ import annotations

import copy
import inspect
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from rql_lightning.algorithms import GreedySoftQLearning, ResidualSAC, ResidualSoftQLearning, SoftQLearning
from rql_lightning.algorithms.lifecycle import denormals_flushed
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import ConfigurationError
from rql_lightning.priors import CheckpointPrior, FunctionPrior

BOX, DISCRETE = gym.spaces.Box(-1.0, 1.0, (2, 2)), gym.spaces.Discrete(3)
K, B, GAMMA = 7, 6, 0.9


class Detached:
    """Mixed into an algorithm: without a trainer, on a data module that is only two numbers."""

    trainer = SimpleNamespace(world_size=1, precision="32-true")
    data = SimpleNamespace(frames=0, total_frames=1000)

    def start(self, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        self.build(BOX, DISCRETE, "some/Task-v0")
        self.optimizer = self.configure_optimizers()
        self.optimizer.optimizer = self.optimizer  # as Lightning's wrapper has it
        return self

    def optimizers(self) -> Any:
        return self.optimizer


class SoftQ(Detached, SoftQLearning):
    pass


class Residual(Detached, ResidualSoftQLearning):
    pass


class Greedy(Detached, GreedySoftQLearning):
    pass


def uniform(observation: Tensor, action: Tensor) -> Tensor:
    return torch.full(action.shape, 1 / 3).log()


def make_batch(seed: int, count: int = K) -> TensorDict:
    """Of every third transition the episode terminated."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, B, *shape, generator=generator)

    following = {"observation": normal(2, 2), "reward": 3 * normal(), "terminated": normal() > 0.4}
    following["prior_parameters"] = torch.log_softmax(2 * normal(3), -1)
    action = torch.randint(3, (count, B), generator=generator)
    own = {"observation": normal(2, 2), "action": action, "prior_parameters": torch.log_softmax(normal(3), -1)}
    return TensorDict({**own, "next": TensorDict(following, [count, B])}, [count, B])


class Reference:
    """Eq. 7 with 8 or 16, one minibatch after the other, with an optimizer and a clipping of PyTorch's."""

    def __init__(self, algorithm: Any, omega_prime: float) -> None:
        self.settings, self.omega_prime, self.greedy = algorithm, omega_prime, isinstance(algorithm, Greedy)
        self.network = copy.deepcopy(algorithm.policy.q_network)
        self.target = copy.deepcopy(algorithm.policy.q_network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=algorithm.learning_rate)
        self.updates = 0
        self.losses: list[float] = []

    def value(self, observation: Tensor, prior_log_prob: Tensor) -> Tensor:
        alpha, q = self.settings.alpha_hat, self.target(observation.reshape(B, 4)).double()
        weighted = q + self.omega_prime * prior_log_prob
        if self.greedy:
            unnormalised = (weighted / (alpha + self.omega_prime)).exp()
            policy = unnormalised / unnormalised.sum(-1, keepdim=True)
            return (policy * (q - alpha * policy.log())).sum(-1).float()
        return alpha * (weighted / alpha).exp().sum(-1).log().float()

    def update(self, minibatch: TensorDictBase) -> None:
        following, delta = minibatch["next"], self.settings.huber_delta
        with torch.no_grad():
            v_next = self.value(following["observation"], following["prior_parameters"])
            target = following["reward"] + self.settings.gamma * v_next * (~following["terminated"])
        q = self.network(minibatch["observation"].reshape(B, 4))
        error = torch.stack([target[i] - q[i, minibatch["action"][i]] for i in range(B)])
        square, linear = 0.5 * error**2, (delta or 0.0) * (error.abs() - 0.5 * (delta or 0.0))
        loss = (square if delta is None else torch.where(error.abs() < delta, square, linear)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.updates += 1
        if self.updates % self.settings.target_update_interval == 0:
            tau = self.settings.tau
            for slow, fast in zip(self.target.parameters(), self.network.parameters(), strict=True):
                slow.data = (1 - tau) * slow.data + tau * fast.data


def assert_close(first: nn.Module, second: nn.Module) -> None:
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


SETTINGS: dict[str, Any] = {"hidden_sizes": [16], "gamma": GAMMA, "learning_rate": 0.02}


@pytest.mark.parametrize(("huber_delta", "max_grad_norm"), [(None, None), (1.0, 0.5)])
@pytest.mark.parametrize("tau", [1.0, 0.3])
@pytest.mark.parametrize("interval", [1, 3, 5, 7, 64])
@pytest.mark.parametrize(("omega_prime", "kind"), [(None, SoftQ), (0.6, Residual), (0.6, Greedy)])
def test_update_is_equation_7_with_8_or_16(omega_prime, kind, interval, tau, huber_delta, max_grad_norm):
    own = {"target_update_interval": interval, "tau": tau, "huber_delta": huber_delta, "max_grad_norm": max_grad_norm}
    if omega_prime is None:
        algorithm = kind(alpha=0.7, **own, **SETTINGS).start()
    else:
        algorithm = kind(FunctionPrior(uniform), omega_prime, 0.7, **own, **SETTINGS).start()
    reference = Reference(algorithm, omega_prime or 0.0)
    for seed in range(3):  # 21 updates: the target network's intervals reach over the batches
        metrics, batch = algorithm.update(make_batch(seed)), make_batch(seed)
        for index in range(K):
            reference.update(batch[index])
        assert metrics["td_loss"] == pytest.approx(sum(reference.losses[-K:]) / K, rel=1e-4)
        assert_close(algorithm.policy.q_network, reference.network)
        assert_close(algorithm.target_network, reference.target)
    assert algorithm.updates == reference.updates == 21


def test_the_comparison_tells_intervals_prior_and_termination_apart():
    def after(
        edit: Any = lambda batch: batch, interval: int = 3, omega_prime: float = 0.6, kind: Any = Residual
    ) -> Tensor:
        prior = FunctionPrior(uniform)
        algorithm = kind(prior, omega_prime, 0.7, target_update_interval=interval, **SETTINGS).start()
        algorithm.update(edit(make_batch(0)))
        return nn.utils.parameters_to_vector(algorithm.policy.q_network.parameters())

    def without_prior(batch: TensorDict) -> TensorDict:
        batch["next", "prior_parameters"] = torch.zeros(K, B, 3)
        return batch

    def never_terminated(batch: TensorDict) -> TensorDict:
        batch["next", "terminated"] = torch.zeros(K, B, dtype=torch.bool)
        return batch

    edited = (after(without_prior), after(never_terminated))
    for other in (after(interval=2), after(omega_prime=0.5), after(kind=Greedy), *edited):
        assert (other - after()).abs().max() > 2e-4
    assert torch.equal(after(), after())


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0.01, 1.0, 1e6]), st.floats(1e-3, 1e3))
def test_descend_is_clip_grad_norm_and_adam(seed, max_grad_norm, scale):
    algorithm = SoftQ(**{**SETTINGS, "max_grad_norm": max_grad_norm}).start(seed)
    network = algorithm.policy.q_network
    other = copy.deepcopy(network)
    optimizer = torch.optim.Adam(other.parameters(), lr=algorithm.learning_rate)
    for _ in range(12):
        observation, weight = torch.randn(5, 4), scale * torch.randn(5, 3)
        loss = (weight * network(observation).tanh()).sum()
        algorithm.descend(loss, list(network.parameters()), algorithm.optimizer, last=True)
        optimizer.zero_grad()
        (weight * other(observation).tanh()).sum().backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(other.parameters(), max_grad_norm)
        optimizer.step()
        # Compared step by step from the same weights: Adam's first steps turn rounding of tiny gradients into signs.
        for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            theirs.data.copy_(ours.data)


def test_residual_without_weight_makes_the_updates_of_plain_soft_q_learning():
    plain = SoftQ(alpha=0.4, epsilon_initial=0.2, **SETTINGS).start()
    residual = Residual(FunctionPrior(uniform), 0.0, 0.4, epsilon_initial=0.2, **SETTINGS).start()
    for seed in range(3):
        assert plain.update(make_batch(seed)) == residual.update(make_batch(seed))
    for pair in zip(plain.policy.q_network.parameters(), residual.policy.q_network.parameters(), strict=True):
        assert torch.equal(*pair)


def test_a_recomputed_reward_is_what_is_learnt_from():
    """One hook for all learners, asked once for K minibatches."""
    asked: list[Any] = []

    class Relabelled(SoftQ):
        def reward(self, batch: TensorDictBase, minibatch: Any) -> Tensor:
            asked.append(minibatch.reward.shape)
            return 2.0 * minibatch.reward - 1.0

    def in_the_batch(batch: TensorDict) -> TensorDict:
        batch["next", "reward"] = 2.0 * batch["next", "reward"] - 1.0
        return batch

    relabelled, plain = Relabelled(alpha=0.4, **SETTINGS).start(), SoftQ(alpha=0.4, **SETTINGS).start()
    assert relabelled.update(make_batch(0)) == plain.update(in_the_batch(make_batch(0)))
    assert asked == [(K, B)]


@pytest.mark.parametrize(
    "build", [SoftQLearning, lambda **alpha: ResidualSoftQLearning(FunctionPrior(uniform), **alpha)]
)
def test_soft_q_learning_has_no_automatic_temperature(build):
    name = "alpha" if build is SoftQLearning else "alpha_hat"
    with pytest.raises(ConfigurationError, match=rf"model\.{name}: found 'auto', expected a number"):
        build(**{name: "auto"})


def test_both_residual_learners_default_alike():
    parameters = [inspect.signature(kind.__init__).parameters for kind in (ResidualSoftQLearning, ResidualSAC)]
    for name in ("omega_prime", "alpha_hat"):
        assert parameters[0][name].default == parameters[1][name].default
    assert ResidualSoftQLearning(FunctionPrior(uniform), alpha_hat=0.3).omega_prime == 0.3


def test_residual_without_weight_is_plain_soft_q_learning_on_the_wish(fit):
    networks = []
    for algorithm in (
        SoftQLearning(alpha=0.4, epsilon_initial=0.1, **SETTINGS),
        ResidualSoftQLearning(CheckpointPrior("pretrained:cartpole-rl"), 0.0, 0.4, **SETTINGS),
        ResidualSoftQLearning(CheckpointPrior("pretrained:cartpole-rl"), 0.5, 0.4, **SETTINGS),
    ):
        budget = {"total_frames": 256, "frames_per_batch": 64, "updates_per_batch": 4, "warm_up_frames": 0}
        fit(algorithm, ReplayDataModule(num_envs=4, batch_size=8, **budget))
        networks.append(nn.utils.parameters_to_vector(algorithm.policy.q_network.parameters()))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


@pytest.mark.parametrize("already", [False, True])
def test_denormals_are_flushed_during_updates_alone(already):
    def flushed() -> bool:
        return float(torch.tensor(1e-40) * 1.0) == 0.0

    try:
        torch.set_flush_denormal(already)
        with pytest.raises(ZeroDivisionError), denormals_flushed():
            assert flushed()
            raise ZeroDivisionError
        assert flushed() == already
    finally:
        torch.set_flush_denormal(False)


# -- schedules and exploration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("initial", "final", "fraction", "frames", "expected"),
    [
        (1.0, 0.1, 0.5, 0, 1.0),
        (1.0, 0.1, 0.5, 250, 0.55),
        (1.0, 0.1, 0.5, 500, 0.1),
        (1.0, 0.1, 0.5, 1024, 0.1),
        (0.2, 0.8, 1.0, 500, 0.5),
        (1.0, 0.1, 0.0, 0, 0.1),
        (1.0, 1.0, 0.16, 900, 1.0),
    ],
)
def test_epsilon(initial, final, fraction, frames, expected):
    algorithm = SoftQ(epsilon_initial=initial, epsilon_final=final, epsilon_fraction=fraction)
    algorithm.data = SimpleNamespace(frames=frames, total_frames=1000)
    assert algorithm.epsilon == pytest.approx(expected)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_exploration_is_uniform_with_probability_epsilon_and_sampled_otherwise(epsilon):
    algorithm = SoftQ(epsilon_initial=epsilon, epsilon_final=epsilon, **SETTINGS).start()
    observation = torch.full((30_000, 2, 2), 0.5)
    with torch.no_grad():
        algorithm.policy.q_network[-1].bias += torch.tensor([2.0, 0.0, -1.0])
    policy = algorithm.policy.distribution_parameters(observation[0]).exp()
    assert policy.max() > 0.6
    action = algorithm.explore(observation)["action"]
    assert action.shape == (30_000,) and action.dtype == torch.int64
    frequencies = torch.bincount(action, minlength=3) / 30_000
    torch.testing.assert_close(frequencies, epsilon / 3 + (1 - epsilon) * policy, rtol=0, atol=0.012)


@pytest.mark.parametrize(
    ("schedule", "factors"), [("linear", [1.0, 1 - 32 / 90, 1 - 64 / 90]), ("constant", [1.0, 1.0, 1.0])]
)
def test_learning_rate(fit, schedule, factors):
    used = []

    class Watched(SoftQLearning):
        @staticmethod
        def take_step(optimizer: Any, last: bool) -> None:
            used.append(float(optimizer.param_groups[0]["lr"]))
            SoftQLearning.take_step(optimizer, last)

    data = ReplayDataModule(num_envs=4, total_frames=90, frames_per_batch=32, updates_per_batch=2, warm_up_frames=0)
    fit(Watched(learning_rate=0.5, learning_rate_schedule=schedule), data)
    assert used[::2] == used[1::2] == pytest.approx([0.5 * factor for factor in factors])
