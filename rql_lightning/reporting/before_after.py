"""Before and after in one still picture: moments of the same episode, the prior's above the policy's."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from rql_lightning.reporting.figures import POLICY_COLOR
from rql_lightning.reporting.videos import font

MOMENTS = 5
BOX = (300, 160)  # pixels that one moment is fitted into: legible where a phone shows two or three of them
LETTERS, HEADING, GAP = 22, 34, 6  # pixels: letters, the row's heading, between moments
COLORS = 256  # of the palette of a picture that is large in all colours
LARGEST = 200_000
"""Bytes of the largest file; a picture of more is reduced."""
NAME = "before_after"


def before_after(recordings: Mapping[str, Sequence[np.ndarray]], moments: int = MOMENTS) -> Image.Image:
    """Compose moments of recordings of the same episode, one row per policy.

    The moments are spaced evenly from the first to the last frame of the longest recording, and stand below each other;
    shorter recordings repeat their last frame.

    Args:
        recordings: Name and frames ``[height, width, 3]`` of each policy, the last of which is the customised one.
        moments: Number of pictures in a row.
    """
    last = max(len(frames) for frames in recordings.values()) - 1
    times = np.linspace(0, last, moments).round().astype(int)
    rows = []
    for index, (name, frames) in enumerate(recordings.items()):
        shown = [_fitted(Image.fromarray(frames[min(time, len(frames) - 1)])) for time in times]
        rows.append(_row(name, shown, POLICY_COLOR if index == len(recordings) - 1 else "black"))
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    return picture


def _fitted(image: Image.Image) -> Image.Image:
    scale = min(BOX[0] / image.width, BOX[1] / image.height)
    size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
    return image.resize(size, Image.Resampling.LANCZOS)


def _row(name: str, pictures: Sequence[Image.Image], color: str) -> Image.Image:
    width, height = pictures[0].size
    row = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, HEADING + height + GAP), "white")
    ImageDraw.Draw(row).text((GAP, HEADING / 2), name, fill=color, font=font(LETTERS, bold=True), anchor="lm")
    for index, picture in enumerate(pictures):
        row.paste(picture, (index * (width + GAP), HEADING))
    return row


def save_before_after(picture: Image.Image, path: Path) -> None:
    """Write a PNG of at most ``LARGEST`` bytes: with a palette where all colours take more, and halved as needed.

    Args:
        picture: What :func:`before_after` returns.
        path: Target.
    """
    content = _png(picture)
    while len(content) > LARGEST:
        # Maximum coverage keeps the colour of a small object, such as a goal.
        content = _png(picture.quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE))
        picture = picture.reduce(2)
    path.write_bytes(content)


def _png(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, format="PNG", optimize=True)
    return target.getvalue()
