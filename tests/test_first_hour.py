"""What a new user does in the first hour, by topic: each snippet once failed, or was silent."""

import copy
import math

import numpy as np
import pandas
import pytest
import scipy.linalg
import torch
from torch import nn

import kappaflow as kf
from kappaflow.errors import ArgumentError, DataWarning
from kappaflow.estimator import ConditionalFlowDensity, FlowDensity

FEW = {"max_epochs": 2, "progress": False}


def small(**options):
    """A flow of two features that trains in a moment."""
    return kf.real_nvp(2, depth=2, hidden=(8,), **options)


@pytest.fixture(scope="module")
def rows():
    """Three hundred rows of two correlated columns."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    return x @ [[2.0, 1.0], [0.0, 0.5]] + [10.0, -3.0]


class TestDesign:
    """A researcher who builds flows in a script."""

    def test_a_flow_replaces_a_saved_one_only_if_it_may(self, tmp_path):
        """A second run of a script does not overwrite the first result."""
        kf.save(small(), tmp_path / "flow")
        with pytest.raises(ArgumentError, match="overwrite=True"):
            kf.save(small(), tmp_path / "flow")
        kf.save(small(), tmp_path / "flow", overwrite=True)

    def test_samples_have_the_shape_that_is_asked_for(self):
        """As for distributions of torch."""
        assert small().sample((2, 3)).shape == (2, 3, 2)

    def test_recipes_take_activations(self):
        """Networks have other activations by name."""
        assert small(network={"activation": "silu"}).log_prob(torch.zeros(1, 2)).isfinite().all()

    @pytest.mark.boundary
    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda: kf.RealNVP(2), "real_nvp"),
            (lambda: kf.real_nvp(2, layers=4), "depth"),
            (lambda: kf.real_nvp(2, context=1), "context_features"),
            (lambda: kf.spline(2, num_bins=4), "bins"),
        ],
        ids=["class", "layers", "context", "bins"],
    )
    def test_names_of_other_libraries_lead_to_ours(self, call, name):
        """One sentence names what is meant."""
        with pytest.raises((ArgumentError, AttributeError), match=f"did you mean '{name}'"):
            call()

    def test_a_base_of_ones_own_needs_only_its_contract(self):
        """What it lacks is named, not found by a traceback."""
        with pytest.raises(TypeError, match="abstract methods .*log_prob"):
            type("Mine", (kf.flows.Base,), {})()
        flow = kf.Flow(kf.flows.StudentT(2, degrees=5.0), small().bijection)
        assert flow.log_prob(torch.zeros(1, 2)).isfinite().all()

    def test_networks_may_use_attention(self):
        """Training, the profile and the doctor differentiate twice."""

        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.embed, self.out = nn.Linear(1, 8), nn.Linear(8, 2)
                self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

            def forward(self, x, context=None):
                h = self.embed(x[..., None])
                return self.out(self.attend(h, h, h)[0]).flatten(1)

        coupling = kf.AffineCoupling(kf.Partition.half(2), Attention())
        flow = kf.Flow(kf.StandardNormal(2), kf.Chain([coupling]))
        x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        assert kf.fit(flow, x, **FEW).history
        assert kf.profile(flow, x[:4]).condition_number.isfinite().all()
        assert not [f for f in kf.doctor(flow, x).findings if f.severity == "error"]

    def test_hand_written_averages_are_loaded(self):
        """Parameters and state_dict have the same names."""
        flow, other = small(), small()
        state = flow.state_dict()
        state.update({name: 0.5 * value + 1 for name, value in flow.named_parameters()})
        other.load_state_dict(state)
        for own, changed in zip(other.parameters(), flow.parameters(), strict=True):
            assert torch.equal(own, 0.5 * changed + 1)

    def test_layers_can_be_indexed(self):
        """From both ends."""
        chain = kf.Chain([kf.bijections.ActNorm(2), kf.bijections.ElementwiseAffine(2)])
        assert isinstance(chain[0], kf.bijections.ActNorm)
        assert isinstance(chain[-1], kf.bijections.ElementwiseAffine)


class TestTraining:
    """Data and optimizers as other libraries have them."""

    def test_fit_takes_a_loader_and_an_optimizer(self, rows):
        """A loop that exists already needs no translation."""
        x = torch.tensor(rows, dtype=torch.float32)
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=32)
        result = kf.fit(small(), loader, optimizer=torch.optim.AdamW, **FEW)
        assert math.isfinite(result.validation_nll)

    def test_a_flow_of_zuko_is_trained_in_place(self, rows):
        """By its own log_prob."""
        zuko = pytest.importorskip("zuko")
        theirs = zuko.flows.MAF(2, transforms=1, hidden_features=(8,))
        before = copy.deepcopy(theirs.state_dict())
        x = (rows - rows.mean(0)) / rows.std(0)
        kf.fit(theirs, x, **FEW)
        assert any(not torch.equal(before[k], v) for k, v in theirs.state_dict().items())


class TestTables:
    """A data scientist with a data frame."""

    def test_a_frame_goes_in_and_comes_out(self, rows):
        """A fitted flow knows the names of its columns."""
        frame = pandas.DataFrame(rows, columns=["mass", "spin"])
        flow = kf.fit(small(), frame, **FEW).flow
        assert flow.log_prob(frame[["spin", "mass"]]).shape == (300,)
        assert list(flow.sample(2, as_frame=True).columns) == ["mass", "spin"]
        assert kf.profile(flow, frame[:4]).sigma_max.shape[1] == 4

    def test_messages_name_rows_of_the_input(self, rows):
        """An estimator weighs repeated rows, and does not sort what it names."""
        frame = pandas.DataFrame(rows, columns=["mass", "spin"], index=np.arange(300) + 5000)
        frame.loc[5123, "mass"] = np.nan
        with pytest.raises(ValueError, match="5123"):
            FlowDensity(max_epochs=1, search_time=0).fit(frame)

    def test_columns_are_chosen_where_data_is_passed(self, rows):
        """The options of the command exist in Python."""
        frame = pandas.DataFrame(rows, columns=["mass", "spin"]).assign(other=1.0)
        assert kf.fit(small(), frame, exclude=["other"], **FEW).flow.columns == ("mass", "spin")

    def test_one_hot_columns_get_the_right_advice(self):
        """A column follows from the others: leave one category out."""
        kind = np.random.default_rng(0).integers(3, size=300)
        with pytest.raises(kf.KappaflowError, match="drop='first'"):
            kf.fit(kf.real_nvp(3, depth=2, hidden=(8,)), np.eye(3)[kind], **FEW)

    def test_a_report_repeats_the_warnings_of_the_fit(self, rows, tmp_path):
        """The page never says that no problem was found where `fit` warned."""
        x = np.column_stack([rows[:, 0], rows[:, 1].round()])
        with pytest.warns(DataWarning):
            result = kf.fit(small(), x, **FEW)
        page = result.report(tmp_path / "report.html").read_text("utf-8")
        assert "whole numbers" in page
        assert "rows that the training never used" not in page

    def test_conditional_density_has_no_option_without_effect(self):
        """A parameter of an estimator does what its name says."""
        assert "search_time" not in ConditionalFlowDensity().get_params()


class TestCircles:
    """Angles."""

    def test_healthy_flows_of_angles_are_healthy(self):
        """A reconstruction may differ by whole turns."""
        flow = kf.spline(2, bounds=["circular"] * 2)
        angles = (torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 6.28
        assert [f.code for f in kf.doctor(flow, angles).findings if f.code == "KF303"] == []

    @pytest.mark.boundary
    def test_affine_couplings_leave_circles_to_splines(self):
        """Their density would be wrong at the seam."""
        with pytest.raises(ArgumentError, match="spline"):
            kf.real_nvp(2, depth=4, bounds=["circular"] * 2)


class Scale(nn.Module):
    """A foreign flow whose method may be replaced on the object."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 1)

    def scale(self, h):
        return self.net(h)

    def encode(self, x):
        s = self.scale(x[:, :1]).tanh()
        return torch.cat((x[:, :1], x[:, 1:] * s.exp()), 1), s[:, 0]

    def decode(self, z):
        s = self.scale(z[:, :1]).tanh()
        return torch.cat((z[:, :1], z[:, 1:] * (-s).exp()), 1), -s[:, 0]


class TestDoctor:
    """Authors of other libraries."""

    def test_a_method_replaced_on_the_object_is_no_obstacle(self):
        """A closure over the flow computes in the dtype of the flow."""
        flow = Scale()
        flow.scale = lambda h: flow.net(h)
        diagnosis = kf.doctor(flow, torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
        assert not [f for f in diagnosis.findings if f.severity == "error"]
        assert "uses the parameters of the original" in diagnosis.measured["not_checked"]

    def test_an_inverse_that_is_slightly_off_is_found(self):
        """By one part in ten thousand."""
        flow = Scale()
        decode = flow.decode
        flow.decode = lambda z: (decode(z)[0] * (1 + 1e-4), decode(z)[1])
        diagnosis = kf.doctor(flow, torch.randn(64, 2, generator=torch.Generator().manual_seed(0)))
        assert "KF201" in {finding.code for finding in diagnosis.findings}
        assert diagnosis.verdict.startswith("Use this flow with care")

    def test_features_that_never_change_are_found(self):
        """The mask of each coupling is the same."""
        half = kf.Partition.half(4)
        couplings = [kf.AffineCoupling(half, kf.nets.MLP(2, 4, (8,))) for _ in range(2)]
        flow = kf.Flow(kf.StandardNormal(4), kf.Chain(couplings))
        for parameter in flow.parameters():
            nn.init.normal_(parameter, std=0.3)
        messages = [f.message for f in kf.doctor(flow, torch.randn(64, 4)).findings]
        assert any("2 of 4 features" in message for message in messages), messages


class TestExport:
    """Programs that run without kappaflow."""

    @pytest.mark.slow
    def test_a_flow_in_float64_becomes_onnx(self, tmp_path):
        """All constants are written in float64."""
        pytest.importorskip("onnxruntime")
        done = kf.export(small().double(), tmp_path / "flow", format="onnx")
        assert "log_prob" in done.functions


class TestTheory:
    """Linear maps."""

    def test_an_ill_conditioned_matrix_ends_in_a_factorization_or_a_sentence(self):
        """Not in an IndexError."""
        try:
            result = kf.factor_linear(scipy.linalg.hilbert(10), couplings=6, max_time_s=0)
        except kf.KappaflowError:
            return
        assert not result.is_exact

    def test_halves_of_odd_size_need_six_couplings(self):
        """Theorem F."""
        bounds = kf.theory.couplings_needed(2, 3)
        assert (bounds.every.least, bounds.every.most) == (6, 6)
