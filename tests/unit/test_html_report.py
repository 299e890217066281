"""Reports: one file each, complete, escaped, and legible in a real browser."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml
from matplotlib.figure import Figure
from report_examples import HOSTILE, Page, results, run_folder

from rql_lightning.errors import ConfigurationError, OutputError
from rql_lightning.reporting.html.embedding import svg, videos
from rql_lightning.reporting.html.provenance import commit, duration, machine, peak_memory, size, versions
from rql_lightning.reporting.html.run import write_run_report
from rql_lightning.reproduce.report import write_report
from rql_lightning.reproduce.results import read_results_csv


def assert_self_contained(page: Page) -> None:
    assert all(target.startswith(("data:", "#")) for target in page.loaded)
    assert "script" not in page.tags and len(page.ids) == len(set(page.ids))


def test_the_report_of_a_run(tmp_path):
    path = write_run_report(run_folder(tmp_path / "run", command=f"python {HOSTILE}"))
    page = Page(path)
    assert_self_contained(page)
    assert page.tags.count("svg") == 4 and page.alternatives == [
        "Evaluation seed 1000000, moments of one episode: prior above, policy below",
        "episode 1000000: prior and policy in the same episode",
    ]
    assert page.row("basic return") == ["basic return", "95.75 ± 0.50", "95.50 ± 0.50", "95.61 ± 0.43"]
    assert page.row("negative actions")[1:] == ["32.50 ± 0.50", "29.00 ± 0.50", "37.90 ± 0.75"]
    assert page.row("KL to prior")[1:] == ["–", "0.250", "–"]
    text = path.read_text(encoding="utf-8")
    assert "1 min" in text and "1.0 GiB" in text and "a machine" in text and "python 3.11" in text
    assert "commit" not in text and "viewport" in text and "prefers-color-scheme: dark" in text


def test_what_a_run_did_not_leave_is_left_out(tmp_path):
    folder = run_folder(tmp_path / "run", video=False)
    for name in ("prior_metrics.json", "learning_curves.json", "distribution.json"):
        (folder / name).unlink()
    page = Page(write_run_report(folder))
    assert not {"svg", "img", "video"} & set(page.tags) and len(page.row("basic return")) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "report.html", "run.json"]


def test_the_report_of_a_reproduction(tmp_path):
    folder = run_folder(tmp_path / "run")
    path = write_report(results(folder), tmp_path / "out", f"Title {HOSTILE}", f"all {HOSTILE}")
    page = Page(path)
    assert_self_contained(page)
    prior = page.row("RL Prior Policy")
    assert prior[0] == "RL Prior Policy seeds 0, 1"
    assert prior[1] == "100.00 % IQM 100.00 [100.00, 100.00] paper 100.00 = equal"
    assert prior[2] == "95.85 ± 0.50 IQM 95.85 [95.80, 95.90] paper 95.78 ± 0.64 ▲ better"
    assert prior[3] == "−3.10 ± 0.50 IQM −3.10 [−3.10, −3.10] paper −4.23 ± 0.13 ▲ better"
    assert prior[4] == "31.50 ± 0.71 IQM 31.50 [31.00, 32.00] paper 42.26 ± 1.29 ▲ better"
    ablation = page.row("<script>")
    assert ablation[2] == "89.50 ± 0.71 IQM 89.50 [89.00, 90.00]" and ablation[-1] == "1.00 [1.00, 1.00]"
    assert page.row("ω′ = 0.5")[2] == "95.50 ± 0.50 IQM 95.50 [95.50, 95.50]"
    text = path.read_text(encoding="utf-8")
    assert "Better than the paper or equal: 8 of 8 cells" in text and "ω′ = 2" in text
    assert page.tags.count("svg") == 2 * 3 + 1 and page.alternatives == [
        "RL Customized, training seed 0, evaluation seed 1000000, moments of one episode: prior above, policy below",
        "RL Customized, seed 0, episode-1000000".replace("-", " "),
    ]
    assert text.count("<details>") == 1 + 1 + 1 + 2 + 1  # sweep, still, video, curves of two rows, all runs
    markdown = (path.parent / "tables.md").read_text(encoding="utf-8")
    assert "| RL Prior Policy | 0, 1 | 100.00 %<br>IQM" in markdown and "8 of 8 cells" in markdown
    assert "<script>" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert [r.metrics for r in read_results_csv(path.parent / "results.csv")] == [r.metrics for r in results(folder)]
    assert str(tmp_path) not in text + markdown


def test_alternatives_are_compared_with_residual_q_learning_where_it_is(tmp_path):
    """On its own, as in the ablations, or not at all."""
    greedy = [r for r in results(None) if r.policy == HOSTILE]
    ours = [dataclasses.replace(r, policy="Residual") for r in results(None) if r.policy == "RL Customized"]
    page = Page(write_report([*greedy, *ours], tmp_path, "t", "c"))
    assert page.row("<script>")[-1] == "1.00 [1.00, 1.00]" and page.row("Residual")[-1] == "–"
    alone = Page(write_report(greedy, tmp_path, "t", "c"))
    assert len(alone.row("<script>")) == 5 and "P(residual" not in (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "<h2>Policies: mountain_car</h2>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_worse_cell_has_its_reason(tmp_path):
    worse = [r for r in results(None) if r.policy == "RL Customized"]
    worse = [type(r)(**{**vars(r), "metrics": {**r.metrics, "basic_return_mean": 90.0 - r.seed}}) for r in worse]
    entry = {"task": "mountain_car", "policy": "RL Customized", "quantity": "basic_return"}
    reasons = [{**entry, "reason": f"It was stopped early. {HOSTILE}"}]
    (tmp_path / "reasons.yaml").write_text(yaml.safe_dump(reasons), encoding="utf-8")
    path = write_report(worse, tmp_path, "t", "c")
    for text in (path.read_text(encoding="utf-8"), (tmp_path / "tables.md").read_text(encoding="utf-8")):
        assert "RL Customized, basic return: 89.50 [89.00, 90.00]; paper 95.61 ± 0.43" in text
        assert "It was stopped early." in text and "3 of 4 cells" in text
    assert "▼ worse" in Page(path).row("RL Customized")[2]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "reasons.yaml: found while parsing"),
        ("task: mountain_car", "reasons.yaml: found dict, expected a list of"),
        ("- {task: mountain_car}", r"reasons.yaml: found {'task': 'mountain_car'}, expected a list of"),
        ("- {task: a, policy: b, quantity: c, reason: 3}", "all of them text"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
)
def test_reasons_that_cannot_be_read(tmp_path, text, found):
    (tmp_path / "reasons.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=found):
        write_report(results(None), tmp_path, "t", "c")


def test_what_was_measured_on_the_reference_environments(tmp_path):
    measured = {"success_rate": 0.98, "basic_return_mean": -7.5, "basic_return_std": 3.25, "no_violation_mean": 0.95}
    more = {f"reference_{key}": value for key, value in {**measured, "same_episodes": 97, "episodes": 100}.items()}
    runs = [r for r in results(None) if r.policy == "RL Customized"]
    runs[0] = replace(runs[0], task="parking", metrics={**runs[0].metrics, **more})
    path = write_report(runs, tmp_path, "t", "c")
    expected = ["parking", "RL Customized", "0", "98.0 %", "−7.50 ± 3.25", "–", "0.950", "97 of 100"]
    assert expected in Page(path).rows
    assert f"| {' | '.join(expected)} |" in (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8").count("97 of 100") == 1


def test_no_results_and_no_place_to_write(tmp_path):
    with pytest.raises(ConfigurationError, match="expected at least one finished run"):
        write_report([], tmp_path, "t", "c")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a place to write"):
        write_report(results(None), tmp_path / "file", "t", "c")


def test_figures_take_the_colours_of_the_page_and_escape_their_labels():
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], color="#c0392b", label=HOSTILE)
    axes.legend()
    text = svg(figure, "one")
    assert text.startswith("<svg") and "currentColor" in text and "var(--policy)" in text and "#000000" not in text
    assert "<script>" not in text and "<metadata>" not in text
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]*)"', text))


def test_a_video_that_few_browsers_play_or_is_huge_is_not_chosen(tmp_path, monkeypatch):
    folder = run_folder(tmp_path / "run")
    gif = folder / "videos" / "episode-1000000.gif"
    gif.with_suffix(".mp4").write_bytes(b"mp4v")
    assert videos(folder) == [gif]
    gif.with_suffix(".mp4").write_bytes(b"avc1")
    assert videos(folder) == [gif.with_suffix(".mp4")]
    monkeypatch.setattr("rql_lightning.reporting.html.embedding.LARGEST", 3)
    assert videos(folder) == []


def test_provenance():
    assert versions()["rql_lightning"] and "torch" in versions() and "cores" in machine()
    assert os.uname().nodename not in machine()
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)
    assert peak_memory() > 2**20
    assert [duration(s) for s in (1.24, 61, 3599, 7260)] == ["1.2 s", "1 min", "1 h 00 min", "2 h 01 min"]
    assert [size(n) for n in (None, 2**20, 3 * 2**29)] == ["–", "1 MiB", "1.5 GiB"]


def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed")


CHECK = """<script>
window.addEventListener("load", () => {
  const pictures = [...document.images];
  const broken = pictures.filter(picture => !picture.complete || picture.naturalWidth === 0).length;
  const figures = [...document.querySelectorAll("svg")];
  const hidden = figures.filter(figure => figure.getBoundingClientRect().width < 100).length;
  const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth ? 1 : 0;
  document.body.dataset.checked = [pictures.length, broken, hidden, wide].join(" ");
});
</script></body>"""


@pytest.mark.parametrize("kind", ["run", "reproduction"])
def test_a_browser_shows_it_all(tmp_path, kind):
    browser = chromium()
    folder = run_folder(tmp_path / "run")
    path = write_run_report(folder) if kind == "run" else write_report(results(folder), tmp_path, "t", "c")
    page = tmp_path / "page.html"
    page.write_text(path.read_text(encoding="utf-8").replace("</body>", CHECK), encoding="utf-8")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--enable-logging=stderr"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert 'data-checked="2 0 0 0"' in done.stdout, done.stdout[-500:] + done.stderr[-500:]
    assert "CONSOLE" not in done.stderr
