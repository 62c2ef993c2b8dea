"""Losses are per sample, and say what they claim at ties and extremes."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attacks.losses import LOSSES, cross_entropy, margin

LOGITS = arrays("float64", st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-1e3, 1e3))


@given(LOGITS, st.randoms(use_true_random=False))
def test_the_margin_is_positive_exactly_where_another_class_wins(values: object, random: object) -> None:
    logits = torch.tensor(values)
    y = torch.tensor([random.randrange(logits.shape[1]) for _ in logits])  # type: ignore[attr-defined]
    won = margin(logits, y) > 0
    for row, label, lost in zip(logits.tolist(), y.tolist(), won.tolist(), strict=True):
        assert lost == (max(v for j, v in enumerate(row) if j != label) > row[label])


def test_a_tie_has_margin_zero() -> None:
    assert margin(torch.tensor([[2.0, 2.0, 1.0]]), torch.tensor([0])).item() == 0


@given(LOGITS)
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
