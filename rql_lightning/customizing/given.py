"""Whatever the user calls a prior, as a :class:`~rql_lightning.priors.Prior` and as its entry in a config."""

from __future__ import annotations

import copy
import inspect
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from torch import nn

from rql_lightning.checkpoints import SAFETENSORS, SCHEME
from rql_lightning.customizing.paths import import_path
from rql_lightning.errors import ConfigurationError, RqlError, require
from rql_lightning.loading import CheckpointPrior
from rql_lightning.plain import is_plain, plain_of
from rql_lightning.priors import FunctionPrior, Prior, StableBaselines3Prior, TorchRLPrior

GivenPrior = Prior | str | Path | Callable[..., Any] | nn.Module | Mapping[str, Any]
LAST = Path("checkpoints", "last.ckpt")
EXPECTED = (
    "the zip of a model of Stable-Baselines3 or its folder, a checkpoint or archive (.safetensors) of this library or "
    "the folder of its run, or pretrained:<name>"
)


@dataclass(frozen=True)
class KnownPrior:
    """A prior that has been read.

    Attributes:
        prior: The prior.
        entry: What a config says in its place: a class path and its arguments, or the prior itself if no file can.
    """

    prior: Prior
    entry: Any

    @property
    def gamma(self) -> float | None:
        """Discount factor that the prior's file names, or ``None``."""
        return getattr(self.prior, "gamma", None)


def read_prior(given: GivenPrior, **options: Any) -> KnownPrior:
    """Recognise a prior; files are told apart by their content, except for archives, by their suffix.

    Args:
        given: Prior; path of a file or folder; name of a shipped policy; class path and arguments as in a config;
            function (observation, action) -> log-likelihood; or probabilistic module of TorchRL.
        **options: Further arguments of :class:`~rql_lightning.priors.StableBaselines3Prior`, for its files; ``None``
            for its default.

    Raises:
        ConfigurationError: If it is none of these, or an option is missing, invalid or has no effect.
        CheckpointError: If a file is damaged.
    """
    if isinstance(given, str | Path) and _is_foreign(given):
        return _from_class(StableBaselines3Prior, {"path": str(given), **options})
    for name, value in options.items():
        expected = "null: some models of Stable-Baselines3 that are given by their path need one, nothing else"
        require(value is None, name, value, expected)
    if isinstance(given, str | Path):
        folder = Path(given)
        return _from_class(CheckpointPrior, {"path": str(folder / LAST if folder.is_dir() else given)})
    if isinstance(given, Prior):
        return KnownPrior(given, given)
    if isinstance(given, Mapping):
        entry = _with_paths(plain_of(dict(given)))
        prior = _instantiated(entry)
        return KnownPrior(prior, entry if is_plain(entry) else prior)
    return _from_code(given)


def _with_paths(value: Any) -> Any:
    """Return an entry of a config with import paths in place of functions that have one, at any depth."""
    if isinstance(value, dict):
        return {name: _with_paths(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_paths(each) for each in value]
    return (import_path(value) or value) if callable(value) else value


def _from_class(kind: type[Prior], options: dict[str, Any]) -> KnownPrior:
    options = {name: value for name, value in options.items() if value is not None}
    return KnownPrior(kind(**options), {"class_path": f"rql_lightning.priors.{kind.__name__}", "init_args": options})


def _from_code(given: Any) -> KnownPrior:
    """Return the prior of a module or a function."""
    if hasattr(given, "get_dist"):
        prior: Prior = TorchRLPrior(given)
        return KnownPrior(prior, prior)
    if isinstance(given, nn.Module) or not callable(given):
        hint = {True: "ModulePrior(module, …), which says what the module returns", False: EXPECTED}
        saved = "; the file that its save method writes" if hasattr(given, "save") else ""
        found = f"an object of type {type(given).__name__}"
        raise ConfigurationError(f"prior: found {found}, expected {hint[isinstance(given, nn.Module)]}{saved}")
    if not _takes_two(given):
        name = getattr(given, "__qualname__", type(given).__name__)
        raise ConfigurationError(
            f"prior: found the function {name}{inspect.signature(given)}, expected one of "
            "(observation, action) that returns the log-likelihood; SamplerPrior(function) for one of the observation "
            "alone that returns a random action"
        )
    prior, path = FunctionPrior(given), import_path(given)
    entry = {"class_path": "rql_lightning.priors.FunctionPrior", "init_args": {"log_prob": path}}
    return KnownPrior(prior, prior if path is None else entry)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some built-in functions have no signature
        return True
    return True


def _is_foreign(given: str | Path) -> bool:
    """Return whether a file or folder is of Stable-Baselines3, rather than a checkpoint or the name of one.

    Raises:
        ConfigurationError: If it is neither.
    """
    if str(given).startswith(SCHEME):
        return False
    path = Path(given)
    if path.is_dir():
        return not (path / LAST).is_file()
    require(path.is_file(), "prior", str(given), f"{EXPECTED}; there is no such file")
    if path.suffix == SAFETENSORS:  # as load_policy recognises it
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"prior: found {str(given)!r}, which is no zip ({error}), expected {EXPECTED}"
        ) from error
    tensors = any(name.rpartition("/")[2] == "data.pkl" for name in names)  # a file of torch.save
    return not tensors


def _instantiated(entry: dict[str, Any]) -> Prior:
    """Return the prior of a class path and its arguments."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--prior", type=Prior)
    try:
        prior = parser.instantiate(parser.parse_object({"prior": copy.deepcopy(entry)})).prior
    except RqlError:
        raise
    except Exception as error:  # jsonargparse raises different types for different kinds of mistakes
        reason = " ".join(str(error).split())
        expected = "the class path of a prior and its arguments"
        raise ConfigurationError(f"prior: found {entry!r}, expected {expected} ({reason})") from error
    own = isinstance(prior, Prior) and type(prior) is not Prior  # the base class, which the parser takes, is no prior
    require(own, "prior", entry, "the class path of a prior and its arguments")
    return prior
