"""Recordings of episodes, composed side by side, as multiple exposures and as animated GIFs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, overload

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from PIL import Image, ImageDraw, ImageFont

from rql_lightning.envs import make_vector_env
from rql_lightning.errors import EnvironmentContractError, RqlError
from rql_lightning.evaluation import readable_state
from rql_lightning.policies import Decider
from rql_lightning.spaces import as_elements

COLORS, DRAWN_COLORS = 32, 128  # of a GIF's picture, and of one with a plan drawn in
PALETTE_PICTURES = 16  # that a GIF's palette is of
BAND = 24  # pixels above the picture, for the policy's name
MOST_STEPS = 2_000
Draw = Callable[[np.ndarray, bool], np.ndarray]
WIDE = 2  # times as wide as high: such pictures stand above each other


KEY = "video.episodes"
ADVICE = f"; set {KEY} to 0"
"""What a message about an environment that renders no pictures starts and ends with."""


def check_renders(env_id: str, env_kwargs: dict[str, Any] | None = None) -> None:
    """Render one picture, so that an environment that cannot be filmed is refused before anything is trained on it.

    Args:
        env_id: Gymnasium id.
        env_kwargs: Further arguments of the environment.

    Raises:
        EnvironmentContractError: if the environment does not render ``rgb_array`` pictures, whatever it raises.
    """
    environment = _make(env_id, env_kwargs)
    try:
        with _one_line(env_id):
            environment.reset(seed=0)
        _Frames(environment, env_id)._capture_frame()
    finally:
        environment.close()


def record_frames(
    policy: Decider,
    env: str,
    seed: int,
    steps: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    every_step: bool = False,
    draw: Draw | None = None,
) -> tuple[list[np.ndarray], float]:
    """Render one episode of the deterministic policy.

    Args:
        policy: What decides.
        env: Gymnasium id whose environment renders ``rgb_array``.
        seed: Seed of the episode.
        steps: Largest number of steps; ``None`` for 2,000, as all pictures are held in memory.
        env_kwargs: Further arguments of the environment.
        every_step: One frame per step, as of a policy that needs the environment's state.
        draw: Called with each frame of a policy that needs the environment's state, and whether the policy has just
            decided there, which it has not in the last state of an episode; returns the frame to keep.

    Returns:
        Frames ``[height, width, 3]``, and how many of them make a second. highway-env also shows what happens between
        two actions, unless ``every_step`` or the policy needs the environment's state.

    Raises:
        EnvironmentContractError: if the environment renders no pictures, or if the policy needs its state and the
            state cannot be read.
    """
    limit = MOST_STEPS if steps is None else steps
    if every_step or policy.needs_state:
        return _record_vector(policy, env, seed, limit, env_kwargs, draw)
    environment = _make(env, env_kwargs)
    frames = _Frames(environment, env)
    if hasattr(environment.unwrapped, "set_record_video_wrapper"):
        environment.unwrapped.set_record_video_wrapper(frames)
    try:
        observation, _ = environment.reset(seed=seed)
        frames._capture_frame()
        for _ in range(limit):
            action = policy.decide(np.asarray(observation)[np.newaxis]).action[0]
            observation, _, terminated, truncated, _ = environment.step(_element(environment.action_space, action))
            frames._capture_frame()
            if terminated or truncated:
                break
        return frames.pictures, float(environment.unwrapped.metadata.get("render_fps", 30))
    finally:
        environment.close()


def _record_vector(
    policy: Decider, env: str, seed: int, steps: int, env_kwargs: dict[str, Any] | None, draw: Draw | None
) -> tuple[list[np.ndarray], float]:
    """Render one episode in a vector environment of one, because single environments have no state to read."""
    with _one_line(env):
        environment = make_vector_env(env, 1, "basic", env_kwargs={**(env_kwargs or {}), "render_mode": "rgb_array"})
    frames = _Frames(environment, env)
    try:
        observation, _ = environment.reset(seed=[seed])
        frames._capture_frame()
        for _ in range(steps):
            decision = policy.decide(observation, readable_state(policy, environment, observation, env))
            if draw is not None:
                frames.pictures[-1] = draw(frames.pictures[-1], True)
            observation, _, terminated, truncated, _ = environment.step(decision.action)
            frames._capture_frame()
            if terminated[0] or truncated[0]:
                break
        if draw is not None:
            frames.pictures[-1] = draw(frames.pictures[-1], False)
        return frames.pictures, float(environment.metadata.get("render_fps", 30))
    finally:
        environment.close()


def _make(env: str, env_kwargs: dict[str, Any] | None) -> gym.Env[Any, Any]:
    with _one_line(env):
        return gym.make(env, render_mode="rgb_array", **(env_kwargs or {}))


def _element(space: gym.Space[Any], action: Any) -> Any:
    """An action as an element of its space; integers as scalars, which some environments look up in dictionaries."""
    element = as_elements(space, action)
    return element[()] if isinstance(space, gym.spaces.Discrete) else element


@contextmanager
def _one_line(env: str) -> Iterator[None]:
    """Whatever a user's environment raises as an error that names the environment."""
    try:
        yield
    except RqlError:
        raise
    except Exception as error:
        (reason, *_) = str(error).splitlines() or [""]
        raise _not_filmed(env, f"{type(error).__name__}: {reason}") from error


def _not_filmed(env: str, found: str) -> EnvironmentContractError:
    message = f"{KEY}: {env} renders no pictures: found {found}, expected an rgb_array [height, width, 3]"
    return EnvironmentContractError(message + ADVICE)


class _Frames:
    """Collects rendered frames; highway-env calls it within its steps, as it would call ``RecordVideo``."""

    frames_per_sec: float

    def __init__(self, env: gym.Env[Any, Any] | VectorEnv, name: str) -> None:
        self.env, self.name, self.pictures = env, name, list[np.ndarray]()

    def _capture_frame(self) -> None:
        with _one_line(self.name):
            picture = self.env.render()
        if isinstance(self.env, VectorEnv) and isinstance(picture, tuple):
            (picture,) = picture
        if not isinstance(picture, np.ndarray):
            raise _not_filmed(self.name, f"a {type(picture).__name__}")
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise _not_filmed(self.name, f"an array of shape {picture.shape} and type {picture.dtype}")
        self.pictures.append(picture.copy())  # some environments draw into the same array again


class SideBySide(Sequence[Image.Image]):
    """Recordings next to each other, or wide ones in a column; shorter ones repeat their last frame.

    Pictures are composed when they are asked for, as those of a long episode would take several times the memory of its
    frames.

    Args:
        recordings: Name and frames of each policy.
        every: Interval between the frames to keep.
        scale: Of each side, for all policies or for each.
    """

    def __init__(
        self, recordings: Mapping[str, list[np.ndarray]], every: int = 1, scale: float | Mapping[str, float] = 0.5
    ) -> None:
        self.recordings = recordings
        self.scales = scale if isinstance(scale, Mapping) else dict.fromkeys(recordings, scale)
        self.times = range(0, max(len(frames) for frames in recordings.values()), every)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.times)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        """Compose one picture, or those of a slice."""
        if isinstance(index, slice):
            return [self[each] for each in range(len(self))[index]]
        time = self.times[index]
        sides = [
            _labelled(name, frames[min(time, len(frames) - 1)], self.scales[name])
            for name, frames in self.recordings.items()
        ]
        return _joined(sides, upright=sides[0].width >= WIDE * (sides[0].height - BAND))


def _joined(sides: list[Image.Image], upright: bool) -> Image.Image:
    """Pictures in a column (``upright``) or a row."""
    widths, heights = [side.width for side in sides], [side.height for side in sides]
    size = (max(widths), sum(heights)) if upright else (sum(widths), max(heights))
    picture = Image.new("RGB", size, "white")
    for index, side in enumerate(sides):
        picture.paste(side, (0, sum(heights[:index])) if upright else (sum(widths[:index]), 0))
    return picture


def multiple_exposure(frames: list[np.ndarray], every: int = 10) -> np.ndarray:
    """Return a multiple exposure of dark objects on a light background, ``[height, width, 3]``.

    Args:
        frames: Of one recording.
        every: Interval between the frames to expose.
    """
    return np.minimum.reduce(frames[::every])


def _labelled(label: str, frame: np.ndarray, scale: float) -> Image.Image:
    """Scale a frame and write a label above it."""
    image = _scaled(Image.fromarray(frame), scale)
    picture = Image.new("RGB", (image.width, image.height + BAND), "white")
    ImageDraw.Draw(picture).text((8, 6), label, fill="black")
    picture.paste(image, (0, BAND))
    return picture


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    if (1.0 / scale).is_integer():  # the mean of squares of pixels, which takes a tenth of the time of a filter
        return image.reduce(round(1.0 / scale))
    return image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.LANCZOS)


def font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of Matplotlib, which has more letters than Pillow's own.

    Args:
        size: Pixels.
        bold: Whether its letters are bold.
    """
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), round(size))


def save_gif(pictures: Sequence[Image.Image], path: Path, milliseconds: int, colors: int = COLORS) -> None:
    """Write an animated GIF that repeats.

    All pictures share one palette, of some of them, the first and the last among these: a palette for each would take
    ten times as long.

    Args:
        pictures: In order, of one size.
        path: Target.
        milliseconds: Duration of each picture.
        colors: Number of colours.
    """
    chosen = np.unique(np.linspace(0, len(pictures) - 1, PALETTE_PICTURES).round().astype(int))
    width, height = pictures[0].size
    together = Image.new("RGB", (width, height * len(chosen)))
    for row, index in enumerate(chosen):
        together.paste(pictures[int(index)], (0, row * height))
    palette = together.quantize(colors=colors)
    frames = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    next(frames).save(path, save_all=True, append_images=frames, duration=milliseconds, loop=0)


def save_mp4(pictures: Sequence[Image.Image], path: Path, milliseconds: int) -> bool:
    """Write a video in H.264, or MPEG-4 where PyAV has no encoder for that, in all colours; where PyAV is installed.

    Args:
        pictures: In order, of one size; an odd last row or column is left out, as the format requires.
        path: Target.
        milliseconds: Duration of each picture.

    Returns:
        Whether PyAV is installed (``pip install rql-lightning[video]``).
    """
    if importlib.util.find_spec("av") is None:
        return False
    import av

    width, height = (size // 2 * 2 for size in pictures[0].size)
    with av.open(str(path), "w") as container:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = container.add_stream(codec, rate=Fraction(1000, milliseconds))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_image(picture.crop((0, 0, width, height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return True
