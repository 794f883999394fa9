"""The reference has each public name once, and links lead somewhere."""

import importlib.util
import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import ModuleType
from urllib.parse import urljoin

import pytest

import kappaflow as kf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TABLE = re.compile(r"^\.\. autosummary::\n(?:   :.*\n)*((?:\n|   \w.*\n)*)", re.MULTILINE)
CONSTANT = re.compile(r"^\.\. py:data:: (\S+)$", re.MULTILINE)
CODE = re.compile(r"^(```+).*?^\1$|`[^`\n]*`|\$\$?[^$]*\$\$?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages():
    """Returns the Markdown files that readers meet."""
    return [*ROOT.glob("*.md"), *(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]


def public():
    """Returns each public object by a name: those of `kappaflow` and of its namespaces."""
    found = {}
    for name in kf.__all__:
        value = getattr(kf, name)
        if isinstance(value, ModuleType):
            names = getattr(value, "__all__", ())
            found |= {id(one := getattr(value, key)): (f"{name}.{key}", one) for key in names}
        else:
            found[id(value)] = (name, value)
    return {key: one for key, one in found.values() if not isinstance(one, ModuleType)}


def reference_pages():
    """Returns docs/reference_pages.py as a module, which needs Sphinx."""
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def value_of(name):
    """Returns the object with a dotted name: a module, or an attribute of one."""
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last, None) if module else None
    return importlib.import_module(name) if found is None else found


def documented(text):
    """Yields the objects in the tables of a page, and the constants that it describes."""
    names = [name for table in TABLE.findall(text) for name in table.split()]
    yield from map(value_of, names + CONSTANT.findall(text))


def anchors(path):
    """Returns the anchors of the headings of a page, as GitHub and MyST make them."""
    text = re.sub(r"^(```+).*?^\1$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    slugs = (re.sub(r"[^\w\- ]", "", one.strip().lower()) for one in HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs}


def broken_links(path):
    """Returns the relative links of a page without a file, or without a heading in it."""
    found = []
    for link in LINK.findall(CODE.sub("", path.read_text("utf-8"))):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def test_each_public_name_is_documented_once():
    """In a table of docs/api.md; no page documents objects by directives of its own."""
    count = Counter(map(id, documented((DOCS / "api.md").read_text("utf-8"))))
    wrong = {name: count[id(one)] for name, one in public().items() if count[id(one)] != 1}
    assert len(public()) > 150 and wrong == {}
    assert max(count.values()) == 1
    assert not [
        page.name for page in pages() if ".. auto" in TABLE.sub("", page.read_text("utf-8"))
    ]


def test_pages_of_classes_leave_out_the_members_of_public_bases():
    """Those of nn.Module would flood them; those of private bases stand nowhere else."""
    linear = "kappaflow.bijections.LULinear"
    found = reference_pages().inheritance(
        f"   kappaflow.Bijection\n   {linear}\n   kappaflow.nets.MLP\n"
    )
    left_out = found["left_out"][linear]
    assert found["base"][linear] == "kappaflow.Bijection"
    assert {"Bijection", "Module"} <= set(left_out.split(", ")) and "LinearMap" not in left_out
    assert found["base"]["kappaflow.nets.MLP"] == "torch.nn.Module"


def test_pages_link_to_their_topic():
    """Which is a heading of api.md."""
    page = DOCS / "api.md"
    topics = reference_pages().topics(page.read_text("utf-8"))
    assert topics["kappaflow.fit"] == ("Training", "training")
    assert {anchor for _, anchor in topics.values()} <= anchors(page)


def test_inventories_name_objects_that_exist():
    """And Sphinx reads them: a name, and the address below that of the library."""
    reader = pytest.importorskip("sphinx.util.inventory").InventoryFile
    reference, names = reference_pages(), []
    for library, address in reference.LIBRARIES.items():
        found = reader.load(BytesIO(reference.inventory(library)), address, urljoin)["py:class"]
        assert all(item.uri.startswith(address) for item in found.values())
        names += found
    assert len(names) > 20 and all(value_of(name) for name in names)


@pytest.mark.parametrize("document", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document):
    """To a file of the repository and, after #, to one of its headings."""
    assert broken_links(document) == []


def test_a_broken_link_is_found(tmp_path):
    """A missing file, a missing heading; not what stands in code, nor a page of the web."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`, 3\n[a](page.md#one-two-3) [b](#none) ![c\nd](gone.svg) `[e](f.md)`\n"
        "```\n[g](h.md)\n```\n[i](https://example.org/j.md) [k](mailto:l) [m](page.md)\n"
    )
    assert broken_links(page) == ["#none", "gone.svg"]
