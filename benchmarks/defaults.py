"""The effect of each default of `kappaflow fit` on MAGIC, changed one at a time."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from benchmarks.lines import append_line, key_of, read_lines
from benchmarks.suite import KEPT

Settings = dict[str, dict[str, object]]
REAL_NVP: Settings = {
    "defaults": {},
    "depth 8": {"depth": 8},
    "bound 6": {"scale_bound": 6.0},
    "bound 24": {"scale_bound": 24.0},
    "fixed halves": {"partition": "half"},
    "even and odd": {"partition": "alternating"},
    "a permutation for each": {"partition": "random"},
    "no dropout": {"dropout": 0.0},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "residual conditioners": {"residual": True},
}
SPLINE: Settings = {
    "splines": {},
    "bins of 0.01, slopes of 0.001": {"min_bin": 0.01, "min_slope": 0.001},
    "bins of 0.1, slopes of 0.01": {"min_bin": 0.1, "min_slope": 0.01},
    "bins of 0.2, slopes of 0.1": {"min_bin": 0.2, "min_slope": 0.1},
    "bins of 0.6, slopes of 0.4": {"min_bin": 0.6, "min_slope": 0.4},
    "box of 3": {"bound": 3.0},
    "box of 10": {"bound": 10.0},
    "4 bins": {"bins": 4},
    "16 bins": {"bins": 16},
    "8 couplings": {"depth": 8},
    "dropout 0.2": {"dropout": 0.2},
    "splines, no dropout": {"dropout": 0.0},
    "splines, learning rate 2e-3": {"learning_rate": 2e-3},
}
SETTINGS = REAL_NVP | SPLINE
KEY = ("setting", "seed", "epochs", "data")
DEFAULTS: dict[str, object] = {
    "depth": 16,
    "partition": "random-half",
    "dropout": 0.1,
    "learning_rate": 5e-3,
}


def defaults(
    *,
    model: Literal["real_nvp", "spline"] = "real_nvp",
    data: str = "magic",
    only: list[str] | None = None,
    seeds: int = 3,
    epochs: int = 60,
    file: Path = KEPT / "defaults.jsonl",
    at_once: int = 2,
) -> None:
    """Train every setting of a model with every seed, and print the table.

    Each training is one line of a file, and trainings in the file are not repeated.

    Parameters
    ----------
    model
        Model with the defaults.
    data
        Name of a shipped table.
    only
        Settings to train instead of all.
    seeds
        Trainings for each setting. The seed decides weights and order of rows, not the split.
    epochs
        Number of epochs of each training.
    file
        File of results.
    at_once
        Number of simultaneous trainings, each on one thread.
    """
    names = {"real_nvp": REAL_NVP, "spline": SPLINE}[model]
    done = read_lines(file)[0]
    have = {key_of(line, KEY) for line in done}
    wanted = [(name, seed, epochs, data) for seed in range(seeds) for name in only or names]
    with ProcessPoolExecutor(at_once) as pool:
        for line in pool.map(trained, [job for job in wanted if job not in have]):
            append_line(file, line)
            done.append(line)
    print_table([one for one in done if (one["epochs"], one["data"]) == (epochs, data)])


def trained(job: tuple[str, int, int, str]) -> dict[str, object]:
    """Returns the results of one training, on one thread."""
    import torch

    from kappaflow import real_nvp, spline
    from kappaflow.flows.standardization import standardization_log_det as units
    from kappaflow.runs.table_data import TableConfig
    from kappaflow.training import batch_of, checked_settings, fit_split, log_prob_of

    torch.set_num_threads(1)
    name, seed, epochs, data = job
    arguments = {**DEFAULTS, **SETTINGS[name]}
    settings = checked_settings(
        max_epochs=epochs, seed=seed, learning_rate=arguments.pop("learning_rate")
    )
    tables = TableConfig(data).load()
    torch.manual_seed(seed)
    recipe = spline if name in SPLINE else real_nvp
    flow = recipe(len(tables.train.columns), memory="store", seed=seed, **arguments)  # pyright: ignore[reportArgumentType]
    result = fit_split(flow, tables.train, tables.validation, settings, progress=False)
    best = result.history[result.best_epoch - 1]
    test = -log_prob_of(flow, batch_of(tables.test, flow)).mean().item() + units(flow)
    return {
        "setting": name,
        "data": data,
        "seed": seed,
        "epochs": epochs,
        "validation": best["validation_nll_standardized"],
        "test": test,
        "train": best["train_nll_standardized"],
        "condition_number_p95": best["condition_number_p95"],
        "time_s": result.history[-1]["time_s"],
    }


def print_table(lines: list[dict]) -> None:
    """Prints mean and standard deviation over the seeds, in nats on standardized columns."""
    print(f"{'setting':<30} validation       test             train   condition 95 %")
    for name in SETTINGS:
        of = [line for line in lines if line["setting"] == name]
        if of:
            print(
                f"{name:<30} {spread(of, 'validation')}  {spread(of, 'test')}  "
                f"{mean(line['train'] for line in of):.3f}   "
                f"{mean(line['condition_number_p95'] for line in of):.0f}"
            )


def spread(lines: list[dict], key: str) -> str:
    """Returns mean and standard deviation of a figure, as text."""
    values = [line[key] for line in lines]
    return f"{mean(values):.3f} +- {stdev(values) if len(values) > 1 else 0:.3f}"
