"""Experiments as plans: jobs of the ordinary command line that use each other's products."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from rql_lightning import __version__
from rql_lightning.errors import ConfigurationError, OutputError

PRODUCT = re.compile(r"\{([\w./=+-]+)\}")
"""``{name}`` in a setting stands for the run folder of the job of that name; ``{key: value}`` is a dictionary."""
FILE = "plan.json"


@dataclass(frozen=True)
class Row:
    """What a job's result is a result of.

    Attributes:
        task: Name of the task's folder of configs, such as ``mountain_car``.
        policy: Row of the table, such as ``RL Customized``.
        seed: Training seed.
    """

    task: str
    policy: str
    seed: int


@dataclass(frozen=True)
class Job:
    """One run of ``python -m rql_lightning.train``, in a process and a folder of its own.

    Attributes:
        name: Name in the plan and of its folder, such as ``cartpole/residual_soft_q/0``.
        subcommand: ``fit``, ``test`` or ``predict``.
        config: Path of the config.
        seed: Training seed.
        settings: Further settings by key; ``{name}`` in a value stands for the run folder of another job, which runs
            first.
        row: What the result is a result of; ``None`` for a job that others need and no table shows.
        estimate: Seconds that it is expected to take, on one core; ``None`` where that is not known.
        pictures: Settings that no result depends on, such as whether a video is made.
    """

    name: str
    subcommand: str
    config: str
    seed: int
    settings: Mapping[str, str] = field(default_factory=dict)
    row: Row | None = None
    estimate: float | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the jobs whose products the settings name."""
        return tuple(dict.fromkeys(name for value in self.settings.values() for name in PRODUCT.findall(value)))

    def words(self, folder: Path, products: Mapping[str, Path]) -> list[str]:
        """Return the arguments of ``python``.

        Args:
            folder: Folder of the job.
            products: Run folders of the jobs that it needs, by name.
        """
        words = ["-m", "rql_lightning.train", self.subcommand, "--config", self.config]
        words += [f"--seed_everything={self.seed}", f"--trainer.default_root_dir={folder}"]
        filled = {
            key: PRODUCT.sub(lambda found: str(products[found[1]]), value) for key, value in self.settings.items()
        }
        return [*words, *(f"--{key}={value}" for key, value in {**filled, **self.pictures}.items())]


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which each follows those that it needs.

    Args:
        name: Name of the experiment, such as ``table1``.
        command: Command line that the plan was made by.
        jobs: The jobs.

    Raises:
        ConfigurationError: If two jobs have one name, or a job needs one that does not precede it.
    """

    name: str
    command: str
    jobs: tuple[Job, ...]

    def __post_init__(self) -> None:
        known: set[str] = set()
        for job in self.jobs:
            missing = [name for name in job.needs if name not in known]
            if missing or job.name in known:
                found = f"that needs {', '.join(missing)}" if missing else "of which there is another"
                raise ConfigurationError(f"plan {self.name}: found a job {job.name!r} {found}, expected it before")
            known.add(job.name)

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, name: str) -> Job:
        return next(job for job in self.jobs if job.name == name)

    def with_settings(self, settings: Mapping[str, str]) -> Plan:
        """Return the plan with settings added to each job; they take precedence."""
        jobs = [replace(job, settings={**job.settings, **settings}) for job in self.jobs]
        return replace(self, jobs=tuple(jobs))

    def fingerprints(self) -> dict[str, str]:
        """Return what each job's result depends on, by name: its command, its config's text, the package's version.

        Raises:
            ConfigurationError: If a config does not exist.
        """
        known: dict[str, str] = {}
        for job in self.jobs:
            path = Path(job.config)
            if not path.is_file():
                expected = "expected an existing file; run the command in the project's folder"
                raise ConfigurationError(f"plan {self.name}: found no file {job.config}, {expected}")
            told = [__version__, job.subcommand, path.read_text(encoding="utf-8"), job.seed, dict(job.settings)]
            told += [known[name] for name in job.needs]
            known[job.name] = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        return known

    def write(self, out: Path) -> None:
        """Write ``<out>/plan.json``, from which engines run the jobs."""
        content = {"version": __version__, **asdict(self)}
        beside = out / f".{FILE}.tmp"
        try:
            out.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            beside.replace(out / FILE)
        except OSError as error:
            raise OutputError(f"{out}: found {error.strerror!r}, expected a folder that can be written") from error


def read_plan(out: Path) -> Plan:
    """Read ``<out>/plan.json``.

    Raises:
        ConfigurationError: If there is none, or it is not a plan.
    """
    path = out / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        jobs = [{**job, "row": None if job["row"] is None else Row(**job["row"])} for job in content["jobs"]]
        return Plan(content["name"], content["command"], tuple(Job(**job) for job in jobs))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path}: found no plan, expected one written by this command") from error


def joined(name: str, command: str, parts: Iterable[Iterable[Job]]) -> Plan:
    """Return a plan of several lists of jobs, in which a job that occurs more than once is run once."""
    jobs = {job.name: job for part in parts for job in part}
    return Plan(name, command, tuple(jobs.values()))
