"""Local Minari data sets as demonstrations; they need the library minari (extra ``minari``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from rql_lightning.data.demonstrations import MINARI, Demonstrations
from rql_lightning.errors import ConfigurationError, DemonstrationError


def load_minari(name: str) -> Demonstrations:
    """Load a local data set through Minari's own reader; nothing is downloaded.

    Args:
        name: Id of the data set, such as ``D4RL/pen/human-v2``, in the folder that Minari uses
            (``MINARI_DATASETS_PATH``).

    Raises:
        ConfigurationError: If Minari is not installed.
        DemonstrationError: If there is no such local data set, or it cannot be read.
    """
    try:
        import minari
    except ImportError as error:
        expected = "pip install 'rql-lightning[minari]', which brings it"
        raise ConfigurationError(f"{MINARI}{name}: found no library minari, expected {expected}") from error
    source = f"{MINARI}{name}"
    if name not in minari.list_local_datasets():
        known = ", ".join(sorted(minari.list_local_datasets())) or "none"
        raise DemonstrationError(f"{source}: found no such local data set, expected one of these: {known}")
    try:
        dataset = minari.load_dataset(name)
        return _demonstrations(dataset, source)
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, DemonstrationError):
            raise
        raise DemonstrationError(f"{source}: found a data set that cannot be read ({error})") from error


def _demonstrations(dataset: Any, source: str) -> Demonstrations:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("observation", "action", "next", "ends")}
    returns, lengths = [], []
    for index, episode in enumerate(dataset.iterate_episodes()):
        observations, steps = episode.observations, len(episode.rewards)
        if not isinstance(observations, np.ndarray) or not isinstance(episode.actions, np.ndarray):
            found = f"observations of the space {dataset.observation_space}, actions of {dataset.action_space}"
            raise DemonstrationError(f"{source}: found {found}, expected arrays")
        if steps == 0 or len(observations) != steps + 1:
            expected = f"at least one step, and one observation more than the {steps} steps"
            raise DemonstrationError(f"{source}, episode {index}: found {len(observations)} observations, {expected}")
        columns["observation"].append(observations[:-1])
        columns["next"].append(observations[1:])
        columns["action"].append(episode.actions)
        columns["ends"].append(np.stack([episode.terminations, episode.truncations], axis=1))
        returns.append(float(np.sum(episode.rewards)))
        lengths.append(steps)
    if not lengths:
        raise DemonstrationError(f"{source}: found no episodes, expected at least one")
    joined = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in columns.items()}
    successor = {"observation": joined["next"]}
    successor |= {name: joined["ends"][:, i].bool() for i, name in enumerate(("terminated", "truncated"))}
    count = [sum(lengths)]
    own = {"observation": joined["observation"], "action": joined["action"]}
    return Demonstrations(
        transitions=TensorDict({**own, "next": TensorDict(successor, count)}, count),
        episode=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        task=None if dataset.env_spec is None else dataset.env_spec.id,
        source=source,
        returns={"reward": torch.tensor(returns, dtype=torch.float64)},
    )
