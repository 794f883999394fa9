"""The page of a diagnosis: what is wrong with a flow, with what was measured drawn beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kappaflow.diagnosis import CODES, Diagnosis, Finding
from kappaflow.errors import ArgumentError
from kappaflow.report import figures, headline
from kappaflow.report.content import ProfileView
from kappaflow.report.document import document
from kappaflow.report.figures import Depth, Figure, evidence
from kappaflow.report.figures.evidence import Way
from kappaflow.report.places import check_place
from kappaflow.storage import write_bytes

Draw = Callable[[Diagnosis, bool], Figure | None]


@dataclass(frozen=True)
class Drawing:
    """A figure that a page may have.

    Attributes:
        codes: Findings that it explains, or beginnings of their codes.
        draw: Draws it of a diagnosis; whether there is such a finding is told too.
        is_over_depth: Whether it stands among those over depth where it explains none.
    """

    codes: tuple[str, ...]
    draw: Draw
    is_over_depth: bool = False


@dataclass(frozen=True)
class Card:
    """A finding on the page, with what its rule says and the figures that explain it."""

    finding: Finding
    rule: str | None
    figures: tuple[Figure, ...]


def write_diagnosis(
    diagnosis: Diagnosis, path: str | Path, *, title: str = "A flow", points: str = ""
) -> Path:
    """Writes the page of a diagnosis, one HTML file that asks nothing of the network.

    Args:
        diagnosis: What `kappaflow.doctor` returned.
        path: The file, which ends in .html; whole or not at all, and one that is there is
            replaced.
        title: What was examined, in a word.
        points: At which points, in words; left out if empty.

    Returns:
        The path.

    Raises:
        ArgumentError: It is no diagnosis; or the path does not end in .html, or is a folder.
        FileError: The file cannot be written.

    Example:
        >>> import tempfile, torch, kappaflow as kf
        >>> diagnosis = kf.doctor(kf.real_nvp(4, depth=2, hidden=(8,)), torch.randn(64, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kf.write_diagnosis(diagnosis, f"{folder}/page.html").name
        'page.html'
    """  # noqa: DOC502 - raised by the calls below
    if not isinstance(diagnosis, Diagnosis):
        raise ArgumentError(
            f"'diagnosis' should be what kappaflow.doctor returns, got {type(diagnosis).__name__}."
        )
    check_place("path", path, ".html")
    page = render_diagnosis(diagnosis, title=title, points=points)
    write_bytes(Path(path), page.encode())
    return Path(path)


def render_diagnosis(diagnosis: Diagnosis, *, title: str = "A flow", points: str = "") -> str:
    """Returns the page of a diagnosis.

    Args:
        diagnosis: What `kappaflow.doctor` returned.
        title: What was examined.
        points: At which points, in words.

    Returns:
        One HTML document, about 5 MB, nearly all of it plotly.js, that makes no request.
    """
    codes = [finding.code for finding in diagnosis.findings]
    explaining: dict[int, list[Figure]] = {}
    over_depth, others = [], []
    for drawing in DRAWINGS:
        place = next((i for i, code in enumerate(codes) if code.startswith(drawing.codes)), None)
        figure = drawing.draw(diagnosis, place is not None)
        if figure is None:
            continue
        if place is not None:
            explaining.setdefault(place, []).append(figure)
        else:
            (over_depth if drawing.is_over_depth else others).append(figure)
    others += _of_unknown_tables(diagnosis)
    cards = [
        Card(finding, CODES.get(finding.code), tuple(explaining.get(place, ())))
        for place, finding in enumerate(diagnosis.findings)
    ]
    where = [("examined at", points)] if points else []
    return document(
        "doctor.html.jinja",
        {"cards": sum(explaining.values(), []), "depth": over_depth, "others": others},
        diagnosis=diagnosis,
        title=title,
        cards=cards,
        depth=_depth(diagnosis),
        points_in_words=points or "points",
        worst_layers=figures.worst_layers,
        level=headline.level(diagnosis),
        level_in_words=headline.level_in_words(diagnosis),
        key_figures=headline.diagnosis_key_figures(diagnosis, _depth(diagnosis)),
        facts=[*where, *((k.replace("_", " "), v) for k, v in diagnosis.measured.items())],
    )


def _depth(diagnosis: Diagnosis) -> Depth | None:
    if diagnosis.profile is None:
        return None
    return Depth(ProfileView.model_validate(diagnosis.profile.to_dict()))


def _over_depth(draw: Callable[[Depth], Figure]) -> Draw:
    def drawn(diagnosis: Diagnosis, is_found: bool) -> Figure | None:
        depth = _depth(diagnosis)
        return None if depth is None else draw(depth)

    return drawn


def _of_table(name: str, draw: Callable[[evidence.Table], Figure]) -> Draw:
    def drawn(diagnosis: Diagnosis, is_found: bool) -> Figure | None:
        return draw(diagnosis.tables[name]) if name in diagnosis.tables else None

    return drawn


def _log_dets(diagnosis: Diagnosis, is_found: bool) -> Figure | None:
    table = diagnosis.tables.get("log_dets")
    return None if table is None else evidence.log_dets(table, is_found=is_found)


def _two_ways(
    name: str,
    title: str,
    table: str,
    right: tuple[str, str],
    other: tuple[str, str],
    *,
    always: bool = True,
) -> Draw:
    """Returns what draws two columns of a table against each other.

    Args:
        name: Of the figure.
        title: Of the figure.
        table: Its name.
        right: The column on the horizontal axis, and what it is called.
        other: The column on the vertical one, and what it is called.
        always: Whether it is drawn where the two were not found to differ.
    """

    def drawn(diagnosis: Diagnosis, is_found: bool) -> Figure | None:
        columns = diagnosis.tables.get(table, {})
        if right[0] not in columns or other[0] not in columns or not (always or is_found):
            return None
        ways = Way(right[1], columns[right[0]]), [Way(other[1], columns[other[0]])]
        return evidence.agreement(name, title, *ways, unit="nats", is_found=is_found)

    return drawn


def _of_unknown_tables(diagnosis: Diagnosis) -> Iterator[Figure]:
    for name, table in diagnosis.tables.items():
        if name not in DRAWN_TABLES and len(table) > 1:
            figure = evidence.any_table(name, table)
            if figure is not None:
                yield figure


LAYERS = ("layers", "log_prob through the layers")
DRAWINGS = (
    Drawing(("KF301", "KF302"), _over_depth(figures.condition), is_over_depth=True),
    Drawing(("KF301",), _of_table("singular_values", evidence.singular_values)),
    Drawing((), _over_depth(figures.envelope), is_over_depth=True),
    Drawing(("KF201", "KF202"), _over_depth(figures.round_trips), is_over_depth=True),
    Drawing(("KF303",), _of_table("far_out", evidence.far_out)),
    Drawing(("KF203",), _log_dets),
    Drawing(
        ("KF204",),
        _two_ways(
            "in-halves",
            "The same rows among others",
            "densities",
            LAYERS,
            ("in_halves", "the batch cut in two"),
            always=False,
        ),
    ),
    Drawing(
        ("KF104",),
        _two_ways(
            "again",
            "The same rows a second time",
            "densities",
            LAYERS,
            ("again", "at the second call"),
            always=False,
        ),
    ),
    Drawing(
        ("KF205",),
        _two_ways(
            "library",
            "log_prob of the library against base and layers",
            "densities",
            LAYERS,
            ("library", "log_prob of the library"),
        ),
    ),
    Drawing(
        ("KF206",),
        _two_ways(
            "with-samples",
            "The density that comes with samples",
            "sample_densities",
            ("layers", "log_prob of the sample"),
            ("with_samples", "what came with it"),
        ),
    ),
    Drawing(("KF207",), _of_table("integral", evidence.integral)),
    Drawing(("KF101", "KF102", "KF5"), _of_table("log_prob", evidence.log_probs)),
)
DRAWN_TABLES = (
    "depth",
    "singular_values",
    "far_out",
    "log_dets",
    "densities",
    "sample_densities",
    "log_prob",
    "integral",
)
