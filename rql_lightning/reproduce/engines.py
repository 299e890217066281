"""Where the jobs of a plan run: on this machine, on a Slurm cluster, or on a Ray cluster.

An engine only starts :func:`rql_lightning.reproduce.jobs.run_job` somewhere that sees the plan's folder. What is on
disk says what is left to do: an engine may die, and another one go on.
"""

from __future__ import annotations

import math
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from rql_lightning.errors import ConfigurationError
from rql_lightning.reproduce.extras import required
from rql_lightning.reproduce.jobs import run_job, stop_running

ATTEMPTS = 3
"""How often a job is started anew on a Ray cluster whose workers die."""


class Engine(Protocol):
    """Runs jobs.

    Attributes:
        slots: Number of jobs to start at a time, in the plan's order; infinite where a cluster has a queue of its own.
    """

    slots: float

    def submit(self, out: Path, name: str) -> Future[None]:
        """Start a job as soon as there is room; the future raises what :func:`run_job` raises."""

    def stop(self) -> None:
        """Ask running jobs to save a checkpoint and to end, and start no others."""


class LocalEngine:
    """Processes on this machine.

    Args:
        jobs: Number of jobs at a time; at most one per core.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.pool, self.slots = ThreadPoolExecutor(jobs), float(jobs)

    def submit(self, out: Path, name: str) -> Future[None]:
        """Start a job in a process."""
        return self.pool.submit(run_job, str(out), name)

    def stop(self) -> None:
        """Send SIGTERM to the processes."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        stop_running()


class Resumable:
    """What submitit runs. On Slurm's signal before a time limit or preemption, a job is saved and queued again."""

    def __call__(self, out: str, name: str) -> None:
        """Run the job."""
        run_job(out, name)

    def checkpoint(self, out: str, name: str) -> Any:
        """Stop the job's process, which saves a checkpoint, and return what is to be queued."""
        stop_running()
        return required("submitit", "slurm").helpers.DelayedSubmission(self, out, name)


class SlurmEngine:
    """Jobs of a Slurm cluster, through submitit.

    Args:
        folder: Folder for submitit's files, which all nodes see.
        minutes: Time limit of a job; one that reaches it is queued again and goes on.
        partition: Slurm partition; ``None`` for the default one.
        memory_gb: Memory of a job.
        cluster: submitit's name of the cluster: ``slurm``, or ``local`` for processes on this machine.
    """

    slots = math.inf

    def __init__(
        self, folder: Path, minutes: int, partition: str | None, memory_gb: float, cluster: str = "slurm"
    ) -> None:
        submitit = required("submitit", "slurm")
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise ConfigurationError(f"--engine slurm: {error}; expected a machine of a Slurm cluster") from error
        self.executor.update_parameters(timeout_min=minutes, cpus_per_task=1, mem_gb=memory_gb, name="rql_lightning")
        if partition is not None:
            self.executor.update_parameters(slurm_partition=partition)
        self.started: list[Any] = []
        self.watchers = ThreadPoolExecutor(64)

    def submit(self, out: Path, name: str) -> Future[None]:
        """Queue a job."""
        job = self.executor.submit(Resumable(), str(out.resolve()), name)
        self.started.append(job)
        return self.watchers.submit(job.result)

    def stop(self) -> None:
        """Cancel the queued and the running jobs."""
        for job in self.started:
            job.cancel(check=False)
        self.watchers.shutdown(wait=False, cancel_futures=True)


class RayEngine:
    """Tasks of a Ray cluster whose nodes see the plan's folder.

    Args:
        address: Address of the cluster; ``None`` starts one on this machine.
    """

    slots = math.inf

    def __init__(self, address: str | None) -> None:
        self.ray = required("ray", "ray")
        try:
            _reach(address)  # Ray itself tries for minutes
            self.ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigurationError(f"--address: found {address!r}: {reason}; expected a running cluster") from error
        # A task whose worker dies is started again; one that raises an error is not.
        self.task = self.ray.remote(num_cpus=1, max_retries=ATTEMPTS)(run_job)
        self.references: list[Any] = []

    def submit(self, out: Path, name: str) -> Future[None]:
        """Start a task."""
        reference = self.task.remote(str(out.resolve()), name)
        self.references.append(reference)
        future: Future[None] = reference.future()
        return future

    def stop(self) -> None:
        """Cancel the tasks."""
        for reference in self.references:
            self.ray.cancel(reference)


def _reach(address: str | None) -> None:
    """Connect to a cluster of the form ``host:port`` or ``ray://host:port``, within some seconds.

    Raises:
        OSError: If nothing listens there.
    """
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()
