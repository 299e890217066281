"""Priors that are models of Stable-Baselines3."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.checkpoints import check_weight
from rql_lightning.errors import CheckpointError, SpaceMismatchError, are_sizes, is_integer, require
from rql_lightning.policies.base import Policy
from rql_lightning.policies.clipped import ClippedNormal
from rql_lightning.policies.families import Categorical, Family, SquashedNormal
from rql_lightning.priors.base import Prior, as_float, is_positive
from rql_lightning.priors.stable_baselines3.actor import actor_of
from rql_lightning.priors.stable_baselines3.architecture import Architecture, ContinuousNetwork, DiscreteNetwork
from rql_lightning.priors.stable_baselines3.archive import SavedModel, read_model
from rql_lightning.priors.stable_baselines3.folder import files_of, statistics_in
from rql_lightning.priors.stable_baselines3.normalization import (
    INSTEAD,
    Normalization,
    ObservationStatistics,
    read_vec_normalize,
)
from rql_lightning.priors.stable_baselines3.recognition import recognize
from rql_lightning.priors.stable_baselines3.spaces import (
    check_observations,
    read_action_space,
    read_observation_space,
)
from rql_lightning.spaces import ActionBounds, check_continuous, check_discrete, space_from_data

VALUES, MAXIMUM_ENTROPY, ON_POLICY = ("DQN", "QR-DQN"), "SAC or TQC", "PPO or A2C"


class StableBaselines3Prior(Prior):
    """A frozen policy from a file of Stable-Baselines3: DQN, QR-DQN, PPO, A2C, SAC, TQC, TD3 or DDPG.

    The file is read without Stable-Baselines3, and nothing in it is unpickled or executed.

    Attributes:
        gamma: Discount factor γ that the file names, or ``None``.

    Args:
        path: Path of the zip that model.save wrote, or of a folder of the model hub with the zip, args.yml and
            vec_normalize.pkl.
        temperature: Temperature > 0 of the Boltzmann policy of the Q-values of DQN and QR-DQN, which they require: the
            smaller it is, the closer the policy is to the greedy one. null for all other classes.
        scale: Standard deviation > 0 of the noise around the action of TD3 and DDPG, which they require, where actions
            are scaled to [-1, 1], as in the action noise of Stable-Baselines3. null for all other classes.
        activation: Name of the activation function in torch.nn, such as Tanh, for files that do not name it. null
            stands for the function that the file names, or the default of its class.
        vec_normalize: Path of the file of VecNormalize that observations were normalised with, or its mean, variance,
            clip and epsilon. null stands for the file in the folder, if there is one.

    Raises:
        CheckpointError: If the file is missing, damaged, of another library or of a class that is not supported.
        SpaceMismatchError: If its spaces are not supported.
        ConfigurationError: If temperature, scale or activation is missing, or given without need.
    """

    def __init__(
        self,
        path: str,
        temperature: float | None = None,
        scale: float | None = None,
        activation: str | None = None,
        vec_normalize: str | ObservationStatistics | None = None,
    ) -> None:
        super().__init__()
        self.path = str(path)
        files = files_of(Path(path))
        model = read_model(files.model)
        observations, actions = (model.fields.get(f"{kind}_space") for kind in ("observation", "action"))
        where = f"prior {model.path}, data, field"
        check_observations(observations, f"{where} observation_space")
        self.action_space = read_action_space(actions, f"{where} action_space")
        found = recognize(model, _size(self.action_space), activation)
        inputs = found.architecture.sizes[0]
        self.observation_space = read_observation_space(observations, inputs, f"{where} observation_space")
        self._check_options(found.architecture, temperature, scale)
        temperature, scale = as_float(temperature), as_float(scale)
        self.task, self.gamma = files.task, _discount(model)
        statistics = vec_normalize or files.vec_normalize
        normalization = self._normalization(statistics, model, found.architecture.algorithm, inputs)
        self._build(found.architecture, normalization, temperature, scale)
        self._load(found.weights, model)
        self.temperature = (
            _entropy_coefficient(model) if found.architecture.algorithm == MAXIMUM_ENTROPY else temperature
        )
        assumed = statistics is None and found.architecture.algorithm != ON_POLICY
        self._say(model, found.default_activation, assumed)

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> StableBaselines3Prior:
        """Build the prior described by a customised policy's checkpoint, before its weights are loaded.

        Raises:
            KeyError, TypeError, ValueError: If the description is invalid.
            CheckpointError: If a number in it is invalid.
        """
        prior = cls.__new__(cls)
        Prior.__init__(prior)
        prior.path, prior.task, prior.gamma = description["path"], description["task"], None
        prior.observation_space = space_from_data(description["observation_space"])
        prior.action_space = space_from_data(description["action_space"])
        architecture = Architecture(**description["architecture"])
        clip = description["clip"]
        temperature, scale = description["temperature"], description["scale"]
        _check_claim(architecture, {"temperature": temperature, "scale": scale, "clip": clip}, prior.path)
        with torch.device("meta"):  # the sizes are a claim until there are weights of such shapes
            normalization = None if clip is None else Normalization(architecture.sizes[0], clip)
            prior._build(architecture, normalization, temperature, scale)
        prior.temperature = temperature
        return prior

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Allocate memory for the weights of a described prior, once weights of the described shapes are there.

        Raises:
            CheckpointError: If a weight is missing or has another shape; names it.
        """
        own = self.state_dict()
        if any(each.is_meta for each in own.values()):
            for name, each in own.items():
                check_weight(f"{prefix}{name}", state_dict.get(f"{prefix}{name}"), each.shape)
            self.to_empty(device="cpu")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _build(
        self,
        architecture: Architecture,
        normalization: Normalization | None,
        temperature: float | None,
        scale: float | None,
    ) -> None:
        """Create the network with untrained weights, and the family.

        Raises:
            SpaceMismatchError: If no algorithm supports the spaces.
        """
        self.architecture, self.normalization, self.scale = architecture, normalization, scale
        try:
            self._check_spaces(self.observation_space, self.action_space)
        except SpaceMismatchError as error:
            raise SpaceMismatchError(f"{self.origin()}: {error}") from error
        if architecture.scale is None:
            self.family: Family = Categorical(_size(self.action_space))
            self.network: DiscreteNetwork | ContinuousNetwork = DiscreteNetwork(architecture, temperature)
        else:
            size = _size(self.action_space)
            self.bounds = ActionBounds(self.action_space)
            self.family = SquashedNormal(size) if architecture.squashed else ClippedNormal(size)
            self.network = ContinuousNetwork(architecture, scale)
        self.eval().requires_grad_(False)

    def _load(self, weights: dict[str, Tensor], model: SavedModel) -> None:
        """Load the weights of the network.

        Raises:
            CheckpointError: If their shapes are not those of the network.
        """
        try:
            self.network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"prior {model.path}, policy.pth: found weights that do not fit: {reason}") from error

    def _check_spaces(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        (check_discrete if self.architecture.scale is None else check_continuous)(observation_space, action_space)

    def _check_options(self, architecture: Architecture, temperature: float | None, scale: float | None) -> None:
        """Refuse missing and superfluous options.

        Raises:
            ConfigurationError: If an option is missing, invalid or has no effect.
        """
        algorithm = architecture.algorithm
        expected = {
            "temperature": "a number > 0: its Q-values become a policy at a temperature, and the file has none; the "
            "smaller it is beside the differences of an action's Q-value from the others', the greedier the policy",
            "scale": "a number > 0: its actions have no distribution, and a prior needs one; 0.1 is the usual action "
            "noise, where actions are scaled to [-1, 1]",
        }
        needed = {"temperature": algorithm in VALUES, "scale": architecture.scale == "stated"}
        for name, value in (("temperature", temperature), ("scale", scale)):
            text = expected[name] if needed[name] else "null: the policy has a distribution of its own"
            valid = is_positive(value) if needed[name] else value is None
            require(valid, f"{self.origin()}, {name}", value, f"{text} ({algorithm})")

    def _normalization(
        self, given: str | Path | ObservationStatistics | None, model: SavedModel, algorithm: str, inputs: int
    ) -> Normalization | None:
        """Return the normalisation of observations, or ``None`` if they are not normalised.

        Raises:
            CheckpointError: If the model was trained with ``VecNormalize`` and nothing is given.
            ConfigurationError: If the constants are invalid or do not fit the observations.
        """
        if given is None:
            # PPO and A2C keep it with VecNormalize alone; the files of all others do not tell.
            if algorithm != ON_POLICY or model.fields.get("_last_original_obs") is None:
                return None
            raise CheckpointError(
                f"prior {model.path}, data, field _last_original_obs: found a model trained with VecNormalize, "
                f"expected vec_normalize to be given: {INSTEAD}"
            )
        statistics = given if isinstance(given, ObservationStatistics) else read_vec_normalize(Path(given))
        where = f"{self.origin()}, vec_normalize"
        return None if statistics is None else Normalization.of(statistics, inputs, where)

    def _say(self, model: SavedModel, default_activation: bool, not_normalized: bool) -> None:
        """Log what was read; a warning where the file does not say what was assumed."""
        architecture = self.architecture
        widths = "-".join(map(str, architecture.sizes))
        note = ", the default of its class" if default_activation else ""
        normalized = ", observations normalised" if self.normalization is not None else ""
        if not_normalized:
            beside = statistics_in(Path(model.path).parent)
            unused = "" if beside is None else f" ({beside.name} beside it is not applied; vec_normalize applies it)"
            normalized = f", observations taken as not normalised{unused}"
        logging.getLogger(__name__).log(
            logging.WARNING if default_activation or not_normalized else logging.INFO,
            f"{self.origin()}: {architecture.algorithm} of Stable-Baselines3 {model.version}, layers {widths}, "
            f"activation {architecture.activation}{note}{normalized}",
        )

    def attach(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Check that the spaces fit, and adopt the environment's bounds, which a file has as rounded text if at all.

        Raises:
            SpaceMismatchError: If no algorithm supports the spaces, or they differ from those of the file.
        """
        if not isinstance(observation_space, gym.spaces.Box):
            self._check_spaces(observation_space, action_space)  # which says how to flatten it
        super().attach(observation_space, action_space)  # then, as its errors name the file and both spaces
        self._check_spaces(observation_space, action_space)
        self.observation_space, self.action_space = observation_space, action_space
        if self.bounds is not None:
            self.bounds = ActionBounds(action_space)

    def distribution_parameters(self, observation: Tensor) -> Tensor:
        """Return log-probabilities ``[..., A]``, or location and log-scale ``[..., 2 A]``."""
        code = self.flatten(observation)
        if self.normalization is not None:
            code = self.normalization(code)
        if self.bounds is None:
            return self.network(code)
        location, log_scale = self.network(code)
        if self.architecture.scale != "stated" and not self.architecture.squashed:  # in the environment's units
            middle, half_width = (each.to(location.device) for each in (self.bounds.middle, self.bounds.half_width))
            location, log_scale = (location - middle) / half_width, log_scale - half_width.log()
        return torch.cat([location, log_scale], dim=-1)

    def log_prob_of(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return log π(a|s), ``[N]``: a log-density with respect to the environment's units.

        Dimensions in which a clipped policy's action is on a bound contribute a log-probability, which has no units.
        """
        result = super().log_prob_of(observation, action)
        if self.bounds is None or not isinstance(self.family, ClippedNormal):
            return result
        clipped = self.family.at_bound(self.bounds.from_environment(action.to(torch.float32)))
        return result + (clipped * self.bounds.half_width.log().to(result.device)).sum(dim=-1)

    def as_actor(self) -> Policy:
        """Return a policy of this library with the weights of SAC or TQC, if it has networks of such a form."""
        return actor_of(self) or self

    def origin(self) -> str:
        """Return the path of the file, for messages."""
        return f"prior {self.path}"

    def describe(self) -> dict[str, Any]:
        """Return the description of spaces, network and options, as plain data."""
        own = {"path": self.path, "temperature": self.temperature, "scale": self.scale}
        clip = None if self.normalization is None else self.normalization.clip
        return {**super().describe(), **own, "architecture": asdict(self.architecture), "clip": clip}


def _size(space: gym.Space[Any]) -> int:
    """Return the number of discrete actions, or of numbers of a continuous one."""
    return int(space.n) if isinstance(space, gym.spaces.Discrete) else math.prod(space.shape or ())


def _discount(model: SavedModel) -> float | None:
    """Return the discount factor, or ``None`` if the file has no number in [0, 1]."""
    gamma = model.fields.get("gamma")
    return float(gamma) if isinstance(gamma, int | float) and 0 <= gamma <= 1 else None


def _entropy_coefficient(model: SavedModel) -> float | None:
    """Return the temperature α of SAC and TQC, or ``None`` if it is 0.

    Raises:
        CheckpointError: If the file has no such number.
    """
    where, found = f"prior {model.path}, pytorch_variables.pth", sorted(model.variables)
    for name in ("log_ent_coef", "ent_coef_tensor"):
        value = model.variables.get(name)
        if value is None:
            continue
        coefficient = (value.exp() if name == "log_ent_coef" else value).flatten().tolist()
        if len(coefficient) != 1 or not 0 <= coefficient[0] < math.inf:
            raise CheckpointError(f"{where}, {name}: found {value.tolist()}, expected the entropy coefficient")
        return coefficient[0] or None
    raise CheckpointError(f"{where}: found {found}, expected log_ent_coef or ent_coef_tensor")


def _check_claim(architecture: Architecture, numbers: dict[str, Any], path: str) -> None:
    """Refuse a description in a checkpoint whose numbers no model has.

    Raises:
        CheckpointError: If a number is invalid; names it.
    """
    numbers = {**numbers, "mean_limit": architecture.mean_limit}
    limits = ("clip", "mean_limit")  # which may be infinite
    claims = [
        (name, value, value is None or is_positive(value) or (name in limits and value == math.inf), "a number > 0")
        for name, value in numbers.items()
    ]
    sizes, quantiles, columns = architecture.sizes, architecture.quantiles, architecture.gsde_columns
    claims += [
        ("sizes", sizes, are_sizes(sizes) and len(sizes) > 1, "integers >= 1, at least two"),
        ("quantiles", quantiles, is_integer(quantiles, 1), "an integer >= 1"),
        ("gsde_columns", columns, is_integer(columns, 0), "an integer >= 0"),
    ]
    for name, value, valid, expected in claims:
        if not valid:
            raise CheckpointError(f"prior {path}, {name}: found {value!r}, expected {expected}")
