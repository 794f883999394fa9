"""`kappaflow fit`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kappaflow.cli.fit_options import (
    COMMON,
    DEFAULT_MODEL,
    IMAGES,
    MODEL,
    OF_ANY_MODEL,
    OF_TABLES,
    OUTPUT,
    TRAINING,
    FitImages,
    FitTable,
    ModelFlags,
    TrainingFlags,
    given,
    model_arguments,
)
from kappaflow.cli.parameters import Data, Device, Integer, Json, Quiet
from kappaflow.cli.show import (
    JOINT,
    first_process_prints,
    note_unused_cuda,
    print_columns,
    print_findings,
    print_json,
    print_note,
    print_text,
)
from kappaflow.errors import ArgumentError, FileError
from kappaflow.options import AnyModel
from kappaflow.ranks import is_first

if TYPE_CHECKING:
    from kappaflow.data import Kind
    from kappaflow.runs import ModelConfig, ModelSearch, RunSummary


def fit(
    data: Data,
    /,
    *,
    out: Annotated[Path | None, Parameter(group=COMMON)] = None,
    model: Annotated[AnyModel | None, Parameter(group=COMMON)] = None,
    search_time: Annotated[float, Parameter(group=MODEL)] = 60.0,
    images: Annotated[FitImages | None, Parameter(name="*", group=IMAGES)] = None,
    options: Annotated[ModelFlags | None, Parameter(name="*", group=MODEL)] = None,  # pyright: ignore[reportInvalidTypeForm]
    training: Annotated[TrainingFlags | None, Parameter(name="*", group=TRAINING)] = None,  # pyright: ignore[reportInvalidTypeForm]
    seed: Annotated[Integer, Parameter(group=COMMON)] = 0,
    rows: Annotated[FitTable | None, Parameter(name="*", group=COMMON)] = None,  # pyright: ignore[reportInvalidTypeForm]
    device: Annotated[Device, Parameter(group=TRAINING)] = None,
    tensorboard: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    quiet: Annotated[Quiet, Parameter(group=OUTPUT)] = False,
    json: Annotated[Json, Parameter(group=OUTPUT)] = False,
) -> None:
    """Train a flow on a table or on images, and write its model, figures and report to a folder.

    For a table without options of the model, short trainings of several models race, and the
    winner trains on. If training is interrupted, run the same command again: it resumes.

    For example:

    kappaflow fit events.csv --max-time-s 60

    kappaflow fit photos --size 32 --out runs/small-photos

    Parameters
    ----------
    data
        A table in a file (csv, txt, parquet, npy, h5, fits, root, sqlite, xlsx, ...), one of
        several as FILE::TABLE; - for csv on standard input; a folder of images, idx files or
        CIFAR-10 batches; or the name of a data set (see kappaflow data).
        80 % of the rows or images are for training, 10 % for validation, 10 % for the test.
    out
        The run folder. Default: runs/events for events.csv, and so on. A run with other options
        needs another folder.
    model
        For tables: real_nvp (affine couplings), nice (additive couplings), spline (spline
        couplings), autoregressive (splines), planar, radial, invertible_network (linear layers and
        leaky ReLU), or a flow of zuko; by default a search, or real_nvp if an option of the model
        such as --depth is given. For images: glow (the default), real_nvp_image or jet.
    search_time
        Time limit of the model search in seconds; 0 skips it. A search takes at most about a
        quarter of --max-time-s or of --max-epochs; on a busy machine it does less.
    seed
        Seed of the initial weights, the order of the rows and the split.
    tensorboard
        Folder for TensorBoard logs of each epoch.
    """
    from kappaflow.data.dataset import kind_of, runs_of
    from kappaflow.runs import MixedConfig, ModelSearch, TableConfig, fit_run
    from kappaflow.training import TensorBoard
    from kappaflow.training.settings import LEARNING_RATE

    _refuse_missing(data)
    folder = _default_folder(data) if out is None else out
    kind = kind_of(data)
    of_rows, of_images = given(rows or FitTable()), given(images or FitImages())
    settings, options = given(training or TrainingFlags()), options or ModelFlags()
    of_tables = [*of_rows, *(set(settings) & OF_TABLES)]
    _refuse_other_kind(data, kind, of_tables, [*of_images])
    with first_process_prints(), _explained(folder, named=out is not None):
        if not quiet:
            note_unused_cuda(device)
            if out is None:
                print_note(f"the run folder is {folder}; --out names another")
        if kind is not None:
            runs = runs_of(kind)
            source = runs.config(data, split_seed=seed, **runs.options(of_images))
            name = model or next(iter(kind.models()))
            chosen = runs.model(name, model_arguments(name, options))
        else:
            config = MixedConfig if "kinds" in of_rows else TableConfig
            source = config(data, split_seed=seed, **of_rows)
            chosen = _table_model(model, options, search_time)
            if not isinstance(chosen, ModelSearch):
                settings = {"learning_rate": LEARNING_RATE, **settings}
        summary = fit_run(
            source,
            chosen,
            folder,
            device=device,
            progress=False if quiet else None,
            say=(lambda text: None) if quiet else print_note,
            callbacks=[] if tensorboard is None else [TensorBoard(tensorboard)],
            seed=seed,
            **settings,
        )
        if is_first():  # the run folder is on its machine
            _print_summary(summary, json=json)


def _default_folder(data: str) -> Path:
    """Returns the run folder of some data, by their name."""
    if data == "-":
        raise ArgumentError("'out' should be given for standard input, such as --out runs/events.")
    from kappaflow.data.files import PACKED, path_and_table

    path = path_and_table(data)[0].resolve()
    packed = path.suffix.lower() in PACKED
    name = path.name if path.is_dir() else Path(path.stem if packed else path.name).stem
    return Path("runs") / (name or "data")


@contextmanager
def _explained(folder: Path, *, named: bool) -> Iterator[None]:
    """Adds to an error about a run folder that it was chosen by default."""
    try:
        yield
    except ArgumentError as error:
        if named or not str(error).startswith("'out'"):
            raise
        raise ArgumentError(
            f"{error} Without --out the folder is {folder}: give another, such as "
            f"--out {folder}-2."
        ) from None


def _table_model(
    model: str | None, options: object, search_time: float
) -> "ModelConfig | ModelSearch":
    """Returns the model, or a search if no option of a model is given."""
    from kappaflow.runs import ModelConfig, ModelSearch
    from kappaflow.runs.recipes import with_defaults

    search = ModelSearch(seconds=search_time)  # checks the time
    name = model or DEFAULT_MODEL
    arguments = model_arguments(name, options)
    if model is None and set(arguments) <= set(OF_ANY_MODEL):
        return replace(search, arguments=arguments)
    return with_defaults(ModelConfig(name, arguments))


def _refuse_missing(data: str) -> None:
    """Raises an error that lists the data sets if the data does not exist."""
    from kappaflow.data import table_names
    from kappaflow.data.dataset import kinds
    from kappaflow.data.files import path_and_table
    from kappaflow.data.load import no_such_file

    path = path_and_table(data)[0]
    sets = {kind.name: tuple(data_set.name for data_set in kind.sets()) for kind in kinds()}
    named = {"tables": table_names(), **sets}
    names = tuple(name for group in named.values() for name in group)
    if data == "-" or data in names or path.exists():
        return
    listed = ", ".join(f"of {kind} {', '.join(group)}" for kind, group in named.items() if group)
    raise FileError(
        f"{no_such_file(path, names)}: give a path, or the name of a data set: {listed}."
    )


def _refuse_other_kind(
    data: str, kind: "Kind | None", of_tables: list[str], of_images: list[str]
) -> None:
    """Raises an error for a given option of another kind of data; None is a table."""
    from kappaflow.data.dataset import runs_of

    refused = dict.fromkeys(of_images, "images")
    if kind is not None:
        fields = runs_of(kind).config.__dataclass_fields__
        refused = {option: "images" for option in of_images if option not in fields}
        refused |= dict.fromkeys(of_tables, "tables")
    for option, other in refused.items():
        raise ArgumentError(
            f"'{option}' should be left out for {data}: --{option.replace('_', '-')} is an option "
            f"of {other}."
        )


def _print_summary(summary: "RunSummary", *, json: bool) -> None:
    """Prints the result of a run: the headline of its page for people, or all of it as JSON."""
    from kappaflow.report.files import headline, read_report
    from kappaflow.results import to_plain
    from kappaflow.runs.stored import run_kind

    result, out = summary.result, summary.folder
    if json:
        print_json(to_plain(result))
        return
    if summary.was_finished:
        print_note(f"{out} was finished already; this is its stored result")
    figures = headline(read_report(out))
    print_columns(
        (figure.label, f"{figure.value} {figure.unit}", figure.note) for figure in figures
    )
    print_text(f"\n{result.epochs} epochs in {result.time_s:.0f} s ({result.stopped_because})")
    if result.is_joint:
        print_text(f"\n{JOINT}")
    print_text(f"\n{result.verdict}" + ("\n" if result.findings else ""))
    print_findings(result.findings)
    print_text(f"\n{run_kind(out).note(out)}The report is {out / 'report.html'}")
