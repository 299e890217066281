"""Customization in one call and one command (docs/customize.md)."""

from rql_lightning.customizing.call import customize
from rql_lightning.customizing.result import Customized

__all__ = ["Customized", "customize"]
