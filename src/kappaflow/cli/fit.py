"""`kappaflow fit`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from kappaflow.cli.fit_images import fit_images
from kappaflow.cli.fit_table import fit_table
from kappaflow.cli.image_options import ImageOptions
from kappaflow.cli.show import by_the_first, say
from kappaflow.cli.table_options import OF_MODELS, TableOptions
from kappaflow.cli.whole import Whole, Wholes
from kappaflow.errors import ArgumentError, FileError

TABLES = tuple(OF_MODELS)
IMAGES = ("glow", "real_nvp_image", "jet")
OF_TABLES = Group("Tables", sort_key=1)
OF_IMAGES = Group("Images", sort_key=2)


def fit(
    data: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Path,
    model: Literal[
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
    | None = None,
    search_time: float = 60.0,
    depth: Whole | None = None,
    hidden: Wholes | None = None,
    scale_bound: float | None = None,
    mixing: Literal["lu", "plain", "qr", "svd", "orthogonal"] | None = None,
    condition_bound: float | None = None,
    memory: Literal["recompute", "store", "invert"] | None = None,
    padding: Whole | None = None,
    padding_kind: Literal["gaussian", "uniform", "zero", "copy", "learned"] | None = None,
    padding_scale: float | None = None,
    max_epochs: Whole | None = None,
    max_time_s: float | None = None,
    batch_size: Whole | None = None,
    learning_rate: float | None = None,
    patience: Whole | None = None,
    precision: Literal["full", "bf16", "fp16"] | None = None,
    compile: Annotated[bool, Parameter(negative=())] = False,
    device: str | None = None,
    seed: Whole = 0,
    tensorboard: Path | None = None,
    quiet: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
    of_tables: Annotated[TableOptions | None, Parameter(name="*", group=OF_TABLES)] = None,
    of_images: Annotated[ImageOptions | None, Parameter(name="*", group=OF_IMAGES)] = None,
) -> None:
    """Train a flow on a table or on images; write a run folder with model, figures and report.

    Rows, or images, are split into 80 % to train on, 10 % to stop by and 10 % to judge by; copies
    of a row are in one part. Columns of text are left out. A run that was interrupted goes on
    where it stopped when the same command is given again.

    Parameters
    ----------
    data
        A csv, tsv, parquet, arrow, npy or npz file, - for csv on standard input, a folder of
        images, idx files or CIFAR-10 batches, or the name of a data set (see kappaflow data).
    out
        The run folder.
    model
        Of tables real_nvp (affine couplings), nice (additive couplings), spline (couplings by
        rational-quadratic splines), planar, radial, invertible_network (linear layers and leaky
        ReLU), or a flow of zuko; of images glow (the default), real_nvp_image or jet. For a table
        the default is to search: short trainings of affine and spline couplings race, and the
        winner trains on. Any option of the model, such as --depth, gives real_nvp instead.
    search_time
        Time budget of the model search, in seconds of the processor; 0 skips it. A search never
        takes more than a quarter of --max-time-s or of --max-epochs.
    depth
        Number of couplings (16; of jet too, 8 up to 16 x 16), of planar or radial maps (8), of
        linear layers of an invertible_network (4), or of transforms of zuko (5 of maf and nsf, 3
        of naf, sospf and bpf, 6 of gf, 8 of realnvp).
    hidden
        Widths of the hidden layers of the conditioners, such as: --hidden 128 128 (the default);
        of images one number of channels (64; 32 up to 16 x 16).
    scale_bound
        Bound on the sum over depth of the log-scales.
    mixing
        Form of the 1x1 convolutions of glow (lu), or of linear maps in front of the couplings of
        real_nvp or spline (none).
    condition_bound
        With --mixing svd: the largest condition number of each such map.
    memory
        What is kept for the backward pass: the half that each coupling reads (recompute, the
        default), everything (store, the default for images up to 32 x 32), or the points at every
        32nd coupling, from which the others are found by inversion (invert).
    padding
        Features, of images channels, added beside the data; the likelihood is then a bound.
    padding_kind
        What they hold: gaussian, N(0, 1) (the default); uniform, on [-1, 1]; zero, which leaves no
        likelihood; copy, the standardised data again with noise; learned, a normal given the data.
    padding_scale
        Standard deviation of gaussian (1) and of the noise of copy (0.1; with 0 there is no
        likelihood), half the width of uniform (1).
    max_epochs
        Most passes over the training rows, the search included (as many as make 2,000 to 12,000
        steps; images 60).
    max_time_s
        Seconds after which training ends, the search included. The learning rate falls to zero
        at whichever limit comes first.
    batch_size
        Rows a step (512; 64 images), of all processes together where torchrun starts several.
    learning_rate
        Highest learning rate (5e-3; of images 2e-3).
    patience
        Epochs without improvement after which training ends (30, or 500 steps if that is more).
    precision
        bf16 or fp16 trains with the products of the conditioners in bfloat16 or float16; scores,
        samples and reports are in full precision all the same.
    compile
        Compile the steps with torch.compile: a first one that takes long, and shorter ones after
        it, of splines above all. Needs a C++ compiler.
    device
        Where to train: cpu (the default) or cuda, also as cuda:1.
    seed
        Decides the initial weights, the order of rows and the split.
    tensorboard
        A folder for the figures of each epoch as TensorBoard reads them.
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
