"""Flows of images: one training, and the floor of its distances."""

import torch
from torch import Tensor

from kappaflow.data import Images, load_images, split_images
from kappaflow.errors import NumericalError
from kappaflow.flows import real_nvp_image
from kappaflow.training import fit
from kappaflow.training.image_rows import ImageRows
from kappaflow_studies.engine.study import Case, Row
from kappaflow_studies.padding.judged import conditioning, curve, distances, likelihood
from kappaflow_studies.padding.spec import spec_of

FRACTIONS = (0.7, 0.1, 0.2)
LEARNING_RATE = 2e-3
SIDE = 6  # of a sheet of samples


def trained_on_images(case: Case) -> Row:
    """Returns what a flow of a set of images with a padding came to."""
    seed = case["seed"]
    train, validation, test = parts(case["set"], seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = real_nvp_image(
            train.shape,
            levels=case["image_levels"],
            hidden=case["image_hidden"],
            blocks=case["image_blocks"],
            dequantize="uniform",
            values=train.values,
            padding=spec_of(case["padding"]).padding(train.shape),
            memory="store",
        )
    try:
        result = fit(
            flow,
            train,
            validation=validation,
            max_epochs=case["image_epochs"],
            patience=case["image_epochs"],
            batch_size=case["image_batch_size"],
            learning_rate=LEARNING_RATE,
            conditioning_every=case["image_measured_every"],
            seed=seed,
            progress=False,
        )
    except NumericalError as error:
        return {"error": str(error)}
    x = ImageRows(test, flow).at(slice(0, len(test))).x
    count = min(case["image_drawn"], len(test))
    drawn = flow.sample(count, generator=torch.Generator().manual_seed(seed))
    found = {
        **curve(result.history),
        **conditioning(flow, x[: case["image_points"]]),
        **likelihood(flow, x, case["image_draws"]),
        **distances(drawn / (train.values - 1), _scaled(test, count)),
        "best_epoch": result.best_epoch,
        "time_s": result.history[-1]["time_s"],
    }
    if case["pictured"]:
        generator = torch.Generator().manual_seed(seed + 1)
        found["picture"] = sheet(flow.sample(SIDE * SIDE, generator=generator))
        found["picture_side"] = SIDE * (train.shape[2] + 1)
    return found


def image_floor(case: Case) -> Row:
    """Returns how far held-out images are from as many of those to train on."""
    train, _, test = parts(case["set"], case["seed"])
    count = min(case["image_drawn"], len(test))
    return distances(_scaled(train, count), _scaled(test, count))


def parts(name: str, seed: int) -> tuple[Images, ...]:
    """Returns images to train on, to stop by, and to judge by."""
    return split_images(load_images(name), fractions=FRACTIONS, seed=seed)


def _scaled(images: Images, count: int) -> Tensor:
    """Returns the first of some images, from 0 to 1."""
    return images.batch(range(count)).float() / (images.values - 1)


def sheet(drawn: Tensor) -> list[int | None]:
    """Returns SIDE x SIDE samples as one picture, row by row from below, None between them."""
    first = drawn.mean(1).nan_to_num(0).round().int()
    framed = torch.nn.functional.pad(first, (0, 1, 0, 1), value=-1)
    grid = framed.reshape(SIDE, SIDE, *framed.shape[1:]).transpose(1, 2)
    flat = grid.reshape(SIDE * framed.shape[1], -1).flip(0).flatten().tolist()
    return [None if value < 0 else value for value in flat]
