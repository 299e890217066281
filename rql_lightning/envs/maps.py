"""Where a task's states are on a map, for pictures of plans and paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Scene:
    """What surrounds one state, in the map's units.

    Attributes:
        lines: Ends of straight lines, ``[m, 2, 2]``.
        dashed: Whether each line is dashed, bool ``[m]``.
        bodies: Centre x and y, heading in radians, length and width of rectangles, ``[k, 5]``; the first is the one
            that the actions move.
        goals: Rectangles of the same form that are to be reached, ``[g, 5]``.
    """

    lines: np.ndarray
    dashed: np.ndarray
    bodies: np.ndarray
    goals: np.ndarray = field(default_factory=lambda: np.empty((0, 5)))

    def shifted(self, by: np.ndarray) -> Scene:
        """Return the scene moved by ``[2]``."""
        moved = [np.hstack([boxes[:, :2] + by, boxes[:, 2:]]) for boxes in (self.bodies, self.goals)]
        return Scene(self.lines + by, self.dashed, *moved)


@dataclass(frozen=True)
class Camera:
    """How a task's rendered pictures show its map: without rotation, with the state's own position at a fixed place.

    Attributes:
        scaling: Pixels per unit of the map.
        centering: Where the position of the rendered state is, as fractions of the width and the height.
    """

    scaling: float
    centering: tuple[float, float]

    def pixels(self, positions: np.ndarray, center: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return where positions are in a picture, in pixels from its upper left corner, ``[n, 2]``.

        Args:
            positions: Positions on the map, ``[n, 2]``.
            center: Position of the rendered state, ``[2]``.
            size: Width and height of the picture in pixels.
        """
        return (positions - center) * self.scaling + np.multiply(self.centering, size)


@dataclass(frozen=True)
class Map:
    """How states of a task are drawn on a map whose x grows to the right and whose y grows downwards.

    Attributes:
        needs: Entries of a state that the functions below read. States of models without them are not drawn.
        positions: Returns the positions of n states, ``[n, 2]``.
        scene: Returns what surrounds the first of n states.
        camera: How rendered pictures show the map, or ``None`` if nothing can be drawn into them.
        unit: Unit of positions.
        names: What the first body of a scene is called, and what the others are.
    """

    needs: Sequence[str]
    positions: Callable[[State], np.ndarray]
    scene: Callable[[State], Scene]
    camera: Camera | None = None
    unit: str = "m"
    names: tuple[str, str] = ("ego vehicle", "other vehicles")

    def can_draw(self, state: State) -> bool:
        """Return whether states hold what this map needs."""
        return all(key in state for key in self.needs)
