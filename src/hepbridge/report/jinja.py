"""The templates of the pages and what they may call."""

from __future__ import annotations

import base64
import platform
import struct
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hepbridge.report.text import above_floor, name_of, number, p_value, percent, times

__all__ = ["image", "render", "versions"]

_VERSIONS = ("numpy", "scipy", "scikit-learn", "matplotlib", "hist")


def render(template: str, filters: dict[str, Callable[..., Any]], **values: Any) -> str:
    """A page from a template of this package; names that are missing are errors."""
    environment = Environment(
        loader=PackageLoader("hepbridge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number,
        percent=percent,
        times=times,
        name_of=name_of,
        repr=repr,
        p_value=p_value,
        above_floor=above_floor,
        **filters,
    )
    return environment.get_template(template).render(**values)


def image(png: bytes) -> dict[str, Any]:
    """Data URI and half size: figures of 200 dpi are shown at 100, sharp on any screen."""
    width, height = struct.unpack(">II", png[16:24])
    return {
        "uri": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        "width": width // 2,
        "height": height // 2,
    }


def versions(hepbridge: str) -> dict[str, str]:
    """Of what made a page."""
    return {
        "hepbridge": hepbridge,
        "Python": platform.python_version(),
        **{name: version(name) for name in _VERSIONS},
    }
