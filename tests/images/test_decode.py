"""One file to pixels: modes, transparency, depth, turning, frames, and sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kappaflow.errors import FileError
from kappaflow.images import load_images

RAMP = np.arange(0, 240, 8, dtype=np.uint8).reshape(6, 5)
# Where the standard says that the first row and the first column of each orientation belong.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: np.rot90(stored),
}
COLOR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)


def only(folder: Path, **form):
    """Returns the one image of a folder, (channels, height, width)."""
    images = load_images(folder, **form)
    assert len(images) == 1
    return images.batch([0])[0].numpy()


def planes(image: Image.Image):
    """Returns an image of Pillow as (channels, height, width)."""
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def test_gray_is_the_weighted_sum_of_the_colors(draw, tmp_path: Path) -> None:
    """0.299 R + 0.587 G + 0.114 B, rounded; and gray as color is three times the same."""
    draw("a.png", COLOR)
    exact = COLOR @ [0.299, 0.587, 0.114]
    assert np.abs(only(tmp_path, gray=True)[0] - exact).max() <= 0.51
    draw("a.png", RAMP)
    assert (only(tmp_path, gray=False) == RAMP).all()


def need_to_be_read(path: Path) -> None:
    """Skips a test of a file that the Pillow that wrote it cannot read: older ones, some TIFF."""
    try:
        with Image.open(path) as again:
            again.load()
    except OSError:
        pytest.skip("this Pillow cannot read what it wrote")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "PA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("gray", [None, True, False])
def test_every_mode_of_pixels_is_read(tmp_path: Path, mode: str, gray) -> None:
    """As Pillow itself converts it, with its grayness known before it is decoded."""
    suffix = "tif" if mode in ("PA", "CMYK", "YCbCr") else "png"
    picture = Image.fromarray(COLOR).convert(mode)
    picture.save(tmp_path / f"a.{suffix}")
    need_to_be_read(tmp_path / f"a.{suffix}")
    channels = 1 if gray or (gray is None and mode in ("1", "L", "LA")) else 3
    expected = picture.convert("L" if mode in ("1", "L", "LA") else "RGB")
    expected = expected.convert("L" if channels == 1 else "RGB")
    decoded = only(tmp_path, gray=gray)
    assert decoded.shape == (channels, 6, 5)
    np.testing.assert_array_equal(decoded, planes(expected))


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp", "tif"])
@pytest.mark.parametrize("is_gray", [True, False])
def test_a_palette_counts_by_its_colors(tmp_path: Path, suffix: str, is_gray: bool) -> None:
    """One channel if all of them are gray, however the kind of file lays them out."""
    picture = Image.new("P", (4, 2))
    colors = [[value, value, value if is_gray else 0] for value in (9, 90, 200, 255)]
    picture.putpalette(sum(colors, []))
    picture.putdata([0, 1, 2, 3, 3, 2, 1, 0])
    picture.save(tmp_path / f"a.{suffix}")
    decoded = only(tmp_path)
    assert decoded.shape == (1 if is_gray else 3, 2, 4)
    assert decoded[0].tolist() == [[9, 90, 200, 255], [255, 200, 90, 9]]
    assert is_gray or (decoded[2] == 0).all()


def test_transparency_becomes_white(draw, tmp_path: Path) -> None:
    """Of colors, of gray, of a palette entry and of a color that stands for it; half is half."""
    alpha = np.array([[0, 128, 255]], dtype=np.uint8)
    draw("a.png", np.dstack([np.full_like(alpha, value) for value in (100, 0, 50)] + [alpha]))
    assert only(tmp_path).transpose(1, 2, 0).tolist() == [
        [[255, 255, 255], [177, 127, 152], [100, 0, 50]]
    ]
    Image.fromarray(np.dstack([np.full_like(alpha, 100), alpha])).save(tmp_path / "a.png")
    assert only(tmp_path).tolist() == [[[255, 177, 100]]]
    palette = Image.new("P", (3, 1))
    palette.putpalette([10, 10, 10, 200, 0, 0, 0, 0, 200])
    palette.putdata([0, 1, 2])
    palette.save(tmp_path / "a.png", transparency=1)
    assert only(tmp_path)[:, 0].T.tolist() == [[10, 10, 10], [255, 255, 255], [0, 0, 200]]
    palette.save(tmp_path / "a.png", transparency=bytes([0, 255, 255]))
    assert only(tmp_path)[:, 0].T.tolist() == [[255, 255, 255], [200, 0, 0], [0, 0, 200]]
    draw("a.png", np.array([[7, 8, 9]], dtype=np.uint8), transparency=8)
    assert only(tmp_path).tolist() == [[[7, 255, 9]]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path, suffix: str) -> None:
    """In one channel, black to white."""
    deep = np.array([[0, 255, 256, 0x1234], [0x8000, 0xFEFF, 0xFF00, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    assert only(tmp_path).tolist() == [[[0, 0, 1, 0x12], [0x80, 0xFE, 0xFF, 0xFF]]]
    if suffix == "png":
        Image.fromarray(deep).save(tmp_path / "a.png", transparency=0x1234)
        assert only(tmp_path)[0, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused(refused, tmp_path: Path, kind: type) -> None:
    """Floats and 32-bit numbers, which no rule brings to 0 to 255."""
    Image.fromarray(RAMP.astype(kind)).save(tmp_path / "a.tif")
    with refused(FileError, "a.tif'", "whose range is not known", "8 or 16 bits"):
        load_images(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_orientation_says(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    """With the size that its header tells; uncompressed TIFF is where Pillow itself fails."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(RAMP.repeat(8, axis=0).repeat(8, axis=1))
    picture.save(tmp_path / f"a.{suffix}", exif=exif, lossless=True)
    stored = np.asarray(picture)
    if suffix == "jpg":
        with Image.open(tmp_path / "a.jpg") as lossy:
            stored = np.asarray(lossy)
    np.testing.assert_array_equal(only(tmp_path, gray=True)[0], UPRIGHT[orientation](stored))


@pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
def test_of_several_frames_the_first_counts(tmp_path: Path, suffix: str) -> None:
    """Of animations and of pages."""
    frames = [Image.new("L", (4, 4), value) for value in (0, 255, 128)]
    frames[0].save(
        tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], lossless=True
    )
    assert (only(tmp_path, gray=True) == 0).all()


def test_the_central_part_of_the_aspect_ratio_is_cut_out(draw, tmp_path: Path) -> None:
    """What lies outside of it leaves no trace; squeezing takes all of it in."""
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 200
    draw("a.png", pixels)
    assert (only(tmp_path, size=10) == 200).all()
    assert (only(tmp_path, size=5) == 200).all()
    draw("a.png", pixels.T)
    assert (only(tmp_path, size=10) == 200).all()
    draw("a.png", pixels)
    squeezed = only(tmp_path, size=10, crop=False)[0]
    assert squeezed[:, 0].max() < 10
    assert squeezed[:, 5].min() > 190
    np.testing.assert_array_equal(only(tmp_path, size=(10, 30)), pixels[None])


@pytest.mark.parametrize("crop", [True, False])
def test_sizes_are_heights_and_widths(draw, tmp_path: Path, crop: bool) -> None:
    """In this order, up and down, by Pillow's Lanczos filter of the part that is taken."""
    draw("a.png", COLOR)
    picture = Image.fromarray(COLOR)
    parts = {(3, 4): (0, 1, 5, 5), (12, 7): (0, 0, 4, 6), (1, 1): (0, 0, 5, 5)}
    for (height, width), part in parts.items():
        source = picture.crop(part) if crop else picture
        expected = source.resize((width, height), Image.Resampling.LANCZOS)
        decoded = only(tmp_path, size=(height, width), crop=crop)
        assert decoded.shape == (3, height, width)
        np.testing.assert_array_equal(decoded, planes(expected))
    np.testing.assert_array_equal(only(tmp_path, size=(6, 5), crop=crop), planes(picture))


def test_parts_and_sizes_are_never_empty(draw, tmp_path: Path) -> None:
    """However narrow the image, or the form."""
    draw("a.png", np.full((1, 300), 9, dtype=np.uint8))
    for size in (1, (300, 1), (1, 300), (2, 3)):
        assert (only(tmp_path, size=size) == 9).all()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [8, (20, 12), 30])
def test_a_large_jpeg_is_decoded_small_to_nearly_the_same(
    tmp_path: Path, size, orientation: int
) -> None:
    """Within 1 of 255 on average of what all its pixels give."""
    across, down = np.meshgrid(np.linspace(0, 9, 256), np.linspace(0, 7, 192))
    waves = 127 + 80 * np.sin(across) * np.cos(down) + 40 * np.sin(2 * across)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(waves.astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "a.jpg") as picture:
        upright = ImageOps.exif_transpose(picture)
    height, width = (size, size) if isinstance(size, int) else size
    expected = upright.resize((width, height), Image.Resampling.LANCZOS)
    decoded = only(tmp_path, size=size, crop=False)
    assert decoded.shape == (1, height, width)
    assert np.abs(decoded - planes(expected).astype(float)).mean() < 1


@pytest.mark.parametrize(
    ("sides", "size", "orientation"),
    [
        ((251, 191), 8, 1),
        ((256, 190), 8, 1),
        ((256, 192), 33, 1),
        ((256, 192), (8, 40), 6),
        ((256, 192), (40, 8), 1),
    ],
)
def test_other_jpegs_are_decoded_whole(tmp_path: Path, sides, size, orientation: int) -> None:
    """With sides that 8 does not divide, or less than six times as large in one direction."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, sides[::-1], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as picture:
        upright = ImageOps.exif_transpose(picture)
    height, width = (size, size) if isinstance(size, int) else size
    expected = upright.resize((width, height), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(only(tmp_path, size=size, crop=False), planes(expected))


def test_many_files_are_decoded_in_their_order(draw, tmp_path: Path) -> None:
    """Whichever thread takes which."""
    for value in range(200):
        draw(f"{value}.png", np.full((3, 3), value, dtype=np.uint8))
    images = load_images(tmp_path)
    order = torch.randperm(200)
    assert (images.batch(order)[:, 0, 0, 0] == order).all()
