"""The paper's experiments with budgets of seconds, from the commands that make them to their reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rql_lightning.reporting.paper import paper_rows
from rql_lightning.reproduce.experiments import ABLATIONS, EPISODES, OMEGAS
from rql_lightning.reproduce.results import Result, read_results_csv

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def quick(out: Path, *words: str) -> tuple[list[Result], str, str]:
    """Run an experiment; return its results, its report, and its tables as Markdown."""
    command = [sys.executable, "-m", "rql_lightning.reproduce", *words, "--quick", "--jobs", "2", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout and f"report: {out / 'report.html'}" in done.stdout
    page, tables = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "tables.md"))
    return read_results_csv(out / "results.csv"), page, tables


def test_table_1_on_all_tasks(tmp_path):
    results, page, tables = quick(tmp_path, "table1")
    assert sorted((result.task, result.policy) for result in results) == sorted(paper_rows())
    assert "in 22 of the paper's 22 rows" in tables and tables.count(" of 88 cells") == 1
    for task, policy in paper_rows():
        section = tables.partition(f"## {task}\n")[2].partition("\n## ")[0]
        assert f"\n| {policy} | 0 | " in section
    for result in results:
        assert result.metrics["episodes"] == 10 and ("MCTS" in result.policy) == (result.metrics["updates"] == 0)
        assert result.metrics.get("reference_episodes") == (2 if result.task in ("highway", "parking") else None)
    for task in ("cartpole", "mountain_car", "highway", "parking"):
        shown = page.partition("<h2>Before and after</h2>")[2].partition("<h2>In motion</h2>")
        assert shown[0].count(f"<h3>{task}</h3>") == shown[2].count(f"<h3>{task}</h3>") == 1
    assert page.count("moments of one episode") == 4


def test_the_ablations(tmp_path):
    results, page, tables = quick(tmp_path, "ablations", "--tasks", "mountain_car")
    policies = ["Residual", *ABLATIONS["mountain_car"].values()]
    assert [result.policy for result in results] == policies
    assert all(f"\n| {policy} | 0 | " in tables for policy in policies)
    assert "Policies: mountain_car" in page and "P(residual" in tables


def test_the_sweep_over_omega_prime(tmp_path):
    results, page, tables = quick(tmp_path, "omega_sweep", "--tasks", "cartpole")
    config = yaml.safe_load((ROOT / "configs/cartpole/residual_soft_q.yaml").read_text(encoding="utf-8"))
    weights = [config["model"]["init_args"]["omega_prime"] * float(factor) for factor in OMEGAS]
    assert [result.metrics["omega_prime"] for result in results] == pytest.approx(weights)
    assert all(f"\n| ω′ = {weight:g} | 0 | " in tables for weight in weights)
    assert "The weight ω′: cartpole" in page


def test_the_sweep_over_demonstrations(tmp_path):
    results, _, tables = quick(tmp_path, "demonstrations_sweep", "--tasks", "cartpole")
    policies = [f"IL {kind}, {episodes}" for episodes in EPISODES for kind in ("Prior Policy", "Customized")]
    assert [result.policy for result in results] == ["RL Prior Policy", *policies]
    assert all(f"\n| {policy} | 0 | " in tables for policy in policies)
