"""Pages of the benchmarks that Sphinx writes from the committed results."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.page import page_text


def known_page() -> str:
    """Returns the page on tables of known density as Markdown."""
    return page_text("benchmarks-known.md")


def mixed_page() -> str:
    """Returns the page on tables of mixed columns as Markdown."""
    return page_text("benchmarks-mixed.md")


def depth_page() -> str:
    """Returns the page on depth on real data as Markdown."""
    return page_text("benchmarks-depth.md")


def couplings_page() -> str:
    """Returns the page on time, memory and numerics of couplings as Markdown."""
    return page_text("benchmarks-couplings.md")


def images_page() -> str:
    """Returns the page on flows of images as Markdown."""
    return page_text("benchmarks-images.md")


def measuring_page() -> str:
    """Returns the page on measurements, factorizations, energies and others as Markdown."""
    return page_text("benchmarks-measuring.md")
