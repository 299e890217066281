"""What the outputs of somebody's network say of an action: logits, Q-values, or location and scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rql_lightning.errors import ConfigurationError, EnvironmentContractError, require
from rql_lightning.priors.base import is_positive

Distribution = Literal["categorical", "boltzmann", "squashed_normal", "normal"]
Scale = float | Literal["scale", "log_scale"] | None
DISCRETE = ("categorical", "boltzmann")
CONTINUOUS = ("squashed_normal", "normal")


def check_outputs(distribution: str, scale: Scale, temperature: float | None) -> None:
    """Refuse a distribution without what it needs.

    Raises:
        ConfigurationError: If the scale of a normal distribution or the temperature of a Boltzmann policy is missing,
            or a number is not positive.
    """
    known = (*DISCRETE, *CONTINUOUS)
    require(distribution in known, "model.prior.distribution", distribution, "one of " + ", ".join(map(repr, known)))
    positive = is_positive(temperature)
    if distribution == "boltzmann":
        expected = "a number > 0, the temperature at which to act on the Q-values: exp(Q / temperature)"
        require(positive, "model.prior.temperature", temperature, expected)
    require(positive or temperature is None, "model.prior.temperature", temperature, "a number > 0, or null")
    if distribution in DISCRETE:
        require(scale is None, "model.prior.scale", scale, f"null for the distribution {distribution!r}")
        return
    expected = (
        "'scale' or 'log_scale', whichever the module returns beside the location, or a number > 0 for a module that "
        "returns the location alone"
    )
    valid = scale in ("scale", "log_scale") if isinstance(scale, str) else is_positive(scale)
    require(valid, "model.prior.scale", scale, expected)


def resolve(module: nn.Module, name: str) -> Any:
    """Return a submodule, method or tensor of a module by its dotted name.

    Raises:
        ConfigurationError: If there is none; names those that there are.
    """
    target: Any = module
    for part in name.split("."):
        if not hasattr(target, part):
            children = [key for key, _ in module.named_children()] + [key for key, _ in module.named_parameters()]
            raise ConfigurationError(
                f"model.prior.output: found {name!r}, expected an attribute or method of {type(module).__name__}, such "
                f"as one of {children[:8]}"
            )
        target = getattr(target, part)
    return target


def call(module: nn.Module, names: list[str], rows: Tensor) -> Any:
    """Return the module's output at observations ``[N, *observation_shape]``; a list for several names."""
    if not names:
        return module(rows)
    targets = [resolve(module, name) for name in names]
    results = [target if isinstance(target, Tensor) else target(rows) for target in targets]
    return results[0] if len(results) == 1 else results


class Outputs:
    """How to read the outputs of a module.

    Args:
        parts: Indices of a tuple or keys of a dictionary under which logits, or location and scale are; ``None`` for a
            tensor (which is split in halves for location and scale) or a tuple of exactly these.
        scale: What the second part is, or a fixed scale.
        wrong: Creates an error from what was found and what is expected.
    """

    def __init__(
        self, parts: list[Any] | None, scale: Scale, wrong: Callable[[str, str, str], EnvironmentContractError]
    ) -> None:
        self.parts, self.scale, self.wrong = parts, scale, wrong

    def logits(self, output: Any, rows: int, actions: int) -> Tensor:
        """Return logits or Q-values, ``[N, actions]``."""
        (logits,) = self._parts(output, 1)
        if logits.shape != (rows, actions):
            raise self.wrong("output", f"shape {tuple(logits.shape)}", f"{(rows, actions)}, one number per action")
        return logits.float()

    def location_and_log_scale(self, output: Any, rows: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return location and log-scale, ``[N, *shape]`` each."""
        if isinstance(self.scale, str):
            location, second = self._parts(output, 2)
        else:
            (location,), second = self._parts(output, 1), torch.as_tensor(float(self.scale or 0.0))
        location = self._shaped("location", location, rows, shape)
        scale = self._shaped(f"{self.scale}", second, rows, shape).to(location.device)
        return location, scale if self.scale == "log_scale" else scale.log()

    def _shaped(self, what: str, values: Tensor, rows: int, shape: tuple[int, ...]) -> Tensor:
        """Return values as ``[N, *shape]``: flat ones are unflattened, a scale without a batch is repeated."""
        wanted = (rows, *shape)
        if values.numel() == math.prod(wanted):
            return values.float().reshape(wanted)
        if what != "location" and values.numel() in (1, torch.Size(shape).numel()):
            return values.float().reshape(shape if values.numel() > 1 else ()).expand(wanted)
        raise self.wrong(f"output, {what}", f"shape {tuple(values.shape)}", f"{wanted}")

    def _parts(self, output: Any, count: int) -> list[Tensor]:
        """Return the tensors that an output consists of."""
        chosen = self._chosen(output, count)
        for each in chosen:
            if not isinstance(each, Tensor):
                raise self.wrong("output", type(each).__name__, "tensors")
        return chosen

    def _chosen(self, output: Any, count: int) -> list[Any]:
        names = (
            "location and scale" if count == 2 else "one number per action" if self.scale is None else "the location"
        )
        if self.parts is not None:
            expected = f"{count} entries for {names} in 'parts'"
            if len(self.parts) != count:
                raise self.wrong("parts", f"{self.parts}", expected)
            try:
                return [output[part] for part in self.parts]
            except (IndexError, KeyError, TypeError):
                raise self.wrong("parts", f"{self.parts} for {_described(output)}", expected) from None
        if isinstance(output, Tensor):
            halves = count == 2 and output.dim() > 0 and output.shape[-1] % 2 == 0
            if count == 2 and not halves:
                raise self.wrong("output", _described(output), "a tensor of location and scale, to be split in halves")
            return list(output.chunk(count, dim=-1))
        if isinstance(output, tuple | list) and len(output) == count:
            return list(output)
        raise self.wrong("output", _described(output), f"{names}; 'parts' says which {count} of several entries")


def _described(output: Any) -> str:
    """Return the kind of an output, for messages."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    if isinstance(output, dict):
        return f"a dictionary of {sorted(map(str, output))}"
    return f"a tuple of {len(output)}" if isinstance(output, tuple | list) else type(output).__name__
