"""The zip of a model of Stable-Baselines3, read without that library and without executing anything in it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rql_lightning.checkpoints import refusal
from rql_lightning.errors import CheckpointError

LIMIT = 256 * 2**20
"""Largest number of decompressed bytes of an entry that is read."""
LIMITS = {"_stable_baselines3_version": 2**10, "data": 16 * 2**20}
"""Smaller limits of entries that are no tensors."""
CHUNK = 2**20
MAX_VALUES = 200_000
"""Largest number of values in ``data``, and of tensors in a file of them: objects take far more memory than text."""
LARGEST_PICKLE = 2**20
"""Largest size of the names and shapes in a file of tensors."""
SERIALIZED = ":serialized:"
EXPECTED = "expected a zip that model.save of Stable-Baselines3 1.6 to 2.9 wrote"


@dataclass(frozen=True)
class SavedModel:
    """What is read of a model.

    Attributes:
        path: Path of the zip, for messages.
        version: Version of Stable-Baselines3 that wrote it.
        fields: The readable part of ``data``; pickled values are left out.
        weights: Weights of the policy by name.
        variables: Further tensors by name, such as the entropy coefficient.
    """

    path: str
    version: str
    fields: dict[str, Any]
    weights: dict[str, Tensor]
    variables: dict[str, Tensor]


def read_model(path: Path) -> SavedModel:
    """Read a zip into memory; nothing is unpacked to disk, and entries that are not needed are not read.

    Raises:
        CheckpointError: If the file is missing, damaged or from another library, if an entry is larger than ``LIMIT``
            or its limit in ``LIMITS`` when decompressed, or if it contains anything but tensors and JSON; names the
            file and the entry.
    """
    name = f"prior {path}"
    if not path.is_file():
        raise CheckpointError(f"{name}: found no such file, {EXPECTED}")
    try:
        with zipfile.ZipFile(path) as archive:
            version = _version(_entry(archive, "_stable_baselines3_version", name), name)
            fields = _fields(_entry(archive, "data", name), f"{name}, data")
            weights = _tensors(_entry(archive, "policy.pth", name), f"{name}, policy.pth")
            variables: dict[str, Tensor] = {}
            if "pytorch_variables.pth" in archive.namelist():
                blob = _entry(archive, "pytorch_variables.pth", name)
                variables = _tensors(blob, f"{name}, pytorch_variables.pth")
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises different types for different kinds of damage
        raise CheckpointError(f"{name}: found a damaged or foreign file ({refusal(error)}), {EXPECTED}") from error
    return SavedModel(str(path), version, fields, weights, variables)


def _entry(archive: zipfile.ZipFile, entry: str, name: str) -> bytes:
    """Return the decompressed bytes of an entry.

    Only deflate is read in pieces of bounded size; other methods of compression decompress all that they are given.
    """
    try:
        info = archive.getinfo(entry)
    except KeyError as error:
        raise CheckpointError(f"{name}: found no entry {entry}, {EXPECTED}") from error
    limit = min(LIMIT, LIMITS.get(entry, LIMIT))
    if info.file_size > limit:
        raise CheckpointError(
            f"{name}, {entry}: found {info.file_size} bytes when decompressed, expected at most {limit}"
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = info.compress_type
        raise CheckpointError(f"{name}, {entry}: found the compression method {method}, expected none or deflate")
    with archive.open(info) as file:  # read(size) decompresses no more than size; read() would decompress everything
        return b"".join(iter(lambda: file.read(CHUNK), b""))


def _version(blob: bytes, name: str) -> str:
    version = blob[:32].decode("ascii", "replace").strip()
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or not (1, 6) <= (int(numbers[1]), int(numbers[2])) < (3, 0):
        raise CheckpointError(f"{name}, _stable_baselines3_version: found {version!r}, {EXPECTED}")
    return version


def _fields(blob: bytes, where: str) -> dict[str, Any]:
    """Return the fields of ``data`` without pickled values, which are never decoded."""
    values = sum(map(blob.count, (b"[", b"{", b",")))  # at most one value more than these
    if values > MAX_VALUES:
        raise CheckpointError(f"{where}: found more than {MAX_VALUES} values, expected the fields of a model")
    try:
        fields = json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: found no JSON ({refusal(error)}), expected it") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{where}: found {type(fields).__name__}, expected an object of fields")
    return {key: _readable(value) for key, value in fields.items()}


def _readable(value: Any) -> Any:
    return {key: each for key, each in value.items() if key != SERIALIZED} if isinstance(value, dict) else value


def _tensors(blob: bytes, where: str) -> dict[str, Tensor]:
    """Return a dictionary of tensors that PyTorch saved.

    PyTorch stores numbers uncompressed, and as many as a tensor has. Anything else could take any amount of memory.

    Raises:
        CheckpointError: If there is anything but finite tensors, or tensors have more numbers than the file.
    """
    try:
        _check_zip(blob)
        tensors = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises different types for different kinds of damage
        reason = refusal(error)
        raise CheckpointError(f"{where}: found a damaged or hostile file ({reason}), expected tensors alone") from error
    if not isinstance(tensors, dict):
        raise CheckpointError(f"{where}: found {type(tensors).__name__}, expected a dictionary of tensors")
    for key, tensor in tensors.items():
        _check_kind(key, tensor, where)
    # A call such as torch.Tensor(n) in the file makes a tensor of any size, in memory that takes no room until read.
    storages = {
        storage.data_ptr(): storage.nbytes() for storage in (each.untyped_storage() for each in tensors.values())
    }
    if sum(storages.values()) > len(blob):
        raise CheckpointError(
            f"{where}: found tensors of {sum(storages.values())} bytes, more numbers than the file holds"
        )
    return {key: _checked(key, tensor, where) for key, tensor in tensors.items()}


def _check_zip(blob: bytes) -> None:
    """Refuse a zip of tensors that torch.save does not write, before anything in it is read.

    Raises:
        ValueError, zipfile.BadZipFile: If it is damaged, or could take more memory than its size.
    """
    if blob.count(b"PK\x01\x02") > MAX_VALUES:  # entries of the directory
        raise ValueError(f"more than {MAX_VALUES} tensors")
    with zipfile.ZipFile(io.BytesIO(blob)) as inner:
        infos = inner.infolist()
    stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
    if not stored or sum(info.file_size for info in infos) > len(blob):
        raise ValueError("compressed or overlapping numbers, which torch.save does not write")
    if any(info.file_size > LARGEST_PICKLE for info in infos if info.filename.endswith(".pkl")):
        raise ValueError(f"more than {LARGEST_PICKLE} bytes of names and shapes")


def _check_kind(key: Any, tensor: Any, where: str) -> None:
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_nested
    if not isinstance(key, str) or not plain or tensor.device.type != "cpu":
        shown = repr(key[:80]) if isinstance(key, str) else f"a key of type {type(key).__name__}"
        raise CheckpointError(f"{where}, {shown}: found {type(tensor).__name__}, expected a tensor with a name")


def _checked(key: str, tensor: Tensor, where: str) -> Tensor:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{where}, {key}: found shape {tuple(tensor.shape)}, more numbers than the file holds")
    if not tensor.is_floating_point():
        expected = "floating-point numbers, as all weights of the classes that are read"
        raise CheckpointError(f"{where}, {key}: found {tensor.dtype}, expected {expected}")
    if not bool(tensor.isfinite().all()):
        raise CheckpointError(f"{where}, {key}: found NaN or infinity, expected finite numbers")
    return tensor.detach().to(torch.float32)
