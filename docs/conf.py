"""Sphinx configuration."""

import os
import re
import sys
from pathlib import Path

from kappaflow import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "kappaflow"
copyright = "2026, the kappaflow authors"
release = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference_pages",
    "sphinx-mathjax-offline",  # formulas without a request to anywhere
]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # pages link to the rules of the doctor, which are headings
nb_execution_mode = "force"  # notebooks run whenever Sphinx reads them; other pages have no cells
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell; all together take about a minute of one core
nb_merge_streams = True
os.environ.setdefault("OMP_NUM_THREADS", "1")  # their products are small
html_theme = "furo"
html_title = "kappaflow"
html_static_path = ["_static"]
html_css_files = ["math.css", "reference.css", "notebooks.css"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"  # names in docstrings link to their pages
autodoc_inherit_docstrings = False  # overrides say nothing, and have no entry
autodoc_typehints = "description"
autodoc_member_order = "bysource"
MARKUP = r"\*(?=event|batch|noise)|\|"  # what `escape_shapes` escapes


def escape_shapes(app, what, name, obj, options, lines):
    """Escapes (B, *event) and |x| in docstrings, which Sphinx reads as markup."""
    for i, line in enumerate(lines):
        parts = re.split(r"(:math:`[^`]*`|``[^`]*``|`[^`]*`)", line)
        parts[::2] = [re.sub(MARKUP, r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "".join(parts)


def setup(app):
    """Registers the hook, after napoleon's, which reads the sections first."""
    app.connect("autodoc-process-docstring", escape_shapes, priority=900)
