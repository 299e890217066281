"""Histograms of a quantity over all steps of evaluation episodes, and their file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BINS = 80


@dataclass(frozen=True)
class Histograms:
    """Densities of one quantity for several policies, over the same bins.

    Args:
        label: Name of the quantity.
        edges: Edges of the bins ``[n + 1]``.
        densities: Densities ``[n]`` by name of the policy.
    """

    label: str
    edges: np.ndarray
    densities: dict[str, np.ndarray]


def histograms(samples: Mapping[str, np.ndarray], label: str) -> Histograms:
    """Return the densities of samples over bins that hold them all.

    Args:
        samples: Samples ``[steps]`` by name of the policy.
        label: Name of the quantity.

    Raises:
        ValueError: If a sample is not finite.
    """
    edges = np.histogram_bin_edges(np.concatenate(list(samples.values())), bins=BINS)
    with np.errstate(over="ignore"):  # bins narrower than the smallest float that has an inverse
        densities = {name: np.histogram(values, edges, density=True)[0] for name, values in samples.items()}
    return Histograms(label, edges, densities)


def write_histograms(content: Histograms, path: Path) -> None:
    """Write histograms as JSON.

    Args:
        content: The histograms.
        path: Target.
    """
    densities = {name: density.tolist() for name, density in content.densities.items()}
    text = json.dumps({"label": content.label, "edges": content.edges.tolist(), "densities": densities})
    path.write_text(text + "\n", encoding="utf-8")


def read_histograms(path: Path) -> Histograms:
    """Read a file written by :func:`write_histograms`."""
    content = json.loads(path.read_text(encoding="utf-8"))
    densities = {name: np.asarray(density) for name, density in content["densities"].items()}
    return Histograms(content["label"], np.asarray(content["edges"]), densities)
