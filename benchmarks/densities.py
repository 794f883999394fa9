"""Held-out likelihood and conditioning of flows with equal time for tuning and training."""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median, stdev
from time import process_time
from typing import Any

from benchmarks.densities_tables import TABLES, entropy_of_bananas, parts_of
from benchmarks.lines import Line, append_line, append_machine, read_lines, write_results
from benchmarks.machine import machine
from benchmarks.processes import console
from benchmarks.suite import KEPT
from benchmarks.tables import markdown

# The tuned settings: one of two models, and the learning rate. A model is a recipe with its number
# of layers and their width; for our flows also the named options in `OPTIONS`.
OPTIONS: dict[str, dict[str, object]] = {
    "": {},
    "box of 8, slopes from 0.05, bins from 0.1, dropout 0.05": {
        "bound": 8.0,
        "min_slope": 0.05,
        "min_bin": 0.1,
        "dropout": 0.05,
    },
    "whitening start": {"start": "whiten"},
}
FAMILIES = {
    "kappaflow": (
        ("spline", 6, 64, "box of 8, slopes from 0.05, bins from 0.1, dropout 0.05"),
        ("real_nvp", 32, 96, "whitening start"),
    ),
    "zuko RealNVP": (("zuko:realnvp", 8, 128, ""), ("zuko:realnvp", 16, 128, "")),
    "zuko MAF": (("zuko:maf", 5, 128, ""), ("zuko:maf", 10, 128, "")),
    "zuko NSF": (("zuko:nsf", 3, 128, ""), ("zuko:nsf", 5, 128, "")),
}
RATES = (5e-3, 1e-2)
TUNING = 0.5  # time of a tuning run for each of the four settings, as a share of a training
BATCH = 512
OF_MODEL = ("model", "depth", "width", "options")
KEY = ("table", "family", *OF_MODEL, "learning_rate", "seed", "seconds")


def densities(
    *,
    seconds: float = 60.0,
    seeds: int = 3,
    only: list[str] | None = None,
    at_once: int = 2,
    file: Path = KEPT / "densities.jsonl",
) -> None:
    """Train our couplings, and three flows of zuko, for the same time on three tables.

    Each family is tuned first: two models (two depths for zuko, splines and affine couplings for
    ours) and two learning rates, with half of the time each. The setting with the best validation
    is trained with three seeds. All trainings use `kappaflow.fit`, with the same schedule, average
    of weights and standardization, so only the flows differ. Time is processor time on one thread:
    the time of a step determines the number of epochs, and with it the schedule. Each training is
    one line of the file, and trainings in the file are not repeated.

    Parameters
    ----------
    seconds
        Processor time of each training.
    seeds
        Trainings of the tuned setting. The seed decides weights and order of rows, not the split.
    only
        Tables to use instead of all.
    at_once
        Number of simultaneous trainings, each on one thread.
    file
        File of results.
    """
    append_machine(file, {**machine(), "threads": 1})
    cases = list(product(only or TABLES, FAMILIES))
    tuning = [
        _job(table, family, *model, rate, 0, TUNING * seconds)
        for table, family in cases
        for model, rate in product(FAMILIES[family], RATES)
    ]
    tuned = _measured(tuning, file, at_once)
    finals = []
    for table, family in cases:
        best = _best(tuned, table, family, TUNING * seconds)
        finals += [
            {**{name: best[name] for name in KEY}, "seed": seed, "seconds": seconds}
            for seed in range(seeds)
        ]
    done = tuned + _measured(finals, file, at_once)
    machines = read_lines(file)[1]
    write_results(file.with_suffix(".json"), {"machine": machines[-1], "lines": done})
    for name, text in density_tables(done, seconds).items():
        console.print(f"\n{name}\n{text}", markup=False, soft_wrap=True)


def _job(*values: str | float) -> dict[str, Any]:
    return dict(zip(KEY, values, strict=True))


def _measured(jobs: list[dict[str, Any]], file: Path, at_once: int) -> list[Line]:
    """Returns the results of jobs, from the file or from new trainings."""
    have = {_key(line): line for line in read_lines(file)[0]}
    missing = [job for job in jobs if _key(job) not in have]
    # A forked process in which torch has run can wait forever for threads that it does not have.
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        for line in pool.map(trained, missing):
            append_line(file, line)
            have[_key(line)] = line
            found = "not finite" if line["failed"] else f"{line['validation']:.3f} nats"
            console.print(
                f"{line['table']}, {line['model']} of {line['depth']}, "
                f"{line['learning_rate']:g}: {found}, {line['epochs']} epochs in "
                f"{line['time_s']:.0f} s"
            )
    return [have[_key(job)] for job in jobs]


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(line[name] for name in KEY)


def _best(lines: list[Line], table: str, family: str, seconds: float) -> Line:
    """Returns the setting with the best validation."""
    of = [line for line in _of(lines, table, family, seconds) if not line["failed"]]
    return min(of, key=lambda line: line["validation"])


def trained(job: dict[str, Any]) -> Line:
    """Returns the results of one training on one thread, or the reason why it failed."""
    import torch

    from kappaflow.errors import NumericalError
    from kappaflow.flows.standardization import standardization_log_det as units
    from kappaflow.training import batch_of, checked_settings, fit_split, log_prob_of
    from kappaflow.training.measure import condition_at_test_rows

    torch.set_num_threads(1)
    train, validation, test = parts_of(job["table"])

    def flow_of() -> Any:  # noqa: ANN401
        torch.manual_seed(job["seed"])
        return _flow(job, len(train.columns))

    epochs = _epochs(flow_of(), train, validation, job["seconds"])
    settings = checked_settings(
        max_epochs=epochs,
        batch_size=BATCH,
        learning_rate=job["learning_rate"],
        patience=epochs,
        conditioning_every=epochs,
        seed=job["seed"],
    )
    flow, start = flow_of(), process_time()
    size = sum(p.numel() for p in flow.parameters())
    try:
        result = fit_split(flow, train, validation, settings, progress=False)
    except NumericalError as error:
        failed = {"failed": str(error), "time_s": round(process_time() - start, 1)}
        return {**job, "epochs": epochs, "parameters": size, **failed}
    time_s = process_time() - start
    rows = batch_of(test, flow)
    nll, (middle, worst, points) = -log_prob_of(flow, rows), condition_at_test_rows(flow, rows)
    return {
        **job,
        "epochs": epochs,
        "time_s": round(time_s, 1),
        "parameters": size,
        "failed": None,
        "validation": result.validation_nll + units(flow),
        "test": nll.mean().item() + units(flow),
        "test_error": nll.std().item() / len(nll) ** 0.5,
        "condition_number_median": middle,
        "condition_number_p95": worst,
        "condition_rows": points,
    }


def _flow(job: dict[str, Any], features: int) -> Any:  # noqa: ANN401
    """Returns a new flow."""
    from kappaflow.runs.recipes import COUPLINGS, RECIPES

    others = {"partition": "random-half", "memory": "store", "seed": job["seed"]}
    others = {**others, **OPTIONS[job["options"]]} if job["model"] in COUPLINGS else {}
    hidden = (job["width"], job["width"])
    return RECIPES[job["model"]](features, depth=job["depth"], hidden=hidden, **others)


def _epochs(flow: Any, train: Any, validation: Any, seconds: float) -> int:  # noqa: ANN401
    """Returns the number of epochs that fit into a time, from the time of a few steps."""
    import torch

    from kappaflow.training import batch_of, log_prob_of

    rows, held_out = batch_of(train, flow), batch_of(validation, flow)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-6)
    flow.train()

    def step() -> None:
        optimizer.zero_grad()
        (-flow.log_prob(rows.x[:BATCH])).mean().backward()
        optimizer.step()

    steps = -(-len(rows.x) // BATCH)
    one = steps * _median_time(step, 12)
    flow.eval()
    return max(1, int(seconds / (one + _median_time(lambda: log_prob_of(flow, held_out), 3))))


def _median_time(call: Callable[[], object], repetitions: int) -> float:
    """Returns the median processor time of a call, after two warm-up calls."""
    times = []
    for _ in range(repetitions + 2):
        start = process_time()
        call()
        times.append(process_time() - start)
    return median(times[2:])


def density_tables(lines: list[Line], seconds: float | None = None) -> dict[str, str]:
    """Returns a table for each data set: likelihood and conditioning of each family."""
    longest = max(line["seconds"] for line in lines) if seconds is None else seconds
    head = [
        "",
        "held-out NLL [nats]",
        "condition number, median",
        "95 %",
        "model, layers of width",
        "options",
        "parameters",
        "processor time [s]",
    ]
    return {
        table: markdown(head, list(_rows(lines, table, longest)))
        for table in TABLES
        if any(line["table"] == table and line["seconds"] == longest for line in lines)
    }


def _rows(lines: list[Line], table: str, seconds: float) -> Iterator[list[str]]:
    for family in FAMILIES:
        tried = _of(lines, table, family, seconds)
        of = [line for line in tried if not line["failed"]]
        if of:
            tests = [line["test"] for line in of]
            nll = f"{mean(tests):.3f} ± {stdev(tests) if len(tests) > 1 else 0:.3f}"
            if len(of) < len(tried):
                nll += f" ({len(tried) - len(of)} of {len(tried)} seeds ended not finite)"
            yield [
                family,
                nll,
                f"{median(line['condition_number_median'] for line in of):.3g}",
                f"{median(line['condition_number_p95'] for line in of):.3g}",
                f"{of[0]['model']}, {of[0]['depth']} of {of[0]['width']}",
                of[0]["options"],
                f"{of[0]['parameters']:,}",
                f"{median(line['time_s'] for line in of):.0f}",
            ]


def _of(lines: list[Line], table: str, family: str, seconds: float) -> list[Line]:
    """Returns the trainings of a family on a table for a time, including failed ones."""
    wanted = (table, family, seconds)
    return [line for line in lines if (line["table"], line["family"], line["seconds"]) == wanted]


def densities_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for the page."""
    lines = results["lines"]
    tables = density_tables(lines)
    return {
        "tables": {
            name: (TABLES[name].format(entropy=entropy_of_bananas()), text)
            for name, text in tables.items()
        },
        "seconds": max(line["seconds"] for line in lines),
        "error": {
            name: max(
                line["test_error"]
                for line in lines
                if line["table"] == name and not line["failed"]
            )
            for name in tables
        },
        "seeds": len({line["seed"] for line in lines}),
        "batch": BATCH,
        "tuning": TUNING,
    }
