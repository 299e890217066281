"""Demonstrations: recorded episodes to imitate, checked when they are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import torch
from torch import Tensor

from rql_lightning.envs.registration import same_environment
from rql_lightning.errors import DemonstrationError
from rql_lightning.spaces import check_same

if TYPE_CHECKING:
    from tensordict import TensorDict

ABOUT = "demonstrations.json"
"""File beside the tensors that says where they come from."""

MINARI = "minari:"


@dataclass(frozen=True)
class Demonstrations:
    """Recorded episodes without rewards.

    Attributes:
        transitions: ``observation``, ``action`` in the environment's units, and the successor's ``observation``,
            ``terminated`` and ``truncated``, ``[F]``, sorted by episode and time.
        episode: Episode of each transition, int64 ``[F]``, counted from 0.
        observation_space, action_space: Spaces of the environment; ``None`` if they are unknown.
        task: Gymnasium id of the environment; ``None`` if it is unknown.
        source: Folder or data set, for messages.
        returns: Undiscounted returns ``[E]`` by name, for a summary; empty if they are unknown.
        about: Further facts on the source, for a summary.
    """

    transitions: TensorDict
    episode: Tensor
    observation_space: gym.Space[Any] | None
    action_space: gym.Space[Any] | None
    task: str | None
    source: str
    returns: dict[str, Tensor] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return int(self.episode[-1]) + 1 if len(self.episode) else 0

    @property
    def lengths(self) -> Tensor:
        """Number of steps of each episode, int64 ``[E]``."""
        return self.episode.bincount(minlength=self.episodes)

    def select(self, episodes: Tensor) -> Demonstrations:
        """Return some of the episodes, in the order of the demonstrations.

        Args:
            episodes: Indices of the episodes, int64.
        """
        kept = torch.zeros(self.episodes, dtype=torch.bool)
        kept[episodes] = True
        steps, order = kept[self.episode], kept.cumsum(0) - 1
        returns = {name: value[kept] for name, value in self.returns.items()}
        chosen = {"transitions": self.transitions[steps], "episode": order[self.episode[steps]], "returns": returns}
        return replace(self, **chosen)

    def split(self, fraction: float, seed: int) -> tuple[Demonstrations, Demonstrations]:
        """Split at random by episode.

        Args:
            fraction: Fraction of the episodes to hold out, in (0, 1); at least one is held out.
            seed: Seed of the split.

        Returns:
            Episodes to learn from, and those held out.

        Raises:
            DemonstrationError: If there are fewer than two episodes.
        """
        if self.episodes < 2:
            raise DemonstrationError(
                f"{self.source}: found {self.episodes} episode, expected at least 2, one to learn from and one to hold "
                "out; data.validation_fraction 0 holds none out"
            )
        held_out = min(max(1, round(fraction * self.episodes)), self.episodes - 1)
        order = torch.randperm(self.episodes, generator=torch.Generator().manual_seed(seed))
        return self.select(order[held_out:]), self.select(order[:held_out])


def load_demonstrations(source: str | Path) -> Demonstrations:
    """Load and check demonstrations.

    No code in a file is executed: tensors are read as numbers, and descriptions as JSON.

    Args:
        source: Folder as written by ``predict`` or by TorchRL, or ``minari:`` followed by the id of a local data set.

    Raises:
        DemonstrationError: If there are no such demonstrations, or they are damaged; names file and episode.
    """
    text = str(source)
    if text.startswith(MINARI):
        from rql_lightning.data.minari import load_minari

        demonstrations = load_minari(text.removeprefix(MINARI))
    else:
        from rql_lightning.data.recordings import load_folder

        demonstrations = load_folder(Path(text).expanduser())
    demonstrations = _normalised(demonstrations)
    _check_contents(demonstrations)
    return demonstrations


# -- checks ----------------------------------------------------------------------------------------------------------


def _normalised(demonstrations: Demonstrations) -> Demonstrations:
    """Return the demonstrations in the types that learners take.

    Real numbers become float32, and discrete actions int64 ``[F]``, also from the one-hot form in which TorchRL's
    environments have them.
    """
    transitions, space = demonstrations.transitions, demonstrations.action_space
    observation, action = transitions["observation"], transitions["action"]
    following = transitions["next", "observation"]
    if following.shape != observation.shape or following.dtype != observation.dtype:
        found = f"successors of shape {tuple(following.shape[1:])} and type {following.dtype}"
        expected = f"those of the observations, {tuple(observation.shape[1:])} and {observation.dtype}"
        raise DemonstrationError(f"{demonstrations.source}: found {found}, expected {expected}")
    if not action.is_floating_point() and (space is None or isinstance(space, gym.spaces.Discrete)):
        action = action.to(torch.int64)
        if action.dim() == 2 and action.shape[1] > 1:
            proper = (action >= 0) & (action.sum(dim=1, keepdim=True) == 1)
            expected = "whole numbers from 0, or a one-hot vector"
            _refuse(demonstrations, ~proper.all(dim=1), "a vector of integers as an action", expected)
            action = action.argmax(dim=1)
        action = action.squeeze(1) if action.shape[1:] == (1,) else action
        _refuse(demonstrations, _any(action < 0), "a negative discrete action", "whole numbers from 0")
    changed = transitions.clone(recurse=False)
    changed["action"] = _single(action)
    changed["observation"] = _single(observation)
    changed["next"] = transitions["next"].clone(recurse=False).set("observation", _single(following))
    return replace(demonstrations, transitions=changed)


def _single(values: Tensor) -> Tensor:
    return values.to(torch.float32) if values.is_floating_point() else values


def _check_contents(demonstrations: Demonstrations) -> None:
    """Refuse numbers that are not finite, and episodes that do not end, end twice or do not follow on.

    A last step may be both terminated and truncated, as in Gymnasium where a time limit falls on a terminal state.
    """
    transitions, episode = demonstrations.transitions, demonstrations.episode
    following = transitions["next"]
    for observation in (transitions["observation"], following["observation"]):
        _refuse(demonstrations, _not_finite(observation), "infinity or NaN in an observation", "finite numbers")
    _refuse(demonstrations, _not_finite(transitions["action"]), "infinity or NaN in an action", "finite numbers")
    done = following["terminated"] | following["truncated"]
    last = torch.cat([episode[1:] != episode[:-1], torch.ones(1, dtype=torch.bool)])
    _refuse(demonstrations, last & ~done, "no end", "its last step to be terminated or truncated")
    _refuse(demonstrations, done & ~last, "further steps after its end", "none")
    apart = _any(following["observation"][:-1] != transitions["observation"][1:])
    apart = torch.cat([apart & ~last[:-1], torch.zeros(1, dtype=torch.bool)])
    _refuse(demonstrations, apart, "a step whose successor is not the next step's observation", "consecutive steps")


def _not_finite(values: Tensor) -> Tensor:
    """Return where rows ``[F, ...]`` have a number that is not finite, bool ``[F]``."""
    return _any(~values.isfinite())


def _any(wrong: Tensor) -> Tensor:
    """Return which rows of ``[F, ...]`` have a true entry, bool ``[F]``."""
    return wrong if wrong.dim() == 1 else wrong.flatten(start_dim=1).any(dim=1)


def _refuse(demonstrations: Demonstrations, wrong: Tensor, found: str, expected: str) -> None:
    """Raise an error that names the first episode with a wrong step, bool ``[F]``."""
    if not bool(wrong.any()):
        return
    row = int(wrong.nonzero()[0])
    index = int(demonstrations.episode[row])
    step = row - int((demonstrations.episode < index).sum())
    raise DemonstrationError(
        f"{demonstrations.source}, episode {index}, step {step}: found {found}, expected {expected}"
    )


def check_demonstrations(
    demonstrations: Demonstrations, observation_space: gym.Space[Any], action_space: gym.Space[Any], task: str
) -> None:
    """Refuse demonstrations of another environment.

    Args:
        demonstrations: Demonstrations to check.
        observation_space: Observation space of the environment.
        action_space: Action space of the environment.
        task: Gymnasium id of the environment. Demonstrations of the registered environment that it customises,
            if any, fit too.

    Raises:
        DemonstrationError: If the demonstrations are of another task, or actions or observations do not fit the spaces.
        SpaceMismatchError: If the spaces are known and differ.
    """
    source, transitions = demonstrations.source, demonstrations.transitions
    if demonstrations.task is not None and not same_environment(demonstrations.task, task):
        raise DemonstrationError(f"{source}: found demonstrations of {demonstrations.task}, expected those of {task}")
    if demonstrations.action_space is not None and demonstrations.observation_space is not None:
        check_same(f"{source}, action space", demonstrations.action_space, action_space, True)
        check_same(f"{source}, observation space", demonstrations.observation_space, observation_space, False)
    shape = tuple(transitions["observation"].shape[1:])
    if shape != observation_space.shape:
        raise DemonstrationError(
            f"{source}: found observations of shape {shape}, expected the environment's {observation_space.shape}"
        )
    _check_actions(demonstrations, action_space)


def _check_actions(demonstrations: Demonstrations, space: gym.Space[Any]) -> None:
    action, source = demonstrations.transitions["action"], demonstrations.source
    shape = tuple(action.shape[1:])
    kind = "integers" if not action.is_floating_point() else "real numbers"
    if isinstance(space, gym.spaces.Discrete):
        if action.is_floating_point() or shape != ():
            expected = f"integers of shape (), for the discrete actions {space}"
            raise DemonstrationError(f"{source}: found actions that are {kind} of shape {shape}, expected {expected}")
        outside = (action < 0) | (action >= int(space.n))
    else:
        if not action.is_floating_point() or shape != space.shape:
            expected = f"real numbers of shape {space.shape}, for the continuous actions {space}"
            raise DemonstrationError(f"{source}: found actions that are {kind} of shape {shape}, expected {expected}")
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        slack = 1e-5 * (high - low)  # for actions that were stored in another precision
        outside = _any((action < low - slack) | (action > high + slack))
    _refuse(demonstrations, outside, "an action outside the action space", f"actions in {space}")
