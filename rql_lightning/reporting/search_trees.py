"""Drawings of search trees, the most visited part of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from rql_lightning.reporting.figures import POLICY_COLOR
from rql_lightning.reporting.plan_paths import relative_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

    from rql_lightning.planning import Plan

EDGE_COLOR, TEXT_COLOR, FAINT_COLOR = "#9aa0a6", "#1f1f1f", "#5f6368"
LARGEST_MARKER = 190.0  # square points, of a node that all simulations passed
SMALLEST_MARKER = 14.0
MOST_STEPS = 9  # ahead, as much as there is room for


@dataclass(frozen=True)
class TreeLayout:
    """Where the most visited nodes of a tree are drawn.

    Attributes:
        nodes: The nodes drawn, each after its parent, ``[m]``.
        column: Depth of each, ``[m]``.
        row: Vertical place of each: leaves are at whole numbers from 0, ``[m]``.
        tree_size: Number of nodes of the whole search tree.
    """

    nodes: np.ndarray
    column: np.ndarray
    row: np.ndarray
    tree_size: int


def tree_layout(plan: Plan, most_rows: int = 20) -> TreeLayout:
    """Choose the most visited nodes of a search tree within nine steps and lay them out, with the root at the left.

    Args:
        plan: Plan to draw.
        most_rows: Largest number of leaves. Half of them may be successors of the root without regard to others.
    """
    children = _visited_children(plan)
    shown = _most_visited(plan, children, most_rows)
    rows: dict[int, float] = {}
    _place(0, {node: [child for child in children[node] if child in shown] for node in shown}, rows, count())
    nodes = np.array(sorted(shown))
    return TreeLayout(nodes, plan.depth[nodes], np.array([rows[node] for node in nodes]), len(children))


def _visited_children(plan: Plan) -> dict[int, list[int]]:
    """Return the successors of each node within the search tree, in the order of their actions."""
    children: dict[int, list[int]] = {0: []}
    for node in range(1, len(plan.parent)):  # parents come first
        parent = int(plan.parent[node])
        if parent in children and plan.visited[node] > 0:
            children[node] = []
            children[parent].append(node)
    return {node: sorted(found, key=lambda child: int(plan.action[child])) for node, found in children.items()}


def _most_visited(plan: Plan, children: dict[int, list[int]], most_rows: int) -> set[int]:
    """Return the root, the chosen action's successors and then the most visited nodes as long as rows last."""
    first = sorted(children[0], key=lambda child: (plan.action[child] != plan.chosen, -plan.visited[child]))
    first = first[: max(1, most_rows // 2)]
    shown, inner, rows = {0, *first}, {0}, len(first)
    waiting = [(-int(plan.visited[child]), child) for node in first for child in children[node]]
    heapq.heapify(waiting)
    while waiting:
        _, node = heapq.heappop(waiting)
        parent = int(plan.parent[node])
        rows += parent in inner  # the first successor takes its parent's row
        if rows > most_rows:
            break
        inner.add(parent)
        shown.add(node)
        if plan.depth[node] < MOST_STEPS:
            for child in children[node]:
                heapq.heappush(waiting, (-int(plan.visited[child]), child))
    return shown


def _place(node: int, children: dict[int, list[int]], rows: dict[int, float], numbers: Iterator[int]) -> None:
    """Give the leaves below a node the next numbers, and every other node the middle of its successors."""
    for child in children[node]:
        _place(child, children, rows, numbers)
    below = [rows[child] for child in children[node]]
    rows[node] = (below[0] + below[-1]) / 2 if below else float(next(numbers))


def draw_tree(
    axes: Axes, plan: Plan, layout: TreeLayout, labels: Sequence[Sequence[str]], colors: ScalarMappable
) -> None:
    """Draw a search tree.

    Args:
        axes: Where to draw.
        plan: Plan to draw.
        layout: Nodes to draw, and where.
        labels: Names of the actions at the root, and those at all other nodes.
        colors: Colours of V_R.
    """
    place = {
        int(node): (column, row) for node, column, row in zip(layout.nodes, layout.column, layout.row, strict=True)
    }
    chosen = _below_choice(plan, place)
    for node, (column, row) in place.items():
        if node > 0:
            parent = place[int(plan.parent[node])]
            _draw_edge(axes, parent, (column, row), chosen[node], float(plan.visited[node] / plan.visited[0]))
            name = labels[min(parent[0], 1)][int(plan.action[node])]
            _label(axes, plan, node, (column, row), name, chosen[node])
    _draw_nodes(axes, plan, layout, colors)
    root = f"root\n$V$ {signed(plan.value[0], decimals(plan))}"
    axes.text(0.11, layout.row[0] - 0.62, root, ha="right", va="bottom", fontsize=7, linespacing=1.25)
    deepest = int(layout.column.max())
    axes.set_xlim(-0.08 * max(deepest, 3), max(deepest, 1) + 0.2)
    axes.set_ylim(layout.row.max() + 0.8, layout.row.min() - 0.9)
    axes.set_xticks(range(deepest + 1))
    axes.set_yticks([])
    axes.set_xlabel("steps ahead", fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)


def decimals(plan: Plan) -> int:
    """Return how many decimals show the values of a plan."""
    magnitudes = np.abs(np.concatenate([plan.value[plan.in_tree], plan.q_residual]))
    largest = float(np.max(magnitudes, where=np.isfinite(magnitudes), initial=0.0))
    return int(np.clip(1 - np.floor(np.log10(largest)), 2, 5)) if largest > 0 else 2


def signed(value: float, places: int) -> str:
    """Return a number with so many decimals, and a minus sign as wide as a plus."""
    return f"{round(float(value), places) + 0.0:.{places}f}".replace("-", "−")


def rounded(probability: float, places: int) -> str:
    """Return a probability with so many decimals; those that differ by the error of single precision look the same."""
    return f"{round(float(probability), 5):.{places}f}"


def _below_choice(plan: Plan, place: dict[int, tuple[int, float]]) -> dict[int, bool]:
    """Return for each drawn node whether it is reached by the chosen action."""
    chosen = {0: False}
    for node in sorted(place)[1:]:
        parent = int(plan.parent[node])
        chosen[node] = plan.action[node] == plan.chosen if parent == 0 else chosen[parent]
    return chosen


def _draw_edge(axes: Axes, start: tuple[int, float], end: tuple[int, float], chosen: bool, share: float) -> None:
    """Draw the edge between two nodes: across in the middle of a column, then along."""
    color, order = (POLICY_COLOR, 2) if chosen else (EDGE_COLOR, 1)
    width = 0.7 + 2.3 * share**0.5
    turn = start[0] + 0.14
    axes.plot(
        [start[0], turn, turn, end[0]],
        [start[1], start[1], end[1], end[1]],
        color=color,
        linewidth=width,
        zorder=order,
        solid_joinstyle="round",
        solid_capstyle="butt",
    )


def _label(axes: Axes, plan: Plan, node: int, place: tuple[int, float], name: str, chosen: bool) -> None:
    """Write the action above the edge to a node, and its visits and value below."""
    middle = place[0] - 0.83
    weight = "bold" if chosen and plan.depth[node] == 1 else "normal"
    color = POLICY_COLOR if chosen else TEXT_COLOR
    axes.text(middle, place[1] - 0.1, name, fontsize=6.5, color=color, weight=weight, ha="left", va="bottom")
    value = "terminated" if plan.terminated[node] else f"$V$ {signed(plan.value[node], decimals(plan))}"
    text = f"$N$ {plan.visited[node]}   {value}"
    axes.text(middle, place[1] + 0.1, text, fontsize=6, color=FAINT_COLOR, ha="left", va="top")


def _draw_nodes(axes: Axes, plan: Plan, layout: TreeLayout, colors: ScalarMappable) -> None:
    """Draw nodes as discs whose areas grow with visits; nodes where the episode terminates as crosses."""
    nodes = layout.nodes
    ended = plan.terminated[nodes]
    area = SMALLEST_MARKER + (LARGEST_MARKER - SMALLEST_MARKER) * plan.visited[nodes] / max(plan.visited[0], 1)
    going = ~ended
    face = colors.to_rgba(relative_values(plan)[nodes[going]])
    style: dict[str, Any] = {"edgecolor": TEXT_COLOR, "linewidth": 0.7, "zorder": 3}
    axes.scatter(layout.column[going], layout.row[going], s=area[going], c=face, **style)
    axes.scatter(layout.column[ended], layout.row[ended], s=34, marker="X", c=TEXT_COLOR, linewidth=0, zorder=4)
