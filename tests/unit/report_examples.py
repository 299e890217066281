"""Hand-made results and run folders for tests of reports, and what a page shows."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rql_lightning.reporting.histograms import histograms, write_histograms
from rql_lightning.reporting.html.run import write_origin
from rql_lightning.reporting.metrics import write_history, write_metrics
from rql_lightning.reproduce.results import Result

HOSTILE = "<script>alert('1')</script> & \"x\" | `y`"
MOUNTAIN = {"episodes": 20, "success_rate": 1.0, "kl_to_prior": 0.25, "episode_length_mean": 80.2}


def summary(basic: float, add_on: float, negative: float, **more: Any) -> dict[str, Any]:
    """What ``metrics.json`` holds of a run on MountainCar."""
    numbers = {"basic_return": basic, "add_on_return": add_on, "total_return": basic + add_on}
    numbers["negative_actions"] = negative
    means = {f"{name}_mean": value for name, value in numbers.items()}
    return {**MOUNTAIN, **means, **{f"{name}_std": 0.5 for name in numbers}, **more}


def run_folder(path: Path, command: str = "python -m rql_lightning.train fit", video: bool = True) -> Path:
    """A finished run's folder, with a video and moments of it."""
    path.mkdir(parents=True)
    write_metrics(summary(95.5, -2.9, 29.0), path / "metrics.json")
    write_metrics(summary(95.75, -3.25, 32.5, kl_to_prior=None), path / "prior_metrics.json")
    write_history(
        [summary(95.0 + step, -3.0, 30.0, frames=64 * step) for step in range(3)], path / "learning_curves.json"
    )
    random = np.random.default_rng(0)
    samples = {"prior": random.normal(size=100), "policy": random.normal(size=100)}
    write_histograms(histograms(samples, f"action {HOSTILE}"), path / "distribution.json")
    if video:
        (path / "videos").mkdir()
        pictures = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
        pictures[0].save(
            path / "videos" / "episode-1000000.gif", save_all=True, append_images=pictures[1:], duration=40
        )
        pictures[1].save(path / "videos" / "before_after-1000000.png")
    about = {
        "title": f"MountainCar {HOSTILE}",
        "metric": "negative_actions",
        "paper": ("mountain_car", "RL Customized"),
    }
    facts = {"seed": 7, "seconds": 83.0, "peak_memory_bytes": 2**30, "versions": {"python": "3.11"}}
    write_origin(path, about, "fit", {**facts, "command": command, "machine": "a machine", "commit": None})
    return path


def results(folder: Path | None) -> list[Result]:
    """Two seeds of three rows of the paper, an ablation, and a sweep over ω′."""
    found = []
    for seed in (0, 1):
        for policy, basic, negative in (("RL Prior Policy", 95.8, 31.0), ("RL Customized", 95.6, 28.0)):
            metrics = summary(basic + 0.1 * seed, -negative / 10, negative + seed)
            command = f"fit {policy} {HOSTILE}"
            found.append(Result("mountain_car", policy, seed, metrics, folder, command, 60.0 + seed, 2**29))
        slow = summary(90.0 - seed, -2.0, 20.0)
        found.append(Result("mountain_car", HOSTILE, seed, slow, None, "fit greedy", 3700.0, None))
        for weight in (0.5, 2.0):
            swept = summary(95.0 + weight, -3.0 - weight, 30.0, omega_prime=weight)
            found.append(Result("mountain_car", "sweep", seed, swept, None, f"fit --omega {weight}", 5.0, None))
    return found


VOID = {"meta", "link", "img", "br", "hr", "input", "source"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what tests ask for."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.alternatives: list[str | None] = []
        self.rows: list[list[str]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        named = dict(attributes)
        self.loaded += [named[key] or "" for key in ("src", "href", "xlink:href", "poster", "srcset") if key in named]
        self.alternatives += [named.get("alt")] if tag == "img" else []
        self.ids += [named["id"] or ""] if "id" in named else []
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    def row(self, start: str) -> list[str]:
        (found,) = (row for row in self.rows if row and row[0].startswith(start))
        return [" ".join(cell.split()) for cell in found]
