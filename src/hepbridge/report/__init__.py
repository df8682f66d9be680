"""Figures, tables and the HTML page of an evaluation."""

from hepbridge.report.console import classifier_markdown, classifier_table, markdown, table
from hepbridge.report.words import summary
from hepbridge.report.writer import check_directory, write

__all__ = [
    "check_directory",
    "classifier_markdown",
    "classifier_table",
    "markdown",
    "summary",
    "table",
    "write",
]
