"""One flow that is exported once, for all tests of this folder."""

import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import kappaflow as kf
from kappaflow.testing.contract import jittered


@dataclass(frozen=True)
class Case:
    """A flow, its copy in float64, and what `export` returned for it."""

    flow: kf.Flow
    double: kf.Flow
    done: object
    loaded: dict

    @property
    def folder(self) -> Path:
        return self.done.path

    def program(self, name: str):
        """Returns a written function, loaded once as anybody would."""
        if name not in self.loaded:
            self.loaded[name] = torch.export.load(self.folder / f"{name}.pt2").module()
        return self.loaded[name]


def exported(path, **options) -> Case:
    """Exports a stack with permutations on a mixture of normals, fitted to columns far from 0."""
    torch.manual_seed(0)
    flow = kf.real_nvp(
        3, depth=2, hidden=(8,), start={"components": 3, "start": "whiten"}, partition="random"
    )
    flow.standardization.fit(50 + 5 * torch.randn(200, 3))
    flow = jittered(flow, seed=1).eval()
    with torch.no_grad():
        flow.base.factors += 0.3 * torch.randn(3, 3, 3)
        flow.base.logits += torch.tensor([0.5, -0.5, 0.0])
    done = kf.export(flow, path, columns=["a", "b", "c"], **options)
    return Case(flow, copy.deepcopy(flow).double(), done, {})


@pytest.fixture(scope="package")
def scores(tmp_path_factory):
    """A flow with two of its functions, which is quick to export."""
    path = tmp_path_factory.mktemp("exports") / "scores"
    return exported(path, functions=["encode", "log_prob"])


@pytest.fixture(scope="package")
def complete(tmp_path_factory):
    """A flow with all of its functions, for slow tests."""
    return exported(tmp_path_factory.mktemp("exports") / "complete")
