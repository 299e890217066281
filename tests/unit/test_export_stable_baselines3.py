"""Exported models do in Stable-Baselines3 what the policies do here."""

from __future__ import annotations

import sys
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
import torch
from exported_policies import POLICIES, actor, fitted, observations, soft_q, wrapped
from sb3_models import Task, make
from stable_baselines3 import DQN, SAC
from torch import nn

from rql_lightning import load_policy
from rql_lightning.errors import ConfigurationError
from rql_lightning.export import export_policy
from rql_lightning.export.layers import added, layers_of
from rql_lightning.loading import CheckpointPrior
from rql_lightning.priors import StableBaselines3Prior

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def of_model(kind: str, tmp_path, **options):
    model = make(kind, **options)
    model.save(tmp_path / f"{kind}.zip")
    return StableBaselines3Prior(str(tmp_path / f"{kind}.zip"), temperature=None if kind == "ppo" else 0.6)


@pytest.mark.parametrize(
    ("name", "temperature"),
    [
        *((name, 0.4) for name in ("soft_q", "residual_soft_q", "nested", "dqn", "qrdqn", "ppo")),
        ("pretrained:cartpole-rl", 1.0),
        ("pretrained:cartpole-il", 1.0),
        ("over the imitator", 0.4),
    ],
)
def test_q_values_whose_boltzmann_policy_is_the_policy(name, temperature, tmp_path):
    if name.startswith("pretrained:"):
        policy = load_policy(name)
    elif name in POLICIES:
        policy = POLICIES[name]()
    elif name == "over the imitator":
        policy = soft_q(CheckpointPrior("pretrained:cartpole-il"), [16, 8, 8])
    else:
        kind = {"activation_fn": nn.ReLU} if name == "ppo" else {}
        policy = soft_q(of_model(name, tmp_path, **kind), [7, 6])
    path, rows = export_policy(policy, tmp_path / "model.zip"), observations(policy)
    model = DQN.load(path, device="cpu")
    with torch.no_grad():
        q = model.q_net(torch.from_numpy(rows))
        ours = policy.distribution_parameters(torch.from_numpy(rows))
    np.testing.assert_allclose((q / temperature).log_softmax(-1), ours, **CLOSE)
    decided = ours.topk(2).values.diff(dim=-1).squeeze(-1).abs() > 1e-4  # where rounding does not decide
    assert decided.sum() >= 45
    np.testing.assert_array_equal(model.predict(rows, deterministic=True)[0][decided], policy.act(rows)[decided])
    if policy.prior is None and hasattr(policy, "q_values"):
        np.testing.assert_allclose(q, policy.q_values(torch.from_numpy(rows)), **CLOSE)
    back = StableBaselines3Prior(str(path), temperature=temperature)
    np.testing.assert_allclose(back.distribution_parameters(torch.from_numpy(rows)), ours, **CLOSE)
    assert back.action_space == policy.action_space
    assert len(np.unique(policy.act(rows))) > 1, "the test sees more than one action"


@pytest.mark.parametrize("name", ["actor", "residual_actor", "shipped", "no hidden layer", "narrow", "wide", "fitted"])
def test_an_actor_is_one_of_sac(name, tmp_path):
    made = {
        "no hidden layer": lambda: actor(hidden=()),
        "narrow": lambda: actor(log_scale=-5.0),  # around our lower bound of the log-scale, which SAC's is below
        "wide": lambda: actor(log_scale=2.0),
        "fitted": lambda: fitted("squashed_normal"),
    }
    policy = {**POLICIES, **made}[name]()
    path, rows = export_policy(policy, tmp_path / "model.zip"), observations(policy)
    model = SAC.load(path, device="cpu")
    np.testing.assert_allclose(model.predict(rows, deterministic=True)[0], policy.act(rows), **CLOSE)
    parameters = policy.distribution_parameters(torch.from_numpy(rows))
    log_scale = parameters.chunk(2, dim=-1)[1]
    if name in ("narrow", "wide"):
        bound = -5.0 if name == "narrow" else 2.0
        assert 0 < (log_scale == bound).sum() < log_scale.numel(), "some are on the bound, and some are not"
    with torch.no_grad():
        mean, log_std, _ = model.actor.get_action_dist_params(torch.from_numpy(rows))
        law = model.actor.action_dist.proba_distribution(mean, log_std)
        unit = torch.tanh(mean + 0.5 * log_std.exp()).clamp(-0.7, 0.7)  # SB3 adds 1e-6 to 1 − a²
        theirs = law.log_prob(unit) - policy.bounds.log_half_widths
    action = policy.bounds.to_environment(unit)
    np.testing.assert_allclose(torch.cat([mean, log_std], -1), parameters, **CLOSE)
    np.testing.assert_allclose(policy.log_prob(rows, action), theirs, **CLOSE)
    back = StableBaselines3Prior(str(path))
    np.testing.assert_allclose(back.distribution_parameters(torch.from_numpy(rows)), parameters, **CLOSE)
    assert back.temperature == (None if policy.temperature is None else pytest.approx(policy.temperature))
    np.testing.assert_allclose(back.action_space.high, policy.action_space.high)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (POLICIES["parking"], "found differences to a goal"),
        (POLICIES["rows"], "found a network of RowNetwork"),
        (POLICIES["mixture"], "found a NetworkPolicy of the law SquashedNormalMixture"),
        (POLICIES["module_prior"], "found a ModulePrior"),
    ],
)
def test_what_a_model_cannot_hold_is_refused_with_what_can(policy, found, tmp_path):
    with pytest.raises(ConfigurationError, match=found) as refusal:
        export_policy(policy(), tmp_path / "model.zip")
    assert str(refusal.value).endswith("; .onnx, .pt2, .safetensors, .ckpt can hold the policy")
    assert not list(tmp_path.iterdir())


def test_networks_of_other_activations_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="found a network of Sequential, Linear, Tanh, expected a chain"):
        export_policy(soft_q(of_model("ppo", tmp_path), [8]), tmp_path / "model.zip")


def test_images_are_refused(tmp_path):
    task = Task(True, gym.spaces.Box(0, 255, (4, 4, 3), np.uint8))
    images = wrapped(soft_q(None, [4]))
    images.observation_space, images.policy.observation_space = task.observation_space, task.observation_space
    with pytest.raises(ConfigurationError, match="found images as observations"):
        export_policy(images, tmp_path / "model.zip")


def test_a_policy_that_float32_cannot_hold_in_one_layer_is_refused(tmp_path):
    """Bounds of a width of 1e-3 around 1e4: the scaled observation, but not a linear function of it, is exact."""
    policy = soft_q(None, [8])
    policy.observation_space = gym.spaces.Box(1e4 - 5e-4, 1e4 + 5e-4, (3,), np.float64)
    policy.encoder = type(policy.encoder).scaled_of(policy.observation_space)
    with pytest.raises(ConfigurationError, match=r"differ from the policy's by .* numbers are too large for float32"):
        export_policy(policy, tmp_path / "model.zip")


def test_the_random_state_is_left_alone(tmp_path):
    policy = actor()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    export_policy(policy, tmp_path / "model.zip")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("depths", [(0, 0), (0, 1), (2, 1), (1, 3)])
def test_the_sum_of_two_networks_is_one(depths):
    """Against the networks themselves, in float64."""
    torch.manual_seed(1)

    def network(depth: int) -> nn.Sequential:
        sizes, layers = [3, *range(4, 4 + depth), 2], []
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following), nn.ReLU()]
        return nn.Sequential(*layers[:-1]).double()

    first, second = map(network, depths)
    inputs = torch.randn(20, 3, dtype=torch.float64)
    outputs = inputs
    for index, (weight, bias) in enumerate(added(layers_of(first), layers_of(second))):
        outputs = (outputs.relu() if index else outputs) @ weight.T + bias
    torch.testing.assert_close(outputs, first(inputs) + second(inputs))


def test_no_library_no_model(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'rql-lightning\[stable-baselines3\]'"):
        export_policy(soft_q(None, [8]), tmp_path / "model.zip")
