"""Before and after as a still picture: which moments, in which rows, and how many bytes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rql_lightning.reporting.before_after import BOX, GAP, HEADING, LARGEST, before_after, save_before_after


def recording(length: int, channel: int, size: tuple[int, int] = (150, 300)) -> list[np.ndarray]:
    """Frames ``[height, width, 3]`` of one colour, whose brightness is 2 × the number of the frame."""
    frames = [np.zeros((*size, 3), np.uint8) for _ in range(length)]
    for time, frame in enumerate(frames):
        frame[..., channel] = 2 * time
    return frames


def test_rows_show_both_at_the_same_moments_from_the_first_to_the_last():
    picture = before_after({"prior": recording(41, 0), "policy": recording(101, 2)})
    width, height = BOX[0], 150
    assert picture.size == (5 * width + 4 * GAP, 2 * (HEADING + height + GAP))
    centres = [round((column + 0.5) * width) + column * GAP for column in range(5)]
    above, below = HEADING + height // 2, 2 * HEADING + height + GAP + height // 2
    # Frames 0, 25, 50, 75 and 100; the shorter one has ended at 40.
    assert [picture.getpixel((x, above)) for x in centres] == [(2 * time, 0, 0) for time in (0, 25, 40, 40, 40)]
    assert [picture.getpixel((x, below)) for x in centres] == [(0, 0, 2 * time) for time in (0, 25, 50, 75, 100)]


def test_each_row_has_its_name():
    """The headings hold ink, of different words: nothing else is drawn there."""
    frames = recording(3, 1)
    picture = np.asarray(before_after({"prior": frames, "policy": frames}).convert("L"))
    second = HEADING + 150 + GAP
    headings = picture[:HEADING], picture[second : second + HEADING]
    assert all((heading < 200).sum() > 50 for heading in headings) and not np.array_equal(*headings)
    same = np.asarray(before_after({"one": frames, "two": frames}).convert("L"))
    np.testing.assert_array_equal(same[HEADING : HEADING + 150], picture[second + HEADING : second + HEADING + 150])


@pytest.mark.parametrize(
    ("size", "expected"), [((400, 600), (240, 160)), ((150, 600), (300, 75)), ((4, 2), (80, 160)), ((900, 3), (1, 160))]
)
def test_frames_of_any_shape_keep_it(size, expected):
    frames = recording(1, 0, size)
    picture = before_after({"prior": frames, "policy": frames}, moments=3)
    assert picture.size == (3 * expected[0] + 2 * GAP, 2 * (HEADING + expected[1] + GAP))


def test_a_file_of_plain_pictures_is_small_and_loses_nothing(tmp_path):
    picture = before_after({"prior": recording(5, 1), "policy": recording(5, 2)})
    save_before_after(picture, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size < 20_000
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(picture))


def test_a_file_is_small_whatever_it_shows(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (5, 160, 300, 3)).astype(np.uint8)
    picture = before_after({"prior": list(noise), "policy": list(noise)})
    save_before_after(picture, tmp_path / "picture.png")
    assert 20_000 < (tmp_path / "picture.png").stat().st_size <= LARGEST
    with Image.open(tmp_path / "picture.png") as image:
        assert image.width < picture.width
        assert image.width / image.height == pytest.approx(picture.width / picture.height, rel=0.02)
