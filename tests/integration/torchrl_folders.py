"""Folders of episodes in TorchRL's layout, for tests of what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict


def contents(**changes: Any) -> TensorDict:
    """Two episodes of three steps in TorchRL's layout, with changes to its entries."""
    observation = torch.arange(24.0).reshape(6, 4)
    following = observation + 4.0
    observation[3:], following[3:] = observation[3:] + 1.0, following[3:] + 1.0
    ends = torch.tensor([0, 0, 1, 0, 0, 1], dtype=torch.bool).unsqueeze(-1)
    entries: dict[str, Any] = {
        "observation": observation,
        "action": torch.tensor([0, 1, 0, 1, 1, 0]),
        "next_observation": following,
        "terminated": torch.zeros_like(ends),
        "truncated": ends,
        "traj_ids": torch.tensor([4, 4, 4, 9, 9, 9]),
    }
    entries |= changes
    successor = {"observation": entries["next_observation"]}
    successor |= {key: entries[key] for key in ("terminated", "truncated")}
    count = [len(entries["traj_ids"])]
    return TensorDict(
        {
            "observation": entries["observation"],
            "action": entries["action"],
            "next": TensorDict(successor, count),
            "collector": TensorDict({"traj_ids": entries["traj_ids"]}, count),
        },
        count,
    )


def written(folder: Path, **changes: Any) -> Path:
    contents(**changes).memmap(str(folder))
    return folder


def changed(key: str, row: int, value: Any) -> dict[str, Any]:
    """One entry with another value in one row."""
    flat = contents()
    column = flat["next", "observation"] if key == "next_observation" else None
    column = flat["next", key] if key in ("terminated", "truncated") else column
    column = (flat[key] if column is None else column).clone()
    column[row] = value
    return {key: column}


def edit_meta(**changes: Any) -> Any:
    def edit(folder: Path) -> None:
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, **changes}))

    return edit
