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


def save_trajectories(episodes: Episodes, folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Write recorded episodes as a memory-mapped TensorDict of shape ``[steps]``.

    ``TensorDict.load_memmap(folder)`` loads it. ``("collector", "traj_ids")`` identifies episodes as in TorchRL's own
    data, e.g. for a ``SliceSampler``. ``("next", "reward")`` is the environment's reward; ``("next", "basic_reward")``
    and ``("next", "add_on_reward")`` are the two rewards.

    Args:
        episodes: Episodes recorded with ``record=True``.
        folder: Folder to write to; replaced if it exists.
        about: Plain data that says where the episodes come from, written beside the tensors as ``demonstrations.json``.
    """
    steps = episodes.steps
    count = len(steps["step"])
    done = steps["terminated"] | steps["truncated"]
    column = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in steps.items()}
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
    data.memmap(str(beside))
    if about is not None:
        (beside / ABOUT).write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder
