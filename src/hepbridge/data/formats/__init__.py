"""One file per format: recognised by content on reading, chosen by suffix on writing."""

from __future__ import annotations

from hepbridge.core.registry import Registry

__all__ = ["FORMATS"]

FORMATS = Registry(
    "file format",
    {
        "calogan": "hepbridge.data.formats.calogan:FORMAT",  # before: any HDF5 is the next one's
        "calochallenge": "hepbridge.data.formats.calochallenge:FORMAT",
        "squirels-npy": "hepbridge.data.formats.squirels_npy:FORMAT",
        "root": "hepbridge.data.formats.root:FORMAT",
    },
)
