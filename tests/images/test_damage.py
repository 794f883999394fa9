"""Files that are not what they seem: one sentence each, which names the file."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kappaflow.errors import FileError
from kappaflow.images import load_images
from kappaflow.images.load import is_images

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\nshowpage\n"
SUFFIXES = ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm")


def png_of_size(width: int, height: int) -> bytes:
    """Returns a whole PNG header that promises so many pixels, and a few bytes of them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_file_is_said_to_be_empty(write, refused, tmp_path: Path, suffix: str) -> None:
    """Zero bytes under any suffix."""
    write(f"a.{suffix}", b"")
    with refused(FileError, f"a.{suffix}' is empty (0 bytes)"):
        load_images(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", POSTSCRIPT, b"\0" * 500])
def test_a_file_of_another_kind_is_no_image(
    write, refused, tmp_path: Path, suffix: str, content: bytes
) -> None:
    """Text, zeros, and PostScript, which Pillow would start a program for."""
    write(f"a.{suffix}", content)
    with refused(FileError, f"a.{suffix}' is no image that can be read, whatever its suffix"):
        load_images(tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_off_anywhere_is_refused(refused, tmp_path: Path, suffix: str) -> None:
    """When it is loaded or when it is decoded."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    for length in (1, 9, 30, len(content) // 4, len(content) // 2, 3 * len(content) // 4):
        path.write_bytes(content[:length])
        with refused(FileError, f"a.{suffix}'"):
            load_images(tmp_path).batch([0])


def test_an_image_that_promises_too_many_pixels_is_refused(write, refused, tmp_path: Path) -> None:
    """By Pillow's limit, and its doubtful half too, before any memory is taken."""
    for width, height in ((30_000, 30_000), (10_000, 10_000)):
        write("bomb.png", png_of_size(width, height))
        with refused(FileError, "bomb.png' has more pixels than Pillow's limit", "MAX_IMAGE"):
            load_images(tmp_path, size=8)


@pytest.fixture
def folder(draw, write, tmp_path: Path) -> Path:
    """A folder of 40 images, two of which are no images, and one is cut off."""
    for number in range(40):
        draw(f"{number}.png")
    for number in (17, 30):
        write(f"{number}.png", b"no image")
    write("4.png", (tmp_path / "5.png").read_bytes()[:-60])
    return tmp_path


def test_all_damaged_files_are_named(folder: Path, draw, refused) -> None:
    """In the same order each time, though many threads look; the pixels are read for it."""
    named = "3 of 40 images cannot be read, '4.png', '17.png', '30.png'; the first: "
    for _ in range(5):
        with refused(FileError, named, "/4.png' is damaged", "skip_unreadable=True"):
            load_images(folder)
    for name in ("4.png", "17.png"):
        draw(name)
    with refused(FileError, "/30.png' is no image", "skip_unreadable=True"):
        load_images(folder)


def test_damaged_files_can_be_left_out(folder: Path, refused) -> None:
    """The others keep their pixels, names and labels."""
    images = load_images(folder, skip_unreadable=True)
    assert (len(images), images.unreadable) == (37, 3)
    assert "3 unreadable files left out" in repr(images)
    assert images.names == tuple(f"{i}.png" for i in range(40) if i not in (4, 17, 30))
    for name in ("4.png", "17.png", "30.png"):
        (folder / name).unlink()
    assert (images.pixels == load_images(folder).pixels).all()
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with refused(FileError, "37 of 37 images cannot be read, '0.png', ", "and 32 more"):
        load_images(folder, skip_unreadable=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(draw, refused, tmp_path: Path) -> None:
    """A file, and a folder below."""
    path = draw("folder/a.png")
    path.chmod(0)
    with refused(FileError, "a.png' may not be read"):
        load_images(tmp_path)
    path.parent.chmod(0)
    try:
        for ask in (load_images, is_images):
            for folder in (tmp_path, path.parent):
                with refused(FileError, "folder' may not be read"):
                    ask(folder)
    finally:
        path.parent.chmod(0o700)
