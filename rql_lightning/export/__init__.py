"""Policies in formats of other libraries, and in files of their own."""

from rql_lightning.export.formats import FORMATS, export_policy
from rql_lightning.export.laws import UnsupportedFormatError

__all__ = ["FORMATS", "UnsupportedFormatError", "export_policy"]
