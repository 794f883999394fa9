"""What trainings return: `FitResult` for rows, `EnergyResult` for energies."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kappaflow.data import Dataset, MappedTable, Table
from kappaflow.diagnosis import Finding, data_findings, training_findings, warning_findings
from kappaflow.energies import ImportanceSamples
from kappaflow.flows import Flow
from kappaflow.summary import Facts, PlottedSummary, view
from kappaflow.training.objective import Figures
from kappaflow.training.progress import curve, curve_facts, describe_flow


@dataclass(frozen=True, repr=False)
class FitResult(PlottedSummary):
    """The result of a training.

    Attributes:
        flow: The flow that was given, with the best weights, in evaluation mode.
        history: The figures of each epoch, as in metrics.jsonl.
        validation_nll: Mean negative log-likelihood of the validation rows, in nats, in the units
            of x, by `Flow.log_prob`, even if that is a bound or a joint density.
        best_epoch: The epoch whose weights were kept.
        stopped_because: "max_epochs", "max_time_s" or "patience".
        notes: Remarks on the data, one sentence each.
        finished_at: When the training ended, in ISO 8601 and UTC; empty if unknown.
        train: The training rows or images; for a table on disk a sample of its rows.
        validation: The validation rows or images.
    """

    flow: Flow
    history: tuple[Figures, ...]
    validation_nll: float
    best_epoch: int
    stopped_because: str
    notes: tuple[str, ...] = ()
    finished_at: str = ""
    train: Dataset | None = field(default=None, compare=False)
    validation: Dataset | None = field(default=None, compare=False)

    @property
    def flow_to_examine(self) -> Flow:
        """The flow, for functions that take a flow of any library."""
        return self.flow

    @property
    def rows_to_examine(self) -> tuple[Table | None, Table | None]:
        """The validation and the training rows of a table; None if there are none."""
        if isinstance(self.train, Table) and isinstance(self.validation, Table):
            return self.validation, self.train
        return None, None

    def _facts(self) -> Facts:
        kind = {"exact": "validation NLL", "bound": "bound on the validation NLL"}
        return [
            ("flow", describe_flow(self.flow)),
            (
                kind.get(self.flow.likelihood, "joint validation NLL"),
                f"{self.validation_nll:.4g} nats",
            ),
            (
                "epochs",
                f"{len(self.history)}, best {self.best_epoch}, stopped by {self.stopped_because}",
            ),
            *curve_facts(self.history),
        ]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings on the training and on its data, as on the page that `report` writes.

        Those on the flow itself are returned by `kappaflow.doctor`.
        """
        warnings = () if self.train is None else self.train.warnings
        held_out = None if self.validation is None else len(self.validation)
        of_images = len(self.flow.event_shape) > 1
        course = training_findings(
            self.history, self.stopped_because, held_out=held_out, of_images=of_images
        )
        rows = self.train.sample if isinstance(self.train, MappedTable) else self.train
        of_data = data_findings(rows, flow=self.flow) if isinstance(rows, Table) else ()
        return (*course, *warning_findings(warnings), *of_data)

    def _details(self) -> Facts:
        findings = [
            (f"{finding.severity} {finding.code}", finding.message) for finding in self.findings
        ]
        return [*findings, *(("note", note) for note in self.notes)]

    def report(
        self, path: str | Path = "report.html", data: Any = None, *, title: str = ""
    ) -> Path:
        """Returns the path of a page about this training, by `kappaflow.write_report`.

        `data` are held-out rows; the validation rows by default.
        """
        return view("report", FitResult)(self, data, path, title=title)

    def content(self) -> dict[str, Any]:
        """Returns what result.json holds."""
        last = self.history[-1]
        return {
            "validation_nll": self.validation_nll,
            "epochs": last["epoch"],
            "best_epoch": self.best_epoch,
            "stopped_because": self.stopped_because,
            "skipped_steps": last["skipped_steps"],
            "time_s": last["time_s"],
            "finished_at": self.finished_at,
            "history": list(self.history),
        }

    @classmethod
    def stored(cls, flow: Flow, content: dict[str, Any]) -> Self:
        """Returns the result that result.json holds; KeyError if it lacks an entry."""
        names = ("validation_nll", "best_epoch", "stopped_because")
        figures = {name: content[name] for name in names}
        finished_at = str(content.get("finished_at", ""))
        return cls(flow, tuple(content["history"]), finished_at=finished_at, **figures)


@dataclass(frozen=True, repr=False)
class EnergyResult(PlottedSummary):
    """The result of training on an energy.

    Attributes:
        flow: The flow that was passed in, with the best weights, in evaluation mode.
        history: The figures of each measured interval: "epoch" (its number), "step",
            "inverse_temperature" (of its last step), "free_energy", "reverse_kl",
            "effective_sample_size", "pareto_k", "log_normalizer", "log_normalizer_error" (at
            inverse temperature 1 throughout), "gradient_norm" (mean over its steps, before
            clipping), "condition_number_median", "condition_number_p95", "round_trip_data",
            "round_trip_latent", "learning_rate", "learning_rate_share", "skipped_steps" and
            "blamed" (so far), "time_s", "memory_bytes".
        samples: 4,096 new samples of the flow with their importance weights, which give the
            effective sample size, log Z and its error. They played no part in choosing the
            weights.
        best_epoch: The interval whose weights were kept.
        stopped_because: "steps" or "max_time_s".
    """

    flow: Flow
    history: tuple[Figures, ...]
    samples: ImportanceSamples
    best_epoch: int
    stopped_because: str

    def _facts(self) -> Facts:
        samples = self.samples
        return [
            ("flow", describe_flow(self.flow)),
            ("log Z", f"{samples.log_normalizer:.4g} ± {samples.log_normalizer_error:.2g}"),
            ("effective sample size", f"{samples.effective_sample_size:.0%}"),
            (
                "intervals",
                f"{len(self.history)}, best {self.best_epoch}, stopped by {self.stopped_because}",
            ),
            ("free energy", curve("free_energy", self.history)),
        ]
