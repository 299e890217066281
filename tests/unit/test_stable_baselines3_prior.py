"""Models of Stable-Baselines3 read without it, against Stable-Baselines3 itself."""

from __future__ import annotations

import copy
import math
import pickle
import re
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_models import Task, change_fields, change_weights, make, rewrite
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rql_lightning.errors import CheckpointError, ConfigurationError, SpaceMismatchError
from rql_lightning.priors import ObservationStatistics, StableBaselines3Prior
from rql_lightning.spaces import ActionBounds

OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)
OPTIONS = {
    "dqn": {"temperature": 0.7},
    "qrdqn": {"temperature": 0.7},
    "td3": {"scale": 0.2},
    "ddpg": {"scale": 0.2},
}
DISCRETE = ("dqn", "qrdqn", "ppo", "a2c")
CLIPPED = ("ppo_box", "a2c_box", "ppo_gsde")
SQUASHED = ("sac", "sac_gsde", "tqc")
DETERMINISTIC = ("td3", "ddpg")
KINDS = (*DISCRETE, *CLIPPED, *SQUASHED, *DETERMINISTIC)


def saved(kind: str, folder: Path, model: BaseAlgorithm | None = None, **policy) -> tuple[BaseAlgorithm, str]:
    model = model or make(kind, **policy)
    path = folder / f"{kind}.zip"
    model.save(path)
    return model, str(path)


def prior_of(kind: str, path: str, **options) -> StableBaselines3Prior:
    return StableBaselines3Prior(path, **{**OPTIONS.get(kind, {}), **options})


def unit_actions(edge: float) -> torch.Tensor:
    """Actions in [−edge, edge]², [50, 2]."""
    return torch.rand(50, 2, generator=torch.Generator().manual_seed(1)).mul(2).sub(1).mul(edge)


def check_discrete(model: BaseAlgorithm, prior: StableBaselines3Prior, temperature: float = 0.7) -> None:
    observation = torch.from_numpy(OBSERVATIONS)
    with torch.no_grad():
        if hasattr(model, "q_net"):
            logits = model.q_net(observation) / temperature
        elif hasattr(model, "quantile_net"):
            logits = model.quantile_net(observation).mean(dim=1) / temperature
        else:
            logits = model.policy.get_distribution(observation).distribution.logits
    expected = logits.log_softmax(dim=-1)
    assert expected.std() > 0.1
    for action in range(3):
        found = prior.log_prob(OBSERVATIONS, np.full(50, action))
        np.testing.assert_allclose(found, expected[:, action].numpy(), atol=1e-5)


def check_clipped(model: BaseAlgorithm, prior: StableBaselines3Prior) -> None:
    action = ActionBounds(model.action_space).to_environment(unit_actions(0.999))
    with torch.no_grad():
        _, expected, _ = model.policy.evaluate_actions(torch.from_numpy(OBSERVATIONS), action)
    assert expected.std() > 0.1
    np.testing.assert_allclose(prior.log_prob(OBSERVATIONS, action.numpy()), expected.numpy(), rtol=1e-5, atol=1e-5)


def check_squashed(model: BaseAlgorithm, prior: StableBaselines3Prior) -> None:
    """As it is where its small number in a logarithm has no effect, and without it up to the bounds."""
    bounds = ActionBounds(model.action_space)
    law = getattr(model, "actor", model.policy).action_dist
    for edge in (0.8, 0.999):
        if edge > 0.9:
            (getattr(law, "bijector", None) or law).epsilon = 0.0
        unit = unit_actions(edge)
        with torch.no_grad():
            if hasattr(model, "actor"):
                mean, log_scale, extra = model.actor.get_action_dist_params(torch.from_numpy(OBSERVATIONS))
                result = law.proba_distribution(mean, log_scale, **extra).log_prob(unit)
            else:
                result = model.policy.get_distribution(torch.from_numpy(OBSERVATIONS)).log_prob(unit)
        expected = result - bounds.half_width.log().sum()
        assert expected.std() > 0.1
        found = prior.log_prob(OBSERVATIONS, bounds.to_environment(unit).numpy())
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)


def check_noise(model: BaseAlgorithm, prior: StableBaselines3Prior) -> None:
    """The law of its own exploration: the action in [−1, 1] plus normal noise, clipped."""
    with torch.no_grad():
        centre = model.actor(torch.from_numpy(OBSERVATIONS))
    bounds, unit = ActionBounds(model.action_space), unit_actions(0.999)
    noise = torch.distributions.Normal(centre, 0.2)
    expected = noise.log_prob(unit).sum(-1) - bounds.half_width.log().sum()
    found = prior.log_prob(OBSERVATIONS, bounds.to_environment(unit).numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    torch.manual_seed(0)
    model.action_noise, model._last_obs = NormalActionNoise(np.zeros(2), np.full(2, 0.2)), OBSERVATIONS[:1]
    np.random.seed(0)
    theirs = np.array([model._sample_action(0, model.action_noise)[0][0] for _ in range(400)])
    ours = prior.act(OBSERVATIONS[:1].repeat(4000, 0), deterministic=False)
    for mark in (model.action_space.low, model.action_space.high):
        np.testing.assert_allclose((theirs == mark).mean(0), (ours == mark).mean(0), atol=0.1)
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.1)


CHECKS = {
    **dict.fromkeys(DISCRETE, check_discrete),
    **dict.fromkeys(CLIPPED, check_clipped),
    **dict.fromkeys(SQUASHED, check_squashed),
    **dict.fromkeys(DETERMINISTIC, check_noise),
}


@pytest.mark.parametrize("kind", KINDS)
def test_same_actions_and_log_probabilities(kind, tmp_path):
    model, path = saved(kind, tmp_path)
    prior = prior_of(kind, path)
    expected = model.predict(OBSERVATIONS, deterministic=True)[0]
    assert len(np.unique(expected)) > 1
    np.testing.assert_allclose(prior.act(OBSERVATIONS), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(prior.act(OBSERVATIONS[7]), expected[7], rtol=1e-5, atol=1e-5)
    CHECKS[kind](model, prior)
    assert not prior.training and not any(parameter.requires_grad for parameter in prior.parameters())


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("dqn", {"activation_fn": nn.Tanh, "net_arch": []}),
        ("ppo", {"activation_fn": nn.ELU, "net_arch": {"pi": [8], "vf": [5, 5]}}),
        ("ppo_box", {"activation_fn": nn.SiLU, "net_arch": [], "log_std_init": -1.0}),
        ("ppo_gsde", {"full_std": False, "use_expln": True, "log_std_init": 0.2}),
        ("ppo_gsde", {"squash_output": True}),
        ("sac", {"net_arch": {"pi": [], "qf": [4]}}),
        ("sac_gsde", {"use_expln": True, "log_std_init": -0.1}),
        ("sac_gsde", {"clip_mean": 0.0, "activation_fn": nn.Tanh}),
        ("sac_gsde", {"clip_mean": 0.25}),
        ("td3", {"net_arch": [], "activation_fn": nn.LeakyReLU}),
    ],
)
def test_settings_that_change_the_law(kind, policy, tmp_path):
    model, path = saved(kind, tmp_path, **policy)
    prior = prior_of(kind, path)
    expected = model.predict(OBSERVATIONS, deterministic=True)[0]
    np.testing.assert_allclose(prior.act(OBSERVATIONS), expected, rtol=1e-5, atol=1e-5)
    (check_squashed if policy.get("squash_output") else CHECKS[kind])(model, prior)


@pytest.mark.parametrize("kind", CLIPPED)
def test_actions_at_a_bound_have_the_probability_of_what_is_clipped_to_it(kind, tmp_path):
    model, path = saved(kind, tmp_path)
    with torch.no_grad():
        law = model.policy.get_distribution(torch.from_numpy(OBSERVATIONS)).distribution
    low, high = (torch.from_numpy(bound) for bound in (model.action_space.low, model.action_space.high))
    middle = (low + high) / 2
    action = torch.stack([high[0].expand(50), middle[1].expand(50)], dim=-1)
    above = torch.special.log_ndtr((law.mean[:, 0] - high[0]) / law.stddev[:, 0])
    expected = above + law.log_prob(action)[:, 1]
    found = prior_of(kind, path).log_prob(OBSERVATIONS, action.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    below = sum(torch.special.log_ndtr((low - law.mean) / law.stddev).unbind(-1))
    found = prior_of(kind, path).log_prob(OBSERVATIONS, low.expand(50, 2).numpy())
    np.testing.assert_allclose(found, below.numpy(), rtol=1e-5, atol=1e-5)


def test_samples_have_the_law_of_stable_baselines3(tmp_path):
    """Of an actor whose mean is beyond the bounds at times: mean and share of clipped actions."""
    torch.manual_seed(0)
    model, path = saved("ppo_box", tmp_path)
    one = OBSERVATIONS[:1].repeat(4000, 0)
    theirs, ours = model.predict(one, deterministic=False)[0], prior_of("ppo_box", path).act(one, deterministic=False)
    low, high = model.action_space.low, model.action_space.high
    assert 0.02 < (theirs == high).mean() < 0.98
    for mark in (low, high):
        np.testing.assert_allclose((theirs == mark).mean(0), (ours == mark).mean(0), atol=0.04)
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.1)


# -- what a file says ------------------------------------------------------------------------------------------------


def test_temperatures(tmp_path):
    automatic, path = saved("sac", tmp_path)
    with torch.no_grad():
        automatic.log_ent_coef.fill_(-1.5)
    automatic.save(path)
    assert prior_of("sac", path).temperature == pytest.approx(math.exp(-1.5))
    fixed = type(automatic)("MlpPolicy", Task(False), ent_coef=0.3, policy_kwargs={"net_arch": [4]}, device="cpu")
    fixed.save(path)
    assert prior_of("sac", path).temperature == pytest.approx(0.3)
    for kind, expected in (("dqn", 0.7), ("ppo", None), ("ppo_box", None), ("td3", None)):
        assert prior_of(kind, saved(kind, tmp_path)[1]).temperature == expected


def test_it_is_said_that_observations_are_taken_as_they_are(tmp_path, caplog):
    """The files of off-policy classes do not tell whether they were normalised; a file of statistics is only named."""
    caplog.set_level("INFO", "rql_lightning.priors")
    sac = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu")
    ppo = PPO("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu")
    for model, name in ((sac, "sac.zip"), (ppo, "ppo.zip")):
        model.save(tmp_path / name)
    StableBaselines3Prior(str(tmp_path / "sac.zip"))
    assert "observations taken as not normalised" in caplog.text and "vec_normalize" not in caplog.text
    (tmp_path / "vec_normalize.pkl").write_bytes(b"")
    caplog.clear()
    StableBaselines3Prior(str(tmp_path / "sac.zip"))
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "vec_normalize.pkl beside it is not applied" in record.getMessage()
    caplog.clear()
    StableBaselines3Prior(str(tmp_path / "ppo.zip"))
    assert "normalised" not in caplog.text
    statistics = ObservationStatistics([0.0] * 3, [1.0] * 3, 10.0, 1e-8)
    caplog.clear()
    StableBaselines3Prior(str(tmp_path / "sac.zip"), vec_normalize=statistics)
    assert "observations normalised" in caplog.text and "not applied" not in caplog.text


def test_the_activation_function_is_said_and_can_be_stated(tmp_path, caplog):
    _, path = saved("ppo", tmp_path)
    assert prior_of("ppo", path).architecture.activation == "Tanh"
    assert "activation Tanh, the default of its class" in caplog.text and path in caplog.text
    _, path = saved("ppo", tmp_path, activation_fn=nn.ReLU)
    assert prior_of("ppo", path, activation="ReLU").architecture.activation == "ReLU"
    with pytest.raises(ConfigurationError, match=r"policy_kwargs.activation_fn: found ReLU, expected .* not Tanh"):
        prior_of("ppo", path, activation="Tanh")
    with pytest.raises(ConfigurationError, match=r"activation: found 'Cube', expected one of ReLU, Tanh"):
        prior_of("ppo", path, activation="Cube")
    model, path = saved("ppo", tmp_path, activation_fn=nn.Hardswish)
    with pytest.raises(
        ConfigurationError, match=r"activation_fn: found .*Hardswish.*, expected activation to be given"
    ):
        prior_of("ppo", path)
    assert model.policy.mlp_extractor.policy_net[1].__class__ is nn.Hardswish
    assert prior_of("ppo", path, activation="Tanh").architecture.activation == "Tanh"


@pytest.mark.parametrize("version", ["1.6.0", "1.8.0", "2.0.0a5", "2.9.2"])
def test_files_of_older_versions(version, tmp_path):
    """With Gym's names of classes, and the layers before 1.8 that policy and value shared."""
    model, path = saved("ppo_box", tmp_path)
    expected, _ = model.predict(OBSERVATIONS, deterministic=True)

    def age(entries: dict[str, bytes]) -> None:
        entries["_stable_baselines3_version"] = version.encode()
        old = {":type:": "<class 'gym.spaces.box.Box'>"}
        if version < "2":
            change_fields(entries, observation_space=lambda s: {**s, **old}, action_space=lambda s: {**s, **old})
        if version < "1.8":
            change_weights(entries, share)

    def share(weights):
        for name in ("weight", "bias"):
            weights[f"mlp_extractor.shared_net.0.{name}"] = weights.pop(f"mlp_extractor.policy_net.0.{name}")
            weights[f"mlp_extractor.policy_net.0.{name}"] = weights.pop(f"mlp_extractor.policy_net.2.{name}")

    aged = rewrite(Path(path), tmp_path / "aged.zip", age)
    np.testing.assert_allclose(StableBaselines3Prior(str(aged)).act(OBSERVATIONS), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "rows"),
    [
        (gym.spaces.Discrete(5), lambda space: [3, 0, 4]),
        (gym.spaces.MultiDiscrete([2, 3]), lambda space: [[1, 2], [0, 1], [1, 0]]),
        (gym.spaces.MultiBinary(4), lambda space: [[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]),
        (gym.spaces.Box(-1.0, 2.0, (4,), np.float64), lambda space: np.linspace(-1, 2, 12).reshape(3, 4)),
        (gym.spaces.Box(0, 9, (2, 2), np.int64), lambda space: np.arange(12).reshape(3, 2, 2) % 10),
    ],
)
def test_observations_are_those_of_the_flattened_environment(space, rows, tmp_path):
    env = Task(True, space)
    model, path = saved("dqn", tmp_path, make("dqn", env))
    prior, given = prior_of("dqn", path), np.array(rows(space))
    flat = env if isinstance(space, gym.spaces.Box) else gym.wrappers.FlattenObservation(env)
    prior.attach(flat.observation_space, flat.action_space)
    ours = given if flat is env else np.array([gym.spaces.flatten(space, row) for row in given])
    with torch.no_grad():
        expected = (model.q_net(torch.from_numpy(given)) / 0.7).log_softmax(dim=-1)
    found = prior.distribution_parameters(torch.from_numpy(ours).float())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("env", "match"),
    [
        (gym.spaces.Discrete(5), r"observation space: found Discrete\(5\).*FlattenObservation"),
        (gym.spaces.Box(-1.0, 1.0, (7,)), r"dqn.zip, observation space: found Box.*\(3, 2\).*environment's.*\(7,\)"),
    ],
)
def test_environments_that_do_not_fit(env, match, tmp_path):
    prior = prior_of("dqn", saved("dqn", tmp_path)[1])
    with pytest.raises(SpaceMismatchError, match=match):
        prior.attach(env, gym.spaces.Discrete(3))
    with pytest.raises(SpaceMismatchError, match=r"action space: found Discrete\(3\).*Discrete\(4\)"):
        prior.attach(prior.observation_space, gym.spaces.Discrete(4))
    continuous = prior_of("sac", saved("sac", tmp_path)[1])
    with pytest.raises(SpaceMismatchError, match=r"action space: found Box\(.*environment's Box\("):
        continuous.attach(continuous.observation_space, gym.spaces.Box(-1.0, 1.0, (2,)))


def test_bounds_of_actions_become_the_environments(tmp_path):
    """A file prints eight digits."""
    env = Task(False)
    env.action_space = gym.spaces.Box(np.float64([-1 / 3, 0.1]), np.float64([1 / 7, 1e4 / 3]), dtype=np.float64)
    prior = prior_of("td3", saved("td3", tmp_path, make("td3", env))[1])
    assert not np.array_equal(prior.action_space.high, env.action_space.high)
    prior.attach(env.observation_space, env.action_space)
    np.testing.assert_array_equal(prior.bounds.high, env.action_space.high.astype(np.float32))


@pytest.mark.parametrize("kind", ["dqn", "qrdqn", "td3", "ddpg"])
@pytest.mark.parametrize("value", [None, 0.0, -1.0, math.inf, math.nan])
def test_what_is_needed_and_missing_is_asked_for(kind, value, tmp_path):
    _, path = saved(kind, tmp_path)
    name = next(iter(OPTIONS[kind]))
    with pytest.raises(ConfigurationError, match=rf"{kind}.zip, {name}: found {value}, expected a number > 0: its"):
        StableBaselines3Prior(path, **{name: value})


@pytest.mark.parametrize(("kind", "name"), [("ppo", "temperature"), ("sac", "temperature"), ("dqn", "scale")])
def test_what_would_have_no_effect_is_refused(kind, name, tmp_path):
    _, path = saved(kind, tmp_path)
    with pytest.raises(ConfigurationError, match=f"{name}: found 0.5, expected null: the policy has a distribution"):
        prior_of(kind, path, **{name: 0.5})


# -- normalised observations -----------------------------------------------------------------------------------------


@pytest.fixture
def normalized(tmp_path) -> tuple[BaseAlgorithm, VecNormalize, Path]:
    """A model that was trained for a few steps on normalised observations, in a folder as on the model hub."""
    env = gym.spaces.Box(-np.inf, np.inf, (3,))
    vector = VecNormalize(DummyVecEnv([lambda: Task(False, env)]), clip_obs=2.5, epsilon=1e-4)
    vector.seed(3)
    model = PPO("MlpPolicy", vector, n_steps=64, n_epochs=1, policy_kwargs={"net_arch": [8]}, device="cpu")
    model.learn(64)
    vector.obs_rms.mean += 1e3  # where float32 would not do
    folder = tmp_path / "ppo-Task-v0"
    folder.mkdir()
    model.save(folder / "ppo-Task-v0.zip")
    vector.save(folder / "vec_normalize.pkl")
    pairs = "- - - algo\n    - ppo\n  - - env\n    - Task-v0\n"
    (folder / "args.yml").write_text(f"!!python/object/apply:collections.OrderedDict\n{pairs}")
    (folder / "replay.zip").write_bytes(b"no zip")
    return model, vector, folder


RAW = (np.random.default_rng(1).normal(size=(30, 3)) * 2 + 1e3).astype(np.float32)


def test_a_folder_of_the_hub(normalized):
    model, vector, folder = normalized
    prior = StableBaselines3Prior(str(folder))
    expected = model.predict(vector.normalize_obs(RAW), deterministic=True)[0]
    assert np.abs(vector.normalize_obs(RAW)).max() == 2.5
    np.testing.assert_allclose(prior.act(RAW), expected, rtol=1e-5, atol=1e-5)
    assert prior.task == "Task-v0"


def test_statistics_by_path_and_as_numbers(normalized):
    _, vector, folder = normalized
    path, file = folder / "ppo-Task-v0.zip", folder / "vec_normalize.pkl"
    mean, variance = vector.obs_rms.mean.tolist(), vector.obs_rms.var.tolist()
    numbers = ObservationStatistics(mean, variance, clip=2.5, epsilon=1e-4)
    reference = StableBaselines3Prior(str(folder)).act(RAW)
    for given in (str(file), numbers):
        np.testing.assert_array_equal(StableBaselines3Prior(str(path), vec_normalize=given).act(RAW), reference)
    with pytest.raises(
        CheckpointError, match=r"field _last_original_obs: found .*VecNormalize, expected vec_normalize"
    ):
        StableBaselines3Prior(str(path))
    with pytest.raises(ConfigurationError, match=r"vec_normalize, mean: found \[0.0\], expected 3 finite numbers"):
        StableBaselines3Prior(str(path), vec_normalize=ObservationStatistics([0.0], [1.0]))
    with pytest.raises(ConfigurationError, match="vec_normalize, variance"):
        StableBaselines3Prior(str(path), vec_normalize=ObservationStatistics([0.0] * 3, [-1.0] * 3))
    with pytest.raises(ConfigurationError, match="vec_normalize, clip"):
        StableBaselines3Prior(str(path), vec_normalize=ObservationStatistics([0.0] * 3, [1.0] * 3, clip=0.0))


def test_statistics_of_rewards_alone_leave_observations_as_they_are(normalized):
    model, vector, folder = normalized
    vector.norm_obs = False
    vector.save(folder / "vec_normalize.pkl")
    prior = StableBaselines3Prior(str(folder))
    assert prior.normalization is None
    np.testing.assert_allclose(prior.act(RAW), model.predict(RAW, deterministic=True)[0], rtol=1e-5, atol=1e-5)


# -- as a policy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dqn", "ppo_gsde", "sac", "td3"])
def test_rebuilt_from_its_description_and_weights(kind, tmp_path):
    prior = prior_of(kind, saved(kind, tmp_path)[1])
    other = StableBaselines3Prior.from_description(copy.deepcopy(prior.describe()))
    other.load_state_dict(prior.state_dict())
    observation = torch.from_numpy(OBSERVATIONS)
    torch.testing.assert_close(
        other.distribution_parameters(observation), prior.distribution_parameters(observation), rtol=0, atol=0
    )
    assert other.describe() == prior.describe() and other.temperature == prior.temperature


def test_neither_stable_baselines3_nor_pickle_is_used(normalized, monkeypatch):
    _, _, folder = normalized
    for name in [name for name in sys.modules if name.partition(".")[0] in ("stable_baselines3", "cloudpickle")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("load", "loads", "Unpickler", "_Unpickler", "_loads"):
        monkeypatch.delattr(pickle, name)
    assert StableBaselines3Prior(str(folder)).act(RAW).shape == (30, 2)
    package = Path(sys.modules[StableBaselines3Prior.__module__].__file__).parent
    imports = re.findall(r"^\s*(?:from|import) (\S+)", "".join(file.read_text() for file in package.glob("*.py")), re.M)
    foreign = {name.partition(".")[0] for name in imports} & {
        "stable_baselines3",
        "cloudpickle",
        "pickle",
        "sb3_contrib",
    }
    assert len(imports) > 20 and not foreign
