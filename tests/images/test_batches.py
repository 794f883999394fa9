"""CIFAR-10 in the batches of its binary release."""

from pathlib import Path

import numpy as np
import pytest

from kappaflow.errors import FileError
from kappaflow.images import load_images
from kappaflow.images.load import is_images


def write(path: Path, labels: list[int], seed: int = 0) -> np.ndarray:
    """Writes random images as a batch; returns their pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    path.write_bytes(np.column_stack([np.array(labels, np.uint8), pixels]).tobytes())
    return pixels


def test_a_batch_holds_labels_and_pixels(tmp_path: Path) -> None:
    """A byte of the label, then the three channels."""
    pixels = write(tmp_path / "data_batch_1.bin", [3, 0, 9, 3])
    images = load_images(tmp_path)
    assert images.shape == (3, 32, 32)
    assert images.labels is not None and images.labels.tolist() == [3, 0, 9, 3]
    np.testing.assert_array_equal(images.batch(range(4)).numpy(), pixels.reshape(4, 3, 32, 32))


def test_all_batches_are_joined_and_the_test_batch_is_last(tmp_path: Path) -> None:
    """Classes are numbers; one file can be loaded alone."""
    for label, name in enumerate(["test_batch", "data_batch_5", "data_batch_1"]):
        write(tmp_path / f"{name}.bin", [label, label], seed=label)
    images = load_images(tmp_path)
    assert images.labels is not None and images.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert images.classes == ("0", "1", "2")
    alone = load_images(tmp_path / "test_batch.bin")
    assert is_images(tmp_path) and is_images(tmp_path / "test_batch.bin")
    assert alone.labels is not None and alone.labels.tolist() == [0, 0]
    assert load_images(tmp_path, gray=True, size=16).batch([5]).shape == (1, 1, 16, 16)


def test_batches_for_python_are_refused_with_the_release_to_download(refused, tmp_path) -> None:
    """They are pickles, of which nothing is read."""
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\nU\x04true\x85R.")
    with refused(FileError, "data_batch_1'", "binary release", "called data_batch_1.bin"):
        load_images(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 3072, 3074])
def test_a_file_of_another_size_is_refused(refused, tmp_path: Path, size: int) -> None:
    """Every image takes 3,073 bytes."""
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with refused(FileError, "test_batch.bin' is not a batch", f"holds {size:,} bytes"):
        load_images(tmp_path / "test_batch.bin")
