"""What a file says of its policy is compared with the weights in it before memory is allocated."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from exported_policies import BOUNDED, BOUNDS, CARTPOLE, POLICIES, actor, fitted, soft_q, wrapped
from sb3_models import make

from rql_lightning.checkpoints import archive
from rql_lightning.errors import CheckpointError
from rql_lightning.loading import CheckpointPrior, load_policy
from rql_lightning.policies import NetworkPolicy, Policy, ResampledPolicy
from rql_lightning.priors import ObservationStatistics, Prior, SamplerPrior, StableBaselines3Prior

HUGE = 10**7
"""A layer from as many numbers to as many takes 400 TB, more than a process can address."""


def first(observation):
    return torch.zeros(len(observation), 2)


def sampler() -> Prior:
    prior = SamplerPrior(first)
    prior.attach(BOUNDED, BOUNDS.action_space)
    return prior


def rows() -> Policy:
    space = gym.spaces.Box(-1.0, 1.0, (3, 4))
    return NetworkPolicy(space, gym.spaces.Discrete(2), [8], rows=3)


CLAIMS: dict[str, tuple[Callable[[], Policy], str]] = {
    "soft_q": (lambda: soft_q(None, [8]), "hidden_sizes"),
    "nested": (POLICIES["nested"], "hidden_sizes"),
    "actor": (actor, "hidden_sizes"),
    "residual_actor": (lambda: actor(wrapped(actor())), "hidden_sizes"),
    "normal": (lambda: fitted("squashed_normal"), "hidden_sizes"),
    "rows": (rows, "hidden_sizes"),
    "mixture": (lambda: fitted("mixture"), "hidden_sizes"),
    "components": (lambda: fitted("mixture"), "components"),
    "flow": (lambda: fitted("flow"), "hidden_sizes"),
    "context": (lambda: fitted("flow"), "context"),
    "resampled": (lambda: ResampledPolicy(BOUNDED, BOUNDS.action_space, [8], 0.5, sampler()), "hidden_sizes"),
}


def write(policy: Policy, path: Path, edit: Callable[[dict[str, Any]], Any], weights: dict[str, Any] | None = None):
    """Write the file of a policy whose description is edited, and whose weights are replaced."""
    description = copy.deepcopy(policy.describe())
    edit(description)
    state = {f"policy.{name}": value.clone() for name, value in policy.state_dict().items()}
    content = {"rql_lightning": {"policy": description}, "state_dict": {**state, **(weights or {})}}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors")
        path.write_bytes(archive(content))
    else:
        torch.save(content, path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("name", CLAIMS)
def test_sizes_that_a_file_claims_are_compared_with_its_weights(name, suffix, tmp_path):
    """Before they are allocated, as the message tells the shape that is claimed."""
    make_policy, setting = CLAIMS[name]
    if "flow" in name or setting == "context":
        pytest.importorskip("zuko")
    policy, path = make_policy(), tmp_path / f"policy{suffix}"
    prior = sampler() if name == "resampled" else None
    write(policy, path, lambda description: None)
    assert load_policy(path, prior).describe() == policy.describe()
    claimed = [HUGE, HUGE] if setting == "hidden_sizes" else HUGE**2
    write(policy, path, lambda description: description.update({setting: claimed}))
    with pytest.raises(
        CheckpointError, match=rf"policy\{suffix}: policy\.\S+: found (none|shape \(.*\)), expected shape"
    ):
        load_policy(path, prior)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_sizes_of_a_customised_prior_are_compared_with_its_weights(suffix, tmp_path):
    policy, path = soft_q(CheckpointPrior(CARTPOLE), [8]), tmp_path / f"policy{suffix}"
    write(policy, path, lambda description: description["prior"]["policy"].update(hidden_sizes=[HUGE, HUGE]))
    with pytest.raises(
        CheckpointError, match=r": policy\.prior\.policy\.\S+: found shape \(.*\), expected shape \(10000000, "
    ):
        load_policy(path)


def test_a_weight_that_is_one_number_many_times_is_refused(tmp_path):
    """Such a file is small, and has the shapes that it claims."""
    policy, path = soft_q(None, [8, 8]), tmp_path / "policy.ckpt"
    shapes = {"0.weight": (HUGE, 3), "0.bias": (HUGE,), "2.weight": (HUGE, HUGE), "2.bias": (HUGE,)}
    shapes["4.weight"] = (3, HUGE)
    views = {f"policy.q_network.{name}": torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    write(policy, path, lambda description: description.update(hidden_sizes=[HUGE, HUGE]), views)
    assert path.stat().st_size < 10**5
    with pytest.raises(CheckpointError, match=r": policy\.q_network\.0\.weight: found more numbers than are stored"):
        load_policy(path)


INVALID = [
    ("soft_q", "alpha_hat", ["x", None, 0, -1.0, math.nan, math.inf, True, [0.5]]),
    ("soft_q", "omega_prime", ["x", None, -0.5, math.nan, math.inf, False]),
    ("soft_q", "hidden_sizes", ["8", None, [8.0], [0], [-3], [True], 8]),
    ("soft_q", "task", [3, ["a"]]),
    ("actor", "temperature", ["x", -1.0, math.nan, math.inf, True]),
    ("mixture", "components", ["5", None, 0, -1, 2.0, True]),
    ("rows", "rows", ["3", 0, -1, 3.0, True]),
]


@pytest.mark.parametrize(("name", "key", "value"), [(name, key, each) for name, key, all in INVALID for each in all])
def test_settings_in_a_description_are_checked(name, key, value, tmp_path):
    write(CLAIMS[name][0](), tmp_path / "policy.ckpt", lambda description: description.update({key: value}))
    with pytest.raises(CheckpointError, match=rf"policy\.ckpt: policy of kind \w+, {key}: found .*, expected "):
        load_policy(tmp_path / "policy.ckpt")


@pytest.mark.parametrize("key", ["middle", "half_width", "goal_scales"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, "x", None, 10**400])
def test_constants_of_an_encoder_are_numbers(key, value, tmp_path):
    def edit(description):
        description["encoder"][key] = [value, *description["encoder"][key][1:]]

    write(actor(), tmp_path / "policy.ckpt", edit)
    with pytest.raises(CheckpointError, match=r"policy\.ckpt: found a file that holds no policy"):
        load_policy(tmp_path / "policy.ckpt")


@pytest.mark.parametrize("value", [2.5, "x", -1])
def test_a_space_that_gymnasium_refuses(value, tmp_path):
    write(soft_q(None, [8]), tmp_path / "policy.ckpt", lambda each: each["action_space"].update(n=value))
    with pytest.raises(CheckpointError, match=r"policy\.ckpt: found a file that holds no policy"):
        load_policy(tmp_path / "policy.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", "x"), ("scale", math.nan), ("clip", 0), ("sizes", 6), ("sizes", [6]), ("quantiles", 0)],
)
def test_numbers_of_a_described_model_of_stable_baselines3_are_checked(key, value, tmp_path):
    make("ppo").save(tmp_path / "model.zip")
    prior = StableBaselines3Prior(str(tmp_path / "model.zip"))

    write(soft_q(prior, [8]), tmp_path / "policy.ckpt", lambda description: None)
    assert load_policy(tmp_path / "policy.ckpt")

    def edit(description):
        described = description["prior"]
        (described["architecture"] if key in ("sizes", "quantiles") else described)[key] = value

    write(soft_q(prior, [8]), tmp_path / "policy.ckpt", edit)
    with pytest.raises(CheckpointError, match=rf"policy\.ckpt: prior .*model\.zip, {key}: found .*, expected "):
        load_policy(tmp_path / "policy.ckpt")


def test_a_model_of_stable_baselines3_that_clips_nothing(tmp_path):
    make("ppo").save(tmp_path / "model.zip")
    statistics = ObservationStatistics([0.1] * 6, [2.0] * 6, clip=math.inf)
    policy = soft_q(StableBaselines3Prior(str(tmp_path / "model.zip"), vec_normalize=statistics), [8])
    write(policy, tmp_path / "policy.ckpt", lambda description: None)
    assert load_policy(tmp_path / "policy.ckpt").describe() == policy.describe()
