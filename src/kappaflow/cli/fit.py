"""`kappaflow fit`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from kappaflow.cli.fit_options import (
    COMMON,
    CONDITIONING,
    DEFAULT_MODEL,
    DEFAULTS,
    IMAGE_DATA,
    IMAGE_MODELS,
    LEARNING_RATE,
    MODEL,
    OF_ANY_MODEL,
    OUTPUT,
    TABLE_DATA,
    TABLE_MODELS,
    TABLE_TRAINING,
    TRAINING,
    ImageOptions,
    TableOptions,
    given_of,
)
from kappaflow.cli.fit_options import IMAGES as OF_IMAGES
from kappaflow.cli.fit_summary import print_summary
from kappaflow.cli.show import by_the_first, say
from kappaflow.cli.whole import Whole, Wholes
from kappaflow.errors import ArgumentError, FileError

if TYPE_CHECKING:
    from kappaflow.runs import ImageConfig, ModelConfig, ModelSearch, TableConfig

TABLES = tuple(TABLE_MODELS)
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
    from kappaflow.runs import ModelSearch, fit_run

    _refuse_missing(data)
    tables, images = of_tables or TableOptions(), of_images or ImageOptions()
    is_image_data = is_images(data)
    _refuse_other_kind(data, model, is_image_data, images if not is_image_data else tables)
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
        "condition_budget": tables.condition_budget,
    }
    with by_the_first():
        if is_image_data:
            source = _image_config(data, images, seed)
            chosen = _image_model(model or IMAGES[0], recipe, images)
        else:
            source = _table_config(data, tables, seed)
            chosen = _table_model(model, recipe, tables, search_time)
            if not isinstance(chosen, ModelSearch) and learning_rate is None:
                settings["learning_rate"] = LEARNING_RATE
        summary = fit_run(
            source,
            chosen,
            out,
            device=device,
            progress=False if quiet else None,
            say=(lambda text: None) if quiet else say,
            callbacks=_callbacks(tensorboard),
            seed=seed,
            **{name: value for name, value in settings.items() if value is not None},
        )
        print_summary(summary, tables.against, json=json)


def _table_config(data: str, options: TableOptions, seed: int) -> "TableConfig":
    """Returns the rows that the options name."""
    from kappaflow.runs import TableConfig

    return TableConfig(
        data,
        columns=options.columns,
        exclude=options.exclude or [],
        context=options.context or [],
        where=options.where or [],
        against=options.against,
        duplicates=options.duplicates or "keep",
        repair=options.repair,
        split_seed=seed,
        jitter=options.jitter,
        bounds=options.bounds,
        on_disk=options.on_disk,
        decimal=options.decimal,
        missing=options.missing or [],
    )


def _table_model(
    model: str | None, recipe: dict[str, Any], options: TableOptions, search_time: float
) -> "ModelConfig | ModelSearch":
    """Returns the model, or a search if no option is one of a model."""
    from kappaflow.runs import ModelConfig, ModelSearch

    search = ModelSearch(seconds=search_time)
    others = (*TABLE_DATA, *TABLE_TRAINING)
    own = {name: value for name, value in vars(options).items() if name not in others}
    name, given = model or DEFAULT_MODEL, {**recipe, **own}
    arguments = given_of(name, given, TABLE_MODELS)
    named = [key for key, value in given.items() if value is not None and key not in OF_ANY_MODEL]
    if model is None and not named:
        return replace(search, arguments=arguments)
    if "partition" in TABLE_MODELS[name]:
        if "tail_bound" in arguments:
            arguments["bound"] = arguments.pop("tail_bound")
        mixed = {"partition": "half"} if "mixing" in arguments else {}
        arguments = {**DEFAULTS, **mixed, **arguments}
    return ModelConfig(name, arguments)


def _image_config(data: str, options: ImageOptions, seed: int) -> "ImageConfig":
    """Returns the images that the options name."""
    from kappaflow.runs import ImageConfig

    size: Any = options.size
    return ImageConfig(
        data,
        size=size[0] if size is not None and len(size) == 1 else size,
        grey=options.grey,
        crop=True if options.crop is None else options.crop,
        flip=options.flip,
        by_class=options.by_class,
        split_seed=seed,
    )


def _image_model(model: str, recipe: dict[str, Any], options: ImageOptions) -> "ModelConfig":
    """Returns the model with the given arguments; an error for an option of other models."""
    from kappaflow.runs import ModelConfig

    own = {name: value for name, value in vars(options).items() if name not in IMAGE_DATA}
    given = given_of(model, {**recipe, **own}, IMAGE_MODELS)
    if len(given.get("hidden", (0,))) != 1:
        raise ArgumentError(
            f"'hidden' should be one number of channels for {model}, got "
            f"{' '.join(map(str, given['hidden']))}."
        )
    if "hidden" in given:
        given["hidden"] = given["hidden"][0]
    return ModelConfig(model, given)


def _callbacks(folder: Path | None) -> list[Any]:
    """Returns the callbacks that write logs."""
    from kappaflow.training import TensorBoard

    return [] if folder is None else [TensorBoard(folder)]


def _refuse_missing(data: str) -> None:
    """Raises an error for data that does not exist, with the names of the data sets."""
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
    data: str, model: str | None, is_image_data: bool, others: TableOptions | ImageOptions
) -> None:
    """Raises an error for a model or an option of tables with images, or the reverse."""
    kind, other = ("images", "tables") if is_image_data else ("tables", "images")
    own = IMAGES if is_image_data else TABLES
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
