"""Pictures of one decision of a planner: its search tree, prior and posterior, and its rollouts on the task's map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rql_lightning.reporting.figures import POLICY_COLOR, PRIOR_COLOR
from rql_lightning.reporting.plan_paths import draw_components, draw_paths, relative_values, value_colors
from rql_lightning.reporting.search_trees import TreeLayout, decimals, draw_tree, rounded, signed, tree_layout

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from rql_lightning.envs.maps import Map
    from rql_lightning.planning import Plan

MOST_BARS = 16
MOST_COMPONENTS = 6  # of an observation that is drawn where there is no map


def action_labels(actions: np.ndarray, names: Sequence[str] | None = None) -> list[str]:
    """Return what pictures call actions: names of discrete ones where the task has them, otherwise their values.

    Args:
        actions: Candidate actions in the environment's units, ``[A, *action_shape]``.
        names: Names of all A discrete actions, or ``None``.
    """
    if actions.ndim == 1 and names is not None and len(names) == len(actions):
        return list(names)
    if actions.ndim == 1:
        return [f"{action:.4g}" for action in actions]
    values = [", ".join(f"{value:.2f}" for value in np.ravel(action)) for action in actions]
    return [value.replace("-", "−") for value in values]


def plan_figure(
    plan: Plan,
    labels: Sequence[str],
    map: Map | None = None,
    labels_below: Sequence[str] | None = None,
    title: str = "",
    most_rows: int = 20,
) -> Figure:
    """Draw the search tree, the prior and the posterior over the actions, and where the search went.

    Where the search went is drawn on the task's map if there is one, and otherwise as the components of observations
    over the steps ahead, if they are few.

    Args:
        plan: Plan to draw.
        labels: Names of the root's candidate actions, A of them.
        map: The task's map, or ``None``.
        labels_below: Names of the candidate actions of other nodes, if they are not those of the root.
        title: Title of the figure.
        most_rows: Largest number of leaves of the tree that are drawn.
    """
    from matplotlib.figure import Figure

    on_map = map is not None and map.can_draw(plan.state)
    panels = 3 if on_map or _components(plan) else 2
    layout = tree_layout(plan, most_rows)
    tree_height = 1.3 + 0.27 * (layout.row.max() + 1)
    figure = Figure(figsize=(13.0, max(tree_height, 3.6) + (3.1 if panels == 3 else 0.0)), layout="constrained")
    heights = [max(tree_height, 3.6), 3.1][: panels - 1]
    grid = figure.add_gridspec(panels - 1, 2, width_ratios=[2.6, 1.0], height_ratios=heights)
    colors = value_colors(relative_values(plan))
    tree = figure.add_subplot(grid[0, 0])
    draw_tree(tree, plan, layout, (labels, labels if labels_below is None else labels_below), colors)
    _titled(tree, "Search tree", _described(plan, layout))
    _draw_bars(figure.add_subplot(grid[0, 1]), plan, labels)
    owner: Figure | SubFigure = figure
    drawn = [tree]
    if on_map:
        assert map is not None
        drawn = [figure.add_subplot(grid[1, :])]
        draw_paths(drawn[0], plan, map, colors)
    elif panels == 3:
        owner = figure.add_subfigure(grid[1, :])
        drawn = draw_components(owner, plan, colors)
    bar = owner.colorbar(colors, ax=drawn, fraction=0.02, pad=0.01, aspect=24, panchor=False)  # a map is at the left
    bar.set_label("$V_R$ above the mean of its depth", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(title, fontsize=11, x=0.003, ha="left", weight="bold")
    return figure


def _components(plan: Plan) -> bool:
    """Whether the observations are vectors of few components."""
    observation = plan.state.get("observation")
    return observation is not None and observation.ndim == 2 and observation.shape[1] <= MOST_COMPONENTS


def _described(plan: Plan, layout: TreeLayout) -> str:
    """Return how much of the tree is shown, and how to read it."""
    hidden = layout.tree_size - len(layout.nodes)
    rollouts = int((plan.visited == 0).sum())
    shown = (
        f"all {len(layout.nodes)} nodes"
        if hidden == 0
        else f"{len(layout.nodes)} of {layout.tree_size} nodes, by visits"
    )
    others = f"; {rollouts} states only passed by rollouts" if rollouts else ""
    return f"{shown}{others}. Area: visits $N$. $V$: value $V_R$. Red: below the chosen action."


def _titled(axes: Axes, title: str, text: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=10, weight="bold")
    axes.text(0.0, 1.012, text, transform=axes.transAxes, fontsize=7.5, color="#5f6368", ha="left", va="bottom")


def _draw_bars(axes: Axes, plan: Plan, labels: Sequence[str]) -> None:
    """Draw prior and posterior probabilities at the root, with Q_R and visits."""
    shown = shown_actions(plan, MOST_BARS)
    rows = np.arange(len(shown))
    for offset, values, color, name in (
        (-0.19, plan.prior, PRIOR_COLOR, "prior π"),
        (0.19, plan.policy, POLICY_COLOR, "posterior π̂"),
    ):
        axes.barh(rows + offset, values[shown], height=0.36, color=color, label=name)
        for row, value in zip(rows, values[shown], strict=True):
            axes.text(value + 0.012, row + offset, rounded(value, 3), va="center", fontsize=7, color="#1f1f1f")
    most = max(float(plan.prior[shown].max()), float(plan.policy[shown].max()))
    axes.set_xlim(0, most * 1.2)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(rows, [_row_label(plan, index, labels[index]) for index in shown], fontsize=8, linespacing=1.25)
    for tick, index in zip(axes.get_yticklabels(), shown, strict=True):
        if index == plan.chosen:
            tick.set_color(POLICY_COLOR)
            tick.set_fontweight("bold")
    hidden = len(plan.prior) - len(shown)
    axes.set_xlabel(
        f"probability; {hidden} less probable actions are not shown" if hidden else "probability", fontsize=8
    )
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    _titled(axes, "Actions at the root", "")


def _row_label(plan: Plan, index: int, name: str) -> str:
    mark = "▶ " if index == plan.chosen else ""
    return f"{mark}{name}\n$Q_R$ {signed(plan.q_residual[index], decimals(plan))}   $N$ {plan.visits[index]}"


def shown_actions(plan: Plan, most: int) -> np.ndarray:
    """Return the actions to show, in their order: all, or the most probable of prior and posterior and the chosen one.

    Args:
        plan: Plan.
        most: Largest number of actions.
    """
    importance = np.maximum(plan.prior, plan.policy)
    importance[plan.chosen] = np.inf
    return np.sort(np.argsort(-importance, kind="stable")[:most])
