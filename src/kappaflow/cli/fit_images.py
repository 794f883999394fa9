"""`kappaflow fit` on images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kappaflow.cli.image_options import OF_MODELS, OF_SOURCE, ImageOptions
from kappaflow.cli.of_models import given_of
from kappaflow.cli.printable import tell
from kappaflow.cli.show import JOINT, measured_rows, number, say, table
from kappaflow.errors import ArgumentError

if TYPE_CHECKING:
    from kappaflow.runs import ImageRunSummary


def fit_images(
    data: str,
    model: str,
    recipe: dict[str, Any],
    options: ImageOptions,
    *,
    out: Path,
    device: str | None,
    seed: int,
    settings: dict[str, Any],
    progress: bool | None,
    say: Callable[[str], None],
    callbacks: list[Any],
    json: bool,
) -> None:
    """Fits a flow to images and prints what it came to."""
    from kappaflow.runs import ImageSource, Model, fit_image_run

    arguments = _arguments(model, recipe, options)
    summary = fit_image_run(
        ImageSource(
            data,
            size=_sides(options.size),
            grey=options.grey,
            crop=True if options.crop is None else options.crop,
            by_class=options.by_class,
            split_seed=seed,
        ),
        Model(model, arguments),
        out,
        flip=options.flip,
        device=device,
        progress=progress,
        say=say,
        callbacks=callbacks,
        seed=seed,
        **settings,
    )
    if json:
        tell(summary.result.model_dump_json(indent=2, exclude={"train_log_prob_quantiles"}))
    else:
        _print_summary(summary)


def _arguments(model: str, recipe: dict[str, Any], options: ImageOptions) -> dict[str, Any]:
    """Returns the arguments of a recipe that were given, or says which is none of its own."""
    own = {name: value for name, value in vars(options).items() if name not in OF_SOURCE}
    given = given_of(model, {**recipe, **own}, OF_MODELS)
    if len(given.get("hidden", (0,))) != 1:
        raise ArgumentError(
            f"'hidden' should be one number of channels for {model}, got "
            f"{' '.join(map(str, given['hidden']))}."
        )
    if "hidden" in given:
        given["hidden"] = given["hidden"][0]
    return given


def _sides(size: tuple[int, ...] | None) -> Any:  # noqa: ANN401
    """Returns a size as `kappaflow.load_images` takes it, and says what is wrong with it."""
    return size[0] if size is not None and len(size) == 1 else size


def _print_summary(summary: "ImageRunSummary") -> None:
    """Prints what a run came to, for people."""
    result, out = summary.result, summary.folder
    if summary.was_finished:
        say(f"{out} was finished already; this is its stored result")
    bits = number(result.test_bits_per_dimension, ".3f")
    bits_error = number(result.test_bits_per_dimension_standard_error, ".3f")
    nll_error = number(result.test_nll_standard_error, ".1f")
    nll = f"{number(result.test_nll, '.1f')} +- {nll_error} nats an image"
    if result.likelihood == "joint":
        table([("joint NLL of images and padding", nll), *measured_rows(result)])
        tell(f"\n{JOINT}")
    else:
        table([
            ("held-out bits per dimension", f"{bits} +- {bits_error}"),
            ("  each pixel on its own", number(result.independent_bits_per_dimension, ".3f")),
            ("held-out NLL", nll),
            *measured_rows(result),
        ])
    tell(
        f"\n{result.verdict}\n\nSamples are in {out / 'samples'}\n"
        f"The report is {out / 'report.html'}"
    )
