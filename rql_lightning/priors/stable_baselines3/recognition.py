"""Which class a model of Stable-Baselines3 is of, by the names of its weights, and how its network is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from rql_lightning.errors import CheckpointError, ConfigurationError, require
from rql_lightning.priors.stable_baselines3.architecture import ACTIVATIONS, Architecture
from rql_lightning.priors.stable_baselines3.archive import SavedModel

Layer = tuple[Tensor, Tensor]
WITHOUT_EFFECT = {
    *("net_arch", "ortho_init", "log_std_init", "full_std", "optimizer_class", "optimizer_kwargs", "n_critics"),
    *("share_features_extractor", "normalize_images", "use_sde", "n_quantiles", "sde_net_arch"),
}
"""Settings of a policy that show in its weights, or have no effect on its law."""
OF_THE_LAW = {"activation_fn", "use_expln", "clip_mean", "squash_output", "features_extractor_class", ":type:"}


@dataclass(frozen=True)
class Recognized:
    """A network and its weights, under the names of this library.

    Attributes:
        architecture: The network.
        weights: Its weights.
        default_activation: Whether the file does not say its activation function, which is then its class's default.
    """

    architecture: Architecture
    weights: dict[str, Tensor]
    default_activation: bool


def recognize(model: SavedModel, actions: int, activation: str | None) -> Recognized:
    """Recognise the class of a model, and take the weights of its policy out of those of its critics and targets.

    Args:
        model: The model as read.
        actions: Number of discrete actions, or of numbers of a continuous one.
        activation: Activation function that the user states, or ``None``.

    Raises:
        CheckpointError: If a weight or setting is unknown; names it.
        ConfigurationError: If the activation function has to be stated.
    """
    found = next((kind for kind in _KINDS if any(map(kind.marks, model.weights))), None)
    if found is None:
        names = sorted(model.weights)[:3]
        raise CheckpointError(
            f"prior {model.path}, policy.pth: found the weights {names}, … of no class that is supported, expected "
            f"a model of {', '.join(kind.name for kind in _KINDS)}"
        )
    settings = _settings(model)
    _check_class(model, found)
    chosen, by_default = _activation(model, settings, activation, found)
    weights = _Weights(model, found, actions)
    for prefix in found.unused:
        weights.discard(prefix)
    architecture = found.read(weights, settings, chosen)
    weights.finish()
    return Recognized(architecture, weights.own, by_default)


class _Weights:
    """Weights that are taken out by name, so that one that nothing has read is noticed.

    Attributes:
        own: Weights under the names of this library, filled by the methods.
    """

    def __init__(self, model: SavedModel, kind: _Kind, actions: int) -> None:
        self.where, self.kind, self.actions = f"prior {model.path}, policy.pth", kind, actions
        self.left, self.own = dict(model.weights), dict[str, Tensor]()

    def discard(self, prefix: str) -> None:
        """Drop the weights of a part that acting does not need."""
        self.left = {name: value for name, value in self.left.items() if not name.startswith(prefix)}

    def take(self, name: str, dimensions: int) -> Tensor:
        """Take one tensor."""
        if name not in self.left or self.left[name].dim() != dimensions:
            shape = f"shape {tuple(self.left[name].shape)}" if name in self.left else "none"
            raise CheckpointError(f"{self.where}, {name}: found {shape}, expected a tensor of {dimensions} dimensions")
        return self.left.pop(name)

    def linear(self, name: str) -> Layer:
        """Take weight and bias of a layer."""
        return self.take(f"{name}.weight", 2), self.take(f"{name}.bias", 1)

    def sequence(self, prefix: str) -> list[Layer]:
        """Take layers that alternate with activation functions: numbers 0, 2, 4, …"""
        layers: list[Layer] = []
        while f"{prefix}.{2 * len(layers)}.weight" in self.left:
            layers.append(self.linear(f"{prefix}.{2 * len(layers)}"))
        return layers

    def network(self, hidden: Sequence[Layer], head: Layer, quantiles: bool = False) -> list[int]:
        """Name the layers of the network, and return their widths.

        Raises:
            CheckpointError: If the layers do not fit each other or the actions.
        """
        layers = [*hidden, head]
        fits = all(bias.shape == weight.shape[:1] for weight, bias in layers)
        fits = fits and all(len(one[1]) == other[0].shape[1] for one, other in pairwise(layers))
        if not fits:
            shapes = [tuple(weight.shape) for weight, _ in layers]
            raise CheckpointError(f"{self.where}: found layers of shapes {shapes}, which do not fit each other")
        outputs = len(head[1])
        if outputs % self.actions != 0 or (outputs != self.actions and not quantiles):
            expected = f"{'a multiple of ' if quantiles else ''}{self.actions}, as data, field action_space has"
            raise CheckpointError(f"{self.where}: found {outputs} outputs, expected {expected}")
        names = [*(f"hidden.{2 * index}" for index in range(len(hidden))), "head"]
        for name, (weight, bias) in zip(names, layers, strict=True):
            self.own |= {f"{name}.weight": weight, f"{name}.bias": bias}
        return [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]

    def finish(self) -> None:
        """Refuse weights that nothing has read."""
        if self.left:
            name = sorted(self.left)[0]
            extractor = "features_extractor" in name
            expected = "an MlpPolicy" if extractor else f"only those of an MlpPolicy of {self.kind.name}"
            raise CheckpointError(f"{self.where}: found the weights {name}, expected {expected}")


def _read_q_values(weights: _Weights, settings: dict[str, Any], activation: str) -> Architecture:
    """DQN: one Q-value per action."""
    *hidden, head = weights.sequence("q_net.q_net") or [weights.linear("q_net.q_net.0")]
    return Architecture(weights.kind.name, weights.network(hidden, head), activation)


def _read_quantiles(weights: _Weights, settings: dict[str, Any], activation: str) -> Architecture:
    """QR-DQN: quantiles of the return of each action."""
    *hidden, head = weights.sequence("quantile_net.quantile_net") or [weights.linear("quantile_net.quantile_net.0")]
    sizes = weights.network(hidden, head, quantiles=True)
    return Architecture(weights.kind.name, sizes, activation, quantiles=sizes[-1] // weights.actions)


def _read_actor_critic(weights: _Weights, settings: dict[str, Any], activation: str) -> Architecture:
    """PPO and A2C: logits, or a normal distribution whose scale is a parameter or gSDE's."""
    shared = weights.sequence("mlp_extractor.shared_net")  # versions before 1.8
    hidden = [*shared, *weights.sequence("mlp_extractor.policy_net")]
    sizes = weights.network(hidden, weights.linear("action_net"))
    name = weights.kind.name
    if "log_std" not in weights.left:
        return Architecture(name, sizes, activation)
    if weights.left["log_std"].dim() == 2:
        squashed = settings["squash_output"]
        return _with_gsde(weights, "log_std", settings, Architecture(name, sizes, activation, squashed=squashed))
    weights.own["log_scale"] = weights.take("log_std", 1)
    return Architecture(name, sizes, activation, scale="parameter")


def _read_squashed_actor(weights: _Weights, settings: dict[str, Any], activation: str) -> Architecture:
    """SAC and TQC: a squashed normal distribution whose scale is the network's or gSDE's."""
    hidden = weights.sequence("actor.latent_pi")
    name = weights.kind.name
    if "actor.log_std" in weights.left:
        limit = settings["clip_mean"] if settings["clip_mean"] > 0 else None
        sizes = weights.network(hidden, weights.linear("actor.mu" if limit is None else "actor.mu.0"))
        architecture = Architecture(name, sizes, activation, squashed=True, mean_limit=limit)
        return _with_gsde(weights, "actor.log_std", settings, architecture)
    sizes = weights.network(hidden, weights.linear("actor.mu"))
    weight, bias = weights.linear("actor.log_std")
    weights.own |= {"log_scale.weight": weight, "log_scale.bias": bias}
    return Architecture(name, sizes, activation, scale="network", squashed=True)


def _with_gsde(weights: _Weights, key: str, settings: dict[str, Any], architecture: Architecture) -> Architecture:
    scales = weights.own["log_scale"] = weights.take(key, 2)
    columns = {**vars(architecture), "gsde_columns": scales.shape[1], "expln": settings["use_expln"]}
    return Architecture(**{**columns, "scale": "gsde"})


def _read_deterministic_actor(weights: _Weights, settings: dict[str, Any], activation: str) -> Architecture:
    """TD3 and DDPG: an action that the user's scale surrounds."""
    *hidden, head = weights.sequence("actor.mu") or [weights.linear("actor.mu.0")]
    return Architecture(weights.kind.name, weights.network(hidden, head), activation, scale="stated")


@dataclass(frozen=True)
class _Kind:
    """Classes that share their networks.

    Attributes:
        name: Their names.
        marker: Pattern of the names of weights that no other class has.
        modules: Modules of their policies.
        activation: Their default activation function.
        unused: Prefixes of weights that acting does not need.
        read: Function that takes the policy's weights and returns the architecture.
    """

    name: str
    marker: str
    modules: tuple[str, ...]
    activation: str
    unused: tuple[str, ...]
    read: Callable[[_Weights, dict[str, Any], str], Architecture]

    def marks(self, weight: str) -> bool:
        """Return whether a weight is of one of these classes."""
        return re.match(self.marker, weight) is not None


_CRITICS = ("critic.", "critic_target.")
_SAC = ("stable_baselines3.sac.policies", "sb3_contrib.tqc.policies")
_KINDS = (
    _Kind(
        "QR-DQN",
        r"quantile_net\.",
        ("sb3_contrib.qrdqn.policies",),
        "ReLU",
        ("quantile_net_target.",),
        _read_quantiles,
    ),
    _Kind(
        "DQN",
        r"q_net\.",
        ("stable_baselines3.dqn.policies",),
        "ReLU",
        ("q_net_target.",),
        _read_q_values,
    ),
    _Kind("SAC or TQC", r"actor\.log_std", _SAC, "ReLU", _CRITICS, _read_squashed_actor),
    _Kind(
        "TD3 or DDPG",
        r"actor\.mu\.\d+\.",
        ("stable_baselines3.td3.policies",),
        "ReLU",
        (*_CRITICS, "actor_target."),
        _read_deterministic_actor,
    ),
    _Kind(
        "PPO or A2C",
        r"action_net\.(weight|bias)",
        ("stable_baselines3.common.policies",),
        "Tanh",
        ("mlp_extractor.value_net.", "value_net."),
        _read_actor_critic,
    ),
)


def _settings(model: SavedModel) -> dict[str, Any]:
    """Return the settings of the policy that determine its law, with the defaults of Stable-Baselines3.

    Raises:
        CheckpointError: If a setting is unknown or its value is not readable.
    """
    where = f"prior {model.path}, data, field policy_kwargs"
    given = model.fields.get("policy_kwargs", {})
    unknown = sorted(given.keys() - WITHOUT_EFFECT - OF_THE_LAW) if isinstance(given, dict) else [repr(given)]
    if unknown:
        raise CheckpointError(f"{where}: found {unknown[0]}, expected settings of an MlpPolicy")
    settings = {"use_expln": False, "clip_mean": 2.0, "squash_output": False, "activation_fn": None, **given}
    extractor = str(settings.get("features_extractor_class", "FlattenExtractor'>"))
    if not extractor.endswith("FlattenExtractor'>"):
        raise CheckpointError(f"{where}.features_extractor_class: found {extractor[:80]}, expected FlattenExtractor")
    for key, kinds in (("use_expln", bool), ("squash_output", bool), ("clip_mean", int | float)):
        if not isinstance(settings[key], kinds):
            raise CheckpointError(f"{where}.{key}: found {settings[key]!r}, expected a readable value")
    return settings


def _check_class(model: SavedModel, kind: _Kind) -> None:
    field = model.fields.get("policy_class")
    module = field.get("__module__") if isinstance(field, dict) else field
    if module not in kind.modules:
        raise CheckpointError(
            f"prior {model.path}, data, field policy_class: found a class of the module {module!r} with the weights of "
            f"{kind.name}, expected one of {' or '.join(kind.modules)}"
        )


def _activation(model: SavedModel, settings: dict[str, Any], stated: str | None, kind: _Kind) -> tuple[str, bool]:
    """Return the name of the activation function, and whether it is the default of the class.

    Raises:
        ConfigurationError: If the file names one that is unknown and the user states none, or they differ.
    """
    where, known = f"prior {model.path}", f"one of {', '.join(ACTIVATIONS)}"
    require(stated is None or stated in ACTIVATIONS, f"{where}, activation", stated, known)
    if settings["activation_fn"] is None:
        return stated or kind.activation, stated is None
    written = str(settings["activation_fn"])[:80]
    match = re.fullmatch(r"<class 'torch\.nn\.modules\.\w+\.(\w+)'>", written)
    named = match[1] if match and match[1] in ACTIVATIONS else None
    field = f"{where}, data, field policy_kwargs.activation_fn"
    if named is None and stated is None:
        raise ConfigurationError(f"{field}: found {written}, expected activation to be given: {known}")
    if named is not None and stated not in (None, named):
        raise ConfigurationError(f"{field}: found {named}, expected activation to be null, not {stated}")
    return stated or named or "", False
