"""Surrogate derivatives: shapes of area one, in a written form that round-trips."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.surrogates import SURROGATES, ArcTan, Gaussian, Rectangular, Sigmoid, Triangular
from models.surrogates import format_surrogate as written
from models.surrogates import parse_surrogate as parse

KINDS = st.sampled_from(list(SURROGATES.values()))
SHARPNESS = st.floats(0.1, 20)


@given(KINDS, SHARPNESS)
def test_the_area_is_one(kind: type, sharpness: float) -> None:
    surrogate = kind(sharpness)
    # Points that grow apart: fine at the threshold, and far enough out for the arctan's 1/x^2 tail.
    x = torch.linspace(-9, 9, 100_001, dtype=torch.float64).sinh()
    assert float(torch.trapezoid(surrogate.grad(x), x)) == pytest.approx(1, abs=3e-3)


@given(KINDS, SHARPNESS)
def test_it_is_even_nowhere_negative_and_highest_at_the_threshold(kind: type, sharpness: float) -> None:
    surrogate = kind(sharpness)
    x = torch.linspace(0, 5, 501, dtype=torch.float64)
    values = surrogate.grad(x)
    assert torch.allclose(values, surrogate.grad(-x))
    assert bool((values >= 0).all())
    assert bool((values.diff() <= 1e-12).all())


@pytest.mark.parametrize(
    ("surrogate", "x", "value"),
    [
        (Triangular(), 0.0, 1.0),
        (Triangular(), 0.25, 0.75),
        (Triangular(), 1.0, 0.0),
        (Triangular(2.0), 1.0, 0.25),
        (Rectangular(), 0.49, 1.0),
        (Rectangular(), 0.51, 0.0),
        (Rectangular(0.5), 0.2, 2.0),
        (ArcTan(), 0.0, 1.0),
        (ArcTan(), 1.0, 1 / (1 + math.pi**2)),
        (Sigmoid(), 0.0, 1.0),
        (Sigmoid(1.0), 1.0, 0.19661193324148185),
        (Gaussian(), 0.0, 0.3989422804014327),
        (Gaussian(2.0), 0.5, 2 * 0.24197072451914337),
    ],
    ids=str,
)
def test_values_from_the_formulas(surrogate: object, x: float, value: float) -> None:
    got = surrogate.grad(torch.tensor([x, -x], dtype=torch.float64))  # type: ignore[attr-defined]
    assert got.tolist() == pytest.approx([value, value], abs=1e-12)


def test_the_sigmoid_and_the_gaussian_are_derivatives_of_what_they_are_named_after() -> None:
    x = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(torch.sigmoid(3 * x).sum(), x)
    assert torch.allclose(Sigmoid(3).grad(x.detach()), slope)
    # With alpha = 1 / sigma: the slope of a noisy neuron's firing probability.
    (slope,) = torch.autograd.grad(torch.special.ndtr(x / 0.5).sum(), x)
    assert torch.allclose(Gaussian(2).grad(x.detach()), slope)


@given(KINDS, SHARPNESS)
def test_the_argument_is_left_alone(kind: type, sharpness: float) -> None:
    x = torch.linspace(-1, 1, 7)
    before = x.clone()
    assert kind(sharpness).grad(x).data_ptr() != x.data_ptr()
    assert torch.equal(x, before)


@given(KINDS, st.floats(1e-6, 1e6))
def test_the_written_form_reads_back(kind: type, sharpness: float) -> None:
    assert parse(written(kind(sharpness))) == kind(sharpness)


@pytest.mark.parametrize("name", SURROGATES)
def test_a_name_alone_takes_the_default(name: str) -> None:
    assert parse(name) == SURROGATES[name]()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("square", "unknown surrogate 'square'; choose from triangular"),
        ("arctan:gamma=1", "has one parameter, 'alpha', not 'gamma'"),
        ("arctan:alpha=x", "is not a number"),
        ("arctan:alpha=0", "must be positive"),
        ("arctan:alpha=-1", "must be positive"),
        ("arctan:alpha=inf", "must be positive and finite"),
        ("arctan:alpha=nan", "must be positive"),
        ("arctan:alpha", "is not a number"),
    ],
)
def test_what_is_no_surrogate_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)
