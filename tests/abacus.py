"""The machine that the tests of the benchmarks say they ran on, and where the benchmarks are."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
MACHINE = {
    "processor": "An abacus",
    "cores": 2,
    "threads": 1,
    "system": "Linux x86_64, Python 3.11",
    "versions": {"torch": "2.13.0"},
    "environment": {},
    "native": True,
}
