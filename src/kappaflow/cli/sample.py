"""`kappaflow sample`."""

from typing import Annotated

from cyclopts import Parameter

from kappaflow.cli.fit_options import TEXT, ReadText
from kappaflow.cli.fit_options import given as given_options
from kappaflow.cli.parameters import Data, Device, Integer, RunFolder
from kappaflow.cli.show import note_unfinished, note_unused_cuda, print_note


def sample(
    run: RunFolder,
    /,
    *,
    n: Annotated[Integer, Parameter(name=["-n", "--n"])],
    out: Data = "-",
    context: str | None = None,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    given: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    temperature: float = 1.0,
    seed: Integer = 0,
    device: Device = None,
    text: Annotated[ReadText | None, Parameter(name="*", group=TEXT)] = None,  # pyright: ignore[reportInvalidTypeForm]
) -> None:
    """Sample from the flow of a run, in the units of its data.

    For example:

    kappaflow sample runs/magic -n 1000 --out samples.csv

    kappaflow sample runs/digits -n 64 --temperature 0.8 --out grid.png

    More rows than fit in memory are sampled and written in chunks. The file is created once all
    samples are written.

    Parameters
    ----------
    n
        Number of samples; with --context for each of its rows.
    out
        For tables a csv, parquet, arrow, npy or npz file; - is csv on standard output. For images
        a png file with a grid, a new folder with a png file for each sample, or an npy file.
    context
        A table with the context columns, for a conditional flow of tables. A note on stderr
        counts its rows outside the range of the training rows.
    class_name
        The class of all samples, for a flow of images that was fitted --by-class. By default,
        classes are cycled.
    given
        Values of columns that all samples have, such as --given age=40 region=north, of a run that
        was fitted with --kinds.
    temperature
        Standard deviation of the latents. Below 1 samples are nearer to the mode, and no longer
        follow the trained density.
    seed
        Random seed.
    """
    from kappaflow.runs import write_samples

    note_unused_cuda(device)
    note_unfinished(run)
    written = write_samples(
        run,
        n,
        out,
        context=context,
        class_name=class_name,
        given=given,
        temperature=temperature,
        seed=seed,
        device=device,
        **given_options(text or ReadText()),
    )
    if written.outside.rows:
        print_note(written.outside.note(written.rows // n, "context rows"))
    if out != "-":
        print_note(f"{n:,} samples{' for each context' if context else ''} are in {out}")
