"""What a customization returns."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rql_lightning.callbacks.run_folder import writing
from rql_lightning.errors import OutputError, require
from rql_lightning.export import export_policy
from rql_lightning.policies import Policy
from rql_lightning.priors import Prior
from rql_lightning.reporting.console import console
from rql_lightning.reporting.tables import results_table

READ = (".ckpt", ".safetensors")
"""Suffixes of the files that ``load_policy`` reads."""


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

    def report(self, path: str | Path) -> Path:
        """Copy the report of the run, one page that needs no other file.

        Args:
            path: Path of the copy.

        Raises:
            OutputError: If the run has no report, or the copy cannot be written.
        """
        source, target = self.folder / "report.html", Path(path)
        if not source.is_file():
            raise OutputError(f"{source}: found no such file, expected the report of the run")
        with writing(target):
            shutil.copyfile(source, target)
        return target

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the policy, with its prior, to a file that :func:`rql_lightning.load_policy` reads.

        The file of a policy whose prior is a function or a module holds its name, and is read with ``prior=…``.

        Args:
            path: Path of the file, which ends in ``.ckpt`` or ``.safetensors``.
            force: Whether to replace existing files.

        Raises:
            ConfigurationError: If the suffix is another.
            OutputError: If the file exists already or cannot be written.
        """
        expected = f"a file that ends in {' or '.join(READ)}; export writes other formats"
        require(Path(path).suffix in READ, "path", str(path), expected)
        return self.export(path, force)

    def export(self, path: str | Path, force: bool = False) -> Path:
        """Write the policy to a file in the format of its suffix, and a model card beside it.

        Args:
            path: Path of the file (:func:`rql_lightning.export.export_policy`).
            force: Whether to replace existing files.

        Raises:
            UnsupportedFormatError: If the format cannot hold the policy; names those that can.
            ConfigurationError: If the suffix is unknown, or a library is missing.
            OutputError: If a file exists already or cannot be written.
        """
        return export_policy(self.policy, path, self.folder, force)
