"""Observations as Stable-Baselines3's ``VecNormalize`` normalises them, and the reader of its file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rql_lightning.errors import CheckpointError, require
from rql_lightning.priors.stable_baselines3.pickles import Call, read_pickle

LIMIT = 16 * 2**20
"""Largest size of a file of ``VecNormalize``, in bytes."""
CLASS = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
MOMENTS = "stable_baselines3.common.running_mean_std.RunningMeanStd"
ALLOWED = re.compile(
    rf"{re.escape(CLASS)}|{re.escape(MOMENTS)}|numpy\.(dtype|ndarray)|numpy\.random\.[\w.]+"
    r"|numpy\._?core\.(multiarray|numeric)\.(_reconstruct|_frombuffer|scalar)"
    r"|(gym|gymnasium)\.(spaces|utils\.seeding)\.[\w.]+"  # of the fields observation_space and action_space
)
INSTEAD = "the file that VecNormalize.save wrote, or mean, variance, clip and epsilon as numbers"


@dataclass(frozen=True)
class ObservationStatistics:
    """Constants with which observations are normalised: clip((x − mean) / √(variance + epsilon), −clip, clip).

    Args:
        mean: Mean of each number of an observation.
        variance: Variance of each number of an observation.
        clip: Largest absolute value of a normalised number.
        epsilon: Number that is added to the variance.
    """

    mean: Sequence[float]
    variance: Sequence[float]
    clip: float = 10.0
    epsilon: float = 1e-8


class Normalization(nn.Module):
    """The normalisation of flat observations, in double precision as in Stable-Baselines3.

    Args:
        size: Number of numbers of an observation, D.
        clip: Largest absolute value of a normalised number.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(size, dtype=torch.float64))

    @classmethod
    def of(cls, statistics: ObservationStatistics, size: int, where: str) -> Normalization:
        """Create the normalisation with given constants.

        Args:
            statistics: Constants.
            size: Number of numbers of an observation.
            where: Owner of the constants, for messages.

        Raises:
            ConfigurationError: If a constant is invalid.
        """
        for key in ("mean", "variance"):
            values = list(getattr(statistics, key))
            valid = len(values) == size and all(map(math.isfinite, values))
            require(valid, f"{where}, {key}", values, f"{size} finite numbers, one for each number of an observation")
        positive = [value + statistics.epsilon > 0 for value in statistics.variance]
        require(all(positive), f"{where}, variance", statistics.variance, "numbers >= 0, with an epsilon > 0")
        require(statistics.clip > 0, f"{where}, clip", statistics.clip, "a number > 0")
        result = cls(size, float(statistics.clip))
        result.mean.copy_(torch.tensor(list(statistics.mean), dtype=torch.float64))
        variance = torch.tensor(list(statistics.variance), dtype=torch.float64)
        result.scale.copy_((variance + statistics.epsilon).sqrt())
        return result

    def forward(self, observation: Tensor) -> Tensor:
        """Normalise flat observations, ``[..., D]``."""
        normal = (observation.to(self.mean.dtype) - self.mean) / self.scale
        return normal.clamp(-self.clip, self.clip).to(observation.dtype)


def read_vec_normalize(path: Path) -> ObservationStatistics | None:
    """Read a file of ``VecNormalize`` without executing anything in it; ``None`` if observations are not normalised.

    Raises:
        CheckpointError: If the file is missing, damaged, too large, or has anything in it but NumPy arrays and fields
            of this class; names the file and the field.
    """
    where = f"vec_normalize {path}"
    if not path.is_file():
        raise CheckpointError(f"{where}: found no such file, expected {INSTEAD}")
    if path.stat().st_size > LIMIT:
        raise CheckpointError(f"{where}: found {path.stat().st_size} bytes, expected at most {LIMIT}")
    try:
        saved = read_pickle(path.read_bytes(), lambda name: ALLOWED.fullmatch(name) is not None)
    except ValueError as error:
        raise CheckpointError(f"{where}: found {error}, expected {INSTEAD}") from error
    fields = _state(saved, CLASS, where)
    if fields.get("norm_obs") is False:
        return None
    moments = _state(fields.get("obs_rms"), MOMENTS, f"{where}, field obs_rms")
    mean, variance = (_array(moments.get(key), f"{where}, field obs_rms.{key}") for key in ("mean", "var"))
    clip, epsilon = (_number(fields.get(key), f"{where}, field {key}") for key in ("clip_obs", "epsilon"))
    return ObservationStatistics(mean.ravel().tolist(), variance.ravel().tolist(), clip, epsilon)


def _state(value: Any, name: str, where: str) -> dict[str, Any]:
    """Return the fields of an object of a class.

    Raises:
        CheckpointError: If the value is something else, such as a dictionary of statistics of ``Dict`` observations.
    """
    if not isinstance(value, Call) or value.name != name or not isinstance(value.state, dict):
        found = value.name if isinstance(value, Call) else type(value).__name__
        raise CheckpointError(f"{where}: found {found}, expected a {name.rpartition('.')[2]} of vectors")
    return value.state


def _number(value: Any, where: str) -> float:
    if isinstance(value, int | float):
        return float(value)
    return float(_array(value, where).reshape(()))


def _array(value: Any, where: str) -> np.ndarray[Any, Any]:
    """Return an array or scalar of NumPy, made from the arguments that a pickle has for NumPy's own functions.

    Raises:
        CheckpointError: If the value is no array of floating-point numbers.
    """
    try:
        kind = value.name.rpartition(".")[2]
        if kind == "_reconstruct":
            _, shape, dtype, fortran, data = value.state
        elif kind == "_frombuffer":
            data, dtype, shape, order = value.arguments
            fortran = order == "F"
        else:
            (dtype, data), shape, fortran = value.arguments, (), False
        if dtype.name != "numpy.dtype" or dtype.arguments[0] not in ("f4", "f8") or dtype.state[1] not in ("<", ">"):
            raise ValueError(f"numbers of type {dtype.arguments}")
        return np.frombuffer(data, dtype.state[1] + dtype.arguments[0]).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: found no array ({error}), expected one of floating-point numbers") from error
