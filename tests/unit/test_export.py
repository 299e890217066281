"""Exported policies decide as the policies that they were made of, without code from any file."""

from __future__ import annotations

import json
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from exported_policies import BOUNDED, BOUNDS, CARTPOLE, POLICIES, actor, fitted, observations, soft_q, wrapped
from sb3_models import make

from rql_lightning import load_policy
from rql_lightning.checkpoints import read_checkpoint
from rql_lightning.errors import CheckpointError, ConfigurationError, OutputError, UnsupportedFormatError
from rql_lightning.export import export_policy, graphs, laws
from rql_lightning.loading import CheckpointPrior
from rql_lightning.policies import NetworkPolicy, Policy, ResampledPolicy
from rql_lightning.priors import FunctionPrior, ObservationStatistics, SamplerPrior, StableBaselines3Prior

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def half(observation, action):
    return torch.full(action.shape, 0.5).log()


def function_prior() -> FunctionPrior:
    prior = FunctionPrior(half)
    prior.attach(gym.spaces.Box(-1.0, 1.0, (3,)), gym.spaces.Discrete(2))
    return prior


def first(observation):
    return torch.zeros(len(observation), dtype=torch.int64)


def sampler(observations: gym.Space, actions: gym.Space) -> SamplerPrior:
    prior = SamplerPrior(first)
    prior.attach(observations, actions)
    return prior


def resampled() -> Policy:
    prior = sampler(BOUNDED, BOUNDS.action_space)
    return ResampledPolicy(BOUNDED, BOUNDS.action_space, [8], 0.5, prior)


def check_outputs(policy, action, parameters, rows) -> None:
    np.testing.assert_allclose(parameters, policy.distribution_parameters(torch.from_numpy(rows)), **CLOSE)
    assert np.asarray(action).shape == (len(rows), *policy.action_space.shape)
    if policy.bounds is None:
        decided = np.diff(np.sort(np.asarray(parameters))[:, -2:]).squeeze(-1) > 1e-4
        np.testing.assert_array_equal(np.asarray(action)[decided], policy.act(rows)[decided])
    else:
        np.testing.assert_allclose(action, policy.act(rows), **CLOSE)


@pytest.mark.parametrize("name", POLICIES)
def test_programs_of_torch_export(name, tmp_path):
    """For one observation, and for more than were traced."""
    policy = POLICIES[name]()
    program = torch.export.load(export_policy(policy, tmp_path / "policy.pt2"))
    for rows in (observations(policy, 1), observations(policy, 33)):
        check_outputs(policy, *program.module()(torch.from_numpy(rows)), rows)
    priors = any(".prior." in key for key in program.state_dict)
    assert priors == (name in ("residual_soft_q", "nested", "module_prior")), "the prior of an actor is left out"
    extra = {"rql_lightning.json": ""}
    torch.export.load(tmp_path / "policy.pt2", extra_files=extra)
    assert json.loads(extra["rql_lightning.json"])["policy"]["kind"] == type(policy).__name__


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_policy_whose_weights_are_parts_of_a_vector_is_exported_without_a_warning(suffix, tmp_path, capfd):
    """As an optimizer of this library has them; PyTorch warns about such weights."""
    pytest.importorskip("onnxscript")
    policy = soft_q(None, [8])
    weights = list(policy.parameters())
    vector = torch.cat([each.flatten() for each in weights])
    parts = vector.split([each.numel() for each in weights])
    for each, part in zip(weights, parts, strict=True):
        each.data = part.view_as(each)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_policy(policy, tmp_path / f"policy{suffix}")
    assert capfd.readouterr().err == ""


def test_what_was_written_is_compared_with_the_policy(tmp_path, monkeypatch):
    save, other = torch.export.save, graphs.program(soft_q(None, [8], seed=1))
    monkeypatch.setattr(torch.export, "save", lambda traced, file, **options: save(other, file, **options))
    with pytest.raises(UnsupportedFormatError, match=r"\.pt2\): found actions that differ"):
        export_policy(soft_q(None, [8], seed=2), tmp_path / "policy.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["qrdqn", "ppo_box", "sac_gsde"])
def test_models_of_stable_baselines3_as_programs(kind, tmp_path):
    """Their observations are normalised and clipped, which is inside of the program."""
    make(kind).save(tmp_path / "model.zip")
    statistics = ObservationStatistics([0.5, -1.0] * 3, [0.25, 2.0] * 3, clip=1.0)
    temperature = 0.5 if kind == "qrdqn" else None
    prior = StableBaselines3Prior(str(tmp_path / "model.zip"), temperature, vec_normalize=statistics)
    program = torch.export.load(export_policy(prior, tmp_path / "policy.pt2")).module()
    rows = observations(prior)
    check_outputs(prior, *program(torch.from_numpy(rows)), rows)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rows", "mixture")]


@pytest.mark.parametrize("name", ["residual_soft_q", "parking", *SLOW])
def test_onnx_in_another_runtime(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    policy = POLICIES[name]()
    path = export_policy(policy, tmp_path / "policy.onnx")
    assert {each.name for each in tmp_path.iterdir()} == {"policy.onnx", "policy.onnx.md"}, "the weights are inside"
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["observation"]
    assert [each.name for each in session.get_outputs()] == ["action", "parameters"]
    for rows in (observations(policy, 1), observations(policy, 33)):
        check_outputs(policy, *session.run(None, {"observation": rows}), rows)
    about = json.loads(session.get_modelmeta().custom_metadata_map["rql_lightning"])
    assert about["policy"]["kind"] == type(policy).__name__


ARCHIVED = [name for name in POLICIES if name != "module_prior"]  # whose prior is code


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("name", ARCHIVED)
def test_files_of_this_library(name, suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    policy = POLICIES[name]()
    path, rows = export_policy(policy, tmp_path / f"policy{suffix}"), torch.from_numpy(observations(policy))
    back = load_policy(path)
    assert torch.equal(back.distribution_parameters(rows), policy.distribution_parameters(rows))
    assert json.dumps(back.describe()) == json.dumps(policy.describe())
    assert back.observation_space == policy.observation_space, "infinite bounds as well"
    prior = CheckpointPrior(str(path))
    assert torch.equal(prior.distribution_parameters(rows), policy.distribution_parameters(rows))


def test_a_prior_that_is_code_is_given_when_the_file_is_read(tmp_path):
    policy = soft_q(function_prior(), [8])
    path = export_policy(policy, tmp_path / "policy.ckpt")
    with pytest.raises(CheckpointError, match="expected load_policy"):
        load_policy(path)
    rows = torch.from_numpy(observations(policy))
    back = load_policy(path, prior=function_prior())
    assert torch.equal(back.distribution_parameters(rows), policy.distribution_parameters(rows))


def test_an_archive_is_plain_json_and_numbers(tmp_path):
    """Read as the format's specification says, by other code: a length, JSON, and numbers."""
    pytest.importorskip("safetensors")
    policy = actor()
    blob = export_policy(policy, tmp_path / "policy.safetensors").read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    about = json.loads(header["__metadata__"]["rql_lightning"], parse_constant=pytest.fail)
    assert about["policy"]["observation_space"]["high"][2] == "Infinity"
    start, stop = header["policy.network.0.bias"]["data_offsets"]
    bias = np.frombuffer(blob[8 + length :][start:stop], np.float32)
    np.testing.assert_array_equal(bias, policy.network[0].bias)


@pytest.mark.parametrize("damage", ["truncated", "foreign", "no json", "no weights", "a pickle"])
def test_damaged_archives_are_refused(damage, tmp_path):
    library = pytest.importorskip("safetensors.torch")
    path = export_policy(actor(), tmp_path / "policy.safetensors")
    blob = path.read_bytes()
    broken = {
        "truncated": blob[:-9],
        "foreign": library.save({"weight": torch.zeros(2)}),
        "no json": library.save({"weight": torch.zeros(2)}, {"rql_lightning": "{"}),
        "no weights": library.save({}, {"rql_lightning": json.dumps(read_checkpoint(path)["rql_lightning"])}),
    }
    if damage == "a pickle":
        torch.save({"rql_lightning": {}}, path)
    else:
        path.write_bytes(broken[damage])
    with pytest.raises(CheckpointError, match=r"policy\.safetensors: (policy\.\S+: )?found "):
        load_policy(path)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(
    ("policy", "found", "instead"),
    [
        (lambda: soft_q(function_prior(), [8]), "the function test_export.half, which is code", ".safetensors, .ckpt"),
        (lambda: fitted("flow"), "the law Flow", ".safetensors, .ckpt"),
        (lambda: sampler(BOUNDED, BOUNDS.action_space), "the function test_export.first, which is code", "no format"),
        (
            lambda: soft_q(sampler(BOUNDED, gym.spaces.Discrete(2)), [8]),
            "the function test_export.first, which is code",
            ".safetensors, .ckpt",
        ),
        (resampled, "the law Resampled", ".safetensors, .ckpt"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused_with_what_can(policy, found, instead, suffix, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(ConfigurationError, match=found) as refusal:
        export_policy(policy(), tmp_path / f"policy{suffix}")
    assert str(refusal.value).endswith(f"; {instead} can hold the policy")
    assert not list(tmp_path.iterdir())


def test_a_prior_that_cannot_be_traced_is_refused(tmp_path):
    """A module of the user's that looks at the numbers."""

    class Looks(torch.nn.Module):
        def forward(self, rows):
            return torch.zeros(len(rows), 3) if float(rows.sum()) > 0 else torch.ones(len(rows), 3)

    prior = POLICIES["module_prior"]().prior
    prior.module = Looks()
    with pytest.raises(ConfigurationError, match=r"found what PyTorch cannot trace .*; no format can hold"):
        export_policy(prior, tmp_path / "policy.pt2")


def test_an_operation_that_onnx_does_not_have_is_refused(tmp_path):
    pytest.importorskip("onnxscript")

    class Rare(torch.nn.Module):
        def forward(self, rows):
            return torch.special.bessel_j0(rows)

    prior = POLICIES["module_prior"]().prior
    prior.module = Rare()
    with pytest.raises(UnsupportedFormatError, match=r"found what ONNX does not have .*; \.pt2 can hold"):
        export_policy(prior, tmp_path / "policy.onnx")
    assert torch.export.load(export_policy(prior, tmp_path / "policy.pt2"))


def test_a_prior_alone_is_no_checkpoint_of_this_library(tmp_path):
    with pytest.raises(ConfigurationError, match=r"found a ModulePrior.*; \.onnx, \.pt2 can hold the policy"):
        export_policy(POLICIES["module_prior"]().prior, tmp_path / "policy.ckpt")
    assert torch.export.load(export_policy(POLICIES["module_prior"]().prior, tmp_path / "policy.pt2"))


def test_a_class_of_the_users_goes_to_graphs_alone(tmp_path):
    class Mine(NetworkPolicy):
        pass

    policy = Mine(BOUNDED, BOUNDS.action_space, [8], prior=wrapped(actor())).eval().requires_grad_(False)
    rows = observations(policy)
    program = torch.export.load(export_policy(policy, tmp_path / "policy.pt2")).module()
    check_outputs(policy, *program(torch.from_numpy(rows)), rows)
    with pytest.raises(UnsupportedFormatError, match=r"found a Mine, expected one of .*; \.onnx, \.pt2 can hold"):
        export_policy(policy, tmp_path / "policy.safetensors")


def test_equally_probable_actions_are_no_difference(tmp_path):
    """Of a policy that does not depend on the state, and whose actions differ by less than rounding."""
    policy = soft_q(None, [8])
    last = policy.q_network[-1]
    last.weight.zero_()
    last.bias.copy_(torch.tensor([1.0, 1.0 + 1e-7, 1.0]))
    program = torch.export.load(export_policy(policy, tmp_path / "policy.pt2")).module()
    assert policy.act(observations(policy)).shape == program(torch.from_numpy(observations(policy)))[0].shape


def test_the_policy_of_a_running_training_is_left_as_it_is(tmp_path):
    policy = soft_q(CheckpointPrior(CARTPOLE), [8]).train().requires_grad_(True)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    for suffix in (".pt2", ".zip", ".ckpt"):
        export_policy(policy, tmp_path / f"policy{suffix}")
    assert policy.training and all(each.requires_grad for each in policy.parameters())
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_the_wrapper_of_a_checkpoint_is_not_exported(tmp_path):
    policy = soft_q(None, [8])
    assert load_policy(export_policy(wrapped(policy), tmp_path / "policy.ckpt")).describe() == policy.describe()


@pytest.mark.parametrize("thing", [3, torch.nn.Linear(1, 1)])
def test_something_else_is_refused(thing, tmp_path):
    with pytest.raises(ConfigurationError, match=r"policy: found '(int|Linear)', expected a policy, the path"):
        export_policy(thing, tmp_path / "policy.ckpt")


@pytest.mark.parametrize(("library", "suffix"), [("safetensors", ".safetensors"), ("onnxscript", ".onnx")])
def test_a_missing_library_is_named_with_its_extra(library, suffix, tmp_path, monkeypatch):
    for name in (library, f"{library}.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    extra = suffix.removeprefix(".")
    with pytest.raises(ConfigurationError, match=rf"found no library .*pip install 'rql-lightning\[{extra}\]'"):
        export_policy(soft_q(None, [8]), tmp_path / f"policy{suffix}")
    (tmp_path / "there.safetensors").touch()
    if library == "safetensors":
        with pytest.raises(ConfigurationError, match=r"there\.safetensors: found no library safetensors"):
            load_policy(tmp_path / "there.safetensors")


@pytest.mark.parametrize("old", ["policy.ckpt", "policy.ckpt.md"])
def test_existing_files_are_kept_unless_forced(old, tmp_path):
    (tmp_path / old).write_text("old")
    with pytest.raises(OutputError, match=f"{old}: found a file"):
        export_policy(soft_q(None, [8]), tmp_path / "policy.ckpt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(old, "old")]
    assert load_policy(export_policy(soft_q(None, [8]), tmp_path / "policy.ckpt", force=True))
    assert (tmp_path / "policy.ckpt.md").read_text().startswith("# policy.ckpt\n")


@pytest.mark.parametrize(
    ("name", "found"),
    [("x" * 300, "File name too long"), ("x" * 248, "File name too long"), ("a\0b", "a name with the character NUL")],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".zip"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(name, found, suffix, tmp_path):
    with pytest.raises(OutputError, match=found) as refusal:
        export_policy(soft_q(None, [8]), tmp_path / f"{name}{suffix}")
    assert "\n" not in str(refusal.value) and "\0" not in str(refusal.value)
    with pytest.raises(CheckpointError, match="found no such file"):
        export_policy(str(tmp_path / f"{name * 2}{suffix}"), tmp_path / "policy.ckpt")
    with pytest.raises(ConfigurationError, match="run: found"):
        export_policy(soft_q(None, [8]), tmp_path / "policy.ckpt", run=tmp_path / (name * 2))
    assert not list(tmp_path.iterdir())


def test_what_an_export_is_checked_at_is_not_clipped():
    """Otherwise a law that reads none of the normalised numbers would pass."""
    policy = POLICIES["running_actor"]()
    code = policy.encoder(laws.observations(policy))[:, 2]
    assert code.abs().max() <= 2 and code.std() > 0.5
