"""The reference has each public name once, and links lead somewhere."""

import importlib
import re
from collections import Counter
from functools import cache
from io import BytesIO
from pathlib import Path
from urllib.parse import urljoin

import pytest

import kappaflow as kf

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = re.compile(r"^(```+).*?^\1$|`[^`\n]*`|\$\$?[^$]*\$\$?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
GENERATED = {
    "api.md": ("api_page", "api_page"),
    "rules.md": ("rules_page", "rules_page"),
    "doctor-truth-table.md": ("doctor_truth", "truth_page"),
    "benchmarks-depth.md": ("benchmark_pages", "depth_page"),
    "benchmarks-known.md": ("benchmark_pages", "known_page"),
    "benchmarks-mixed.md": ("benchmark_pages", "mixed_page"),
    "benchmarks-couplings.md": ("benchmark_pages", "couplings_page"),
    "benchmarks-images.md": ("benchmark_pages", "images_page"),
    "benchmarks-measuring.md": ("benchmark_pages", "measuring_page"),
}


def pages():
    """Returns the Markdown files that readers meet."""
    paths = (p for p in DOCS.rglob("*.md") if "_build" not in p.parts and p.name not in GENERATED)
    return [*ROOT.glob("*.md"), *paths]


@pytest.fixture(autouse=True)
def docs_on_path(monkeypatch):
    """Lets tests import what writes the documentation."""
    monkeypatch.syspath_prepend(str(DOCS))


@cache
def generated(name):
    """Returns the text of a page that Sphinx writes."""
    module, function = GENERATED[name]
    return getattr(importlib.import_module(module), function)()


def reference_pages():
    """Returns docs/reference_pages.py as a module, which needs Sphinx."""
    pytest.importorskip("sphinx")
    return importlib.import_module("reference_pages")


def value_of(name):
    """Returns the object with a dotted name: a module, or an attribute of one."""
    module, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(module), last, None) if module else None
    return importlib.import_module(name) if value is None else value


def text_of(path):
    """Returns the text of a page, also of one that Sphinx writes."""
    return generated(path.name) if path.name in GENERATED else path.read_text("utf-8")


def anchors(path):
    """Returns the anchors of the headings of a page, as GitHub and MyST make them."""
    text = re.sub(r"^(```+).*?^\1$", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    slugs = (re.sub(r"[^\w\- ]", "", heading.strip().lower()) for heading in HEADING.findall(text))
    return {slug.replace(" ", "-") for slug in slugs}


def broken_links(path):
    """Returns the relative links of a page without a file, or without a heading in it."""
    broken = []
    for link in LINK.findall(CODE.sub("", text_of(path))):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        exists = target.exists() or target.name in GENERATED
        if not exists or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def test_each_public_name_has_one_place_in_the_reference():
    """By its shortest name; no other page documents objects by directives of its own."""
    text = generated("api.md")
    assert text.count("   kappaflow.fit\n") == 1 and "kappaflow.training.fit\n" not in text
    names = re.findall(r"^   (kappaflow[\w.]+)$", text, re.MULTILINE)
    count = Counter(id(value_of(name)) for name in names)
    public = {name: getattr(kf, name) for name in kf.__all__}
    assert len(names) > 200 and max(count.values()) == 1
    assert [n for n, value in public.items() if callable(value) and not count[id(value)]] == []
    assert [page.name for page in pages() if ".. auto" in page.read_text("utf-8")] == []


def test_pages_of_classes_leave_out_the_members_of_public_bases():
    """Those of nn.Module would flood them; those of private bases stand nowhere else."""
    linear = "kappaflow.bijections.LULinear"
    inheritance = reference_pages().inheritance(
        f"   kappaflow.Bijection\n   {linear}\n   kappaflow.nets.MLP\n"
    )
    left_out = inheritance["left_out"][linear]
    assert inheritance["base"][linear] == "kappaflow.Bijection"
    assert {"Bijection", "Module"} <= set(left_out.split(", ")) and "LinearMap" not in left_out
    assert inheritance["base"]["kappaflow.nets.MLP"] == "torch.nn.Module"


def test_pages_link_to_their_topic():
    """Which is a heading of api.md."""
    topics = reference_pages().topics(generated("api.md"))
    assert topics["kappaflow.fit"] == ("Training", "training")
    assert {anchor for _, anchor in topics.values()} <= anchors(DOCS / "api.md")


def test_inventories_name_objects_that_exist():
    """And Sphinx reads them: a name, and the address below that of the library."""
    reader = pytest.importorskip("sphinx.util.inventory").InventoryFile
    reference, names = reference_pages(), []
    for library, address in reference.LIBRARIES.items():
        classes = reader.load(BytesIO(reference.inventory(library)), address, urljoin)["py:class"]
        assert all(item.uri.startswith(address) for item in classes.values())
        names += classes
    assert len(names) > 20 and all(value_of(name) for name in names)


@pytest.mark.parametrize(
    "document",
    [*pages(), *(DOCS / name for name in GENERATED)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
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
