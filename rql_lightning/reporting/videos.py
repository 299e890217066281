"""Recordings of episodes as pictures: side by side, one above the other, in one, and as animated GIFs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from rql_lightning.errors import EnvironmentContractError, RqlError
from rql_lightning.policies import Decider

BAND = 24  # pixels above the picture, for the policy's name
WIDE = 2  # times as wide as high: such pictures stand above each other


def check_renders(env: str, env_kwargs: dict[str, Any] | None = None) -> None:
    """Render one picture, so that an environment that cannot be filmed is refused before it is trained on.

    Args:
        env: Gymnasium id.
        env_kwargs: Further arguments of the environment.

    Raises:
        EnvironmentContractError: if it renders no ``rgb_array``.
    """
    try:
        environment = gym.make(env, render_mode="rgb_array", **(env_kwargs or {}))
        try:
            environment.reset(seed=0)
            _Frames(environment)._capture_frame()
        finally:
            environment.close()
    except RqlError:
        raise
    except Exception as error:  # whatever a user's environment raises
        raise EnvironmentContractError(
            f"video.episodes: found {env}, which does not render ({type(error).__name__}: {error}), expected rgb_array "
            "pictures; set it to 0"
        ) from error


def record_frames(
    policy: Decider, env: str, seed: int, steps: int | None = None, env_kwargs: dict[str, Any] | None = None
) -> tuple[list[np.ndarray], float]:
    """One episode under the deterministic policy, rendered.

    Args:
        policy: What decides.
        env: Gymnasium id whose environment renders ``rgb_array``.
        seed: Of the episode.
        steps: At the most; ``None`` for all of it.
        env_kwargs: Further arguments of the environment.

    Returns:
        Frames ``[height, width, 3]``, and how many of them make a second. highway-env also shows what happens between
        two actions.

    Raises:
        EnvironmentContractError: if the environment renders no pictures.
    """
    environment = gym.make(env, render_mode="rgb_array", **(env_kwargs or {}))
    frames = _Frames(environment)
    if hasattr(environment.unwrapped, "set_record_video_wrapper"):
        environment.unwrapped.set_record_video_wrapper(frames)
    try:
        observation, _ = environment.reset(seed=seed)
        frames._capture_frame()
        done = False
        while not done and (steps is None or steps > 0):
            state = environment.get_wrapper_attr("get_state")() if policy.needs_state else None
            action = policy.decide(np.asarray(observation)[np.newaxis], state).action[0]
            observation, _, terminated, truncated, _ = environment.step(action)
            frames._capture_frame()
            done, steps = terminated or truncated, None if steps is None else steps - 1
        return frames.pictures, float(environment.unwrapped.metadata.get("render_fps", 30))
    finally:
        environment.close()


class _Frames:
    """What is rendered; highway-env calls it, as it would Gymnasium's ``RecordVideo``, within its steps."""

    frames_per_sec: float

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.env, self.pictures = env, list[np.ndarray]()

    def _capture_frame(self) -> None:
        picture = self.env.render()
        if not isinstance(picture, np.ndarray):
            raise EnvironmentContractError(
                f"video.episodes: found an environment that renders {type(picture).__name__}, expected rgb_array "
                "pictures; set it to 0"
            )
        self.pictures.append(picture)


def side_by_side(recordings: Mapping[str, list[np.ndarray]], every: int = 1, scale: float = 0.5) -> list[Image.Image]:
    """Named recordings in one picture, wide ones above each other; the shorter ones stand still at their last frame.

    Args:
        recordings: Name and frames of each policy.
        every: Keep every so many frames.
        scale: Of each side.
    """
    length = max(len(frames) for frames in recordings.values())
    pictures = []
    for time in range(0, length, every):
        sides = [_labelled(name, frames[min(time, len(frames) - 1)], scale) for name, frames in recordings.items()]
        pictures.append(_joined(sides, upright=sides[0].width >= WIDE * (sides[0].height - BAND)))
    return pictures


def _joined(sides: list[Image.Image], upright: bool) -> Image.Image:
    """Pictures of one size in a column (``upright``) or a row."""
    width, height = sides[0].size
    columns, rows = (1, len(sides)) if upright else (len(sides), 1)
    picture = Image.new("RGB", (width * columns, height * rows), "white")
    for index, side in enumerate(sides):
        picture.paste(side, (0, height * index) if upright else (width * index, 0))
    return picture


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
