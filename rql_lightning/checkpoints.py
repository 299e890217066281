"""Checkpoint files: shipped ones by name, read without running code, written beside and then renamed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from rql_lightning.errors import CheckpointError

PRETRAINED = Path(__file__).parent / "pretrained"
SCHEME = "pretrained:"


def resolve(path_or_name: str | Path) -> Path:
    """The file behind a path or a shipped policy's name.

    Raises:
        CheckpointError: if there is none.
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
    """Read a checkpoint onto the CPU with ``weights_only=True``, so that nothing in it can run.

    Raises:
        CheckpointError: if it is damaged, holds anything but plain data, or is none of this project's.
    """
    checkpoint = read_data(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("rql_lightning"), dict):
        raise CheckpointError(f"checkpoint {path}: found a file without an entry 'rql_lightning', expected one of ours")
    return checkpoint


def read_data(path: Path) -> Any:
    """``torch.load`` onto the CPU with ``weights_only=True``.

    Raises:
        CheckpointError: if the file cannot be read, is damaged or holds anything but tensors and plain data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way in which a file can be damaged
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"checkpoint {path}: found a damaged or foreign file ({reason})") from error


def write_atomically(data: Any, path: Path) -> None:
    """``torch.save`` beside the target, to the disk, then rename: a crash leaves the old file or the new, never half.

    Args:
        data: Tensors and plain data.
        path: Target; its folder is made.
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
