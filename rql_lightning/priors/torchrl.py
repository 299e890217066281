"""Priors that are modules of TorchRL."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor, distributions

from rql_lightning.errors import ConfigurationError, SpaceMismatchError, described
from rql_lightning.policies.families import Categorical, SquashedNormal
from rql_lightning.policies.normal import WITHIN, Built, Normal
from rql_lightning.priors.base import Prior

if TYPE_CHECKING:
    from tensordict import TensorDictBase

Key = str | tuple[str, ...]
TOLERANCE = 1e-3
"""Largest relative difference between a log-likelihood of the module and of the prior that is due to rounding."""


class TorchRLPrior(Prior):
    """A prior given in Python as a probabilistic module of TorchRL or TensorDict, of which it keeps a frozen copy.

    Discrete actions: a categorical or one-hot categorical distribution. Continuous actions: TanhNormal with the
    environment's bounds, Normal, or any other distribution of actions in the environment's units whose log-density can
    be differentiated with respect to the action.

    Args:
        module: ProbabilisticActor, ProbabilisticTensorDictSequential or ProbabilisticTensorDictModule.
        observation: Entry from which the module reads the observation.
        action: Entry to which the module writes the action.
        log_prob: Entry to which the module writes the log-likelihood of its action, for a comparison with the prior's
            before training; null for no comparison.
    """

    def __init__(
        self, module: Any, observation: Key = "observation", action: Key = "action", log_prob: Key | None = None
    ) -> None:
        super().__init__()
        self.keys = {"observation": observation, "action": action, "log_prob": log_prob}
        if not hasattr(module, "get_dist"):
            raise ConfigurationError(
                f"model.prior.module: found {type(module).__name__}, expected a module of TorchRL with a distribution, "
                "such as a ProbabilisticActor (for networks that return Q-values, ModulePrior)"
            )
        outputs = [tuple([key] if isinstance(key, str) else key) for key in module.out_keys]
        for key in (action, log_prob):
            known = key is None or tuple([key] if isinstance(key, str) else key) in outputs
            if not known:
                name = "action" if key == action else "log_prob"
                hint = "" if name == "action" else " (it writes one with return_log_prob=True)"
                raise ConfigurationError(
                    f"model.prior.{name}: found {key!r}, expected one of the entries that the module writes, "
                    f"{list(module.out_keys)}{hint}"
                )
        self.module: Any = copy.deepcopy(module).eval().requires_grad_(False)

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Adopt the environment's spaces, and find the family of the module's distribution.

        Raises:
            SpaceMismatchError: If the spaces do not fit the module's distribution.
            EnvironmentContractError: If the module cannot be evaluated on observations of the environment.
        """
        self.adopt(observation_space, action_space)
        entries = self._evaluate(self.as_input(torch.zeros(1, *observation_space.shape or ())))
        distribution = self._distribution_of(entries)
        if isinstance(action_space, gym.spaces.Discrete):
            self._adopt_discrete(distribution, int(action_space.n))
        else:
            self._adopt_continuous(distribution, entries)

    def _adopt_discrete(self, distribution: Any, actions: int) -> None:
        categorical = isinstance(distribution, distributions.Categorical | distributions.OneHotCategorical)
        found = f"{distribution.logits.shape[-1]} actions" if categorical else type(distribution).__name__
        self._require_fit(found == f"{actions} actions", found, f"a categorical distribution over {actions} actions")
        self.family = Categorical(actions)

    def _adopt_continuous(self, distribution: Any, entries: TensorDictBase) -> None:
        """Choose the family, and how to read its parameters."""
        assert self.bounds is not None
        shape = tuple(distribution.batch_shape[1:]) + tuple(distribution.event_shape)
        found, expected = f"actions of shape {shape}", f"actions of shape {tuple(self.bounds.shape)}"
        categorical = isinstance(distribution, distributions.Categorical | distributions.OneHotCategorical)
        self._require_fit(not categorical, type(distribution).__name__, "a distribution over continuous actions")
        self._require_fit(shape == tuple(self.bounds.shape), found, expected)
        if _is_tanh_normal(distribution):
            for name, bound in (("low", self.bounds.low), ("high", self.bounds.high)):
                own = torch.as_tensor(getattr(distribution, name)).expand(self.bounds.shape).flatten()
                self._require_fit(
                    torch.allclose(own.float(), bound), f"TanhNormal with {name}={own.tolist()}", f"{bound.tolist()}"
                )
            self.family = SquashedNormal(self.bounds.size)
        elif _is_normal(distribution):
            self.family = Normal(self.bounds.size)
        else:
            self._shapes = {key: tuple(entries[key].shape[1:]) for key in self._parameter_keys()}
            size = sum(math.prod(shape) for shape in self._shapes.values())
            self.family = Built(size, self._rebuilt, _deterministic, self.bounds)

    def _require_fit(self, condition: bool, found: str, expected: str) -> None:
        if not condition:
            raise SpaceMismatchError(
                f"{self.origin()}: found {found}, expected {expected}, as in the environment's {self.action_space}"
            )

    # -- the module ----------------------------------------------------------------------------------------------------

    def _evaluate(self, observation: Tensor) -> TensorDictBase:
        """Return the entries that the module's distribution is built from, at observations ``[..., *shape]``."""
        from tensordict import TensorDict

        batch = observation.shape[: observation.dim() - len(self.observation_space.shape or ())]
        entries = TensorDict({self.keys["observation"]: observation}, batch_size=batch)
        try:
            return self.module.get_dist_params(entries) if hasattr(self.module, "get_dist_params") else entries
        except Exception as error:
            reason = described(error)
            found = f"an error for observations of shape {tuple(observation.shape)} ({reason})"
            expected = f"a module that reads the entry {self.keys['observation']!r} alone, of the environment's shape"
            expected += " (TorchRLPrior(module, observation=…) names another entry)"
            raise self.wrong("module", found, expected) from error

    def _distribution_of(self, entries: TensorDictBase) -> distributions.Distribution:
        build = getattr(self.module, "build_dist_from_params", self.module.get_dist)
        try:
            distribution = build(entries)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise self.wrong("module", f"parameters that make no distribution ({reason})", "valid ones") from error
        parts = getattr(distribution, "dists", None)
        return distribution if parts is None else parts[self.keys["action"]]

    def _parameter_keys(self) -> list[Any]:
        """Return the entries that hold the parameters of the distribution."""
        last = self.module if not hasattr(self.module, "get_dist_params") else list(self.module)[-1]
        return list(last.dist_params_keys)

    def _rebuilt(self, parameters: Tensor) -> distributions.Distribution:
        """Return the distribution of parameters that were flattened, ``[..., P]``."""
        from tensordict import TensorDict

        batch = parameters.shape[:-1]
        parts = parameters.split([math.prod(shape) for shape in self._shapes.values()], dim=-1)
        columns = zip(self._shapes.items(), parts, strict=True)
        entries = {key: part.reshape(*batch, *shape) for (key, shape), part in columns}
        return self._distribution_of(TensorDict(entries, batch_size=batch))

    # -- the prior -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return the parameters of the module's distribution, ``[..., P]``, checked in every call.

        These are log-probabilities of discrete actions; location and log-scale of a normal distribution, squashed or
        not, of actions in [−1, 1]; or else the entries that the distribution is built from.
        """
        entries = self._evaluate(observation)
        distribution: Any = self._distribution_of(entries)
        if self.bounds is None:
            log_prob = distribution.logits.log_softmax(dim=-1)
            if bool(log_prob.isnan().any()):
                raise self.wrong("logits", "NaN", "numbers")
            return log_prob
        batch = observation.dim() - len(self.observation_space.shape or ())
        if isinstance(self.family, Built):
            parts = [entries[key].flatten(start_dim=batch) for key in self._shapes]
        else:
            parts = list(self._location_and_scale(distribution))
        parameters = torch.cat(parts, dim=-1)
        self.require_finite("parameters of the distribution", parameters)
        return parameters

    def _location_and_scale(self, distribution: Any) -> tuple[Tensor, Tensor]:
        """Return location and log-scale, before tanh or of actions in [−1, 1], ``[..., A]``."""
        assert self.bounds is not None
        base = _root(distribution)
        if isinstance(self.family, Normal):
            return self.bounds.normal_from_environment(base.loc, base.scale.log())
        first = -len(self.bounds.shape)
        return base.loc.flatten(start_dim=first), base.scale.log().flatten(start_dim=first)

    def probe(self, observation: Tensor) -> None:
        """Compare the module's log-likelihood of its own actions with the prior's, if ``log_prob`` is given.

        Raises:
            EnvironmentContractError: If they differ, or an output is not finite.
        """
        parameters = self.distribution_parameters(observation)
        if self.keys["log_prob"] is None:
            return
        from tensordict import TensorDict
        from tensordict.nn import InteractionType, set_interaction_type

        with torch.no_grad(), set_interaction_type(InteractionType.RANDOM):
            entries = self.module(TensorDict({self.keys["observation"]: observation}, batch_size=len(observation)))
        action, theirs = entries[self.keys["action"]], entries[self.keys["log_prob"]]
        if self.bounds is None:
            ours = self.family.log_prob(parameters, action.argmax(dim=-1) if action.dim() > 1 else action)
        else:
            unit = self.bounds.from_environment(action)
            inside = (unit.abs() < WITHIN).all(dim=-1)  # near a bound, the rounding of the action decides
            ours = self.family.log_prob(parameters, unit) - self.bounds.log_half_widths
            ours, theirs = ours[inside], theirs.reshape(len(observation), -1).sum(dim=-1)[inside]
        if not torch.allclose(ours, theirs.reshape(ours.shape), rtol=TOLERANCE, atol=TOLERANCE):
            what = f"log-likelihoods {theirs.tolist()} in the entry {self.keys['log_prob']!r}"
            raise self.wrong("log_prob", what, f"those of the module's distribution, {ours.tolist()}")

    def origin(self) -> str:
        """Return the class of the module, for messages."""
        return f"prior {type(self.module).__name__}"

    def describe(self) -> dict[str, Any]:
        """Return the module's class alone: a file cannot hold its code, and loading a file never imports code."""
        return {"kind": "TorchRLPrior", "name": type(self.module).__name__}


def _root(distribution: Any) -> Any:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _is_tanh_normal(distribution: Any) -> bool:
    from torchrl.modules import TanhNormal

    return isinstance(distribution, TanhNormal)


def _is_normal(distribution: Any) -> bool:
    independent = isinstance(distribution, distributions.Independent | distributions.Normal)
    return independent and type(_root(distribution)) is distributions.Normal


def _deterministic(distribution: Any) -> Tensor:
    """Return the deterministic action of TorchRL's protocol: its own, or else the mode or the mean."""
    for name in ("deterministic_sample", "mode", "mean"):
        try:
            action = getattr(distribution, name)
        except (AttributeError, NotImplementedError):
            continue
        return action() if callable(action) else action
    return distribution.sample()
