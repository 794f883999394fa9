"""Compares posteriors of kappaflow and of sbi with the reference posteriors of sbibm."""

import contextlib
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import kappaflow as kf
from benchmarks import lines as files
from benchmarks.lines import Line
from benchmarks.machine import machine
from benchmarks.posterior_tasks import TASKS, Task, package_folder
from benchmarks.processes import console
from benchmarks.suite import KEPT
from kappaflow.data.batches import Batch
from kappaflow.report.charts import Chart, Panel, Series
from kappaflow.training import loop
from kappaflow.training.measure import condition_numbers

OURS = "kappaflow"
ESTIMATORS = (OURS, "sbi maf", "sbi nsf", "sbi mdn")
PUBLISHED = {1_000: 0.838, 10_000: 0.736}  # mean C2ST of neural posterior estimation
SECONDS = {1_000: 30.0, 10_000: 60.0}  # processor time of a training
CONDITION_ROWS = 512
MOST_ROUNDS = 100  # of samples, where many are outside the prior
NAN = math.nan
KEY = ("simulations", "seed", "task", "estimator", "observations", "folds")


class Posterior(NamedTuple):
    """Posteriors of all observations (1, C). `flow` is None if it is not a flow."""

    sample: Callable[[int, Tensor], Tensor]
    log_prob: Callable[[Tensor, Tensor], Tensor]
    flow: Any
    details: dict[str, Any]


def posteriors(
    *,
    simulations: list[int] | None = None,
    observations: int = 10,
    folds: int = 5,
    only: list[str] | None = None,
    estimators: list[str] | None = None,
    seed: int = 0,
    results: Path = KEPT,
) -> None:
    """Compare posteriors with the references of the ten tasks of sbibm, by C2ST.

    All estimators get the same simulations and the same processor time on one thread. Trainings
    that are in the file of results are not repeated.

    Parameters
    ----------
    simulations
        Numbers of simulations, 1000 and 10000 by default.
    observations
        Number of observations of each task, at most 10.
    folds
        Classifiers that are trained for a C2ST, at most 5; fewer make it noisier.
    only
        Names of tasks, instead of all.
    estimators
        Names of estimators, instead of all.
    seed
        Of simulations, weights and batches.
    results
        Folder of the files of results.
    """
    package_folder()  # which tells how to install it
    torch.set_num_threads(1)
    file = results / "posteriors.jsonl"
    files.append_machine(file, machine())
    done = {files.key_of(line, KEY) for line in files.read_lines(file)[0]}
    sizes, tasks, names = simulations or SECONDS, only or TASKS, estimators or ESTIMATORS
    for key in product(sizes, [seed], tasks, names, [observations], [folds]):
        if key not in done:
            line = measured(dict(zip(KEY, key, strict=True)))
            files.append_line(file, line)
            text = f"{key[2]}, {key[0]:,} simulations, {key[3]}: C2ST {mean(line['c2st']):.3f}"
            console.print(f"{text}, {line['processor_s']} s ({line['ended']})", soft_wrap=True)
    latest = {files.key_of(line, KEY[:4]): line for line in files.read_lines(file)[0]}
    values = {"machines": files.parts_by_machine(file, "estimator"), "lines": [*latest.values()]}
    files.write_results(file.with_suffix(".json"), values)


def measured(job: Line) -> Line:
    """Returns the result of one training, with lists of figures at the observations."""
    task, rows, seed = TASKS[job["task"]], job["simulations"], job["seed"]
    theta, x = task.simulations(rows, seed)
    seconds, start = SECONDS.get(rows, max(SECONDS.values())), time.process_time()
    train = train_ours if job["estimator"] == OURS else train_sbi
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        posterior = train(job["estimator"].removeprefix("sbi "), task, theta, x, seconds, seed)
    line = job | {"seconds": seconds, "processor_s": round(time.process_time() - start)}
    for number in range(1, 11):
        folds = job["folds"] if number <= job["observations"] else 0
        for name, value in compared(posterior, task, number, folds).items():
            line.setdefault(name, []).append(value if math.isfinite(value) else None)
    return line | posterior.details


def train_ours(
    name: str, task: Task, theta: Tensor, x: Tensor, seconds: float, seed: int, **options: object
) -> Posterior:
    """Returns the posterior of the default for tables with a context."""
    loop.clock = time.process_time
    bounds = {} if task.bound is None else dict.fromkeys(range(theta.shape[1]), task.bound)
    settings: dict[str, Any] = {"max_time_s": seconds, "seed": seed, "progress": False, **options}
    result = kf.fit_auto((theta, x), bounds=bounds, **settings)
    flow, details = result.flow, {"chosen": result.notes[-1], "ended": result.stopped_because}
    return Posterior(
        lambda count, observation: flow.sample(count, observation[0]),
        lambda rows, observation: flow.log_prob(rows, observation.expand(len(rows), -1)),
        flow,
        details,
    )


def train_sbi(
    name: str, task: Task, theta: Tensor, x: Tensor, seconds: float, seed: int
) -> Posterior:
    """Returns sbi's neural posterior estimation with its defaults."""
    from sbi.inference import NPE
    from sbi.neural_nets import posterior_nn

    until = time.process_time() + seconds

    class TimedNPE(NPE):
        late = False

        def _converged(self, epoch: int, stop_after_epochs: int) -> bool:
            """Ends the training at the time limit too, with the best weights."""
            self.late = time.process_time() >= until
            return super()._converged(epoch, 0 if self.late else stop_after_epochs)

    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # for its logs
        trainer = TimedNPE(task.prior, posterior_nn(name), show_progress_bars=False)
        trainer.append_simulations(theta, x)
        with contextlib.redirect_stdout(None):
            estimator: Any = trainer.train()
    return Posterior(
        lambda count, observation: estimator.sample((count,), condition=observation)[:, 0],
        lambda rows, observation: estimator.log_prob(rows[:, None], observation)[:, 0],
        None if name == "mdn" else kf.wrap(estimator, theta[:5], x[:5]),
        {"ended": "max_time_s" if trainer.late else "patience", "epochs": trainer.epoch},
    )


@torch.no_grad()
def compared(posterior: Posterior, task: Task, number: int, folds: int) -> dict[str, float]:
    """Returns figures of a posterior at an observation; without folds only the cheap ones."""
    observation, reference = task.observation(number), task.reference(number)
    torch.manual_seed(number)
    samples, inside = inside_prior(posterior, task, observation, len(reference))
    log_prob = posterior.log_prob(reference, observation).mean().item()
    figures = {"reference_nll": math.log(max(inside, 1e-9)) - log_prob, "inside": inside}
    if folds:
        rows, flow = samples[:CONDITION_ROWS], posterior.flow
        at = Batch(rows, observation.expand(len(rows), -1))
        condition = NAN if flow is None else condition_numbers(flow, at).quantile(0.95).item()
        score = c2st(reference.numpy(), samples.numpy(), folds)
        figures |= {"c2st": score, "condition_p95": condition}
    return figures


def inside_prior(
    posterior: Posterior, task: Task, observation: Tensor, count: int
) -> tuple[Tensor, float]:
    """Returns samples inside the support of the prior, and the share of all that were."""
    support: Any = task.prior.support
    rows, rounds = torch.empty(0, *task.prior.event_shape), 0
    while len(rows) < count and rounds < MOST_ROUNDS:
        samples, rounds = posterior.sample(count, observation), rounds + 1
        rows = torch.cat([rows, samples[support.check(samples)]])
    return rows[:count], len(rows) / rounds / count


def c2st(reference: np.ndarray, samples: np.ndarray, folds: int = 5) -> float:
    """Returns the accuracy of a classifier between samples, 0.5 at best, as sbibm computes it."""
    from sklearn.model_selection import KFold
    from sklearn.neural_network import MLPClassifier

    if not np.isfinite(samples).all() or len(samples) < len(reference):
        return NAN
    rows = np.concatenate([reference, samples])
    rows = (rows - reference.mean(0)) / reference.std(0, ddof=1)
    labels, layers = np.repeat([0, 1], len(reference)), (10 * rows.shape[1],) * 2
    scores = []
    for train, test in [*KFold(5, shuffle=True, random_state=1).split(rows)][:folds]:
        classifier = MLPClassifier(layers, max_iter=10_000, random_state=1)
        scores.append(classifier.fit(rows[train], labels[train]).score(rows[test], labels[test]))
    return float(np.mean(scores))


def mean(values: list[float | None]) -> float:
    """Returns the mean of the values that are not None; nan if there are none."""
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else NAN


def posteriors_values(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the values for a page: mean C2ST by simulations and task, means over tasks, a chart.

    Each row ends with the 95 % condition number of kappaflow's flow.
    """
    tables: dict[int, dict[str, list[float]]] = {}
    everything = sorted(results["lines"], key=itemgetter("simulations", "task"))
    names = [name for name in ESTIMATORS if any(one["estimator"] == name for one in everything)]
    for (size, task), lines in files.grouped(everything, ("simulations", "task")).items():
        by_name = {line["estimator"]: line for line in lines}
        scores = [mean(by_name[name]["c2st"]) if name in by_name else NAN for name in names]
        condition = mean(by_name[OURS]["condition_p95"]) if OURS in by_name else NAN
        tables.setdefault(size, {})[task] = [*scores, condition]
    means = {size: np.mean([*table.values()], 0).tolist() for size, table in tables.items()}
    chart = posteriors_chart(results)
    sizes = {name: min(line[name] for line in everything) for name in KEY[-2:]}
    values = {"names": names, "tables": tables, "means": means, "chart": chart}
    return values | {"published": PUBLISHED} | sizes


def posteriors_chart(results: dict[str, Any]) -> Chart:
    """Returns C2ST against the 95 % condition number, with a point for each task."""
    panels = []
    for (size,), some in files.grouped(results["lines"], ("simulations",)).items():
        series = []
        for tone, name in enumerate(ESTIMATORS):
            latest = {line["task"]: line for line in some if line["estimator"] == name}
            if latest:
                x: list[float | None] = [mean(one["condition_p95"]) for one in latest.values()]
                y: list[float | None] = [mean(one["c2st"]) for one in latest.values()]
                series.append(Series(name=name, x=x, y=y, tone=tone, kind="points"))
        title, y_name = f"{size:,} simulations", "C2ST (0.5 at best)"
        x_name = "95 % condition number"
        panels.append(Panel(title=title, x=x_name, y=y_name, x_log=True, series=series))
    return Chart(
        name="benchmarks-posteriors",
        title="Distance from the reference posterior, and conditioning",
        caption="Each point is one task, the mean of its observations; the flow is that of "
        "standardized parameters.",
        panels=panels,
        columns=2,
    )
