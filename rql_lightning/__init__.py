"""Policy customization with residual Q-learning: a frozen policy is customised to an add-on reward.

Importing this package registers the environments ``rql_lightning/<Task>-v0`` with Gymnasium. PyTorch is imported on
first use.
"""

from typing import TYPE_CHECKING, Any

from rql_lightning import envs
from rql_lightning.envs import register_task

if TYPE_CHECKING:
    from rql_lightning.customizing import customize
    from rql_lightning.loading import load_policy

__version__ = "0.1.0"
__all__ = ["__version__", "customize", "envs", "load_policy", "register_task"]


def __getattr__(name: str) -> Any:
    if name == "load_policy":
        from rql_lightning.loading import load_policy

        return load_policy
    if name == "customize":
        from rql_lightning.customizing import customize

        return customize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
