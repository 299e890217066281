"""Pages from Jinja2 templates, escaped and written atomically."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rql_lightning.reporting.html.embedding import embedded
from rql_lightning.reporting.html.provenance import duration, size

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).with_name("templates")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"embedded": embedded, "duration": duration, "size": size}
    return environment


def render(template: str, **content: Any) -> str:
    """Return a page; every string in it is escaped, unless it is :class:`markupsafe.Markup`.

    Args:
        template: Name of the template.
        content: What the template shows.
    """
    return _environment().get_template(template).render(content)


def write_page(text: str, path: Path) -> None:
    """Write a page atomically, as UTF-8.

    Args:
        text: The page.
        path: Target.
    """
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
