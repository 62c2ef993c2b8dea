"""The fused layer equals the equations, forward and backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from models.lif import LIFParams, lif, lif_reference
from models.surrogates import SURROGATES, Triangular

PLAIN = LIFParams(decay=0.5, v_threshold=1.0, v_reset=0.0, detach_reset=False, surrogate=Triangular())


@st.composite
def layers(draw: st.DrawFn) -> LIFParams:
    kind = draw(st.sampled_from(list(SURROGATES.values())))
    return LIFParams(
        decay=draw(st.sampled_from([0.0, 0.25, 0.5, 0.99, 1.0])),
        v_threshold=draw(st.sampled_from([0.3, 1.0, 2.0])),
        v_reset=draw(st.sampled_from([0.0, -0.5, 0.2])),
        detach_reset=draw(st.booleans()),
        surrogate=kind(draw(st.floats(0.3, 6))),
    )


def run_both(
    current: Tensor, params: LIFParams, noise: Tensor | None, weights: tuple[Tensor | None, Tensor | None], T: int
) -> list[list[Tensor]]:
    """Spikes, membrane and gradient of a random linear function of them, by `lif` and by `lif_reference`."""
    results = []
    for run in (lif, lif_reference):
        x = current.detach().requires_grad_()
        expanded = x.expand(T, *x.shape[1:])
        spikes, membrane = run(expanded, params, noise, True)
        assert membrane is not None
        value = sum((w * out).sum() for w, out in zip(weights, (spikes, membrane), strict=True) if w is not None)
        (grad,) = torch.autograd.grad(value, x)  # type: ignore[arg-type]
        results.append([spikes.detach(), membrane.detach(), grad])
    return results


@given(
    layers(),
    st.integers(1, 6),
    st.sampled_from([(3,), (2, 4), (2, 3, 4, 5)]),
    st.booleans(),
    st.sampled_from(["spikes", "membrane", "both"]),
    st.integers(0, 10_000),
)
def test_it_equals_the_equations_and_their_autograd(
    params: LIFParams, T: int, shape: tuple[int, ...], noisy: bool, of: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    current = 0.6 + 1.2 * random(T, *shape)
    noise = 0.6 * random(T, *shape) if noisy else None
    weights = (random(T, *shape) if of != "membrane" else None, random(T, *shape) if of != "spikes" else None)
    fused, reference = run_both(current, params, noise, weights, T)
    assert torch.equal(fused[0], reference[0])
    for a, b in zip(fused[1:], reference[1:], strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noisy", [False, True])
def test_it_accepts_the_layouts_that_networks_produce(noisy: bool) -> None:
    torch.manual_seed(0)
    weights = (torch.randn(4, 2, 3, 5, 5).double(), torch.randn(4, 2, 3, 5, 5).double())
    noise = torch.randn(4, 2, 3, 5, 5).double() if noisy else None
    last = torch.randn(8, 3, 5, 5).double().to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    crossed = torch.randn(2, 4, 3, 5, 5).double().transpose(0, 1)
    sliced = torch.randn(4, 2, 6, 5, 5).double()[:, :, ::2]
    same_each_step = torch.randn(1, 2, 3, 5, 5).double()
    for current in (last, crossed, sliced, same_each_step):
        fused, reference = run_both(1.5 * current, PLAIN, noise, weights, 4)
        for a, b in zip(fused, reference, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
        assert 0 < float(fused[0].mean()) < 1


def test_a_trace_computed_by_hand() -> None:
    # V: 0.6 | 0.3+0.8=1.1 fires, reset | 0+0.9 | 0.45+0.55=1.0 fires at the threshold exactly
    current = torch.tensor([0.6, 0.8, 0.9, 0.55], dtype=torch.float64)[:, None]
    spikes, membrane = lif(current, PLAIN, None, True)
    assert membrane is not None
    assert spikes[:, 0].tolist() == [0, 1, 0, 1]
    assert membrane[:, 0].tolist() == pytest.approx([0.6, 1.1, 0.9, 1.0])


def test_a_gradient_computed_by_hand() -> None:
    # d(S1)/d(I0) with V0 = 0.6 (no spike), V1 = 0.9: the surrogate at V1 is 0.9; V1's slope in V0 is
    # decay * ((1 - S0) - V0 * surrogate(V0)) = 0.5 * (1 - 0.6 * 0.6) = 0.32, or 0.5 with a detached reset.
    for detach, slope in ((False, 0.32), (True, 0.5)):
        current = torch.tensor([[0.6], [0.6]], dtype=torch.float64, requires_grad=True)
        spikes, _ = lif(current, PLAIN._replace(detach_reset=detach))
        (grad,) = torch.autograd.grad(spikes[1].sum(), current)
        assert grad[:, 0].tolist() == pytest.approx([0.9 * slope, 0.9])


def test_the_membrane_potential_is_that_before_noise_and_reset() -> None:
    current = torch.full((2, 1), 0.5, dtype=torch.float64)
    noise = torch.tensor([[2.0], [0.0]], dtype=torch.float64)
    spikes, membrane = lif(current, PLAIN, noise, True)
    assert membrane is not None
    assert spikes[:, 0].tolist() == [1, 0]
    assert membrane[:, 0].tolist() == pytest.approx([0.5, 0.5])


def test_a_gradient_that_nobody_asks_for_is_not_computed() -> None:
    current = torch.rand(3, 4, requires_grad=True)
    _, membrane = lif(current, PLAIN, None, False)
    assert membrane is None
    _, membrane = lif(current, PLAIN, None, True)
    assert membrane is not None
    (grad,) = torch.autograd.grad(membrane.sum(), current)
    assert float(grad.abs().min()) > 0


def test_a_long_trace_stays_exact() -> None:
    torch.manual_seed(1)
    current = torch.randn(200, 50, dtype=torch.float64) + 0.4
    fused, reference = run_both(current, PLAIN, None, (torch.randn(200, 50).double(), None), 200)
    assert torch.equal(fused[0], reference[0])
    assert torch.allclose(fused[2], reference[2], rtol=1e-12, atol=1e-12)
