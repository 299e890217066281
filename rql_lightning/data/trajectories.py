"""Trajectories on disk, in TorchRL's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from rql_lightning.data.demonstrations import ABOUT
from rql_lightning.evaluation import Episodes

_OBSERVATIONS = ("observation", "next_observation")


def save_trajectories(episodes: Episodes, folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Write recorded episodes as a memory-mapped TensorDict of shape ``[steps]``.

    ``TensorDict.load_memmap(folder)`` loads it. ``("collector", "traj_ids")`` identifies episodes as in TorchRL's own
    data, e.g. for a ``SliceSampler``. ``("next", "reward")`` is the environment's reward; ``("next", "basic_reward")``
    and ``("next", "add_on_reward")`` are the two rewards. Observations of 64 bits are written in 32.

    Args:
        episodes: Episodes recorded with ``record=True``.
        folder: Folder to write to; replaced if it exists, once the new one is complete.
        about: Plain data that says where the episodes come from, written beside the tensors as ``demonstrations.json``.

    Raises:
        OSError: If the folder cannot be written; the former one is then still there.
    """
    steps = episodes.steps
    count = len(steps["step"])
    done = steps["terminated"] | steps["truncated"]
    column = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in steps.items()}
    column |= {key: column[key].float() for key in _OBSERVATIONS if column[key].dtype == torch.float64}
    following = {
        "observation": column["next_observation"],
        **{key: column[key].float().unsqueeze(-1) for key in ("reward", "basic_reward", "add_on_reward")},
        **{key: column[key].unsqueeze(-1) for key in ("terminated", "truncated")},
        "done": torch.from_numpy(done).unsqueeze(-1),
    }
    data = TensorDict(
        {
            "observation": column["observation"],
            "action": column["action"],
            "next": TensorDict(following, batch_size=[count]),
            "collector": TensorDict({"traj_ids": column["episode"]}, batch_size=[count]),
            "step": column["step"],
            "seed": torch.from_numpy(episodes.table[steps["episode"], 0].astype(np.int64)),
        },
        batch_size=[count],
    )
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    try:
        data.memmap(str(beside))
        if about is not None:
            (beside / ABOUT).write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
        replace_folder(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def replace_folder(new: Path, folder: Path) -> None:
    """Rename a complete folder to another, which is removed only once the new one is in its place.

    Args:
        new: Complete folder, on the same file system.
        folder: Name that it gets.
    """
    former = folder.with_name(f".{folder.name}.former")
    if folder.exists():
        shutil.rmtree(former, ignore_errors=True)
        folder.rename(former)
    try:
        new.rename(folder)
    except OSError:
        if former.exists():
            former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)
