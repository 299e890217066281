"""Import paths of functions."""

from __future__ import annotations

import sys
from typing import Any


def import_path(function: Any) -> str | None:
    """Return the path ``module.function`` by which another process finds a function, or ``None`` if there is none.

    Functions of a script or notebook (``__main__``), lambdas, and functions within functions or classes have none.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "." in name:
        return None
    return f"{module}.{name}" if getattr(sys.modules.get(module), name, None) is function else None
