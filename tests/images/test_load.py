"""`load_images` and `is_images`: what a source is taken for, and arguments."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kappaflow as kf
from kappaflow.data import path_of
from kappaflow.errors import ArgumentError, FileError
from kappaflow.images import load_images
from kappaflow.images.load import is_images


def test_tables_and_images_are_told_apart(draw, write, tmp_path: Path) -> None:
    """By names only: nothing is decoded, and nothing that is no path breaks it."""
    draw("folder/deep/er/a.png")
    write("folder/damaged.JPEG", b"")
    write("table.csv", "a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    write("texts/a.txt", "x")
    write("data_batch_3", b"")
    for name in ("folder", "folder/deep", "folder/damaged.JPEG", "data_batch_3", "."):
        assert is_images(tmp_path / name), name
        assert is_images(str(tmp_path / name)), name
    for source in (
        *(tmp_path / name for name in ("table.csv", "empty", "texts", "texts/a.txt", "none.png")),
        *("magic", path_of("magic"), "-", "", "\0", "x" * 5000, b"digits"),
        *(np.zeros((3, 3)), None, 3, ["digits"]),
    ):
        assert not is_images(source), source


def test_a_file_on_disk_wins_over_the_name_of_a_set(
    write, refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for tables."""
    monkeypatch.chdir(tmp_path)
    assert is_images("digits")
    write("digits", "a,b\n1,2\n")
    assert not is_images("digits")
    with refused(FileError, "'digits' is no set of images"):
        load_images("digits")


@pytest.mark.parametrize("source", [None, 3, np.zeros((2, 8, 8)), ["digits"]])
def test_a_source_is_a_path_or_a_name(refused, source: object) -> None:
    """Its type is named if it is neither."""
    with refused(ArgumentError, "'source' should be a path or the name of a set", "got"):
        load_images(source)  # pyright: ignore[reportArgumentType]


def test_what_is_not_there_is_answered_with_what_is(draw, refused, tmp_path: Path) -> None:
    """The nearest name, of a file or of a set, and all sets."""
    draw("flowers/a.png")
    with refused(FileError, "no file", "did you mean 'flowers'?", "give a folder of images"):
        load_images(tmp_path / "flower")
    with refused(FileError, "did you mean 'digits'?", "digits, mnist-5k, faces)"):
        load_images("digit")
    for source in ("", "x" * 5000, "\0"):
        with refused(FileError):
            load_images(source)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.png", "is one image: give a folder of them"),
        ("a.csv", "is no set of images: give a folder"),
        ("a", "is no set of images"),
    ],
)
def test_one_file_is_no_set(write, refused, name: str, words: str) -> None:
    """Unless it is one that holds many images."""
    with refused(FileError, f"{name}'", words):
        load_images(write(name, b"a,b\n1,2\n"))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "'size' should be at least 1, got 0"),
        ((8, 0), "'size' should be at least 1, got 0"),
        ((-3, 8), "at least 1, got -3"),
        (True, "got True"),
        ((8.5, 8), "got 8.5"),
        (8.0, "a pair (height, width), got 8.0"),
        ("8", "got '8'"),
        ("88", "got '88'"),
        ((1, 8, 8), "got (1, 8, 8)"),
        ((), "got ()"),
    ],
)
def test_a_size_is_one_or_two_numbers_of_pixels(refused, draw, tmp_path, size, words) -> None:
    """For every kind of source, before it is looked at; lists and numbers of numpy too."""
    draw("a.png")
    for source in ("mnist-5k", tmp_path, "no such file"):
        with refused(ArgumentError, "'size' should be", words):
            load_images(source, size=size)
    assert load_images(tmp_path, size=[np.int64(4), 3]).shape == (3, 4, 3)  # pyright: ignore[reportArgumentType]


def test_home_is_known_by_its_sign(draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a shell."""
    draw("set/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert is_images("~/set")
    assert load_images("~/set").source == "~/set"


def test_the_name_can_be_had_from_the_package() -> None:
    """Without torch or Pillow being loaded before they are needed."""
    assert kf.load_images is load_images
    code = (
        "import sys, kappaflow as kf; from kappaflow.images.load import is_images; "
        "kf.load_images; is_images('digits'); "
        "print(sorted({'torch', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
