"""What one's own map is compared with."""

import importlib.util
from pathlib import Path

import pytest

from kappaflow.factor.reference import FILE, nearest_reference

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("condition", "features", "name"),
    [
        (1.0, 16, "Orthogonal maps, 16 features"),
        (120.0, 9, "Geometric spectrum of condition number 1e2, 8 features"),
        (3e5, 16, "Geometric spectrum of condition number 1e4, 16 features"),
    ],
)
def test_the_nearest_maps_are_of_like_conditioning_and_size(condition, features, name):
    """In digits first, then in size."""
    assert nearest_reference(condition, features).name == name


def test_the_file_is_made_of_the_results():
    """Run python docs/factor_reference.py after new draws."""
    spec = importlib.util.spec_from_file_location("factor_reference", DOCS / "factor_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert FILE.read_text("utf-8") == module.references()


def test_more_couplings_are_better_conditioned():
    """In every curve that is compared with."""
    for features in (8, 16, 32):
        curve = nearest_reference(1e4, features)
        assert list(curve.median) == sorted(curve.median, reverse=True)
        assert all(low <= high for low, high in zip(curve.low, curve.high, strict=True))
