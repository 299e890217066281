"""Files of Stable-Baselines3 that are damaged, foreign or hostile: refused in a line that names them, or harmless."""

from __future__ import annotations

import base64
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_models import Task, change_fields, change_weights, hostile_base64, hostile_pickle, make, rewrite
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from rql_lightning.errors import CheckpointError, ConfigurationError, SpaceMismatchError
from rql_lightning.priors import StableBaselines3Prior
from rql_lightning.priors.stable_baselines3 import archive
from rql_lightning.priors.stable_baselines3.normalization import read_vec_normalize

OBSERVATIONS = np.random.default_rng(0).normal(size=(8, 3, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for kind in ("ppo", "sac", "sac_gsde", "dqn"):
        make(kind).save(folder / f"{kind}.zip")
    return {kind: folder / f"{kind}.zip" for kind in ("ppo", "sac", "sac_gsde", "dqn")}


@pytest.fixture
def canary(tmp_path) -> Path:
    """A file that a hostile pickle creates; it must not be there after the test."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


def refused(path: Path, match: str, error: type[Exception] = CheckpointError, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        StableBaselines3Prior(str(path), **options)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda entries: entries.pop(name) and None


# -- hostile files ---------------------------------------------------------------------------------------------------


def test_the_canary_sings(tmp_path):
    """Unpickled, the hostile fields do create the file."""
    pickle.loads(base64.b64decode(hostile_base64(tmp_path / "sings"))).close()
    assert (tmp_path / "sings").exists()


def test_pickled_fields_are_never_decoded(models, canary, tmp_path):
    """All of them hostile, and new ones: the prior is the same."""

    def poison(entries: dict[str, bytes]) -> None:
        blob = hostile_base64(canary)

        def everywhere(value: Any) -> Any:
            return {**value, ":serialized:": blob} if isinstance(value, dict) else value

        fields = ("policy_class", "observation_space", "action_space", "policy_kwargs", "lr_schedule")
        change_fields(entries, **dict.fromkeys(fields, everywhere), more={":type:": "x", ":serialized:": blob})

    path = rewrite(models["sac"], tmp_path / "poisoned.zip", poison)
    assert canary.name.encode() not in path.read_bytes()  # it is in base64
    expected = StableBaselines3Prior(str(models["sac"])).act(OBSERVATIONS)
    np.testing.assert_array_equal(StableBaselines3Prior(str(path)).act(OBSERVATIONS), expected)


@pytest.mark.parametrize("entry", ["policy.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("form", ["plain pickle", "PyTorch's zip"])
def test_hostile_weights_are_refused(entry, form, models, canary, tmp_path):
    def poison(entries: dict[str, bytes]) -> None:
        if form == "plain pickle":
            entries[entry] = hostile_pickle(canary)
            return
        buffer = io.BytesIO(entries[entry])
        with zipfile.ZipFile(buffer) as inner:
            parts = {name: inner.read(name) for name in inner.namelist()}
        parts = {name: hostile_pickle(canary) if name.endswith("data.pkl") else blob for name, blob in parts.items()}
        with zipfile.ZipFile(buffer := io.BytesIO(), "w") as inner:
            for name, blob in parts.items():
                inner.writestr(name, blob)
        entries[entry] = buffer.getvalue()

    refused(rewrite(models["sac"], tmp_path / "poisoned.zip", poison), rf"{entry}: found a damaged or hostile file")


@pytest.mark.parametrize("entry", ["data", "policy.pth", "pytorch_variables.pth"])
def test_an_entry_that_becomes_too_large_is_refused_before_it_is_decompressed(entry, models, tmp_path, monkeypatch):
    """A thousandth of its size in the zip; with a limit of a megabyte instead of 256."""
    assert archive.LIMIT == 256 * 2**20
    monkeypatch.setattr(archive, "LIMIT", 2**20)
    path = rewrite(models["sac"], tmp_path / "bomb.zip", without(entry))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(entry, bytes(2**20 + 1))
    assert path.stat().st_size < 2**18
    refused(path, rf"{entry}: found {2**20 + 1} bytes when decompressed, expected at most {2**20}")


def test_an_entry_that_is_larger_than_its_header_says_is_refused(models, tmp_path):
    size, path = 12_345_678, rewrite(models["sac"], tmp_path / "liar.zip", without("data"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data", bytes(size))
    blob, number = path.read_bytes(), size.to_bytes(4, "little")
    assert blob.count(number) == 2  # in the entry's header and in the directory
    path.write_bytes(blob.replace(number, (1000).to_bytes(4, "little")))
    refused(path, r"found a damaged or foreign file .*CRC")


def test_weights_that_become_too_large_are_refused(models, tmp_path):
    """Compressed within PyTorch's own zip, and a view of one number as if it were many."""

    def compress(entries: dict[str, bytes]) -> None:
        torch.save({"action_net.weight": torch.zeros(2**20)}, buffer := io.BytesIO())
        with zipfile.ZipFile(buffer) as inner:
            parts = {name: inner.read(name) for name in inner.namelist()}
        with zipfile.ZipFile(buffer := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as inner:
            for name, blob in parts.items():
                inner.writestr(name, blob)
        entries["policy.pth"] = buffer.getvalue()
        assert torch.load(io.BytesIO(entries["policy.pth"]), weights_only=True)["action_net.weight"].numel() == 2**20

    def view(entries: dict[str, bytes]) -> None:
        huge = {"action_net.weight": torch.zeros(1).expand(2**20, 2**20)}
        change_weights(entries, lambda weights: weights.update(huge))

    refused(rewrite(models["ppo"], tmp_path / "bomb.zip", compress), "policy.pth: found .*compressed or overlapping")
    path = rewrite(models["ppo"], tmp_path / "view.zip", view)
    refused(path, r"policy.pth, action_net.weight: found shape \(1048576, 1048576\), more numbers than the file holds")


def test_spaces_that_are_too_large_are_refused_before_they_are_made(models, tmp_path):
    sizes = [10**9, 10**9]
    for field in ("observation_space", "action_space"):
        path = rewrite(
            models["sac"], tmp_path / f"{field}.zip", lambda entries, field=field: _resize(entries, field, sizes)
        )
        refused(path, f"data, field {field}: found")


def _resize(entries: dict[str, bytes], field: str, sizes: list[int]) -> None:
    change_fields(entries, **{field: lambda space: {**space, "_shape": sizes}})


def test_names_that_lead_out_of_the_folder_are_harmless(models, tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)

    def add(entries: dict[str, bytes]) -> None:
        entries |= {"../escaped": b"x", "/tmp_escaped": b"x", "../../policy.pth": b"x"}

    path = rewrite(models["sac"], inside / "traversal.zip", add)
    before = sorted(tmp_path.rglob("*"))
    assert StableBaselines3Prior(str(path)).act(OBSERVATIONS).shape == (8, 2)
    assert sorted(tmp_path.rglob("*")) == before


def test_deeply_nested_fields_are_refused(models, tmp_path):
    path = rewrite(models["sac"], tmp_path / "deep.zip", lambda entries: entries.update(data=b"[" * 200_000))
    refused(path, "data: found no JSON")


# -- damaged and foreign files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("policy.pth"), r"found no entry policy.pth, expected a zip that model.save of Stable-Baselines3"),
        (without("data"), "found no entry data"),
        (without("_stable_baselines3_version"), "found no entry _stable_baselines3_version"),
        (
            lambda entries: entries.update(_stable_baselines3_version=b"1.5.0"),
            r"_version: found '1.5.0', expected .*1.6",
        ),
        (lambda entries: entries.update(_stable_baselines3_version=b"3.0.0"), "_version: found '3.0.0'"),
        (lambda entries: entries.update(_stable_baselines3_version=b"new"), "_version: found 'new'"),
        (lambda entries: entries.update(data=b"{"), "data: found no JSON"),
        (lambda entries: entries.update(data=b"[1]"), "data: found list, expected an object"),
        (lambda entries: change_weights(entries, lambda weights: [1]), "policy.pth: found list, expected a dictionary"),
        (lambda entries: change_weights(entries, lambda weights: {"a": 3}), "policy.pth, 'a': found int, expected"),
    ],
)
def test_files_of_others(change, match, models, tmp_path):
    refused(rewrite(models["ppo"], tmp_path / "changed.zip", change), match)


def test_no_zip_and_no_file(tmp_path):
    path = tmp_path / "model.zip"
    refused(path, "found no such file")
    path.write_bytes(b"something else")
    refused(path, "found a damaged or foreign file .*zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npz", b"")
    refused(path, "found no entry _stable_baselines3_version, expected a zip that model.save")


@pytest.mark.parametrize(
    ("kind", "change", "match"),
    [
        (
            "ppo",
            {"lstm_actor.weight_ih_l0": torch.zeros(4, 4)},
            "found the weights lstm_actor.* of an MlpPolicy of PPO",
        ),
        ("ppo", {"features_extractor.cnn.0.weight": torch.zeros(1)}, "features_extractor.* expected an MlpPolicy$"),
        ("sac", {"actor.sde_features_extractor.0.bias": torch.zeros(1)}, "found the weights actor.sde_features"),
        ("ppo", {"mlp_extractor.policy_net.1.weight": torch.zeros(16)}, "found the weights mlp_extractor.policy_net.1"),
        ("ppo", {"action_net.weight": torch.zeros(3, 5)}, r"found layers of shapes .*\(3, 5\)\], which do not fit"),
        ("ppo", {"action_net.weight": torch.zeros(3)}, r"action_net.weight: found shape \(3,\), expected .* 2 dim"),
        ("ppo", {"action_net.bias": None}, "action_net.bias: found none, expected a tensor of 1 dim"),
        ("ppo", {"action_net.bias": torch.full((3,), torch.nan)}, "action_net.bias: found .*NaN.*, expected finite"),
        ("ppo", {"action_net.bias": torch.zeros(3, dtype=torch.int64)}, "action_net.bias: found torch.int64"),
        ("sac_gsde", {"actor.log_std": torch.zeros(5, 2)}, "found weights that do not fit: .*log_scale"),
        ("dqn", {"q_net.q_net.4.weight": torch.zeros(4, 12), "q_net.q_net.4.bias": torch.zeros(4)}, "found 4 outputs"),
    ],
)
def test_weights_that_no_class_has(kind, change, match, models, tmp_path):
    def apply(weights: dict[str, Any]) -> None:
        weights |= {name: value for name, value in change.items() if value is not None}
        for name in [name for name, value in change.items() if value is None]:
            del weights[name]

    path = rewrite(models[kind], tmp_path / "changed.zip", lambda entries: change_weights(entries, apply))
    refused(path, match, **({"temperature": 1.0} if kind == "dqn" else {}))


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({}, r"pytorch_variables.pth: found \[\], expected log_ent_coef or ent_coef_tensor"),
        ({"log_ent_coef": torch.zeros(2)}, r"pytorch_variables.pth, log_ent_coef: found \[0.0, 0.0\], expected"),
        ({"log_ent_coef": torch.tensor([200.0])}, r"log_ent_coef: found \[200.0\]"),
        ({"ent_coef_tensor": torch.tensor(-1.0)}, r"ent_coef_tensor: found -1.0"),
        ({"ent_coef_tensor": torch.tensor(0.0)}, None),
    ],
)
def test_entropy_coefficients(variables, match, models, tmp_path):
    torch.save(variables, buffer := io.BytesIO())
    entry = {"pytorch_variables.pth": buffer.getvalue()}
    path = rewrite(models["sac"], tmp_path / "changed.zip", lambda entries: entries.update(entry))
    if match is None:
        assert StableBaselines3Prior(str(path)).temperature is None  # as ω′ it would ignore the prior
    else:
        refused(path, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"policy_class": {"__module__": "my_package.policies"}}, "field policy_class: found .*'my_package.policies'"),
        ({"policy_class": {"__module__": "sb3_contrib.common.maskable.policies"}}, "policy_class: found .*maskable"),
        ({"policy_class": None}, "field policy_class: found a class of the module None"),
        ({"policy_kwargs": {"frame_stack": 4}}, "field policy_kwargs: found frame_stack, expected settings of"),
        (
            {"policy_kwargs": {"features_extractor_class": "<class 'mine.Scale'>"}},
            "features_extractor_class: found <class",
        ),
        ({"policy_kwargs": {"use_expln": "perhaps"}}, "policy_kwargs.use_expln: found 'perhaps'"),
        ({"policy_kwargs": "{}"}, r"field policy_kwargs: found '\{\}'"),
        ({"observation_space": None}, "field observation_space: found None, expected a space"),
        ({"observation_space": {":type:": "<class 'os.system'>"}}, "observation_space: found <class 'os.system'>"),
        ({"action_space": {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>"}}, "action_space: found n None"),
    ],
)
def test_fields_that_no_class_has(change, match, models, tmp_path):
    refused(rewrite(models["ppo"], tmp_path / "changed.zip", lambda entries: change_fields(entries, **change)), match)


@pytest.mark.parametrize(
    ("shape", "low", "match"),
    [
        ([7], None, "found 7 numbers, expected 6, the network.s inputs"),
        ([0], None, r"found the shape \[0\]"),
        ("(6,)", None, r"found the shape '\(6,\)'"),
        ([3, 2], "[-1. ... 1.]", None),
    ],
)
def test_observation_spaces_that_are_not_readable(shape, low, match, models, tmp_path):
    """Bounds are not needed."""

    def change(space: dict[str, Any]) -> dict[str, Any]:
        return {**space, "_shape": shape, "low": low}

    path = rewrite(models["sac"], tmp_path / "c.zip", lambda entries: change_fields(entries, observation_space=change))
    if match is None:
        assert StableBaselines3Prior(str(path)).observation_space.shape == (3, 2)
    else:
        refused(path, f"field observation_space: {match}")


def test_action_spaces_that_are_not_supported(models, tmp_path):
    def bounds(text: str) -> Callable[[dict[str, bytes]], None]:
        return lambda entries: change_fields(entries, action_space=lambda space: {**space, "low": text})

    path = rewrite(models["sac"], tmp_path / "unreadable.zip", bounds("[-2. ...]"))
    refused(path, "field action_space: found bounds that are not readable")
    path = rewrite(models["sac"], tmp_path / "unbounded.zip", bounds("[-inf 0.]"))
    refused(path, "unbounded.zip: action space: found Box.*finite bounds", SpaceMismatchError)
    many = Task(True)
    many.action_space = gym.spaces.MultiDiscrete([2, 3])
    PPO("MlpPolicy", many, device="cpu").save(tmp_path / "many.zip")
    refused(tmp_path / "many.zip", "action_space: found MultiDiscrete, expected Discrete or Box", SpaceMismatchError)


@pytest.mark.parametrize(
    ("space", "policy", "match"),
    [
        (
            gym.spaces.Dict({"a": gym.spaces.Box(-1, 1, (2,))}),
            "MultiInputPolicy",
            "observation_space: found Dict, expected",
        ),
        (gym.spaces.Box(0, 255, (36, 36, 1), np.uint8), "CnnPolicy", "observation_space: found images of shape"),
    ],
)
def test_dictionaries_and_images(space, policy, match, tmp_path):
    PPO(policy, Task(True, space), device="cpu").save(tmp_path / "model.zip")
    refused(tmp_path / "model.zip", match, SpaceMismatchError)


def test_options_of_the_wrong_class(models):
    refused(models["dqn"], "dqn.zip, temperature: found None, expected a number > 0", ConfigurationError)
    refused(models["sac"], "scale: found 0.1, expected null", ConfigurationError, scale=0.1)


def test_folders_with_no_model_and_with_several(models, tmp_path):
    refused(tmp_path, "found no zip with an entry policy.pth, expected the path of one model")
    for name in ("one.zip", "two.zip"):
        (tmp_path / name).write_bytes(models["ppo"].read_bytes())
    refused(tmp_path, "found one.zip, two.zip, expected the path of one model")


def test_a_hostile_args_file(models, canary, tmp_path):
    (tmp_path / "model.zip").write_bytes(models["ppo"].read_bytes())
    (tmp_path / "args.yml").write_text(f"!!python/object/apply:builtins.open [{canary}, w]\n")
    with pytest.raises(CheckpointError, match=r"args.yml: found no entry env"):
        StableBaselines3Prior(str(tmp_path))


# -- VecNormalize ------------------------------------------------------------------------------------------------------


def statistics() -> VecNormalize:
    vector = VecNormalize(DummyVecEnv([lambda: Task(False, gym.spaces.Box(-np.inf, np.inf, (3,)))]))
    vector.seed(1)
    for space in (vector.observation_space, vector.action_space):
        space.seed(1)  # their random states are in the file as well
    vector.reset()
    vector.step(np.zeros((1, 2)))
    return vector


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_statistics_of_each_protocol(protocol, tmp_path):
    vector, path = statistics(), tmp_path / "vec_normalize.pkl"
    vector.clip_obs, vector.epsilon = np.float64(4.0), np.float32(0.5)
    vector.obs_rms.var = vector.obs_rms.var.astype(np.float32)
    path.write_bytes(pickle.dumps(vector, protocol=protocol))
    if protocol == 2:  # NumPy's bytes are text there; Stable-Baselines3 wrote no such file
        with pytest.raises(CheckpointError, match=r"vec_normalize.pkl: found the name _codecs.encode"):
            read_vec_normalize(path)
        return
    found = read_vec_normalize(path)
    assert (found.clip, found.epsilon) == (4.0, 0.5)
    np.testing.assert_array_equal(found.mean, vector.obs_rms.mean)
    np.testing.assert_array_equal(np.float32(found.variance), vector.obs_rms.var)


@pytest.mark.parametrize(
    "poison",
    [
        lambda vector, hostile: hostile,
        lambda vector, hostile: setattr(vector, "metadata", hostile),
        lambda vector, hostile: setattr(vector.obs_rms, "mean", hostile),
        lambda vector, hostile: setattr(vector, "obs_rms", {"a": hostile}),
    ],
)
def test_hostile_statistics_are_refused(poison, canary, tmp_path):
    from sb3_models import Hostile

    vector, path = statistics(), tmp_path / "vec_normalize.pkl"
    path.write_bytes(pickle.dumps(poison(vector, Hostile(canary)) or vector))
    with pytest.raises(CheckpointError, match=r"vec_normalize.pkl: found the name _?io.open, expected the file"):
        read_vec_normalize(path)


@pytest.mark.parametrize(
    ("blob", "match"),
    [
        (b"", "found a damaged pickle|found pickle exhausted"),
        (b"no pickle", "found "),
        (pickle.dumps([1, 2]), "found list, expected a VecNormalize"),
        (pickle.dumps(np.zeros(3)), r"found numpy\._core\.multiarray\._reconstruct, expected a VecNormalize"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "found "),
        (b"\x80\x04}]K\x01s.", "found a damaged pickle"),  # a list as a key
        (b"\x80\x04tR.", "found a damaged pickle"),  # no mark
        (b"\x80\x04K\x01K\x02.", "found "),  # two results
        (b"\x80\x04Qabc\n.", "found "),  # a persistent id
        (b"cnumpy._core.multiarray\n_reconstruct\n(I1\nI2\ntR.", "found numpy._core.multiarray._reconstruct, expected"),
        (b"cnumpy.testing._private.utils\nruncmd\n(tR.", "found the name numpy.testing"),
        (b"cnumpy\nload\n(tR.", "found the name numpy.load"),
    ],
)
def test_other_pickles_are_refused(blob, match, tmp_path):
    path = tmp_path / "vec_normalize.pkl"
    path.write_bytes(blob)
    with pytest.raises(CheckpointError, match=match) as error:
        read_vec_normalize(path)
    assert "vec_normalize.pkl" in str(error.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: setattr(v, "obs_rms", None), "field obs_rms: found NoneType, expected a RunningMeanStd"),
        (lambda v: setattr(v, "obs_rms", {"a": v.obs_rms}), "field obs_rms: found dict, expected a RunningMeanStd"),
        (lambda v: setattr(v.obs_rms, "mean", [0.0]), "field obs_rms.mean: found no array"),
        (lambda v: setattr(v.obs_rms, "var", np.array([object()])), "found the name|field obs_rms.var: found no array"),
        (lambda v: setattr(v.obs_rms, "var", np.array(["a"])), "field obs_rms.var: found no array"),
        (lambda v: setattr(v, "clip_obs", "much"), "field clip_obs: found no array"),
        (lambda v: delattr(v, "epsilon"), "field epsilon: found no array"),
    ],
)
def test_statistics_of_the_wrong_kind_name_the_field(change, match, tmp_path):
    vector, path = statistics(), tmp_path / "vec_normalize.pkl"
    change(vector)
    vector.save(path)
    with pytest.raises(CheckpointError, match=rf"vec_normalize.pkl.*({match})"):
        read_vec_normalize(path)


def test_missing_and_too_large_statistics(tmp_path):
    with pytest.raises(CheckpointError, match=r"none.pkl: found no such file"):
        read_vec_normalize(tmp_path / "none.pkl")
    with (tmp_path / "large.pkl").open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(CheckpointError, match=f"large.pkl: found {2**24 + 1} bytes, expected at most"):
        read_vec_normalize(tmp_path / "large.pkl")


def test_an_array_that_claims_more_numbers_than_it_has(tmp_path):
    vector, path = statistics(), tmp_path / "vec_normalize.pkl"
    blob = pickle.dumps(vector)
    shape = pickle.dumps((3,))[2:-1]  # K\x03\x85 and its memo
    assert blob.count(b"K\x03\x85") >= 2 and b"K\x03\x85" in shape
    path.write_bytes(blob.replace(b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"))
    with pytest.raises(CheckpointError, match=r"field obs_rms.mean: found no array"):
        read_vec_normalize(path)


def test_an_unknown_activation_function_is_no_import(models, tmp_path):
    """Not even of a class that exists."""

    def change(settings: dict[str, Any]) -> dict[str, Any]:
        return {**settings, "activation_fn": str(nn.Transformer)}

    path = rewrite(models["ppo"], tmp_path / "c.zip", lambda entries: change_fields(entries, policy_kwargs=change))
    refused(path, "activation_fn: found .*Transformer.*, expected activation to be given", ConfigurationError)
