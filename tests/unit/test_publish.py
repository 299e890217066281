"""Published results: complete in themselves, and added to by later runs."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from report_examples import results, run_folder

import rql_lightning.reproduce.__main__ as reproduce
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
    old = found_in(tmp_path / "run")
    publish(old, tmp_path / "published", "t", "first")
    better = {**old[0].metrics, "basic_return_mean": 96.25}
    new = [replace(old[0], metrics=better), replace(old[0], seed=7)]
    publish(new, tmp_path / "published", "t", "second")
    found = read_results_csv(tmp_path / "published" / "results.csv")
    assert len(found) == len(old) + 1
    assert [each.seed for each in found] == sorted(each.seed for each in found)
    (changed,) = [r for r in found if (r.policy, r.seed) == (old[0].policy, old[0].seed)]
    assert changed.metrics["basic_return_mean"] == 96.25
    commands = json.loads((tmp_path / "published" / "commands.json").read_text())
    assert list(commands) == ["first", "second"] and len(commands["first"]) == len(old) - 1
    assert "first\nsecond" in (tmp_path / "published" / "tables.md").read_text(encoding="utf-8")


def test_a_sweep_keeps_its_values_apart(tmp_path):
    swept = [r for r in found_in(tmp_path / "run") if "omega_prime" in r.metrics]
    publish(swept, tmp_path / "published", "t", "c")
    found = read_results_csv(tmp_path / "published" / "results.csv")
    assert [r.metrics for r in found] == [r.metrics for r in sorted(swept, key=lambda r: r.seed)]
    assert len({r.folder for r in found}) == len(swept) > 1


def test_a_command_without_results_is_forgotten(tmp_path):
    old = found_in(tmp_path / "run")
    publish(old, tmp_path / "published", "t", "first")
    publish(old, tmp_path / "published", "t", "second")
    assert list(json.loads((tmp_path / "published" / "commands.json").read_text())) == ["second"]


def test_seeds_with_other_settings_are_not_pooled(tmp_path):
    first, second = (replace(results(None)[0], seed=seed, folder=run_folder(tmp_path / str(seed))) for seed in (0, 1))
    for result, weight, job in ((first, 0.8, "a"), (second, 0.9, "b")):
        prior = f"results/jobs/{job}/last.ckpt"  # the product of another run, which differs between seeds
        config = {"seed_everything": result.seed, "model": {"omega_prime": weight, "path": prior}, "data": {}}
        (result.folder / "config.yaml").write_text(yaml.safe_dump(config))
    publish([first], tmp_path / "published", "t", "c")
    with pytest.raises(ConfigurationError, match="seed 0 of mountain_car, RL Prior Policy, with other or unknown"):
        publish([second], tmp_path / "published", "t", "c")
    assert len(read_results_csv(tmp_path / "published" / "results.csv")) == 1
    config["model"]["omega_prime"] = 0.8
    (second.folder / "config.yaml").write_text(yaml.safe_dump(config))
    publish([second], tmp_path / "published", "t", "c")
    assert len(read_results_csv(tmp_path / "published" / "results.csv")) == 2


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("commands.json", "{", "commands.json: found Expecting"),
        ("commands.json", "[1]", "commands.json: found list, expected commands"),
        ("results.csv", "a,b", "results.csv: found ValueError"),
        ("reasons.yaml", "a: b", "reasons.yaml: found dict"),
    ],
)
def test_what_is_not_a_published_folder_is_refused_before_anything_runs(tmp_path, name, text, found, capsys):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=found):
        publish(results(None), tmp_path, "t", "c")
    with pytest.raises(SystemExit):
        reproduce.main(["table1", "--out", str(tmp_path / "out"), "--publish", str(tmp_path)])
    assert name in capsys.readouterr().err and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        reproduce.main(["table1", "--out", str(tmp_path), "--publish", str(tmp_path)])
    assert "expected another folder than --out" in capsys.readouterr().err


def test_priors_of_the_rows_asked_for_do_not_take_the_place_of_others(tmp_path, monkeypatch):
    """Those that are published are what the other rows customise."""
    made = found_in(tmp_path / "run")
    monkeypatch.setattr(reproduce, "run_plan", lambda *arguments: [])
    monkeypatch.setattr(reproduce, "conclude", lambda *arguments: None)
    monkeypatch.setattr(reproduce, "collected", lambda *arguments: made)
    words = ["table1", "--tasks", "mountain_car", "--out", str(tmp_path / "out")]
    for name, options in {"some": ["--policies", "RL Customized"], "all": []}.items():
        reproduce.main([*words, *options, "--publish", str(tmp_path / name)])
    some, every = (read_results_csv(tmp_path / name / "results.csv") for name in ("some", "all"))
    assert {each.policy for each in some} == {"RL Customized"} and len(every) == len(made)
    assert len(read_results_csv(tmp_path / "out" / "results.csv")) == len(made)


def test_no_place_to_publish(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a place to write"):
        publish(results(run_folder(tmp_path / "run")), tmp_path / "file", "t", "c")


def test_one_command_at_a_time_adds_to_a_folder(tmp_path, monkeypatch):
    """The lock is taken before anything is written, and held until all is."""
    table, events = tmp_path / "published" / "results.csv", []

    @contextmanager
    def recorder(path, wait):
        events.append(("taken", path, wait, table.exists()))
        yield 0
        events.append(("released", table.exists()))

    monkeypatch.setattr("rql_lightning.reproduce.publish.locked", recorder)
    publish(found_in(tmp_path / "run"), tmp_path / "published", "t", "first")
    assert events == [("taken", tmp_path / "published" / ".lock", True, False), ("released", True)]


@pytest.mark.parametrize("table", sorted(Path(__file__).parents[2].glob("docs/results/*/results.csv")), ids=str)
def test_committed_results_have_their_evidence(table):
    """A fresh checkout can write the report again, and can tell whether more seeds have the same settings."""
    found = read_results_csv(table)
    commands = json.loads((table.parent / "commands.json").read_text(encoding="utf-8"))
    assert len(found) == sum(map(len, commands.values())) > 0
    for result in found:
        config = {"config.yaml"} if " fit " in result.command else set()  # planning is not fitted
        assert {"metrics.json", "run.json"} | config <= {path.name for path in result.folder.iterdir()}
