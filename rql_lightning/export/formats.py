"""The formats that a policy can be exported to, by suffix, and the function that writes them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rql_lightning.callbacks.run_folder import writing
from rql_lightning.checkpoints import SAFETENSORS, archive, read_checkpoint, replacing, resolve
from rql_lightning.errors import OutputError, UnsupportedFormatError, require
from rql_lightning.export import graphs
from rql_lightning.export.card import card
from rql_lightning.export.laws import alone, on_cpu, untraceable
from rql_lightning.export.stable_baselines3 import model_zip
from rql_lightning.loading import KINDS, CheckpointPrior, load_policy
from rql_lightning.policies import Policy


def export_policy(
    policy: Policy | str | Path, target: str | Path, run: str | Path | None = None, force: bool = False
) -> Path:
    """Write a policy to a file in the format of its suffix, and a model card to ``<target>.md`` beside it.

    Args:
        policy: A policy, the path of a checkpoint, or the name of a shipped policy, such as
            ``pretrained:cartpole-rl``.
        target: The new file. ``.ckpt`` and ``.safetensors`` hold the policy for :func:`rql_lightning.load_policy`,
            ``.onnx`` and ``.pt2`` (``torch.export``) hold it as a graph of operations that needs nothing of this
            library, and ``.zip`` is a model of Stable-Baselines3.
        run: Folder of the policy's run, from which the card takes settings and evaluations; by default the folder
            that the checkpoint is in, if it is one of a run.
        force: Whether to replace existing files.

    Returns:
        Path of the new file.

    Raises:
        UnsupportedFormatError: If the format cannot hold the policy; names those that can.
        ConfigurationError: If the suffix is unknown, a library is missing, or a file of the run is damaged.
        CheckpointError: If ``policy`` is a path or name of no policy.
        OutputError: If a file exists already or cannot be written.
    """
    target = Path(target)
    require(target.suffix in FORMATS, "target", str(target), f"a file that ends in {', '.join(FORMATS)}")
    given, expected = type(policy).__name__, "a policy, the path of a checkpoint or the name of a shipped policy"
    require(isinstance(policy, Policy | str | Path), "policy", given, expected)
    source = None if isinstance(policy, Policy) else resolve(policy)
    found = on_cpu(policy) if isinstance(policy, Policy) else load_policy(policy)
    found = found.policy if isinstance(found, CheckpointPrior) else found
    known = {"task": found.task, "policy": found.describe()}
    about = known if source is None else read_checkpoint(source)["rql_lightning"]
    beside = target.with_name(f"{target.name}.md")
    _check_free(target, beside, source, force)
    text = card(found, about, target, _run_of(source) if run is None else _folder(run))
    blob = _encoded(found, about, target.suffix)
    with writing(beside), replacing(beside) as page:  # opened first: its longer name may be one that no disk takes
        page.write(text.encode())
        with writing(target), replacing(target) as file:
            file.write(blob)
    return target


def _encoded(policy: Policy, about: dict[str, Any], suffix: str) -> bytes:
    """Return the content of the file.

    Raises:
        UnsupportedFormatError: If the format cannot hold the policy; names those that can.
    """
    try:
        return FORMATS[suffix](policy, about)
    except UnsupportedFormatError as error:
        bare = alone(policy)
        instead = [".onnx", ".pt2"] if untraceable(bare) is None else []
        instead += [".safetensors", ".ckpt"] if bare.describe()["kind"] in KINDS else []
        refused = str(error).partition(")")[0]  # such as "a graph of operations (.pt2, .onnx"
        others = [each for each in instead if each not in refused] or ["no format"]
        raise UnsupportedFormatError(f"{error}; {', '.join(others)} can hold the policy") from error


def _weights(policy: Policy, about: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint of the policy alone has.

    Raises:
        UnsupportedFormatError: If :func:`rql_lightning.load_policy` could not build the policy.
    """
    kind = about["policy"]["kind"]
    if kind not in KINDS:
        raise UnsupportedFormatError(
            f"a checkpoint (.ckpt, .safetensors): found a {kind}, expected one of {list(KINDS)}"
        )
    weights = {f"policy.{name}": value.clone() for name, value in policy.state_dict().items()}
    return {"state_dict": weights, "rql_lightning": about}


def _checkpoint(policy: Policy, about: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(_weights(policy, about), buffer)
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Policy, dict[str, Any]], bytes]] = {
    ".ckpt": _checkpoint,
    SAFETENSORS: lambda policy, about: archive(_weights(policy, about)),
    ".onnx": graphs.onnx,
    ".pt2": graphs.pt2,
    ".zip": lambda policy, about: model_zip(policy),
}
"""Functions from a policy and its description to the content of a file, by suffix."""


def _check_free(target: Path, beside: Path, source: Path | None, force: bool) -> None:
    """Refuse to replace files, before anything is written.

    Raises:
        OutputError: If a file exists and may not be replaced, or no file can have its name.
    """
    for path in (target, beside):
        with writing(path):
            found = _obstacle(path, source, force)
        if found is not None:
            raise OutputError(f"{path}: found {found}")


def _obstacle(path: Path, source: Path | None, force: bool) -> str | None:
    """Return what is in the way of a new file, and what is expected instead; ``None`` if nothing is."""
    expected = "expected the path of a new file"
    if path.is_dir():
        return f"a folder, {expected}"
    if source is not None and path.exists() and path.samefile(source):
        return f"the checkpoint that is exported, {expected}"
    if path.exists() and not force:
        return "a file, expected the path of a new one, or --force (force=True) to replace it"
    return None


def _run_of(source: Path | None) -> Path | None:
    """Return the folder of the run that a checkpoint belongs to, ``<run>/checkpoints/last.ckpt``, or ``None``."""
    return source.resolve().parents[1] if source is not None and source.parent.name == "checkpoints" else None


def _folder(run: str | Path) -> Path:
    require(os.path.isdir(run), "run", str(run), "the folder of a run, with its metrics.json")
    return Path(run)
