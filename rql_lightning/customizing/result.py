"""What a customization returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rql_lightning.callbacks.run_folder import writing
from rql_lightning.checkpoints import replacing
from rql_lightning.customizing.arguments import path_of
from rql_lightning.errors import OutputError, require
from rql_lightning.export import export_policy
from rql_lightning.policies import Policy
from rql_lightning.priors import Prior
from rql_lightning.reporting.console import console
from rql_lightning.reporting.tables import results_table

READ = (".ckpt", ".safetensors")
"""Suffixes of the files that ``load_policy`` reads."""
PAGES = (".html", ".htm")
"""Suffixes of reports."""


@dataclass(frozen=True)
class Customized:
    """A customised policy, and what it was before.

    Attributes:
        policy: Customised policy.
        prior: Prior that it customises.
        folder: Folder of the run, with ``config.yaml``, ``report.html``, checkpoints and, where the environment
            renders, videos.
        metrics: Summaries of the evaluation, with the keys of ``metrics.json``, under ``"prior"`` (unless it cannot
            act) and ``"policy"``.
        title: Title of the table.
        metric: Name of the task's metric, or ``None``.
        failures: Figures and videos that could not be made, and why.
    """

    policy: Policy
    prior: Prior
    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]
    title: str
    metric: str | None = None
    failures: tuple[str, ...] = ()

    def table(self) -> Table:
        """Print and return the table of the returns before and after."""
        table = results_table(self.title, self.metrics, self.metric)
        console().print(table)
        return table

    def report(self, path: str | Path, force: bool = False) -> Path:
        """Copy the report of the run, one page that needs no other file.

        Args:
            path: Path of the copy.
            force: Whether to replace an existing file.

        Raises:
            ConfigurationError: If ``path`` is no path, or that of another format.
            OutputError: If the run has no report, or the file exists already, is one of the run's own or cannot
                be written.
        """
        source, target = self.folder / "report.html", Path(path_of("path", path))
        require(target.suffix.lower() in PAGES, "path", str(target), f"a file that ends in {' or '.join(PAGES)}")
        if not source.is_file():
            raise OutputError(f"{source}: found no such file, expected the report of the run")
        self._check_new(target)
        if target.exists() and not force:
            raise OutputError(f"{target}: found a file, expected the path of a new one, or force=True to replace it")
        with writing(target), replacing(target) as file:
            file.write(source.read_bytes())
        return target

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the policy, with its prior, to a file that :func:`rql_lightning.load_policy` reads.

        The file of a policy whose prior is a function or a module holds its name, and is read with ``prior=…``.

        Args:
            path: Path of the file, which ends in ``.ckpt`` or ``.safetensors``.
            force: Whether to replace existing files.

        Raises:
            ConfigurationError: If the suffix is another.
            OutputError: If the file exists already, is a checkpoint of the run or cannot be written.
        """
        target = path_of("path", path)
        expected = f"a file that ends in {' or '.join(READ)}; export writes other formats"
        require(Path(target).suffix in READ, "path", target, expected)
        return self.export(path, force)

    def export(self, path: str | Path, force: bool = False) -> Path:
        """Write the policy to a file in the format of its suffix, and a model card beside it.

        Args:
            path: Path of the file (:func:`rql_lightning.export.export_policy`).
            force: Whether to replace existing files.

        Raises:
            UnsupportedFormatError: If the format cannot hold the policy; names those that can.
            ConfigurationError: If the suffix is unknown, or a library is missing.
            OutputError: If a file exists already, is a checkpoint of the run or cannot be written.
        """
        target = Path(path_of("path", path))
        self._check_new(target)
        return export_policy(self.policy, target, self.folder, force)

    def _check_new(self, target: Path) -> None:
        """Refuse to write over the run's own report and checkpoints.

        Raises:
            OutputError: If the path is that of such a file, or of a folder.
        """
        if target.is_dir():
            raise OutputError(f"{target}: found a folder, expected the path of a new file")
        own = [*self.folder.glob("report.html"), *self.folder.glob("checkpoints/*")]
        if target.exists() and any(target.samefile(each) for each in own):
            raise OutputError(f"{target}: found the run's own {target.name}, expected the path of a new file")
