"""Pictures of plans: what figures show and leave out, and that plans are drawn where the rendered vehicles are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from rql_lightning.envs import make_vector_env
from rql_lightning.envs.highway import customization as highway
from rql_lightning.envs.maps import Camera, Scene
from rql_lightning.envs.parking import customization as parking
from rql_lightning.planning import Plan
from rql_lightning.reporting.plan_paths import corners, path_segments, relative_values
from rql_lightning.reporting.plan_videos import PlanDrawing, plan_pixels
from rql_lightning.reporting.plans import action_labels, plan_figure, shown_actions
from rql_lightning.reporting.search_trees import decimals, rounded, signed, tree_layout
from rql_lightning.reporting.videos import record_frames

NAMES = highway().action_names
GREEN, BLUE = (50, 200, 0), (100, 200, 255)  # highway-env's ego vehicle, and the others


def small_plan(**changes: Any) -> Plan:
    """A root with two visited actions of five; the second was chosen and leads on to a leaf, a rollout and a crash."""
    parent, action = [-1, 0, 0, 2, 3, 2], [-1, 0, 3, 1, 4, 2]
    vehicles = np.zeros((6, 2, 13))
    vehicles[:, 0, 0] = [100, 120, 125, 150, 175, 148]  # x
    vehicles[:, 0, 1] = [4, 0, 4, 4, 4, 8]  # y
    vehicles[:, 1, :2] = (140, 4)
    plan = Plan(
        actions=np.arange(5),
        prior=np.array([0.1, 0.2, 0.3, 0.25, 0.15]),
        policy=np.array([0.05, 0.1, 0.15, 0.6, 0.1]),
        q_residual=np.array([-1.5, 0, 0, 0.25, 0]),
        visits=np.array([1, 0, 0, 4, 0]),
        chosen=3,
        parent=np.array(parent),
        action=np.array(action),
        depth=np.array([0, 1, 1, 2, 3, 2]),
        visited=np.array([5, 1, 4, 2, 0, 1]),
        value=np.array([1.0, -2.0, 4.0, 0.5, 0.0, 0.0]),
        reward=np.zeros(6),
        terminated=np.array([False] * 5 + [True]),
        in_tree=np.array([True, True, True, True, False, False]),
        state={"vehicles": vehicles, "observation": np.zeros((6, 25), np.float32)},
    )
    return replace(plan, **changes)


def shallow_plan(vehicles: np.ndarray) -> Plan:
    """A root whose actions all lead to the horizon, 30 times each, in the order of the states ``[1 + A, …]``."""
    count = len(vehicles)
    return Plan(
        actions=np.arange(count - 1),
        prior=np.full(count - 1, 1 / (count - 1)),
        policy=np.full(count - 1, 1 / (count - 1)),
        q_residual=np.zeros(count - 1),
        visits=np.full(count - 1, 30),
        chosen=0,
        parent=np.array([-1] + [0] * (count - 1)),
        action=np.arange(-1, count - 1),
        depth=np.array([0] + [1] * (count - 1)),
        visited=np.array([30 * (count - 1)] + [30] * (count - 1)),
        value=np.array([1.0] + [0.0] * (count - 1)),
        reward=np.zeros(count),
        terminated=np.zeros(count, dtype=bool),
        in_tree=np.arange(count) == 0,
        state={"vehicles": vehicles},
    )


def one_step_on_the_road() -> Plan:
    vehicles = np.zeros((6, 2, 13))
    vehicles[:, 0, 0] = [100, 125, 128, 130, 130, 122]
    vehicles[:, 0, 1] = [4, 0, 4, 8, 4, 4]
    vehicles[:, 1, :2] = (400, 4)
    return shallow_plan(vehicles)


def one_step_in_the_lot() -> Plan:
    vehicles = np.zeros((4, 7))
    vehicles[:, :2] = [[1, 2], [4, 4], [5, 2], [3, -1]]
    vehicles[:, 4:6] = (10, -14)
    return shallow_plan(vehicles)


def chain(length: int, actions: int = 12) -> Plan:
    """A root with as many actions, each of which leads to a chain of so many nodes; the later the more visited."""
    parent, action, depth, visited = [-1], [-1], [0], [1000]
    for index in range(actions):
        for step in range(length):
            parent.append(0 if step == 0 else len(parent) - 1)
            action.append(index if step == 0 else 0)
            depth.append(step + 1)
            visited.append(index + 1)
    count = len(parent)
    no = np.zeros(count, dtype=bool)
    return Plan(
        actions=np.linspace(-1, 1, actions)[:, np.newaxis],
        prior=np.full(actions, 1 / actions),
        policy=np.arange(actions) / np.arange(actions).sum(),
        q_residual=np.zeros(actions),
        visits=np.arange(1, actions + 1),
        chosen=0,
        parent=np.array(parent),
        action=np.array(action),
        depth=np.array(depth),
        visited=np.array(visited),
        value=np.zeros(count),
        reward=np.zeros(count),
        terminated=no,
        in_tree=~no,
        state={"observation": np.zeros((count, 2))},
    )


def texts(figure: Any) -> str:
    figure.canvas.draw()  # which writes tick labels
    found = [item.get_text() for axes in figure.axes for item in axes.findobj(lambda part: hasattr(part, "get_text"))]
    return "\n".join(found)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_a_figure_on_the_map_has_tree_bars_map_and_scale_with_names_and_numbers():
    figure = plan_figure(small_plan(), NAMES, highway().map, title="of a test")
    written = texts(figure)
    assert len(figure.axes) == 4 and figure.get_suptitle() == "of a test"
    for expected in ("Search tree", "Actions at the root", "Where the search went", "above the mean of its depth"):
        assert expected in written
    for expected in (*NAMES, "▶ FASTER", "0.600", "0.250", "$Q_R$ −1.50   $N$ 1", "terminated", "V$ −2.00", "root"):
        assert expected in written
    assert "all 5 nodes; 1 states only passed by rollouts" in written
    assert "other vehicles at present" in written and "the model predicts termination" in written


def test_bars_are_prior_and_posterior_and_the_chosen_action_is_red():
    figure = plan_figure(small_plan(), NAMES, highway().map)
    bars = figure.axes[1]
    widths = [patch.get_width() for patch in bars.patches]
    np.testing.assert_allclose(widths, [0.1, 0.2, 0.3, 0.25, 0.15, 0.05, 0.1, 0.15, 0.6, 0.1])
    colors = [label.get_color() for label in bars.get_yticklabels()]
    assert len(set(colors)) == 2 and colors.count(colors[3]) == 1


def test_every_node_of_the_tree_is_drawn_once_and_crosses_where_the_episode_terminates():
    tree = plan_figure(small_plan(), NAMES, highway().map).axes[0]
    discs, crosses = (collection.get_offsets() for collection in tree.collections)
    assert len(discs) == 4 and len(crosses) == 1


def test_the_map_shows_trajectories_in_metres_from_the_present_position():
    road = plan_figure(small_plan(), NAMES, highway().map).axes[2]
    segments = [
        segment for part in road.collections if isinstance(part, LineCollection) for segment in part.get_segments()
    ]
    assert any(np.allclose(segment, [[50, 0], [75, 0]]) for segment in segments)  # the rollout
    left, right = road.get_xlim()
    assert left < 0 and right > 75
    bottom, top = road.get_ylim()
    assert bottom > top  # y grows to the right of the road, so downwards


@pytest.mark.parametrize(
    ("plan", "map", "names", "window"),
    [
        (one_step_on_the_road(), highway().map, NAMES, ((-12, 42), (7, -7))),
        (one_step_in_the_lot(), parking().map, None, ((-12, 21), (14, -21))),
    ],
)
def test_a_small_map_shows_what_is_near_the_paths_to_scale_without_a_warning(plan, map, names, window, caplog, recwarn):
    figure = plan_figure(plan, action_labels(plan.actions, names), map)
    panel = figure.axes[2]
    figure.draw_without_rendering()
    np.testing.assert_allclose((panel.get_xlim(), panel.get_ylim()), window, atol=1e-9)
    box = panel.get_window_extent()
    shown = [abs(high - low) for low, high in (panel.get_xlim(), panel.get_ylim())]
    assert box.width / shown[0] == pytest.approx(box.height / shown[1])
    legend = panel.get_legend().get_window_extent()
    assert legend.x0 > box.x1 and legend.x1 < figure.axes[-1].get_window_extent().x0  # the colour bar
    assert not caplog.records and not recwarn.list


def test_a_long_map_is_stretched_across_and_says_so():
    plan = small_plan()
    figure = plan_figure(plan, NAMES, highway().map)
    figure.draw_without_rendering()
    assert figure.axes[2].get_xlim() == (-12, 87) and "across it is not to scale" in figure.axes[2].get_xlabel()


@pytest.mark.parametrize(("size", "panels"), [(2, 2 + 2 + 1), (25, 2 + 1)])
def test_without_a_map_few_components_of_observations_are_drawn_and_many_are_not(size, panels):
    plan = small_plan(state={"observation": np.random.default_rng(0).normal(size=(6, size))})
    figure = plan_figure(plan, NAMES, highway().map)  # which needs entries that this state lacks
    assert len(figure.axes) == panels
    assert ("observation[1]" in texts(figure)) == (size == 2)


def test_a_plan_of_one_simulation_is_drawn():
    plan = small_plan()
    rows = {name: getattr(plan, name)[:1] for name in ("parent", "action", "depth", "visited", "value", "reward")}
    rows |= {name: getattr(plan, name)[:1] for name in ("terminated", "in_tree")}
    alone = replace(plan, **rows, state={key: rows[:1] for key, rows in plan.state.items()})
    assert "all 1 nodes" in texts(plan_figure(alone, NAMES, highway().map))


def test_large_trees_are_pruned_by_visits_and_the_caption_says_so():
    plan = chain(length=3)
    layout = tree_layout(plan, most_rows=8)
    below_root = layout.nodes[layout.column == 1]
    assert set(plan.action[below_root]) == {0, 9, 10, 11}  # the chosen one, and the most visited
    assert set(plan.parent[layout.nodes[1:]]) <= set(layout.nodes)
    leaves = layout.row[~np.isin(layout.nodes, plan.parent[layout.nodes])]
    assert sorted(leaves) == list(range(len(leaves))) and len(leaves) <= 8
    written = texts(plan_figure(plan, action_labels(plan.actions), most_rows=8))
    assert f"{len(layout.nodes)} of 37 nodes, by visits" in written


def test_deep_trees_are_cut_where_room_ends():
    assert tree_layout(chain(length=40, actions=2)).column.max() == 9


def test_nodes_are_in_the_middle_of_their_successors():
    layout = tree_layout(small_plan())
    rows = dict(zip(layout.nodes.tolist(), layout.row.tolist(), strict=True))
    assert rows == {0: 0.75, 1: 0.0, 2: 1.5, 3: 1.0, 5: 2.0}


def test_colours_compare_nodes_of_one_depth_and_rollouts_take_that_of_their_leaf():
    np.testing.assert_allclose(relative_values(small_plan()), [0, -3, 3, 0, 0, 3])


def test_states_at_the_horizon_that_the_tree_policy_reached_are_in_the_tree():
    plan = one_step_on_the_road()
    layout = tree_layout(plan)
    assert layout.nodes.tolist() == list(range(6)) and layout.tree_size == 6
    ends, in_tree = path_segments(plan, np.zeros((6, 2)))
    assert len(ends) == 5 and in_tree.all()
    figure = plan_figure(plan, NAMES, highway().map)
    written = texts(figure)
    assert "all 6 nodes." in written and "only passed by rollouts" not in written and "$N$ 30   $V$ 0.00" in written
    assert len(figure.axes[0].collections[0].get_offsets()) == 6


def test_states_at_the_horizon_have_the_colour_of_the_node_before():
    plan = small_plan(visited=np.array([5, 1, 4, 2, 2, 1]))  # node 4 was reached by the tree policy
    assert relative_values(plan)[4] == relative_values(plan)[3] == 0
    deeper = replace(plan, parent=np.array([-1, 0, 0, 2, 2, 2]), depth=np.array([0, 1, 1, 2, 2, 2]))
    assert relative_values(deeper)[4] == relative_values(deeper)[2] == 3


def test_edges_of_rollouts_are_told_from_those_of_the_tree():
    _, in_tree = path_segments(small_plan(), np.zeros((6, 2)))
    assert in_tree.tolist() == [True, True, True, False, True]


def test_of_many_actions_the_most_probable_and_the_chosen_one_are_shown():
    assert shown_actions(chain(1), 4).tolist() == [0, 9, 10, 11]
    plan = chain(length=1, actions=20)
    assert "4 less probable actions are not shown" in texts(plan_figure(plan, action_labels(plan.actions)))


def test_labels_are_names_numbers_or_values():
    assert action_labels(np.arange(5), NAMES) == list(NAMES)
    assert action_labels(np.arange(3), NAMES) == ["0", "1", "2"]
    assert action_labels(np.array([[-0.5, 1.0]])) == ["−0.50, 1.00"]


def test_numbers_have_as_many_decimals_as_their_size_needs():
    assert (decimals(small_plan()), decimals(chain(1))) == (2, 2)
    assert decimals(small_plan(value=np.full(6, 0.02), q_residual=np.zeros(5))) == 3
    assert decimals(small_plan(value=np.full(6, np.inf))) == 2
    assert [signed(value, 2) for value in (-0.001, -1.5, 2)] == ["0.00", "−1.50", "2.00"]


@pytest.mark.parametrize("places", [2, 3])
@pytest.mark.parametrize("probability", [0.125, 0.0625, 0.005, 0.0005])
def test_probabilities_that_are_equal_but_for_rounding_look_the_same(probability, places):
    near = (probability, probability * (1 + 1e-7), probability * (1 - 1e-7), np.float32(probability))
    assert len({rounded(value, places) for value in near}) == 1
    assert rounded(0.126, 2) == "0.13" and rounded(0.1254, 3) == "0.125"


# -- maps ------------------------------------------------------------------------------------------------------------


def test_corners_turn_with_the_heading():
    (box,) = corners(np.array([[1.0, 2.0, np.pi / 2, 4.0, 2.0]]))
    assert {(round(x, 9), round(y, 9)) for x, y in box} == {(0, 0), (2, 0), (0, 4), (2, 4)}


def test_a_road_has_lanes_with_dashed_lines_between_and_the_ego_vehicle_first():
    plan, road = small_plan(), highway(lanes_count=4).map
    scene = road.scene(plan.state)
    assert scene.lines[:, 0, 1].tolist() == [-2, 2, 6, 10, 14]
    assert scene.dashed.tolist() == [False, True, True, True, False]
    assert scene.bodies.tolist() == [[100, 4, 0, 5, 2], [140, 4, 0, 5, 2]]
    np.testing.assert_allclose(road.positions(plan.state)[:2], [[100, 4], [120, 0]])


def test_scenes_move_without_what_they_were():
    scene = Scene(np.zeros((1, 2, 2)), np.zeros(1, bool), np.array([[1.0, 2, 3, 4, 5]]))
    moved = scene.shifted(np.array([10.0, 20.0]))
    assert moved.bodies.tolist() == [[11, 22, 3, 4, 5]] and moved.lines.min() == 10
    assert scene.bodies[0, 0] == 1 and len(moved.goals) == 0


def test_cameras_follow_the_configuration():
    config = {"scaling": 3, "centering_position": [0.5, 0.25]}
    assert highway(config=config).map.camera == Camera(3, (0.5, 0.25))
    assert highway(config={"centering_position": "left"}).map.camera is None


# -- pixels ----------------------------------------------------------------------------------------------------------


def centre_of(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    rows, columns = np.nonzero((np.abs(picture.astype(int) - color) < 12).all(axis=-1))
    assert len(rows) > 20
    return np.array([(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2])


@pytest.mark.parametrize("config", [{}, {"scaling": 4.0, "centering_position": [0.5, 0.4], "screen_width": 800}])
def test_plans_are_drawn_where_the_rendered_ego_vehicle_is(config):
    env = make_vector_env("rql_lightning/Highway-v0", 1, "add_on", env_kwargs={"config": config})
    env.reset(seed=[7])
    env.step(np.array([0]))
    state = env.get_state()
    (picture,) = env.render()
    road = env.customization.map
    size = (picture.shape[1], picture.shape[0])
    vehicles = np.stack([road.positions({"vehicles": state["vehicles"][:, [index]]})[0] for index in range(31)])
    pixels = road.camera.pixels(vehicles, vehicles[0], size)
    assert np.abs(pixels[0] - centre_of(picture, GREEN)).max() <= 2
    inside = (pixels > 20).all(axis=1) & (pixels < np.array(size) - 20).all(axis=1)
    others = [index for index in np.flatnonzero(inside) if index > 0]
    assert others
    for index in others:
        column, row = pixels[index].round().astype(int)
        assert (np.abs(picture[row, column].astype(int) - BLUE) < 60).all()
    env.close()


def test_the_car_of_parking_is_drawn_where_it_is_rendered():
    env = make_vector_env("rql_lightning/Parking-v0", 1, "add_on")
    env.reset(seed=[7])
    (picture,) = env.render()
    positions = env.customization.map.positions(env.get_state())
    pixel = parking().map.camera.pixels(positions, positions[0], (picture.shape[1], picture.shape[0]))[0]
    column, row = pixel.round().astype(int)
    assert (np.abs(picture[row, column].astype(int) - GREEN) < 60).all()
    env.close()


def test_a_picture_with_a_plan_has_its_trajectories_and_a_strip_of_constant_size():
    plan, road = small_plan(), highway().map
    blank = np.full((150, 600, 3), 100, np.uint8)
    drawing = PlanDrawing(NAMES, road, scale=1.0)
    drawn, empty = drawing(blank, plan), drawing(blank, None)
    assert drawn.shape == empty.shape and drawn.shape[0] > 150 and drawn.shape[1] == 600
    assert (empty[:150] == 100).all()
    changed = (drawn[:150] != 100).any(axis=-1)
    (ego, *_) = plan_pixels(plan, road, (600, 150))
    np.testing.assert_allclose(ego, [180, 75])
    assert changed[75, 182] and changed[75, 300] and not changed[:, :170].any()
    assert (drawn[150:] != empty[150:]).any()


def test_a_picture_with_a_plan_is_enlarged():
    drawn = PlanDrawing(NAMES, highway().map, scale=2.0)(np.zeros((150, 600, 3), np.uint8), small_plan())
    assert drawn.shape[1] == 1200 and drawn.shape[0] > 300


def test_without_a_map_only_the_strip_is_drawn():
    picture = np.zeros((40, 300, 3), np.uint8)
    drawn = PlanDrawing(None)(picture, chain(1))
    assert (drawn[:40] == 0).all() and drawn.shape[0] > 40


class Stateful:
    """Decides with the environment's state."""

    needs_state = True

    def decide(self, observation: Any, state: Any = None) -> Any:
        from rql_lightning.policies import Decision

        assert state["vehicles"].shape == (1, 31, 13)
        return Decision(np.array([1]))


def test_frames_are_drawn_into_after_each_decision_and_at_the_end_without_one():
    decided: list[bool] = []

    def draw(picture: np.ndarray, after_decision: bool) -> np.ndarray:
        decided.append(after_decision)
        return np.zeros((2, 2, 3), np.uint8)

    frames, _ = record_frames(Stateful(), "rql_lightning/Highway-v0", 7, steps=2, draw=draw)
    assert decided == [True, True, False] and all(frame.shape == (2, 2, 3) for frame in frames)
