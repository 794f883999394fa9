"""Every check of the contract can fail: each mutant is caught by the law meant for it."""

import math

import pytest
import torch
from torch import nn

import kappaflow as kf
from cases import affine
from kappaflow.bijection import zero_log_det
from kappaflow.flows.base import StandardNormal
from kappaflow.linearization import Linearization
from kappaflow.testing import ContractError, check_bijection, check_flow
from kappaflow.testing.contract import jittered


class Mutant(kf.Bijection):
    """A correct affine coupling of 4 features and 2 context features, which mutants break."""

    context_features = 2

    def __init__(self):
        super().__init__()
        self.right = jittered(affine(kf.Partition.half(4), context=2))

    def forward(self, x, context=None):
        return self.right(x, context)

    def inverse(self, z, context=None):
        return self.right.inverse(z, context)


def mutant(*, forward=None, inverse=None, base=Mutant):
    """Returns a mutant whose results are changed by one of these functions."""

    class Made(base):
        def forward(self, x, context=None):
            result = super().forward(x, context)
            return result if forward is None else forward(x, *result)

        def inverse(self, z, context=None):
            result = super().inverse(z, context)
            return result if inverse is None else inverse(z, *result)

    return Made()


class Identity(kf.Bijection):
    """The simplest correct bijection."""

    def forward(self, x, context=None):
        return x.clone(), zero_log_det(x)

    def inverse(self, z, context=None):
        return z.clone(), zero_log_det(z)


def shifted(shift):
    """Returns a mutant that adds a shift, which it computes from all rows, in both directions."""
    return mutant(
        forward=lambda x, z, log_det: (x + shift(x), log_det),
        inverse=lambda z, x, log_det: (z - shift(z), log_det),
        base=Identity,
    )


def batch_mean(x):
    """Returns a shift of one feature by the mean of another."""
    return torch.cat((x[:, :1] * 0, x[:, :1].mean(0).expand(len(x), 1), x[:, 2:] * 0), 1)


def rounded(x, value, log_det):
    """Returns a log_det within its tolerance, but not twice."""
    return value, log_det + 8 * torch.finfo(x.dtype).eps


def doubled_below(x, value, log_det):
    """Returns a map that is correct for the data, x >= -0.1, but not elsewhere."""
    inside = x > -0.1
    return torch.where(inside, x, 2 * x), (~inside).to(x).sum(1) * math.log(2)


class DroppedTerm(Mutant):
    """The log_det lacks the log-scale of the last feature."""

    def forward(self, x, context=None):
        kept, changed = self.right.partition.split(x)
        log_scale, _ = self.right._log_scale_and_shift(kept, context, exact=True)
        z, log_det = super().forward(x, context)
        return z, log_det - log_scale[:, -1]


class ContextIgnored(Mutant):
    """The inverse uses another context than the forward."""

    def inverse(self, z, context=None):
        return super().inverse(z, torch.zeros_like(context))


class ContextChanged(Identity):
    """Changes its context in place."""

    def forward(self, x, context=None):
        context.add_(1)
        return super().forward(x)


class WidthNotDeclared(Mutant):
    """Reads a context without declaring it."""

    context_features = 0


class WidthDeclaredWrongly(Mutant):
    """Declares a wider context."""

    context_features = 3


class Counting(Identity):
    """Counts its calls in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, context=None):
        self.calls += 1
        return super().forward(x)


class CountingInTraining(Counting):
    """Counts its calls in training mode only."""

    def forward(self, x, context=None):
        return super().forward(x) if self.training else Identity.forward(self, x)


class CountingAndShowing(CountingInTraining):
    """Shows its count, and counts beyond the first call."""

    def extra_repr(self):
        return f"calls={int(self.calls)}"


class CountingLinearizations(Counting):
    """Counts only how often it is linearized."""

    def forward(self, x, context=None):
        return Identity.forward(self, x)

    def linearize(self, x, context=None):
        self.calls += 1
        return super().linearize(x, context)


class Unreached(Mutant):
    """Has an unused parameter."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))


class DetachedInverse(kf.bijections.ElementwiseAffine):
    """Its inverse has no gradients for the shift."""

    def __init__(self):
        super().__init__(4)

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z + (self.shift - self.shift.detach()))
        return x, log_det


class WrongProduct(Linearization):
    """The correct linearization with one product or value scaled."""

    def __init__(self, right, wrong, several):
        self.value, self.log_det, self.right = right.value, right.log_det, right
        self.wrong, self.several = wrong, several
        if wrong in ("value", "log_det"):
            setattr(self, wrong, getattr(right, wrong) + 1e-6)

    def _product(self, name, v):
        broken = name == self.wrong and (not self.several or v.dim() == 3)
        return getattr(self.right, name)(v) * (1 + 1e-6 * broken)

    def jv(self, v):
        return self._product("jv", v)

    def vjp(self, u):
        return self._product("vjp", u)

    def inverse_jv(self, w):
        return self._product("inverse_jv", w)

    def inverse_vjp(self, y):
        return self._product("inverse_vjp", y)


def linearized(wrong, *, several=False):
    """Returns a correct bijection with one error in its linearization."""

    class Made(Mutant):
        def linearize(self, x, context=None):
            return WrongProduct(super().linearize(x, context), wrong, several)

    return Made()


def detached(direction, rows=None):
    """Returns a mutant whose log_det has the right value but no gradient for some rows."""

    def without(x, value, log_det):
        kept = torch.arange(len(log_det)) >= (len(log_det) if rows is None else rows)
        return value, torch.where(kept, log_det, log_det.detach())

    return mutant(**{direction: without})


class DetachedScale(Mutant):
    """The log_det of one of two features is computed without a graph."""

    def forward(self, x, context=None):
        kept, changed = self.right.partition.split(x)
        log_scale, _ = self.right._log_scale_and_shift(kept, context, exact=True)
        z, log_det = super().forward(x, context)
        return z, log_det - log_scale[:, -1] + log_scale[:, -1].detach()


class DetachedByParameters(kf.Bijection):
    """A scale that depends on a parameter, with a log_det that does not."""

    def __init__(self):
        super().__init__()
        self.right = kf.bijections.ElementwiseAffine(4, log_scale=[0.5, 0.3, 0.1, 0.2])

    def forward(self, x, context=None):
        z, log_det = self.right(x)
        return z, log_det.detach()

    def inverse(self, z, context=None):
        return self.right.inverse(z)


class OneDerivative(torch.autograd.Function):
    """x + x^3 without a second derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x + x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent):
        return cotangent * (1 + 3 * ctx.saved_tensors[0] ** 2)


class Cubic(kf.Bijection):
    """z = x + x^3, whose inverse is computed by a search and has one derivative."""

    def forward(self, x, context=None):
        return x + x**3, (1 + 3 * x**2).log().sum(1)

    def inverse(self, z, context=None):
        with torch.no_grad():
            x = z.clone()
            for _ in range(100):
                x = x - (x + x**3 - z) / (1 + 3 * x**2)
            slope = 1 + 3 * x**2
        x = x - (x + x**3 - z) / slope  # the value of x, and the derivative by z
        return x, -(1 + 3 * x**2).log().sum(1)


@kf.register("test.HiddenScale")
class HiddenScale(kf.Bijection):
    """Uses a number that its description lacks, in the unit cube only."""

    def __init__(self):
        super().__init__()
        self.hidden = 1.0

    def forward(self, x, context=None):
        return x + self._shift(x), zero_log_det(x)

    def inverse(self, z, context=None):
        return z - self._shift(z - self.hidden), zero_log_det(z)

    def _shift(self, x):
        inside = ((x >= 0) & (x <= 1)).all(1, keepdim=True)
        return self.hidden * inside.to(x)


def hidden_scale():
    """Returns a bijection that a file describes incorrectly."""
    bijection = HiddenScale()
    bijection.hidden = 2.0
    return bijection


def changed_after_built():
    """Returns a chain that was extended after it was described."""
    chain = kf.Chain([kf.bijections.ElementwiseAffine(4)])
    chain.bijections.append(kf.bijections.ElementwiseAffine(4))
    return chain


def ill_conditioned():
    """Returns a correct bijection of condition number 1e15."""
    return kf.bijections.ElementwiseAffine(4, log_scale=[34.5, 0, 0, 0])


MUTANTS = {
    "no tuple": (
        lambda: mutant(forward=lambda x, z, log_det: z),
        "forward should return \\(value, log_det\\), got Tensor",
    ),
    "log_det sign": (
        lambda: mutant(forward=lambda x, z, log_det: (z, -log_det)),
        "the log_det of forward should be log",
    ),
    "log_det sign in inverse": (
        lambda: mutant(inverse=lambda z, x, log_det: (x, -log_det)),
        "the log_det of inverse should be log",
    ),
    "dropped term": (DroppedTerm, "the log_det of forward should be log"),
    "log_det + 1e-6": (
        lambda: mutant(forward=lambda x, z, log_det: (z, log_det + 1e-6)),
        "the log_det of forward should be log",
    ),
    "log_det of inverse + 1e-6": (
        lambda: mutant(inverse=lambda z, x, log_det: (x, log_det + 1e-6)),
        "the log_det of inverse should be log",
    ),
    "log_det of the latent side": (
        lambda: mutant(inverse=lambda z, x, log_det: (x, log_det + 1e-3 * (z[:, 0] < -0.5))),
        "the log_det of inverse should be log.* from the latent side",
    ),
    "log_dets that do not cancel": (
        lambda: mutant(forward=rounded, inverse=rounded, base=Identity),
        "the log_dets of both directions should sum",
    ),
    "inverse + 1e-6": (
        lambda: mutant(inverse=lambda z, x, log_det: (x + 1e-6, log_det)),
        "the round trip from the data side",
    ),
    "one side only": (
        lambda: mutant(forward=doubled_below, base=Identity),
        "the round trip from the latent side",
    ),
    "context ignored in inverse": (ContextIgnored, "the round trip from the data side"),
    "dtype lost": (
        lambda: mutant(forward=lambda x, z, log_det: (z.float(), log_det)),
        "the dtype of the value of forward should be torch.float64, got torch.float32",
    ),
    "dtype of log_det": (
        lambda: mutant(inverse=lambda z, x, log_det: (x, log_det.float())),
        "the dtype of the log_det of inverse should be torch.float64 or wider",
    ),
    "log_det is an integer": (
        lambda: mutant(forward=lambda x, z, log_det: (z, log_det.long()), base=Identity),
        "the dtype of the log_det of forward",
    ),
    "shape of value": (
        lambda: mutant(forward=lambda x, z, log_det: (z[..., None], log_det)),
        "the shape of the value of forward",
    ),
    "shape of log_det": (
        lambda: mutant(forward=lambda x, z, log_det: (z, log_det[:, None])),
        "the shape of the log_det of forward should be \\(4,\\), got \\(4, 1\\)",
    ),
    "nan": (
        lambda: mutant(inverse=lambda z, x, log_det: (x * float("nan"), log_det)),
        "the value of inverse should be finite",
    ),
    "log_det not finite": (
        lambda: mutant(forward=lambda x, z, log_det: (z, log_det / 0)),
        "the log_det of forward should be finite",
    ),
    "derivative not finite": (
        lambda: mutant(forward=lambda x, z, log_det: (x + (x - x).sqrt(), log_det), base=Identity),
        "the Jacobian of forward should be finite",
    ),
    "input changed": (
        lambda: mutant(
            inverse=lambda z, x, log_det: (z.neg_().neg().clone(), log_det), base=Identity
        ),
        "inverse should not change its input in place",
    ),
    "context changed": (ContextChanged, "forward should not change its context in place"),
    "context not declared": (
        WidthNotDeclared,
        "context_features should be 2, .* that changes the result, got 0",
    ),
    "context declared wrongly": (
        WidthDeclaredWrongly,
        "context_features should be 2, .* that changes the result, got 3",
    ),
    "not repeatable": (
        lambda: mutant(
            forward=lambda x, z, log_det: (x + 1e-12 * torch.rand_like(x), log_det), base=Identity
        ),
        "forward should give the same result each time",
    ),
    "state": (Counting, "forward should change no state, but it did"),
    "state in training": (CountingInTraining, "state that the repr does not show"),
    "state after the start": (CountingAndShowing, "only the first call may initialize"),
    "batch leak": (
        lambda: shifted(batch_mean),
        "a row of forward should not depend on the other rows: off by",
    ),
    "batch leak of derivative": (
        lambda: shifted(lambda x: batch_mean(x) - batch_mean(x).detach()),
        "but its derivative by another is",
    ),
    "jv": (lambda: linearized("jv"), "the product jv of linearize"),
    "vjp": (lambda: linearized("vjp"), "the product vjp of linearize"),
    "inverse_jv": (lambda: linearized("inverse_jv"), "the product inverse_jv of linearize"),
    "inverse_vjp": (lambda: linearized("inverse_vjp"), "the product inverse_vjp of linearize"),
    "jv of several": (lambda: linearized("jv", several=True), "jv .* for several vectors"),
    "linearized value": (lambda: linearized("value"), "the value of linearize should"),
    "linearized log_det": (lambda: linearized("log_det"), "the log_det of linearize should"),
    "state when measured": (
        CountingLinearizations,
        "measuring should change no state and no mode",
    ),
    "log_det detached": (
        lambda: detached("forward"),
        "the log_det of forward should have the gradient of log.* with respect to x",
    ),
    "log_det of inverse detached": (
        lambda: detached("inverse"),
        "the log_det of inverse should have the gradient of log.* with respect to x",
    ),
    "log_det of one row detached": (
        lambda: detached("forward", rows=1),
        "the log_det of forward should have the gradient of log",
    ),
    "one log-scale detached": (DetachedScale, "the log_det of forward should have the gradient"),
    "log_det detached from a parameter": (
        DetachedByParameters,
        "the log_det of forward should have the gradient .* with respect to right.log_scale",
    ),
    "parameter not reached": (Unreached, "gradients through forward .* reach \\['unused'\\]"),
    "inverse without gradients": (DetachedInverse, "gradients through inverse should reach"),
    "file of another function": (
        hidden_scale,
        "a saved and loaded flow should be the same",
    ),
    "changed after it was built": (changed_after_built, "saving and loading should work, but"),
    "ill-conditioned": (ill_conditioned, "not testable in torch.float64 at these rows: eps"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_bijection_is_caught_by_the_law_meant_for_it(name):
    """Each mutant differs from a correct bijection in one way, and the message names it."""
    make, message = MUTANTS[name]
    x = torch.rand(4, 4, dtype=torch.float64)
    context = torch.randn(4, 2, dtype=torch.float64)
    with pytest.raises(ContractError, match=message):
        check_bijection(make().double(), x, context)


@pytest.mark.parametrize("base", [Mutant, Identity])
def test_the_bijections_of_the_mutants_are_correct(base):
    """Without the mutation no error is raised."""
    x = torch.rand(4, 4, dtype=torch.float64)
    check_bijection(base().double(), x, torch.randn(4, 2, dtype=torch.float64))


class OnceDifferentiable(Cubic):
    """The same, with a forward that is differentiable once."""

    def forward(self, x, context=None):
        return OneDerivative.apply(x), (1 + 3 * x**2).log().sum(1)


@pytest.mark.parametrize("kind", [Cubic, OnceDifferentiable])
@pytest.mark.parametrize("turn", [kf.Chain, lambda parts: kf.Inverse(*parts)])
def test_a_direction_with_one_derivative_passes(kind, turn):
    """A search has no second derivatives, but its log_det has the gradient."""
    check_bijection(turn([kind()]), torch.rand(4, 3, dtype=torch.float64))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_detached_log_det_of_a_search_is_caught(direction):
    """The other direction is the reference where the dense Jacobian has no derivative."""
    bijection = mutant(**{direction: lambda x, z, log_det: (z, log_det.detach())}, base=Cubic)
    with pytest.raises(ContractError, match=f"log_det of {direction} should have the gradient"):
        check_bijection(bijection, torch.rand(4, 3, dtype=torch.float64))


class FlowMutant(kf.Flow):
    """A correct flow, which the mutants break."""

    def __init__(self):
        bijection = kf.Chain([
            kf.bijections.ElementwiseAffine(2, log_scale=[0.5, 0.3], shift=[0.1, 0.0])
        ])
        super().__init__(StandardNormal(2), bijection)


def flow_mutant(log_prob=None, *, changed=None, source=None):
    """Returns a flow with another log_prob, other samples or another source of randomness.

    `log_prob` changes x and the density; `changed` the flow, n, x and the density of samples.
    """

    class Made(FlowMutant):
        def log_prob(self, x, context=None):
            density = super().log_prob(x, context)
            return density if log_prob is None else log_prob(x, density)

        def sample_and_log_prob(self, n, context=None, *, generator=None):
            generator = generator if source is None else source(generator)
            x, density = super().sample_and_log_prob(n, context, generator=generator)
            return (x, density) if changed is None else changed(self, n, x, density)

    return Made()


def cold(flow, n, x, density):
    """Returns samples at a lower temperature, with the density of the flow there."""
    x = flow.bijection.inverse(0.8 * flow.bijection(x)[0])[0]
    return x, flow.log_prob(x)


def density_of_another(flow, n, x, density):
    """Returns the density of a sample with the wrong sign of log_det."""
    z, log_det = flow.bijection(x)
    return x, flow.base.log_prob(z) - log_det


def never_empty(flow, n, x, density):
    """Returns one sample in place of none."""
    return (x, density) if n else FlowMutant().double().sample_and_log_prob(1)


def reseeded(generator):
    """Seeds the global generator in place of the given one."""
    torch.manual_seed(generator.initial_seed() if generator else 0)


def overflowing(z, x, log_det):
    """Returns infinite points of far latents."""
    return torch.where(z.abs() > 7, math.inf, x), log_det


class SampleWithGradient(FlowMutant):
    """sample carries gradients."""

    def sample(self, n, context=None, *, generator=None):
        return self.sample_and_log_prob(n, context, generator=generator)[0]


class DetachedSamples(FlowMutant):
    """rsample carries no gradients."""

    def rsample(self, n, context=None, *, generator=None):
        return self.sample(n, context, generator=generator)


@kf.register("test.OtherWhenLoaded")
class OtherWhenLoaded(kf.Flow):
    """A flow whose log_prob has a part that is not saved."""

    def __init__(self, base, bijection):
        super().__init__(base, bijection)
        self.bias = 1.0

    def log_prob(self, x, context=None):
        return super().log_prob(x, context) + self.bias


def other_when_loaded():
    """Returns a flow that is correct until it is loaded from a file."""
    flow = OtherWhenLoaded(StandardNormal(2), kf.bijections.ElementwiseAffine(2))
    flow.bias = 0.0
    return flow


FLOW_MUTANTS = {
    "log_prob without log_det": (
        lambda: flow_mutant(lambda x, density: density - 0.8),
        "log_prob should be that of the latent plus log",
    ),
    "shape of log_prob": (
        lambda: flow_mutant(lambda x, density: density[..., None]),
        "log_prob should have shape \\(B,\\), got \\(4, 1\\)",
    ),
    "leading shapes flattened": (
        lambda: flow_mutant(lambda x, density: density.flatten()),
        "log_prob of \\(2, B, \\*event\\) should have shape",
    ),
    "leading shapes change it": (
        lambda: flow_mutant(lambda x, density: density + 1e-6 * (x.dim() > 2)),
        "log_prob should not depend on leading",
    ),
    "density of the sample": (
        lambda: flow_mutant(changed=density_of_another),
        "the log_prob of a sample should be the density there",
    ),
    "temperature": (
        lambda: flow_mutant(changed=cold),
        "samples should have mean square 1 in the latent",
    ),
    "shifted samples": (
        lambda: flow_mutant(changed=lambda flow, n, x, density: (x + 0.3, flow.log_prob(x + 0.3))),
        "samples should have mean 0 in the latent",
    ),
    "far latents without a point": (
        lambda: kf.Flow(StandardNormal(2), mutant(inverse=overflowing, base=Identity)),
        "latents within 8 standard deviations should decode to finite points",
    ),
    "shape of samples": (
        lambda: flow_mutant(changed=lambda flow, n, x, density: (x.mT, density)),
        "samples should have shape \\(3, 2\\), got \\(2, 3\\)",
    ),
    "shape of their density": (
        lambda: flow_mutant(changed=lambda flow, n, x, density: (x, density[:, None])),
        "the log_prob of samples should have shape \\(3,\\)",
    ),
    "no samples": (
        lambda: flow_mutant(changed=never_empty),
        "sample\\(0\\) should have shape \\(0, 2\\)",
    ),
    "generator ignored": (
        lambda: flow_mutant(source=lambda generator: None),
        "sample should repeat with the generator's seed",
    ),
    "generator replaced": (
        lambda: flow_mutant(source=lambda generator: torch.Generator().manual_seed(5)),
        "sample should depend on the generator's seed",
    ),
    "global generator reseeded": (
        lambda: flow_mutant(source=reseeded),
        "should leave torch's global one unchanged",
    ),
    "sample with gradients": (SampleWithGradient, "sample should carry no gradient"),
    "rsample without gradients": (DetachedSamples, "rsample should carry gradients"),
    "file of another density": (
        other_when_loaded,
        "a saved and loaded flow should be the same",
    ),
}


@pytest.mark.parametrize("name", FLOW_MUTANTS)
def test_a_mutant_flow_is_caught_by_the_law_meant_for_it(name):
    """Each mutant differs from a correct flow in one way, and the message names it."""
    make, message = FLOW_MUTANTS[name]
    with pytest.raises(ContractError, match=message):
        check_flow(make().double(), torch.randn(4, 2, dtype=torch.float64))


def test_the_flows_of_the_mutants_are_correct():
    """Without the mutation no error is raised."""
    for flow in (FlowMutant(), flow_mutant()):
        check_flow(flow.double(), torch.randn(4, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_bijection(nn.Linear(2, 2), torch.zeros(2, 2)), "should be a Bijection"),
        (lambda: check_bijection(Identity(), torch.zeros(1, 2)), "at least two rows, got 1"),
        (lambda: check_bijection(Identity(), [1.0]), "'x' should be a tensor, got list"),
        (lambda: check_flow(Identity(), torch.zeros(2, 2)), "'flow' should be a Flow"),
        (
            lambda: check_bijection(Mutant(), torch.zeros(2, 4)),
            "'context' should be given, with 2 columns: this bijection is conditional",
        ),
    ],
)
def test_the_checks_refuse_invalid_arguments(call, message):
    """An invalid argument is an ArgumentError, not a broken law."""
    with pytest.raises(kf.errors.ArgumentError, match=message):
        call()


def test_a_contract_error_is_an_assertion_with_error_and_tolerance():
    """Test runners show it as a failure; its message has the error and the tolerance."""
    wrong = mutant(forward=lambda x, z, log_det: (z, log_det + 1))
    with pytest.raises(AssertionError, match=r"off by 1 at row \d, where .*e-1\d is allowed\.$"):
        check_bijection(wrong.double(), *(torch.rand(4, n, dtype=torch.float64) for n in (4, 2)))


def test_checking_leaves_the_bijection_unchanged():
    """The checks use copies: state, mode and gradients of the original stay."""
    norm = kf.bijections.ActNorm(3).double()
    check_bijection(norm, torch.randn(4, 3, dtype=torch.float64))
    assert norm.training
    assert not norm.initialized
    assert norm.log_scale.grad is None
