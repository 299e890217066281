"""Sweeps: the plans that they are, the names of their runs, and what is refused before anything runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from pretended_engine import Pretended
from report_examples import Page, summary

from rql_lightning.errors import ConfigurationError
from rql_lightning.reporting.metrics import write_metrics
from rql_lightning.reproduce import options
from rql_lightning.reproduce import sweep as command
from rql_lightning.reproduce.jobs import folder_of
from rql_lightning.reproduce.plan import Plan
from rql_lightning.reproduce.sweep import job_name, main, settings_of, sweep

ROOT = Path(__file__).parents[2]
CONFIG = "configs/mountain_car/residual_sac.yaml"
BOTH = ["model.omega_prime", "model.alpha_hat"]


@pytest.fixture(autouse=True)
def in_the_projects_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_a_plan_has_a_job_per_value_and_seed():
    plan = sweep(CONFIG, [0, 3, 3], BOTH, ["0.3", "10", "0.3"], {"data.total_frames": "256"}, "command")
    assert plan.name == "mountain_car_residual_sac" and plan.command == "command"
    expected = [(value, seed) for value in ("0.3", "10") for seed in (0, 3)]
    assert [job.name for job in plan] == [job_name(BOTH, *each) for each in expected]
    for job, (value, seed) in zip(plan, expected, strict=True):
        assert job.settings == {"model.omega_prime": value, "model.alpha_hat": value, "data.total_frames": "256"}
        assert (job.subcommand, job.config, job.seed, job.needs) == ("fit", CONFIG, seed, ())
        assert job.row is not None and (job.row.task, job.row.seed) == ("mountain_car", seed)
    assert len(plan.fingerprints()) == 4


@pytest.mark.parametrize(
    ("vary", "values", "policies"),
    [
        ([], [], ["residual_sac"]),
        (BOTH, ["0.3", "1e1"], ["residual_sac"] * 2),  # become one trade-off curve
        (BOTH[:1], ["0.3"], ["residual_sac, model.omega_prime = 0.3"]),
        (BOTH[:1], ["0.3", "null"], [f"residual_sac, model.omega_prime = {value}" for value in ("0.3", "null")]),
        (["a", "b"], ["1", "2"], ["residual_sac, a = b = 1", "residual_sac, a = b = 2"]),
    ],
)
def test_rows_of_the_report_can_be_told_apart(vary, values, policies):
    assert [job.row.policy for job in sweep(CONFIG, [0], vary, values, {}, "")] == policies


@pytest.mark.parametrize(
    ("env", "task"),
    [("rql_lightning/Parking-v0", "parking"), ("my/LunarLander-v3", "lunar_lander"), ("CartPole-v1", "cartpole")],
)
def test_the_task_is_that_of_the_environment(env, task, tmp_path):
    (tmp_path / "own.yaml").write_text(f"data:\n  class_path: Some\n  init_args:\n    env: {env}\n")
    (job,) = sweep(str(tmp_path / "own.yaml"), [0], [], [], {}, "")
    assert job.row.task == task
    for key in ("data.env", "data.init_args.env"):
        (job,) = sweep(CONFIG, [0], [], [], {key: env}, "")
        assert job.row.task == task
    varied = sweep(CONFIG, [0], ["data.env"], [env, "rql_lightning/Highway-v0"], {}, "")
    assert [job.row.task for job in varied] == [task, "highway"]


@pytest.mark.parametrize("text", ["data: [", "- a list", "model: {}", "data:", ""])
def test_a_file_that_is_no_config_is_named(text, tmp_path):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"--config: found \w+ in .*own.yaml, expected a config of"):
        sweep(str(tmp_path / "own.yaml"), [0], [], [], {}, "")


def test_names_are_folders_that_tell_value_and_seed():
    assert job_name([], "", 7) == "seed7"
    assert job_name(BOTH, "0.3", 0) == "model.omega_prime+model.alpha_hat=0.3/seed0"
    odd = ["../..", "a/b", "a b", "{max_episode_steps: 30}", "ω", "x" * 300, "x" * 299, "null", "", "[1, 2]", "a_b"]
    names = [job_name(["key"], value, 0) for value in odd]
    assert len(set(names)) == len(odd)
    for name in names:
        folder, seed = name.split("/")
        assert seed == "seed0" and folder.startswith("key=") and folder.isascii() and len(folder) < 100
        assert not set(folder) & set(' {}:[]"*?<>|\\')


def test_names_of_plans_are_folders(tmp_path):
    for path in (tmp_path / "a b.yaml", tmp_path / ".." / tmp_path.name / "own.yaml"):
        path.write_text("data: {env: CartPole-v1}")
        name = sweep(str(path), [0], [], [], {}, "").name
        assert Path(name).name == name and " " not in name


def test_further_arguments_are_settings():
    words = shlex.split("--model.gamma=0.9 --data.env_kwargs '{max_episode_steps: 30}' --model.shift -1 --a= --a=b=c")
    expected = {"model.gamma": "0.9", "data.env_kwargs": "{max_episode_steps: 30}", "model.shift": "-1", "a": "b=c"}
    assert settings_of(words) == expected
    (job,) = sweep(CONFIG, [0], [], [], settings_of(words), "")
    assert job.needs == () and "--data.env_kwargs={max_episode_steps: 30}" in job.words(Path("folder"), {})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--flag"], "arguments: found '--flag', expected --key=value or --key value"),
        (["--flag", "--model.gamma=1"], "arguments: found '--flag'"),
        (["stray"], "arguments: found 'stray'"),
        (["--trainer.default_root_dir=x"], "--trainer.default_root_dir: found 'x', expected --root instead"),
        (["--seed_everything", "3"], "--seed_everything: found '3', expected --seeds instead"),
        (["--trainer.callbacks+=A", "--trainer.callbacks+=B"], "--trainer.callbacks+: found 'B', expected one value"),
        (["--vary", "model.gamma"], "--vary and --values must be given together"),
        (["--vary", "model.gamma", "--values", "1", "--model.gamma=1"], "--vary: found 'model.gamma', expected keys"),
        (["--vary", "seed_everything", "--values", "1"], "--vary: found 'seed_everything', expected keys"),
        (["--vary", "model.gamma", "--values", "1", "1.0"], "--values: found '1, 1.0', expected numbers that differ"),
        (["--jobs", "0"], "--jobs: found 0"),
        (["--engine", "cloud"], "invalid choice: 'cloud'"),
    ],
)
def test_bad_arguments(words, expected, tmp_path, capsys):
    assert expected in refused(["--config", CONFIG, "--root", str(tmp_path / "root"), *words], capsys)
    assert not (tmp_path / "root").exists()


def test_a_dry_run_shows_the_plan_and_runs_nothing(tmp_path, capsys):
    words = ["--config", CONFIG, "--root", str(tmp_path / "root"), "--seeds", "0", "1"]
    main([*words, "--vary", *BOTH, "--values", "0.3", "1", "--dry-run"])
    screen = capsys.readouterr().out
    assert "mountain_car_residual_sac: 4 jobs" in screen and "left: 4 jobs, whose time is not known" in screen
    assert "model.alpha_hat=0.3/seed0" in screen and not (tmp_path / "root").exists()


class Measuring(Pretended):
    """An engine whose jobs measure the more, the larger their value."""

    def submit(self, out: Path, name: str):
        future = super().submit(out, name)
        value = float(json.loads((out / "plan.json").read_text())["jobs"][len(self.order) - 1]["settings"]["value"])
        write_metrics(
            summary(90.0 + value, -value, 10 * value, train_seconds=1.0), folder_of(out, name) / "run/metrics.json"
        )
        return future


def test_a_sweep_over_any_key_is_a_table_of_its_values(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "LocalEngine", lambda jobs: Measuring())
    words = ["--config", CONFIG, "--root", str(tmp_path), "--seeds", "0", "1", "--vary", "value", "--values", "1", "2"]
    main(words)
    screen = capsys.readouterr().out
    out = tmp_path / "mountain_car_residual_sac"
    assert "91.00 [91.00, 91.00]" in screen and "92.00 [92.00, 92.00]" in screen and str(out / "report.html") in screen
    page = Page(out / "report.html")
    assert page.row("residual_sac, value = 2")[2] == "92.00 ± 0.50 IQM 92.00 [92.00, 92.00]"
    assert page.row("residual_sac, value = 1")[4] == "10.00 ± 0.50 IQM 10.00 [10.00, 10.00]"
    text = (out / "report.html").read_text(encoding="utf-8")
    assert f"Sweep of {CONFIG}" in text and shlex.join(words) in text


def test_results_of_a_sweep_over_omega_prime_are_a_trade_off_curve(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(options, "LocalEngine", lambda jobs: Measuring())
    keys = [*BOTH, "value"]
    main(["--config", CONFIG, "--root", str(tmp_path), "--vary", *keys, "--values", "0.5", "2"])
    page = Page(tmp_path / "mountain_car_residual_sac" / "report.html")
    assert page.row("ω′ = 0.5")[2].startswith("90.50") and page.row("ω′ = 2")[2].startswith("92.00")
    assert page.tags.count("svg") == 1


def test_engines_are_those_of_the_experiments(monkeypatch, tmp_path):
    asked: list[Plan] = []
    monkeypatch.setattr(command, "run_plan", lambda plan, out, given: asked.append((plan.name, out, given)))
    words = shlex.split("--engine slurm --partition cpu --minutes 5 --memory-gb 2 --force --model.gamma=0.5")
    main(["--config", CONFIG, "--root", str(tmp_path), *words])
    ((name, out, given),) = asked
    assert out == tmp_path / name and given.force
    assert (given.engine, given.partition, given.minutes, given.memory_gb) == ("slurm", "cpu", 5, 2.0)
