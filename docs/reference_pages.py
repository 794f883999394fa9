"""Sphinx extension for the reference: base classes, readable types, links to other libraries.

The documentation builds offline. So `docs/inventories` lists the few names of other libraries
that the types of kappaflow use, with their addresses: NAME ROLE ADDRESS, one a line.
"""

import re
import zlib
from pathlib import Path

from sphinx.ext.autosummary import autosummary_toc, import_by_name

DOCS = Path(__file__).parent
LIBRARIES = {
    "numpy": "https://numpy.org/doc/stable/",
    "python": "https://docs.python.org/3/",
    "scikit-learn": "https://scikit-learn.org/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
BASES = ("sklearn.base.BaseEstimator", "torch.nn.Module")  # of other libraries
HEADER = """# Sphinx inventory version 2
# Project: {}
# Version:
# The remainder of this file is compressed using zlib.
"""
READABLE = (  # how Sphinx writes NDArray, ArrayLike, and options with bounds
    (
        r"~numpy\.ndarray\[tuple\[~typing\.Any, \.\.\.\], "
        r"~numpy\.dtype\[(~?[\w.]+)(?:\[~typing\.Any\])?\]\]",
        r"~numpy.typing.NDArray[\1]",
    ),
    (
        r"~numpy\._typing\._array_like\._Buffer \| .*?\[complex \| bytes \| str\]",
        "~numpy.typing.ArrayLike",
    ),
    (r"~typing\.Annotated\[([^,]+), [^]]*\]", r"\1"),
)


def inheritance(tables):
    """Returns the base class that each page names, and the bases whose members it leaves out.

    A class page lists members of private bases. Public bases have their own page, and those of
    other libraries their own documentation.
    """
    names = [*BASES, *re.findall(r"^   (kappaflow[\w.]+)$", tables, re.MULTILINE)]
    pages = {import_by_name(name)[1]: name for name in names}
    base, left_out = {}, {}
    for value, name in pages.items():
        parents = value.__mro__[1:] if isinstance(value, type) else ()
        public = [a for a in parents if a in pages or not a.__module__.startswith("kappaflow")]
        base[name] = next((pages[a] for a in public if a in pages), "")
        left_out[name] = ", ".join(a.__name__ for a in public)
    return {"base": base, "left_out": left_out}


def inventory(library):
    """Returns the names of a library in the format that intersphinx reads."""
    lines = (DOCS / "inventories" / f"{library}.txt").read_text("utf-8").splitlines()
    entries = (line.split() for line in lines)
    body = "".join(f"{name} {role} 1 {address} -\n" for name, role, address in entries)
    return HEADER.format(library).encode() + zlib.compress(body.encode())


def configure(app, config):
    """Gives the base classes to the templates, and the names of other libraries to intersphinx."""
    config.autosummary_context = inheritance((DOCS / "api.md").read_text("utf-8"))
    for library, address in LIBRARIES.items():
        path = DOCS / "inventories" / f"{library}.inv"
        path.write_bytes(inventory(library))
        config.intersphinx_mapping[library] = (address, str(path))


def keep_out_of_sidebar(app, doctree):
    """Drops the lists of pages that each page would repeat in its sidebar; tables link to them."""
    for node in list(doctree.findall(autosummary_toc)):
        node.parent.remove(node)


def shorten_types(app, what, name, *_):
    """Shortens the types that autodoc has recorded for parameters, and drops Any."""
    types = app.env.current_document.autodoc_annotations.get(name, {})
    for parameter in [one for one in types if types[one] == "~typing.Any"]:
        del types[parameter]
    for parameter in types:
        for pattern, short in READABLE:
            types[parameter] = re.sub(pattern, short, types[parameter])


def setup(app):
    """Registers the hooks, before those of Sphinx except for the types that it records."""
    app.connect("config-inited", configure, priority=100)
    app.connect("doctree-read", keep_out_of_sidebar, priority=100)
    app.connect("autodoc-process-signature", shorten_types, priority=900)
