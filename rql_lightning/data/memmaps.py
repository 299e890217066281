"""Memory-mapped TensorDicts read as data alone: no class named in a file is looked up, and nothing is unpickled."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rql_lightning.errors import DemonstrationError

_FLOATS = (torch.float16, torch.float32, torch.float64)
_DTYPES = {
    str(dtype): dtype
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, *_FLOATS)
}


class MemoryMaps:
    """The entries of a folder written by ``TensorDict.memmap``.

    Args:
        folder: Folder with ``meta.json``.

    Raises:
        DemonstrationError: If the folder has no readable ``meta.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            found = "an empty folder" if folder.is_dir() and not any(folder.iterdir()) else "no file meta.json"
            expected = "a folder written by predict or by TensorDict.memmap"
            raise DemonstrationError(f"{folder}: found {found}, expected {expected}") from None
        except (OSError, RecursionError, ValueError) as error:
            raise DemonstrationError(f"{folder / 'meta.json'}: found a damaged file ({error})") from error
        if not isinstance(self.meta, dict):
            raise DemonstrationError(f"{folder / 'meta.json'}: found no entries, expected those of a TensorDict")

    def nested(self, name: str) -> MemoryMaps:
        """Return the entries of a nested TensorDict."""
        return MemoryMaps(self.folder / name)

    def has(self, name: str) -> bool:
        """Return whether there is an entry of this name."""
        return isinstance(self.meta.get(name), dict)

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory.

        Raises:
            DemonstrationError: If there is no such tensor, or its file does not have the described size.
        """
        described: Any = self.meta.get(name)
        shape, dtype = _described(described)
        if shape is None or dtype is None:
            found = "no entry" if described is None else f"an entry {described}"
            expected = "a tensor of numbers of known shape and type"
            raise DemonstrationError(f"{self.folder}: found {found} {name!r}, expected {expected}")
        path = self.folder / f"{name}.memmap"
        expected_bytes = math.prod(shape) * dtype.itemsize
        bytes_found = path.stat().st_size if path.is_file() else None
        if expected_bytes == 0:
            return torch.empty(shape, dtype=dtype)
        if bytes_found != expected_bytes:
            found = "no such file" if bytes_found is None else f"{bytes_found:,} bytes"
            raise DemonstrationError(f"{path}: found {found}, expected {expected_bytes:,} bytes for shape {shape}")
        if path.is_symlink():
            raise DemonstrationError(f"{path}: found a symbolic link, expected a file in this folder")
        values = torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        if dtype == torch.bool and bool((values > 1).any()):
            raise DemonstrationError(f"{path}: found a byte {int(values.max())}, expected 0 or 1 for true or false")
        return values.view(dtype).reshape(shape)


def _described(entry: Any) -> tuple[tuple[int, ...] | None, torch.dtype | None]:
    """Return shape and dtype of a tensor described in ``meta.json``; ``None`` for anything else."""
    if not isinstance(entry, dict) or entry.get("is_nested", False) or not isinstance(entry.get("shape"), list):
        return None, None
    shape = tuple(entry["shape"])
    accepted = all(isinstance(size, int) and size >= 0 for size in shape)
    return (shape if accepted else None), _DTYPES.get(str(entry.get("dtype")))
