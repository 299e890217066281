"""The table of the README, and the comparison with committed results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rql_lightning.errors import ConfigurationError
from rql_lightning.reproduce.reasons import read_reasons
from rql_lightning.reproduce.regress import compare, comparison_table
from rql_lightning.reproduce.results import Result, read_results_csv, write_results_csv
from rql_lightning.reproduce.rows import rows
from rql_lightning.reproduce.summary import BEGIN, END, main, replaced, summary
from rql_lightning.reproduce.verdict import Verdict

ROOT = Path(__file__).parents[2]


def result(seed: int, basic: float = 425.7, policy: str = "RL Customized", **metrics: Any) -> Result:
    means = {"success_rate": 1.0, "basic_return_mean": basic, "basic_return_std": 2.0, "add_on_return_mean": -10.0}
    means |= {"add_on_return_std": 9.0, "mean_abs_position_mean": 0.05, "mean_abs_position_std": 0.04, "episodes": 1000}
    return Result("cartpole", policy, seed, {**means, **metrics}, None, "python", 1.0, None)


def test_the_same_results_hold_and_others_differ():
    committed = [result(seed, 425.7 + 0.1 * seed) for seed in range(5)]
    assert all(each.holds for each in compare(committed[:3], committed))
    (found,) = (each for each in compare([result(seed, 410.0) for seed in range(3)], committed) if not each.holds)
    assert found.name == "basic_return_mean" and found.row == ("cartpole", "RL Customized")
    assert comparison_table([found]).row_count == 1


def test_spread_over_seeds_is_tolerated():
    """By hand: deviations 0, ±10 on one side and 0 on the other have a standard deviation of 10/√3 · …"""
    committed = [result(seed, 400.0) for seed in range(3)]
    wild = [result(seed, value) for seed, value in enumerate((390.0, 400.0, 410.0))]
    (basic,) = (each for each in compare(wild, committed) if each.name == "basic_return_mean")
    assert basic.tolerance == pytest.approx(4 * (200 / 6) ** 0.5 * (2 / 3) ** 0.5)


def test_a_row_without_committed_results_is_named():
    with pytest.raises(ConfigurationError, match="found 'no cartpole, RL Prior Policy'"):
        compare([result(0, policy="RL Prior Policy")], [result(0)])


def test_the_summary_has_our_numbers_and_the_papers():
    table = summary([result(seed, 425.9 + 0.1 * seed) for seed in range(3)])
    (line,) = table.splitlines()[2:]
    assert line.startswith("| cartpole | RL Customized | 0–2 | 100.00 [100.00, 100.00] (100.00) = | 426.00 [")
    assert "(425.73) ▲" in line and "mean abs position" in line and "(0.050) =" in line


def test_a_readme_is_rewritten_between_its_marks(tmp_path, capsys):
    write_results_csv([result(0)], tmp_path / "results.csv")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    main([str(tmp_path / "results.csv"), "--readme", str(readme)])
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text and "cartpole" in text
    assert replaced(text, summary([result(0)])) == text
    readme.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "results.csv"), "--readme", str(readme)])
    assert "expected both marks once" in capsys.readouterr().err


def test_the_readme_agrees_with_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = read_results_csv(ROOT / "docs/results/table1/results.csv")
    assert replaced(text, summary(results)) == text


def test_every_cell_that_is_worse_has_a_reason_and_every_reason_such_a_cell():
    folder = ROOT / "docs/results/table1"
    table, _, _ = rows(read_results_csv(folder / "results.csv"))
    worse = {(row.task, row.policy, cell.name) for row in table for cell in row.cells if cell.verdict is Verdict.WORSE}
    assert set(read_reasons(folder)) == worse
