"""`diagnose_run`, which runs the doctor on a run folder, with its held-out or other data."""

from functools import partial
from pathlib import Path
from typing import Unpack

from kappaflow.diagnosis import Diagnosis, ShowStep, diagnose_flow, quietly, with_findings
from kappaflow.runs.derived_run import StoredRun
from kappaflow.runs.kinds import points_of
from kappaflow.runs.stored import load_on, read_run, stored_findings
from kappaflow.table_options import TextFormat


def diagnose_run(
    folder: Path,
    data: str | None = None,
    *,
    thorough: bool = False,
    progress: ShowStep = quietly,
    device: str | None = None,
    **text: Unpack[TextFormat],
) -> tuple[Diagnosis, str]:
    """Returns the diagnosis of a run, and a description such as "held-out rows of the run".

    `folder` may be that of any saved model. `data` is a table with the columns of the run, or
    images for a run on images. By default, and if it is what the run was trained on, it is the
    held-out data of the run, or samples of the flow if that is missing or has changed. `thorough`
    is as for `kappaflow.doctor`. `decimal`, `separator` and `comment` say how a text file is
    written, by default as the data of the run. `progress` receives the name of each measurement
    before it starts. The device is "cpu" (the default) or "cuda".

    Raises:
        ArgumentError: The data does not fit the run, an option of text files is given for images,
            or the device does not exist.
    """
    run, flow = StoredRun(folder), load_on(folder, device)
    kind = run.kind
    examine = partial(diagnose_flow, flow, thorough=thorough, progress=progress)
    kind.refuse(dict(text))
    if data is not None and not _is_own(run, data):
        other = kind.read(read_run(folder), flow, data, **text)
        result = kind.diagnose(flow, other, examine, thorough=thorough)
        result = with_findings(result, kind.data_findings(flow, other))
        return result, f"{kind.plural} of {data}"
    if run.data is None:
        rows = kind.sample_batch(flow, points_of(flow))
        result = examine() if rows is None else examine(rows.x, rows.context)
        return result, "samples of the flow (the data of the run is missing or has changed)"
    test, train = run.data.test, run.data.train
    result = kind.diagnose(flow, test, examine, thorough=thorough, train=train)
    findings = stored_findings(folder, run.data.warnings)
    findings += kind.data_findings(flow, train)
    return with_findings(result, findings), f"held-out {kind.plural} of the run"


def _is_own(run: StoredRun, data: str) -> bool:
    """Returns whether data is what a run was split from: most of it are training examples."""
    own = run.data and run.data.config.data
    return bool(own) and (data == own or Path(data).resolve() == Path(own).resolve())
