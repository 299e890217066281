"""Training on two nodes, each with processes and folders of its own, under torchrun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAINING = ["-m", "rql_lightning.train", "fit", "--config", "configs/cartpole/residual_soft_q.yaml"]
TRAINING += ["--data.total_frames=4_096", "--evaluation.episodes=8", "--evaluation.every_n_frames=100_000_000"]
TRAINING += ["--evaluation.figures=false", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
TRAINING += ["--trainer.enable_progress_bar=false"]
TIMES = ("seconds", "per_second")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def result(root: Path) -> dict[str, object]:
    (path,) = root.rglob("metrics.json")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in metrics.items() if not any(each in key for each in TIMES)}


@pytest.mark.slow
def test_two_nodes_are_two_ranks(tmp_path):
    """Same numbers as two ranks of one node; only the first node writes results."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1"]
    launcher += [f"--master_port={free_port()}"]
    nodes = []
    for rank in (0, 1):
        own = ["--trainer.num_nodes=2", "--trainer.devices=1", f"--trainer.default_root_dir={tmp_path / f'node{rank}'}"]
        command = [sys.executable, *launcher, f"--node_rank={rank}", *TRAINING, *own]
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    try:
        assert [node.wait(timeout=600) for node in nodes] == [0, 0]
    finally:
        for node in nodes:
            node.kill()
    here = ["--trainer.devices=2", f"--trainer.default_root_dir={tmp_path / 'one'}"]
    subprocess.run([sys.executable, *TRAINING, *here], cwd=ROOT, env=environment, check=True, timeout=600)
    assert result(tmp_path / "node0") == result(tmp_path / "one")
    assert not list((tmp_path / "node1").rglob("metrics.json"))
