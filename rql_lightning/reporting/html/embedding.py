"""Figures, pictures and videos as parts of a page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rql_lightning.reporting.before_after import NAME
from rql_lightning.reporting.figures import POLICY_COLOR, PRIOR_COLOR

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

TYPES = {".png": "image/png", ".gif": "image/gif", ".mp4": "video/mp4"}
LARGEST = 16 * 2**20
"""Bytes of the largest file to embed: a page with larger ones is slow to open on a phone."""

_INKS = {"#000000": "currentColor", POLICY_COLOR: "var(--policy)", PRIOR_COLOR: "var(--prior)"}
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)


def embedded(path: Path) -> str:
    """Return a picture or video as a data URI.

    Args:
        path: A PNG, GIF or MP4.

    Raises:
        OSError: If the file cannot be read.
    """
    return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def videos(folder: Path) -> list[Path]:
    """Return the videos of a run: of each episode the MP4 where every browser plays it, the GIF otherwise.

    Args:
        folder: Folder of the run.
    """
    found = []
    for gif in sorted((folder / "videos").glob("*.gif")):
        mp4 = gif.with_suffix(".mp4")
        chosen = mp4 if mp4.is_file() and b"avc1" in mp4.read_bytes() else gif  # MPEG-4 Part 2 plays in few browsers
        if chosen.stat().st_size <= LARGEST:
            found.append(chosen)
    return found


def stills(folder: Path) -> list[Path]:
    """Return the pictures of a run that show prior and policy in moments of the same episode.

    Args:
        folder: Folder of the run.
    """
    return sorted((folder / "videos").glob(f"{NAME}-*.png"))


def svg(figure: Figure, name: str) -> Markup:
    """Return a figure as SVG that takes its colours from the page, and therefore suits light and dark ones.

    Args:
        figure: The figure, drawn in black, the prior's and the policy's colour.
        name: Unique in the page; it becomes a part of the figure's identifiers.
    """
    import matplotlib
    from markupsafe import Markup

    target = io.StringIO()
    # Text as text: smaller, searchable, and in the page's colour.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(target, format="svg", transparent=True)
    text = target.getvalue()
    text = _METADATA.sub("", text[text.index("<svg") :])
    text = _REFERENCE.sub(lambda found: f"{found[1]}{name}-", text)
    for ink, color in _INKS.items():
        text = text.replace(ink, color)
    return Markup(text)  # written by Matplotlib, which escapes labels
