"""Plans: what they consist of, in which order and how often their jobs run, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import pytest
from pretended_engine import Pretended

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.paper import paper_row
from rql_lightning.reproduce import __main__ as reproduce
from rql_lightning.reproduce.execution import execute, failures, plan_table
from rql_lightning.reproduce.experiments import ABLATIONS, EXPERIMENTS, POLICIES, TASKS, TUNED, table1
from rql_lightning.reproduce.jobs import is_finished, locked, read_state
from rql_lightning.reproduce.plan import Job, Plan, Row, joined, read_plan

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


def job(name: str, *needs: str, **settings: str) -> Job:
    named = {f"need{index}": f"{{{need}}}/x" for index, need in enumerate(needs)}
    return Job(name, "fit", "configs/cartpole/full.yaml", 0, {**named, **settings}, Row("cartpole", name, 0))


def plan_of(*jobs: Job) -> Plan:
    return Plan("some", "some command", jobs)


def test_products_are_needs_and_paths():
    customised = job("b", "a", other="plain")
    assert customised.needs == ("a",)
    words = customised.words(Path("folder"), {"a": Path("runs/a")})
    assert "--need0=runs/a/x" in words and "--other=plain" in words and "--trainer.default_root_dir=folder" in words


def test_a_dictionary_is_no_product():
    settings = {"dictionary": "{max_episode_steps: 30}", "json": '{"a":1}', "both": "{a: 1, b: {2: c}}"}
    assert job("a", **settings).needs == ()
    words = job("b", "a", **settings).words(Path("folder"), {"a": Path("runs/a")})
    assert {f"--{key}={value}" for key, value in settings.items()} <= set(words)


def test_pictures_are_made_and_no_result_depends_on_them(tmp_path):
    with_pictures = dataclasses.replace(job("a"), pictures={"video.episodes": "1"})
    assert with_pictures.words(Path("folder"), {}) == [*job("a").words(Path("folder"), {}), "--video.episodes=1"]
    assert plan_of(with_pictures).fingerprints() == plan_of(job("a")).fingerprints()
    plan_of(with_pictures).write(tmp_path)
    assert read_plan(tmp_path) == plan_of(with_pictures)


@pytest.mark.parametrize("name", TASKS)
def test_before_and_after_of_each_task_is_filmed(name):
    """In full and with ``--quick``, in the customization of the RL prior."""
    for quick in (False, True):
        (customised,) = [job for job in table1([name], ["RL Customized"], [0], quick, "") if "residual" in job.name]
        words = customised.words(Path("folder"), defaultdict(Path))
        assert [word for word in words if "video.episodes" in word] == ["--video.episodes=1"]


@pytest.mark.parametrize("jobs", [(job("b", "a"), job("a")), (job("a"), job("a")), (job("b", "nobody"),)])
def test_a_plan_whose_order_does_not_work_is_refused(jobs):
    with pytest.raises(ConfigurationError, match="plan some: found a job"):
        plan_of(*jobs)


def test_a_plan_on_disk_is_the_same_plan(tmp_path):
    plan = table1(list(TASKS), POLICIES, range(2), False, "command")
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="found no plan"):
        read_plan(tmp_path)


def test_jobs_run_after_those_that_they_need_and_once(tmp_path):
    plan, engine = plan_of(job("a"), job("b", "a"), job("c", "b", "a"), job("d")), Pretended()
    outcome = execute(plan, tmp_path, engine)
    assert sorted(engine.order) == sorted(outcome.finished) == ["a", "b", "c", "d"] and not outcome.failed
    assert engine.order == ["a", "b", "c", "d"]  # one at a time: in the plan's order, so that a seed is finished early
    assert not execute(plan, tmp_path, again := Pretended()).failed and again.order == []
    state = read_state(tmp_path, "c")
    assert state is not None and state.seconds == 1.5 and is_finished(tmp_path, "c")


def test_a_failed_job_does_not_stop_the_rest_and_is_reported(tmp_path, capsys):
    plan, engine = plan_of(job("bad"), job("after", "bad"), job("good"), job("better", "good")), Pretended()
    outcome = execute(plan, tmp_path, engine)
    assert outcome.finished == ["good", "better"] and list(outcome.failed) == ["bad"] and outcome.waiting == ["after"]
    told = failures(outcome, tmp_path)
    assert "failed: bad" in told and "third" in told and "second" not in told and "not run: after" in told
    again = Pretended()
    execute(plan, tmp_path, again)
    assert again.order == ["bad"]  # is tried again


def test_results_of_other_settings_are_refused_and_deleted_by_force(tmp_path):
    execute(plan_of(job("a"), job("b", "a"), job("c")), tmp_path, Pretended())
    other = plan_of(job("a", key="1"), job("b", "a"), job("c"))
    with pytest.raises(ConfigurationError, match=r"jobs/a: found a result of other settings .*--force"):
        execute(other, tmp_path, Pretended())
    execute(other, tmp_path, engine := Pretended(), force=True)
    assert engine.order == ["a", "b"]  # b's prior has changed; c has not
    longer = plan_of(*other, job("d"))
    execute(longer, tmp_path, engine := Pretended())
    assert engine.order == ["d"]


def test_another_version_is_another_result(tmp_path, monkeypatch):
    execute(plan_of(job("a")), tmp_path, Pretended())
    monkeypatch.setattr("rql_lightning.reproduce.plan.__version__", "99.0")
    with pytest.raises(ConfigurationError, match="another version"):
        execute(plan_of(job("a")), tmp_path, Pretended())


def test_two_plans_in_one_folder_are_refused(tmp_path):
    with locked(tmp_path / ".lock", wait=False), pytest.raises(OutputError, match="another command"):
        execute(plan_of(job("a")), tmp_path, Pretended())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        execute(plan_of(job("a")), tmp_path / "file" / "out", Pretended())


def test_table_1_has_the_papers_rows_and_configs_that_exist():
    plan = table1(list(TASKS), POLICIES, range(3), False, "")
    rows = [each.row for each in plan if each.row is not None]
    assert len(rows) == len(set(rows)) == 3 * 22
    for row in rows:
        assert paper_row(TASKS[row.task].paper, row.policy)["success_rate"] > 0.5
    assert len(plan.fingerprints()) == len(plan) == 3 * 26
    for each in plan:
        assert all(plan[name].seed == each.seed for name in each.needs)


def test_a_row_alone_comes_with_what_it_needs():
    (name, *_), plan = POLICIES, table1(["highway"], ["IL ME-MCTS"], [0], False, "")
    assert [each.name.split("/")[1] for each in plan] == [
        "rl_prior",
        "demonstrations",
        "behavior_cloning",
        "mcts_from_il",
    ]
    assert name == "RL Prior Policy"
    with pytest.raises(ConfigurationError, match="expected rows of cartpole"):
        table1(["cartpole"], ["RL ME-MCTS"], [0], False, "")


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("quick", [False, True])
def test_every_experiment_is_a_plan(name, quick):
    policies = POLICIES if name == "table1" else []
    plan = EXPERIMENTS[name](list(TASKS), policies, range(2), quick, "")
    assert len(plan.fingerprints()) == len(plan) > 8
    assert all(each.estimate > 0 for each in plan)


def test_a_single_demonstration_is_not_held_out():
    """Behaviour cloning refuses to hold one out of one; every other prior is stopped early by those held out."""
    for quick in (False, True):
        plan = EXPERIMENTS["demonstrations_sweep"](["cartpole"], [], [0], quick, "")
        cloned = [each.settings for each in plan if "behavior_cloning" in each.name]
        assert [settings["data.episodes"] for settings in cloned][:2] == ["1", "3"]
        held_out = [settings.get("data.validation_fraction") for settings in cloned]
        assert held_out == ["0", None, None, None, None]


def test_parts_are_joined_without_repetition():
    assert [each.name for each in joined("x", "", [[job("a")], [job("a"), job("b", "a")]])] == ["a", "b"]


def test_a_dry_run_shows_the_plan_and_runs_nothing(tmp_path, capsys):
    reproduce.main(["table1", "--tasks", "cartpole", "--seeds", "2", "--out", str(tmp_path / "x"), "--dry-run"])
    screen = capsys.readouterr().out
    assert "table1: 12 jobs" in screen and "hours of one core" in screen and not (tmp_path / "x").exists()
    assert plan_table(plan_of(job("a")), tmp_path).row_count == 1


def test_seeds_start_at_the_first(tmp_path, capsys):
    words = ["table1", "--tasks", "cartpole", "--policies", "RL Full Policy", "--out", str(tmp_path), "--dry-run"]
    reproduce.main([*words, "--seeds", "2", "--first-seed", "3"])
    assert re.findall(r"cartpole/full/(\d)", capsys.readouterr().out) == ["3", "4"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["table1", "--policies", "nobody"], "--policies: found 'nobody', expected some of RL Prior Policy"),
        (["table1", "--seeds", "0"], "--seeds: found 0"),
        (["table1", "--first-seed", "-1"], "--first-seed: found -1"),
        (["table1", "--jobs", "0"], "--jobs: found 0"),
        (["table1", "--tasks", "chess"], "invalid choice: 'chess'"),
        (["everything"], "invalid choice: 'everything'"),
    ],
)
def test_bad_arguments(words, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        reproduce.main(words)
    assert stopped.value.code == 2 and expected in capsys.readouterr().err


def test_outside_the_projects_folder_the_configs_are_missed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        reproduce.main(["table1"])
    assert "found no file configs/cartpole/rl_prior.yaml" in capsys.readouterr().err


def test_table_1_alone_is_evaluated_on_the_reference_environments():
    plans = {
        name: make(["parking"], POLICIES[:1], [0], False, "")
        for name, make in EXPERIMENTS.items()
        if name != "ablations"
    }
    plans["ablations"] = EXPERIMENTS["ablations"](["parking"], [], [0], False, "")
    asked = {name for name, plan in plans.items() if any("data.reference" in job.settings for job in plan)}
    assert asked == {"table1"}


@pytest.mark.parametrize("task", ABLATIONS)
def test_ablations_are_all_tuned_or_none_is(task):
    plan = EXPERIMENTS["ablations"]([task], [], [0], False, "")
    tuned = [{key: job.settings[key] for key in job.settings if key.startswith("model.")} for job in plan]
    assert len(plan.jobs) == 1 + len(ABLATIONS[task]) and len({frozenset(each) for each in tuned}) == 1
    assert TUNED.get(task, {}).keys() <= {Path(job.config).stem for job in plan}
