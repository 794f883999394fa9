"""What `fit` does for images that are split already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kappaflow.data import Images
from kappaflow.errors import ArgumentError
from kappaflow.flows import Flow
from kappaflow.training.callbacks import Callback
from kappaflow.training.distributed import make_engine
from kappaflow.training.image_rows import ImageRows, check_pixels
from kappaflow.training.settings import Settings
from kappaflow.training.trained import FitResult, trained


def fit_images(
    flow: Flow,
    train: Images,
    validation: Images,
    settings: Settings,
    *,
    flip: bool = False,
    out: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
    about: dict[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Does what `fit` does with images that are split already.

    Args:
        flow: Trained in place.
        train: Images to train on.
        validation: Images to stop by.
        settings: How.
        flip: Mirror training images at random.
        out: A run folder to write and to resume from.
        device: Where to train; where the flow is if left out.
        progress: Show a progress bar; on a terminal only if left out.
        about: What else config.json should say of the run: where the images came from.
        callbacks: Are told of each epoch.

    Returns:
        The result, without notes.
    """
    if settings.condition_budget is not None:
        raise ArgumentError(
            "'condition_budget' should be left out for images: the condition number of so many "
            "dimensions takes longer to measure than the training does; that of a table can be "
            "asked for."
        )
    engine = make_engine(flow, device, settings.precision)
    check_pixels(train, flow)
    asked = {
        **(about or {}),
        "flip": flip,
        "fingerprints": {"train": train.fingerprint(), "validation": validation.fingerprint()},
    }
    rows = ImageRows(train, flow, flip=flip), ImageRows(validation, flow)
    return trained(
        flow,
        *rows,
        settings,
        engine,
        out=out,
        progress=progress,
        asked=asked,
        callbacks=callbacks,
    )
