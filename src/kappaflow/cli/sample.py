"""`kappaflow sample`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kappaflow.cli.show import say, say_if_unfinished
from kappaflow.cli.whole import Whole
from kappaflow.errors import ArgumentError


def sample(
    run: Path,
    /,
    *,
    n: Annotated[Whole, Parameter(name=["-n", "--n"])],
    out: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    context: str | None = None,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    temperature: float = 1.0,
    seed: Whole = 0,
    decimal: Literal[".", ","] | None = None,
) -> None:
    """Sample from the flow of a run, in the units of its data.

    For example:

    kappaflow sample runs/magic -n 1000 --out samples.csv

    kappaflow sample runs/digits -n 64 --temperature 0.8 --out grid.png

    More rows than fit in memory are sampled and written in chunks. If the command is stopped or
    killed, run it again: it resumes and writes the same samples. Until all are there, the chunks
    are in a hidden folder next to --out.

    Parameters
    ----------
    run
        The run folder.
    n
        How many; for each row of --context where there is one.
    out
        Of a table a csv, parquet, arrow, npy or npz file; - is csv on standard output. Of images
        a png file with all of them in a grid, a new folder with a png file each, or an npy file.
    context
        A table with the context columns, for a conditional flow of tables.
    class_name
        The class of all samples, for a flow of images that was fitted --by-class; all classes take
        turns if left out.
    temperature
        Deviation of the latents: below 1 samples come from nearer the mode, and are no longer
        draws of the density that was trained.
    seed
        Of the draws.
    decimal
        Decimal sign of a --context in text form; if left out, that of the run, or recognised.
    """
    from kappaflow.runs import is_image_run

    if is_image_run(run):
        if context is not None:
            raise ArgumentError(
                "'context' should be left out: this run is one of images, name a class instead."
            )
        if decimal is not None:
            raise ArgumentError("'decimal' should be left out for images: it is for tables.")
        _sample_images(run, n, out, class_name, temperature, seed)
        return
    from kappaflow.data import check_writable
    from kappaflow.runs import write_samples

    check_writable(out)
    if class_name is not None:
        raise ArgumentError("'class' should be left out: this run is none of images.")
    say_if_unfinished(run)
    write_samples(
        run, n, out, context=context, temperature=temperature, seed=seed, decimal=decimal
    )
    if out != "-":
        say(f"{n:,} samples{' for each context' if context else ''} are in {out}")


def _sample_images(
    run: Path, n: int, out: str, class_name: str | None, temperature: float, seed: int
) -> None:
    from kappaflow.runs import check_image_path, sample_image_run, write_images

    check_image_path(out)
    say_if_unfinished(run)
    drawn, values, turns = sample_image_run(
        run, n, class_name=class_name, temperature=temperature, seed=seed
    )
    write_images(drawn, out, values=values, turns=turns)
    say(f"{n:,} samples are in {out}")
