"""Two policies side by side, on the same seed, as moving pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from rql_lightning.policies import Policy

BAND = 24  # pixels above the picture, for the policy's name


def record_frames(policy: Policy, env: str, seed: int, steps: int) -> list[np.ndarray]:
    """Rendered frames ``[height, width, 3]`` of one episode under the deterministic policy.

    Args:
        policy: Who acts.
        env: Gymnasium id whose environment renders ``rgb_array``.
        seed: Of the episode.
        steps: At the most.
    """
    environment = gym.make(env, render_mode="rgb_array")
    try:
        observation, _ = environment.reset(seed=seed)
        frames = [environment.render()]
        for _ in range(steps):
            observation, _, terminated, truncated, _ = environment.step(policy.act(observation))
            frames.append(environment.render())
            if terminated or truncated:
                break
        return frames
    finally:
        environment.close()


def side_by_side(recordings: Mapping[str, list[np.ndarray]], every: int = 1, scale: float = 0.5) -> list[Image.Image]:
    """Named recordings in one picture; the shorter ones stand still at their last frame.

    Args:
        recordings: Name and frames of each policy.
        every: Keep every so many frames.
        scale: Of each side.
    """
    length = max(len(frames) for frames in recordings.values())
    pictures = []
    for time in range(0, length, every):
        sides = [_labelled(name, frames[min(time, len(frames) - 1)], scale) for name, frames in recordings.items()]
        picture = Image.new("RGB", (sum(side.width for side in sides), sides[0].height), "white")
        for index, side in enumerate(sides):
            picture.paste(side, (sum(other.width for other in sides[:index]), 0))
        pictures.append(picture)
    return pictures


def multiple_exposure(frames: list[np.ndarray], every: int = 10) -> np.ndarray:
    """One picture of everywhere that something dark on a light ground has been, ``[height, width, 3]``.

    Args:
        frames: Of one recording.
        every: Expose every so many frames.
    """
    return np.minimum.reduce(frames[::every])


def _labelled(label: str, frame: np.ndarray, scale: float) -> Image.Image:
    image = Image.fromarray(frame)
    image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)
    picture = Image.new("RGB", (image.width, image.height + BAND), "white")
    picture.paste(image, (0, BAND))
    ImageDraw.Draw(picture).text((8, 6), label, fill="black")
    return picture


def save_gif(pictures: list[Image.Image], path: Path, milliseconds: int) -> None:
    """Write an animated GIF that repeats.

    Args:
        pictures: In order.
        path: Target.
        milliseconds: How long each is shown.
    """
    palette = [picture.quantize(colors=32) for picture in pictures]
    palette[0].save(path, save_all=True, append_images=palette[1:], duration=milliseconds, loop=0, optimize=True)
