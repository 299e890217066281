"""Plans on the engines, with real runs: the same results wherever they run, also after a worker was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.metrics import read_metrics
from rql_lightning.reproduce.engines import LocalEngine, RayEngine, SlurmEngine
from rql_lightning.reproduce.execution import execute
from rql_lightning.reproduce.jobs import JobError, last_lines, product, read_state, run_job
from rql_lightning.reproduce.plan import Job, Plan

ROOT = Path(__file__).parents[2]
SHORT = {
    "data.total_frames": "2_048",
    "evaluation.episodes": "4",
    "evaluation.every_n_frames": "100_000_000",
    "evaluation.figures": "false",
    "checkpoint.every_n_frames": "256",
}
TIMES = ("seconds", "frames_per_second", "started", "finished")


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


def plan(**settings: str) -> Plan:
    prior = Job("prior", "fit", "configs/cartpole/rl_prior.yaml", 0, {**SHORT, **settings})
    path = {"model.prior.init_args.path": "{prior}/checkpoints/last.ckpt"}
    return Plan(
        "two", "", (prior, Job("customised", "fit", "configs/cartpole/residual_soft_q.yaml", 0, {**path, **SHORT}))
    )


def results(out: Path) -> dict[str, Any]:
    """What does not depend on the machine's speed, of both runs."""
    found = {name: read_metrics(product(out, name) / "metrics.json") for name in ("prior", "customised")}
    return {
        name: {key: value for key, value in metrics.items() if not any(each in key for each in TIMES)}
        for name, metrics in found.items()
    }


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    before = Path.cwd()
    os.chdir(ROOT)
    out = tmp_path_factory.mktemp("local")
    try:
        outcome = execute(plan(), out, LocalEngine(1))
    finally:
        os.chdir(before)
    assert outcome.finished == ["prior", "customised"]
    return out


def test_a_plan_on_this_machine(local):
    found = results(local)
    assert found["prior"]["frames"] >= 2048 and found["customised"]["episodes"] == 4
    state = read_state(local, "customised")
    assert state is not None and state.peak_memory_bytes > 1e8 and state.seconds > 1
    assert any(str(product(local, "prior")) in word for word in state.command)
    assert "metrics: " in last_lines(local, "customised")


def test_a_killed_worker_leaves_a_job_that_goes_on_to_the_same_result(local, tmp_path):
    script = "import sys; from rql_lightning.reproduce.jobs import run_job; run_job(sys.argv[1], 'prior')"
    plan().write(tmp_path)
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    # Its process trains on; the next worker waits for it, and then goes on from its checkpoint.
    run_job(str(tmp_path), "prior")
    outcome = execute(plan(), tmp_path, LocalEngine(1))
    assert outcome.finished == ["prior", "customised"]
    assert results(tmp_path) == results(local)


def test_a_job_that_fails_says_why(tmp_path):
    plan(**{"model.gamma": "7"}).write(tmp_path)
    with pytest.raises(JobError, match=r"prior: exit code 2\n(.|\n)*model.gamma: found 7"):
        run_job(str(tmp_path), "prior")
    assert json.loads((tmp_path / "jobs/prior/job.json").read_text())["returncode"] == 2


@pytest.mark.slow
def test_the_same_results_with_submitit(local, tmp_path):
    pytest.importorskip("submitit")
    engine = SlurmEngine(tmp_path / "slurm", minutes=10, partition=None, memory_gb=4, cluster="local")
    assert execute(plan(), tmp_path, engine).finished == ["prior", "customised"]
    assert results(tmp_path) == results(local)


def test_a_cluster_that_is_not_there(tmp_path):
    pytest.importorskip("submitit")
    with pytest.raises(ConfigurationError, match="--engine slurm"):
        SlurmEngine(tmp_path / "slurm", minutes=10, partition=None, memory_gb=4)


@pytest.mark.slow
def test_the_same_results_on_two_nodes_of_ray_one_of_which_dies(local, tmp_path):
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    node = cluster.add_node(num_cpus=1)
    try:
        engine = RayEngine(cluster.address)
        plan().write(tmp_path)
        future = engine.submit(tmp_path, "prior")
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("last.ckpt")) and time.monotonic() < deadline:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        future.result(timeout=240)
        assert execute(plan(), tmp_path, engine).finished == ["prior", "customised"]
        assert results(tmp_path) == results(local)
    finally:
        engine.ray.shutdown()
        cluster.shutdown()


@pytest.mark.slow
def test_a_ray_cluster_that_is_not_there():
    pytest.importorskip("ray")
    with pytest.raises(ConfigurationError, match=r"--address: found '127\.0\.0\.1:1'"):
        RayEngine("127.0.0.1:1")
