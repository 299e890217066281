"""Plans drawn into rendered pictures: trajectories on the picture, prior and posterior in a strip below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from rql_lightning.reporting.figures import POLICY_COLOR, PRIOR_COLOR
from rql_lightning.reporting.plan_paths import CHOSEN, path_segments, relative_values, value_colors
from rql_lightning.reporting.plans import action_labels, shown_actions
from rql_lightning.reporting.search_trees import rounded
from rql_lightning.reporting.videos import font

if TYPE_CHECKING:
    from rql_lightning.envs.maps import Map
    from rql_lightning.planning import Plan

SMOOTH = 2  # times as large as the picture: lines are drawn so and then reduced
TREE_WIDTH, MOST_WIDTH, CHOSEN_WIDTH, CROSS = 1.2, 2.5, 6.0, 3.0  # pixels of a picture at scale 1
FONT, ROW, CELL, HEADING = 10, 13, 104, 68  # pixels of a strip at scale 1: letters, rows, actions, names of the rows
ROWS = 3  # name, prior, posterior


class PlanDrawing:
    """Draws plans into the pictures of a video.

    Args:
        names: Names of discrete actions, or ``None``.
        map: The task's map, or ``None``, without which only the strip of prior and posterior is drawn.
        scale: Factor by which pictures are enlarged.
    """

    def __init__(self, names: Sequence[str] | None, map: Map | None = None, scale: float = 1.0) -> None:
        self.names, self.map, self.scale = names, map, scale

    def __call__(self, picture: np.ndarray, plan: Plan | None) -> np.ndarray:
        """Return a picture with a plan.

        Args:
            picture: Rendered state that was planned for, ``[height, width, 3]``.
            plan: The plan; ``None`` for the last state of an episode, whose strip is left empty.

        Returns:
            The enlarged picture with a strip below, whose size depends on that of the picture only.
        """
        image = Image.fromarray(picture)
        size = (int(image.width * self.scale), int(image.height * self.scale))
        if plan is not None and self.map is not None and self.map.camera is not None and self.map.can_draw(plan.state):
            image = self._with_paths(image, plan, self.map)
        image = image.resize(size, Image.Resampling.LANCZOS)
        strip = self._strip(size[0], plan)
        result = Image.new("RGB", (size[0], size[1] + strip.height), "white")
        result.paste(image, (0, 0))
        result.paste(strip, (0, size[1]))
        return np.asarray(result)

    # -- on the picture ----------------------------------------------------------------------------------------------

    def _with_paths(self, image: Image.Image, plan: Plan, map: Map) -> Image.Image:
        """Return the picture, enlarged, with trajectories in the colours of their values."""
        factor = self.scale * SMOOTH
        pixels = plan_pixels(plan, map, image.size) * factor
        large = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
        canvas = ImageDraw.Draw(large, "RGBA")
        ends, in_tree = path_segments(plan, pixels)
        values = relative_values(plan)
        colors = (255 * value_colors(values).to_rgba(values[1:])).astype(int)
        first = (plan.parent[1:] == 0) & (plan.action[1:] == plan.chosen)
        for end in ends[first]:
            canvas.line(_points(end), fill=CHOSEN, width=round(CHOSEN_WIDTH * factor))
        order = np.lexsort([values[1:], in_tree])  # the tree over rollouts, high values over low ones
        for index in order:
            share = plan.visited[index + 1] / max(plan.visited[0], 1)
            width = round((TREE_WIDTH + MOST_WIDTH * share) * factor) if in_tree[index] else 1
            opacity = 255 if in_tree[index] else 150
            canvas.line(_points(ends[index]), fill=(*colors[index, :3], opacity), width=width)
        for x, y in pixels[plan.terminated]:
            arm, width = CROSS * factor, max(1, round(0.8 * factor))
            canvas.line([x - arm, y - arm, x + arm, y + arm], fill="white", width=width)
            canvas.line([x - arm, y + arm, x + arm, y - arm], fill="white", width=width)
        return large

    # -- below it ----------------------------------------------------------------------------------------------------

    def _strip(self, width: int, plan: Plan | None) -> Image.Image:
        """Return the strip of prior and posterior over the actions, as many as fit."""
        row, heading = ROW * self.scale, HEADING * self.scale
        strip = Image.new("RGB", (width, round((ROWS + 0.8) * row)), "white")
        canvas = ImageDraw.Draw(strip)
        for place, name in enumerate(("prior π", "posterior π̂")):
            canvas.text(
                (6 * self.scale, (1.8 + place) * row), name, fill="black", font=font(FONT * self.scale), anchor="lm"
            )
        if plan is not None:
            labels = action_labels(plan.actions, self.names)
            columns = max(1, min(len(labels), int((width - heading) / (CELL * self.scale))))
            each = (width - heading) / columns
            for column, index in enumerate(shown_actions(plan, columns)):
                self._bars(canvas, plan, int(index), labels[index], heading + column * each, each)
        return strip

    def _bars(self, canvas: ImageDraw.ImageDraw, plan: Plan, index: int, label: str, left: float, width: float) -> None:
        """Draw one action: its name over a bar of the prior and one of the posterior, with numbers."""
        row, gap, chosen = ROW * self.scale, 6 * self.scale, index == plan.chosen
        left, length = left + gap, width - 2 * gap - 30 * self.scale
        name, color = (f"▶ {label}", POLICY_COLOR) if chosen else (label, "black")
        canvas.text((left, 0.7 * row), name, fill=color, font=font(FONT * self.scale, chosen), anchor="lm")
        for place, (value, bar) in enumerate(((plan.prior[index], PRIOR_COLOR), (plan.policy[index], POLICY_COLOR))):
            top = (1.3 + place) * row
            canvas.rectangle([left, top + 0.1 * row, left + max(1.0, length * value), top + 0.9 * row], fill=bar)
            place_of_number = (left + length * value + 4 * self.scale, top + 0.5 * row)
            canvas.text(place_of_number, rounded(value, 2), fill="black", font=font(FONT * self.scale), anchor="lm")


def plan_pixels(plan: Plan, map: Map, size: tuple[int, int]) -> np.ndarray:
    """Return where the nodes of a plan are in the picture of its root, in pixels, ``[n, 2]``.

    Args:
        plan: Plan.
        map: The task's map, with a camera.
        size: Width and height of the picture.
    """
    assert map.camera is not None
    positions = map.positions(plan.state)
    return map.camera.pixels(positions, positions[0], size)


def _points(ends: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in ends]
