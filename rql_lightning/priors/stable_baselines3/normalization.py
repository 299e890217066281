"""Observations as Stable-Baselines3's ``VecNormalize`` normalises them, and the reader of its file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rql_lightning.errors import CheckpointError, require
from rql_lightning.priors.stable_baselines3.pickles import Call, brief, read_pickle

LIMIT = 4 * 2**20
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
        for key in ("clip", "epsilon"):
            require(_is_number(getattr(statistics, key)), f"{where}, {key}", getattr(statistics, key), "a number")
        for key in ("mean", "variance"):
            values = getattr(statistics, key)
            iterable = isinstance(values, Iterable) and not isinstance(values, str | bytes)
            valid = iterable and [_is_number(each) and math.isfinite(each) for each in values] == [True] * size
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


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


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
        blob = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{where}: found a file that cannot be read ({error.strerror}), expected {INSTEAD}"
        ) from error
    try:
        saved = read_pickle(blob, lambda name: ALLOWED.fullmatch(name) is not None)
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
    numbers = [value] if isinstance(value, int | float) else _array(value, where).ravel().tolist()
    try:
        (number,) = map(float, numbers)
    except (OverflowError, ValueError) as error:
        found = f"{len(numbers)} numbers" if len(numbers) != 1 else "an integer without a floating-point value"
        raise CheckpointError(f"{where}: found {found}, expected one floating-point number") from error
    return number


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
        written = _dtype(dtype)
        return np.frombuffer(data, written).reshape(shape, order="F" if fortran is True else "C")
    except (AttributeError, IndexError, OverflowError, TypeError, ValueError) as error:
        reason = brief(str(error))
        raise CheckpointError(f"{where}: found no array ({reason}), expected one of floating-point numbers") from error


def _dtype(value: Any) -> str:
    """Return the type of numbers, such as ``<f8``, that a call of ``numpy.dtype`` and its state describe.

    Raises:
        ValueError: If they describe something else.
    """
    known = isinstance(value, Call) and value.name == "numpy.dtype" and isinstance(value.state, tuple)
    name, order = (value.arguments[:1], value.state[1:2]) if known else ((), ())
    if name not in (("f4",), ("f8",)) or order not in (("<",), (">",)):
        shown = name[0] if known and name and isinstance(name[0], str) else "another type"
        raise ValueError(f"numbers of {shown}")
    return f"{order[0]}{name[0]}"
