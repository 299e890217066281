"""Every run has a folder to itself, whatever its logger and whoever starts at the same moment."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger

from rql_lightning.algorithms import SoftQLearning
from rql_lightning.callbacks import AtomicCheckpointIO, EvaluationCallback, FrameCheckpoint, run_folder
from rql_lightning.callbacks.run_folder import folder_names, reserve
from rql_lightning.data import ReplayDataModule
from rql_lightning.errors import OutputError


class SharedFolderLogger(Logger):
    """As W&B's and MLflow's: all runs have one ``save_dir``."""

    name, version = "shared", "1"

    def __init__(self, save_dir: Path) -> None:
        self.folder = str(save_dir)

    @property
    def save_dir(self) -> str:
        return self.folder

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        pass

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


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


def test_many_processes_at_once(tmp_path):
    command = [sys.executable, "-c", RESERVE, str(tmp_path / "runs")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    names = [name for process in processes for name in eval(process.communicate(timeout=120)[0])]
    assert len(names) == len(set(names)) == 60


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


def train(logger: Any, root: Path) -> pl.Trainer:
    """A run in Python, of seconds."""
    sizes = {"num_envs": 4, "total_frames": 64, "frames_per_batch": 32, "warm_up_frames": 0, "updates_per_batch": 1}
    data = ReplayDataModule(env="CartPole-v1", reward="basic", **sizes)
    callbacks = [EvaluationCallback(episodes=1, episodes_during_fit=1, figures=False), FrameCheckpoint()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "plugins": [AtomicCheckpointIO()]}
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=logger, default_root_dir=root, callbacks=callbacks, **quiet
    )
    trainer.fit(SoftQLearning(hidden_sizes=[8]), datamodule=data)
    return trainer


LOGGERS = {
    "shared": lambda root: SharedFolderLogger(root / "shared"),
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


def test_the_same_trainer_stays_in_its_folder(tmp_path):
    trainer = train(False, tmp_path)
    folder = run_folder(trainer)
    trainer.test(trainer.lightning_module, datamodule=trainer.datamodule, verbose=False)
    assert run_folder(trainer) == folder and len(list(tmp_path.rglob("metrics.json"))) == 1
