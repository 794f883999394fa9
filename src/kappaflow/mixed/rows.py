"""Rows of a mixed table: numbers with gaps, labels, and how a training fills the gaps."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kappaflow.data import Table
from kappaflow.data.batches import Batch
from kappaflow.data.dataset import Model
from kappaflow.data.labels import SIGN
from kappaflow.flows.eval_mode import evaluation_mode
from kappaflow.mixed.encoding import Encoded, Encoding
from kappaflow.mixed.labels import Labels
from kappaflow.mixed.noise import Noise, uniform
from kappaflow.mixed.proposals import Proposals, inside

SEED = 20071  # of the draws that fill gaps before a training


@dataclass(frozen=True)
class Gaps:
    """Which numbers (N, D) of rows are not known exactly, and why.

    Attributes:
        missing: The value is missing.
        replaced: A label stands for the value, so that there is no number.
        steps: The width of the cell that a rounded number stands for, (D,); 0 for others.
    """

    missing: Tensor
    replaced: Tensor
    steps: Tensor

    @property
    def in_cells(self) -> Tensor:
        return (self.steps > 0) & ~self.missing & ~self.replaced

    @property
    def any(self) -> Tensor:
        """Which rows have a number that is not known exactly, (N,)."""
        return (self.missing | self.replaced | self.in_cells).any(1)

    def at(self, index: Tensor) -> "Gaps":
        return replace(self, missing=self.missing[index], replaced=self.replaced[index])


def gaps_of(numbers: Tensor, codes: Tensor, encoding: Encoding) -> Gaps:
    """Returns the gaps of rows whose labels are all known."""
    replaced = ~torch.from_numpy(encoding.has_number(codes.numpy()))
    missing = numbers.isnan() & ~replaced
    return Gaps(missing, replaced, torch.tensor(encoding.steps, dtype=torch.float64))


def blurred(
    numbers: Tensor, gaps: Gaps, proposals: Proposals, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Returns numbers with noise in cells and draws where a label stands, and their log-density.

    Missing numbers stay as they are.
    """
    numbers, log_q = numbers.clone(), torch.zeros(len(numbers), dtype=torch.float64)
    if gaps.replaced.any():
        values, each = proposals.stand_ins(len(numbers), noise)
        numbers = torch.where(gaps.replaced, values, numbers)
        log_q += torch.where(gaps.replaced, each, 0.0).sum(1)
    cells = gaps.in_cells
    if cells.any():
        levels = uniform(noise, "cell", torch.arange(len(numbers)), numbers.shape[1])
        numbers = torch.where(cells, numbers + gaps.steps * (levels - 0.5), numbers)
        numbers = proposals.wrapped(numbers)
        log_q -= torch.where(cells, gaps.steps.clamp(min=1e-300).log(), 0.0).sum(1)
    return numbers, log_q


@dataclass(frozen=True)
class IncompleteRows:
    """Training rows with gaps, which are filled again each time that a batch has them.

    Noise in cells, and what a label stands for, are drawn for each batch. A missing number takes
    one step of Metropolis and Hastings for each batch: a draw given the other values of its row
    replaces it if the flow in training finds that likely. So the flow is fitted to the rows with
    their missing numbers integrated out.

    Attributes:
        table: The rows with all gaps filled once, and their labels as context.
        numbers: (N, D) with NaN in the gaps.
        gaps: Which numbers are not known exactly.
        proposals: Draws of the missing numbers.

    Source:
        Tanner, Wong 1987, as stochastic approximation (Delyon, Lavielle, Moulines 1999).
    """

    table: Table
    numbers: Tensor
    gaps: Gaps
    proposals: Proposals

    @property
    def source(self) -> str:
        return self.table.source

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.table.warnings

    def __len__(self) -> int:
        return len(self.table)

    def fingerprint(self) -> str:
        return self.table.fingerprint()

    def describe(self) -> dict[str, Any]:
        return self.table.describe()

    def batches(self, flow: Model) -> "FilledBatches":
        return FilledBatches(self, flow)

    def check(self, flow: Model, *, held_out: bool = False) -> None:
        self.table.check(flow, held_out=held_out)


class FilledBatches:
    """Batches of rows whose gaps are filled again with each batch."""

    index_device = torch.device("cpu")

    def __init__(self, rows: IncompleteRows, flow: Any) -> None:  # noqa: ANN401
        self.rows, self.flow = rows, flow
        self._static = rows.table.batches(flow)
        self.weights = self._static.weights
        context = rows.table.context
        width = rows.proposals.labels
        self._inputs = (
            torch.zeros(len(rows), width) if context is None else torch.from_numpy(context)
        )
        filled = torch.from_numpy(rows.table.values)
        self._centers = torch.where(rows.gaps.replaced, filled, rows.numbers)
        incomplete = rows.gaps.missing.any(1)
        self._incomplete = incomplete.cumsum(0) - 1
        log_q = torch.full((int(incomplete.sum()),), -torch.inf, dtype=torch.float64)
        #: The rows with missing numbers, and the log-density of their draws, for a checkpoint.
        self.state = {"filled": filled[incomplete], "log_q": log_q}

    def __len__(self) -> int:
        return len(self.rows)

    def examples(self) -> Batch:
        return self._static

    def at(self, index: Tensor | slice) -> Batch:
        index = torch.arange(len(self))[index] if isinstance(index, slice) else index
        rows, gaps = self.rows, self.rows.gaps.at(index)
        # the noise follows from the rows of the batch, so that a resumed training repeats it
        generator = torch.Generator().manual_seed(int(index.sum()) * 1_000_003 + int(index[0]))
        values, _ = blurred(self._centers[index], gaps, rows.proposals, generator)
        batch = self._static.at(index)
        some = torch.nonzero(gaps.missing.any(1))[:, 0]
        if len(some):
            gaps = gaps.at(some)
            before = self.state["filled"][self._incomplete[index[some]]]
            now = torch.where(gaps.missing, before, values[some])
            values[some] = self._moved(index[some], now, gaps, batch.at(some), generator)
        return replace(batch, x=values.to(batch.x))

    @torch.no_grad()
    def _moved(
        self, rows: Tensor, now: Tensor, gaps: Gaps, batch: Batch, generator: torch.Generator
    ) -> Tensor:
        """Returns rows after a step of Metropolis and Hastings for their missing numbers."""
        centers, inputs, number = self._centers[rows], self._inputs[rows], self._incomplete[rows]
        drawn, log_q = self.rows.proposals.drawn(centers, inputs, gaps.missing, generator)
        proposed = torch.where(gaps.missing, drawn, now)
        context = None if batch.context is None else batch.context.repeat(2, 1)
        with evaluation_mode(self.flow):
            log_p = self.flow.log_prob(torch.cat([now, proposed]).to(batch.x), context)
        before, after = log_p.double().cpu().nan_to_num(-torch.inf, torch.inf, -torch.inf).chunk(2)
        known = self.state["log_q"][number]
        ratio = torch.where(known.isinf(), torch.inf, after - before + known - log_q)
        threshold = torch.rand(len(now), dtype=torch.float64, generator=generator).log()
        accepted = (ratio > threshold) & after.isfinite()
        self.state["log_q"][number] = torch.where(accepted, log_q, known)
        self.state["filled"][number] = torch.where(accepted[:, None], proposed, now)
        return self.state["filled"][number]


def _shortened(values: Tensor) -> Tensor:
    """Returns values with 20 binary digits: the last ones of a double differ between processes."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.round(mantissa * 2**20) / 2**20, exponent)


def context_names(encoding: Encoding) -> tuple[str, ...]:
    """Returns the names of what a flow reads: context, labels such as "region=north", counts."""
    names = list(encoding.context_features)
    for column in encoding.coded:
        texts = ["missing" if label is None else label for label in column.labels]
        if column.is_count:
            names.append(f"{column.name}, as normal score")
            texts = ["missing"] if column.has_gaps else []
        names += [f"{column.name}{SIGN}{text}" for text in texts]
    return tuple(names)


def filled_rows(
    encoding: Encoding, encoded: Encoded, labels: Labels, proposals: Proposals, like: Table
) -> IncompleteRows:
    """Returns rows with their gaps filled once; `like` has their weights, numbers and source."""
    generator = torch.Generator().manual_seed(SEED)
    codes, numbers = torch.from_numpy(encoded.codes), torch.from_numpy(encoded.numbers)
    inputs = labels.read(codes, torch.from_numpy(encoded.context))
    gaps = gaps_of(numbers, codes, encoding)
    values, _ = blurred(numbers, gaps, proposals, generator)
    drawn, _ = proposals.drawn(values, inputs, gaps.missing, generator)
    columns = zip(_shortened(drawn).T, encoding.domains, strict=True)
    parts = [inside(column, domain)[:, None] for column, domain in columns]
    shortened = torch.cat([drawn[:, :0], *parts], dim=1)
    values = torch.where(gaps.missing | gaps.replaced, shortened, drawn)
    names = context_names(encoding)
    table = replace(
        like,
        values=values.numpy(),
        columns=encoding.numbers,
        context=inputs.double().numpy() if names else None,
        context_columns=names,
        grids=encoding.grids,
        kinds={column.name: column.kind for column in encoding.columns},
        integer_columns=tuple(encoding.grids),
    )
    return IncompleteRows(table, numbers, gaps, proposals)
