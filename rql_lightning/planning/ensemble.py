"""An ensemble of networks that predicts what observations and actions lead to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rql_lightning.checkpoints import read_checkpoint, resolve
from rql_lightning.errors import CheckpointError, require
from rql_lightning.policies import Encoder
from rql_lightning.spaces import ActionBounds, check_continuous, check_discrete, space_from_data, space_to_data

MOST_ROWS = 7
"""Most rows of an observation: the cheapest of (rows − 1)! assignments is found by trying all of them."""


class DynamicsNetwork(nn.Module):
    """M networks of the same shape, one batched product per layer (Lakshminarayanan et al. 2017).

    Each maps a normalised observation and an action, one-hot or in [−1, 1], to the change of the observation in units
    of ``change_scale`` and the logit of the probability that the episode terminates.

    Where an observation is a number of rows, all but the first of which are a set, such as the vehicles of Highway, row
    i of a prediction is what becomes of row i. It is not where the environment lists it, so predictions are compared
    with the cheapest assignment of rows to rows (:meth:`matched`), and put in the environment's order
    (:meth:`in_order`).

    Args:
        observation_space: Observation space, a ``Box``.
        action_space: Action space, ``Discrete`` or a bounded ``Box``.
        members: Number of networks M.
        hidden_sizes: Width of each hidden layer.
        rows: Number of rows of the observation, or ``None``.
        sorted_by: Number in a row by whose absolute value the environment sorts the rows after the first, or ``None``.
        task: Gymnasium id of the environment.
        encoder: Normalisation of observations; by default none (see :meth:`normalise`).

    Raises:
        ConfigurationError: If the observation cannot be divided into the rows.
        SpaceMismatchError: If the spaces are not supported.
    """

    change_scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        members: int,
        hidden_sizes: Sequence[int],
        rows: int | None = None,
        sorted_by: int | None = None,
        task: str | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__()
        is_discrete = isinstance(action_space, gym.spaces.Discrete)
        (check_discrete if is_discrete else check_continuous)(observation_space, action_space)
        self.observation_space, self.action_space, self.task, self.prior = observation_space, action_space, task, None
        self.members, self.hidden_sizes, self.rows, self.sorted_by = members, list(hidden_sizes), rows, sorted_by
        self.size = size = math.prod(observation_space.shape or ())
        self.bounds = None if is_discrete else ActionBounds(action_space)
        self.actions = int(action_space.n) if self.bounds is None else self.bounds.size
        expected = f"null, or from 2 to {MOST_ROWS} and a divisor of the {size} numbers of an observation"
        require(rows is None or (2 <= rows <= MOST_ROWS and size % rows == 0), "model.rows", rows, expected)
        expected = "null" if rows is None else f"null, or from 0 to {size // rows - 1}, a number in a row"
        fits = sorted_by is None or (rows is not None and 0 <= sorted_by < size // rows)
        require(fits, "model.sorted_by", sorted_by, expected)
        self.encoder = Encoder(torch.zeros(size), torch.ones(size), []) if encoder is None else encoder
        self.register_buffer("change_scale", torch.ones(size))
        for name in ("low", "high"):
            limit = torch.as_tensor(getattr(observation_space, name), dtype=torch.float32).flatten()
            self.register_buffer(name, limit, persistent=False)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise([size + self.actions, *hidden_sizes, size + 1]):
            bound = 1.0 / math.sqrt(inputs)  # PyTorch's default initialisation of linear layers
            self.weights.append(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    @torch.no_grad()
    def normalise(self, observation: Tensor, following: Tensor) -> None:
        """Set the constants of normalisation from transitions.

        Args:
            observation: Flat observations, ``[F, D]``.
            following: Flat observations of the successors, ``[F, D]``.
        """
        self.encoder.middle.copy_(self._over_rows(observation.mean(dim=0), Tensor.mean))
        spread = self._over_rows((observation - self.encoder.middle).square().mean(dim=0), Tensor.mean).sqrt()
        self.encoder.half_width.copy_(torch.where(spread > 1e-6, spread, 1.0))
        change = self._over_rows((following - observation).square().mean(dim=0), Tensor.mean).sqrt()
        self.change_scale.copy_(torch.where(change > 1e-6, change, self.encoder.half_width))

    def _over_rows(self, values: Tensor, reduce: Any) -> Tensor:
        """Reduce statistics ``[D]`` over the rows after the first, which are treated alike."""
        if self.rows is None:
            return values
        first, others = values.unflatten(-1, (self.rows, -1)).split([1, self.rows - 1])
        return torch.cat([first, reduce(others, dim=0, keepdim=True).expand_as(others)]).flatten()

    # -- predictions -------------------------------------------------------------------------------------------------

    def inputs(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return network inputs ``[..., D + A]``.

        Args:
            observation: Flat observations, ``[..., D]``.
            action: Actions in the environment's units, ``[..., *action_shape]``.
        """
        if self.bounds is None:
            code = nn.functional.one_hot(action.long(), self.actions).to(observation.dtype)
        else:
            code = self.bounds.from_environment(action.to(observation.dtype))
        return torch.cat([self.encoder(observation), code], dim=-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``[M, B, D + A]``, or the same inputs ``[B, D + A]`` for all, to ``[M, B, D + 1]``."""
        result = inputs if inputs.dim() == 3 else inputs.expand(self.members, -1, -1)
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for inner, shift in hidden:
            result = torch.baddbmm(shift, result, inner).relu()
        return torch.baddbmm(bias, result, weight)

    @torch.no_grad()
    def successors(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each member predicts.

        Args:
            observation: Flat observations, ``[B, D]``.
            action: Actions in the environment's units, ``[B, *action_shape]``.

        Returns:
            Flat successors ``[M, B, D]``, whose rows are in the order of ``observation``, and the probabilities that
            the episode terminates, ``[M, B]``.
        """
        outputs = self(self.inputs(observation, action))
        following = observation + self.change_scale * outputs[..., :-1]
        return following.clamp(self.low, self.high), outputs[..., -1].sigmoid()

    # -- rows --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def matched(self, target: Tensor, prediction: Tensor) -> Tensor:
        """Return observations with their rows after the first in the order in which they are closest to predictions.

        Args:
            target: Flat observations in units of ``change_scale``, ``[..., D]``.
            prediction: Flat predictions in the same units, ``[..., D]``.

        Returns:
            ``target`` with its rows exchanged such that Σ |target − prediction| is least, ``[..., D]``.
        """
        if self.rows is None:
            return target
        rows, predicted = target.unflatten(-1, (self.rows, -1)), prediction.unflatten(-1, (self.rows, -1))
        others, orders = rows[..., 1:, :], _orders(self.rows - 1).to(target.device)
        costs = torch.cdist(predicted[..., 1:, :], others, p=1).flatten(-2)
        entries = orders + torch.arange(self.rows - 1, device=target.device) * (self.rows - 1)
        best = orders[costs[..., entries].sum(dim=-1).argmin(dim=-1)]
        others = others.gather(-2, best.unsqueeze(-1).expand(*best.shape, rows.shape[-1]))
        return torch.cat([rows[..., :1, :], others], dim=-2).flatten(-2)

    def in_order(self, observation: Tensor) -> Tensor:
        """Return flat observations ``[..., D]`` with the rows after the first sorted as the environment does."""
        if self.rows is None or self.sorted_by is None:
            return observation
        rows = observation.unflatten(-1, (self.rows, -1))
        others = rows[..., 1:, :]
        order = others[..., self.sorted_by].abs().argsort(dim=-1, stable=True)
        others = others.gather(-2, order.unsqueeze(-1).expand_as(others))
        return torch.cat([rows[..., :1, :], others], dim=-2).flatten(-2)

    # -- files -------------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return a description in plain data, from which :func:`load_dynamics` builds the networks again."""
        return {
            "kind": "DynamicsNetwork",
            "observation_space": space_to_data(self.observation_space),
            "action_space": space_to_data(self.action_space),
            "members": self.members,
            "hidden_sizes": self.hidden_sizes,
            "rows": self.rows,
            "sorted_by": self.sorted_by,
            "task": self.task,
            "encoder": self.encoder.describe(),
            "prior": None,
        }


def load_dynamics(path: str | Path) -> DynamicsNetwork:
    """Load the networks of a checkpoint of ``DynamicsEnsemble``, with ``weights_only=True``.

    Args:
        path: Path of the checkpoint.

    Returns:
        The networks on the CPU, with frozen parameters.

    Raises:
        CheckpointError: If the file is missing, damaged or holds no such networks.
    """
    file = resolve(path)
    checkpoint = read_checkpoint(file)
    found = checkpoint["rql_lightning"].get("algorithm")
    try:
        description = checkpoint["rql_lightning"]["policy"]
        if description["kind"] != "DynamicsNetwork":
            raise CheckpointError(f"{file}: found a checkpoint of {found}, expected one of DynamicsEnsemble")
        observation_space, action_space = (
            space_from_data(description[f"{name}_space"]) for name in ("observation", "action")
        )
        settings = {name: description[name] for name in ("members", "hidden_sizes", "rows", "sorted_by", "task")}
        encoder = Encoder.from_description(description["encoder"])
        network = DynamicsNetwork(observation_space, action_space, **settings, encoder=encoder)
        weights = checkpoint["state_dict"]
        network.load_state_dict({key[7:]: weights[key] for key in weights if key.startswith("policy.")})
    except CheckpointError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: found a file that holds no model of dynamics ({error!r})") from error
    return network.eval().requires_grad_(False)


@cache
def _orders(count: int) -> Tensor:
    """Return all orders of some rows, ``[count!, count]``."""
    return torch.tensor(list(permutations(range(count))))
