"""A small study: powers of numbers."""

from kappaflow.errors import NumericalError
from kappaflow.report.charts import Chart, Heat, Panel, Series
from kappaflow_studies import Study, StudySettings
from kappaflow_studies.engine.report import StudyFindings, StudyTable


class Powers(StudySettings):
    """Which powers of which numbers."""

    numbers: tuple[int, ...]
    exponents: tuple[float, ...] = (2.0,)


MEASURED = []


def measure(case):
    """Returns a power, and records the case."""
    MEASURED.append(case)
    if case["number"] == 13:
        raise NumericalError("thirteen is no number to take powers of.")
    return [{"power": float(case["number"]) ** case["exponent"], "parts": [1.0, 2.0]}]


def cases(settings, seed):
    """Returns a case for each pair."""
    return [
        {"number": n, "exponent": e, "seed": seed}
        for n in settings.numbers
        for e in settings.exponents
    ]


def findings(frame, settings):
    """Returns a chart of lines, one of pictures, and a table."""
    y = frame["power"].to_list()
    series = Series(name="<b>power</b>", x=frame["number"].to_list(), y=y, low=y, high=y)
    heat = Heat(values=[[0.0, 1.0], [2.0, None]], x=(0, 1), y=(0, 1))
    return StudyFindings(
        found=[f"The largest power is {frame['power'].max():g}."],
        differs=["Nothing <i>differs</i>."],
        charts=[
            Chart(
                name="powers",
                title="Powers",
                caption="Of numbers.",
                panels=[Panel(x="number", y="power", y_log=True, series=[series])],
            ),
            Chart(name="heat", title="Heat", caption="A picture.", panels=[Panel(heat=heat)]),
        ],
        tables=[StudyTable(title="All", columns=["number", "power"], rows=[["2", "4"]])],
    )


def powers(folder):
    """Returns the study, with presets in a file of a folder."""
    presets = folder / "presets.toml"
    presets.write_text("[minutes]\nnumbers = [2, 3]\n[full]\nnumbers = [2, 3, 5]\n")
    return Study(
        name="powers",
        title="Powers of numbers",
        about="powers",
        claim="Powers grow.",
        settings=Powers,
        presets=presets,
        cases=cases,
        measure=measure,
        findings=findings,
    )
