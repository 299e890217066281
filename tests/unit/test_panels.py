"""Small figures of reports: what they draw, and that it can be told apart."""

from __future__ import annotations

import numpy as np

from rql_lightning.reporting.html.panels import trade_off_panel


def test_the_trade_off_has_the_mean_of_each_weight_and_single_seeds():
    points = [("0.1", [90.0, 92.0], [-3.0, -4.0]), ("1", [95.0], [-5.0])]
    (axes,) = trade_off_panel(points, ("basic return", "add-on return")).axes
    named = [each for each in axes.collections if each.get_label().startswith("ω′")]
    assert [each.get_label() for each in named] == ["ω′ = 0.1", "ω′ = 1"]
    assert [tuple(each.get_offsets()[0]) for each in named] == [(91.0, -3.5), (95.0, -5.0)]
    assert len({tuple(each.get_facecolor()[0]) for each in named}) == 2
    (seeds,) = [each for each in axes.collections if each not in named]  # a single seed is its own mean
    np.testing.assert_array_equal(seeds.get_offsets(), [(90.0, -3.0), (92.0, -4.0)])
