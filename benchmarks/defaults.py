"""What each default of `kappaflow fit` is worth on MAGIC: one thing changed at a time."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, stdev

SETTINGS: dict[str, dict[str, object]] = {
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
DEFAULTS: dict[str, object] = {
    "depth": 16,
    "partition": "random-half",
    "dropout": 0.1,
    "learning_rate": 5e-3,
}


def defaults(*, seeds: int = 3, epochs: int = 60, out: Path = Path("runs/defaults.jsonl")) -> None:
    """Train every setting with every seed, two at a time, and print the table.

    A line a training goes to a file, and what is in the file is not trained again.

    Parameters
    ----------
    seeds
        Trainings a setting; the seed decides weights and order of rows, the split stays.
    epochs
        Of each.
    out
        The file of results.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    have = {(line["setting"], line["seed"], line["epochs"]) for line in done}
    wanted = [(name, seed, epochs) for seed in range(seeds) for name in SETTINGS]
    with ProcessPoolExecutor(2) as pool, out.open("a") as file:
        for line in pool.map(trained, [job for job in wanted if job not in have]):
            file.write(json.dumps(line) + "\n")
            file.flush()
            done.append(line)
    print_table([line for line in done if line["epochs"] == epochs])


def trained(job: tuple[str, int, int]) -> dict[str, object]:
    """Returns the figures of one training, on one thread."""
    import torch

    from kappaflow import real_nvp
    from kappaflow.runs.job import Source, tables_of
    from kappaflow.training import checked_settings, fit_tables, log_prob_of, rows_of
    from kappaflow.training import units_log_det as units

    torch.set_num_threads(1)
    name, seed, epochs = job
    arguments = {**DEFAULTS, **SETTINGS[name]}
    settings = checked_settings(
        max_epochs=epochs, seed=seed, learning_rate=arguments.pop("learning_rate")
    )
    tables = tables_of(Source("magic"))
    torch.manual_seed(seed)
    flow = real_nvp(10, memory="store", seed=seed, **arguments)  # pyright: ignore[reportArgumentType]
    result = fit_tables(flow, tables.train, tables.validation, settings, progress=False)
    best = result.history[result.best_epoch - 1]
    test = -log_prob_of(flow, rows_of(tables.test, flow)).mean().item() + units(flow)
    return {
        "setting": name,
        "seed": seed,
        "epochs": epochs,
        "validation": best["validation_nll_standardised"],
        "test": test,
        "train": best["train_nll_standardised"],
        "condition_number_p95": best["condition_number_p95"],
        "time_s": result.history[-1]["time_s"],
    }


def print_table(lines: list[dict]) -> None:
    """Prints mean and standard deviation over the seeds, in nats on standardised columns."""
    print(f"{'setting':<24} validation       test             train   condition 95 %")
    for name in SETTINGS:
        of = [line for line in lines if line["setting"] == name]
        if of:
            print(
                f"{name:<24} {spread(of, 'validation')}  {spread(of, 'test')}  "
                f"{mean(line['train'] for line in of):.3f}   "
                f"{mean(line['condition_number_p95'] for line in of):.0f}"
            )


def spread(lines: list[dict], key: str) -> str:
    """Returns mean and standard deviation of a figure."""
    values = [line[key] for line in lines]
    return f"{mean(values):.3f} +- {stdev(values) if len(values) > 1 else 0:.3f}"
