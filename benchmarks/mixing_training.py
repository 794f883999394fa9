"""Forms of 1x1 convolution in a Glow: condition numbers, bits per dimension, time of a step."""

from statistics import median
from typing import Any

import torch

import kappaflow as kf
from benchmarks.images_digits import (
    LEARNING_RATE,
    Training,
    batches,
    bits_per_dimension,
    digits,
    filled,
)
from benchmarks.ours import of_kappaflow
from benchmarks.row import ImageShape
from benchmarks.turns import in_turn, timed

BOUND = 4.0
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"mixing": "plain"},
    "LU": {"mixing": "lu"},
    "QR": {"mixing": "qr"},
    "SVD": {"mixing": "svd"},
    f"SVD, bound {BOUND:g}": {"mixing": "svd", "condition_bound": BOUND},
    "orthogonal": {"mixing": "orthogonal"},
}
TRAINED = ImageShape(batch=64, image=(1, 8, 8), levels=2, steps=8, hidden=32)
TIMED = ImageShape()
POINTS = 64  # number of held-out images for the condition number of the whole flow
DRAWS = 20  # samples of the noise in an image


def glow_of(form: str, shape: ImageShape) -> kf.Flow:
    """Returns a new Glow with one form of 1x1 convolution."""
    return kf.glow(
        shape.image,
        levels=shape.levels,
        steps=shape.steps,
        hidden=shape.hidden,
        memory="store",
        **FORMS[form],
    )


def trained(form: str, seed: int, steps: int, shape: ImageShape = TRAINED) -> dict[str, Any]:
    """Returns the results of a Glow on the digits after a number of training steps.

    Args:
        form: Form of its 1x1 convolutions.
        seed: Seed of weights, batches and noise; the held-out images never change.
        steps: Number of steps of Adam, over which the rate falls to zero.
        shape: Shape of the flow.

    Returns:
        "parameters" of the convolutions; "before" and "after" the training the condition numbers
        of the convolutions ("median" and "max") and of the flow ("flow", the median over held-out
        images); and "test", the bits per dimension of held-out images.
    """
    train, _, test = digits()
    torch.manual_seed(seed)
    flow = glow_of(form, shape)
    training = Training(of_kappaflow(flow), batches(train, shape.batch, seed))
    at = filled(test[:POINTS], torch.Generator().manual_seed(1))
    before = conditions(flow, at)
    for step in range(steps):
        training.one_step(LEARNING_RATE * (1 - step / steps))
    return {
        "parameters": sum(
            p.numel() for layer in mixing_of(flow) for p in layer.parameters() if p.requires_grad
        ),
        "before": before,
        "after": conditions(flow, at),
        "test": bits_per_dimension(of_kappaflow(flow), test, draws=DRAWS),
    }


def mixing_of(flow: kf.Flow) -> list[kf.bijections.InvertibleConv1x1]:
    """Returns the 1x1 convolutions of a flow."""
    return [part for part in flow.modules() if isinstance(part, kf.bijections.InvertibleConv1x1)]


def conditions(flow: kf.Flow, x: torch.Tensor) -> dict[str, float]:
    """Returns the condition numbers of the convolutions, and the flow's at images."""
    found = [layer.condition_number for layer in mixing_of(flow)]
    whole = kf.spectrum(flow.core, x).condition_number
    return {"median": median(found), "max": max(found), "flow": whole.median().item()}


def step_times(repetitions: int, shape: ImageShape = TIMED) -> dict[str, dict[str, float]]:
    """Returns the time of a training step by form, and its ratio to the plain form.

    All forms take turns. Times are medians, and ratios are medians of the ratios within one
    repetition.
    """
    x = shape.data()
    trainings = {form: Training(of_kappaflow(glow_of(form, shape)), _forever(x)) for form in FORMS}
    takes = {
        form: lambda one=training: timed(lambda: one.one_step(LEARNING_RATE))
        for form, training in trainings.items()
    }
    in_turn(takes, 2)  # warm-up
    times = in_turn(takes, repetitions)
    plain = times["plain"]
    return {
        form: {
            "median_ms": 1e3 * median(own),
            "to_plain": median(a / b for a, b in zip(own, plain, strict=True)),
            "repetitions": repetitions,
        }
        for form, own in times.items()
    }


def _forever(x: torch.Tensor):  # noqa: ANN202
    """Yields the same batch forever."""
    while True:
        yield x
