"""The text of docs/doctor-truth-table.md, from stored results; Sphinx writes the page.

`python docs/doctor_truth.py` runs the doctor on all flows of tests/diagnosis that the results
lack, which takes some minutes and resumes if it is stopped.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "doctor-truth.json"
Line = dict[str, Any]


def cases() -> Iterator[tuple[str, Line, Any]]:
    """Yields the key, the facts and the maker of each case: (flow, x, context, make, wanted)."""
    from diagnosis import healthy, truth

    for kind, (_, code) in truth.IN_A_LAYER.items():
        for source in truth.LIBRARIES:
            facts = {"part": "layer", "kind": kind, "code": code, "source": source}
            yield f"{kind} of {source}", facts, lambda k=kind, s=source: truth.in_a_layer(s, k)
    for name in healthy.HEALTHY:
        yield name, {"part": "healthy", "kind": name}, lambda n=name: healthy.healthy(n)
    for source in reversed(truth.SOURCES):
        for kind, code in truth.KINDS.items():
            if (kind, source) in truth.SKIPPED:
                continue
            text = (kind.__doc__ or "").strip().rstrip(".")
            facts = {"part": "flow", "kind": text, "code": code, "source": source}
            yield (
                f"{kind.__name__} in {source}",
                facts,
                lambda k=kind, s=source: truth.planted(k, s),
            )


def measure() -> None:
    """Runs the doctor on all cases that the file of results lacks."""
    import torch
    from benchmarks.machine import machine

    import kappaflow as kf
    from kappaflow.storage import write_bytes

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    stored = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {"lines": {}}
    stored["machine"] = machine()
    for key, facts, build in cases():
        if key in stored["lines"]:
            continue
        case = build()
        flow, x, *others = case if isinstance(case, tuple) else (case.flow, case.x, None)
        make, layer = getattr(case, "make", None), getattr(case, "layer", None)
        start = time.process_time()
        findings = kf.doctor(flow, x, *others, make=make).findings
        line = {**facts, "time_s": round(time.process_time() - start, 3)}
        if facts["part"] == "healthy":
            line["notes"] = sorted({one.code for one in findings if one.severity == "note"})
            line["alarms"] = sorted({one.code for one in findings if one.severity != "note"})
        else:
            named = [one.layer or "" for one in findings if one.code == facts["code"]]
            line["found"] = any((layer or "") in one for one in named)
        stored["lines"][key] = line
        print(
            f"{line['time_s']:7.2f} s  {key}: {line.get('found', line.get('alarms'))}", flush=True
        )
        write_bytes(RESULTS, (json.dumps(stored, indent=1) + "\n").encode())


def truth_page() -> str:
    """Returns the page as Markdown."""
    lines = list(json.loads(RESULTS.read_text("utf-8"))["lines"].values())
    planted = [line for line in lines if line["part"] != "healthy"]
    healthy = [line for line in lines if line["part"] == "healthy"]
    found, times = sum(line["found"] for line in planted), [line["time_s"] for line in lines]
    quiet = sum(not line["alarms"] for line in healthy)
    sources = {line["source"].split()[0] for line in planted}
    kinds = {(line["kind"], line["part"]) for line in planted}
    summary = [
        f"`tests/diagnosis` plants {len(kinds)} kinds of defects in flows of {len(sources)}",
        f"sources, and has {len(healthy)} healthy flows. The [doctor](doctor.md) found {found}",
        f"of {len(planted)} planted defects with the expected code, and reported more than a note",
        f"on {len(healthy) - quiet} of the healthy flows. It took {median(times):.2f} s in the",
        f"median and {max(times):.1f} s at most, on one thread at the default effort. Its page",
        "lists [what it cannot find](doctor.md).",
    ]
    return f"""# Truth table of the doctor

{fill(" ".join(summary), 120)}

```sh
python docs/doctor_truth.py
```

A row is a defect, planted in flows of several sources; times are those of the processor.
"torch.distributions" and "plain" are transforms of torch and three couplings written by hand. A
source is left out where its flow cannot have the defect, or was not measured.

## Defects of whole flows

{_table([line for line in planted if line["part"] == "flow"])}

## Defects of one layer

The doctor has to name the layer too.

{_table([line for line in planted if line["part"] == "layer"])}

## Healthy flows

Four more are left out, since the doctor reports more than a note on them. Samples of zuko's GF
with random weights end at 10 where its base has more (KF201, KF202, KF301, KF501, KF504), which
is true. SOSPF of the same library (KF202) and MAF of nflows with random weights (KF301) were not
examined further. An `invertible_network` that was not trained does not encode the rows to its
base (KF501), which is true too.

{_healthy(healthy)}
"""


def _table(lines: list[Line]) -> str:
    rows = [["defect", "code", "found in", "time [s]"], ["---", "---", "---", "---:"]]
    all_sources = list(dict.fromkeys(line["source"] for line in lines))
    for kind in dict.fromkeys(line["kind"] for line in lines):
        here = [line for line in lines if line["kind"] == kind]
        left_out = [one for one in all_sources if all(one != line["source"] for line in here)]
        missed = [line["source"] for line in here if not line["found"]]
        text = f"all but {', '.join(left_out + missed)}" if left_out + missed else "all"
        text += f" (**missed in {', '.join(missed)}**)" if missed else ""
        rows.append([kind, here[0]["code"], text, _times(here)])
    return f"The sources are {', '.join(all_sources)}.\n\n{_lines(rows)}"


def _healthy(lines: list[Line]) -> str:
    rows = [["kind", "flows", "notes", "above a note", "time [s]"]]
    rows.append(["---", "---:", "---", "---", "---:"])
    kinds: dict[str, list[Line]] = {}
    for line in lines:
        kinds.setdefault(line["kind"].split(", seed ")[0], []).append(line)
    for kind, here in kinds.items():
        codes = (
            ", ".join(sorted({code for line in here for code in line[name]}))
            for name in ("notes", "alarms")
        )
        rows.append([kind, str(len(here)), *codes, _times(here)])
    return _lines(rows)


def _times(lines: list[Line]) -> str:
    times = sorted(line["time_s"] for line in lines)
    ends = f"{times[0]:.2f}", f"{times[-1]:.2f}"
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _lines(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.path[:0] = [str(DOCS.parent / "tests"), str(DOCS.parent)]
    measure()
