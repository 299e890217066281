"""An engine that runs nothing, for tests of plans."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path

from rql_lightning.reproduce.jobs import folder_of
from rql_lightning.reproduce.plan import read_plan


class Pretended:
    """An engine that pretends: it notes the order, and jobs whose name has "bad" fail."""

    slots = 1.0

    def __init__(self) -> None:
        self.order: list[str] = []

    def submit(self, out: Path, name: str) -> Future[None]:
        future: Future[None] = Future()
        self.order.append(name)
        folder = folder_of(out, name)
        (folder / "run").mkdir(parents=True, exist_ok=True)
        code = 3 if "bad" in name else 0
        state = {"fingerprint": read_plan(out).fingerprints()[name], "command": [], "run": "run", "returncode": code}
        state |= {"seconds": 1.5, "peak_memory_bytes": 7}
        (folder / "job.json").write_text(json.dumps(state))
        (folder / "log.txt").write_text("first\n\nsecond\rthird\n", newline="")
        if code:
            future.set_exception(RuntimeError(f"{name} failed"))
        else:
            future.set_result(None)
        return future

    def stop(self) -> None:
        raise AssertionError("not stopped")
