"""What a user can mend ends with exit code 2 and one message: where it is wrong, what was found, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rql_lightning.algorithms import ResidualSoftQLearning, SoftQLearning
from rql_lightning.callbacks import EvaluationCallback, FrameCheckpoint, VideoCallback
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import ConfigurationError
from rql_lightning.priors import CheckpointPrior

CONFIGS = Path(__file__).parents[2] / "configs" / "cartpole"
RESIDUAL, PLAIN = str(CONFIGS / "residual_soft_q.yaml"), str(CONFIGS / "rl_prior.yaml")


@pytest.fixture
def run(among_finished_runs: Any) -> Any:
    return among_finished_runs


# -- numbers and words -----------------------------------------------------------------------------------------------

REFUSED_NUMBERS = {
    "model.gamma": "1.2 -0.1 .nan .inf",
    "model.alpha_hat": "0 -1 .nan .inf",
    "model.omega_prime": "-0.5 .nan .inf",
    "model.learning_rate": "0 -1e-3 .nan .inf",
    "model.tau": "0 1.5 .nan",
    "model.target_update_interval": "0 -3",
    "model.huber_delta": "0 -1 .nan .inf",
    "model.max_grad_norm": "0 -1 .nan .inf",
    "model.epsilon_initial": "-0.1 1.1 .nan",
    "model.epsilon_final": "-0.1 1.1 .nan",
    "model.epsilon_fraction": "-0.1 1.1 .nan",
    "model.hidden_sizes": "[] [0] [16,-1] [1.5]",
    "model.learning_rate_schedule": "cosine",
    "data.num_envs": "0 -1 1.5",
    "data.total_frames": "1e6 0 -1",
    "data.frames_per_batch": "0 -64 65",
    "data.updates_per_batch": "0 -1 1.5",
    "data.batch_size": "0 -1 1.5 100_001",
    "data.replay_size": "0 -1 1e6",
    "data.warm_up_frames": "-1 100_000 .inf",
    "data.omega": ".nan .inf",
    "data.reward": "basic",
    "evaluation.episodes": "0 -1 1.5",
    "evaluation.every_n_frames": "0 -1 1e6",
    "evaluation.episodes_during_fit": "0 -1 1.5",
    "evaluation.max_envs": "0 -1",
    "evaluation.max_episode_steps": "0 -1 1e6",
    "evaluation.seed": "999_999 0",
    "checkpoint.every_n_frames": "0 -1 1e6",
    "video.episodes": "-1 1.5",
    "video.max_steps": "0 1.5",
    "video.scale": "0 5",
    "threads": "0",
    "seed_everything": "-1",
}
FIRST = [(key, values.split()[0]) for key, values in REFUSED_NUMBERS.items()]
OWNERS: dict[str, Callable[..., Any]] = {
    "model": lambda **values: ResidualSoftQLearning(CheckpointPrior("pretrained:cartpole-rl"), **values),
    "data": ReplayDataModule,
    "evaluation": EvaluationCallback,
    "checkpoint": FrameCheckpoint,
    "video": VideoCallback,
}
OTHERS = [(key, value) for key, values in REFUSED_NUMBERS.items() for value in values.split()[1:]]


@pytest.mark.parametrize(("key", "value"), FIRST, ids=[f"{key}={value}" for key, value in FIRST])
def test_values_that_make_no_sense(refused, key, value):
    message = refused("fit", f"--{key}={value}")
    assert key.rpartition(".")[2] in message
    found = yaml.safe_load(value)
    assert value in message or repr(found) in message or repr(float(found)) in message
    assert "xpected" in message


@pytest.mark.parametrize(("key", "value"), OTHERS, ids=[f"{key}={value}" for key, value in OTHERS])
def test_values_that_make_no_sense_in_python(key, value):
    owner, _, name = key.partition(".")
    OWNERS[owner]()  # accepts its defaults
    with pytest.raises(ConfigurationError, match=rf"{key}: found .*, expected "):
        OWNERS[owner](**{name: yaml.safe_load(value)})


def test_every_number_of_the_config_is_among_them():
    """A new hyperparameter has to say what it refuses."""
    keys = set()
    for path in (CONFIGS / f"{name}.yaml" for name in ("rl_prior", "residual_soft_q", "full")):
        config = yaml.safe_load(path.read_text())
        keys |= {f"{section}.{key}" for section in ("data", "evaluation") for key in config[section]}
        keys |= {f"model.{key}" for key in config["model"]["init_args"]}
    other = {"data.env", "model.prior", "model.alpha"}  # alpha of plain soft Q-learning is the residual's alpha_hat
    assert keys - other <= set(REFUSED_NUMBERS)
    with pytest.raises(ValueError, match=r"model\.alpha: found -1"):
        SoftQLearning(alpha=-1.0)


# -- keys and files of configuration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("section", ["data", "model", "model.prior", "evaluation", "checkpoint", "trainer", ""])
def test_a_typo_on_the_command_line(refused, section):
    assert "tau_typo" in refused("fit", f"--{section}.tau_typo=1" if section else "--tau_typo=1")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data/total_frame", 5),
        ("data/total_frames", "many"),
        ("data/replay_size", -2),
        ("evaluation/episode", 5),
        ("evaluaton", {"episodes": 5}),
        ("model/init_args/gama", 0.9),
        ("model/init_args/gamma", float("nan")),
        ("model/init_args/prior/init_args/pth", "x"),
        ("model/class_path", "rql_lightning.algorithms.NoSuchThing"),
        ("model/class_path", "torch.nn.Linear"),
        ("seed_everythin", 0),
    ],
)
def test_a_mistake_in_the_file(refused, tmp_path, path, value):
    config = yaml.safe_load(Path(RESIDUAL).read_text())
    *parents, last = path.split("/")
    place = config
    for parent in parents:
        place = place[parent]
    place[last] = value
    file = tmp_path / "mistaken.yaml"
    file.write_text(yaml.safe_dump(config))
    message = refused("fit", config=str(file))
    assert (value if last == "class_path" else last) in message


@pytest.mark.parametrize("text", ["model: [unclosed\n data: 3: 4", "- a\n- list\n", ""])
def test_a_file_that_is_no_config(refused, tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    assert "config" in refused("fit", config=str(tmp_path / "broken.yaml"))


def test_a_missing_config_file(refused, tmp_path):
    missing = str(tmp_path / "missing.yaml")
    assert missing in refused("fit", config=missing)


# -- environments, add-on rewards and priors -------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["Nope-v0", "rql_lightning/CartPole-v9", "no_such_module:CartPole-v1", "spaces in it"])
def test_an_environment_that_does_not_exist(refused, id):
    message = refused("fit", f"--data.env={id}")
    assert "env" in message and repr(id) in message


@pytest.mark.parametrize(
    ("id", "found"),
    [("MountainCarContinuous-v0", "Box(-1.0, 1.0, (1,)"), ("FrozenLake-v1", "Discrete(16)"), ("Blackjack-v1", "Tuple")],
)
def test_spaces_that_no_network_takes(refused, id, found):
    message = refused("fit", f"--data.env={id}", config=PLAIN)
    assert "space" in message and found in message and "expected" in message


@pytest.mark.parametrize("kwargs", ['{"gravitas": 9.8}', '{"max_episode_steps": -3}', '{"reward": "basic"}', "[1]"])
def test_arguments_that_the_environment_refuses(refused, kwargs):
    message = refused("fit", f"--data.env_kwargs={kwargs}")
    assert "env_kwargs" in message and (kwargs[2:7] in message or kwargs in message)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("not_a_number", "nan"),
        ("wrong_shape", "(3,)"),
        ("a_word", "much"),
        ("a_number", "int"),
        ("missing", "missing"),
        ("two_arguments", "a function of (observation, action)"),
    ],
)
def test_an_add_on_reward_that_is_none(refused, functions, function, found):
    path = f"functions_of_a_user.{function}"
    message = refused("fit", "--data.env=CartPole-v1", f"--data.add_on_reward={path}")
    assert "add_on_reward" in message and path in message and found in message


@pytest.mark.parametrize("reward", ["add_on", "total"])
def test_a_missing_wish(refused, reward):
    config = RESIDUAL if reward == "add_on" else PLAIN
    message = refused("fit", "--data.env=CartPole-v1", f"--data.reward={reward}", config=config)
    assert "add_on_reward: found None" in message and "CartPole-v1" in message


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_nothing_to_look_at(refused, command):
    assert "ckpt_path: found None, expected a checkpoint" in refused(command)


@pytest.mark.parametrize(
    "flag",
    [
        "precision=16-true",
        "precision=bf16-true",
        "precision=64-true",
        "gradient_clip_val=0.5",
        "accumulate_grad_batches=2",
    ],
)
def test_trainer_flags_that_do_not_apply(refused, flag):
    assert flag.partition("=")[0] in refused("fit", f"--trainer.{flag}")


@pytest.mark.parametrize(
    ("flag", "found"),
    [
        ("barebones=true", "trainer.barebones: found True, expected false"),
        ("limit_train_batches=-3", "trainer: You have passed invalid value -3"),
        ("devices=0", "trainer: "),
        ("strategy=nonsense", "trainer: You selected an invalid strategy name"),
    ],
)
def test_trainer_flags_that_the_trainer_refuses(refused, flag, found):
    assert f"error: {found}" in refused("fit", f"--trainer.{flag}")


def test_a_root_that_cannot_be_written(refused, tmp_path):
    (tmp_path / "file").touch()
    message = refused("fit", f"--trainer.default_root_dir={tmp_path / 'file'}")
    assert f"error: {tmp_path / 'file'}" in message and "found 'Not a directory'" in message


def test_a_logger_that_cannot_write(refused, tmp_path):
    (tmp_path / "file").touch()
    logger = ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path / 'file'}"]
    assert str(tmp_path / "file") in refused("fit", *logger)


def test_an_accelerator_that_is_not_there(refused):
    if torch.cuda.is_available():
        pytest.skip("it is")
    assert "trainer: No supported gpu" in refused("fit", "--trainer.accelerator=gpu")


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "..", "a b", ""])
def test_run_names_that_are_no_folder(refused, name):
    if name:
        assert f"run_name: found {name!r}" in refused("fit", f"--run_name={name}")
    else:
        assert "run_name" in refused("fit", "--run_name=''")


def test_a_replay_buffer_beyond_memory(refused):
    message = refused("fit", "--data.replay_size=1_000_000_000_000_000")
    assert "data.replay_size: found 1000000000000000" in message and "bytes" in message


@pytest.mark.parametrize("path", ["no_such_module.wish", "without_dots"])
def test_an_add_on_reward_that_cannot_be_imported(refused, path):
    message = refused("fit", "--data.env=CartPole-v1", f"--data.add_on_reward={path}")
    assert "add_on_reward" in message and path in message and "expected" in message


def test_a_second_add_on_reward(refused, functions):
    message = refused("fit", "--data.add_on_reward=functions_of_a_user.wish")
    assert "add_on_reward" in message and "rql_lightning/CartPole-v0" in message


@pytest.mark.parametrize("function", ["unnormalised_prior", "prior_that_fails_later", "missing", "a_number"])
def test_a_prior_function_that_is_none(refused, functions, function):
    prior = [
        "--model.prior=rql_lightning.priors.FunctionPrior",
        f"--model.prior.log_prob=functions_of_a_user.{function}",
    ]
    message = refused("fit", *prior)
    assert "prior" in message and function in message and "xpected" in message


@pytest.mark.parametrize(
    ("function", "found"),
    [
        ("sampler_outside", "sample: found 2 at observation"),
        ("sampler_of_one_sample", "sample: found shape (1,)"),
        ("sampler_that_fails_later", "sample: found nan at observation"),
        ("missing", "missing"),
    ],
)
def test_a_sampler_that_is_none(refused, functions, function, found):
    sampler = [
        "--model=rql_lightning.algorithms.SampledResidualQLearning",
        "--model.prior=rql_lightning.priors.SamplerPrior",
        f"--model.prior.sample=functions_of_a_user.{function}",
    ]
    message = refused("fit", *sampler)
    assert f"functions_of_a_user.{function}" in message and found in message and "xpected" in message


def test_a_prior_of_another_environment(refused, functions):
    message = refused("fit", "--data.env=MountainCar-v0", "--data.add_on_reward=functions_of_a_user.wish")
    assert "pretrained:cartpole-rl" in message and "(4,)" in message and "(2,)" in message


@pytest.mark.parametrize("argument", ["--data.total_fram=3000", "--trainer.max_step=5", "--run_nam=x"])
def test_a_shortened_key_is_a_typo(refused, argument):
    assert argument.partition("=")[0].rpartition(".")[2].lstrip("-") in refused("fit", argument)
