"""Every run has a folder to itself, whatever its logger and whoever starts at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from odd_tasks import SharedFolderLogger
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from rql_lightning.algorithms import ResidualSoftQLearning, SoftQLearning
from rql_lightning.callbacks import AtomicCheckpointIO, EvaluationCallback, FrameCheckpoint, run_folder
from rql_lightning.callbacks.run_folder import folder_names, reserve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import OutputError
from rql_lightning.priors import FunctionPrior


def test_many_threads_at_once(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: reserve(tmp_path / "task" / "what"), range(64)))
    assert sorted(folder.name for folder in folders) == sorted(f"version_{number}" for number in range(64))


RESERVE = """
import sys
from pathlib import Path
from rql_lightning.callbacks.run_folder import reserve
sys.stdin.read(1)  # all start at the same moment
print([reserve(Path(sys.argv[1])).name for _ in range(20)])
"""


@pytest.mark.slow
def test_many_processes_at_once(tmp_path):
    command = [sys.executable, "-c", RESERVE, str(tmp_path / "runs")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    names = [name for process in processes for name in eval(process.communicate(timeout=120)[0])]
    assert len(names) == len(set(names)) == 40


def test_numbers_go_on_after_the_highest_and_other_names_do_not_count(tmp_path):
    for name in ("version_3", "version_x", "versions", "version_10_old"):
        (tmp_path / name).mkdir()
    assert reserve(tmp_path).name == "version_4" and reserve(tmp_path).name == "version_5"


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*: found 'Not a directory', expected a place that can be written"):
        reserve(tmp_path / "file" / "runs")


@pytest.mark.parametrize(
    ("env", "what", "names"),
    [
        ("rql_lightning/CartPole-v0", "ResidualSoftQLearning", ("cartpole", "residual_soft_q_learning")),
        ("my_module:my/MountainCarContinuous-v12", "ResidualSAC", ("mountain_car_continuous", "residual_sac")),
        ("CartPole-v1", "half_a_metre", ("cartpole", "half_a_metre")),
    ],
)
def test_names(env, what, names):
    assert folder_names(env, what) == names


def data() -> ReplayDataModule:
    sizes = {"num_envs": 4, "total_frames": 64, "frames_per_batch": 32, "warm_up_frames": 0, "updates_per_batch": 1}
    return ReplayDataModule(env="CartPole-v1", reward="basic", **sizes)


def make_trainer(logger: Any, root: Path, *callbacks: pl.Callback, max_epochs: int = 1) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "plugins": [AtomicCheckpointIO()]}
    settings = {"accelerator": "cpu", "max_epochs": max_epochs, "default_root_dir": root, **quiet}
    return pl.Trainer(logger=logger, callbacks=[*callbacks, FrameCheckpoint()], **settings)


def evaluation() -> EvaluationCallback:
    return EvaluationCallback(episodes=1, episodes_during_fit=1, figures=False)


def train(logger: Any, root: Path) -> pl.Trainer:
    """A run in Python, of seconds."""
    trainer = make_trainer(logger, root, evaluation())
    trainer.fit(SoftQLearning(hidden_sizes=[8]), datamodule=data())
    return trainer


LOGGERS = {
    "shared": lambda root: SharedFolderLogger(str(root / "shared")),
    "none": lambda root: False,
    "tensorboard": lambda root: TensorBoardLogger(root / "logs", name="n", version="fixed"),
    "csv": lambda root: CSVLogger(root / "logs"),
}


@pytest.mark.parametrize("kind", LOGGERS)
def test_two_runs_in_python_do_not_touch_each_other(kind, tmp_path):
    folders = []
    for _ in range(2):
        trainer = train(LOGGERS[kind](tmp_path), tmp_path)
        folders.append(run_folder(trainer))
        written = {path.name for path in folders[-1].rglob("*")}
        assert {"metrics.json", "last.ckpt", "replay-64-rank0.pt"} <= written
    expected = {
        "shared": ["cartpole/soft_q_learning/version_0", "cartpole/soft_q_learning/version_1"],
        "none": ["cartpole/soft_q_learning/version_0", "cartpole/soft_q_learning/version_1"],
        "tensorboard": ["logs/n/fixed", "logs/n/fixed_0"],
        "csv": ["logs/lightning_logs/version_0", "logs/lightning_logs/version_1"],
    }
    assert [str(folder.relative_to(tmp_path)) for folder in folders] == expected[kind]
    assert len(list(tmp_path.rglob("replay-64-rank0.pt"))) == 2


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["none", "tensorboard"])
def test_each_fit_of_a_trainer_has_a_folder_in_which_its_test_stays(tmp_path, kind):
    trainer = train(LOGGERS[kind](tmp_path), tmp_path)
    first = run_folder(trainer)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert run_folder(trainer) == first and len(list(tmp_path.rglob("metrics.json"))) == 1
    before = files(first / "checkpoints") | {first / "metrics.json": (first / "metrics.json").read_bytes()}
    trainer.fit_loop.max_epochs = 2
    trainer.fit(SoftQLearning(hidden_sizes=[8]), datamodule=data())
    second = run_folder(trainer)
    assert before.items() <= files(first).items()
    assert second.parent == first.parent and second.name == {"none": "version_1", "tensorboard": "fixed_0"}[kind]
    assert {"metrics.json", "last.ckpt", "replay-64-rank0.pt"} <= {path.name for path in files(second)}
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert run_folder(trainer) == second and len(list(tmp_path.rglob("metrics.json"))) == 2


def test_a_fit_after_a_test_and_after_a_failure(tmp_path):
    trainer = make_trainer(False, tmp_path, evaluation())
    trainer.test(SoftQLearning(hidden_sizes=[8]), datamodule=data(), verbose=False)
    folders = [run_folder(trainer)]
    failing = SoftQLearning(hidden_sizes=[8])
    failing.update = None
    with pytest.raises(TypeError):
        trainer.fit(failing, datamodule=data())
    folders.append(run_folder(trainer))
    trainer.fit(SoftQLearning(hidden_sizes=[8]), datamodule=data())
    folders.append(run_folder(trainer))
    assert [folder.name for folder in folders] == ["version_0", "version_1", "version_2"]
    assert [(folder / "metrics.json").is_file() for folder in folders] == [True, False, True]


def always(action: int) -> FunctionPrior:
    """A prior that nearly always takes one action."""

    def log_prob(observation: Any, actions: Any) -> Any:
        return ((actions == action) * 0.98 + 0.01).log()

    return FunctionPrior(log_prob)


def test_an_evaluation_callback_of_an_earlier_run_remembers_nothing(tmp_path):
    used, histories, priors = evaluation(), [], []
    for action in (0, 1):
        data_of_run = data()
        data_of_run.reward, data_of_run.add_on_reward = "add_on", f"{__name__}.leaning"
        trainer = make_trainer(False, tmp_path, used)
        model = ResidualSoftQLearning(always(action), hidden_sizes=[8])
        trainer.fit(model, datamodule=data_of_run)
        histories.append([entry["frames"] for entry in used.history])
        priors.append(json.loads((run_folder(trainer) / "prior_metrics.json").read_text())["add_on_return_mean"])
        assert used.prior_summary["add_on_return_mean"] == priors[-1]
    assert histories == [[0, 64], [0, 64]] and priors[0] < 0 < priors[1]
    trainer = make_trainer(False, tmp_path, used)
    trainer.test(ResidualSoftQLearning(always(0), hidden_sizes=[8]), datamodule=data_of_run, verbose=False)
    assert used.prior_summary["add_on_return_mean"] == priors[0] and len(used.history) == 2


def leaning(observation: Any, action: Any, next_observation: Any, info: dict[str, Any]) -> float:
    """Positive for an action of 1."""
    return 2.0 * float(action) - 1.0
