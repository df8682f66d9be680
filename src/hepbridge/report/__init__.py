"""Figures, tables and the HTML page of an evaluation."""

from hepbridge.report.console import markdown, table
from hepbridge.report.words import summary
from hepbridge.report.writer import check_directory, write

__all__ = ["check_directory", "markdown", "summary", "table", "write"]
