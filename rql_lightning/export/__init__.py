"""Policies in formats of other libraries, and in files of their own."""

from rql_lightning.export.formats import FORMATS, export_policy

__all__ = ["FORMATS", "export_policy"]
