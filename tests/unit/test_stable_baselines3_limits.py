"""Small files of Stable-Baselines3 that would take much memory or time: refused before they do."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_models import Task, change_fields, change_weights, make, rewrite
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rql_lightning.errors import CheckpointError, ConfigurationError
from rql_lightning.priors import ObservationStatistics, StableBaselines3Prior
from rql_lightning.priors.stable_baselines3.normalization import read_vec_normalize
from rql_lightning.priors.stable_baselines3.pickles import read_pickle

MIB = 2**20


@pytest.fixture(scope="module")
def ppo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "ppo.zip"
    make("ppo").save(path)
    return path


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        StableBaselines3Prior(str(path), **options)
    message = str(caught.value)
    assert str(path.parent) in message and "\n" not in message and len(message) < 1000


@contextmanager
def at_most(mebibytes: int) -> Iterator[None]:
    """Check the peak of the memory that Python allocates."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * MIB


# -- zips --------------------------------------------------------------------------------------------------------------


def with_entry(source: Path, target: Path, entry: str, blob: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    rewrite(source, target, lambda entries: entries.pop(entry) and None)
    with zipfile.ZipFile(target, "a", method) as file:
        file.writestr(entry, blob)
    return target


@pytest.mark.parametrize("entry", ["_stable_baselines3_version", "data", "policy.pth"])
def test_an_entry_whose_header_states_ten_bytes_is_not_decompressed_beyond(entry, ppo, tmp_path):
    size = 123_456_789
    path = with_entry(ppo, tmp_path / "liar.zip", entry, bytes(size))
    blob, number = path.read_bytes(), struct.pack("<I", size)
    assert blob.count(number) == 2  # in the entry's header and in the directory
    path.write_bytes(blob.replace(number, struct.pack("<I", 10)))
    with at_most(8):
        refused(path, "found a damaged or foreign file .*CRC")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_cannot_be_read_in_pieces_is_refused(method, ppo, tmp_path):
    path = with_entry(ppo, tmp_path / "other.zip", "data", bytes(15 * MIB), method)
    with at_most(8):
        refused(path, f"data: found the compression method {method}, expected none or deflate")


def test_deflated_entries_are_read(ppo, tmp_path):
    """Zips that were packed anew, of more than one chunk."""
    with zipfile.ZipFile(ppo) as archive:
        data = json.loads(archive.read("data"))
    data["note"] = "x" * (3 * MIB)
    path = with_entry(ppo, tmp_path / "deflated.zip", "data", json.dumps(data).encode())
    observations = np.ones((2, 3, 2), np.float32)
    expected = StableBaselines3Prior(str(ppo)).act(observations)
    np.testing.assert_array_equal(StableBaselines3Prior(str(path)).act(observations), expected)


@pytest.mark.parametrize(
    ("entry", "blob", "match"),
    [
        ("data", b'{"a": [' + b"[]," * 2_000_000 + b"[]]}", "data: found more than 200000 values"),
        ("data", b'{"a": [' + b"1," * 4_000_000 + b"1]}", "data: found more than 200000 values"),
        (
            "data",
            b" " * (16 * MIB + 1),
            f"data: found {16 * MIB + 1} bytes when decompressed, expected at most {16 * MIB}",
        ),
        ("_stable_baselines3_version", b"2.3.0" + b" " * MIB, "version: found .* bytes .* expected at most 1024"),
    ],
)
def test_text_that_becomes_many_objects_is_refused(entry, blob, match, ppo, tmp_path):
    path = with_entry(ppo, tmp_path / "text.zip", entry, blob)
    with at_most(40):
        refused(path, match)


class Sized:
    """A tensor by a call that states its size alone, which ``weights_only`` permits."""

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers

    def __reduce__(self) -> Any:
        return (torch.Tensor, (self.numbers,))


def test_tensors_that_only_state_their_size_are_refused(ppo, tmp_path):
    weights = {"action_net.weight": Sized(30_000_000), "action_net.bias": Sized(30_000_000)}
    path = rewrite(ppo, tmp_path / "sized.zip", lambda entries: change_weights(entries, lambda _: weights))
    assert path.stat().st_size < 100_000
    refused(path, "policy.pth: found tensors of 240000000 bytes, more numbers than the file holds")


def test_tensors_that_share_their_numbers_are_read(ppo, tmp_path):
    """Their numbers are counted once."""

    def share(weights: dict[str, Any]) -> None:
        numbers = torch.randn(3 * 12 + 3)
        weights |= {"action_net.weight": numbers[:36].reshape(3, 12), "action_net.bias": numbers[36:]}
        weights |= {"value_net.bias": numbers[:1]} | {f"value_net.more{i}": numbers for i in range(2000)}

    path = rewrite(ppo, tmp_path / "shared.zip", lambda entries: change_weights(entries, share))
    assert StableBaselines3Prior(str(path)).act(np.ones((2, 3, 2), np.float32)).shape == (2,)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(3, device="meta"),
        torch.nested.nested_tensor([torch.ones(2), torch.ones(1)]),
        torch.ones(3).to_sparse(),
    ],
)
def test_tensors_without_numbers_of_their_own_are_refused(tensor, ppo, tmp_path):
    path = rewrite(ppo, tmp_path / "odd.zip", lambda entries: change_weights(entries, lambda _: {"a": tensor}))
    refused(path, "policy.pth.*: found ")


def test_a_zip_of_tensors_with_a_large_pickle_or_directory_is_refused(ppo, tmp_path):
    def change(names: list[str], size: int) -> Callable[[dict[str, bytes]], None]:
        def apply(entries: dict[str, bytes]) -> None:
            with zipfile.ZipFile(buffer := io.BytesIO(), "w") as inner:
                for name in names:
                    inner.writestr(name, bytes(size))
            entries["policy.pth"] = buffer.getvalue()

        return apply

    path = rewrite(ppo, tmp_path / "pickle.zip", change(["archive/data.pkl"], MIB + 1))
    refused(path, "policy.pth: .*more than 1048576 bytes of names and shapes")
    path = rewrite(ppo, tmp_path / "many.zip", lambda entries: entries.update({"policy.pth": b"PK\1\2" * 200_001}))
    refused(path, "policy.pth: .*more than 200000 tensors")


# -- pickles -----------------------------------------------------------------------------------------------------------


SHARED = b")q\x00" + b"".join(b"h%c\x86q%c" % (level, level + 1) for level in range(30))
"""Opcodes of a tuple of twice the same tuple of twice the same tuple …: 2 ** 30 of them to print or to hash."""
PLACES = {
    "a part of a name": (SHARED + b"\x8c\x01a\x93.", "a name of the types tuple and str"),
    "a key that is set": (b"}" + SHARED + b"Ns.", "a key of type tuple"),
    "a key among several": (b"}(" + SHARED + b"Nu.", "a key of type tuple"),
    "a key of a new dictionary": (b"(" + SHARED + b"Nd.", "a key of type tuple"),
    "a class": (SHARED + b")R.", "a damaged pickle"),
    "the arguments of a call": (b"cnumpy\ndtype\n" + SHARED + b"R.", "found numpy.dtype, expected a VecNormalize"),
    "the whole": (SHARED + b".", "found tuple, expected a VecNormalize"),
    "an object that is filled": (SHARED + b"Na.", "a damaged pickle"),
}


def briefly(path: Path) -> str:
    """Return the message with which a file is refused; a printed or hashed ``SHARED`` would take minutes, gigabytes."""
    with at_most(64), pytest.raises(CheckpointError) as caught:
        read_vec_normalize(path)
    message = str(caught.value)
    assert message.startswith((f"vec_normalize {path}: found ", f"vec_normalize {path}, field "))
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("place", PLACES)
def test_tuples_that_share_their_parts_are_never_walked(place, tmp_path):
    opcodes, expected = PLACES[place]
    (tmp_path / "v.pkl").write_bytes(b"\x80\x04" + opcodes)
    assert expected in briefly(tmp_path / "v.pkl")


def statistics() -> VecNormalize:
    vector = VecNormalize(DummyVecEnv([lambda: Task(False, gym.spaces.Box(-np.inf, np.inf, (3,)))]))
    vector.reset()
    return vector


@pytest.mark.parametrize("position", ["type", "state", "shape"])
def test_arrays_whose_description_shares_its_parts(position, tmp_path):
    """In the place of the name, of the state or of the shape of the array of means."""
    dtype = {"type": SHARED + b"\x85", "state": b"\x8c\x02f8\x85", "shape": b"\x8c\x02f8\x85"}[position]
    state = SHARED if position == "state" else b"(K\x03\x8c\x01<NNNt"
    call = b"cnumpy\ndtype\n" + dtype + b"R" + state + b"b"
    shape = SHARED if position == "shape" else b"K\x01\x85"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01" + shape + call + b"\x89C\x08" + bytes(8) + b"tb"
    moments = b"cstable_baselines3.common.running_mean_std\nRunningMeanStd\n)\x81}\x8c\x04mean" + array + b"sb"
    whole = b"cstable_baselines3.common.vec_env.vec_normalize\nVecNormalize\n)\x81}\x8c\x07obs_rms" + moments + b"sb."
    (tmp_path / "v.pkl").write_bytes(b"\x80\x04" + whole)
    assert "field obs_rms.mean: found no array" in briefly(tmp_path / "v.pkl")


def test_megabytes_of_opcodes_are_refused(tmp_path):
    path = tmp_path / "v.pkl"
    for opcode in (b"]", b"("):
        path.write_bytes(b"\x80\x04" + opcode * (3 * MIB) + b".")
        assert "found more than 200000 opcodes" in briefly(path)
    path.write_bytes(b"\x80\x04C" + bytes(4 * MIB))
    assert f"found {4 * MIB + 3} bytes, expected at most {4 * MIB}" in briefly(path)


def test_a_file_of_statistics_is_far_below_the_limits():
    blob = pickle.dumps(statistics())
    assert len(blob) < MIB / 10
    assert read_pickle(blob, lambda name: True).name.endswith("VecNormalize")


@pytest.mark.parametrize("text", [b"I" + b"x" * MIB + b"\n.", b"\x8c\x05\x1b[31m\x8c\x02a\n\x93."])
def test_messages_are_short_and_plain(text, tmp_path):
    (tmp_path / "v.pkl").write_bytes(b"\x80\x04" + text)
    assert "\x1b" not in briefly(tmp_path / "v.pkl")


# -- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: setattr(v, "clip_obs", np.array([1.0, 2.0])), "field clip_obs: found 2 numbers, expected one"),
        (lambda v: setattr(v, "clip_obs", 10**400), "field clip_obs: found an integer without a floating-point value"),
        (lambda v: setattr(v, "epsilon", "x"), "field epsilon: found no array"),
        (lambda v: setattr(v.obs_rms, "mean", np.zeros(3, np.int64)), "field obs_rms.mean: found no array .*i8"),
    ],
)
def test_statistics_that_are_no_numbers(change, match, tmp_path):
    vector = statistics()
    change(vector)
    vector.save(tmp_path / "v.pkl")
    with pytest.raises(CheckpointError, match=match):
        read_vec_normalize(tmp_path / "v.pkl")


@pytest.mark.parametrize("state", [b"}", b"N", b"]", b")", b"(K\x03\x8c\x01|NNNt"])
def test_types_of_numbers_with_a_state_of_another_kind(state, tmp_path):
    dtype = b"cnumpy\ndtype\n\x8c\x02f8\x85R" + state + b"b"
    scalar = b"cnumpy.core.multiarray\nscalar\n" + dtype + b"C\x08" + bytes(8) + b"\x86R"
    moments = b"cstable_baselines3.common.running_mean_std\nRunningMeanStd\n)\x81}\x8c\x04mean" + scalar + b"sb"
    whole = b"cstable_baselines3.common.vec_env.vec_normalize\nVecNormalize\n)\x81}\x8c\x07obs_rms" + moments + b"sb."
    (tmp_path / "v.pkl").write_bytes(b"\x80\x04" + whole)
    assert "field obs_rms.mean: found no array" in briefly(tmp_path / "v.pkl")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"mean": "123456"}, "mean"),
        ({"mean": 3.0}, "mean"),
        ({"mean": ["a"] * 6}, "mean"),
        ({"mean": [True] * 6}, "mean"),
        ({"variance": [None] * 6}, "variance"),
        ({"variance": [-1.0] * 6}, "variance"),
        ({"clip": "ten"}, "clip"),
        ({"clip": 0.0}, "clip"),
        ({"epsilon": None}, "epsilon"),
    ],
)
def test_statistics_given_as_something_else(change, key, ppo):
    given = ObservationStatistics(**{"mean": [0.0] * 6, "variance": [1.0] * 6, **change})
    with pytest.raises(ConfigurationError, match=rf"ppo.zip, vec_normalize, {key}: found "):
        StableBaselines3Prior(str(ppo), vec_normalize=given)


# -- spaces and folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["observation_space", "action_space"])
@pytest.mark.parametrize(("low", "high"), [("1.", "-1."), ("nan", "1."), ("-1.", "nan")])
def test_bounds_that_are_not_in_order(field, low, high, tmp_path):
    make("ppo_box").save(tmp_path / "box.zip")

    def change(space: dict[str, Any]) -> dict[str, Any]:
        count = int(np.prod(space["_shape"]))
        return {**space, "low": f"[{' '.join([low] * count)}]", "high": f"[{' '.join([high] * count)}]"}

    path = rewrite(tmp_path / "box.zip", tmp_path / "c.zip", lambda entries: change_fields(entries, **{field: change}))
    refused(path, f"data, field {field}: found .*bounds")


def test_a_folder_with_a_zip_whose_names_are_no_text(tmp_path):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as file:
        file.writestr("ä", b"")  # flagged as UTF-8
    (tmp_path / "a.zip").write_bytes(buffer.getvalue().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(CheckpointError, match=r"found no zip with an entry policy\.pth"):
        StableBaselines3Prior(str(tmp_path))


@pytest.mark.parametrize("name", ["args.yml", "vec_normalize.pkl"])
def test_a_folder_with_a_file_that_cannot_be_read(name, ppo, tmp_path, monkeypatch):
    (tmp_path / "model.zip").write_bytes(ppo.read_bytes())
    (tmp_path / name).write_bytes(b"- - - env\n    - A\n")
    open_file = io.open

    def refuse(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith(name):
            raise PermissionError(13, "Permission denied", str(file))
        return open_file(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse)  # Python 3.10 has kept io.open from before
    with pytest.raises(CheckpointError, match=f"{name}: found .*Permission denied") as caught:
        StableBaselines3Prior(str(tmp_path))
    assert "\n" not in str(caught.value)
