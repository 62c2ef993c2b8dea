"""Losses are per sample, and say what they claim at ties and extremes."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from attacks.losses import LOSSES, cross_entropy, dlr, margin, towards

LOGITS = arrays("float64", st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-1e3, 1e3))
THREE = arrays("float64", st.tuples(st.integers(1, 6), st.integers(3, 6)), elements=st.floats(-1e3, 1e3))
LABELS = st.integers(0, 2)


@given(LOGITS, st.randoms(use_true_random=False))
def test_the_margin_is_positive_exactly_where_another_class_wins(values: object, random: object) -> None:
    logits = torch.tensor(values)
    y = torch.tensor([random.randrange(logits.shape[1]) for _ in logits])  # type: ignore[attr-defined]
    won = margin(logits, y) > 0
    for row, label, lost in zip(logits.tolist(), y.tolist(), won.tolist(), strict=True):
        assert lost == (max(v for j, v in enumerate(row) if j != label) > row[label])


def test_a_tie_has_margin_zero() -> None:
    assert margin(torch.tensor([[2.0, 2.0, 1.0]]), torch.tensor([0])).item() == 0


@given(THREE)
def test_a_sample_s_loss_does_not_depend_on_its_neighbours(values: object) -> None:
    logits = torch.tensor(values)
    y = torch.zeros(len(logits), dtype=torch.long)
    for loss in LOSSES.values():
        together = loss(logits, y)
        assert together.shape == (len(logits),)
        assert torch.equal(together, torch.cat([loss(row[None], y[:1]) for row in logits]))


def test_cross_entropy_is_the_textbook_s() -> None:
    logits, y = torch.randn(7, 5, dtype=torch.float64), torch.arange(7) % 5
    expected = torch.tensor([-(row.softmax(0)[label].log()) for row, label in zip(logits, y, strict=True)])
    assert torch.allclose(cross_entropy(logits, y), expected.double())


def official_dlr(row: Tensor, label: int) -> float:
    """Croce and Hein, Eq. 6: -(z_y - max_{i != y} z_i) / (z_pi1 - z_pi3)."""
    z = row.tolist()
    order = sorted(z, reverse=True)
    rival = max(value for i, value in enumerate(z) if i != label)
    return -(z[label] - rival) / (order[0] - order[2])


def untied(logits: Tensor) -> bool:
    """No first three logits are near one another."""
    top = logits.topk(3, dim=1).values
    return bool((top[:, 0] - top[:, 2] > 1e-3 * (1 + logits.abs().amax(1))).all())


@given(THREE, LABELS)
def test_dlr_is_the_official_one_where_nothing_ties(values: object, label: int) -> None:
    logits = torch.tensor(values)
    assume(untied(logits))
    expected = torch.tensor([official_dlr(row, label) for row in logits], dtype=torch.float64)
    assert torch.allclose(dlr(logits, torch.full((len(logits),), label)), expected, rtol=1e-12, atol=1e-12)


@given(THREE, LABELS, st.floats(-1e4, 1e4), st.floats(1e-6, 1e6))
def test_dlr_does_not_change_with_shift_and_scale(values: object, label: int, shift: float, scale: float) -> None:
    logits, y = torch.tensor(values), torch.full((len(values),), label)  # type: ignore[arg-type]
    assume(untied(logits))
    for changed in (logits + shift, scale * logits, scale * (logits + shift)):
        assert torch.allclose(dlr(changed, y), dlr(logits, y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 100.0, -3e4])
def test_a_far_shift_does_not_make_a_tie(shift: float) -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]) + shift
    assert dlr(logits, torch.tensor([0])).item() == pytest.approx(-0.5)


TIES = {
    "silent": [0.0, 0.0, 0.0, 0.0],
    "full": [0.7, 0.7, 0.7, 0.7],
    "full, rounded": [0.7, 0.7 + 1e-7, 0.7 - 1e-7, 0.7],
    "three-way": [3.0, 3.0, 3.0, -1.0],
    "three-way, rounded": [3.0, 3.0 - 3e-7, 3.0 + 3e-7, -1.0],
    "three-way, below": [3.0, 3.0, 3.0, 0.0],
}


@pytest.mark.parametrize("name", TIES)
@pytest.mark.parametrize("label", [0, 1, 3])
def test_at_a_three_way_tie_dlr_is_the_margin(name: str, label: int) -> None:
    results = []
    for loss in (dlr, margin):
        logits = torch.tensor([TIES[name]], requires_grad=True)
        value = loss(logits, torch.tensor([label]))
        (grad,) = torch.autograd.grad(value.sum(), logits)
        results.append((value.detach(), grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert float(results[0][1].abs().sum()) == pytest.approx(2)


@pytest.mark.parametrize("label", [0, 1, 2, 3])
def test_a_two_way_tie_is_no_tie_of_dlr(label: int) -> None:
    logits = torch.tensor([[3.0, 3.0, 1.0, 0.0]], requires_grad=True)
    value = dlr(logits, torch.tensor([label]))
    assert value.item() == pytest.approx([0, 0, 1, 1.5][label])
    (grad,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(grad).all()
    assert float(grad.abs().sum()) > 0


@given(arrays("float32", (4, 5), elements=st.sampled_from([0, 1, 2, 1e-20, 1e20, 0.1 + 0.2, 0.3])), LABELS)
def test_dlr_and_its_gradient_are_finite_on_counts_and_extremes(values: object, label: int) -> None:
    logits = torch.tensor(values, requires_grad=True)
    value = dlr(logits, torch.full((4,), label))
    (grad,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(value).all()
    assert torch.isfinite(grad).all()


def test_dlr_needs_three_classes() -> None:
    with pytest.raises(ValueError, match="at least 3 classes, not 2; use loss=margin"):
        dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))


@given(THREE, LABELS, LABELS)
def test_towards_is_the_target_s_lead(values: object, true: int, target: int) -> None:
    logits = torch.tensor(values)
    pairs = torch.tensor([[true, target]] * len(logits))
    assert towards(logits, pairs).tolist() == [row[target] - row[true] for row in logits.tolist()]
