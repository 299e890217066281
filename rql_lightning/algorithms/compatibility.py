"""Checks that a checkpoint fits the config; a checkpoint that does not fit is refused."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from rql_lightning.errors import CheckpointError, RqlError, require
from rql_lightning.loading import described_encoder, with_encoders
from rql_lightning.policies import Policy
from rql_lightning.spaces import check_same, space_from_data

COMPARED_OTHERWISE = {"observation_space", "action_space", "encoder", "prior"}


class Built(Protocol):
    """An algorithm that has been built for the config."""

    policy: Policy

    def state_dict(self) -> dict[str, Any]:
        """Return all weights."""


def adapt_checkpoint(checkpoint: dict[str, Any], algorithm: Built, path: str, fitting: bool) -> None:
    """Refuse a checkpoint of another task or algorithm, and reduce it to the entries that this algorithm restores.

    Args:
        checkpoint: Checkpoint as read from the file; modified in place.
        algorithm: Algorithm built for the config.
        path: Path of the checkpoint, for messages.
        fitting: Whether training is resumed; for evaluation a policy is sufficient.

    Raises:
        CheckpointError: If the checkpoint does not fit; names the file, what was found and what was expected.
    """
    about = checkpoint["rql_lightning"]
    try:
        _check_description(about, algorithm, path)
        checkpoint["state_dict"] = with_encoders(checkpoint.get("state_dict") or {}, about["policy"])
    except CheckpointError:
        raise
    except RqlError as error:
        raise CheckpointError(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: found a file that does not describe its policy ({error!r})") from error
    # The frame count determines where a run resumes, so only the optimizer steps of Lightning's loops are restored.
    loops = checkpoint.pop("loops", {}).get("fit_loop", {})
    if fitting:
        if "optimizer_states" not in checkpoint:
            raise CheckpointError(f"{path}: found an exported policy, expected a run's checkpoint to go on from")
        checkpoint["loops"] = {"fit_loop": {key: loops[key] for key in loops if "optim_step_progress" in key}}
    else:
        unused = {key: value for key, value in algorithm.state_dict().items() if not key.startswith("policy.")}
        checkpoint["state_dict"] = {**unused, **checkpoint["state_dict"]}
    _check_weights(checkpoint["state_dict"], algorithm, path)


def _check_description(about: dict[str, Any], algorithm: Built, path: str) -> None:
    """Check that algorithm, task, spaces and networks are those of the config."""
    policy = algorithm.policy
    if about["algorithm"] != type(algorithm).__name__:
        raise CheckpointError(f"{path}: found {about['algorithm']}, expected {type(algorithm).__name__}")
    if about["task"] != policy.task:
        raise CheckpointError(f"{path}: found the task {about['task']}, expected {policy.task}")
    found, expected = _comparable(about["policy"]), _comparable(policy.describe())
    for key in ("observation_space", "action_space"):
        space = space_from_data(found[key])
        check_same(f"{path}, {key}", space, getattr(policy, key), bounds=key == "action_space")
    for key in ("raw", "goal_scales"):  # the encoder's other numbers come from the checkpoint, not the environment
        if found["encoder"][key] != expected["encoder"][key]:
            raise CheckpointError(
                f"{path}: found {key} {found['encoder'][key]}, expected the config's {expected['encoder'][key]}"
            )
    _check_running(path, found["encoder"].get("running"), expected["encoder"].get("running"))
    for key in expected.keys() - COMPARED_OTHERWISE:
        if found[key] != expected[key]:
            raise CheckpointError(f"{path}: found {key} {found[key]}, expected the config's {expected[key]}")
    if found["prior"] != expected["prior"]:
        raise CheckpointError(
            f"{path}: found the prior {_named(about['policy']['prior'])}, expected model.prior to be "
            f"{_named(policy.describe()['prior'])}"
        )
    for key in ("frames", "updates", "train_seconds"):
        require(isinstance(about[key], int | float), f"{path}, {key}", about[key], "a number")


def _check_running(path: str, found: list[bool] | None, expected: list[bool] | None) -> None:
    """Check that the same numbers of observations are normalised, if any are."""
    if (found is None) != (expected is None):
        raise CheckpointError(
            f"{path}: found model.normalize_observations {found is not None}, expected the config's "
            f"{expected is not None}"
        )
    if found != expected:
        theirs, ours = ([index for index, each in enumerate(flags or []) if each] for flags in (found, expected))
        raise CheckpointError(
            f"{path}: found running normalisation of the numbers {theirs} of an observation, expected {ours}, those "
            "without finite bounds in data.env"
        )


def _comparable(policy: dict[str, Any]) -> dict[str, Any]:
    """Return a policy's description with its encoder as numbers, without temperature, and its prior without path."""
    result = {key: value for key, value in policy.items() if key not in ("goal_scales", "temperature")}
    result["encoder"] = described_encoder(policy).describe()
    if policy["prior"] is not None:
        prior = {key: value for key, value in policy["prior"].items() if key != "path"}
        result["prior"] = {**prior, **({"policy": _comparable(prior["policy"])} if "policy" in prior else {})}
    return result


def _named(prior: dict[str, Any] | None) -> str:
    if prior is None:
        return "none"
    return f"{prior['kind']} {prior.get('log_prob') or prior.get('name') or prior.get('path')}"


def _check_weights(found: dict[str, Any], algorithm: Built, path: str) -> None:
    """Check that every weight is present with its shape, and that the frozen prior's weights equal model.prior's."""
    weights = algorithm.state_dict()
    if found.keys() - weights.keys():
        extra = sorted(found.keys() - weights.keys())[:1]
        raise CheckpointError(f"{path}: found weights {extra} that the config's networks do not have")
    for name, own in weights.items():
        prior = name.startswith("policy.prior.")
        if name not in found or found[name].shape != own.shape:
            shape = f"{name} of shape {tuple(found[name].shape)}" if name in found else f"no weights {name}"
            where = " (of model.prior)" if prior else ""
            raise CheckpointError(f"{path}: found {shape}, expected the shape {tuple(own.shape)}{where}")
        if not bool(found[name].isfinite().all()):
            raise CheckpointError(f"{path}: found infinity or NaN in the weights {name}, expected finite numbers")
        if prior and not torch.equal(found[name].to(own.device), own):
            raise CheckpointError(f"{path}: found another prior than model.prior, expected the same ({name} differs)")
