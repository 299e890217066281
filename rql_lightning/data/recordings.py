"""Demonstrations from folders that ``predict`` or TorchRL wrote."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from rql_lightning.data.demonstrations import ABOUT, Demonstrations
from rql_lightning.data.memmaps import MemoryMaps
from rql_lightning.errors import DemonstrationError
from rql_lightning.spaces import space_from_data


def load_folder(folder: Path) -> Demonstrations:
    """Load a folder as ``predict`` writes it, or as TorchRL does, or one with such a folder for each rank.

    Episodes are told apart by the entry ``traj_ids`` of ``collector`` or by ``episode``, or else by their ends.

    Raises:
        DemonstrationError: If there is no such folder, or it is damaged; names file and episode.
    """
    if not folder.is_dir():
        expected = "expected a folder of demonstrations, such as …/version_0/trajectories, which predict writes"
        raise DemonstrationError(f"{folder}: found no such folder, {expected}")
    ranks = {path.name.removeprefix("rank"): path for path in folder.glob("rank*") if path.is_dir()}
    numbers = sorted(int(number) for number in ranks if number.isdecimal())
    if numbers and not (folder / "meta.json").exists():
        return _joined([load_folder(folder / f"rank{number}") for number in numbers], folder)
    return _load(folder)


def _load(folder: Path) -> Demonstrations:
    maps = MemoryMaps(folder)
    following = maps.nested("next")
    terminated, truncated = (_column(following, name).to(torch.bool) for name in ("terminated", "truncated"))
    count = len(terminated)
    if count == 0:
        raise DemonstrationError(f"{folder}: found no transitions, expected at least one episode")
    successor = {"observation": following.read("observation"), "terminated": terminated, "truncated": truncated}
    own = {"observation": maps.read("observation"), "action": maps.read("action")}
    for name, value in {**own, **{f"next, {key}": entry for key, entry in successor.items()}}.items():
        if value.shape[:1] != (count,):
            found = f"{name} of shape {tuple(value.shape)}"
            raise DemonstrationError(f"{folder}: found {found}, expected {count} rows, as many as of 'terminated'")
    episode = _episodes(maps, terminated | truncated)
    _check_steps(maps, episode)
    _check_ends(following, terminated | truncated, episode)
    sums = torch.zeros(int(episode[-1]) + 1, dtype=torch.float64)
    returns = {
        name: sums.index_add(0, episode, _column(following, f"{name}_reward", count).to(torch.float64))
        for name in ("basic", "add_on")
        if following.has(f"{name}_reward")
    }
    transitions = TensorDict({**own, "next": TensorDict(successor, [count])}, [count])
    about = _about(folder / ABOUT)
    spaces = (about.get("observation_space"), about.get("action_space"))
    return Demonstrations(transitions, episode, *spaces, about.get("task"), str(folder), returns, about)


def _column(maps: MemoryMaps, name: str, count: int | None = None) -> Tensor:
    """Read one number per step, stored as ``[F]`` or ``[F, 1]``."""
    column = maps.read(name).reshape(-1)
    if count is not None and len(column) != count:
        raise DemonstrationError(f"{maps.folder / name}.memmap: found {len(column)} numbers, expected {count}")
    return column


def _episodes(maps: MemoryMaps, done: Tensor) -> Tensor:
    """Return the episode of each step, counted from 0, int64 ``[F]``.

    Args:
        maps: Entries of the folder.
        done: Ends of episodes, bool ``[F]``.

    Raises:
        DemonstrationError: If the steps of an episode are not in one place.
    """
    collector = maps.nested("collector") if maps.has("collector") else None
    if collector is not None and collector.has("traj_ids"):
        ids = _column(collector, "traj_ids", len(done))
    elif maps.has("episode"):
        ids = _column(maps, "episode", len(done))
    else:
        return torch.cat([torch.zeros(1, dtype=torch.int64), done[:-1].to(torch.int64)]).cumsum(0)
    changes = torch.cat([torch.zeros(1, dtype=torch.bool), ids[1:] != ids[:-1]])
    starts = ids[torch.cat([torch.zeros(1, dtype=torch.int64), changes.nonzero().squeeze(1)])].tolist()
    if len(set(starts)) < len(starts):
        repeated = next(name for name, count in Counter(starts).items() if count > 1)
        raise DemonstrationError(
            f"{maps.folder}, episode {repeated}: found its steps in several places, expected them in order"
        )
    return changes.to(torch.int64).cumsum(0)


def _check_steps(maps: MemoryMaps, episode: Tensor) -> None:
    """Refuse steps that are numbered, but not 0, 1, 2, … in each episode."""
    if not maps.has("step"):
        return
    step = _column(maps, "step", len(episode))
    starts = torch.searchsorted(episode, episode)
    wrong = (step != torch.arange(len(episode)) - starts).nonzero()
    if len(wrong):
        row = int(wrong[0])
        found, expected = int(step[row]), row - int(starts[row])
        raise DemonstrationError(
            f"{maps.folder}, episode {int(episode[row])}: found step {found}, expected step {expected}"
        )


def _check_ends(following: MemoryMaps, done: Tensor, episode: Tensor) -> None:
    """Refuse ends that are neither a termination nor a truncation."""
    if not following.has("done"):
        return
    wrong = (_column(following, "done", len(done)).to(torch.bool) != done).nonzero()
    if len(wrong):
        where = f"{following.folder.parent}, episode {int(episode[wrong[0]])}"
        raise DemonstrationError(f"{where}: found 'done' that differs from 'terminated' or 'truncated', expected both")


def _joined(parts: list[Demonstrations], folder: Path) -> Demonstrations:
    """Join the demonstrations of several ranks.

    Raises:
        DemonstrationError: If they are of different tasks, spaces or types.
    """
    tasks = {part.task for part in parts}
    if len(tasks) > 1:
        raise DemonstrationError(f"{folder}: found demonstrations of {sorted(map(str, tasks))}, expected one task")
    first = parts[0]
    for part in parts[1:]:
        same = part.observation_space == first.observation_space and part.action_space == first.action_space
        same = same and part.returns.keys() == first.returns.keys()
        for key in ("observation", "action"):
            one, other = part.transitions[key], first.transitions[key]
            same = same and one.shape[1:] == other.shape[1:] and one.dtype == other.dtype
        if not same:
            raise DemonstrationError(f"{part.source}: found other spaces than in {first.source}, expected the same")
    offsets = torch.tensor([0, *(part.episodes for part in parts[:-1])]).cumsum(0)
    return replace(
        first,
        transitions=torch.cat([part.transitions for part in parts]),
        episode=torch.cat([part.episode + offset for part, offset in zip(parts, offsets, strict=True)]),
        returns={name: torch.cat([part.returns[name] for part in parts]) for name in first.returns},
        source=str(folder),
    )


def _about(path: Path) -> dict[str, Any]:
    """Read the description of a folder; empty if there is none, as in folders that TorchRL wrote."""
    if not path.is_file():
        return {}
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise TypeError(f"a {type(about).__name__}")
        if not isinstance(about["task"], str):
            raise TypeError(f"the task {about['task']!r}")
        if not isinstance(about.get("epsilon", 0.0), int | float):
            raise TypeError(f"epsilon {about['epsilon']!r}")
        for key in ("observation_space", "action_space"):
            about[key] = space_from_data(about[key])
        return about
    except (ArithmeticError, AssertionError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise DemonstrationError(f"{path}: found a damaged description ({error!r})") from error
