"""The documentation as a site: it is built without a warning, hangs together, and needs no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page refers to, what it loads, and the places in it that others can refer to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given:
            self.loaded.append(given["src"])
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(module, reason="the site needs the extra docs, which `make docs` installs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if path.name != "404.html"}


def test_every_page_of_the_docs_is_there(site, pages):
    expected = {page.relative_to(ROOT / "docs").with_suffix(".html") for page in (ROOT / "docs").rglob("*.md")}
    expected |= {Path("changelog.html"), Path("contributing.html")}
    assert expected <= {path.relative_to(site) for path in pages}


def test_links_lead_to_pages_and_places_that_exist(site, pages):
    missing = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                missing.append((path.relative_to(site).as_posix(), link))
    assert missing == []


def test_nothing_comes_from_the_network(site, pages):
    assert [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"url\(['\"]?https?:", styles)


def test_equations_are_mathml(site):
    source = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    text = (site / "method.html").read_text(encoding="utf-8")
    equations = re.findall(r'<div class="equation">(.*?)</div>', text, re.DOTALL)
    assert len(equations) == source.count("$$") // 2
    numbers = [number for equation in equations for number in re.findall(r'class="number">\((\w+)\)', equation)]
    assert numbers == ["1", "2", "3", "4", "5e", "6", "7", "8", "9", "10", "13", "14", "15", "16", "17"]
    for mathml in re.findall(r"<math.*?</math>", text, re.DOTALL):
        assert "\\" not in mathml and "<mtext" not in mathml


def test_the_reference_has_the_public_names(site):
    """Every name that the packages export is in the reference, or is a detail of one that is."""
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    for name in (
        "rql_lightning.load_policy",
        "rql_lightning.register_task",
        "rql_lightning.tabular.residual_value_iteration",
        "rql_lightning.algorithms.ResidualSAC",
        "rql_lightning.planning.Dynamics",
        "rql_lightning.priors.CheckpointPrior",
    ):
        assert f'id="{name}"' in text, name
    assert not re.findall(r":(?:mod|class|meth|func|attr):", re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL))
