"""`kappaflow fit`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_images import fit_images
from kappaflow.cli.fit_table import fit_table
from kappaflow.cli.image_options import ImageOptions
from kappaflow.cli.show import by_the_first, say
from kappaflow.cli.table_options import (
    COMMON,
    CONDITIONING,
    MODEL,
    OF_MODELS,
    OUTPUT,
    TRAINING,
    TableOptions,
)
from kappaflow.cli.table_options import IMAGES as OF_IMAGES
from kappaflow.cli.whole import Whole, Wholes
from kappaflow.errors import ArgumentError, FileError

TABLES = tuple(OF_MODELS)
IMAGES = ("glow", "real_nvp_image", "jet")


def fit(
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[Path, Parameter(group=COMMON)],
    model: Annotated[
        Literal[
            "real_nvp",
            "nice",
            "spline",
            "planar",
            "radial",
            "invertible_network",
            "zuko:maf",
            "zuko:nsf",
            "zuko:naf",
            "zuko:sospf",
            "zuko:bpf",
            "zuko:gf",
            "zuko:cnf",
            "zuko:realnvp",
            "glow",
            "real_nvp_image",
            "jet",
        ]
        | None,
        Parameter(group=COMMON),
    ] = None,
    search_time: Annotated[float, Parameter(group=MODEL)] = 60.0,
    depth: Annotated[Whole | None, Parameter(group=MODEL)] = None,
    hidden: Annotated[Wholes | None, Parameter(group=MODEL)] = None,
    scale_bound: Annotated[float | None, Parameter(group=CONDITIONING)] = None,
    mixing: Annotated[
        Literal["lu", "plain", "qr", "svd", "orthogonal"] | None, Parameter(group=MODEL)
    ] = None,
    condition_bound: Annotated[float | None, Parameter(group=CONDITIONING)] = None,
    memory: Annotated[
        Literal["recompute", "store", "invert"] | None, Parameter(group=TRAINING)
    ] = None,
    padding: Annotated[Whole | None, Parameter(group=MODEL)] = None,
    padding_kind: Annotated[
        Literal["gaussian", "uniform", "zero", "copy", "learned"] | None, Parameter(group=MODEL)
    ] = None,
    padding_scale: Annotated[float | None, Parameter(group=MODEL)] = None,
    max_epochs: Annotated[Whole | None, Parameter(group=COMMON)] = None,
    max_time_s: Annotated[float | None, Parameter(group=COMMON)] = None,
    batch_size: Annotated[Whole | None, Parameter(group=TRAINING)] = None,
    learning_rate: Annotated[float | None, Parameter(group=TRAINING)] = None,
    patience: Annotated[Whole | None, Parameter(group=TRAINING)] = None,
    precision: Annotated[Literal["full", "bf16", "fp16"] | None, Parameter(group=TRAINING)] = None,
    compile: Annotated[bool, Parameter(negative=(), group=TRAINING)] = False,
    device: Annotated[str | None, Parameter(group=TRAINING)] = None,
    seed: Annotated[Whole, Parameter(group=COMMON)] = 0,
    tensorboard: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    quiet: Annotated[bool, Parameter(negative=(), group=OUTPUT)] = False,
    json: Annotated[bool, Parameter(negative=(), group=OUTPUT)] = False,
    of_tables: Annotated[TableOptions | None, Parameter(name="*", group=MODEL)] = None,
    of_images: Annotated[ImageOptions | None, Parameter(name="*", group=OF_IMAGES)] = None,
) -> None:
    """Train a flow on a table or on images, and write its model, figures and report to a folder.

    For a table without options of the model, short trainings of several models race, and the
    winner trains on. If training is interrupted, run the same command again: it resumes.

    For example:

    kappaflow fit events.csv --out runs/events --max-time-s 60

    kappaflow fit photos --size 32 --out runs/photos

    Parameters
    ----------
    data
        A csv, tsv, parquet, arrow, npy or npz file; - for csv on standard input; a folder of
        images, idx files or CIFAR-10 batches; or the name of a data set (see kappaflow data).
        80 % of the rows or images are for training, 10 % for validation, 10 % for the test.
    out
        The run folder.
    model
        For tables: real_nvp (affine couplings), nice (additive couplings), spline
        (rational-quadratic splines), planar, radial, invertible_network (linear layers and leaky
        ReLU), or a flow of zuko. For images: glow (the default), real_nvp_image or jet. Default
        for tables: a search, or real_nvp if an option of the model such as --depth is given.
    search_time
        Time budget of the model search in seconds of processor time; 0 skips it. A search takes
        at most a quarter of --max-time-s or of --max-epochs.
    depth
        Number of couplings (16; jet: 16, or 8 for images up to 16 x 16), of planar or radial maps
        (8), of linear layers of an invertible_network (4), or of transforms of zuko (5 for maf
        and nsf, 3 for naf, sospf and bpf, 6 for gf, 8 for realnvp).
    hidden
        Widths of the hidden layers of the conditioners, such as --hidden 128 128 (the default).
        For images a single number of channels (64; 32 for images up to 16 x 16).
    scale_bound
        Bound on the sum of the log-scales over depth.
    mixing
        Form of the 1x1 convolutions of glow (lu), or of linear maps before the couplings of
        real_nvp or spline (none).
    condition_bound
        With --mixing svd: the largest condition number of each of these maps.
    memory
        What is stored for the backward pass: the half that each coupling reads (recompute, the
        default), everything (store, the default for images up to 32 x 32), or the input of every
        32nd coupling, from which the others are recomputed by inversion (invert).
    padding
        Number of features, for images channels, added to the data. The likelihood is then a bound.
    padding_kind
        Distribution of the padding: gaussian, N(0, 1) (the default); uniform on [-1, 1]; zero,
        which leaves no likelihood; copy, a noisy copy of the standardized data; learned, a normal
        distribution given the data.
    padding_scale
        Standard deviation for gaussian (1) and for the noise of copy (0.1; with 0 there is no
        likelihood), half the width for uniform (1).
    max_epochs
        Maximum number of passes over the training rows, search included (tables: enough for 2,000
        to 12,000 steps; images: 60).
    max_time_s
        Time limit in seconds, search included. The learning rate falls to zero at whichever limit
        comes first.
    batch_size
        Rows for each step (tables: 128 to 512; images: 64), over all processes of torchrun.
    learning_rate
        Maximum learning rate (tables: 5e-3, or that of the model chosen by the search; images:
        2e-3).
    patience
        Epochs without improvement after which training stops (30, or 500 steps if that is more).
    precision
        bf16 or fp16 compute the matrix products of the conditioners in bfloat16 or float16 during
        training. Scores, samples and reports always use full precision.
    compile
        Compile training steps with torch.compile: the first step takes long, later ones are
        shorter, mostly for splines. Needs a C++ compiler.
    device
        Where to train: cpu (the default), cuda, or cuda:1.
    seed
        Seed of the initial weights, the order of the rows and the split.
    tensorboard
        Folder for TensorBoard logs of each epoch.
    quiet
        Show no progress and no notes.
    json
        Print the result as JSON.
    """
    from kappaflow.data import is_images

    _refuse_missing(data)
    tables, images = of_tables or TableOptions(), of_images or ImageOptions()
    wants_images = is_images(data)
    _refuse_other_kind(data, model, wants_images, images if not wants_images else tables)
    recipe = {
        "depth": depth,
        "hidden": hidden,
        "scale_bound": scale_bound,
        "mixing": mixing,
        "condition_bound": condition_bound,
        "memory": memory,
        "padding": padding,
        "padding_kind": padding_kind,
        "padding_scale": padding_scale,
    }
    settings = {
        "max_epochs": max_epochs,
        "max_time_s": max_time_s,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "precision": precision,
        "compile": compile or None,
    }
    common: dict[str, Any] = {
        "out": out,
        "device": device,
        "seed": seed,
        "settings": {name: value for name, value in settings.items() if value is not None},
        "progress": False if quiet else None,
        "callbacks": _listening(tensorboard),
        "say": (lambda text: None) if quiet else say,
        "json": json,
    }
    with by_the_first():
        if wants_images:
            fit_images(data, model or IMAGES[0], recipe, images, **common)
        else:
            fit_table(data, model, recipe, tables, search_time=search_time, **common)


def _listening(folder: Path | None) -> list[Any]:
    """Returns what listens to the training."""
    from kappaflow.training import TensorBoard

    return [] if folder is None else [TensorBoard(folder)]


def _refuse_missing(data: str) -> None:
    """Refuses what is no file, no folder and no set of either kind, and names the sets."""
    from kappaflow.data import image_sets, table_names
    from kappaflow.data.load import no_such_file

    path = Path(data).expanduser()
    tables, images = table_names(), tuple(one.name for one in image_sets())
    if data == "-" or data in (*tables, *images) or path.exists():
        return
    raise FileError(
        f"{no_such_file(path, (*tables, *images))}: give a path, or the name of a data set: of "
        f"tables {', '.join(tables)}, of images {', '.join(images)}."
    )


def _refuse_other_kind(
    data: str, model: str | None, wants_images: bool, others: TableOptions | ImageOptions
) -> None:
    """Refuses a model or an option of tables for images, and the other way round."""
    kind, other = ("images", "tables") if wants_images else ("tables", "images")
    own = IMAGES if wants_images else TABLES
    if model is not None and model not in own:
        raise ArgumentError(
            f"'model' should be one of {', '.join(own)} for {data}, got {model!r}: that is a "
            f"model of {other}."
        )
    unset = asdict(type(others)())
    for name, value in asdict(others).items():
        if value != unset[name]:
            option = name.replace("_", "-")
            raise ArgumentError(
                f"'{name}' should be left out for {data}: --{option} is an option of {other}, "
                f"and these are {kind}."
            )
