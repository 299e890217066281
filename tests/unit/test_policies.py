"""What acts: actions, probabilities, and the way in and out of files."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import rql_lightning
from rql_lightning.algorithms import GreedySoftQLearning, ResidualSoftQLearning, SoftQLearning
from rql_lightning.checkpoints import resolve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import CheckpointError, ConfigurationError
from rql_lightning.functional import greedy_policy_log_prob
from rql_lightning.loading import build_policy, load_policy
from rql_lightning.policies import Policy, SoftQPolicy
from rql_lightning.priors import CheckpointPrior, FunctionPrior

SHIPPED = "pretrained:cartpole-rl"
BOX = gym.spaces.Box(-1.0, 1.0, (3,))
ACTIONS = 4
STEEP = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0], [-3.0, 0.3, 0.2], [0.0, -1.0, 1.0]])


def steep_log_prob(observation: Tensor, action: Tensor) -> Tensor:
    return torch.log_softmax(observation @ STEEP.T, dim=-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)


def balanced(observation: Tensor, action: Tensor) -> Tensor:
    """A prior for CartPole."""
    return torch.nn.functional.logsigmoid((2.0 * action - 1) * (observation[:, 2] + observation[:, 0]))


def make_policy(omega_prime: float = 0.7, alpha_hat: float = 0.5, seed: int = 0) -> SoftQPolicy:
    torch.manual_seed(seed)
    prior = FunctionPrior(steep_log_prob)
    prior.attach(BOX, gym.spaces.Discrete(ACTIONS))
    return SoftQPolicy(BOX, gym.spaces.Discrete(ACTIONS), [8], alpha_hat, prior, omega_prime, "some/Task-v0")


def probabilities(policy: SoftQPolicy, observation: np.ndarray) -> np.ndarray:
    """Eq. 6 by hand, in float64."""
    x = observation.astype(np.float64)
    first, _, second = policy.q_network
    weight = [layer.weight.detach().double().numpy() for layer in (first, second)]
    bias = [layer.bias.detach().double().numpy() for layer in (first, second)]
    q = np.maximum(x @ weight[0].T + bias[0], 0) @ weight[1].T + bias[1]
    prior = np.exp(x @ STEEP.double().numpy().T)
    prior /= prior.sum(-1, keepdims=True)
    unnormalised = np.exp(q / policy.alpha_hat) * prior ** (policy.omega_prime / policy.alpha_hat)
    return unnormalised / unnormalised.sum(-1, keepdims=True)


def some(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


# -- acting ----------------------------------------------------------------------------------------------------------


@given(st.floats(0, 3), st.floats(0.1, 3), st.integers(0, 99))
def test_log_prob_is_equation_6_and_normalised(omega_prime, alpha_hat, seed):
    policy, observation = make_policy(omega_prime, alpha_hat, seed), some(5, seed)
    columns = [policy.log_prob(observation, np.full(5, action)) for action in range(ACTIONS)]
    assert all(column.shape == (5,) and isinstance(column, np.ndarray) for column in columns)
    table = np.exp(np.stack(columns, axis=-1))
    np.testing.assert_allclose(table.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(table, probabilities(policy, observation), rtol=1e-3, atol=1e-6)


def test_deterministic_action_is_the_mode_of_equation_6():
    policy, observation = make_policy(omega_prime=1.5), some(200)
    table = probabilities(policy, observation)
    second, first = np.sort(table)[:, -2:].T
    clear = first - second > 1e-5  # rounding decides the others
    assert clear.mean() > 0.9
    expected = table.argmax(-1)
    np.testing.assert_array_equal(policy.act(observation)[clear], expected[clear])
    alone = make_policy(omega_prime=0.0)
    assert (alone.act(observation) != expected)[clear].any(), "the prior has a say"
    assert len(set(expected.tolist())) == ACTIONS


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_or_a_batch_arrays_or_tensors(deterministic, dtype):
    policy, observation = make_policy(), some(6).astype(dtype)
    one, batch = policy.act(observation[0], deterministic), policy.act(observation, deterministic)
    assert isinstance(one, np.integer) and isinstance(batch, np.ndarray)
    assert np.shape(one) == () and batch.shape == (6,) and batch.dtype == np.int64
    assert policy.action_space.contains(one) and all(policy.action_space.contains(action) for action in batch)
    one_tensor = policy.act(torch.from_numpy(observation[0]), deterministic)
    batch_tensor = policy.act(torch.from_numpy(observation), deterministic)
    assert isinstance(one_tensor, Tensor) and isinstance(batch_tensor, Tensor)
    assert one_tensor.shape == () and batch_tensor.shape == (6,)
    if deterministic:
        assert one == one_tensor == batch[0] and (batch == batch_tensor.numpy()).all()
    log_prob = policy.log_prob(observation[0], one)
    assert np.shape(log_prob) == () and isinstance(log_prob, np.floating)
    log_prob_tensor = policy.log_prob(torch.from_numpy(observation), batch_tensor)
    assert isinstance(log_prob_tensor, Tensor) and log_prob_tensor.shape == (6,) and not log_prob_tensor.requires_grad


def chi_square(actions: np.ndarray, expected: np.ndarray) -> float:
    counts = np.bincount(actions, minlength=ACTIONS)
    return float(((counts - expected * len(actions)) ** 2 / (expected * len(actions))).sum())


def test_samples_follow_the_distribution():
    policy, observation = make_policy(), some(1)[0]
    expected = probabilities(policy, observation)
    assert expected.min() > 0.005
    torch.manual_seed(0)
    samples = policy.act(np.broadcast_to(observation, (20_000, 3)).copy(), deterministic=False)
    quantile = 16.27  # of the chi-square distribution with 3 degrees of freedom, at 99.9 %
    assert chi_square(samples, expected) < quantile
    assert chi_square(samples, probabilities(make_policy(omega_prime=0.6), observation)) > quantile


def test_the_environment_takes_the_actions():
    env, policy = gym.make("rql_lightning/CartPole-v0"), load_policy(SHIPPED)
    observation, _ = env.reset(seed=0)
    for step in range(20):
        action = policy.act(observation, deterministic=step % 2 == 0)
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    vector = gym.make_vec("rql_lightning/CartPole-v0", num_envs=3)
    observation, _ = vector.reset(seed=0)
    assert vector.step(policy.act(observation))[0].shape == (3, 4)


# -- files -----------------------------------------------------------------------------------------------------------


def train(fit: Callable[..., Any], algorithm: Any, path: Path, **settings: Any) -> Any:
    """A few updates, and the checkpoint that Lightning writes of them."""
    settings = {"num_envs": 4, "total_frames": 96, "frames_per_batch": 32, "batch_size": 8, **settings}
    trainer = fit(algorithm, ReplayDataModule(warm_up_frames=0, **settings))
    trainer.save_checkpoint(path)
    return algorithm.policy


def assert_same_behaviour(first: Policy, second: Policy) -> None:
    observation = torch.randn(50, 4, generator=torch.Generator().manual_seed(3)) * 0.3
    parameters = first.distribution_parameters(observation)
    assert parameters.std() > 1e-3
    torch.testing.assert_close(second.distribution_parameters(observation), parameters, rtol=0, atol=0)


def residual(prior: Any) -> ResidualSoftQLearning:
    return ResidualSoftQLearning(prior, omega_prime=1.3, alpha_hat=0.7, hidden_sizes=[8, 6], learning_rate=0.05)


def test_a_shipped_policy_by_name():
    policy = rql_lightning.load_policy(SHIPPED)
    assert policy.task == "rql_lightning/CartPole-v0" and policy.prior is None
    assert policy.observation_space == gym.make(policy.task).observation_space
    assert not policy.training and not any(parameter.requires_grad for parameter in policy.parameters())
    assert_same_behaviour(policy, load_policy(resolve(SHIPPED)))


@pytest.mark.parametrize("name", ["pretrained:no-such-policy", "pretrained:", "pretrained:../pretrained/cartpole-rl"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(CheckpointError, match=r"expected one of .*pretrained:cartpole-rl") as error:
        load_policy(name)
    assert name in str(error.value)


def test_a_path_of_either_kind(fit, tmp_path):
    trained = train(fit, SoftQLearning(hidden_sizes=[8], alpha=0.5), tmp_path / "a.ckpt", reward="basic")
    for path in (tmp_path / "a.ckpt", str(tmp_path / "a.ckpt")):
        policy = load_policy(path)
        assert_same_behaviour(trained, policy)
        assert not policy.training and not any(parameter.requires_grad for parameter in policy.parameters())


def test_a_residual_policys_file_is_self_contained(fit, tmp_path):
    prior_file = tmp_path / "prior.ckpt"
    prior_file.write_bytes(resolve(SHIPPED).read_bytes())
    trained = train(fit, residual(CheckpointPrior(str(prior_file))), tmp_path / "residual.ckpt")
    for overwrite in (b"something else", None):
        prior_file.unlink() if overwrite is None else prior_file.write_bytes(overwrite)
        policy = load_policy(tmp_path / "residual.ckpt")
        assert_same_behaviour(trained, policy)
        assert_same_behaviour(trained.prior, policy.prior)
    assert (policy.omega_prime, policy.alpha_hat, policy.hidden_sizes) == (1.3, 0.7, [8, 6])
    assert policy.describe() == trained.describe()


def test_a_greedy_policys_file_holds_the_policy_of_equation_17(fit, tmp_path):
    greedy = GreedySoftQLearning(CheckpointPrior(SHIPPED), omega_prime=1.3, alpha_hat=0.7, hidden_sizes=[8])
    trained = train(fit, greedy, tmp_path / "greedy.ckpt")
    policy = load_policy(tmp_path / "greedy.ckpt")
    assert_same_behaviour(trained, policy)
    observation = 0.3 * torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    log_prior = load_policy(SHIPPED).distribution_parameters(observation)
    expected = greedy_policy_log_prob(policy.q_values(observation), log_prior, 1.3, 0.7)
    torch.testing.assert_close(policy.distribution_parameters(observation), expected)
    assert policy.temperature == 2.0


def test_a_customised_policy_can_be_customised_again(fit, tmp_path):
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    once = train(fit, residual(CheckpointPrior(SHIPPED)), first)
    twice = train(fit, residual(CheckpointPrior(str(first))), second)
    first.unlink()
    policy = load_policy(second)
    assert_same_behaviour(twice, policy)
    assert_same_behaviour(once, policy.prior)
    assert_same_behaviour(load_policy(SHIPPED), policy.prior.policy.prior)


def test_a_customised_function_is_asked_for(fit, tmp_path):
    path = tmp_path / "residual.ckpt"
    trained = train(fit, residual(FunctionPrior(balanced)), path)
    with pytest.raises(CheckpointError, match=r"prior=FunctionPrior\(") as error:
        load_policy(path)
    assert str(path) in str(error.value) and f"{__name__}.balanced" in str(error.value)
    assert_same_behaviour(trained, load_policy(path, prior=FunctionPrior(balanced)))
    with pytest.raises(CheckpointError, match=r"prior=FunctionPrior\("):
        CheckpointPrior(str(path))


def test_description_and_policy_round_trip():
    for policy in (make_policy(), load_policy(SHIPPED)):
        description = policy.describe()
        prior = None if policy.prior is None else FunctionPrior(steep_log_prob)
        again = build_policy(description, prior)
        assert again.describe() == description
        assert again.observation_space == policy.observation_space and again.action_space == policy.action_space
        again.load_state_dict(policy.state_dict())
        observation = torch.zeros(2, *policy.observation_space.shape)
        torch.testing.assert_close(
            again.distribution_parameters(observation), policy.distribution_parameters(observation)
        )


@pytest.mark.parametrize("name", [SHIPPED, "pretrained:mountain-car-rl"])
@pytest.mark.parametrize("given", [lambda size: np.zeros(size + 1), lambda size: np.zeros((4, size - 1)), str, type])
def test_observations_that_the_policy_cannot_have(given, name):
    policy = load_policy(name)
    (size,) = policy.observation_space.shape
    for call in (policy.act, lambda observation: policy.log_prob(observation, 0)):
        with pytest.raises(ConfigurationError, match=r"^observation: found "):
            call(given(size))


def test_observations_with_nan_are_refused_in_one_line():
    observation = np.zeros((40, 4))
    observation[7, 1] = math.nan
    with pytest.raises(ConfigurationError, match=r"^observation: found nan, expected finite numbers$"):
        load_policy(SHIPPED).act(observation)


def test_log_probabilities_of_truth_values_are_those_of_integers():
    policy, observation = load_policy(SHIPPED), np.zeros((2, 4))
    taken = policy.log_prob(observation, np.array([True, False]))
    np.testing.assert_array_equal(taken, policy.log_prob(observation, np.array([1, 0])))


@pytest.mark.parametrize(
    ("name", "action"),
    [(SHIPPED, 2), (SHIPPED, -1), (SHIPPED, 0.5), (SHIPPED, [0]), (SHIPPED, "left"), (SHIPPED, None)]
    + [("pretrained:mountain-car-rl", each) for each in (0.1, [math.nan])],
)
def test_actions_that_the_environment_does_not_have(name, action):
    policy = load_policy(name)
    with pytest.raises(ConfigurationError, match=r"^action: found "):
        policy.log_prob(np.zeros(policy.observation_space.shape), action)


class Malicious:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("how", ["pickle", "torch.save", "inside a good checkpoint"])
def test_nothing_in_a_file_is_executed(tmp_path, how):
    path, proof = tmp_path / "malicious.ckpt", tmp_path / "executed"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Malicious(proof)))
    elif how == "torch.save":
        torch.save(Malicious(proof), path)
    else:
        torch.save({**torch.load(resolve(SHIPPED), weights_only=True), "extra": Malicious(proof)}, path)
    with pytest.raises(CheckpointError, match="damaged or foreign") as error:
        load_policy(path)
    assert not proof.exists()
    assert "weights_only" not in str(error.value) and "arbitrary code" not in str(error.value)  # PyTorch's advice
    if how == "pickle":
        pickle.loads(path.read_bytes())
        assert proof.exists(), "the file would have done it"


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda c: c.pop("state_dict"), "state_dict"),
        (lambda c: c["state_dict"].pop("policy.q_network.0.bias"), "policy"),
        (lambda c: c.pop("rql_lightning"), "rql_lightning"),
        (lambda c: c["rql_lightning"].update(policy=None), "policy"),
        (lambda c: c["rql_lightning"]["policy"].update(kind="Linear"), "Linear"),
        (lambda c: c["rql_lightning"]["policy"].update(hidden_sizes=[3]), "policy"),
        (lambda c: c["rql_lightning"]["policy"].update(alpha_hat="x", hidden_sizes="wide"), "policy"),
        (lambda c: c["rql_lightning"]["policy"]["action_space"].update(type="Text"), "Text"),
        (lambda c: c["rql_lightning"]["policy"].pop("prior"), "prior"),
        (lambda c: c["state_dict"]["policy.q_network.0.bias"].fill_(math.nan), "policy.q_network.0.bias: found NaN"),
    ],
)
def test_a_file_that_holds_no_policy(tmp_path, edit, found):
    checkpoint = torch.load(resolve(SHIPPED), weights_only=True)
    torch.save(checkpoint, tmp_path / "good.ckpt")
    load_policy(tmp_path / "good.ckpt")
    edit(checkpoint)
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError) as error:
        load_policy(tmp_path / "bad.ckpt")
    assert str(tmp_path / "bad.ckpt") in str(error.value) and found in str(error.value)


@given(st.integers(0, 2**32 - 1))
def test_a_file_with_a_flipped_byte_loads_or_says_so(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    content = bytearray(resolve(SHIPPED).read_bytes())
    content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
    path = tmp_path_factory.mktemp("flipped") / "flipped.ckpt"
    path.write_bytes(bytes(content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.5 else content))
    try:
        assert isinstance(load_policy(path), SoftQPolicy)
    except CheckpointError as error:
        assert str(path) in str(error)
