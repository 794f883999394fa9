"""The reference has each public name once, and links lead somewhere."""

import importlib
import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import kappaflow as kf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DIRECTIVE = re.compile(r"^\.\. (?:auto|py:)(\w+):: (\S+)\n((?:   :.*\n)*)", re.MULTILINE)
OPTION = re.compile(r"^   :([\w-]+):(.*)$", re.MULTILINE)
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


def value_of(name):
    """Returns the object with a dotted name: a module, or an attribute of one."""
    module, _, last = name.rpartition(".")
    found = getattr(importlib.import_module(module), last, None) if module else None
    return importlib.import_module(name) if found is None else found


def documented(text):
    """Yields the objects that the directives of a page document."""
    for kind, name, lines in DIRECTIVE.findall(text):
        value, options = value_of(name), dict(OPTION.findall(lines))
        if kind != "module":
            yield value
        elif "members" in options:
            names = re.findall(r"\w+", options["members"]) or members(value)
            left_out = re.findall(r"\w+", options.get("exclude-members", ""))
            yield from (getattr(value, one) for one in names if one not in left_out)


def members(module):
    """Returns the names that autodoc takes from a module if none are listed."""
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    return getattr(module, "__all__", own)


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
    """On docs/api.md, or on a page that it links to."""
    api = (DOCS / "api.md").read_text("utf-8")
    linked = [DOCS / one for one in LINK.findall(api) if one.endswith(".md")]
    texts = [api, *(path.read_text("utf-8") for path in linked)]
    count = Counter(id(one) for text in texts for one in documented(text))
    wrong = {name: count[id(one)] for name, one in public().items() if count[id(one)] != 1}
    assert len(public()) > 150 and wrong == {}


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
