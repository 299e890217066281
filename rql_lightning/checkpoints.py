"""Checkpoint files: resolution of shipped names, reading without executing code, and atomic writing."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from rql_lightning.errors import CheckpointError, ConfigurationError

PRETRAINED = Path(__file__).parent / "pretrained"
SCHEME = "pretrained:"
SAFETENSORS = ".safetensors"
"""Suffix of archives (:func:`archive`)."""
_SPELLED = {math.inf: "Infinity", -math.inf: "-Infinity"}


def resolve(path_or_name: str | Path) -> Path:
    """Return the path of a checkpoint, given its path or the name of a shipped policy.

    Raises:
        CheckpointError: If the file does not exist.
    """
    text = str(path_or_name)
    if text.startswith(SCHEME):
        path = PRETRAINED / f"{text[len(SCHEME) :]}.ckpt"
        if path.parent != PRETRAINED or not path.is_file():
            names = sorted(f"{SCHEME}{file.stem}" for file in PRETRAINED.glob("*.ckpt"))
            raise CheckpointError(f"checkpoint: found {text!r}, expected one of {names}")
        return path
    path = Path(text)
    if not os.path.isfile(path):  # false for names that no file can have, too
        found = "a folder" if os.path.isdir(path) else "no such file"
        raise CheckpointError(
            f"checkpoint {text}: found {found}, expected a checkpoint, such as …/checkpoints/last.ckpt"
        )
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, or an archive of safetensors, onto the CPU without executing any code in it.

    Raises:
        CheckpointError: If the file is damaged, contains anything but tensors and plain data, or is not a checkpoint of
            this project.
        ConfigurationError: If it is an archive and safetensors is not installed.
    """
    checkpoint = _read_archive(path) if path.suffix == SAFETENSORS else read_data(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("rql_lightning"), dict):
        raise CheckpointError(f"checkpoint {path}: found a file without an entry 'rql_lightning', expected one with it")
    return checkpoint


def read_data(path: Path) -> Any:
    """Read a file onto the CPU by ``torch.load`` with ``weights_only=True``.

    Raises:
        CheckpointError: If the file cannot be read, is damaged or contains anything but tensors and plain data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises different types for different kinds of damage
        raise CheckpointError(f"checkpoint {path}: found a damaged or foreign file ({refusal(error)})") from error


def refusal(error: Exception) -> str:
    """Return why a file could not be read, in one line, without PyTorch's advice to read it as code instead."""
    text = str(error)
    if "weights_only" in text:
        named = re.search(r"GLOBAL ([\w.]+)", text)
        return "something other than tensors and plain data" + (f": {named[1]}" if named else "")
    return text.splitlines()[0] if text else type(error).__name__


def archive(checkpoint: dict[str, Any]) -> bytes:
    """Return an archive that :func:`read_checkpoint` reads: safetensors, with the description as JSON in the header.

    Args:
        checkpoint: Weights by name under ``state_dict``, and plain data under ``rql_lightning``.

    Raises:
        ConfigurationError: If safetensors is not installed.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in checkpoint["state_dict"].items()}
    metadata = {"format": "pt", "rql_lightning": to_json(checkpoint["rql_lightning"])}
    return _safetensors(f"an archive ({SAFETENSORS})").torch.save(weights, metadata)


def to_json(data: Any) -> str:
    """Return plain data as JSON.

    JSON has no infinite numbers, such as the bounds of a space; they become the strings "Infinity" and "-Infinity".
    """
    return json.dumps(_spelled(data), allow_nan=False)


def _read_archive(path: Path) -> dict[str, Any]:
    """Read an archive onto the CPU: a header of JSON and the numbers of tensors, in which there is no code.

    Raises:
        CheckpointError: If the file is damaged or is not an archive of this project.
        ConfigurationError: If safetensors is not installed.
    """
    library = _safetensors(f"checkpoint {path}")
    try:
        with library.safe_open(path, framework="pt") as file:
            about = (file.metadata() or {}).get("rql_lightning", "null")
            weights: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {"state_dict": weights, "rql_lightning": _unspelled(json.loads(about))}
    except Exception as error:  # the library raises an exception of its own, and JSON several
        raise CheckpointError(f"checkpoint {path}: found a damaged or foreign file ({refusal(error)})") from error


def _safetensors(what: str) -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        expected = "pip install 'rql-lightning[safetensors]', which brings it"
        raise ConfigurationError(f"{what}: found no library safetensors, expected {expected}") from error
    return safetensors


def _spelled(data: Any) -> Any:
    """Return plain data with infinite numbers as strings."""
    if isinstance(data, dict):
        return {key: _spelled(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_spelled(value) for value in data]
    return _SPELLED.get(data, data) if isinstance(data, float) else data


def _unspelled(data: Any) -> Any:
    """Return the result of :func:`_spelled` as it was."""
    if isinstance(data, dict):
        return {key: _unspelled(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_unspelled(value) for value in data]
    return float(data) if isinstance(data, str) and data in _SPELLED.values() else data


def check_weight(name: str, value: Any, shape: torch.Size) -> None:
    """Refuse a weight of another shape than described, or that is a view of fewer numbers.

    Raises:
        CheckpointError: If the value does not fit; names it.
    """
    found = getattr(value, "shape", None)
    if found != shape:
        text = "none" if found is None else f"shape {tuple(found)}"
        raise CheckpointError(f"{name}: found {text}, expected shape {tuple(shape)}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise CheckpointError(f"{name}: found more numbers than are stored, expected shape {tuple(shape)} of its own")


def write_atomically(data: Any, path: Path) -> None:
    """Save data by ``torch.save``, as :func:`replacing` writes.

    Args:
        data: Tensors and plain data.
        path: Path of the file; its folder is created if it does not exist.
    """
    with replacing(path) as file:
        torch.save(data, file)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file and rename it afterwards: a crash leaves either the old file or the complete new one.

    Args:
        path: Path of the file; its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
