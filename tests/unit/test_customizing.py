"""What ``customize`` chooses: the prior by content, ω′ by the add-on return, settings by rules; and its name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import yaml
from stable_baselines3 import DQN, PPO

from rql_lightning.customizing import customize
from rql_lightning.customizing.arguments import environment_arguments
from rql_lightning.customizing.defaults import (
    Choice,
    algorithm_of,
    data_settings,
    default_num_envs,
    default_of,
    model_settings,
)
from rql_lightning.customizing.given import read_prior
from rql_lightning.customizing.paths import import_path
from rql_lightning.customizing.result import READ
from rql_lightning.customizing.task import read_task
from rql_lightning.customizing.weight import Returns
from rql_lightning.errors import CheckpointError, ConfigurationError, EnvironmentContractError
from rql_lightning.export import export_policy
from rql_lightning.loading import CheckpointPrior
from rql_lightning.priors import FunctionPrior, SamplerPrior, StableBaselines3Prior

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "rql_lightning/pretrained/cartpole-rl.ckpt"


def uniform(observation, action):
    return torch.full(action.shape, 0.5).log()


def wish(observation, action, next_observation, info):
    return -abs(float(next_observation[0]))


# -- the prior ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    PPO("MlpPolicy", "CartPole-v1", gamma=0.97, device="cpu").save(folder / "ppo.zip")
    DQN("MlpPolicy", "CartPole-v1", device="cpu").save(folder / "dqn.zip")
    return folder


def test_files_are_recognised_by_their_content(models, tmp_path):
    shutil.copyfile(models / "ppo.zip", tmp_path / "model.ckpt")
    shutil.copyfile(SHIPPED, tmp_path / "policy.zip")
    assert isinstance(read_prior(tmp_path / "model.ckpt").prior, StableBaselines3Prior)
    assert isinstance(read_prior(str(tmp_path / "policy.zip")).prior, CheckpointPrior)
    assert isinstance(read_prior("pretrained:cartpole-rl").prior, CheckpointPrior)


def test_folders_of_the_hub_and_of_runs(models, tmp_path):
    hub, run = tmp_path / "hub", tmp_path / "version_0"
    hub.mkdir()
    (run / "checkpoints").mkdir(parents=True)
    shutil.copyfile(models / "ppo.zip", hub / "ppo.zip")
    shutil.copyfile(SHIPPED, run / "checkpoints/last.ckpt")
    assert isinstance(read_prior(hub).prior, StableBaselines3Prior)
    known = read_prior(run)
    assert isinstance(known.prior, CheckpointPrior) and known.entry["init_args"]["path"].endswith("last.ckpt")


def test_the_discount_factor_is_that_of_the_file(models):
    assert read_prior(models / "ppo.zip").gamma == 0.97
    assert read_prior("pretrained:cartpole-rl").gamma is None


def test_an_entry_of_a_config_makes_the_same_prior(models):
    known = read_prior(models / "dqn.zip", temperature=0.5)
    again = read_prior(known.entry)
    observation = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    assert again.prior.temperature == 0.5
    np.testing.assert_array_equal(
        known.prior.log_prob(observation, np.ones(9, int)), again.prior.log_prob(observation, np.ones(9, int))
    )


def test_functions_and_priors():
    known = read_prior(uniform)
    assert isinstance(known.prior, FunctionPrior) and known.entry["init_args"] == {"log_prob": f"{__name__}.uniform"}
    local = read_prior(lambda observation, action: uniform(observation, action))
    assert isinstance(local.prior, FunctionPrior) and local.entry is local.prior  # no config can name it
    given = CheckpointPrior("pretrained:cartpole-rl")
    assert read_prior(given).prior is given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.zip", r"^prior: found 'nothing.zip', expected the zip of a model.*no such file"),
        (__file__, r"^prior: found '.*test_customizing.py', which is no zip .*expected the zip of a model"),
        (3, r"^prior: found an object of type int, expected the zip"),
        (torch.nn.Linear(2, 2), r"^prior: found an object of type Linear, expected ModulePrior"),
        (lambda observation: 0, r"^prior: found the function .*\(observation\), expected .*SamplerPrior"),
        ({"class_path": "rql_lightning.priors.Nothing"}, r"^prior: found \{'class_path'.*expected the class path"),
    ],
)
def test_what_is_no_prior_is_refused(given, message):
    with pytest.raises(ConfigurationError, match=message) as error:
        read_prior(given)
    assert "\n" not in str(error.value)


def test_a_zip_of_something_else_is_refused(tmp_path):
    shutil.make_archive(str(tmp_path / "other"), "zip", ROOT / "docs/tutorials")
    with pytest.raises(CheckpointError, match=r"other.zip: found no entry"):
        read_prior(tmp_path / "other.zip")


@pytest.mark.parametrize("name", ["temperature", "scale"])
def test_options_without_effect_are_refused(name):
    with pytest.raises(ConfigurationError, match=f"^{name}: found 1.0, expected null"):
        read_prior("pretrained:cartpole-rl", **{name: 1.0})


# -- the task ----------------------------------------------------------------------------------------------------------


def test_only_functions_of_modules_have_import_paths():
    assert import_path(wish) == f"{__name__}.wish"
    assert import_path(lambda *_: 0.0) is None and import_path(Returns.advice) is None and import_path(3) is None


def test_wishes_without_an_import_path_are_registered(request):
    ids = set(gym.registry)
    task = read_task("CartPole-v1", lambda *step: wish(*step), {"max_episode_steps": 7})
    other = read_task("CartPole-v1", lambda *step: -wish(*step))
    request.addfinalizer(lambda: [gym.registry.pop(name) for name in set(gym.registry) - ids])
    assert task.env != other.env and task.add_on_reward is None and "<lambda>" in str(task.unnamed)
    assert task.base == "CartPole-v1" and task.title.startswith("CartPole-v1 with ") and "<lambda>" in task.title
    assert (task.max_episode_steps, other.max_episode_steps) == (7, 500)
    env = task.make_env(2)
    env.reset(seed=0)
    observation, reward, *_ = env.step(np.zeros(2, dtype=np.int64))
    np.testing.assert_allclose(reward, -np.abs(observation[:, 0]))


def test_wishes_with_an_import_path_are_named():
    task = read_task("CartPole-v1", wish)
    assert (task.env, task.add_on_reward, task.unnamed) == ("CartPole-v1", f"{__name__}.wish", ())
    own = read_task("rql_lightning/CartPole-v0", None)
    assert (own.add_on_reward, own.metric) == (None, "mean_abs_position")


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda *step: {"basic_reward": 1.0}, EnvironmentContractError, r"^add_on_reward .*\{'basic_reward'.*a number"),
        (
            lambda *step: step[3]["basic_reward"],
            EnvironmentContractError,
            r"KeyError: 'basic_reward', at .* \(.*must not",
        ),
        (lambda *step: float("nan"), EnvironmentContractError, "found nan .*a finite number"),
        (
            lambda *step: 1 / 0,
            EnvironmentContractError,
            r"found ZeroDivisionError: division by zero, at test_customizing\.py:\d+ in environment 0",
        ),
        (lambda observation: 1.0, EnvironmentContractError, r"found a function of \(observation\)"),
        (None, ConfigurationError, "^add_on_reward: found None, expected a function"),
        (3, ConfigurationError, "^add_on_reward: found 3, expected a function"),
        ("no.such", ConfigurationError, "^add_on_reward: found 'no.such', expected the import path"),
    ],
)
def test_wishes_that_fail_are_refused(function, error, message):
    with pytest.raises(error, match=message):
        read_task("CartPole-v1", function)


def test_a_second_wish_is_refused():
    with pytest.raises(ConfigurationError, match="CartPole-v0 has its own add-on reward"):
        read_task("rql_lightning/CartPole-v0", lambda *step: 1.0)


# -- the arguments ----------------------------------------------------------------------------------------------------


class Pulled(gym.Env):
    """Moves by what its arguments say."""

    observation_space, action_space = gym.spaces.Box(-99, 99, (1,)), gym.spaces.Discrete(2)

    def __init__(self, by=0.0, function=None, render_mode=None):
        self.by = float(np.sum(by)) + (0.0 if function is None else function())

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, self.by, np.float32), 0.0, False, False, {}


@pytest.fixture
def pulled():
    gym.register("Pulled-v0", entry_point=Pulled, max_episode_steps=5)
    yield "Pulled-v0"
    del gym.registry["Pulled-v0"]


@pytest.mark.parametrize(
    ("by", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.array([[1, 2]]), [[1, 2]]),
        ((1.5, (np.float64(2.0),)), [1.5, [2.0]]),
        (np.bool_(True), True),
        ({"a": np.array(1.0)}, {"a": 1.0}),
    ],
)
def test_numbers_and_arrays_of_numpy_become_plain_data(by, plain, pulled):
    kwargs = environment_arguments({"by": by})
    assert repr(kwargs) == repr({"by": plain})
    if not isinstance(by, tuple | dict):
        task = read_task(pulled, wish, {"by": by})
        assert task.env_kwargs == kwargs and task.unnamed == ()


def test_objects_are_passed_on_and_named(pulled):
    task = read_task(pulled, wish, {"by": 1, "function": (give := lambda: 2.0)})
    assert task.unnamed == ("data.env_kwargs.function",) and task.env_kwargs["function"] is give
    with closing(task.make_env(1)) as env:
        env.reset(seed=0)
        assert env.step(np.zeros(1, int))[0].item() == 3.0


@pytest.mark.parametrize("text", ["3", "on", "1e3", "null", "[1, 2]", "a: b"])
@pytest.mark.parametrize("of", [lambda text: text, lambda text: [text], lambda text: {"each": text}])
def test_texts_that_a_config_reads_as_something_else_are_refused(text, of):
    with pytest.raises(ConfigurationError, match=r"^env_kwargs.name: found .*expected a value that a config gives"):
        environment_arguments({"name": of(text)})
    assert environment_arguments({"name": of("a word")}) == {"name": of("a word")}


def test_no_limit_of_steps():
    assert read_task("CartPole-v1", wish, {"max_episode_steps": -1}).max_episode_steps is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha_hat": "auto"}, "alpha_hat: found 'auto', expected a number > 0"),
        ({"alpha_hat": 0}, "alpha_hat: found 0, expected a number > 0"),
        ({"omega_prime": "much"}, "omega_prime: found 'much', expected a number >= 0 or 'auto'"),
        ({"omega_prime": float("nan")}, "omega_prime: found nan, expected a number >= 0"),
        ({"omega_prime": np.ones(2)}, "omega_prime: found array"),
        ({"gamma": "x"}, "gamma: found 'x', expected a number in"),
        ({"gamma": 1.5}, "gamma: found 1.5, expected a number in"),
        ({"temperature": "x"}, "temperature: found 'x', expected a number > 0"),
        ({"scale": -1}, "scale: found -1, expected a number > 0"),
        ({"total_frames": 1.5}, "total_frames: found 1.5, expected an integer >= 1"),
        ({"num_envs": True}, "num_envs: found True, expected an integer >= 1"),
        ({"episodes": None}, "episodes: found None, expected an integer >= 1"),
        ({"seed": "x"}, "seed: found 'x', expected an integer in"),
        ({"seed": -1}, "seed: found -1, expected an integer in"),
        ({"seed": 2**32}, "seed: found 4294967296, expected an integer in"),
        ({"folder": None}, "folder: found None, expected a path"),
        ({"video": "x"}, "video: found 'x', expected True or False"),
        ({"progress": 1}, "progress: found 1, expected True or False"),
        ({"env_kwargs": [1]}, r"env_kwargs: found \[1\], expected a dictionary"),
        ({"env_kwargs": {1: 2}}, "env_kwargs: found {1: 2}, expected a dictionary"),
        ({"env_kwargs": {"render_mode": "human"}}, "env_kwargs.render_mode: found 'human', expected no render mode"),
        ({"prior": {}}, "prior: found {}, expected the class path"),
        ({"prior": {"class_path": "rql_lightning.priors.Prior"}}, "prior: found .*, expected the class path"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_played(arguments, message, monkeypatch):
    monkeypatch.setattr("rql_lightning.customizing.call.measure", lambda *_: pytest.fail("episodes were played"))
    given = {"prior": "pretrained:cartpole-rl", "env": "CartPole-v1", "add_on_reward": wish, **arguments}
    with pytest.raises(ConfigurationError, match=f"^{message}"):
        customize(**given)


def test_every_file_that_save_writes_is_a_prior(tmp_path):
    pytest.importorskip("safetensors")
    for suffix in READ:
        path = export_policy("pretrained:cartpole-rl", tmp_path / f"policy{suffix}")
        assert isinstance(read_prior(path).prior, CheckpointPrior)


def test_a_prior_whose_arguments_are_objects_is_left_out_of_the_config():
    entry = {"class_path": "rql_lightning.priors.CheckpointPrior", "init_args": {"path": "pretrained:cartpole-rl"}}
    assert read_prior(entry).entry == entry
    options = {"log_prob": lambda observation, action: uniform(observation, action)}
    known = read_prior({"class_path": "rql_lightning.priors.FunctionPrior", "init_args": options})
    assert known.entry is known.prior


# -- the settings: rules that give what the shipped configs have, which were tuned ----------------------------------

TUNED = {
    "cartpole/residual_soft_q": ("rql_lightning/CartPole-v0", 500),
    "mountain_car/residual_sac": ("rql_lightning/MountainCarContinuous-v0", 999),
    "highway/residual_soft_q": ("rql_lightning/Highway-v0", 40),
    "parking/residual_sac": ("rql_lightning/Parking-v0", 100),
}


@pytest.mark.parametrize("name", TUNED)
def test_rules_agree_with_the_tuned_configs(name):
    tuned = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())
    env, limit = TUNED[name]
    model, data = tuned["model"]["init_args"], tuned["data"]
    prior = CheckpointPrior(model["prior"]["init_args"]["path"])
    assert default_of(env, "gamma") == model["gamma"]
    frames = data["total_frames"]
    assert default_num_envs(frames, limit) == data["num_envs"]
    choice = Choice(algorithm_of(prior, prior.action_space), frames, data["num_envs"], model["gamma"], 1.0, 1.0)
    assert tuned["model"]["class_path"].endswith(f".{choice.algorithm}")
    chosen = model_settings(choice, prior, prior.observation_space)
    for key in ("start_at_prior", "prior_frames", "critic_warm_up_updates", "tau", "goal_scales", "epsilon_initial"):
        assert chosen.get(key) == model.get(key), key
    if "start_at_prior" in model:
        assert chosen["hidden_sizes"] == model["hidden_sizes"]
    per_update = data["frames_per_batch"] / data["updates_per_batch"]
    mine = data_settings(choice, prior)
    assert mine["warm_up_frames"] == data.get("warm_up_frames", 1024)
    if name != "parking/residual_sac":  # tuned for speed, with half as many updates
        assert mine["frames_per_batch"] / mine["updates_per_batch"] == per_update


@pytest.mark.parametrize("frames", [100, 1_000, 100_000, 3_000_000])
@pytest.mark.parametrize("limit", [None, 1, 40, 1000, 100_000])
def test_settings_fit_any_budget(frames, limit):
    """None of the rules of the data module is broken, and every environment runs three episodes where it can."""
    envs = default_num_envs(frames, limit)
    assert 1 <= envs <= 64 and (limit is None or envs == 1 or envs * 3 * limit <= frames)
    for prior in ("cartpole-rl", "mountain-car-rl"):
        loaded = CheckpointPrior(f"pretrained:{prior}")
        choice = Choice(algorithm_of(loaded, loaded.action_space), frames, envs, 0.99, 1.0, 1.0)
        data = data_settings(choice, loaded)
        assert data["frames_per_batch"] % envs == 0 and 0 < data["frames_per_batch"] <= frames
        assert data["warm_up_frames"] < frames and data["batch_size"] <= data["replay_size"]


def test_the_algorithm_suits_actions_and_prior():
    box, discrete = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3)
    with_density, without = FunctionPrior(uniform), SamplerPrior(lambda observation: observation)
    assert algorithm_of(with_density, discrete) == "ResidualSoftQLearning"
    assert algorithm_of(with_density, box) == "ResidualSAC"
    assert algorithm_of(without, discrete) == algorithm_of(without, box) == "SampledResidualQLearning"


# -- the name ----------------------------------------------------------------------------------------------------------

IMPORTS = [
    "import rql_lightning; f = rql_lightning.customize",
    "import rql_lightning.customize; f = rql_lightning.customize",
    "from rql_lightning import customize as f; import rql_lightning.customize; import rql_lightning.customize",
    "import importlib; f = importlib.import_module('rql_lightning.customize')",
    "import rql_lightning.customize as f",
]


def test_the_name_is_the_function_in_whatever_order_things_are_imported():
    """In a process of its own, which forgets the package after each order."""
    code = """
import inspect, sys
for line in sys.argv[1:]:
    names = {}
    exec(line, names)
    import rql_lightning
    from rql_lightning.customizing import customize
    assert names["f"] is customize and rql_lightning.customize is customize and inspect.isfunction(customize), line
    for name in [name for name in sys.modules if name.split(".")[0] == "rql_lightning"]:
        del sys.modules[name]
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, *IMPORTS], check=True, cwd=ROOT)


def test_the_module_runs():
    done = subprocess.run(
        [sys.executable, "-m", "rql_lightning.customize", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "--omega_prime" in done.stdout and done.stderr == ""
