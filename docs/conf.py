"""Sphinx configuration."""

from importlib.metadata import version as _version

project = "Wardround"
author = "The Wardround authors"
release = _version("wardround")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
html_theme = "furo"
# The published schema of outcomes, under the address that it names itself by.
html_extra_path = ["../src/wardround/report/published"]
html_title = "Wardround"
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_custom_sections = [("Guarantees", "params_style"), ("Checks", "params_style")]
