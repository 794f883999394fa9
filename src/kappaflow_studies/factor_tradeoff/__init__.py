"""`factor-tradeoff`: what more couplings buy in conditioning."""

from pathlib import Path

from kappaflow_studies.engine.study import Study
from kappaflow_studies.factor_tradeoff.findings import findings
from kappaflow_studies.factor_tradeoff.measure import TradeOffSettings, cases, measure

FACTOR_TRADEOFF = Study(
    name="factor-tradeoff",
    title="What more couplings buy",
    about="the largest condition number of a factor, from six couplings to sixteen",
    claim=(
        "Any linear layer can be replaced by a constant number of couplings of a fixed partition; "
        "what they cost in conditioning, and what more of them buy, is left open."
    ),
    settings=TradeOffSettings,
    presets=Path(__file__).with_name("presets.toml"),
    cases=cases,
    measure=measure,
    findings=findings,
)

__all__ = ["FACTOR_TRADEOFF"]
