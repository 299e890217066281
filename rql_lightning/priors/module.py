"""Priors that are networks of anybody's: a module by its import path and a file of weights, or as an object."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.checkpoints import read_data
from rql_lightning.envs.registration import import_function
from rql_lightning.errors import CheckpointError, ConfigurationError, SpaceMismatchError, described, require
from rql_lightning.policies.families import Categorical, SquashedNormal
from rql_lightning.policies.normal import Normal
from rql_lightning.priors.base import Prior, as_float
from rql_lightning.priors.outputs import DISCRETE, Distribution, Outputs, Scale, call, check_outputs


class ModulePrior(Prior):
    """A prior whose module returns logits, Q-values, or location and scale, such as an agent of CleanRL's form.

    Args:
        module: Import path of a class or function that returns an nn.Module, such as my_package.Agent, or in Python the
            module itself, of which the prior keeps a frozen copy.
        distribution: What the module's output stands for: 'categorical' for logits of discrete actions, 'boltzmann' for
            their Q-values, 'squashed_normal' for location and scale of u where the action is tanh(u) scaled to the
            environment's bounds, 'normal' for location and scale of the action in the environment's units.
        output: Name of the attribute or method that returns the output, such as actor; two names, of the location and
            of the scale, which may be a parameter; or null for the module itself.
        parts: Indices of a tuple or keys of a dictionary under which the module returns the logits, or location and
            scale; null for a tensor, which is split in halves for location and scale, or a tuple of exactly these.
        scale: What is returned beside the location, 'scale' or 'log_scale', or the scale itself, a number, of a module
            that returns the location alone; null for discrete actions.
        temperature: Temperature of a Boltzmann policy, at which it is also soft-optimal; for other distributions the
            temperature that the policy was trained at, which is the default of omega_prime, or null if it is unknown.
        init_args: Arguments of the class, by name.
        environment: Name of the class's argument that takes the environment, of which the class reads the spaces; it
            gets an object with single_observation_space, single_action_space, observation_space and action_space.
        weights: File of the module's state_dict, read with weights_only=True; it may be null for a module in Python.
        entry: Name of the entry of the file that holds the state_dict, with dots for nested ones; null for the file.
    """

    module: Any

    def __init__(
        self,
        module: str | nn.Module,
        distribution: Distribution,
        output: str | list[str] | None = None,
        parts: list[int] | list[str] | None = None,
        scale: Scale = None,
        temperature: float | None = None,
        init_args: dict[str, Any] | None = None,
        environment: str | None = None,
        weights: str | None = None,
        entry: str | None = None,
    ) -> None:
        super().__init__()
        check_outputs(distribution, scale, temperature)
        require(isinstance(module, str | nn.Module), "model.prior.module", module, "an import path or an nn.Module")
        if isinstance(module, nn.Module):
            for name, given in (("init_args", init_args), ("environment", environment)):
                require(not given, f"model.prior.{name}", given, "null for a module that exists already")
        require(output not in ("", []), "model.prior.output", output, "a name, or null for the module itself")
        self.distribution_name, self.temperature = distribution, as_float(temperature)
        self.names = [output] if isinstance(output, str) else list(output or [])
        self.outputs = Outputs(parts, scale if isinstance(scale, str) else as_float(scale), self.wrong)
        self.weights, self.entry, self.environment = weights, entry, environment
        self.init_args = dict(init_args or {})
        self.name = module if isinstance(module, str) else f"{type(module).__module__}.{type(module).__qualname__}"
        if isinstance(module, nn.Module):
            self._hold(copy.deepcopy(module))
            return
        self.factory = import_function(module, "model.prior.module")
        if weights is None:
            raise ConfigurationError(
                "model.prior.weights: found None, expected the file of the module's weights, which are random "
                "without one"
            )
        if environment is None:
            self._hold(self._built({}))

    def _built(self, arguments: dict[str, Any]) -> nn.Module:
        """Call the class with its arguments.

        Raises:
            ConfigurationError: If it raises, or returns something else.
        """
        try:
            module = self.factory(**self.init_args, **arguments)
        except Exception as error:
            reason = described(error)
            expected = "its arguments (model.prior.environment names the one that takes the environment)"
            raise ConfigurationError(
                f"model.prior.init_args: found {self.init_args}, with which {self.name} raises {reason}, expected "
                f"{expected}"
            ) from error
        if not isinstance(module, nn.Module):
            found = f"{self.name}, which returns {type(module).__name__}"
            raise ConfigurationError(f"model.prior.module: found {found}, expected a class of nn.Module")
        return module

    def _hold(self, module: nn.Module) -> None:
        """Load the weights, and freeze the module."""
        if self.weights is not None:
            load_weights(module, self.weights, self.entry)
        self.module = module.eval().requires_grad_(False)

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Adopt the environment's spaces, and build the module if its class takes the environment.

        Raises:
            SpaceMismatchError: If the distribution is not one over such actions.
        """
        self.adopt(observation_space, action_space)
        discrete = self.distribution_name in DISCRETE
        if discrete != isinstance(action_space, gym.spaces.Discrete):
            expected = "'squashed_normal' or 'normal'" if discrete else "'categorical' or 'boltzmann'"
            raise SpaceMismatchError(
                f"model.prior.distribution: found {self.distribution_name!r}, expected {expected} for the "
                f"environment's {action_space}"
            )
        if self.environment is not None and not hasattr(self, "module"):
            names = ("single_observation_space", "single_action_space", "observation_space", "action_space")
            spaces = SimpleNamespace(**dict(zip(names, (observation_space, action_space) * 2, strict=True)))
            self._hold(self._built({self.environment: spaces}))
        if self.bounds is None:
            self.family = Categorical(int(action_space.n))
        else:
            kind = SquashedNormal if self.distribution_name == "squashed_normal" else Normal
            self.family = kind(self.bounds.size)

    def probe(self, observation: Tensor) -> None:
        """Check the module's outputs at observations of the environment.

        Raises:
            EnvironmentContractError: If the module raises, or an output has a wrong shape or is not finite.
        """
        self.distribution_parameters(observation)

    @torch.no_grad()
    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return log-probabilities ``[..., A]``, or location and log-scale ``[..., 2 A]``, checked in every call."""
        shape = self.observation_space.shape or ()
        batch, rows = observation.shape[: observation.dim() - len(shape)], observation.reshape(-1, *shape)
        output = self._output(rows)
        if self.bounds is None:
            logits = self.outputs.logits(output, rows.shape[0], self.family.size)
            self.require_finite("logits" if self.distribution_name == "categorical" else "Q-values", logits)
            divisor = float(self.temperature or 1.0) if self.distribution_name == "boltzmann" else 1.0
            return (logits / divisor).log_softmax(dim=-1).reshape(*batch, -1)
        pair = self.outputs.location_and_log_scale(output, rows.shape[0], tuple(self.bounds.shape))
        if self.distribution_name == "normal":
            pair = self.bounds.normal_from_environment(*pair)
        parameters = torch.cat([each.flatten(start_dim=1) for each in pair], dim=-1)
        self.require_finite("location and log-scale", parameters)
        return parameters.reshape(*batch, -1)

    def _output(self, rows: Tensor) -> Any:
        """Return the module's output at observations ``[N, *observation_shape]``."""
        try:
            return call(self.module, self.names, rows)
        except ConfigurationError:
            raise
        except Exception as error:
            reason = described(error)
            found = f"an error for observations of shape {tuple(rows.shape)} ({reason})"
            raise self.wrong("output", found, "a module that takes such a batch") from error

    def origin(self) -> str:
        """Return the module's name and file, for messages."""
        return f"prior {self.name}" + ("" if self.weights is None else f" ({self.weights})")

    def describe(self) -> dict[str, Any]:
        """Return the module's name, and how its outputs are read; loading a file never imports code."""
        settings: dict[str, Any] = {"output": self.names, "parts": self.outputs.parts, "scale": self.outputs.scale}
        settings |= {"distribution": self.distribution_name, "temperature": self.temperature}
        return {"kind": "ModulePrior", "name": self.name, **settings}


def load_weights(module: nn.Module, path: str, entry: str | None) -> None:
    """Load the weights of a module from a file that is read with ``weights_only=True``.

    Args:
        module: Module to load into.
        path: File of a state_dict, or of a dictionary with one in it.
        entry: Entry that holds the state_dict, with dots for nested ones, or ``None``.

    Raises:
        CheckpointError: If the file is missing, holds anything but tensors and plain data, has no such entry, or does
            not fit the module.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"model.prior.weights: found {path!r}, which is no file, expected that of a state_dict")
    try:
        weights = read_data(Path(path))
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: found a damaged or foreign file, or one with anything but tensors and plain data, expected a "
            "state_dict: torch.save(module.state_dict(), path)"
        ) from error
    for key in [] if entry is None else entry.split("."):
        if not isinstance(weights, dict) or key not in weights:
            found = sorted(map(str, weights)) if isinstance(weights, dict) else type(weights).__name__
            raise CheckpointError(f"{path}: found {found}, expected the entry {key!r} of model.prior.entry {entry!r}")
        weights = weights[key]
    named = isinstance(weights, dict) and all(isinstance(key, str) for key in weights)
    if not named or not all(isinstance(value, Tensor) for value in weights.values()):
        found = sorted(map(str, weights))[:8] if isinstance(weights, dict) else type(weights).__name__
        raise CheckpointError(
            f"{path}: found {found}, expected the tensors of a state_dict; model.prior.entry names the entry with them"
        )
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: found weights that do not fit {type(module).__name__} ({reason})") from error
