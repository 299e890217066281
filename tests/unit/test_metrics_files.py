"""What is written of an evaluation is valid JSON and means one thing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rql_lightning.errors import ConfigurationError
from rql_lightning.evaluation import COLUMNS, Episodes
from rql_lightning.reporting.figures import distribution_figure
from rql_lightning.reporting.histograms import histograms
from rql_lightning.reporting.metrics import read_history, read_metrics, write_metrics
from rql_lightning.reporting.tables import number


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_what_is_not_finite_is_spelled_out_and_what_is_missing_is_null(tmp_path):
    path = tmp_path / "metrics.json"
    content = {"episodes": 3, "up": math.inf, "down": -math.inf, "undefined": math.nan, "missing": None, "mean": 0.1}
    write_metrics(content, path)
    written = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert written == {**content, "up": "Infinity", "down": "-Infinity", "undefined": "NaN"}
    assert all(math.isinf(float(written[key])) for key in ("up", "down")) and math.isnan(float(written["undefined"]))
    back = read_metrics(path)
    assert math.isnan(back.pop("undefined"))
    assert back == {key: value for key, value in content.items() if key != "undefined"}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(("kl", "has_prior", "expected"), [(math.inf, True, math.inf), (math.nan, False, None)])
def test_an_infinite_divergence_is_not_the_absence_of_a_prior(kl, has_prior, expected):
    table = np.array([[0, 2, 1.0, -1.0, 1, 0.5, 0.2], [1, 8, 3.0, -3.0, 0, 1.5, kl]])
    assert Episodes(table, np.empty(0), has_prior=has_prior).summary("x")["kl_to_prior"] == expected


@pytest.mark.parametrize(
    ("success", "rate"), [([1, 0, 1, 1], 0.75), ([1, math.nan, 0, 1], 0.5), ([math.nan] * 4, None)]
)
def test_an_episode_that_told_nothing_is_no_success_where_others_told(success, rate):
    table = np.ones((4, len(COLUMNS)))
    table[:, COLUMNS.index("success")] = success
    assert Episodes(table, np.empty(0)).summary(None)["success_rate"] == (None if rate is None else pytest.approx(rate))


def test_numbers_as_people_read_them():
    assert [number(value, ".2f") for value in (1.234, math.inf, -math.inf)] == ["1.23", "∞", "−∞"]


@pytest.mark.parametrize("values", [[3.0], [1e6, 1e6], [0.0, 1e-300]])
def test_histograms_of_narrow_distributions(values, tmp_path):
    figure = distribution_figure(histograms({"prior": np.array(values), "policy": np.array(values)}, "x"))
    figure.savefig(tmp_path / "x.png")
    left, right = figure.axes[0].get_xlim()
    assert left <= min(values) and max(values) <= right and left < right
    assert (tmp_path / "x.png").stat().st_size > 0


@pytest.mark.parametrize(("text", "found"), [("{", "Expecting property name"), ("[1]", "expected numbers by name")])
@pytest.mark.parametrize("read", [read_metrics, read_history])
def test_a_file_of_something_else_is_named(read, text, found, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=found) as refused:
        read(path)
    assert str(refused.value).startswith(f"{path}: found ")


def test_a_history_is_a_list(tmp_path):
    path = tmp_path / "learning_curves.json"
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="found dict, expected a list"):
        read_history(path)
