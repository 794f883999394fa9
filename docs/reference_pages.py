"""Sphinx extension for the reference: pages made of code, topics, base classes, types, links.

The documentation builds offline. So `docs/inventories` lists the few names of other libraries
that the types of kappaflow use, with their addresses: NAME ROLE ADDRESS, one a line.
"""

import re
import zlib
from pathlib import Path

from api_page import api_page
from benchmark_pages import (
    couplings_page,
    depth_page,
    images_page,
    known_page,
    measuring_page,
    mixed_page,
)
from doctor_truth import truth_page
from docutils.nodes import make_id
from rules_page import rules_page
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
LINE = re.compile(r"^(?:##+ (.+)|   (kappaflow[\w.]+))$", re.MULTILINE)  # a heading, or a name
READABLE = (  # NDArray and ArrayLike as Python expands them, bounds of options, and Literal
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
    (r"^(~typing\.Literal\[[^]]*\]) \| (.*~.*)$", r"\2 | \1"),  # Sphinx links no type after it
)


def inheritance(tables):
    """Returns the base class that each page names, and the bases whose members it leaves out.

    A class page lists members of private bases. Public bases have their own page, and those of
    other libraries their own documentation.
    """
    names = [*BASES, *(name for _, name in LINE.findall(tables) if name)]
    pages = {import_by_name(name)[1]: name for name in names}
    base, left_out = {}, {}
    for value, name in pages.items():
        parents = value.__mro__[1:] if isinstance(value, type) else ()
        public = [a for a in parents if a in pages or not a.__module__.startswith("kappaflow")]
        base[name] = next((pages[a] for a in public if a in pages), "")
        left_out[name] = ", ".join(a.__name__ for a in public)
    return {"base": base, "left_out": left_out}


def topics(tables):
    """Returns the heading of api.md above each name, and its anchor."""
    found, heading = {}, ""
    for title, name in LINE.findall(tables):
        if title:
            heading = title
        else:
            found[name] = (heading, make_id(heading))
    return found


def inventory(library):
    """Returns the names of a library in the format that intersphinx reads."""
    lines = (DOCS / "inventories" / f"{library}.txt").read_text("utf-8").splitlines()
    entries = (line.split() for line in lines)
    body = "".join(f"{name} {role} 1 {address} -\n" for name, role, address in entries)
    return HEADER.format(library).encode() + zlib.compress(body.encode())


def configure(app, config):
    """Writes pages, gives bases and topics to the templates, and inventories to intersphinx."""
    tables = api_page()
    pages = {
        "api.md": tables,
        "rules.md": rules_page(),
        "doctor-truth-table.md": truth_page(),
        "benchmarks-known.md": known_page(),
        "benchmarks-mixed.md": mixed_page(),
        "benchmarks-depth.md": depth_page(),
        "benchmarks-couplings.md": couplings_page(),
        "benchmarks-images.md": images_page(),
        "benchmarks-measuring.md": measuring_page(),
    }
    for name, text in pages.items():
        page = DOCS / name
        if not page.exists() or page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")
    config.autosummary_context = {**inheritance(tables), "topic": topics(tables)}
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
    for parameter in [name for name in types if types[name] == "~typing.Any"]:
        del types[parameter]
    for parameter in types:
        for pattern, short in READABLE:
            types[parameter] = re.sub(pattern, short, types[parameter])


def setup(app):
    """Registers the hooks, before those of Sphinx except for the types that it records."""
    app.connect("config-inited", configure, priority=100)
    app.connect("doctree-read", keep_out_of_sidebar, priority=100)
    app.connect("autodoc-process-signature", shorten_types, priority=900)
