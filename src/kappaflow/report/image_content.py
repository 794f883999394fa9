"""What a report on a flow of images says: numbers, and small pictures as PNG files."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from kappaflow.report.content import About, FindingView, Part, ProfileView
from kappaflow.report.png import Pixels, png, size_of


def _picture(text: str) -> str:
    """Returns the base64 of a PNG file, if it is one: it goes into the page as it is."""
    try:
        size_of(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("it should hold a PNG file in base64") from None
    return text


Encoded = Annotated[str, AfterValidator(_picture)]


class Picture(Part):
    """A picture of the page.

    Attributes:
        title: A few words, set above it.
        alt: What it shows, for those who cannot see it.
        caption: What to look for, in one or two sentences.
        columns: How many images stand in a row, for the lines under them.
        rows: What each row is, from the top; empty where there is nothing to say.
        under: A word under each column; empty where there is nothing to say.
        png: The file, in base64: one pixel of it is one pixel of the images.
    """

    title: str
    alt: str
    caption: str
    columns: int
    rows: list[str] = []
    under: list[str] = []
    png: Encoded

    @property
    def width(self) -> int:
        """Width in pixels."""
        return size_of(base64.b64decode(self.png))[0]

    @property
    def height(self) -> int:
        """Height in pixels."""
        return size_of(base64.b64decode(self.png))[1]


def encoded(pixels: Pixels) -> str:
    """Returns a picture (channels, height, width) as a PNG file in base64."""
    return base64.b64encode(png(pixels)).decode()


class ImageLikelihood(Part):
    """Held-out likelihood of images that were never trained on.

    Attributes:
        images: How many.
        padding: How many channels the flow takes beside those of the images.
        padding_in_words: What these hold.
        is_joint: Whether the NLL is that of images and their padding, and no likelihood of the
            images, since the padding has no density; there are no bits then.
        bits_per_dimension: Mean, in bits for each number of an image; None where pixels are not
            whole numbers to the flow.
        bits_standard_error: Of that mean, over the images.
        nll: Mean negative log-likelihood, in nats an image.
        standard_error: Of that mean.
        quantiles: Of the bits (of the nats where there are none) over the images, by name:
            "median", "p95", "max".
        independent_bits: Bits per dimension of the same images with each pixel on its own, by its
            histogram among the training images; None without bits.
        independent_standard_error: Of the difference of the two means, from the differences image
            by image; None without bits, or in a report of an earlier version.
    """

    images: int
    padding: int = 0
    padding_in_words: str = "drawn from N(0, 1)"
    is_joint: bool = False
    bits_per_dimension: float | None
    bits_standard_error: float | None
    nll: float
    standard_error: float
    quantiles: dict[str, float]
    independent_bits: float | None
    independent_standard_error: float | None = None


class Neighbours(Part):
    """Samples beside the training images that are nearest to them.

    Attributes:
        picture: Samples above, their nearest training images below.
        of_samples: Distance of each sample shown to its nearest training image.
        of_held_out: The same of as many held-out images.
        unit: What a distance is, in words.
    """

    picture: Picture
    of_samples: list[float]
    of_held_out: list[float]
    unit: str


class ImageReport(Part):
    """Everything on the page of a flow of images.

    Attributes:
        kind: Tells it from a report on tables.
        about: What was trained on what.
        curves: Figures of each epoch: epoch, train_bits_per_dimension,
            validation_bits_per_dimension, train_nll, validation_nll, condition_number_median/_p95,
            round_trip_data, round_trip_latent, learning_rate, time_s, memory_bytes, skipped_steps.
        best_epoch: The epoch whose weights were kept.
        likelihood: On held-out images.
        held_out: Some of these images, in the form of the samples.
        samples: Grids of samples, one for each temperature.
        reconstructions: Held-out images above, below what came back from their latents.
        interpolations: From one held-out image to another through the latent, a row each.
        neighbours: Nearest training images.
        profile: Conditioning over depth, on held-out images.
        verdict: The doctor in words.
        ok: Whether the doctor found no error.
        findings: The doctor's findings.
    """

    kind: Literal["images"] = "images"
    about: About
    curves: list[dict[str, float | int | None]]
    best_epoch: int
    likelihood: ImageLikelihood
    held_out: Picture
    samples: Annotated[list[Picture], Field(min_length=1)]
    reconstructions: Picture
    interpolations: Picture
    neighbours: Neighbours
    profile: ProfileView
    verdict: str
    ok: bool
    findings: list[FindingView]
