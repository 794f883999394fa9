"""`faces`: a Glow of the ORL faces at two sizes, each with and without Gaussian channels."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kappaflow._checks import natural_int
from kappaflow.errors import ArgumentError
from kappaflow.images import ImageConfig
from kappaflow.report.numbers import count
from kappaflow.runs import ModelConfig, fit_run
from kappaflow.storage import write_bytes
from kappaflow_studies.engine.folder import checked_folder, write_results
from kappaflow_studies.engine.report import Reproduced
from kappaflow_studies.faces.page import findings_of, render_faces
from kappaflow_studies.faces.results import FacesReport, faces_size, picture_of


@dataclass(frozen=True)
class OneSize:
    """A pair of trainings that differ only in the padding."""

    size: int  # side of the images, in pixels
    model: dict[str, Any]  # arguments of `kappaflow.glow`
    settings: dict[str, Any]  # fields of `kappaflow.training.Settings`


@dataclass(frozen=True)
class FacesPreset:
    """The trainings of a preset: a pair for each size, with and without Gaussian channels."""

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
        """Side and padding, as text."""
        padding = count(self.padding, "padding channel") if self.padding else "no padding"
        return f"{self.size.size} x {self.size.size}, {padding}"


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
SLOW = {"max_epochs": 120, "batch_size": 16, "learning_rate": 3e-4, "conditioning_every": 20}
FULL = FacesPreset((
    OneSize(32, {"levels": 5, "steps": 12, "hidden": 128, "memory": "recompute"}, SLOW),
    OneSize(64, {"levels": 6, "steps": 12, "hidden": 128, "memory": "recompute"}, SLOW),
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
    """Returns the numbers, the page and the results as text, after training the missing flows."""
    if config is not None:
        raise ArgumentError("'config' should be left out: faces has presets only.")
    if isinstance(preset, str) and preset not in PRESETS:
        raise ArgumentError(f"'preset' should be one of {', '.join(PRESETS)}, got {preset!r}.")
    chosen = PRESETS[preset] if isinstance(preset, str) else preset
    natural_int("seed", seed)
    folder = checked_folder(out)
    runs = runs_of(chosen, folder)
    for number, run in enumerate(runs, start=1):
        say(f"{run.description} ({number} of {len(runs)})")
        _fit(run, seed, progress, say)
    say("comparing them")
    pairs = list(zip(runs[::2], runs[1::2], strict=True))
    report = FacesReport(
        preset=preset if isinstance(preset, str) else "of your own",
        seed=seed,
        sizes=[
            faces_size(plain.size.size, plain.folder, padded.folder) for plain, padded in pairs
        ],
    )
    pictures = []
    for plain, padded in pairs:
        picture = picture_of(plain.folder, padded.folder, seed=seed)
        write_bytes(folder / f"faces-{plain.size.size}.png", picture)
        pictures.append(base64.b64encode(picture).decode())
    findings = findings_of(report)
    page = write_results(
        folder, report, render_faces(report, pictures), findings.charts, say, indent=2
    )
    return Reproduced(report, page, tuple(findings.found), charts=tuple(findings.charts))


def runs_of(preset: FacesPreset, out: Path) -> list[OneRun]:
    """Returns the trainings of a preset in order; each pair starts without padding."""
    return [
        OneRun(size, padding, out / f"{size.size}-{'padded' if padding else 'plain'}")
        for size in preset.sizes
        for padding in (0, preset.padding)
    ]


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
