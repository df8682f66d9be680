"""Sphinx configuration. Build with ``make docs``."""

from __future__ import annotations

from hepbridge import __version__

project = "hepbridge"
author = "The hepbridge developers"
copyright = "2026, The hepbridge developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types are in the signature; numpy.str_ would be read as a link

html_theme = "furo"
html_title = f"hepbridge {__version__}"
