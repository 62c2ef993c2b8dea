"""Deflation removes the largest singular component and nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import images, labels, spiking_net
from torch import Tensor, nn
from torch.nn import functional

from defenses.dsd import Deflation, deflated


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 100))
def test_the_largest_singular_value_is_gone_and_the_others_stay(rows: int, columns: int, seed: int) -> None:
    g = matrix(rows, columns, seed)
    u, s, vh = torch.linalg.svd(g, full_matrices=False)
    got = deflated(g)
    torch.testing.assert_close(got, g - s[0] * torch.outer(u[:, 0], vh[0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.linalg.svdvals(got)[:-1], s[1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(100, 400), (400, 100), (300, 310)])
def test_a_large_matrix_with_a_leading_direction_loses_exactly_that(shape: tuple[int, int]) -> None:
    g = matrix(*shape) + 3 * torch.outer(matrix(shape[0], 1, 1)[:, 0], matrix(shape[1], 1, 2)[:, 0])
    s = torch.linalg.svdvals(g)
    left = torch.linalg.svdvals(deflated(g))
    torch.testing.assert_close(left[:-1], s[1:], rtol=1e-9, atol=1e-9)
    assert float(left[-1]) < 1e-9


def test_of_noise_the_largest_value_is_found_to_a_hundredth_and_none_grows() -> None:
    for seed in range(3):
        g = matrix(300, 320, seed)
        rest = deflated(g)
        s, left = torch.linalg.svdvals(g), torch.linalg.svdvals(rest)
        removed = torch.linalg.matrix_norm(g - rest)
        assert float(removed) == pytest.approx(float(s[0]), rel=0.01)
        assert int(torch.linalg.matrix_rank(g - rest)) == 1
        assert bool((left <= s + 1e-9).all())


def test_rank_one_zero_and_single_precision() -> None:
    g = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 8))
    assert float(deflated(g).abs().max()) < 1e-5
    assert deflated(g).dtype == torch.float32
    assert torch.equal(deflated(torch.zeros(4, 7)), torch.zeros(4, 7))
    assert torch.equal(deflated(torch.zeros(100, 107)), torch.zeros(100, 107))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(deflated(matrix(9, 7).float()), deflated(matrix(9, 7)).float())


@pytest.mark.parametrize("exponent", [-90, 90])
def test_gradients_whose_squares_leave_single_precision_lose_the_same(exponent: int) -> None:
    g = matrix(100, 120).float()
    assert torch.equal(deflated(g * 2.0**exponent), deflated(g) * 2.0**exponent)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [(9, 7), (100, 120)])
def test_what_is_not_finite_stays_so(shape: tuple[int, int], value: float) -> None:
    g = matrix(*shape).float()
    g[2, 3] = value
    assert not bool(deflated(g).isfinite().all())


def test_the_same_gradient_gives_the_same_bits() -> None:
    g = matrix(120, 200).float()
    torch.manual_seed(1)
    first = deflated(g)
    torch.manual_seed(2)
    assert torch.equal(first, deflated(g))


def test_weights_gradients_are_deflated_and_nothing_else_is_touched() -> None:
    model = spiking_net().train()
    model.add_module("spare", nn.Linear(1, 5))
    functional.cross_entropy(model(images(8)), labels(8)).backward()
    before = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    Deflation().before_update(model)
    for name, p in model.named_parameters():
        assert torch.equal(p, weights[name])
        if p.grad is None:
            continue
        if p.dim() < 2:
            assert torch.equal(p.grad, before[name])
        else:
            torch.testing.assert_close(p.grad.flatten(1), deflated(before[name].flatten(1)))
            assert p.grad.shape == p.shape and not torch.equal(p.grad, before[name])


def test_a_matrix_of_one_column_still_learns() -> None:
    layer = nn.Linear(1, 5)
    layer(torch.ones(2, 1)).sum().backward()
    Deflation().before_update(layer)
    assert layer.weight.grad is not None and float(layer.weight.grad.abs().min()) > 0
