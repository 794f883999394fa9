"""`Images`: batches, subsets and fingerprints."""

import copy
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kappaflow.errors import ArgumentError
from kappaflow.images import load_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with images 0 to 11, each of one gray: its number, in two classes."""
    for value in range(12):
        path = tmp_path / "set" / ("even" if value < 6 else "odd") / f"{value}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 3), value, dtype=np.uint8)).save(path)
    return tmp_path / "set"


def values_of(batch: torch.Tensor) -> list[int]:
    """Returns which images a batch holds."""
    assert batch.dtype == torch.uint8 and batch.shape[1:] == (1, 4, 3)
    assert (batch == batch[:, :1, :1, :1]).all()
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "index",
    [
        [3, 0, 11],
        (3, 0, 11),
        np.array([3, 0, 11], dtype=np.uint8),
        torch.tensor([3, 0, 11]),
        torch.tensor([3, 0, 11], dtype=torch.int32),
    ],
)
def test_a_batch_holds_the_chosen_images_in_that_order(folder: Path, index) -> None:
    """For every kind of index."""
    images = load_images(folder)
    assert values_of(images.batch(index)) == [3, 0, 11]
    subset = images.subset(index)
    assert values_of(subset.batch([0, 1, 2])) == [3, 0, 11]
    assert subset.labels is not None and subset.labels.tolist() == [0, 0, 1]
    assert values_of(subset.subset([2, 0]).batch([0])) == [11]
    assert repr(subset) == f"Images(3 of 1 x 4 x 3, 256 values, 2 classes, from '{folder}')"
    assert (subset.classes, subset.shape, len(subset)) == (images.classes, images.shape, 3)


def test_positions_may_repeat_and_may_be_none(folder: Path) -> None:
    """An empty batch has the shape of one."""
    images = load_images(folder)
    assert values_of(images.batch([7, 5, 7, 5, 5, 2])) == [7, 5, 7, 5, 5, 2]
    assert images.batch([]).shape == (0, 1, 4, 3)
    assert len(images.subset([])) == 0
    assert len(images.subset([]).fingerprint()) == 64


def test_a_mask_chooses_what_it_marks(folder: Path) -> None:
    """In arrays and in tensors."""
    images = load_images(folder)
    assert images.labels is not None
    assert values_of(images.batch(images.labels == 1)) == list(range(6, 12))
    assert values_of(images.batch(torch.arange(12) % 5 == 0)) == [0, 5, 10]


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ([12], "from 0 to 11, got 12"),
        ([0, -1], "from 0 to 11, got -1"),
        ([0.5], "got float64 of shape (1,)"),
        ([[1]], "got int64 of shape (1, 1)"),
        (3, "of shape ()"),
        ("abc", "of shape ()"),
        ([True, False], "a mask of 12 images, got bool of shape (2,)"),
        (torch.zeros(12), "got float32"),
    ],
)
def test_an_index_of_anything_else_is_refused(refused, folder: Path, index, words) -> None:
    """Nothing is counted from the end, nothing is rounded."""
    images = load_images(folder)
    for ask in (images.batch, images.subset):
        with refused(ArgumentError, "'index' should hold positions", words):
            ask(index)


def test_writing_to_a_batch_does_not_change_the_images(folder: Path) -> None:
    """Their arrays cannot be written to."""
    images = load_images(folder)
    for _ in range(2):
        batch = images.batch([0, 1])
        assert batch[0].max() == 0
        batch.fill_(99)
    for array in (images.labels, images.pixels):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError, match="cannot assign"):
        images.source = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_copies_give_the_same_images(folder: Path) -> None:
    """As processes that are sent one need it."""
    images = load_images(folder).subset([3, 1])
    for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
        assert values_of(other.batch([0, 1])) == [3, 1]
        assert other.fingerprint() == images.fingerprint()


def test_a_fingerprint_tells_apart_what_trains_differently(folder: Path) -> None:
    """Names, pixels, order, labels and channels; not where the folder lies."""
    images = load_images(folder)
    prints = {
        images.fingerprint(),
        images.subset(range(11)).fingerprint(),
        images.subset([*range(1, 12), 0]).fingerprint(),
        load_images(folder, gray=False).fingerprint(),
        replace(images, values=255).fingerprint(),
        replace(images, classes=("even", "uneven")).fingerprint(),
        replace(images, labels=np.zeros(12, np.int64)).fingerprint(),
        load_images(folder / "even").fingerprint(),
    }
    moved = shutil.move(folder, folder.parent / "moved")
    assert load_images(moved).fingerprint() == images.fingerprint()
    (moved / "even" / "0.png").rename(moved / "even" / "00.png")
    prints.add(load_images(moved).fingerprint())
    (moved / "even" / "00.png").rename(moved / "even" / "0.png")
    (moved / "even").rename(moved / "evens")
    prints.add(load_images(moved).fingerprint())
    (moved / "evens").rename(moved / "even")
    assert load_images(moved).fingerprint() == images.fingerprint()
    Image.fromarray(np.full((4, 3), 70, dtype=np.uint8)).save(moved / "odd" / "7.png")
    prints.add(load_images(moved).fingerprint())
    assert len(prints) == 11
