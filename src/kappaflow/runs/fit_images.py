"""`fit_image_run`: from images to a run folder with a flow, sample grids, result and report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import kappaflow
from kappaflow.conditioning import layers_of
from kappaflow.errors import ArgumentError
from kappaflow.files import CONFIG
from kappaflow.locking import locked
from kappaflow.report import About, write_report
from kappaflow.runs.evaluate_images import evaluate_images, judged_images
from kappaflow.runs.fit import DIAGNOSIS, training_facts
from kappaflow.runs.image_job import (
    ImageParts,
    ImageSource,
    decode_all,
    given_and_default,
    image_flow,
    image_parts,
)
from kappaflow.runs.image_samples import BEST, SampleSheets, write_sheet
from kappaflow.runs.recipes import Model
from kappaflow.runs.stored import ImageResult, read_finished_images
from kappaflow.storage import write_bytes
from kappaflow.training import (
    Callback,
    FitResult,
    Settings,
    checked_settings,
    read_result,
    write_result,
)
from kappaflow.training.collectives import from_rank_zero
from kappaflow.training.fit_images import fit_images

DEFAULTS = {"max_epochs": 60, "batch_size": 64, "learning_rate": 2e-3}


@dataclass(frozen=True)
class ImageRunSummary:
    """What a run on images came to, and whether it was finished before it was asked for."""

    folder: Path
    result: ImageResult
    notes: tuple[str, ...]
    was_finished: bool


def fit_image_run(
    source: ImageSource,
    model: Model,
    out: str | Path,
    *,
    flip: bool = False,
    device: str | None = None,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda text: None,
    callbacks: Sequence[Callback] = (),
    **settings: Any,  # noqa: ANN401
) -> ImageRunSummary:
    """Trains a flow on images and writes a run folder, with grids of samples as it goes.

    Args:
        source: Where the images come from.
        model: The recipe, "glow", "real_nvp_image" or "jet", and its arguments.
        out: The run folder; an interrupted run goes on, a finished one is not repeated.
        flip: Mirror training images at random.
        device: Where to train, "cpu" (if left out) or "cuda".
        progress: Show a progress bar; on a terminal only if left out.
        say: Is told what there is to know about the images, before training starts.
        callbacks: Are told of each epoch.
        **settings: Fields of `kappaflow.training.Settings`; 60 epochs, 64 images a step and a
            learning rate of 2e-3 where they are left out.

    Returns:
        The summary.

    Raises:
        ArgumentError: An argument is wrong, or `out` was made with other images or arguments.
        DataError: The images have different sizes, or there are too few.
        FileError: An image cannot be read.
    """  # noqa: DOC502 - raised by the calls below
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"'out' should be a folder, {folder} is a file.")
    checked = checked_settings(**{**DEFAULTS, **settings})
    parts = image_parts(source)
    with locked(folder):
        for note in parts.notes:
            say(note)
        flow = image_flow(
            model.recipe, model.arguments, parts.train, by_class=source.by_class, seed=checked.seed
        )
        classes = parts.classes if source.by_class else ()
        if not (folder / CONFIG).exists():
            decode_all(parts)
        result = fit_images(
            flow,
            parts.train,
            parts.validation,
            checked,
            flip=flip,
            device=device,
            out=folder,
            progress=progress,
            about={"source": asdict(source), "classes": list(classes)},
            callbacks=[
                SampleSheets(folder, classes, checked.max_epochs or DEFAULTS["max_epochs"]),
                *callbacks,
            ],
        )

        def judgement() -> tuple[ImageResult, bool]:
            stored = read_result(folder)
            done = "test_nll" in stored
            if not done:
                say("measuring the flow and drawing its report")
                write_sheet(result.flow, classes, folder, BEST)
                about = _about(result, source, model, parts, checked, flip=flip)
                report, diagnosis = evaluate_images(result, parts, about)
                stored |= judged_images(result, report, parts)
                write_bytes(folder / DIAGNOSIS, diagnosis.to_json().encode())
                write_report(report, folder)
                write_result(folder, stored)
            return read_finished_images(folder), done

        found, done = from_rank_zero(judgement)
        return ImageRunSummary(folder, found, parts.notes, done)


def _about(
    result: FitResult,
    source: ImageSource,
    model: Model,
    parts: ImageParts,
    settings: Settings,
    *,
    flip: bool,
) -> About:
    flow, train = result.flow, parts.train
    counts = (parts.train, parts.validation, parts.test)
    data = [
        ("source", source.data),
        ("images", f"{sum(map(len, counts)):,} of {' x '.join(map(str, train.shape))}"),
        ("values of a pixel", f"{train.values}"),
        ("images to train / validate / test", " / ".join(f"{len(part):,}" for part in counts)),
        ("classes", ", ".join(train.classes) or "none"),
        ("given the class", "yes" if source.by_class else "no"),
        ("mirrored at random", "yes" if flip else "no"),
    ]
    described = {
        "recipe": model.recipe,
        **given_and_default(model.recipe, model.arguments, train),
        "layers": len(layers_of(flow.core)),
        "parameters": f"{sum(p.numel() for p in flow.parameters()):,}",
    }
    versions = f"kappaflow {kappaflow.__version__}, torch {torch.__version__}"
    return About(
        title=f"{model.recipe} on {source.data}",
        data=data,
        model=[(name.replace("_", " "), str(value)) for name, value in described.items()],
        training=[*training_facts(result, settings), ("versions", versions)],
        notes=list(parts.notes),
    )
