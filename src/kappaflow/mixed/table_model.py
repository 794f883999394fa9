"""`TableModel`: densities, samples and completions of rows of mixed columns."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kappaflow._checks import natural_int, positive_int
from kappaflow.data.load import read_source
from kappaflow.data.naming import BoolArray, FloatArray
from kappaflow.data.raw import READ_ALL, RawTable, quoted
from kappaflow.errors import ArgumentError, DataError, FileError
from kappaflow.files import load, save
from kappaflow.flows import Flow
from kappaflow.mixed.encoding import Encoded, Encoding
from kappaflow.mixed.labels import Labels
from kappaflow.mixed.noise import Noise, RowNoise
from kappaflow.mixed.proposals import Proposals
from kappaflow.mixed.rows import blurred, gaps_of
from kappaflow.mixed.saved import COLUMNS, read_parts, write_parts
from kappaflow.mixed.values import filled_in, frame_like, own_series, source_frame
from kappaflow.storage import make_directory

FEW, DRAWS = 8, (64, 1_024)  # of a row for its density: more for those that stay uncertain
UNCERTAIN = 0.05  # nats of Monte Carlo error
COMPLETIONS = 256  # of each row with a gap, of which one is chosen
AT_ONCE = 16_384  # rows and draws in one pass
LEAST_DRAWS = 16_384  # of a row of which only some values are given
LEAST_SIZE = 10.0  # effective draws from which a completion is chosen


class RowScores(NamedTuple):
    """The log-density of rows, (N,) each.

    Attributes:
        log_prob: Log-density of the present values in nats: a probability for labels and whole
            numbers, a density in the units of the columns for the others.
        standard_error: Monte Carlo error of `log_prob`; 0 for rows without gaps.
        effective_size: Effective number of draws that it is a mean over.
    """

    log_prob: FloatArray
    standard_error: FloatArray
    effective_size: FloatArray


@dataclass(frozen=True)
class Completed:
    """A completed frame, and how well each row could be completed.

    Attributes:
        frame: The rows with all gaps filled, with the dtypes of the table.
        effective_size: Effective number of draws that each row was chosen from, (N,); infinite
            for rows without a gap.
    """

    frame: Any
    effective_size: FloatArray


class TableModel:
    """A density of rows of mixed columns: p(labels) p(numbers | labels).

    Categories, truth values and counts are labels. All other columns are numbers, which a
    conditional flow models given the labels. `kappaflow.fit_table` makes it. It is a model of
    complete rows: the density of an incomplete row is the integral over its missing values. This
    assumes that values are missing at random given the present ones. With columns of a context,
    `encoding.context`, all probabilities and densities are given these.

    Attributes:
        encoding: How columns become numbers and labels, and back.
        labels: The distribution of the labels.
        proposals: Draws of missing numbers, which weights correct.
        flow: The flow of the numbers given the labels; None without a number.
        like: An empty frame, whose type and dtypes samples have; None for polars.
    """

    def __init__(
        self,
        encoding: Encoding,
        labels: Labels,
        proposals: Proposals,
        flow: Flow | None,
        like: Any = None,  # noqa: ANN401
    ) -> None:
        self.encoding, self.labels, self.proposals = encoding, labels, proposals
        self.flow, self.like = None if flow is None else flow.eval(), like

    def __repr__(self) -> str:
        columns = (*self.encoding.columns, *self.encoding.context)
        lines = "\n".join(f"    {column.about}" for column in columns)
        return f"TableModel(\n{lines}\n)"

    def log_prob(
        self,
        data: Any,  # noqa: ANN401
        *,
        draws: int | None = None,
        seed: int = 0,
    ) -> RowScores:
        """Returns the log-density of each row of a frame, a path or a `RawTable`.

        A row with rounded numbers or missing values is an average over draws, weighted by
        importance. The draws follow from the values of the row and the seed, so its density does
        not depend on the other rows.

        Args:
            data: Rows with the columns of the table, context included, in any order.
            draws: Draws for each row with a gap. By default 8 for a row with rounded numbers
                alone, and 64 for others; then 64 and 1,024 for rows whose log-density is still
                uncertain by more than 0.05 nats.
            seed: Seed of the draws.

        Raises:
            DataError: A column is missing, or a label was not among the training rows.
        """
        rows = self._encoded(_raw(data))
        results, gaps = np.zeros((3, len(rows.codes))), self._has_gaps(rows)
        results[:, ~gaps] = self._scores(rows.at(~gaps), 1, seed)
        results[1, gaps] = math.inf
        if draws is None:  # a density varies little in a cell; elsewhere 8 draws may mislead
            rounded = gaps & ~(np.isnan(rows.numbers).any(1) | (rows.codes < 0).any(1))
            results[:, rounded] = self._scores(rows.at(rounded), FEW, seed)
        for count in DRAWS if draws is None else (positive_int("draws", draws),):
            some = results[1] > UNCERTAIN
            results[:, some] = self._scores(rows.at(some), count, seed)
        results[2, ~gaps] = math.inf
        results[:2, np.hstack([rows.missing, rows.codes < 0]).all(1)] = 0.0  # no value is present
        return RowScores(*results)

    def _scores(self, rows: Encoded, draws: int, seed: int) -> NDArray[np.float64]:
        parts = [_scores(log_w) for *_, log_w in self._drawn(rows, draws, seed, by_row=True)]
        return np.concatenate([np.zeros((3, 0)), *parts], axis=1)

    def labels_log_prob(self, data: Any, *, seed: int = 0) -> FloatArray:  # noqa: ANN401
        """Returns log p of the labels that are there, (N,), without the numbers."""
        rows, draws = self._encoded(_raw(data)), DRAWS[0]
        noise = RowNoise(rows.known, draws, natural_int("seed", seed))
        codes, context = (
            torch.from_numpy(values).repeat_interleave(draws, dim=0)
            for values in (rows.codes, rows.context)
        )
        _, log_w = self.labels.filled(codes, noise, context)
        return _scores(log_w.double().view(-1, draws))[0]

    def sample(self, n: int, *, context: Any = None, seed: int = 0) -> Any:  # noqa: ANN401
        """Returns a frame of n sampled rows: complete, with the dtypes of the table.

        Args:
            n: Number of rows; with a context for each of its rows.
            context: A frame, a path or a `RawTable` with the columns of the context, which the
                samples repeat: all its rows, then all again. None if the model has none.
            seed: Seed of the draws.

        Raises:
            ArgumentError: A context is missing or not needed.
            DataError: The context has an unknown label.
        """
        generator = torch.Generator().manual_seed(natural_int("seed", seed))
        raw, conditions = self._context(context)
        conditions = conditions.repeat(positive_int("n", n), 1)
        empty = torch.full((len(conditions), len(self.encoding.label_columns)), -1)
        codes, _ = self.labels.filled(empty, generator, conditions)
        parts = self.labels.read(codes, conditions).split(AT_ONCE)
        numbers = torch.cat([self._samples(part, generator) for part in parts])
        return self._frame(numbers, codes, raw)

    def sample_given(
        self,
        given: Mapping[str, Any],
        n: int,
        *,
        context: Any = None,  # noqa: ANN401
        seed: int = 0,
    ) -> Any:  # noqa: ANN401
        """Returns n sampled rows in which some columns have the given values.

        Args:
            given: Values of modeled columns by name, such as {"age": 40, "region": "north"}.
            n: Number of rows; with a context for each of its rows.
            context: As for `sample`. Each of its rows takes 16,384 draws or more, so give few.
            seed: Seed of the draws.

        Raises:
            ArgumentError: A name is not a column, or a value is not possible.
            DataError: So few of the draws agree with the values that samples would repeat a few.
        """
        import narwhals as nw
        import polars as pl

        modeled = [column.name for column in self.encoding.columns if column.is_modeled]
        unknown = [name for name in given if name not in modeled]
        if unknown or not given:
            names = {column.name for column in self.encoding.context} & set(unknown)
            way_out = f"; 'context' takes rows of {quoted(sorted(names))}"
            raise ArgumentError(
                f"'given' should name columns of the table, got {unknown or 'none'}: the modeled "
                f"ones are {', '.join(modeled)}{way_out if names else ''}."
            )
        row = pl.DataFrame({name: [given.get(name)] for name in modeled}, strict=False)
        row = self.encoding.with_dates(row)
        raw = replace(_raw(row), subject="'given'")
        rows = self.encoding.encode(raw, completes=True, with_context=False)
        count = max(4 * positive_int("n", n), LEAST_DRAWS)
        missing = [name for name, gone in self._missing(rows).items() if gone[0] and name in given]
        if missing:
            raise ArgumentError(
                f"'given' should have a value for {missing[0]!r}, got {given[missing[0]]}."
            )
        others, conditions = self._context(context)
        rows = rows.at(np.zeros(len(conditions), dtype=np.int64))
        parts = list[tuple[Tensor, Tensor]]()
        for numbers, codes, log_w in self._drawn(
            replace(rows, context=conditions.numpy()), count, seed
        ):
            chosen, size = _chosen(log_w[0], n, seed + len(parts))
            if size < LEAST_SIZE:
                at_row = f" at row {len(parts) + 1} of the context" if others else ""
                raise DataError(
                    f"only {size:.1f} of {count:,} draws agree with the given values{at_row}, "
                    "which are far from the training rows: give fewer values, or values nearer "
                    "to them."
                )
            parts.append((numbers[0, chosen], codes[0, chosen]))
        numbers, codes = (
            torch.stack(values, dim=1).flatten(0, 1) for values in zip(*parts, strict=True)
        )
        frame = nw.from_native(self._frame(numbers, codes, others), eager_only=True)
        kept = [
            nw.new_series(name, [row[name][0]] * len(frame), backend=frame.implementation).cast(
                frame[name].dtype
            )
            for name in given
            if name in self.encoding.numbers  # whose cells end with the fitted rows
        ]
        return frame.with_columns(*kept).to_native()

    def impute(self, data: Any, *, seed: int = 0) -> Completed:  # noqa: ANN401
        """Returns the rows of a frame with each gap filled by a draw given the rest of its row.

        For several imputations call it with several seeds.

        Raises:
            DataError: A column is missing, or a label was not among the training rows.
        """
        natural_int("seed", seed)
        raw = _raw(data)
        rows = self._encoded(raw)
        numbers, codes = (torch.from_numpy(x.copy()) for x in (rows.numbers, rows.codes))
        sizes = np.full(len(codes), math.inf)
        gone: BoolArray = np.asarray(np.hstack([rows.missing, rows.codes < 0]).any(1))
        generator, remaining = np.random.default_rng(seed), iter(np.flatnonzero(gone))
        for drawn, labels, log_w in self._drawn(rows.at(gone), COMPLETIONS, seed):
            for x, label, weights in zip(drawn, labels, log_w, strict=True):
                row = next(remaining)
                (chosen,), sizes[row] = _chosen(weights, 1, generator)
                numbers[row], codes[row] = x[chosen], label[chosen]
        frame = self.encoding.decode(Encoded(numbers.numpy(), codes.numpy(), rows.missing))
        return Completed(
            filled_in(source_frame(raw, data, frame), self._missing(rows), frame), sizes
        )

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Writes the model to a directory, each file whole or not at all.

        Raises:
            ArgumentError: The directory already holds a model.
        """
        if not overwrite and (Path(path) / COLUMNS).exists():
            raise ArgumentError(
                f"'path' should be a new folder, {path} holds a saved model: pass overwrite=True "
                "to replace it."
            )
        folder = make_directory(path)
        if self.flow is not None:
            save(self.flow, folder, overwrite=overwrite)
        self.write_columns(folder)

    def write_columns(self, folder: Path) -> None:
        """Writes all but the flow to a folder, which is made if it is missing."""
        write_parts(folder, self.encoding, self.labels, self.proposals)

    @classmethod
    def load(cls, path: str | Path) -> "TableModel":
        """Returns the model that `save` or a run on a mixed table wrote to a directory.

        Raises:
            FileError: A file is missing or damaged, or the files do not fit each other.
        """
        folder = Path(path)
        encoding, labels, proposals = read_parts(folder)
        flow = load(folder) if encoding.numbers else None
        expected = (len(encoding.numbers),), labels.features
        if flow is not None and (flow.event_shape, flow.context_features) != expected:
            raise FileError(f"{folder} has a flow of other columns than those of {COLUMNS}.")
        return cls(encoding, labels, proposals, flow)

    def _missing(self, rows: Encoded) -> dict[str, BoolArray]:
        """Returns which rows miss a value of each column."""
        encoding = self.encoding
        result = dict(zip(encoding.label_columns, rows.codes.T < 0, strict=True))
        for name, gone in zip(encoding.numbers, rows.missing.T, strict=True):
            result[name] = gone | result.get(name, False)
        return result

    def _encoded(self, raw: RawTable) -> Encoded:
        return self.encoding.encode(raw, completes=True)

    def _context(self, context: Any) -> tuple[RawTable | None, Tensor]:  # noqa: ANN401
        """Returns the rows of a context, and what the density is given; one row without."""
        names = quoted([column.name for column in self.encoding.context])
        if (context is None) == bool(names):
            what = f"be rows of {names}, on which samples depend"
            none = "be left out: the model has no context"
            raise ArgumentError(f"'context' should {what if names else none}.")
        if context is None:
            return None, torch.zeros(1, 0)
        raw = replace(_raw(context), subject="'context'")
        if raw.row_count == 0:
            raise DataError("'context' has no rows.")
        return raw, torch.from_numpy(self.encoding.encode_context(raw))

    def _has_gaps(self, rows: Encoded) -> BoolArray:
        """Returns which rows have a number or a label that is not known exactly."""
        codes = torch.from_numpy(rows.codes)
        gaps = gaps_of(torch.from_numpy(rows.numbers), codes, self.encoding)
        return (gaps.any | (codes < 0).any(1)).numpy()

    @torch.no_grad()
    def _drawn(
        self, rows: Encoded, draws: int, seed: int, *, by_row: bool = False
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields draws of complete rows: numbers (n, draws, D), codes (n, draws, L), log weights.

        The weights (n, draws) are those of importance: p of the row over that of the draws. With
        `by_row` they do not depend on the other rows, and rows without a number stay empty.
        """
        noise: Noise = torch.Generator().manual_seed(natural_int("seed", seed))
        at_once = max(1, AT_ONCE // draws)
        for start in range(0, len(rows.codes), at_once):
            part = slice(start, start + at_once)
            numbers, codes, context = (
                torch.from_numpy(values[part]).repeat_interleave(draws, dim=0)
                for values in (rows.numbers, rows.codes, rows.context)
            )
            if by_row:
                noise = RowNoise(rows.known[part], draws, seed)
            codes, log_w = self.labels.filled(codes, noise, context)
            log_w = log_w.double()
            gaps = gaps_of(numbers, codes, self.encoding)
            numbers, log_q = blurred(numbers, gaps, self.proposals, noise)
            log_w -= log_q
            inputs = self.labels.read(codes, context)
            numbers, more = self._completed(numbers, inputs, gaps.missing, noise)
            log_w += more
            x, labels = (
                values.view(len(codes) // draws, draws, values.shape[1])
                for values in (numbers, codes)
            )
            yield x, labels, log_w.view(-1, draws)

    def _completed(
        self, numbers: Tensor, inputs: Tensor, missing: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Returns complete numbers, and log p of them over the density of what was drawn.

        Rows without a number are samples of the flow; the others are proposals.
        """
        drawn, log_q = self.proposals.drawn(numbers, inputs, missing, noise)
        log_w, free = self._log_prob(drawn, inputs) - log_q, missing.all(1)
        if self.flow is not None and free.any():
            if isinstance(noise, torch.Generator):
                drawn[free] = self._samples(inputs[free], noise)
            log_w[free] = 0.0
        return drawn, log_w

    def _samples(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        """Returns numbers (N, D) that the flow samples given labels."""
        if self.flow is None:
            return torch.zeros(len(inputs), 0, dtype=torch.float64)
        context = _context(self.flow, inputs)
        if context is None:
            return self.flow.sample(len(inputs), generator=generator).double().cpu()
        return self.flow.sample(1, context, generator=generator)[0].double().cpu()

    def _log_prob(self, numbers: Tensor, inputs: Tensor) -> Tensor:
        """Returns log p of numbers given labels, (N,); -inf where it is not a number."""
        if self.flow is None:
            return torch.zeros(len(numbers), dtype=torch.float64)
        flow, parts = self.flow, []
        for x, labels in zip(numbers.split(AT_ONCE), inputs.split(AT_ONCE), strict=True):
            log_p = flow.log_prob(x.to(flow.device, flow.dtype), _context(flow, labels))
            parts.append(log_p.double().cpu().nan_to_num(-math.inf, -math.inf, -math.inf))
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def _frame(self, numbers: Tensor, codes: Tensor, context: RawTable | None) -> Any:  # noqa: ANN401
        """Returns complete rows as a frame, next to the rows of a context."""
        import narwhals as nw
        import polars as pl

        missing, like = np.zeros(numbers.shape, dtype=np.bool_), self.like
        frame = self.encoding.decode(Encoded(numbers.numpy(), codes.numpy(), missing))
        if context is not None:
            columns = [own_series(column.name, context) for column in self.encoding.context]
            repeats = len(frame) // context.row_count
            frame = frame.with_columns(pl.concat([pl.DataFrame(columns)] * repeats))
            if like is not None:  # a type of integers would round a float of a context
                floats = [series.name for series in columns if series.dtype.is_float()]
                like = nw.from_native(like, eager_only=True).drop(floats).to_native()
        return frame if like is None else frame_like(frame, like)


def _raw(data: Any) -> RawTable:  # noqa: ANN401
    return data if isinstance(data, RawTable) else read_source(data, READ_ALL)


def _scores(log_w: Tensor) -> NDArray[np.float64]:
    """Returns log of the mean weight, its Monte Carlo error, and the effective draws, (3, N)."""
    draws = log_w.shape[1]
    total = log_w.logsumexp(1)
    shares = (log_w - total[:, None]).exp().nan_to_num(0.0)
    squares = (shares**2).sum(1)
    # of the mean of n weights w / mean(w), by their variance
    error = (squares - 1 / draws).clamp(min=0).sqrt() * math.sqrt(draws / max(1, draws - 1))
    size = torch.where(squares > 0, 1 / squares, 0.0)
    return torch.stack([total - math.log(draws), error, size]).numpy()


def _chosen(
    log_w: Tensor, n: int, seed: int | np.random.Generator
) -> tuple[NDArray[np.intp], float]:
    """Returns n of the draws in proportion to their weights, and the effective number of draws."""
    shares = (log_w - log_w.logsumexp(0)).exp().nan_to_num(0.0).numpy()
    if not shares.sum() > 0:
        return np.zeros(n, dtype=np.intp), 0.0
    chosen = np.random.default_rng(seed).choice(len(shares), size=n, p=shares / shares.sum())
    return chosen, float(1 / (shares**2).sum())


def _context(flow: Flow, inputs: Tensor) -> Tensor | None:
    """Returns labels as the context of a flow; None for a flow without one."""
    return inputs.to(flow.device, flow.dtype) if inputs.shape[1] else None
