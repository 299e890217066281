"""Cells over seeds, and the rule that compares them with the paper; results on disk."""

from __future__ import annotations

import math

import pytest

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.paper import METRICS, paper_row, paper_rows
from rql_lightning.reproduce.results import FIELDS, Result, read_results_csv, write_results_csv
from rql_lightning.reproduce.rows import every
from rql_lightning.reproduce.statistics import Estimate
from rql_lightning.reproduce.verdict import Verdict, cells, compare

NONE = math.nan


@pytest.mark.parametrize(
    ("estimate", "paper", "name", "expected"),
    [
        (Estimate(1.0, 0.5, 1.5), 1.4, "basic_return", Verdict.EQUAL),
        (Estimate(1.0, 0.5, 1.5), 1.505, "basic_return", Verdict.EQUAL),  # as 1.5 may be printed as 1.505
        (Estimate(1.0, 0.5, 1.5), 1.51, "basic_return", Verdict.WORSE),
        (Estimate(1.0, 0.5, 1.5), 0.49, "add_on_return", Verdict.BETTER),
        (Estimate(0.06, 0.058, 0.062), 0.05, "mean_abs_position", Verdict.WORSE),
        (Estimate(0.045, 0.04, 0.05), 0.05, "mean_abs_position", Verdict.EQUAL),
        (Estimate(30.0, 29.0, 31.0), 37.9, "negative_actions", Verdict.BETTER),
        (Estimate(0.98, 0.97, 0.99), 0.97, "lane_index", Verdict.EQUAL),
        (Estimate(0.97, 0.97, 0.97), 0.97005, "success_rate", Verdict.EQUAL),  # half of 0.01 %
        (Estimate(0.97, 0.97, 0.97), 0.9702, "success_rate", Verdict.WORSE),
        (Estimate(0.97, 0.965, 0.975), 0.7424, "no_violation", Verdict.BETTER),
        (Estimate(1.0, NONE, NONE), 1.02, "basic_return", Verdict.WORSE),
    ],
)
def test_the_rule(estimate, paper, name, expected):
    assert compare(estimate, paper, name) is expected


def result(seed: int = 0, task: str = "highway", policy: str = "RL Customized", **metrics: object) -> Result:
    known = {"episodes": 100, "success_rate": 0.97, "basic_return_mean": 42.0, "basic_return_std": 2.0}
    known |= {"add_on_return_mean": 19.5, "add_on_return_std": 1.0, "lane_index_mean": 0.97, "lane_index_std": 0.05}
    known |= metrics
    successful = {f"successful_{name}": value for name, value in known.items() if name.endswith(("_mean", "_std"))}
    return Result(task, policy, seed, {**successful, **known}, None, f"train {seed}", 12.5, None)


def test_cells_over_seeds():
    success, basic, add_on, metric = cells([result(0), result(1, basic_return_mean=44.0)])
    assert (basic.mean, basic.estimate.value) == (43.0, 43.0) and (basic.estimate.low, basic.estimate.high) == (42, 44)
    assert basic.deviation == pytest.approx(math.sqrt(2.0**2 + 1.0**2))  # over the episodes of both seeds
    assert (basic.paper, basic.paper_deviation, basic.verdict) == (42.23, 1.55, Verdict.EQUAL)
    assert success.deviation is None and success.paper == 0.9719 and success.verdict is Verdict.WORSE
    assert (add_on.verdict, metric.name, metric.verdict) == (Verdict.BETTER, "lane_index", Verdict.EQUAL)


def test_on_highway_successful_episodes_are_compared():
    runs = [
        result(0, successful_basic_return_mean=44.0),
        result(1, successful_basic_return_mean=46.0, success_rate=0.5),
    ]
    _, basic, *_ = cells(runs)
    assert basic.mean == pytest.approx((97 * 44 + 50 * 46) / 147) and basic.verdict is Verdict.BETTER
    assert basic.every == (42.0, 2.0) and every(basic) == "all episodes 42.00 ± 2.00"
    elsewhere = [result(run.seed, "parking", **run.metrics) for run in runs]
    assert cells(elsewhere)[1].mean == 42.0 and cells(elsewhere)[1].every is None


def test_the_papers_add_on_returns_on_highway_are_of_episodes_without_a_crash():
    rows = [paper_row("Highway", policy) for task, policy in paper_rows() if task == "highway"]
    assert len(rows) == 7 and all(row["success_rate"] <= 0.98 for row in rows)
    for row in rows:  # 40 steps, 0.5 in the right lane; the lane index is rounded to 0.01
        assert row["add_on_return_mean"] == pytest.approx(20 * row["lane_index_mean"], abs=0.11)


def test_seeds_count_by_their_episodes():
    basic = cells([result(0, episodes=300), result(1, basic_return_mean=46.0, episodes=100)])[1]
    assert basic.mean == 43.0 and basic.estimate.value == 44.0


def test_one_seed_is_compared_by_its_episodes():
    success, basic, *_ = cells([result(basic_return_mean=42.0, basic_return_std=2.0, success_rate=1.0)])
    assert basic.estimate.low == pytest.approx(42 - 1.96 * 2 / math.sqrt(99), abs=1e-3)
    assert basic.verdict is Verdict.EQUAL
    assert success.estimate.high == 1.0 and success.estimate.low == pytest.approx(0.963, abs=1e-3)  # Wilson


def test_what_is_missing_has_no_verdict():
    success, *_, metric = cells(
        [result(task="cartpole", success_rate=None, policy="an ablation", mean_abs_position_mean=0.97)]
    )
    assert (success.mean, success.verdict, success.estimate) == (None, None, None)
    assert metric.mean == 0.97 and metric.paper is None and metric.verdict is None
    *_, metric = cells([result(task="hopper")])
    assert metric.mean is None


def test_the_paper_has_88_cells():
    table = paper_rows()
    assert len(table) == 22 and set(METRICS) == {task for task, _ in table}
    assert paper_row("Parking", "RL Customized")["no_violation_mean"] == pytest.approx(0.9609)


def test_results_on_disk(tmp_path):
    folder = tmp_path / "runs" / "version_0"
    metrics = {"kl_to_prior": None, "infinite": math.inf, "frames": 64, "exact": 0.1 + 0.2}
    written = [
        Result("highway", 'RL "Customized", ω′\nx', 3, metrics, folder, "a, 'b' | <c>", 1.25, 2**31),
        Result("cartpole", "RL Prior Policy", 0, {"other": 1.5}, None, "", 2.0, None),
    ]
    path = tmp_path / "table" / "results.csv"
    path.parent.mkdir()
    write_results_csv(written, path)
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    first, second = read_results_csv(path)
    assert first.folder is not None and first.folder.resolve() == folder.resolve()
    assert (first.policy, first.command, first.metrics) == (written[0].policy, written[0].command, metrics)
    assert (first.seconds, first.peak_memory_bytes, first.seed) == (1.25, 2**31, 3) and second == written[1]


TEXT = f"{','.join(FIELDS)},basic_return_mean\na,b,0,1.0,null,c,null,many\n"


@pytest.mark.parametrize("rows", ["task,policy\na,b\n", "{}", "", f"{','.join(FIELDS)}\na\n", TEXT])
def test_another_file_is_refused(tmp_path, rows):
    path = tmp_path / "results.csv"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="expected the rows of a results"):
        read_results_csv(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="expected a results"):
        read_results_csv(tmp_path / "none.csv")
