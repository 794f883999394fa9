"""`Images`: batches, subsets, what is kept, and fingerprints."""

import copy
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kappaflow.errors import ArgumentError, FileError
from kappaflow.images import images as module
from kappaflow.images import load_images
from kappaflow.images.decode import Form, Request
from kappaflow.images.images import Files, Pixels, of_array


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


@pytest.mark.parametrize("again", [False, True])
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
def test_a_batch_holds_what_was_asked_for_in_that_order(folder: Path, index, again) -> None:
    """For every kind of index, decoded or kept."""
    images = load_images(folder)
    if again:
        images.batch(range(12))
    assert values_of(images.batch(index)) == [3, 0, 11]
    subset = images.subset(index)
    assert values_of(subset.batch([0, 1, 2])) == [3, 0, 11]
    assert subset.labels is not None and subset.labels.tolist() == [0, 0, 1]
    assert (subset.classes, subset.shape, len(subset)) == (images.classes, images.shape, 3)


def test_positions_may_repeat_and_may_be_none(folder: Path) -> None:
    """Also partly kept; an empty batch has the shape of one."""
    images = load_images(folder)
    images.batch([5])
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


def test_subsets_of_subsets_count_from_their_own_start(folder: Path) -> None:
    """Three deep."""
    images = load_images(folder).subset(range(2, 12)).subset([9, 8, 1]).subset([2, 0])
    assert values_of(images.batch([0, 1])) == [3, 11]
    with pytest.raises(ArgumentError, match="from 0 to 1, got 2"):
        images.batch([2])


def test_what_was_decoded_is_kept_and_shared(folder: Path) -> None:
    """The files can go: subsets made before and after still have it, and only it."""
    images = load_images(folder)
    before = images.subset([4, 5])
    images.batch(range(5))
    shutil.rmtree(folder)
    assert values_of(images.batch([0, 4])) == [0, 4]
    assert values_of(before.batch([0])) == [4]
    with pytest.raises(FileError, match=r"5\.png"):
        before.batch([1])


def test_only_as_much_is_kept_as_there_is_room_for(folder: Path) -> None:
    """The rest is decoded each time, to the same pixels."""
    files = Files(folder, tuple(load_images(folder).pixels.origin.names))  # pyright: ignore[reportAttributeAccessIssue]
    form = Form(1, 4, 3, "keep")
    for room, budget in ((0, 11), (1, 12), (5, 71), (12, 10**6)):
        pixels = Pixels(files, form, budget=budget)
        for _ in range(2):
            read = pixels.read(np.array([11, 3, 3, 0, 4, 5]))
            assert read[:, 0, 0, 0].tolist() == [11, 3, 3, 0, 4, 5]
        assert pixels._is_kept.sum() == len({11, 3, 0, 4, 5} & set(range(room)))
        assert pixels._kept.nbytes <= budget


def test_writing_to_a_batch_does_not_change_the_images(folder: Path) -> None:
    """Neither decoded nor kept ones, nor those in memory; labels cannot be written to."""
    memory = of_array(np.zeros((12, 1, 4, 3), dtype=np.uint8), Request(), source="zeros")
    for images in (load_images(folder), memory):
        for _ in range(3):
            batch = images.batch([0, 1])
            assert batch[0].max() == 0
            batch.fill_(99)
    labels = load_images(folder).labels
    assert labels is not None
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 1
    with pytest.raises(AttributeError, match="cannot assign"):
        memory.source = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_copies_give_the_same_images(folder: Path) -> None:
    """As processes that are sent one need it."""
    images = load_images(folder).subset([3, 1])
    for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
        assert values_of(other.batch([0, 1])) == [3, 1]
        assert other.fingerprint() == images.fingerprint()


def test_the_representation_says_what_there_is(folder: Path) -> None:
    """Number, shape, values, classes, source."""
    text = repr(load_images(folder))
    assert text == f"Images(12 of 1 x 4 x 3, 256 values, 2 classes, from '{folder}')"


def test_a_fingerprint_tells_apart_what_trains_differently(folder: Path) -> None:
    """Names, bytes, order, labels, size, channels and crop; not where the folder lies."""
    images = load_images(folder)
    prints = {
        images.fingerprint(),
        images.subset(range(11)).fingerprint(),
        images.subset([*range(1, 12), 0]).fingerprint(),
        load_images(folder, gray=False).fingerprint(),
        load_images(folder, size=(4, 3)).fingerprint(),
        load_images(folder, size=(4, 3), crop=False).fingerprint(),
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
    with (moved / "odd" / "7.png").open("ab") as file:
        file.write(b"\0")
    prints.add(load_images(moved).fingerprint())
    assert len(prints) == 10


def test_a_fingerprint_of_memory_tells_pixels_and_labels_apart() -> None:
    """And numbers of values, for the same pixels."""
    pixels = np.zeros((3, 1, 2, 2), dtype=np.uint8)
    other = pixels.copy()
    other[2, 0, 1, 1] = 1

    def fingerprint(pixels=pixels, values=256, **labels) -> str:
        return of_array(pixels, Request(), source="array", values=values, **labels).fingerprint()

    labels = {"labels": np.array([0, 1, 1]), "classes": ("a", "b")}
    prints = [
        fingerprint(),
        fingerprint(other),
        fingerprint(values=17),
        fingerprint(**labels),
        fingerprint(labels=np.array([0, 1, 0]), classes=("a", "b")),
        fingerprint(labels=np.array([0, 1, 1]), classes=("a", "c")),
    ]
    assert len(set(prints)) == 6
    assert fingerprint(pixels.copy(), **labels) == fingerprint(**labels)


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_runs_of_threads_return_in_their_order(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every position once, on any number of cores; an error comes out as it is."""
    monkeypatch.setattr(module, "core_count", lambda: threads)
    for count in (0, 1, 7, 8, 100, 1001):
        runs = module.in_threads(lambda part: part.tolist(), np.arange(count))
        assert sum(runs, []) == list(range(count))

    def fail(part: np.ndarray) -> None:
        if 70 in part:
            raise FileError("the seventieth.")

    with pytest.raises(FileError, match="the seventieth"):
        module.in_threads(fail, np.arange(100))
    assert module.core_count() == threads
