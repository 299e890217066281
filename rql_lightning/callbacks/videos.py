"""Policies beside each other, on the same seed, as moving pictures: in a file and in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
from PIL import Image, ImageDraw
from pytorch_lightning.loggers import TensorBoardLogger

from rql_lightning.data.replay import EVALUATION_SEEDS, ReplayDataModule
from rql_lightning.errors import EnvironmentContractError, require
from rql_lightning.policies import Policy

if TYPE_CHECKING:
    from rql_lightning.algorithms import Algorithm

BAND = 24  # pixels above the picture, for the policy's name
WIDE = 2  # times as wide as high: such pictures stand above each other


class VideoCallback(pl.Callback):
    """Record the policy, and the prior beside it, in the same episodes, at the end of fit and in test.

    Args:
        episodes: How many; 0 for none. The environment must render rgb_array.
        seed: Of the first episode, the next one's is one higher.
        scale: Of the pictures.
    """

    def __init__(self, episodes: int = 0, seed: int = EVALUATION_SEEDS, scale: float = 1.0) -> None:
        require(isinstance(episodes, int) and episodes >= 0, "video.episodes", episodes, "an integer >= 0")
        require(0 <= seed < 2**32, "video.seed", seed, "an integer in [0, 2**32)")
        require(0 < scale <= 4, "video.scale", scale, "a number in (0, 4]")
        self.episodes, self.seed, self.scale = episodes, seed, scale

    def on_train_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """See the class."""
        self._record_all(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:  # type: ignore[override]
        """See the class."""
        self._record_all(trainer, pl_module)

    def _record_all(self, trainer: pl.Trainer, pl_module: Algorithm) -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for seed in range(self.seed, self.seed + self.episodes):
                self._record(trainer, pl_module, seed)

    def _record(self, trainer: pl.Trainer, pl_module: Algorithm, seed: int) -> None:
        data: ReplayDataModule = trainer.datamodule  # type: ignore[attr-defined]
        policy = pl_module.policy
        actors: dict[str, Policy] = {"policy": policy}
        if policy.prior is not None and policy.prior.can_act:
            actors = {"prior": policy.prior, **actors}
        recordings = {
            name: record_frames(actor, data.env, seed, None, data.env_kwargs) for name, actor in actors.items()
        }
        pictures = side_by_side({name: frames for name, (frames, _) in recordings.items()}, scale=self.scale)
        path = Path(trainer.log_dir or trainer.default_root_dir) / "videos" / f"episode-{seed}.gif"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_gif(pictures, path, milliseconds=round(1000 / next(iter(recordings.values()))[1]))
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _log_gif(logger, f"video/episode-{seed}", path, pictures[0], pl_module.frames)


def _log_gif(logger: TensorBoardLogger, tag: str, path: Path, picture: Image.Image, step: int) -> None:
    """TensorBoard plays an animated GIF where it expects an image (its own ``add_video`` does this, with moviepy)."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=path.read_bytes()
    )
    writer = logger.experiment._get_file_writer()
    writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def record_frames(
    policy: Policy, env: str, seed: int, steps: int | None = None, env_kwargs: dict[str, Any] | None = None
) -> tuple[list[np.ndarray], float]:
    """One episode under the deterministic policy, rendered.

    Args:
        policy: Who acts.
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
            observation, _, terminated, truncated, _ = environment.step(policy.act(observation))
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
