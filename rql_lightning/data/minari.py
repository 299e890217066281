"""Local Minari data sets as demonstrations; they need the library minari (extra ``minari``)."""

from __future__ import annotations

import json
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
    try:
        local = minari.list_local_datasets()
        if name not in local:
            known = ", ".join(sorted(local)) or "none"
            raise DemonstrationError(f"{source}: found no such local data set, expected one of these: {known}")
        _check_description(local[name], source)
        return _demonstrations(minari.load_dataset(name), source)
    except DemonstrationError:
        raise
    except (
        AssertionError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise DemonstrationError(f"{source}: found a data set that cannot be read ({error})") from error


def _check_description(metadata: dict[str, Any], source: str) -> None:
    """Refuse data sets whose description Minari would need more than to read, and those of spaces without support.

    Without spaces in its description, Minari makes the environment that the description names, which imports any code.

    Raises:
        DemonstrationError: Unless the format is HDF5, and both spaces are described and a ``Box`` or ``Discrete``.
    """
    found = metadata.get("data_format")
    if found != "hdf5":
        raise DemonstrationError(f"{source}: found the format {found!r}, expected 'hdf5'")
    for key, kinds in (("observation_space", ("Box",)), ("action_space", ("Box", "Discrete"))):
        described = metadata.get(key)
        kind = json.loads(described).get("type") if isinstance(described, str) else None
        if kind not in kinds:
            expected = f"a {' or '.join(kinds)} described in its metadata.json"
            raise DemonstrationError(f"{source}, {key}: found {kind or 'no description'}, expected {expected}")


def _demonstrations(dataset: Any, source: str) -> Demonstrations:
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("observation", "action", "next", "ends")}
    returns, lengths = [], []
    for index, episode in enumerate(dataset.iterate_episodes()):
        observations, steps = episode.observations, len(episode.rewards)
        if steps == 0 or len(observations) != steps + 1:
            expected = f"at least one step, and one observation more than the {steps} steps"
            raise DemonstrationError(f"{source}, episode {index}: found {len(observations)} observations, {expected}")
        others = (episode.actions, episode.terminations, episode.truncations)
        if any(len(column) != steps for column in others):
            found = [len(column) for column in others]
            expected = f"{steps} of each, as of rewards"
            raise DemonstrationError(
                f"{source}, episode {index}: found {found} actions, terminations and truncations, expected {expected}"
            )
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
