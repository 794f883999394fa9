"""Files as of MNIST: images and labels, plain and gzipped, whole and not."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from kappaflow.errors import DataError, FileError
from kappaflow.images import load_images
from kappaflow.images.load import is_images


def idx(array: np.ndarray) -> bytes:
    """Returns an array of bytes as the content of an idx file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def images_of(count: int, seed: int = 0, shape: tuple[int, int] = (7, 5)) -> np.ndarray:
    """Returns random images."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def labels_of(*labels: int) -> np.ndarray:
    """Returns labels as they are stored."""
    return np.array(labels, dtype=np.uint8)


@pytest.fixture
def folder(write, tmp_path: Path) -> Path:
    """Returns a folder with the usual four files: four images to train on, two to test on."""
    write("train-images-idx3-ubyte", idx(images_of(4)))
    write("train-labels-idx1-ubyte", idx(labels_of(2, 0, 1, 2)))
    write("t10k-images-idx3-ubyte", idx(images_of(2, seed=1)))
    write("t10k-labels-idx1-ubyte", idx(labels_of(1, 3)))
    return tmp_path


def test_a_folder_holds_training_images_first(folder: Path) -> None:
    """Then the others; the labels name classes by their numbers."""
    images = load_images(folder)
    assert is_images(folder)
    assert images.shape == (1, 7, 5) and images.values == 256
    assert images.labels is not None and images.labels.tolist() == [2, 0, 1, 2, 1, 3]
    assert images.classes == ("0", "1", "2", "3")
    expected = np.concatenate([images_of(4), images_of(2, seed=1)])
    np.testing.assert_array_equal(images.batch(range(6)).numpy()[:, 0], expected)


def test_gzipped_files_and_dotted_names_are_the_same(folder: Path, tmp_path: Path) -> None:
    """Each of the usual spellings, also mixed."""
    plain = load_images(folder).fingerprint()
    for path in list(folder.iterdir()):
        dotted = path.name.replace("-idx", ".idx")
        if "t10k" in path.name:
            (folder / f"{dotted}.gz").write_bytes(gzip.compress(path.read_bytes()))
        elif "images" in path.name:
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        if "t10k" in path.name or "images" in path.name:
            path.unlink()
    assert load_images(folder).fingerprint() == plain


def test_without_labels_there_are_no_classes(folder: Path) -> None:
    """Nor are there any if only some files have labels."""
    (folder / "t10k-labels-idx1-ubyte").unlink()
    images = load_images(folder)
    assert images.labels is None and images.classes == ()
    path = folder / "train-images-idx3-ubyte"
    assert is_images(path) and load_images(path).labels is not None


def test_sizes_and_channels_are_honoured(folder: Path) -> None:
    """As for files."""
    assert load_images(folder, size=(3, 4)).batch([0, 5]).shape == (2, 1, 3, 4)
    color = load_images(folder, gray=False)
    assert color.shape == (3, 7, 5)
    np.testing.assert_array_equal(color.batch([1]).numpy()[0], [images_of(4)[1]] * 3)


def test_labels_of_another_set_are_refused(write, refused, folder: Path) -> None:
    """Their numbers differ."""
    write("train-labels-idx1-ubyte", idx(labels_of(1, 2, 3)))
    with refused(FileError, "3 labels for the 4 images", "different sets"):
        load_images(folder)


def test_files_of_different_sizes_are_refused(write, refused, folder: Path) -> None:
    """With both sizes and both files."""
    write("t10k-images-idx3-ubyte", idx(images_of(2, shape=(5, 5))))
    with refused(DataError, "7 x 5 in", "train-images", "5 x 5 in", "load one of the files"):
        load_images(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"\0\0\x08", "no idx file of images"),
        (b"\0\0\x08\x03\0\0\0\x04", "no idx file of images"),
        (idx(labels_of(1, 2, 3)), "should begin with the bytes 00 00 08 03"),
        (b"a,b,c\n" * 10, "no idx file of images"),
        (idx(images_of(4))[:-1], "promises 4 x 7 x 5 bytes and holds only 139"),
        (idx(images_of(4))[:16], "holds only 0"),
        (idx(images_of(4)) + b"\0", "promises 4 x 7 x 5 bytes and holds more"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"\0" * 99, "holds only 99"),
        (idx(images_of(0)), "holds no pixels"),
        (idx(images_of(2, shape=(0, 4))), "holds no pixels"),
        (b"\0\0\x08\x03" + b"\0" * 4 + b"\xff" * 8, "holds no pixels"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_named(
    refused, tmp_path: Path, content: bytes, words: str, suffix: str
) -> None:
    """Empty, short, long, of another kind, and with a header that promises the world."""
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(gzip.compress(content) if suffix and content else content)
    with refused(FileError, f"ubyte{suffix}'", words):
        load_images(tmp_path)


def test_a_gzipped_file_cut_off_anywhere_is_damaged(refused, tmp_path: Path) -> None:
    """As after a broken copy; and plain bytes under that name are no gzip."""
    packed = gzip.compress(idx(images_of(40)))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (packed[:5], packed[:15], packed[:500], packed[:-3], b"text" * 50):
        path.write_bytes(content)
        with refused(FileError, "ubyte.gz' is damaged"):
            load_images(path)
