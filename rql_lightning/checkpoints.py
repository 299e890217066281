"""Checkpoint files: resolution of shipped names, reading without executing code, and atomic writing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from rql_lightning.errors import CheckpointError

PRETRAINED = Path(__file__).parent / "pretrained"
SCHEME = "pretrained:"


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
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise CheckpointError(
            f"checkpoint {text}: found {found}, expected a checkpoint, such as …/checkpoints/last.ckpt"
        )
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with ``weights_only=True``, so that no code in it is executed.

    Raises:
        CheckpointError: If the file is damaged, contains anything but tensors and plain data, or is not a checkpoint of
            this project.
    """
    checkpoint = read_data(path)
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path}: found a damaged or foreign file ({reason})") from error


def write_atomically(data: Any, path: Path) -> None:
    """Save data to a temporary file and rename it, so that a crash leaves either the old file or the complete new one.

    Args:
        data: Tensors and plain data.
        path: Path of the file; its folder is created if it does not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
