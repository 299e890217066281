"""Where a search went: trajectories of tree and rollouts on a map, or components of observations over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import SubFigure

    from rql_lightning.envs.maps import Map, Scene
    from rql_lightning.planning import Plan

GROUND, LINE, GREY = "#4a4d52", "#f2f2f2", "#80868b"
EGO, OTHER, GOAL, CHOSEN = "#ffffff", "#9fb4cc", "#ffd166", "#e74c3c"
TREE_WIDTH, MOST_WIDTH, ROLLOUT_WIDTH = 1.5, 4.0, 0.6
ELONGATED = 4.0  # a map of longer extent is stretched across; beside a shorter one there is room for the legend
MARGIN, EDGE = 12.0, 1.0  # shown beyond positions, and at most beyond the outermost lines


def relative_values(plan: Plan) -> np.ndarray:
    """Return how much V_R of each node exceeds the mean over the tree's nodes of the same depth, ``[n]``.

    V_R itself changes with depth, as fewer steps remain, more than between the actions. States that only rollouts
    passed, and those where V_R is 0 because the episode terminated or the horizon was reached, have the number of the
    last node before them.
    """
    counted = plan.in_tree & ~plan.terminated
    values = np.zeros(len(plan.value))
    for depth in np.unique(plan.depth[counted]):
        level = counted & (plan.depth == depth)
        values[level] = plan.value[level] - plan.value[level].mean()
    for node in np.flatnonzero(~counted):  # parents come first
        values[node] = values[max(plan.parent[node], 0)]
    return values


def value_colors(values: np.ndarray) -> ScalarMappable:
    """Return colours for values ``[n]``, from blue for low to yellow for high ones."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    bright = LinearSegmentedColormap.from_list("bright", colormaps["viridis"](np.linspace(0.3, 1.0, 256)))
    low, high = np.quantile(values, (0.02, 0.98)) if len(values) > 50 else (values.min(), values.max())
    return ScalarMappable(Normalize(*((low, high) if high > low else (low - 0.5, high + 0.5))), bright)


def path_segments(plan: Plan, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends ``[n - 1, 2, 2]`` of the edges into all nodes but the root, and whether they are in the tree.

    An edge is in the tree if the tree policy took it in any simulation, also where it ends at the horizon.

    Args:
        plan: Plan to draw.
        positions: Positions of all nodes, ``[n, 2]``.
    """
    ends = np.stack([positions[plan.parent[1:]], positions[1:]], axis=1)
    return ends, plan.visited[1:] > 0


def draw_paths(axes: Axes, plan: Plan, map: Map, colors: ScalarMappable) -> None:
    """Draw the search's trajectories on the task's map.

    Args:
        axes: Where to draw.
        plan: Plan to draw.
        map: The task's map.
        colors: Colours of V_R.
    """
    positions = map.positions(plan.state)
    scene = map.scene(plan.state).shifted(-positions[0])
    positions = positions - positions[0]
    _draw_scene(axes, scene)
    _draw_edges(axes, plan, positions, colors)
    stretched = _set_window(axes, positions, scene)
    if stretched:
        axes.set_yticks([])
    note = "; across it is not to scale" if stretched else ""
    axes.set_xlabel(f"{map.unit} from the present position{note}", fontsize=8)
    axes.tick_params(labelsize=8)
    _legend(axes, scene, map.names, bool(plan.terminated.any()), beside=not stretched)
    axes.set_title("Where the search went", loc="left", fontsize=10, weight="bold")


def _draw_edges(axes: Axes, plan: Plan, positions: np.ndarray, colors: ScalarMappable, scale: float = 1.0) -> None:
    """Draw rollouts thin and the tree thick, the highest values on top, the chosen action outlined, crosses at ends."""
    from matplotlib.collections import LineCollection

    axes.set_facecolor(GROUND)
    ends, in_tree = path_segments(plan, positions)
    values = relative_values(plan)[1:]
    widths = scale * np.where(
        in_tree, TREE_WIDTH + MOST_WIDTH * plan.visited[1:] / max(plan.visited[0], 1), ROLLOUT_WIDTH
    )
    for kind, opacity, order in ((~in_tree, 0.7, 3), (in_tree, 1.0, 4)):
        rows = np.flatnonzero(kind)
        rows = rows[np.argsort(values[rows], kind="stable")]
        style: dict[str, Any] = {"linewidth": widths[rows], "alpha": opacity, "zorder": order, "capstyle": "round"}
        axes.add_collection(LineCollection(list(ends[rows]), colors=colors.to_rgba(values[rows]), **style))
    first = ends[(plan.parent[1:] == 0) & (plan.action[1:] == plan.chosen)]
    axes.add_collection(LineCollection(list(first), colors=CHOSEN, linewidth=scale * 8.0, zorder=3.5, capstyle="round"))
    ended = positions[plan.terminated]
    axes.scatter(ended[:, 0], ended[:, 1], s=42 * scale, marker="x", c="white", linewidth=1.5, zorder=6)


def _draw_scene(axes: Axes, scene: Scene) -> None:
    """Draw lines, goals and bodies."""
    from matplotlib.collections import LineCollection, PolyCollection

    for dashed, pattern in ((False, "solid"), (True, (0, (8, 8)))):
        lines = scene.lines[scene.dashed == dashed]
        axes.add_collection(LineCollection(list(lines), colors=LINE, linewidth=1.1, linestyle=pattern, zorder=1))
    axes.add_collection(
        PolyCollection(list(corners(scene.goals)), facecolor="none", edgecolor=GOAL, linewidth=1.6, zorder=2)
    )
    colors = [EGO] + [OTHER] * (len(scene.bodies) - 1)
    style: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6, "zorder": 2.5}
    axes.add_collection(PolyCollection(list(corners(scene.bodies)), facecolor=colors, **style))


def corners(rectangles: np.ndarray) -> np.ndarray:
    """Return the corners ``[k, 4, 2]`` of rectangles ``[k, 5]`` (:class:`~rql_lightning.envs.maps.Scene`)."""
    x, y, heading, length, width = rectangles.T[:, :, np.newaxis]
    along = length / 2 * np.array([1, 1, -1, -1])
    across = width / 2 * np.array([1, -1, -1, 1])
    cosine, sine = np.cos(heading), np.sin(heading)
    return np.stack([x + cosine * along - sine * across, y + sine * along + cosine * across], axis=-1)


def _set_window(axes: Axes, positions: np.ndarray, scene: Scene) -> bool:
    """Show all positions within what the lines enclose; return whether a long map is stretched across."""
    places = np.concatenate([positions, scene.goals[:, :2]])
    low, high = places.min(axis=0) - MARGIN, places.max(axis=0) + MARGIN
    if len(scene.lines):
        low[1] = max(low[1], scene.lines[..., 1].min() - EDGE)
        high[1] = min(high[1], scene.lines[..., 1].max() + EDGE)
    stretched = bool(high[0] - low[0] > ELONGATED * (high[1] - low[1]))
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(high[1], low[1])  # y grows downwards
    if not stretched:  # "box" fits the panel to the limits; "datalim" would replace them
        axes.set_aspect("equal", adjustable="box", anchor="W")
    return stretched


def _legend(axes: Axes, scene: Scene, names: tuple[str, str], ended: bool, beside: bool) -> None:
    """Explain lines and bodies in one row above the map, or in one column beside a map that is narrower than a row."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [("search tree", GREY, 2.5), ("rollouts", GREY, ROLLOUT_WIDTH), ("chosen action", CHOSEN, 5.0)]
    handles: list[Any] = [Line2D([], [], color=color, linewidth=width, label=name) for name, color, width in lines]
    if ended:
        style: dict[str, Any] = {"marker": "x", "markersize": 6, "markeredgewidth": 1.5, "linestyle": "none"}
        handles.append(Line2D([], [], color="black", label="the model predicts termination", **style))
    handles.append(Patch(facecolor=EGO, edgecolor="black", linewidth=0.6, label=names[0]))
    if len(scene.bodies) > 1:
        handles.append(Patch(facecolor=OTHER, edgecolor="black", linewidth=0.6, label=f"{names[1]} at present"))
    if len(scene.goals):
        handles.append(Patch(facecolor="none", edgecolor=GOAL, linewidth=1.6, label="goal"))
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": len(handles)}
    if beside:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "ncols": 1}
    legend = axes.legend(handles=handles, borderaxespad=0.2, frameon=False, fontsize=7.5, columnspacing=1.4, **place)
    legend.set_in_layout(not beside)  # otherwise the panels above would be made narrower for it


def draw_components(figure: SubFigure, plan: Plan, colors: ScalarMappable) -> list[Axes]:
    """Draw the components of observations over the steps ahead, one panel each.

    Args:
        figure: Where to draw.
        plan: Plan whose observations are vectors ``[n, D]``.
        colors: Colours of V_R.

    Returns:
        The D panels.
    """
    figure.suptitle("Where the search went", fontsize=10, weight="bold", x=0.003, ha="left")
    observation = plan.state["observation"]
    panels: list[Axes] = list(figure.subplots(1, observation.shape[1], squeeze=False)[0])
    for index, axes in enumerate(panels):
        positions = np.column_stack([plan.depth, observation[:, index]])
        _draw_edges(axes, plan, positions, colors, scale=0.6)
        axes.autoscale_view()
        axes.set_title(f"observation[{index}]", loc="left", fontsize=9)
        axes.set_xlabel("steps ahead", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return panels
