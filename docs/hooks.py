"""What MkDocs does besides: equations as MathML, and pages that the repository keeps outside of `docs/`."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
# MathML leaves no space around the names of functions, except by those of brackets.
BEFORE = re.compile(r"(?:(?<=</mi>)|(?<=</mover>))(?=<mi>log</mi>)")
AFTER = re.compile(r"(?<=<mi>log</mi>)(?!<mo[ >]|<mrow><mo[ >])")
SPACE = '<mspace width="0.17em"/>'


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's root, whose links start there."""
    for source, name in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, page in OUTSIDE.items():
            text = text.replace(f"]({other}", f"]({page}")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that leave `docs/` lead to those pages."""
    for source, name in OUTSIDE.items():
        markdown = markdown.replace(f"](../{source}", f"]({name}").replace(f"](../../{source}", f"](../{name}")
    return markdown


def on_page_content(content: str, **_: Any) -> str:
    """Write equations as MathML, which browsers draw themselves, and drop Sphinx's roles before names."""
    content = re.sub(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', _equation, content, flags=re.DOTALL)
    content = re.sub(r'<span class="arithmatex">\\\((.*?)\\\)</span>', _inline, content, flags=re.DOTALL)
    return re.sub(r":(?:mod|class|meth|func|attr):(?=<code>)", "", content)


def _mathml(tex: str, display: str) -> str:
    return AFTER.sub(SPACE, BEFORE.sub(SPACE, convert(html.unescape(tex).strip(), display=display)))


def _equation(found: re.Match[str]) -> str:
    tex, _, number = found[1].partition(r"\tag{")
    label = f'<span class="number">({number.split("}")[0]})</span>' if number else ""
    return f'<div class="equation">{_mathml(tex, "block")}{label}</div>'


def _inline(found: re.Match[str]) -> str:
    return _mathml(found[1], "inline")
