"""The task alone, training returns, seeds, and what a checkpoint says of the data it goes on from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict

from rql_lightning.algorithms import SoftQLearning
from rql_lightning.callbacks import (
    AtomicCheckpointIO,
    EvaluationCallback,
    FrameCheckpoint,
    FrameProgressBar,
    TrainingMonitor,
)
from rql_lightning.data import EVALUATION_SEEDS, ReplayDataModule, TaskDataModule
from rql_lightning.data.returns import TrainingReturns
from rql_lightning.data.task import training_seed
from rql_lightning.errors import CheckpointError, ConfigurationError
from rql_lightning.loading import load_policy

SMALL: dict[str, Any] = {"num_envs": 4, "total_frames": 64, "frames_per_batch": 16, "updates_per_batch": 2}
SMALL |= {"batch_size": 4, "warm_up_frames": 0, "replay_size": 1000}
CARTPOLE: dict[str, Any] = {"env": "rql_lightning/CartPole-v0", "reward": "total", **SMALL}


def train(folder: Path, data: pl.LightningDataModule, ckpt_path: Path | None = None, **settings: Any) -> Any:
    """Fit with checkpoints; returns the trainer."""
    torch.manual_seed(0)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=1,
        callbacks=[FrameCheckpoint(10**9)],
        plugins=[AtomicCheckpointIO()],
        **{**quiet, **settings},
    )
    trainer.fit(SoftQLearning(hidden_sizes=[8]), datamodule=data, ckpt_path=ckpt_path)
    return trainer


def last(folder: Path) -> Path:
    (path,) = folder.rglob("last.ckpt")
    return path


def replay(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("replay-*.pt")
    return torch.load(path, weights_only=True)


# -- the task alone --------------------------------------------------------------------------------------------------


def test_a_task_is_enough_to_evaluate_on(tmp_path):
    data, evaluation = TaskDataModule(), EvaluationCallback(episodes=2, figures=False)
    trainer = pl.Trainer(
        default_root_dir=tmp_path, logger=False, enable_checkpointing=False, callbacks=[evaluation], accelerator="cpu"
    )
    trainer.test(SoftQLearning(hidden_sizes=[8]), datamodule=data, verbose=False)
    assert (tmp_path / "cartpole/soft_q_learning/version_0/metrics.json").is_file()
    assert (data.frames, data.total_frames) == (0, 100_000)
    env = data.make_env(3)
    assert env.num_envs == 3 and env.single_observation_space == data.observation_space
    env.close()


@pytest.mark.parametrize("settings", [{"replay_sise": 3}, {"total_frame": 3}, {"algorithm": None}])
def test_a_typo_is_refused_in_python_too(settings):
    with pytest.raises(TypeError, match=next(iter(settings))):
        ReplayDataModule(**settings)


@pytest.mark.parametrize(
    ("key", "value"),
    [("omega", "1"), ("omega", float("nan")), ("env_kwargs", [1]), ("warm_up_frames", "1"), ("num_envs", "1")],
)
def test_values_of_another_type_are_named(key, value):
    with pytest.raises(ConfigurationError, match=rf"data\.{key}: found .*, expected "):
        ReplayDataModule(**{key: value})


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError, match="positional"):
        ReplayDataModule("rql_lightning/CartPole-v0")


def test_a_data_module_refers_to_no_algorithm():
    for path in Path(__import__("rql_lightning.data").__file__).parent.joinpath("data").glob("*.py"):
        assert "rql_lightning.algorithms" not in path.read_text(encoding="utf-8"), path


# -- seeds -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31 - 1), st.integers(1, 500), st.integers(0, 7), st.integers(0, 10**9))
def test_training_seeds_stay_below_those_of_evaluation(run_seed, num_envs, rank, frames):
    first = training_seed(run_seed, num_envs, rank, frames)
    assert first >= 0 and first + num_envs <= EVALUATION_SEEDS


def test_ranks_and_resumed_runs_have_seeds_of_their_own():
    firsts = [training_seed(3, 64, rank, frames) for rank in range(4) for frames in range(0, 4096, 256)]
    seeds = [first + index for first in firsts for index in range(64)]
    assert len(set(seeds)) > 0.9 * len(seeds) and len(set(firsts)) == len(firsts)
    assert training_seed(3, 64, 1, 0) == 3 * 10_007 + 64, "as before: the same run of the same seed"


class Random(gym.Env):
    """Observes random numbers, and its state cannot be stored."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 1.0, self.np_random.random() < 0.1, False, {}


@pytest.fixture
def random_env() -> Any:
    gym.register("tests/Random-v0", entry_point=Random)
    yield "tests/Random-v0"
    gym.registry.pop("tests/Random-v0")


def test_two_resumes_without_stored_environments_are_the_same_and_go_on_elsewhere(tmp_path, random_env):
    task = {**SMALL, "env": random_env, "reward": "basic"}
    train(tmp_path / "first", ReplayDataModule(**task))
    for name in ("second", "third"):
        with pytest.warns(UserWarning, match="cannot store its state"):
            torch.manual_seed(17)  # of no consequence: the checkpoint says how the run was seeded
            data = ReplayDataModule(**{**task, "total_frames": 128})
            train(tmp_path / name, data, last(tmp_path / "first"))
    first, second, third = (replay(tmp_path / name) for name in ("first", "second", "third"))
    assert first["env"] is None
    rows = [state["replay"]["_storage"]["_storage"]["observation"] for state in (first, second, third)]
    assert [len(each) for each in rows] == [64, 128, 128]
    assert torch.equal(rows[1], rows[2]) and torch.equal(rows[1][:64], rows[0])
    old, new = ({tuple(row.tolist()) for row in part} for part in (rows[1][:64], rows[1][64:]))
    assert not old & new


@pytest.mark.parametrize(
    ("before", "after", "reason"), [(0, 2, r"data\.processes is 2"), (2, 0, "in processes of its own when")]
)
def test_a_run_with_environments_in_processes_resumes_with_new_episodes(tmp_path, before, after, reason):
    task = {**SMALL, "env": "CartPole-v1", "reward": "basic"}
    train(tmp_path / "first", ReplayDataModule(**task, processes=before))
    assert (replay(tmp_path / "first")["env"] is None) == (before > 0)
    with pytest.warns(UserWarning, match=f"{reason}.*: running episodes are restarted"):
        data = ReplayDataModule(**{**task, "total_frames": 128}, processes=after)
        train(tmp_path / "second", data, last(tmp_path / "first"))
    storage = replay(tmp_path / "second")["replay"]["_storage"]["_storage"]
    assert len(storage["observation"]) == 128


# -- returns of training episodes ------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_training_returns_are_those_of_a_plain_loop(seed, num_envs, turns):
    rng, returns = np.random.default_rng(seed), TrainingReturns(num_envs)
    sums, lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=int)
    for steps in turns:
        reward = rng.normal(size=(num_envs, steps)).astype(np.float32)
        done = rng.random((num_envs, steps)) < rng.choice([0.0, 0.3, 1.0])
        expected = []
        for index in range(num_envs):
            for step in range(steps):
                sums[index], lengths[index] = sums[index] + reward[index, step], lengths[index] + 1
                if done[index, step]:
                    expected.append((sums[index], lengths[index]))
                    sums[index], lengths[index] = 0.0, 0
        restored = TrainingReturns(num_envs)
        restored.restore(returns.state(), same_episodes=True)
        for each in (returns, restored):  # from a checkpoint as without one
            each.add(reward, done)
            found = each.pop()
            np.testing.assert_allclose(found[0], [value for value, _ in expected], rtol=0, atol=1e-5)
            assert found[1].dtype == np.int64 and found[1].tolist() == [length for _, length in expected]
            assert len(each.pop()[0]) == 0


def test_an_episode_whose_beginning_is_unknown_has_no_return():
    returns = TrainingReturns(2)
    returns.restore(None, same_episodes=True)
    returns.add(np.ones((2, 3)), np.array([[False, True, False], [False, False, False]]))
    returns.add(np.ones((2, 1)), np.ones((2, 1), dtype=bool))
    assert [part.tolist() for part in returns.pop()] == [[2.0], [2]]
    returns.restore(None, same_episodes=False)
    assert len(returns.pop()[0]) == 0


def test_finished_training_episodes_are_handed_out_once(fit):
    popped = []

    class Popping(SoftQLearning):
        def update(self, batch: Any) -> dict[str, float]:
            popped.append(self.data.pop_finished_episodes())
            return super().update(batch)

    data = ReplayDataModule(**{**CARTPOLE, "total_frames": 640, "frames_per_batch": 64})
    assert [len(part) for part in data.pop_finished_episodes()] == [0, 0]
    fit(Popping(hidden_sizes=[8], epsilon_final=1.0), data)
    returns, lengths = (np.concatenate(parts) for parts in zip(*popped, strict=True))
    assert 640 - 4 * 100 < lengths.sum() <= 640 and len(lengths) > 8
    assert ((returns > -lengths * 11) & (returns < lengths)).all(), "basic reward at most 1, add-on at most 0 per step"


# -- what a checkpoint says ------------------------------------------------------------------------------------------


def going_on(state: dict[str, Any], annotation: Any = None, **settings: Any) -> ReplayDataModule:
    """A data module that is asked to go on from a state in ``fit``."""
    data = ReplayDataModule(**{**CARTPOLE, **settings})
    data.setup("fit")
    fitting = SimpleNamespace(fn="fit")
    learner = SimpleNamespace(annotation=annotation or {})
    data.trainer = SimpleNamespace(
        state=fitting, world_size=1, global_rank=0, ckpt_path="some/last.ckpt", lightning_module=learner
    )
    data.load_state_dict({**state, "replay_file": None})
    return data


def stored(**settings: Any) -> dict[str, Any]:
    data = ReplayDataModule(**{**CARTPOLE, **settings})
    data.setup("fit")
    return data.state_dict()


WISH = {"env": "CartPole-v1", "add_on_reward": "wishes_of_a_user.one"}
OTHERS = [
    ({}, {"reward": "basic"}, "data.reward: found 'basic', expected 'total'"),
    ({"reward": "add_on"}, {"reward": "total"}, "data.reward: found 'total', expected 'add_on'"),
    ({}, {"omega": 0.5}, "data.omega: found 0.5, expected 1.0"),
    (WISH, {**WISH, "add_on_reward": "wishes_of_a_user.other"}, "data.add_on_reward: found .*other', expected .*one'"),
    ({}, {"env_kwargs": {"max_episode_steps": 9}}, r"data.env_kwargs: found {'max_episode_steps': 9}, expected {}"),
    ({}, {"env": "CartPole-v1", "reward": "basic"}, "data.env: found 'CartPole-v1', expected 'rql_lightning/CartPole"),
    ({}, {"num_envs": 8}, "data.num_envs: found 8, expected 4"),
    ({}, {"replay_size": 999}, "data.replay_size: found 999, expected 1000"),
]
SAME = [
    ({}, {"total_frames": 640, "batch_size": 8, "updates_per_batch": 1, "warm_up_frames": 3, "frames_per_batch": 8}),
    ({"reward": "add_on"}, {"reward": "add_on", "omega": 0.5}),
    ({"reward": "basic"}, {"reward": "basic", "omega": 0.5}),
    ({**WISH, "reward": "basic"}, {"env": "CartPole-v1", "reward": "basic"}),
    ({"env_kwargs": {"sutton_barto_reward": np.bool_(0)}}, {"env_kwargs": {"sutton_barto_reward": False}}),
]


@pytest.fixture
def wishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = "def {}(observation, action, next_observation, info):\n    return 0.0\n\n\n"
    (tmp_path / "wishes_of_a_user.py").write_text(function.format("one") + function.format("other"))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(("before", "now", "message"), OTHERS)
def test_a_buffer_of_something_else_is_not_gone_on_with(wishes, before, now, message):
    with pytest.raises(ConfigurationError, match=f"{message}.*checkpoint some/last.ckpt"):
        going_on(stored(**before), **now)


@pytest.mark.parametrize(("before", "now"), SAME)
@pytest.mark.filterwarnings("ignore:.*no replay buffer beside it")
def test_what_does_not_decide_what_it_holds_may_differ(wishes, before, now):
    assert going_on(stored(**before), **now).frames == 0


@pytest.mark.parametrize(("key", "space"), [("observation_space", "Box"), ("action_space", "Discrete")])
def test_a_buffer_of_other_spaces_is_not_gone_on_with(key, space):
    state = stored()
    state["meaning"][key] = {"type": "Box", "shape": [1], "dtype": "float64", "low": [0.0], "high": [1.0]}
    with pytest.raises(ConfigurationError, match=rf"data.env: found the {key} {space}.*, expected Box.*float64"):
        going_on(state)


@pytest.mark.filterwarnings("ignore:.*no replay buffer beside it")
def test_a_checkpoint_that_does_not_say_what_its_buffer_holds_is_accepted():
    state = stored()
    del state["meaning"]
    with pytest.warns(UserWarning, match="some/last.ckpt is of an earlier version and does not say"):
        assert going_on(state, reward="basic").frames == 0


def test_what_an_algorithm_adds_to_the_buffer_is_compared():
    state = stored()
    state["meaning"]["annotation"] = {"prior_min_scale": 0.01}
    assert going_on(state, {"prior_min_scale": 0.01}).frames == 0
    with pytest.raises(ConfigurationError, match=r"model.prior_min_scale: found 0.5, expected 0.01, as in checkpoint"):
        going_on(state, {"prior_min_scale": 0.5})


def test_arguments_of_environments_are_stored_as_plain_data():
    class Local:
        pass

    kwargs = {"array": np.ones(2), "class": Local, "function": train, "object": Local(), "pair": (1, 2.5), "none": None}
    data = ReplayDataModule(env_kwargs=kwargs)
    data.observation_space, data.action_space = gym.spaces.Box(0, 1, (1,)), gym.spaces.Discrete(2)
    found, name = data.state_dict()["meaning"]["env_kwargs"], f"{__name__}.{Local.__qualname__}"
    expected = {"array": [1.0, 1.0], "class": name, "function": f"{__name__}.train", "object": name}
    assert found == {**expected, "pair": [1, 2.5], "none": None}


class MyData(ReplayDataModule):
    """A user's."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "mine": 3}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.mine = state_dict.get("mine")


@pytest.mark.parametrize(("before", "now"), [(MyData, MyData), (ReplayDataModule, MyData), (MyData, ReplayDataModule)])
def test_subclasses_save_and_resume_like_their_parents(tmp_path, before, now):
    train(tmp_path / "first", before(**CARTPOLE))
    data = now(**{**CARTPOLE, "total_frames": 128})
    train(tmp_path / "second", data, last(tmp_path / "first"))
    assert data.frames == 128 and len(replay(tmp_path / "second")["replay"]["_storage"]["_storage"]["action"]) == 128
    assert now is ReplayDataModule or data.mine == (3 if before is MyData else None)
    with pytest.raises(ConfigurationError, match=r"data\.reward: found 'basic', expected 'total'"):
        train(tmp_path / "third", now(**{**CARTPOLE, "reward": "basic"}), last(tmp_path / "first"))


def test_a_checkpoint_of_an_earlier_version_goes_on_bit_for_bit(tmp_path):
    """Its state is under the name of the class and says less; its buffer was written in full capacity."""
    train(tmp_path / "first", ReplayDataModule(**CARTPOLE))
    train(tmp_path / "second", ReplayDataModule(**{**CARTPOLE, "total_frames": 128}), last(tmp_path / "first"))
    checkpoint, state = torch.load(last(tmp_path / "first"), weights_only=True), replay(tmp_path / "first")
    checkpoint["ReplayDataModule"] = checkpoint.pop("rql_lightning_data")
    del checkpoint["ReplayDataModule"]["meaning"], state["returns"]
    filled = TensorDict().load_state_dict(state["replay"]["_storage"]["_storage"], strict=False)
    unused = torch.zeros_like(filled[:1]).expand(1000 - len(filled))
    state["replay"]["_storage"]["_storage"] = torch.cat([filled, unused]).state_dict()
    (tmp_path / "old").mkdir()
    torch.save(checkpoint, tmp_path / "old" / "last.ckpt")
    torch.save(state, tmp_path / "old" / "replay-64-rank0.pt")
    train(tmp_path / "third", ReplayDataModule(**{**CARTPOLE, "total_frames": 128}), tmp_path / "old" / "last.ckpt")
    second, third = (torch.load(last(tmp_path / name), weights_only=True) for name in ("second", "third"))
    assert second["state_dict"].keys() == third["state_dict"].keys()
    assert all(torch.equal(value, third["state_dict"][key]) for key, value in second["state_dict"].items())
    second, third = (replay(tmp_path / name)["replay"]["_storage"]["_storage"] for name in ("second", "third"))
    assert all(torch.equal(second[key], third[key]) for key in ("observation", "action", "next.reward", "index"))


@pytest.mark.parametrize("state", [None, 3, {}, {"frames": "many"}])
def test_a_checkpoint_without_what_the_data_goes_on_from(tmp_path, state):
    train(tmp_path / "first", ReplayDataModule(**CARTPOLE))
    checkpoint = torch.load(last(tmp_path / "first"), weights_only=True)
    checkpoint.pop("rql_lightning_data")
    checkpoint |= {} if state is None else {"rql_lightning_data": state}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: found .*'rql_lightning_data'"):
        train(tmp_path / "second", ReplayDataModule(**CARTPOLE), tmp_path / "last.ckpt")


class Demonstrations(TaskDataModule):
    """Batches that nobody collects: a fixed set of transitions, some of them per training step."""

    frames_per_turn = 16

    def train_dataloader(self) -> Any:
        module = self

        class Batches:
            def __len__(self) -> int:
                return (module.total_frames - module.frames) // module.frames_per_turn

            def __iter__(self) -> Any:
                for _ in range(len(self)):
                    module.frames += module.frames_per_turn
                    yield demonstrated(torch.Generator().manual_seed(module.frames))

        return Batches()


def demonstrated(generator: torch.Generator) -> TensorDict:
    observation, following = torch.randn(2, 2, 8, 4, generator=generator).unbind(0)
    successor = {
        "observation": following,
        "reward": torch.ones(2, 8),
        "terminated": torch.zeros(2, 8, dtype=torch.bool),
    }
    own = {"observation": observation, "action": torch.randint(2, (2, 8), generator=generator)}
    return TensorDict({**own, "next": TensorDict(successor, [2, 8])}, [2, 8])


def test_another_data_module_on_the_task_trains_saves_and_resumes(tmp_path):
    """Everything that the command line adds to a run works on the task alone."""

    def fit(total_frames: int, folder: Path, ckpt_path: Path | None = None) -> tuple[SoftQLearning, Path]:
        torch.manual_seed(0)
        callbacks = [EvaluationCallback(episodes=2, episodes_during_fit=1, every_n_frames=32, figures=False)]
        callbacks += [FrameProgressBar(), TrainingMonitor(), FrameCheckpoint(every_n_frames=32)]
        trainer = pl.Trainer(
            default_root_dir=folder,
            callbacks=callbacks,
            max_epochs=1,
            accelerator="cpu",
            enable_model_summary=False,
            logger=False,
            plugins=[AtomicCheckpointIO()],
        )
        algorithm = SoftQLearning(hidden_sizes=[8], learning_rate_schedule="constant")
        trainer.fit(algorithm, datamodule=Demonstrations(total_frames=total_frames), ckpt_path=ckpt_path)
        (path,) = folder.rglob("last.ckpt")
        return algorithm, path

    straight, _ = fit(128, tmp_path / "straight")
    _, half = fit(64, tmp_path / "half")
    resumed, path = fit(128, tmp_path / "resumed", half)
    assert straight.updates == resumed.updates == 16 and straight.frames == resumed.frames == 128
    for pair in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(*pair)
    assert load_policy(path).task == "rql_lightning/CartPole-v0"
