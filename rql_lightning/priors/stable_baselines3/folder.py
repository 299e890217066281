"""Folders of models as the model hub and RL Zoo lay them out."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from rql_lightning.errors import CheckpointError
from rql_lightning.priors.stable_baselines3.pickles import brief

STATISTICS = ("vec_normalize.pkl", "vecnormalize.pkl")
LARGEST_YAML = 2**20


@dataclass(frozen=True)
class Files:
    """What belongs to a model.

    Attributes:
        model: The zip.
        vec_normalize: File of ``VecNormalize``, or ``None``.
        task: Id of the environment that the model was trained on, or ``None``.
    """

    model: Path
    vec_normalize: Path | None = None
    task: str | None = None


def files_of(path: Path) -> Files:
    """Find the files of a model; of the path of a zip, that is the zip alone.

    Args:
        path: Path of a zip, or of a folder with one model, ``args.yml`` and ``vec_normalize.pkl``.

    Raises:
        CheckpointError: If a folder has no model or several.
    """
    if not path.is_dir():
        return Files(path)
    models = [each for each in sorted(path.glob("*.zip")) if _has_policy(each)]
    if len(models) != 1:
        found = ", ".join(each.name for each in models) or "no zip with an entry policy.pth"
        raise CheckpointError(f"prior {path}: found {found}, expected the path of one model")
    return Files(models[0], statistics_in(path), _task(path / "args.yml"))


def statistics_in(folder: Path) -> Path | None:
    """Return the file of ``VecNormalize`` in a folder, or ``None``."""
    return next((folder / name for name in STATISTICS if (folder / name).is_file()), None)


def _has_policy(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "policy.pth" in archive.namelist()
    except Exception:  # zipfile raises different types for different kinds of damage
        return False


class _PlainLoader(yaml.SafeLoader):
    """YAML as plain data; a tag that asks for an object of Python stands for its arguments."""


def _arguments(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else str(node.value)


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _arguments)


def _task(path: Path) -> str | None:
    """Return the id of the environment of a file ``args.yml``: an ordered dictionary, written as a list of pairs."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_YAML:
            return None
        ((*pairs,),) = yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)
        task = dict(pairs)["env"]
    except (KeyError, OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = brief(f"{type(error).__name__}: {error}")
        raise CheckpointError(f"prior, {path}: found no entry env ({reason}), expected the file of RL Zoo") from error
    return task if isinstance(task, str) else None
