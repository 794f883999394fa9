"""What the experiment on faces measured: two flows for each size of images."""

from kappaflow.report.content import Part


class FacesRun(Part):
    """One training.

    Attributes:
        padding: Gaussian channels beside that of the image.
        folder: Name of its run folder.
        parameters: How many numbers were trained.
        epochs: How many there were.
        best_epoch: The one whose weights were kept.
        time_s: Of the training.
        bits_per_dimension: Of held-out faces; the mean of an upper bound.
        bits_standard_error: Of that mean, over the faces.
        round_trip_data: The largest error of a held-out face on its way there and back.
        kept_condition_number: Of the weights that were kept, the median over `kept_points`.
        kept_points: Held-out faces at which that was measured.
        curve: epoch, condition_number_median and condition_number_p95 where they were measured.
        drawn_at: Temperature of the samples whose distances were measured.
        of_samples: The distance of each of 64 samples to its nearest training face.
    """

    padding: int
    folder: str
    parameters: int
    epochs: int
    best_epoch: int
    time_s: float
    bits_per_dimension: float | None
    bits_standard_error: float | None
    round_trip_data: float | None
    kept_condition_number: float
    kept_points: int
    curve: list[dict[str, float | int | None]]
    drawn_at: float
    of_samples: list[float]


class FacesSize(Part):
    """A pair of trainings that differ in the padding alone.

    Attributes:
        size: Sides of the images.
        images: How many to train on, to stop by, and to judge by.
        independent_bits: Bits per dimension of held-out faces with each pixel on its own.
        bits_more: By how many bits per dimension the training with padding is worse, in the mean
            over held-out faces; negative where it is better.
        bits_more_standard_error: Of that mean: both flows saw the same faces.
        of_held_out: The distance of each held-out face to its nearest training face: the root mean
            square over the pixels, which go from 0 to 255.
        plain: The training without padding.
        padded: The one with.
    """

    size: int
    images: list[int]
    independent_bits: float | None
    bits_more: float
    bits_more_standard_error: float
    of_held_out: list[float]
    plain: FacesRun
    padded: FacesRun

    @property
    def runs(self) -> tuple[FacesRun, FacesRun]:
        """Both, the one without padding first."""
        return self.plain, self.padded


class FacesReport(Part):
    """Everything that was measured.

    Attributes:
        preset: What was trained.
        seed: Of all of it.
        sizes: A pair of trainings each.
    """

    preset: str
    seed: int
    sizes: list[FacesSize]
