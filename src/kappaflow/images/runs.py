"""What commands do with runs on images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kappaflow.diagnosis import Finding, image_likelihood_findings, training_findings
from kappaflow.errors import ArgumentError, FileError
from kappaflow.flows import Flow
from kappaflow.images.data import ImageConfig, ImageData, images_for
from kappaflow.images.decode import readable
from kappaflow.images.images import Images
from kappaflow.images.report import ImageCharts, image_page
from kappaflow.images.samples import (
    BEST,
    FOLDER,
    check_image_path,
    draw_pixels,
    sample_batch,
    values_of,
    write_images,
    write_sheet,
)
from kappaflow.report.page import Page
from kappaflow.report.result import HeldOut
from kappaflow.results import Part
from kappaflow.runs.content import History
from kappaflow.runs.kinds import OpenRun, RunConfig, RunKind
from kappaflow.runs.recipes import ModelConfig
from kappaflow.runs.written import Written
from kappaflow.storage import make_directory, write_bytes
from kappaflow.training import Batch


class ImageRunConfig(RunConfig[ImageConfig]):
    """The entry `run` of config.json, for a run on images."""

    unreadable: int = 0  # images of the folder that were left out
    classes: tuple[str, ...]  # that the flow reads, or all if `kappaflow.fit` wrote the folder

    def classes_of(self, flow: Flow) -> tuple[str, ...]:
        """Returns the names of the classes that a flow reads; () if it reads none."""
        width = flow.context_features
        if width not in (0, len(self.classes)):
            raise FileError(f"the run has {len(self.classes)} classes, its flow reads {width}.")
        return self.classes if width else ()

    def names(self, flow: Flow) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), self.classes_of(flow)


class ImageRuns(RunKind):
    """Runs on images: other images in the form of the flow, samples as pictures."""

    name = "images"
    plural = "images"
    example = "image"
    entry = "classes"
    config = ImageConfig
    run = ImageRunConfig
    charts: ClassVar[type[Part]] = ImageCharts
    page: ClassVar[Callable[..., Page]] = staticmethod(image_page)

    def read(self, run: ImageRunConfig, flow: Flow, source: str, **options: Any) -> Images:
        self.refuse(options)
        given = run.source or ImageConfig(source)
        return images_for(
            flow,
            source,
            crop=given.crop,
            skip_unreadable=given.skip_unreadable,
            classes=run.classes_of(flow),
        )

    def options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Returns the options of a command with a size of one number as this number."""
        size = options.get("size", ())
        return {**options, "size": size[0]} if len(size) == 1 else options

    def model(self, recipe: str, arguments: dict[str, Any]) -> ModelConfig:
        hidden = arguments.get("hidden")
        if hidden is None:
            return ModelConfig(recipe, arguments)
        if len(hidden) != 1:
            raise ArgumentError(
                f"'hidden' should be one number of channels for {recipe}, got "
                f"{' '.join(map(str, hidden))}."
            )
        return ModelConfig(recipe, {**arguments, "hidden": hidden[0]})

    def split_data(self, flow: Flow, train: Images, validation: Images, test: Images) -> ImageData:
        config = ImageConfig(test.source, by_class=bool(flow.context_features))
        return ImageData(config, train, validation, test)

    def note(self, folder: Path) -> str:
        return f"Samples are in {folder / FOLDER}\n"

    def findings(
        self,
        held_out: HeldOut,
        history: History,
        stopped_because: str,
        warnings: Sequence[str] = (),
    ) -> list[Finding]:
        """Returns the findings on likelihood and training."""
        findings = []
        for reference in held_out.references:
            bits, error = held_out.test.bits_per_dimension, reference.standard_error
            findings += image_likelihood_findings(bits, error, reference.nll)
        return [*findings, *training_findings(history, stopped_because, of_images=True)]

    def identifiers(self, data: Images) -> np.ndarray:
        """Returns the file name of each image, or its number from 0."""
        if not data.names:
            return data.index.copy()
        return np.array([readable(data.names[i]) for i in data.index.tolist()])

    def sample_batch(self, flow: Flow, count: int) -> Batch:
        return sample_batch(flow, count)

    def copy_files(
        self, config: ImageRunConfig, flow: Flow, old: Path, new: Path, *, finished: bool
    ) -> None:
        """Copies the grids of samples, and draws that of the last epoch."""
        for picture in sorted((old / FOLDER).glob("epoch-*.png")):
            write_bytes(make_directory(new / FOLDER) / picture.name, picture.read_bytes())
        if finished:
            write_sheet(flow, config.classes_of(flow), new, BEST)

    def write_samples(
        self,
        run: OpenRun,
        n: int,
        out: str,
        *,
        class_name: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> Written:
        if options.pop("context", None) is not None:
            raise ArgumentError("'context' should be left out for images: name a class instead.")
        self.refuse(options)
        check_image_path(out)
        classes = run.config.classes_of(run.flow)
        labels, turns = labels_of(classes, n, class_name)
        pixels = draw_pixels(run.flow, n, labels=labels, temperature=temperature, seed=seed)
        write_images(pixels, out, values=values_of(run.flow), turns=turns)
        return Written(n, (), 0)


def labels_of(
    classes: tuple[str, ...], n: int, class_name: str | None
) -> tuple[np.ndarray | None, int]:
    """Returns the class of each sample, and the number of classes that take turns."""
    if not classes:
        if class_name is not None:
            raise ArgumentError(
                "'class' should be left out: the flow of this run does not read the class."
            )
        return None, 1
    if class_name is None:
        return np.arange(n) % len(classes), len(classes)
    if class_name not in classes:
        raise ArgumentError(f"'class' should be one of {', '.join(classes)}, got {class_name!r}.")
    return np.full(n, classes.index(class_name)), 1
