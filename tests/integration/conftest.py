"""Running the command line in this process, on budgets of seconds."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rql_lightning.train import main

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "configs/cartpole/residual_soft_q.yaml")
PLAIN = str(ROOT / "configs/cartpole/rl_prior.yaml")
PARKING = str(ROOT / "configs/parking/residual_sac.yaml")
HIGHWAY = str(ROOT / "configs/highway/residual_soft_q.yaml")
SMALL = [
    "--model.hidden_sizes=[16]",
    "--data.num_envs=8",
    "--data.frames_per_batch=64",
    "--data.updates_per_batch=4",
    "--data.batch_size=16",
    "--data.total_frames=1024",
    "--data.warm_up_frames=128",
    "--evaluation.episodes=4",
    "--evaluation.episodes_during_fit=2",
    "--evaluation.every_n_frames=512",
    "--checkpoint.every_n_frames=256",
    "--trainer.enable_progress_bar=false",
    "--evaluation.figures=false",
]

FUNCTIONS = """
import math
import numpy as np
import torch
from torch import Tensor

a_number = 3

def wish(observation, action, next_observation, info):
    return -abs(float(next_observation[0]))

def not_a_number(observation, action, next_observation, info):
    return math.nan

def wrong_shape(observation, action, next_observation, info):
    return np.zeros(3)

def a_word(observation, action, next_observation, info):
    return "much"

def nothing(observation, action, next_observation, info):
    pass

def two_arguments(observation, action):
    return 1.0

def prior(observation: Tensor, action: Tensor) -> Tensor:
    return torch.full(action.shape, 0.5).log()

def unnormalised_prior(observation: Tensor, action: Tensor) -> Tensor:
    return torch.zeros(action.shape)

def prior_that_fails_later(observation: Tensor, action: Tensor) -> Tensor:
    return torch.where(observation.abs().sum(-1) > 0.3, math.nan, -math.log(2))

def sampler_outside(observation: Tensor) -> Tensor:
    return torch.full((len(observation),), 2)

def sampler_of_one_sample(observation: Tensor) -> Tensor:
    return torch.zeros(1, dtype=torch.int64)

def sampler_that_fails_later(observation: Tensor) -> Tensor:
    return torch.where(observation.abs().sum(-1) > 0.3, math.nan, 1.0)
"""


class CommandLineRunner:
    """``run("fit", "--data.total_frames=…")`` with the small budgets above, in a folder of its own."""

    def __init__(self, folder: Path, task: str = "cartpole", config: str = CONFIG) -> None:
        self.root, self.task, self.config = folder / "runs", task, config

    def arguments(self, command: str, *arguments: str, config: str | None = None) -> list[str]:
        config = config or self.config
        return [command, "--config", config, *SMALL, f"--trainer.default_root_dir={self.root}", *arguments]

    def __call__(self, command: str, *arguments: str, config: str | None = None) -> Any:
        return main(self.arguments(command, *arguments, config=config))

    def folder(self, version: int = 0, what: str = "residual_soft_q") -> Path:
        return self.root / self.task / what / f"version_{version}"

    def checkpoint(self, version: int = 0) -> Path:
        return self.folder(version) / "checkpoints" / "last.ckpt"

    def metrics(self, version: int = 0) -> dict[str, Any]:
        return json.loads((self.folder(version) / "metrics.json").read_text())

    def replay(self, version: int = 0, rank: int = 0) -> dict[str, Any]:
        (path,) = (self.folder(version) / "checkpoints").glob(f"replay-*-rank{rank}.pt")
        return torch.load(path, weights_only=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLineRunner:
    monkeypatch.setattr(sys, "argv", ["train"])
    return CommandLineRunner(tmp_path)


@pytest.fixture
def highway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLineRunner:
    """``run`` for Highway."""
    monkeypatch.setattr(sys, "argv", ["train"])
    return CommandLineRunner(tmp_path, "highway", HIGHWAY)


@pytest.fixture
def parking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLineRunner:
    """``run`` for Parking, short episodes, without what takes time or needs the prior's networks."""
    monkeypatch.setattr(sys, "argv", ["train"])
    return CommandLineRunner(tmp_path, "parking", PARKING)


@pytest.fixture
def refused(run: CommandLineRunner, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run what must fail with exit code 2; returns what stood on the screen."""

    def refused(command: str, *arguments: str, config: str = CONFIG) -> str:
        with pytest.raises(SystemExit) as stop:
            run(command, *arguments, config=config)
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        return " ".join(message.split())

    return refused


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> CommandLineRunner:
    """A run of residual soft Q-learning, and one of plain soft Q-learning named ``plain``."""
    runner = CommandLineRunner(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train"])
        runner("fit")
        runner("fit", "--run_name=plain", config=PLAIN)
    return runner


@pytest.fixture
def among_finished_runs(
    finished_runs: CommandLineRunner, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLineRunner]:
    """A ``run`` where there are runs already, none of whose files it may change or remove."""

    def contents() -> dict[Path, str]:
        folders = [finished_runs.folder(what=what) for what in ("residual_soft_q", "plain")]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    monkeypatch.setattr(sys, "argv", ["train"])
    before = contents()
    assert finished_runs.checkpoint() in before and len(before) >= 8
    yield finished_runs
    assert before.items() <= contents().items()


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module ``functions_of_a_user`` to import."""
    (tmp_path / "functions_of_a_user.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "functions_of_a_user", raising=False)
