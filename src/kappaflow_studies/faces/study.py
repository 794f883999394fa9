"""`faces`: a Glow of the ORL faces at two sizes, each with and without Gaussian channels."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kappaflow._checks import natural_int
from kappaflow.errors import ArgumentError
from kappaflow.report import ImageReport, read_report_on
from kappaflow.runs import ImageConfig, ModelConfig, fit_run
from kappaflow.storage import write_bytes
from kappaflow_studies.engine.study import Reproduced
from kappaflow_studies.faces.page import condition_over_training, describe_results, render_faces
from kappaflow_studies.faces.results import FacesReport, faces_size, write_picture

NUMBERS, PAGE = "faces.json", "index.html"


@dataclass(frozen=True)
class OneSize:
    """A pair of trainings that differ only in the padding.

    Attributes:
        size: Side of the images, in pixels.
        model: Arguments of `kappaflow.glow`.
        settings: Fields of `kappaflow.training.Settings`.
    """

    size: int
    model: dict[str, Any]
    settings: dict[str, Any]


@dataclass(frozen=True)
class FacesPreset:
    """The trainings of a preset.

    Attributes:
        sizes: A pair of trainings for each size.
        padding: Number of Gaussian channels of the second training of each pair.
    """

    sizes: tuple[OneSize, ...]
    padding: int = 1


@dataclass(frozen=True)
class OneRun:
    """One training and its folder."""

    size: OneSize
    padding: int
    folder: Path = field(repr=False)

    @property
    def description(self) -> str:
        """Returns a description of the run."""
        side = self.size.size
        return f"{side} x {side}, {describe_padding(self.padding)}"


def describe_padding(padding: int) -> str:
    """Returns a description of the number of Gaussian channels.

    Example:
        >>> describe_padding(0), describe_padding(1), describe_padding(2)
        ('no padding', '1 padding channel', '2 padding channels')
    """
    channels = "channel" if padding == 1 else "channels"
    return f"{padding} padding {channels}" if padding else "no padding"


# There are levels down to a single pixel, where a 1x1 convolution mixes the whole face. With 3
# levels at 32 x 32, samples are patches of skin. 320 faces are overfitted after about 300 steps at
# this learning rate, which falls to zero by then.
MINUTES = FacesPreset((
    OneSize(
        32,
        {"levels": 5, "steps": 4, "hidden": 64, "memory": "store"},
        {"max_epochs": 16, "batch_size": 16, "learning_rate": 2e-3, "conditioning_every": 4},
    ),
    OneSize(
        64,
        {"levels": 6, "steps": 3, "hidden": 64, "memory": "store"},
        {"max_epochs": 8, "batch_size": 8, "learning_rate": 2e-3, "conditioning_every": 4},
    ),
))
SLOWLY = {"max_epochs": 120, "batch_size": 16, "learning_rate": 3e-4, "conditioning_every": 20}
FULL = FacesPreset((
    OneSize(32, {"levels": 5, "steps": 12, "hidden": 128, "memory": "recompute"}, SLOWLY),
    OneSize(64, {"levels": 6, "steps": 12, "hidden": 128, "memory": "recompute"}, SLOWLY),
))
PRESETS = {"minutes": MINUTES, "full": FULL}


def reproduce_faces(
    out: str | Path,
    *,
    preset: str | FacesPreset = "minutes",
    config: str | Path | None = None,
    seed: int = 0,
    processes: int | None = None,  # noqa: ARG001 - its trainings take turns
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Reproduced:
    """Trains the flows, each in its own run folder, and writes a page that compares them.

    An interrupted study resumes; finished runs are not trained again.

    Args:
        out: The folder of the runs, of index.html, of faces.json and of the pictures.
        preset: "minutes", "full", or a preset of your own.
        config: Not supported; the settings of each training come from the preset.
        seed: Seed of the weights, of the order of the images and of their split.
        processes: No effect: the trainings run one after another, on all threads of torch.
        progress: Show progress bars; by default only on a terminal.
        say: Receives a message when a training starts.

    Returns:
        The numbers, the page, and the results as text.

    Raises:
        ArgumentError: There is no such preset, `out` is a file, or a folder holds another run.
        FileError: The set of faces cannot be loaded.
    """  # noqa: DOC502 - raised by the calls below
    if config is not None:
        raise ArgumentError("'config' should be left out: faces has presets only.")
    chosen = _preset(preset)
    natural_int("seed", seed)
    place = Path(out)
    if place.exists() and not place.is_dir():
        raise ArgumentError(f"'out' should be a folder, {place} is a file.")
    runs = runs_of(chosen, place)
    for number, run in enumerate(runs, start=1):
        say(f"{run.description} ({number} of {len(runs)})")
        _fit(run, seed, progress, say)
    say("comparing them")
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    report = FacesReport(
        preset=preset if isinstance(preset, str) else "of your own",
        seed=seed,
        sizes=[faces_size(one.size.size, one.folder, two.folder) for one, two in pairs],
    )
    for one, two in pairs:
        picture = place / f"faces-{one.size.size}.png"
        write_picture(picture, one.folder, two.folder, seed=seed)
    reports = {run.folder.name: read_report_on(run.folder, ImageReport) for run in runs}
    write_bytes(place / NUMBERS, (report.model_dump_json(indent=2) + "\n").encode())
    write_bytes(place / PAGE, render_faces(report, reports).encode())
    return Reproduced(
        report,
        place / PAGE,
        tuple(describe_results(size) for size in report.sizes),
        charts=tuple(condition_over_training(size) for size in report.sizes),
    )


def runs_of(preset: FacesPreset, out: Path) -> list[OneRun]:
    """Returns the trainings of a preset in order; each pair starts without padding."""
    return [
        OneRun(one, padding, out / f"{one.size}-{'padded' if padding else 'plain'}")
        for one in preset.sizes
        for padding in (0, preset.padding)
    ]


def _preset(given: str | FacesPreset) -> FacesPreset:
    if isinstance(given, FacesPreset):
        return given
    if given not in PRESETS:
        raise ArgumentError(f"'preset' should be one of {', '.join(PRESETS)}, got {given!r}.")
    return PRESETS[given]


def _fit(run: OneRun, seed: int, progress: bool | None, say: Callable[[str], None]) -> None:
    padding = {"padding": run.padding} if run.padding else {}
    fit_run(
        ImageConfig("faces", size=run.size.size, gray=True, flip=True, split_seed=seed),
        ModelConfig("glow", {**run.size.model, **padding}),
        run.folder,
        progress=progress,
        say=say,
        seed=seed,
        **run.size.settings,
    )
