"""Folders of images: which files count, in which order, with which labels, of which form."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kappaflow.errors import DataError, FileError
from kappaflow.images import load_images
from kappaflow.images.decode import FormRequest
from kappaflow.images.images import images_from_array
from kappaflow.images.load import is_images

SUFFIXES = ("png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "pgm", "ppm", "PNG", "JpG")


def names_of(images):
    """Returns the names of the files in their order."""
    return list(images.names)


def test_every_kind_of_image_file_counts(draw, tmp_path: Path) -> None:
    """By its suffix, in letters of either case; what is kept without loss comes back exactly."""
    pixels = np.full((4, 4), 3, dtype=np.uint8)
    pixels[1:3, 1:3] = 250
    for suffix in SUFFIXES:
        lossless = {"lossless": True} if suffix == "webp" else {}
        draw(f"image.{suffix}", pixels, **lossless)
    images = load_images(tmp_path, gray=True)
    assert sorted(names_of(images)) == sorted(f"image.{suffix}" for suffix in SUFFIXES)
    exact = [
        position for position, name in enumerate(names_of(images)) if "jp" not in name.lower()
    ]
    assert len(exact) == 9
    assert (images.batch(exact) == torch.from_numpy(pixels)).all()


def test_files_come_in_the_order_of_their_paths(draw, tmp_path: Path) -> None:
    """Folder by folder, numbers by their value, whatever order they were written in."""
    names = ["b/2.png", "a-b/1.png", "a/c/1.png", "a/10.png", "a/9.png", "a/09.png", "b/1.png"]
    for name in names:
        draw(name)
    assert names_of(load_images(tmp_path)) == [
        "a/09.png",
        "a/9.png",
        "a/10.png",
        "a/c/1.png",
        "a-b/1.png",
        "b/1.png",
        "b/2.png",
    ]


def test_the_first_folder_below_is_the_label(draw, tmp_path: Path) -> None:
    """However deep a file lies in it; classes are sorted as files are."""
    for name in ("class 10/x.png", "class 2/deep/deeper/x.png", "class 2/y.png", "käse/x.png"):
        draw(name)
    images = load_images(tmp_path)
    assert images.classes == ("class 2", "class 10", "käse")
    assert images.labels is not None and images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1, 2]
    assert [name.split("/")[0] for name in names_of(images)] == [
        images.classes[label] for label in images.labels
    ]


@pytest.mark.parametrize(
    "names", [("1.png", "2.png"), ("a/1.png", "b/2.png", "3.png"), ("a/1.png",)]
)
def test_without_several_folders_there_are_no_labels(draw, tmp_path: Path, names) -> None:
    """No folders, an image outside of them, or only one."""
    for name in names:
        draw(name)
    images = load_images(tmp_path)
    assert images.labels is None
    assert images.classes == ()


def test_other_files_are_counted_and_hidden_ones_are_not(draw, tmp_path: Path) -> None:
    """Neither is an image that lies in a hidden folder."""
    draw("a.png")
    draw(".hidden/b.png")
    draw(".c.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("notes.txt", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_text("x")
    images = load_images(tmp_path)
    assert names_of(images) == ["a.png"]
    assert images.left_out == 3
    assert "3 other files left out" in repr(images)


def test_a_loop_of_links_ends(draw, tmp_path: Path) -> None:
    """A file counts once, under its name without links; those to elsewhere are followed."""
    draw("elsewhere/1.png")
    folder = draw("set/b/1.png").parents[1]
    (folder / "b" / "up").symlink_to(folder)
    (folder / "a").symlink_to(folder / "b")
    (folder / "cats").symlink_to(tmp_path / "elsewhere")
    (folder / "dog.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (folder / "self.txt").symlink_to(folder / "self.txt")
    images = load_images(folder)
    assert names_of(images) == ["b/1.png", "cats/1.png", "dog.png"]
    assert images.left_out == 1


def test_a_broken_link_is_named(draw, refused, tmp_path: Path) -> None:
    """An image that was meant to be there is not passed over."""
    draw("a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with refused(FileError, "there is no file", "b.png'"):
        load_images(tmp_path)


def test_names_in_any_letters_are_read(draw, tmp_path: Path) -> None:
    """Those of all scripts, and bytes that are no letters at all."""
    draw("日本/画像 1.png")
    draw("emoji 🐈/ß.png")
    raw = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(raw)
    Image.fromarray(np.zeros((6, 5, 3), dtype=np.uint8)).save(Path(os.fsdecode(raw)) / "a.png")
    images = load_images(tmp_path)
    assert images.classes == ("emoji 🐈", "日本", "\ufffd\ufffd")
    assert images.batch([0, 1, 2]).shape == (3, 3, 6, 5)
    for text in (repr(images), *images.classes):
        text.encode()
    assert len(images.fingerprint()) == 64


def test_a_folder_without_images_says_what_it_holds(write, refused, tmp_path: Path) -> None:
    """The endings of its files and the kinds that are read; an empty one is called empty."""
    with refused(FileError, "holds no files", "png, jpg"):
        load_images(tmp_path)
    (tmp_path / "folder").mkdir()
    with refused(FileError, "holds no files"):
        load_images(tmp_path)
    for name in ("a.txt", "b.txt", "d.txt", "c.csv", "e.csv", "README"):
        write(name, "a,b\n1,2\n")
    with refused(FileError, "holds no images", "(.txt, .csv, without suffix)", "CIFAR-10"):
        load_images(tmp_path)


def test_two_sizes_are_named_with_their_files(draw, refused, tmp_path: Path) -> None:
    """And the size to give is the way out."""
    for name in ("a.png", "b.png"):
        draw(name)
    draw("c.png", np.zeros((4, 7), dtype=np.uint8))
    with refused(DataError, "a.png' 6 x 5", "c.png' 4 x 7", "size=32"):
        load_images(tmp_path)
    images = load_images(tmp_path, size=(3, 4))
    assert images.shape == (3, 3, 4)
    assert images.batch([0, 1, 2]).shape == (3, 3, 3, 4)


def test_more_pixels_than_memory_holds_are_refused(draw, refused, tmp_path, monkeypatch) -> None:
    """Before they are decoded; a quarter of it is the most."""
    draw("a.png")
    monkeypatch.setattr("kappaflow.data.limits.memory_bytes", lambda: 4 * 90)
    assert load_images(tmp_path).shape == (3, 6, 5)
    draw("b.png")
    with refused(FileError, "the pixels of", "more than the"):
        load_images(tmp_path)


@pytest.mark.parametrize(("last", "channels"), [((6, 5), 1), ((6, 5, 3), 3)])
def test_all_gray_files_make_one_channel_and_any_color_three(
    draw, tmp_path: Path, last, channels: int
) -> None:
    """Unless it is reported what to make; the other files follow."""
    for name in ("a.png", "b.png"):
        draw(name, np.full((6, 5), 77, dtype=np.uint8))
    draw("c.png", np.full(last, 99, dtype=np.uint8))
    assert load_images(tmp_path).shape == (channels, 6, 5)
    assert load_images(tmp_path, gray=False).shape == (3, 6, 5)
    assert load_images(tmp_path, gray=True).shape == (1, 6, 5)
    for gray in (None, False, True):
        batch = load_images(tmp_path, gray=gray).batch([0, 1, 2])
        assert batch.float().mean((1, 2, 3)).tolist() == [77, 77, 99]


def test_a_folder_without_pillow_says_what_to_install(draw, tmp_path: Path, monkeypatch) -> None:
    """An optional package; sets in memory do without it as long as their form is kept."""
    draw("a.png")
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    assert is_images(str(tmp_path))
    zeros = np.zeros((2, 1, 4, 4), dtype=np.uint8)
    images_from_array(zeros, FormRequest(), source="zeros")
    message = r"needs the package pillow: pip install 'kappaflow\[images\]'\.$"
    with pytest.raises(FileError, match=message):
        load_images(str(tmp_path))
    with pytest.raises(FileError, match=message):
        images_from_array(zeros, FormRequest(size=(3, 3)), source="zeros")
