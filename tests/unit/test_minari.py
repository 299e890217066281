"""Local Minari data sets as demonstrations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rql_lightning.data.demonstrations import check_demonstrations, load_demonstrations
from rql_lightning.errors import DemonstrationError, RqlError

NAME = "tests/cartpole-v0"
SOURCE = f"minari:{NAME}"

pytest.importorskip("minari")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Minari asks for authors and a description


@pytest.fixture
def datasets(tmp_path, monkeypatch) -> Path:
    """The folder of Minari's data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def write(datasets) -> Any:
    """``(**changes) →`` a small data set of CartPole-v1, written through Minari's own interface; its metadata's path.

    Changes are functions of an episode's columns.
    """

    def write(**changes: Any) -> Path:
        import minari

        env, buffers = gym.make("CartPole-v1", max_episode_steps=12), []
        for seed in range(4):
            observations, rows, done = [env.reset(seed=seed)[0]], [], False
            env.action_space.seed(seed)
            while not done:
                action = env.action_space.sample()
                observation, reward, terminated, truncated, _ = env.step(action)
                observations.append(observation)
                rows.append((action, reward, terminated, truncated))
                done = terminated or truncated
            names = ("actions", "rewards", "terminations", "truncations")
            columns = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
            columns["observations"] = np.array(observations)
            columns |= {name: change(columns[name]) for name, change in changes.items() if seed == 2}
            buffers.append(minari.data_collector.EpisodeBuffer(id=seed, **columns))
        minari.create_dataset_from_buffers(NAME, buffers, env=gym.make("CartPole-v1"))
        return datasets / NAME / "data" / "metadata.json"

    return write


def fits(task: str) -> None:
    env = gym.make(task)
    check_demonstrations(load_demonstrations(SOURCE), env.observation_space, env.action_space, task)


def test_a_local_data_set(write):
    import minari

    write()
    demonstrations = load_demonstrations(SOURCE)
    episodes = list(minari.load_dataset(NAME).iterate_episodes())
    assert demonstrations.episodes == 4 and demonstrations.task == "CartPole-v1"
    assert demonstrations.lengths.tolist() == [len(episode.rewards) for episode in episodes]
    first = demonstrations.select(torch.tensor([0])).transitions
    assert np.array_equal(first["observation"].numpy(), episodes[0].observations[:-1])
    assert np.array_equal(first["action"].numpy(), episodes[0].actions)
    assert demonstrations.returns["reward"].tolist() == [episode.rewards.sum() for episode in episodes]
    assert not any("reward" in str(key) for key in demonstrations.transitions.keys(True, True))
    fits("rql_lightning/CartPole-v0")
    with pytest.raises(DemonstrationError, match="found demonstrations of CartPole-v1, expected those of"):
        fits("rql_lightning/MountainCarContinuous-v0")


def test_observations_of_64_bits_become_those_that_networks_take(write):
    write(observations=lambda values: values.astype(np.float64))
    assert load_demonstrations(SOURCE).transitions["observation"].dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"truncations": lambda values: [False] * len(values), "terminations": lambda v: [False] * len(v)}, "no end"),
        ({"observations": lambda values: values[:-1]}, "observations, at least one step, and one observation more"),
        ({"observations": lambda values: values * np.nan}, "step 0: found infinity or NaN"),
        ({"actions": lambda values: values[:-1]}, "actions, terminations and truncations, expected"),
    ],
)
def test_wrong_episodes_are_named(write, changes, message):
    write(**changes)
    with pytest.raises(DemonstrationError, match=f"{SOURCE}, episode 2.*{message}"):
        load_demonstrations(SOURCE)


def test_a_data_set_that_is_not_there(write):
    write()
    with pytest.raises(DemonstrationError, match=f"no such local data set, expected one of these: {NAME}"):
        load_demonstrations("minari:tests/other-v0")
    with pytest.raises(DemonstrationError, match="no such local data set"):
        load_demonstrations(f"minari:../{NAME}")


def test_a_damaged_file(write):
    path = write().with_name("main_data.hdf5")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DemonstrationError, match=f"{SOURCE}: found a data set that cannot be read"):
        load_demonstrations(SOURCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_format": "arrow"}, "found the format 'arrow', expected 'hdf5'"),
        ({"action_space": json.dumps({"type": "MultiDiscrete"})}, "action_space: found MultiDiscrete, expected a Box"),
        ({"observation_space": json.dumps({"type": "Dict"})}, "observation_space: found Dict, expected a Box"),
        ({"observation_space": "{"}, "cannot be read"),
    ],
)
def test_spaces_and_formats_without_support(write, change, message):
    path = write()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DemonstrationError, match=message):
        load_demonstrations(SOURCE)


def test_no_data_set_runs_code(write, tmp_path, monkeypatch):
    """Without described spaces, Minari would make the environment, whose entry point can be any module."""
    path = write()
    (tmp_path / "a_module_to_run.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    metadata = json.loads(path.read_text())
    spec = json.loads(metadata["env_spec"]) | {"entry_point": "a_module_to_run:Env"}
    without = {key: value for key, value in metadata.items() if key not in ("observation_space", "action_space")}
    path.write_text(json.dumps({**without, "env_spec": json.dumps(spec)}))
    with pytest.raises(DemonstrationError, match="observation_space: found no description, expected a Box"):
        load_demonstrations(SOURCE)
    path.write_text(json.dumps({**metadata, "env_spec": json.dumps(spec)}))
    assert load_demonstrations(SOURCE).episodes == 4, "the environment is not needed"
    assert "a_module_to_run" not in sys.modules


def test_without_minari(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(RqlError, match=r"pip install 'rql-lightning\[minari\]'"):
        load_demonstrations("minari:tests/other-v0")
