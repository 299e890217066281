"""Demonstrations on disk: what is written is what is read, and what is wrong with a folder is named."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import NonTensorData, TensorDict
from torchrl_folders import changed, contents, edit_meta, written

from rql_lightning.data import TaskDataModule
from rql_lightning.data.demonstrations import Demonstrations, check_demonstrations, load_demonstrations
from rql_lightning.data.trajectories import save_trajectories
from rql_lightning.demonstrations import histogram, main
from rql_lightning.errors import DemonstrationError, EnvironmentContractError, SpaceMismatchError
from rql_lightning.evaluation import run_episodes
from rql_lightning.loading import load_policy
from rql_lightning.policies import SampledPolicy
from rql_lightning.priors import FunctionPrior
from rql_lightning.spaces import space_to_data

CARTPOLE = "rql_lightning/CartPole-v0"
MOUNTAIN_CAR = "rql_lightning/MountainCarContinuous-v0"


def recorded(folder: Path, task: str = CARTPOLE, prior: str = "pretrained:cartpole-rl", episodes: int = 3) -> Path:
    """Episodes of a shipped prior, written as predict writes them."""
    data = TaskDataModule(env=task, env_kwargs={"max_episode_steps": 90})
    data.setup("predict")
    env = data.make_env(2)
    decider = SampledPolicy(load_policy(prior), 0.1, seed=3)
    found = run_episodes(decider, env, list(range(7, 7 + episodes)), record=True)
    spaces = {key: space_to_data(getattr(data, key)) for key in ("observation_space", "action_space")}
    return save_trajectories(found, folder, {"task": task, "policy": prior, "epsilon": 0.1, **spaces})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("demonstrations") / "trajectories")


# -- what is written is what is read ---------------------------------------------------------------------------------


def test_a_folder_is_read_as_it_was_written(original):
    demonstrations, raw = load_demonstrations(original), TensorDict.load_memmap(original)
    assert demonstrations.episodes == 3 and len(demonstrations) == len(raw)
    assert demonstrations.task == CARTPOLE and demonstrations.about["epsilon"] == 0.1
    assert demonstrations.observation_space == gym.make(CARTPOLE).observation_space
    for key in ("observation", "action", ("next", "observation")):
        assert torch.equal(demonstrations.transitions[key], raw[key])
    assert torch.equal(demonstrations.transitions["next", "terminated"], raw["next", "terminated"].squeeze(-1))
    assert torch.equal(demonstrations.episode, raw["collector", "traj_ids"])
    by_hand = [raw["next", "basic_reward"][raw["collector", "traj_ids"] == index].sum() for index in range(3)]
    torch.testing.assert_close(demonstrations.returns["basic"], torch.stack(by_hand).double(), rtol=1e-5, atol=1e-4)


def test_no_reward_is_among_the_transitions(original):
    named = load_demonstrations(original).transitions.keys(include_nested=True, leaves_only=True)
    assert not any("reward" in str(name) for name in named)


def test_a_folder_that_torchrl_wrote(tmp_path):
    demonstrations = load_demonstrations(written(tmp_path / "data"))
    assert (demonstrations.episodes, demonstrations.task, demonstrations.returns) == (2, None, {})
    assert demonstrations.lengths.tolist() == [3, 3]


def test_selection_and_split_by_episode(tmp_path):
    demonstrations = load_demonstrations(written(tmp_path / "data"))
    second = demonstrations.select(torch.tensor([1]))
    assert second.episodes == 1 and torch.equal(second.transitions["action"], torch.tensor([1, 1, 0]))
    training, held_out = demonstrations.split(0.1, seed=0)
    assert training.episodes == held_out.episodes == 1
    everything = torch.cat([training.transitions["observation"], held_out.transitions["observation"]])
    assert torch.equal(everything.sort(dim=0).values, demonstrations.transitions["observation"].sort(dim=0).values)
    with pytest.raises(DemonstrationError, match="found 1 episode, expected at least 2"):
        second.split(0.5, seed=0)


def test_ranks_are_joined_and_tasks_are_not_mixed(tmp_path):
    for rank in range(2):
        recorded(tmp_path / "joined" / f"rank{rank}", episodes=2)
    assert load_demonstrations(tmp_path / "joined").episodes == 4
    recorded(tmp_path / "mixed" / "rank0")
    recorded(tmp_path / "mixed" / "rank1", MOUNTAIN_CAR, "pretrained:mountain-car-rl")
    with pytest.raises(DemonstrationError, match=r"CartPole.*MountainCar.*expected one task"):
        load_demonstrations(tmp_path / "mixed")


def test_sampled_actions_have_their_own_random_numbers():
    observation = np.zeros((50, 4), dtype=np.float32)
    torch.manual_seed(1)
    first = SampledPolicy(load_policy("pretrained:cartpole-rl"), 0.5, seed=2)
    actions = [first.decide(observation).action for _ in range(2)]
    expected = torch.rand(3)
    torch.manual_seed(1)
    again = SampledPolicy(load_policy("pretrained:cartpole-rl"), 0.5, seed=2)
    assert torch.equal(torch.rand(3), expected), "the global generator is left alone"
    assert all(np.array_equal(again.decide(observation).action, action) for action in actions)
    assert not np.array_equal(*actions)


def test_what_cannot_be_sampled_is_refused():
    def density(observation, action):
        return torch.zeros(len(action))

    prior = FunctionPrior(density)
    prior.attach(gym.make(MOUNTAIN_CAR).observation_space, gym.make(MOUNTAIN_CAR).action_space)
    for policy in (prior, SimpleNamespace(needs_state=True)):
        found = f"policy: found {type(policy).__name__}, expected a policy that can be sampled; deterministic true"
        with pytest.raises(EnvironmentContractError, match=found):
            SampledPolicy(policy, 0.0, seed=0)


# -- what is wrong with a folder -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("observation", 4, float("nan")), "episode 1, step 1: found infinity or NaN in an observation"),
        (changed("next_observation", 5, float("inf")), "episode 1, step 2: found infinity or NaN in an observation"),
        (changed("truncated", 2, False), "episode 0, step 2: found no end"),
        (changed("truncated", 5, False), "episode 1, step 2: found no end"),
        (changed("terminated", 0, True), "episode 0, step 0: found further steps after its end"),
        (changed("next_observation", 0, 99.0), "episode 0, step 0: found a step whose successor is not the next"),
        ({"traj_ids": torch.tensor([4, 9, 4, 9, 4, 9])}, "found its steps in several places"),
    ],
)
def test_wrong_episodes_are_named(tmp_path, change, message):
    folder = written(tmp_path / "data", **change)
    with pytest.raises(DemonstrationError, match=message) as error:
        load_demonstrations(folder)
    assert str(folder) in str(error.value)


def empty(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def truncate(folder: Path) -> None:
    path = folder / "observation.memmap"
    path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty, "found an empty folder"),
        (lambda folder: (folder / "meta.json").unlink(), "found no file meta.json"),
        (lambda folder: (folder / "meta.json").write_text("{"), "meta.json: found a damaged file"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "found no entries"),
        (truncate, "observation.memmap: found .* bytes, expected .* bytes"),
        (lambda folder: (folder / "action.memmap").unlink(), "action.memmap: found no such file"),
        (lambda folder: (folder / "next" / "meta.json").unlink(), "next: found no file meta.json"),
        (edit_meta(action={"type": "NonTensorData"}), "found an entry .* 'action', expected a tensor"),
        (edit_meta(action={"shape": [6], "dtype": "torch.strange"}), "'action', expected a tensor of numbers"),
        (edit_meta(action={"shape": [-6], "dtype": "torch.int64"}), "'action', expected a tensor of numbers"),
        (lambda folder: (folder / "demonstrations.json").write_text("{"), "found a damaged description"),
        (lambda folder: (folder / "demonstrations.json").write_text("{}"), "found a damaged description"),
    ],
)
def test_damaged_folders_are_named(tmp_path, damage, message):
    folder = written(tmp_path / "data")
    damage(folder)
    with pytest.raises(DemonstrationError, match=message):
        load_demonstrations(folder)


def test_a_missing_folder(tmp_path):
    with pytest.raises(DemonstrationError, match="nowhere: found no such folder, expected a folder of demonstrations"):
        load_demonstrations(tmp_path / "nowhere")


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("exploded"),)


def test_no_file_runs_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = written(tmp_path / "data")
    (folder / "other.pickle").write_bytes(pickle.dumps(Bomb()))
    (folder / "next" / "other.pickle").write_bytes(pickle.dumps(Bomb()))
    assert load_demonstrations(folder).episodes == 2, "a file that nobody asks for is not read"
    edit_meta(_type="<class 'tensordict.tensorclass.NonTensorData'>")(folder)
    assert load_demonstrations(folder).episodes == 2, "no class is looked up by its name"
    TensorDict({"action": NonTensorData(Bomb(), [6])}, [6]).memmap(str(tmp_path / "hostile"))
    with pytest.raises(DemonstrationError):
        load_demonstrations(tmp_path / "hostile")
    assert not Path("exploded").exists()


# -- demonstrations of another environment ---------------------------------------------------------------------------


def fits(demonstrations: Demonstrations, task: str) -> None:
    env = gym.make(task)
    check_demonstrations(demonstrations, env.observation_space, env.action_space, task)


def test_the_task_or_what_it_customises(original):
    demonstrations = load_demonstrations(original)
    fits(demonstrations, CARTPOLE)
    fits(demonstrations, "CartPole-v1")
    with pytest.raises(DemonstrationError, match=r"found demonstrations of rql_lightning/CartPole-v0, expected those"):
        fits(demonstrations, MOUNTAIN_CAR)


@pytest.mark.parametrize(
    ("change", "task", "message"),
    [
        ({}, MOUNTAIN_CAR, r"found observations of shape \(4,\), expected the environment's \(2,\)"),
        ({"action": torch.rand(6, 1)}, CARTPOLE, r"real numbers of shape \(1,\), expected integers"),
        ({"action": torch.rand(6)}, CARTPOLE, r"real numbers of shape \(\), expected integers"),
        ({"action": torch.tensor([0, 1, 0, 1, 2, 0])}, CARTPOLE, "episode 1, step 1: found an action outside"),
    ],
)
def test_spaces_are_compared_with_the_data(tmp_path, change, task, message):
    with pytest.raises(DemonstrationError, match=message):
        fits(load_demonstrations(written(tmp_path / "data", **change)), task)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(6, dtype=torch.int64), r"integers of shape \(\), expected real numbers of shape \(1,\)"),
        (torch.tensor([0, 0, 0, 0, 0, 1.2]).unsqueeze(-1), "episode 1, step 2: found an action outside"),
    ],
)
def test_continuous_actions(tmp_path, action, message):
    halves = {"observation": contents()["observation"][:, :2], "action": action}
    halves["next_observation"] = contents()["next", "observation"][:, :2]
    with pytest.raises(DemonstrationError, match=message):
        fits(load_demonstrations(written(tmp_path / "data", **halves)), MOUNTAIN_CAR)


def test_described_spaces_are_compared_too(original):
    demonstrations = load_demonstrations(original)
    with pytest.raises(SpaceMismatchError, match="action space"):
        check_demonstrations(demonstrations, demonstrations.observation_space, gym.spaces.Discrete(3), CARTPOLE)


# -- the summary -----------------------------------------------------------------------------------------------------


def test_the_summary(original, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main([str(original)])
    screen = capsys.readouterr().out
    for words in ("rql_lightning/CartPole-v0", "pretrained:cartpole-rl (stochastic, 10 % random actions)", "action 1"):
        assert words in screen
    assert "basic return" in screen and "episodes truncated" in screen


def test_the_summary_of_something_else(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2 and "found an empty folder" in capsys.readouterr().err


def test_histograms():
    assert histogram(torch.tensor([0, 2, 2, 2])) == [("action 0", 0.25), ("action 1", 0.0), ("action 2", 0.75)]
    rows = histogram(torch.tensor([[0.0], [0.0], [1.0], [0.95]]))
    assert [share for _, share in rows] == [0.5] + [0.0] * 8 + [0.5]
    assert sum(share for _, share in histogram(torch.full((5, 2), 0.3))) == 2.0
