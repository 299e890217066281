"""``customize`` in Python and on the command line, on budgets of seconds."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import odd_tasks  # noqa: F401 (registers environments)
import pytest
import torch
import yaml
from stable_baselines3 import DQN, PPO, SAC, TD3

import rql_lightning
from rql_lightning.customizing.command import main
from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.loading import load_policy
from rql_lightning.priors import FunctionPrior, SamplerPrior
from rql_lightning.train import main as train
from rql_lightning.train import run

MODELS = {"dqn": (DQN, "CartPole-v1"), "ppo": (PPO, "CartPole-v1")}
MODELS |= {"sac": (SAC, "Pendulum-v1"), "td3": (TD3, "Pendulum-v1"), "normal": (PPO, "Pendulum-v1")}
WISH = "functions_of_a_user.wish"
SMALL = {"total_frames": 1024, "episodes": 4, "progress": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Untrained models of Stable-Baselines3 by kind."""
    folder = tmp_path_factory.mktemp("models")
    for kind, (algorithm, env) in MODELS.items():
        torch.manual_seed(0)
        algorithm("MlpPolicy", env, policy_kwargs={"net_arch": [16]}, device="cpu").save(folder / f"{kind}.zip")
    return {kind: str(folder / f"{kind}.zip") for kind in MODELS}


@pytest.fixture
def own_ids():
    """Ids that a call registers are forgotten after it."""
    before = set(gym.registry)
    yield
    for name in set(gym.registry) - before:
        del gym.registry[name]


@pytest.fixture
def command(tmp_path, functions, monkeypatch, capsys):
    """``(**options) →`` run the command in a folder of its own; returns the run's folder, and keeps ``warnings``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["customize", "--something", "else"])

    def command(**options: Any) -> Path:
        words = [
            f"--{name}={json.dumps(value) if isinstance(value, bool) else value}" for name, value in options.items()
        ]
        main(words)
        said = capsys.readouterr()
        command.warnings = [line for line in said.err.splitlines() if line.startswith("warning: ")]
        (config,) = [line for line in said.out.splitlines() if line.startswith("config: ")]
        return tmp_path / config.removeprefix("config: ").removesuffix("/config.yaml")

    return command


@pytest.fixture
def refused(command, capsys):
    """``(**options) →`` what stands on the screen of a command that exits with code 2."""

    def refused(**options: Any) -> str:
        with pytest.raises(SystemExit) as stop:
            command(**{**SMALL, "add_on_reward": WISH, **options})
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return error.strip().splitlines()[-1]

    return refused


def metrics_of(folder: Path) -> dict[str, Any]:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in metrics.items() if key != "train_seconds"}


@pytest.mark.parametrize(
    ("kind", "options", "algorithm"),
    [
        pytest.param("ppo", {"omega_prime": "auto", "video": False}, "ResidualSoftQLearning", marks=pytest.mark.slow),
        ("sac", {"video": False}, "ResidualSAC"),
    ],
)
def test_the_written_config_does_what_the_command_did(kind, options, algorithm, models, command, tmp_path):
    env = MODELS[kind][1]
    kwargs = json.dumps({"max_episode_steps": 100})
    folder = command(prior=models[kind], env=env, add_on_reward=WISH, seed=3, env_kwargs=kwargs, **options, **SMALL)
    text = (folder / "config.yaml").read_text()
    assert f"class_path: rql_lightning.algorithms.{algorithm}" in text and text.startswith("# Chosen by")
    report = (folder / "report.html").read_text()
    assert "python -m rql_lightning.customize --prior=" in report
    train(["fit", "--config", str(folder / "config.yaml")])
    again = folder.with_name("version_1")
    assert metrics_of(again) == metrics_of(folder) and metrics_of(folder)["frames"] == 1024
    prior = json.loads((folder / "prior_metrics.json").read_text())
    assert metrics_of(folder)["episode_length_mean"] <= 100
    assert prior["add_on_return_mean"] != metrics_of(folder)["add_on_return_mean"]


def test_a_wish_without_a_name_in_python(models, tmp_path, own_ids):
    """Continuous actions, with a video: the result is complete, and the config says what it lacks."""
    result = rql_lightning.customize(
        models["sac"], "Pendulum-v1", lambda o, a, n, i: -abs(float(a[0])), folder=tmp_path / "runs", **SMALL
    )
    config = (result.folder / "config.yaml").read_text()
    assert "does not run by itself" in config.splitlines()[0] and "<lambda>" in config.splitlines()[1]
    assert list(result.folder.glob("videos/*.gif")) and not result.failures
    assert set(result.metrics) == {"prior", "policy"} and result.prior.temperature == result.policy.temperature
    assert [column.header for column in result.table().columns] == ["", "prior", "policy"]
    observation = np.zeros((5, 3), np.float32)
    saved = load_policy(result.save(tmp_path / "customised.ckpt"))
    np.testing.assert_array_equal(saved.act(observation), result.policy.act(observation))
    with pytest.raises(OutputError, match=r"customised\.ckpt: found "):
        result.save(tmp_path / "customised.ckpt")
    with pytest.raises(
        ConfigurationError, match=r"found '.*\.zip', expected a file that ends in .ckpt or .safetensors"
    ):
        result.save(tmp_path / "customised.zip")
    exported = SAC.load(result.export(tmp_path / "customised.zip"), device="cpu")
    np.testing.assert_allclose(exported.predict(observation, deterministic=True)[0], saved.act(observation), atol=1e-5)
    card = (tmp_path / "customised.zip.md").read_text(encoding="utf-8")
    assert "`Pendulum-v1`" in card and "a function without an import path" in card and "customized-" not in card
    _check_report(result, tmp_path)


def _check_report(result, tmp_path):
    """A copy is written where nothing is, or with ``force``, and never over a file of the run."""
    copy = tmp_path / "new/report.html"
    assert "</html>" in result.report(copy).read_text()
    copy.write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html: found a file, .*force=True"):
        result.report(copy)
    assert copy.read_text() == "mine" and result.report(copy, force=True).read_text() != "mine"
    with pytest.raises(ConfigurationError, match=r"found '.*config\.yaml', expected a file that ends in \.html"):
        result.report(result.folder / "config.yaml", force=True)
    with pytest.raises(OutputError, match=r"found the run's own report\.html"):
        result.report(result.folder / "report.html", force=True)
    for write, path in ((result.report, 3), (result.save, None), (result.export, 1.5)):
        with pytest.raises(ConfigurationError, match=f"^path: found {path}, expected a path"):
            write(path)
    (last,) = result.folder.glob("checkpoints/last.ckpt")
    before = last.read_bytes()
    with pytest.raises(OutputError, match=r"found the run's own last\.ckpt"):
        result.save(last, force=True)
    assert last.read_bytes() == before
    assert result.title.startswith("Pendulum-v1 with ") and "<lambda>" in result.title
    assert result.policy.task == "Pendulum-v1"


def test_what_no_config_can_hold_is_refused_when_the_config_is_read(tmp_path, own_ids, functions, capsys):
    """Arguments of NumPy work as those of Python; of an environment that takes a function, the config has none."""
    gym.register("own/Taking-v0", entry_point=lambda function, **kwargs: gym.make("CartPole-v1", **kwargs))
    numbers = {"seed": np.int64(3), "total_frames": np.int32(256), "episodes": np.int64(2), "gamma": np.float32(0.5)}
    numbers |= {"alpha_hat": np.float32(0.5), "omega_prime": np.float64(0.5), "num_envs": np.int64(2)}
    kwargs = {"function": lambda: 1.0, "max_episode_steps": np.int64(20)}
    result = rql_lightning.customize(
        "pretrained:cartpole-rl",
        "own/Taking-v0",
        WISH,
        env_kwargs=kwargs,
        folder=tmp_path / "runs",
        video=np.bool_(False),
        progress=False,
        **numbers,
    )
    assert result.metrics["policy"]["episode_length_mean"] <= 20 and "Unable" not in capsys.readouterr().err
    config = result.folder / "config.yaml"
    assert "# data.env_kwargs.function" in config.read_text().splitlines()
    with pytest.raises(SystemExit) as stop:
        train(["fit", "--config", str(config)])
    assert stop.value.code == 2 and "objects of Python as function" in capsys.readouterr().err
    assert [path.name for path in result.folder.parent.iterdir()] == [result.folder.name]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ({}, "subcommand"),
        ({"subcommand": "fit", "fit": {"seed_everything": "x"}}, "seed_everything"),
        ({"subcommand": "fit", "fit": {"nope": 1}}, "nope"),
        ({"subcommand": "fit", "fit": {"data": {"init_args": {"total_frames": "x"}}}}, "total_frames"),
        ({"subcommand": "fit"}, "fit.model"),
    ],
)
def test_a_config_of_python_never_ends_the_process(args, word):
    with pytest.raises(ConfigurationError, match=f"^args: .*{word}"):
        run(args)


def test_a_prior_that_is_an_object(tmp_path, own_ids, functions):
    """A prior that can only be sampled; the config says that it is missing, and is refused in a line."""
    shipped = load_policy("pretrained:cartpole-rl")
    prior = SamplerPrior(lambda observation: shipped.act(observation, deterministic=False), samples=8)
    settings = {**SMALL, "env_kwargs": {"max_episode_steps": 50}, "video": False, "omega_prime": 0.5}
    result = rql_lightning.customize(prior, "CartPole-v1", WISH, folder=tmp_path / "runs", **settings)
    assert result.policy.alpha_hat == 0.5 and result.metrics["policy"]["episode_length_mean"] == 50
    config = (result.folder / "config.yaml").read_text()
    assert "SampledResidualQLearning" in config and "its class_path and init_args belong here" in config
    with pytest.raises(SystemExit) as stop:
        train(["fit", "--config", str(result.folder / "config.yaml")])
    assert stop.value.code == 2
    saved = load_policy(result.save(tmp_path / "customised.ckpt"), prior=prior)
    assert saved.prior is prior


def test_it_is_repeated_if_the_policy_leaves_its_prior(tmp_path, own_ids, monkeypatch, capsys):
    """With objects that no config can name."""
    monkeypatch.setattr("rql_lightning.customizing.attempts.TOLERANCE", 1e-9)
    monkeypatch.setattr("rql_lightning.customizing.attempts.ATTEMPTS", 2)
    monkeypatch.setattr("rql_lightning.customizing.fitted.UPDATES", 50)  # any number will do
    prior = FunctionPrior(lambda observation, action: torch.full((len(observation),), -math.log(2.0)))
    settings = {**SMALL, "env_kwargs": {"max_episode_steps": 50}, "video": False, "omega_prime": "auto"}
    result = rql_lightning.customize(
        prior, "CartPole-v1", lambda *step: -abs(float(step[2][0])), folder=tmp_path, **settings
    )
    configs = [
        yaml.safe_load((result.folder.with_name(f"version_{each}") / "config.yaml").read_text()) for each in (0, 1)
    ]
    first, second = (each["model"]["init_args"] for each in configs)
    assert second["omega_prime"] == second["alpha_hat"] == 2 * first["omega_prime"] == 2 * first["alpha_hat"]
    assert result.folder.name == "version_1" and result.policy.omega_prime == second["omega_prime"]
    said = capsys.readouterr().out
    assert "\nCartPole-v1: after training" in said and "customized-" not in said  # the id of the call
    assert (
        f"once more, with omega_prime and alpha_hat {second['omega_prime']:.3g}" in said
        and "give an omega_prime larger" in said
    )


def test_continuous_actions_from_samples(tmp_path, own_ids):
    """From an own task, whose add-on reward and discount factor are its own."""
    prior = SamplerPrior(lambda observation: torch.rand(len(observation), 1) * 2 - 1, samples=4)
    env = "rql_lightning/MountainCarContinuous-v0"
    settings = {**SMALL, "env_kwargs": {"max_episode_steps": 30}, "video": False, "omega_prime": "auto"}
    result = rql_lightning.customize(prior, env, folder=tmp_path / "runs", **settings)
    assert "negative_actions_mean" in result.metrics["policy"]
    assert "gamma: 0.998" in (result.folder / "config.yaml").read_text()


@pytest.mark.slow
def test_a_class_of_prior_on_the_command_line(command):
    options = {"prior": "rql_lightning.priors.FunctionPrior", "prior.log_prob": "functions_of_a_user.prior"}
    folder = command(**options, env="CartPole-v1", add_on_reward=WISH, omega_prime=1.0, video=False, **SMALL)
    train(["fit", "--config", str(folder / "config.yaml")])
    assert metrics_of(folder.with_name("version_1")) == metrics_of(folder)


def test_an_environment_that_does_not_render(command, models, caplog):
    caplog.set_level("INFO", "rql_lightning.priors")
    folder = command(prior=models["ppo"], env="odd/Unrenderable-v0", add_on_reward=WISH, omega_prime=1.0, **SMALL)
    (warning,) = command.warnings
    assert warning.startswith("warning: no video: odd/Unrenderable-v0") and "video.episodes" not in warning
    said = [record.getMessage() for record in caplog.records if "ppo.zip: PPO" in record.getMessage()]
    assert len(said) == 1  # though the file is read twice
    assert (folder / "report.html").is_file() and not (folder / "videos").exists()


def test_threads_are_left_as_they_were(tmp_path, functions):
    """A run sets them, and fails here after it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    during = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rql_lightning.train.reserve", lambda *_: during.append(torch.get_num_threads()) or 1 / 0)
            with pytest.raises(ZeroDivisionError):
                rql_lightning.customize(
                    "pretrained:cartpole-rl", "CartPole-v1", WISH, folder=tmp_path, video=False, **SMALL
                )
        assert during == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior": "nothing.zip"}, ["prior: found 'nothing.zip'", "pretrained:<name>", "no such file"]),
        ({"prior": "{dqn}"}, ["temperature: found None", "its best two actions differ by", "a third of that"]),
        ({"prior": "{td3}", "env": "Pendulum-v1"}, ["scale: found None, expected a number > 0"]),
        ({"prior": "{ppo}"}, ["omega_prime: found None", "or 'auto'", "ppo.zip states no temperature", "much"]),
        ({"prior": "{sac}"}, ["sac.zip", "observation space: found Box", "expected the environment's Box"]),
        ({"prior": "{ppo}", "add_on_reward": "functions_of_a_user.a_word"}, ["a_word): found 'much'", "a number"]),
        ({"prior": "{ppo}", "add_on_reward": "functions_of_a_user.not_a_number"}, ["found nan", "finite number"]),
        ({"prior": "{ppo}", "add_on_reward": "functions_of_a_user.nothing"}, ["nothing): found None", "a return"]),
        ({"prior": "{ppo}", "env": "odd/Endless-v0"}, ["odd/Endless-v0, seed 2", "not ended", "max_episode_steps"]),
        ({"prior": "{ppo}", "activation": "Nope"}, ["ppo.zip, activation: found 'Nope'"]),
        ({"prior": "{ppo}", "vec_normalize": "no.pkl"}, ["no.pkl"]),
        ({"prior": "pretrained:cartpole-rl", "vec_normalize": "no.pkl"}, ["vec_normalize: found 'no.pkl'", "null"]),
        ({"prior": "{ppo}", "total_frames": 0}, ["total_frames: found 0, expected an integer >= 1"]),
        ({"prior": "{ppo}", "omega_prime": 0}, ["alpha_hat: found None, expected a number > 0"]),
        ({"prior": "{ppo}", "env": "Nothing-v0"}, ["env: found 'Nothing-v0', expected a registered Gymnasium id"]),
    ],
)
def test_what_is_wrong_is_one_line(options, words, models, refused, tmp_path):
    options = {"env": "CartPole-v1", **options}
    options["prior"] = options["prior"].format(**models)
    message = refused(**options)
    assert message.startswith("error: ") and all(word in message for word in words), message
    assert not list(tmp_path.rglob("version_*"))


def test_an_environment_that_fails_is_named(models, refused):
    message = refused(prior=models["ppo"], env="odd/Failing-v0", omega_prime=1.0, video=False)
    assert message.startswith("error: environment 0, step of Failing: found RuntimeError: the simulator crashed, at ")
    assert "odd_tasks.py:" in message
