"""Folders that are not quite demonstrations: each is refused in one line, or read as it was meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch.nn.functional import one_hot
from torchrl_folders import contents, edit_meta, written

from rql_lightning.data.demonstrations import load_demonstrations
from rql_lightning.data.trajectories import save_trajectories
from rql_lightning.demonstrations import histogram, summary_table
from rql_lightning.errors import DemonstrationError
from rql_lightning.evaluation import COLUMNS, Episodes

ACTIONS = torch.tensor([0, 1, 0, 1, 1, 0])
BOX = {"type": "Box", "shape": [4], "dtype": "float32", "low": [-9.0] * 4, "high": [9.0] * 4}
ABOUT = {"task": "rql_lightning/CartPole-v0", "observation_space": BOX, "epsilon": 0.1}
ABOUT |= {"action_space": {"type": "Discrete", "n": 2, "start": 0}}


def without_ids(folder: Path) -> None:
    contents().exclude("collector").memmap(str(folder))


def with_entry(*key: str, value: torch.Tensor) -> Callable[[Path], Any]:
    return lambda folder: contents().set(key, value).memmap(str(folder))


def described(**changes: Any) -> Callable[[Path], Any]:
    return lambda folder: (written(folder) / "demonstrations.json").write_text(json.dumps({**ABOUT, **changes}))


def of_64_bits(folder: Path) -> None:
    flat = contents()
    written(folder, observation=flat["observation"].double(), next_observation=flat["next", "observation"].double())


def named_otherwise(folder: Path) -> None:
    contents().exclude("collector").set("episode", torch.tensor([5, 5, 5, 2, 2, 2])).memmap(str(folder))


@pytest.mark.parametrize(
    "write",
    [
        written,
        lambda folder: written(folder, action=ACTIONS.unsqueeze(1)),
        lambda folder: written(folder, action=one_hot(ACTIONS)),
        lambda folder: written(folder, action=one_hot(ACTIONS).bool()),
        lambda folder: written(folder, action=ACTIONS.to(torch.uint8)),
        of_64_bits,
        lambda folder: written(folder, terminated=contents()["next", "truncated"]),
        without_ids,
        named_otherwise,
        with_entry("step", value=torch.tensor([0, 1, 2, 0, 1, 2])),
        with_entry("next", "done", value=contents()["next", "truncated"].squeeze(1)),
        described(),
    ],
)
def test_all_forms_of_the_layout_are_the_same_demonstrations(tmp_path, write):
    write(tmp_path / "data")
    demonstrations = load_demonstrations(tmp_path / "data")
    transitions = demonstrations.transitions
    assert transitions["action"].dtype == torch.int64 and torch.equal(transitions["action"], ACTIONS)
    for keys in ("observation", ("next", "observation")):
        assert torch.equal(transitions[keys], contents()[keys])
    assert demonstrations.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert summary_table(demonstrations).row_count > 5


def test_bytes_of_images_stay_bytes(tmp_path):
    frames = torch.arange(6 * 12, dtype=torch.uint8).reshape(6, 3, 4)
    following = torch.cat([frames[1:], frames[:1]])
    folder = written(tmp_path / "data", observation=frames, next_observation=following)
    assert torch.equal(load_demonstrations(folder).transitions["observation"], frames)


def test_an_episode_of_one_step(tmp_path):
    one = {key: torch.zeros(1, 4) for key in ("observation", "next_observation")}
    ends = {"terminated": torch.ones(1, 1, dtype=torch.bool), "truncated": torch.zeros(1, 1, dtype=torch.bool)}
    folder = written(tmp_path / "data", **one, **ends, action=ACTIONS[:1], traj_ids=torch.tensor([3]))
    assert load_demonstrations(folder).lengths.tolist() == [1]


def nested_brackets(folder: Path) -> None:
    (written(folder) / "meta.json").write_text("[" * 100_000)


def byte_of_seven(folder: Path) -> None:
    path = written(folder) / "next" / "truncated.memmap"
    path.write_bytes(path.read_bytes()[:-1] + b"\7")


def linked(folder: Path) -> None:
    path = written(folder) / "action.memmap"
    path.rename(folder.parent / "elsewhere")
    path.symlink_to(folder.parent / "elsewhere")


def scalar(folder: Path) -> None:
    edit_meta(action={"shape": [], "dtype": "torch.int64"})(written(folder))
    (folder / "action.memmap").write_bytes(bytes(8))


def different_ranks(folder: Path) -> None:
    written(folder / "rank0")
    other = {key: torch.zeros(6, 3) for key in ("observation", "next_observation")}
    written(folder / "rank1", **other)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: written(folder, next_observation=torch.zeros(6, 3)), r"successors of shape \(3,\)"),
        (lambda folder: written(folder, action=-ACTIONS), "episode 0, step 1: found a negative discrete action"),
        (
            lambda folder: written(folder, action=torch.ones(6, 2).long()),
            "episode 0, step 0: found a vector of",
        ),
        (with_entry("step", value=torch.tensor([0, 1, 2, 0, 2, 1])), "episode 1: found step 2, expected step 1"),
        (with_entry("next", "done", value=torch.zeros(6, 1).bool()), "episode 0: found 'done' that differs"),
        (nested_brackets, "meta.json: found a damaged file"),
        (byte_of_seven, "truncated.memmap: found a byte 7, expected 0 or 1"),
        (linked, "action.memmap: found a symbolic link"),
        (scalar, r"found action of shape \(\), expected 6 rows"),
        (different_ranks, "rank1: found other spaces than in .*rank0"),
        (lambda folder: written(folder / "rankless"), "found no file meta.json"),
        (described(task=["a", "b"]), "demonstrations.json: found a damaged description"),
        (described(epsilon="much"), "demonstrations.json: found a damaged description"),
        (described(action_space={"type": "Discrete", "n": -1, "start": 0}), "found a damaged description"),
        (described(observation_space={**BOX, "dtype": "object"}), "found a damaged description"),
        (described(observation_space={**BOX, "shape": [10**12]}), "found a damaged description"),
    ],
)
def test_damage_is_named(tmp_path, write, message):
    write(tmp_path / "data")
    with pytest.raises(DemonstrationError, match=message) as error:
        load_demonstrations(tmp_path / "data")
    assert str(tmp_path / "data") in str(error.value) and "\n" not in str(error.value)


def test_histogram_of_many_actions():
    assert histogram(torch.tensor([3, 2**40, 3, 3])) == [("action 3", 0.75), (f"action {2**40}", 0.25)]


# -- nothing that is written is lost ---------------------------------------------------------------------------------


def episodes(observation: float = 0.0) -> Episodes:
    """Two episodes of one step each."""
    table = np.zeros((2, len(COLUMNS)))
    rows = {"episode": np.arange(2), "step": np.zeros(2, dtype=np.int64), "action": np.arange(2)}
    rows |= {key: np.full((2, 3), observation) for key in ("observation", "next_observation")}
    rows |= {key: np.zeros(2) for key in ("reward", "basic_reward", "add_on_reward")}
    rows |= {"terminated": np.ones(2, dtype=bool), "truncated": np.zeros(2, dtype=bool)}
    return Episodes(table, np.empty(0), rows)


def test_observations_of_64_bits_are_written_in_32(tmp_path):
    folder = save_trajectories(episodes(0.1), tmp_path / "trajectories")
    assert TensorDict.load_memmap(folder)["observation"].dtype == torch.float32


@pytest.mark.parametrize("fails", ["memmap", "description", "rename"])
def test_a_failure_leaves_the_former_folder(tmp_path, monkeypatch, fails):
    folder = save_trajectories(episodes(1.0), tmp_path / "trajectories")
    original = TensorDict.memmap, Path.rename

    def no_space(self: TensorDict, prefix: str) -> None:
        original[0](self, prefix)
        raise OSError("No space left on device")

    def no_rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError("Device or resource busy")
        return original[1](self, target)

    about = {1j: "no key of JSON"} if fails == "description" else None
    if fails == "memmap":
        monkeypatch.setattr(TensorDict, "memmap", no_space)
    if fails == "rename":
        monkeypatch.setattr(Path, "rename", no_rename)
    with pytest.raises((OSError, TypeError)):
        save_trajectories(episodes(2.0), folder, about)
    monkeypatch.undo()
    assert bool((load_demonstrations(folder).transitions["observation"] == 1.0).all())
    assert [path.name for path in tmp_path.iterdir()] == ["trajectories"]
    save_trajectories(episodes(2.0), folder)
    assert bool((load_demonstrations(folder).transitions["observation"] == 2.0).all())
    assert [path.name for path in tmp_path.iterdir()] == ["trajectories"]
