"""CIFAR-10 in its usual batches, by the bytes that Python 2 and 3 write, and traps in them."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from kappaflow.data import is_images, load_images
from kappaflow.data.images.plain_pickle import Refused, read_plain_pickle
from kappaflow.errors import FileError


def pixels_of(count: int, seed: int = 0) -> np.ndarray:
    """Returns random images as the rows of a batch."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def batch_of(pixels: np.ndarray, labels: list[int]) -> dict[bytes, object]:
    """Returns what a batch holds."""
    names = [b"image %d.png" % number for number in range(len(labels))]
    return {
        b"batch_label": b"training batch 1 of 5",
        b"labels": labels,
        b"data": pixels,
        b"filenames": names,
    }


def python_2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """Returns a batch as Python 2 pickled the original ones, instruction by instruction."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    content = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
        b"(K\x01M" + struct.pack("<H", len(pixels)) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<I", len(content)) + content + b"tb"
    )
    return (
        b"\x80\x02}q\x01("
        + (text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03")
        + (text(b"labels") + b"q\x04]q\x05(")
        + b"".join(b"K" + bytes([label]) for label in labels)
        + (b"e" + text(b"data") + b"q\x06" + array)
        + (text(b"filenames") + b"q\x0c]q\r(")
        + b"".join(text(b"image %d.png" % number) for number in range(len(labels)))
        + b"eu."
    )


@pytest.mark.parametrize("writer", ["Python 2", 2, 3, 4, 5])
def test_a_batch_of_any_writer_holds_the_same_images(tmp_path: Path, writer) -> None:
    """As the original ones were written, and as Python 3 writes the same."""
    pixels, labels = pixels_of(4), [3, 0, 9, 3]
    if writer == "Python 2":
        content = python_2_batch(pixels, labels)
        # the bytes above are a pickle indeed: Python itself reads the same from them
        said = pickle.loads(content, encoding="bytes")
        assert said.keys() == batch_of(pixels, labels).keys()
        np.testing.assert_array_equal(said[b"data"], pixels)
    else:
        content = pickle.dumps(batch_of(pixels, labels), protocol=writer)
    (tmp_path / "data_batch_1").write_bytes(content)
    images = load_images(tmp_path)
    assert images.shape == (3, 32, 32)
    assert images.labels is not None and images.labels.tolist() == labels
    np.testing.assert_array_equal(images.batch(range(4)).numpy(), pixels.reshape(4, 3, 32, 32))


def test_all_batches_are_joined_and_the_test_batch_is_last(tmp_path: Path) -> None:
    """With the names of the classes that lie beside them; one file can be had alone."""
    names = ["test_batch", "data_batch_5", "data_batch_1"]
    for label, name in enumerate(names):
        batch = batch_of(pixels_of(2, seed=label), [label, label])
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    images = load_images(tmp_path)
    assert images.labels is not None and images.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert images.classes == ("0", "1", "2")
    meta = {b"label_names": [b"airplane", b"automobile", b"bird", b"cat"], b"num_vis": 3072}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    assert load_images(tmp_path).classes == ("airplane", "automobile", "bird", "cat")
    alone = load_images(tmp_path / "test_batch")
    assert is_images(tmp_path) and is_images(tmp_path / "test_batch")
    assert alone.labels is not None and alone.labels.tolist() == [0, 0]
    gray = load_images(tmp_path, gray=True, size=16)
    assert gray.batch([5]).shape == (1, 1, 16, 16)


def test_columns_first_is_another_order_of_the_same_bytes(tmp_path: Path) -> None:
    """As numpy pickles a transposed array."""
    pixels = np.asfortranarray(pixels_of(3))
    for protocol in (2, 4, 5):
        batch = pickle.dumps(batch_of(pixels, [1, 2, 3]), protocol=protocol)
        (tmp_path / "data_batch_1").write_bytes(batch)
        found = load_images(tmp_path).batch([0, 1, 2]).numpy().reshape(3, -1)
        np.testing.assert_array_equal(found, pixels)


class Trap:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        """Remembers the file to write."""
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """Returns what a careless reader would call."""
        return (Path.touch, (self.path,))


class Filled:
    """An object whose unpickling fills its attributes."""

    def __init__(self) -> None:
        """Has something to fill."""
        self.value = 1


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("place", ["whole", "labels", "key", "data", "beside"])
def test_a_trap_is_refused_and_not_sprung(
    refused, tmp_path: Path, place: str, protocol: int
) -> None:
    """Wherever it lies: nothing of the pickle is run, not even what comes before it."""
    trap, batch = Trap(tmp_path / "sprung"), batch_of(pixels_of(2), [0, 1])
    contents = {
        "whole": trap,
        "labels": {**batch, b"labels": [0, trap]},
        "key": {**batch, trap: 1},
        "data": {**batch, b"data": np.array([trap, 0], dtype=object)},
        "beside": {**batch, b"more": [[(trap,)]]},
    }
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(contents[place], protocol=protocol))
    with refused(FileError, "data_batch_1' contains '", "nothing in it was run"):
        load_images(tmp_path)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((tmp_path / "data_batch_1").read_bytes())
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\nU\x04true\x85R.",
        b"cbuiltins\neval\nU\x0c__import__()\x85R.",
        b"\x8c\x02os\x8c\x06system\x93U\x04true\x85R.",
        b"(U\x04trueios\nsystem\n.",
        b"(cos\nsystem\nU\x04trueo.",
        b"cos\nsystem\nU\x04true\x85\x81.",
        b"cnumpy\nndarray\nK\x01\x85R.",
        b"cnumpy\nndarray\nK\x01\x85\x81.",
        b"cnumpy\nload\nU\x04file\x85R.",
        b"cnumpy.core.multiarray\nfrombuffer\nU\x01a\x85R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x03hex\x86R.",
        b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.",
        b"cnumpy\ndtype\nU\x01O\x85R.",
        b"U\x03pidQ.",
        b"Ppid\n.",
        b"\x82\x01.",
        b"\x97.",
        b"K\x01\x90.",
        b"\x8f.",
        b"I1\n.",
        b"G\x00\x00\x00\x00\x00\x00\x00\x00.",
    ],
)
def test_every_other_program_is_refused(program: bytes) -> None:
    """Other functions, other instructions, known functions with other arguments."""
    with pytest.raises(Refused):
        read_plain_pickle(b"\x80\x05" + program)


def test_small_pickles_that_exhaust_a_restricted_unpickler_are_harmless() -> None:
    """A key of nested tuples, which takes 2**60 steps to hash, and a huge number of a value."""
    key = b"K\x01" + b"2\x86" * 60
    with pytest.raises((Refused, ValueError)):
        read_plain_pickle(b"\x80\x02}" + key + b"K\x00s.")
    nested = b"".join(b"q\x01h\x01\x86" for _ in range(60))
    with pytest.raises(ValueError, match="a str is missing"):
        read_plain_pickle(b"\x80\x02}K\x01" + nested + b"K\x00s.")
    assert read_plain_pickle(b"\x80\x02Nr\xff\xff\xff\xff.") is None


@pytest.mark.parametrize(
    "value",
    [
        Filled(),
        1.5,
        {1, 2},
        np.float64(1.0),
        np.zeros((1, 3072)),
        np.zeros((1, 3072), dtype=np.int8),
        range(3),
        np.random.default_rng,
    ],
)
def test_data_of_other_kinds_are_refused(refused, tmp_path: Path, value: object) -> None:
    """Objects, floats, sets, arrays of anything but bytes: no batch holds them."""
    content = pickle.dumps({b"data": value, b"labels": [1]}, protocol=2)
    (tmp_path / "data_batch_1").write_bytes(content)
    with refused(FileError, "data_batch_1'", "no part of a CIFAR-10 batch"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds no dict"),
        ({}, "should hold 'data', an array of bytes with 3072 columns"),
        ({b"data": b"x" * 3072, b"labels": [1]}, "should hold 'data'"),
        ({b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]}, "with 3072 columns"),
        ({b"data": np.zeros(3072, np.uint8), b"labels": [1]}, "with 3072 columns"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "a list of 'labels'"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": (1,)}, "a list of 'labels'"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [b"1"]}, "a list of 'labels'"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [True]}, "a list of 'labels'"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]}, "2 labels"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "for 0 images"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, "should be 0 to 255"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10**30]}, "should be 0 to 255"),
    ],
)
def test_plain_data_that_are_no_batch_are_refused(
    refused, tmp_path: Path, content: object, words: str
) -> None:
    """With what is missing."""
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=3))
    with refused(FileError, "data_batch_1'", words):
        load_images(tmp_path)


def test_damaged_batches_end_in_one_sentence_or_in_other_images(refused, tmp_path: Path) -> None:
    """Cut off anywhere, or with bytes overwritten: a FileError, never anything else."""
    path = tmp_path / "data_batch_1"
    generator = np.random.default_rng(0)
    for content in (
        python_2_batch(pixels_of(1), [1]),
        pickle.dumps(batch_of(pixels_of(1), [1]), protocol=5),
    ):
        head = content.index(pixels_of(1).tobytes()[:8])
        program = [place for place in range(len(content)) if not head <= place < head + 3072]
        for place in program[:-1:3]:
            path.write_bytes(content[:place])
            with refused(FileError, "data_batch_1'"):
                load_images(path)
        refusals = 0
        for _ in range(100):
            spoiled = bytearray(content)
            for place in generator.choice(program, 2):
                spoiled[place] = generator.integers(256)
            path.write_bytes(spoiled)
            try:
                assert load_images(path).shape == (3, 32, 32)
            except FileError:
                refusals += 1
        assert 50 < refusals < 100
