"""Published results: complete in themselves, and added to by later runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from report_examples import results, run_folder

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reproduce.publish import publish
from rql_lightning.reproduce.results import Result, read_results_csv


def found_in(run: Path) -> list[Result]:
    """Results of which each has a run folder."""
    return [replace(result, folder=run_folder(run / str(index))) for index, result in enumerate(results(None))]


def test_a_published_report_needs_nothing_outside_its_folder(tmp_path):
    run, folder = tmp_path / "run", tmp_path / "published"
    first = publish(found_in(run), folder, "t", "first").read_text(encoding="utf-8")
    shutil.rmtree(run)
    found = read_results_csv(folder / "results.csv")
    assert len(found) == len(results(None)) and all(folder in each.folder.parents for each in found)
    assert len({each.folder for each in found}) == len(found)
    assert len(list(folder.rglob("*.gif"))) == len(list(folder.rglob("*.png"))) == 1 and not list(
        folder.rglob("*.ckpt")
    )
    again = publish(found, folder, "t", "first").read_text(encoding="utf-8")
    assert again == first and "<svg" in again and "data:image/gif" in again and "data:image/png" in again


def test_later_runs_add_to_what_is_published_and_replace_what_they_make_anew(tmp_path):
    run = run_folder(tmp_path / "run")
    old = results(run)
    publish(old, tmp_path / "published", "t", "first")
    better = {**old[0].metrics, "basic_return_mean": 96.25}
    new = [replace(old[0], metrics=better), replace(old[0], seed=7)]
    publish(new, tmp_path / "published", "t", "second")
    found = read_results_csv(tmp_path / "published" / "results.csv")
    assert len(found) == len(old) + 1
    assert [each.seed for each in found] == sorted(each.seed for each in found)
    (changed,) = [r for r in found if (r.policy, r.seed) == (old[0].policy, old[0].seed)]
    assert changed.metrics["basic_return_mean"] == 96.25
    assert json.loads((tmp_path / "published" / "commands.json").read_text()) == ["first", "second"]
    assert "first\nsecond" in (tmp_path / "published" / "report.md").read_text(encoding="utf-8")


def test_a_sweep_keeps_its_values_apart(tmp_path):
    swept = [r for r in found_in(tmp_path / "run") if "omega_prime" in r.metrics]
    publish(swept, tmp_path / "published", "t", "c")
    found = read_results_csv(tmp_path / "published" / "results.csv")
    assert [r.metrics for r in found] == [r.metrics for r in sorted(swept, key=lambda r: r.seed)]
    assert len({r.folder for r in found}) == len(swept) > 1


@pytest.mark.parametrize("text", ["{", "{}", "[1]"])
def test_what_is_not_a_published_folder_is_refused(tmp_path, text):
    (tmp_path / "commands.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"commands.json: found .*expected a list of commands"):
        publish(results(None), tmp_path, "t", "c")


def test_no_place_to_publish(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a place to write"):
        publish(results(run_folder(tmp_path / "run")), tmp_path / "file", "t", "c")
