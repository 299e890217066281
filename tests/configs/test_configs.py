"""Every shipped config: complete, short, true about itself, and free of typos."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import yaml

from rql_lightning.callbacks.run_folder import folder_names
from rql_lightning.checkpoints import SCHEME, resolve
from rql_lightning.train import main

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "configs").rglob("*.yaml"))
FIRSTS = [task / "rl_prior.yaml" for task in sorted({path.parent for path in PATHS})]
EACH = pytest.mark.parametrize("path", PATHS, ids=[str(path.relative_to(ROOT)) for path in PATHS])
ONE_A_TASK = pytest.mark.parametrize("path", FIRSTS, ids=[path.parent.name for path in FIRSTS])


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """``(file, *arguments) →`` the whole configuration, every default in it; nothing runs."""
    monkeypatch.setattr(sys, "argv", ["train"])

    def parse(file: Path, *arguments: str) -> dict[str, Any]:
        screen = io.StringIO()
        with contextlib.redirect_stdout(screen), pytest.raises(SystemExit) as stop:
            main([command_of(file), "--config", str(file), *arguments, "--print_config"])
        assert stop.value.code == 0
        return yaml.safe_load(screen.getvalue())

    return parse


def command_of(path: Path) -> str:
    """The command that a config is for, which its first line names."""
    return path.read_text(encoding="utf-8").split()[4]


def data_of(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the data module, which a config may give without its class."""
    return config["data"].get("init_args", config["data"])


@pytest.fixture
def refuse(parse: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """``(file, *arguments) →`` the message with which it is refused."""

    def refuse(file: Path, *arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main([command_of(file), "--config", str(file), *arguments, "--print_config"])
        assert stop.value.code == 2
        return capsys.readouterr().err

    return refuse


def mappings(config: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths to all sections, the top level included."""
    yield path
    for key, value in config.items():
        if isinstance(value, dict):
            yield from mappings(value, (*path, key))


def at(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        config = config[key]
    return config


def write(config: dict[str, Any], folder: Path) -> Path:
    text = "# python -m rql_lightning.train fit --config edited.yaml\n" + yaml.safe_dump(config, sort_keys=False)
    command = "predict" if "episodes" in config else "test" if "verbose" in config else "fit"  # by their own options
    text = text.replace("train fit", f"train {command}", 1)
    (folder / "edited.yaml").write_text(text, encoding="utf-8")
    return folder / "edited.yaml"


IMITATION = ("BehaviorCloning", "DynamicsEnsemble", "FrozenPolicy", "GAIL", "IQLearn", "IQLearnSAC")
MUJOCO, RESIDUAL = ("half_cheetah", "hopper", "swimmer", "ant"), "residual_sac"
ABLATIONS = {"greedy", "kl_reward", "prior_likelihood_reward"}


def test_there_are_configs():
    found = {task: {path.stem for path in PATHS if path.parent.name == task} for task in {p.parent.name for p in PATHS}}
    imitation = {"demonstrations", "behavior_cloning", "iq_learn", "gail"}
    for task in ("cartpole", "highway"):
        assert found[task] >= {"rl_prior", "residual_soft_q", "residual_soft_q_from_il", "full"} | imitation
        assert "greedy" in found[task]
    for task in ("mountain_car", "parking"):
        assert found[task] >= {"rl_prior", "residual_sac", "residual_sac_from_il", "full"} | imitation | ABLATIONS
    for task in MUJOCO:
        assert found[task] >= {"rl_prior", "residual_sac"}


@pytest.mark.parametrize("task", MUJOCO)
def test_a_customised_policy_can_start_at_the_prior_of_the_same_folder(task):
    """Their networks see the same, and the path is that of a run of the other config."""
    prior, residual = (yaml.safe_load((ROOT / f"configs/{task}/{n}.yaml").read_text()) for n in ("rl_prior", RESIDUAL))
    own, others = (config["model"]["init_args"] for config in (residual, prior))
    raised = {"hopper": 1.0}  # the wish is large beside the prior's temperature
    assert own["start_at_prior"] and own["alpha_hat"] == own["omega_prime"] == raised.get(task, others["alpha"])
    for key in ("hidden_sizes", "normalize_observations", "gamma"):
        assert own[key] == others[key]
    folder = Path(*folder_names(prior["data"]["env"], prior["run_name"]))
    assert own["prior"]["init_args"]["path"] == f"runs/{folder.as_posix()}/version_0/checkpoints/last.ckpt"


@pytest.mark.parametrize("task", ["cartpole", "highway", "mountain_car", "parking"])
def test_ablations_differ_from_the_residual_algorithm_in_nothing_but_the_class(task):
    """And in what the weight of the prior's log-likelihood is set to."""
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in PATHS if path.parent.name == task}
    residual = "residual_sac" if "residual_sac" in configs else "residual_soft_q"
    for name in (residual, *sorted(ABLATIONS & configs.keys())):
        configs[name].pop("run_name")
        configs[name]["model"].pop("class_path")
        for key in ("omega_prime", "alpha_hat"):
            configs[name]["model"]["init_args"].pop(key)
        assert configs[name] == configs[residual], name


@EACH
def test_opens_with_the_command_that_runs_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert (
        lines[0] == f"# python -m rql_lightning.train {command_of(path)} --config {path.relative_to(ROOT).as_posix()}"
    )
    planned = "test" if path.stem.startswith("mcts_") else "fit"
    assert command_of(path) == ("predict" if path.stem == "demonstrations" else planned)
    assert 15 <= len(lines) <= 40
    assert max(map(len, lines)) <= 120


@EACH
def test_parses_and_prints_a_config_that_parses_to_the_same(path, parse, tmp_path):
    parsed = parse(path)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "class_path" not in written["data"]:
        written["data"] = {"class_path": "rql_lightning.data.ReplayDataModule", "init_args": written["data"]}
    for section in mappings(written):
        for key, value in at(written, section).items():
            if not isinstance(value, dict):
                assert at(parsed, section)[key] == value, (section, key)
    assert parse(write(parsed, tmp_path)) == parsed
    if path in FIRSTS:
        assert parse(path, "--data.total_frames=3_000_000_000") != parsed


@ONE_A_TASK
def test_a_typo_in_any_section_is_an_error(path, refuse, tmp_path):
    text = path.read_text(encoding="utf-8")
    for section in mappings(yaml.safe_load(text)):
        config = yaml.safe_load(text)
        at(config, section)["a_typo"] = 1
        assert "a_typo" in refuse(write(config, tmp_path)), section


@ONE_A_TASK
def test_integers_in_float_notation_are_refused(path, refuse, parse):
    data = data_of(parse(path))
    integers = {key for key, value in data.items() if isinstance(value, int) and not isinstance(value, bool)}
    assert {"total_frames", "frames_per_batch", "batch_size", "replay_size"} <= integers
    for key in ("total_frames", "replay_size"):
        message = refuse(path, f"--data.{key}=1e6")
        assert "data" in message and key in message and "1000000.0" in message
    assert data_of(parse(path, "--data.total_frames=1_000_000"))["total_frames"] == 1_000_000


@EACH
def test_what_it_names_exists(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    gym.spec(data_of(config)["env"])
    for section in mappings(config):
        for value in at(config, section).values():
            if isinstance(value, str) and value.startswith(SCHEME):
                assert resolve(value).is_file()


@EACH
def test_runs_are_told_apart(path):
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert config["run_name"] == path.stem
    assert isinstance(config["seed_everything"], int) and not isinstance(config["seed_everything"], bool)
    algorithm, rewards = config["model"]["class_path"].rpartition(".")[2], data_of(config).get("reward")
    if algorithm in IMITATION:
        assert rewards is None, "imitation sees no reward"
    else:
        assert (rewards == "add_on") != (algorithm in ("SoftQLearning", "SoftActorCritic"))
